"""When a camera looks, by hand."""

import numpy as np

from evlift.simulate.course import Course
from evlift.simulate.motion import Motion, SampledMotion
from evlift.simulate.scene import Flat

H, W = 20, 30


def course(**settings):
    plain = {"kind": "planar", "path": "smooth", "motion_px": None, "rotation": 0.3, "zoom": 0.5}
    return Course(**plain | {"duration_us": 10_000, "step_px": 1.0, "max_steps": 32} | settings)


def right(length):
    return Flat(H, W, Motion(length, 0, 0, 0, 0, 0, 0))


def test_a_smooth_way_is_looked_at_evenly_once_a_pixel():
    for length, step_px, most, steps in ((7.5, 1, 32, 8), (7.5, 0.5, 32, 15), (7.5, 1, 5, 5), (0.1, 1, 32, 4)):
        times, u = course(step_px=step_px, max_steps=most).moments(right(length))
        np.testing.assert_allclose(u, np.arange(steps + 1) / steps, rtol=1e-15)
        assert times.tolist() == np.round(10_000 * u).tolist()


def test_a_jump_is_looked_at_while_it_lasts():
    """At rest, but for 20 px in the middle tenth: of 20 steps about one in ten goes to the rest of the window."""
    rates = np.zeros((1001, 4))
    rates[450:551, :2] = 10
    times, u = course(path="saccade").moments(Flat(H, W, SampledMotion(20.0, rates, 0, 0)))
    assert times[0] == 0 and times[-1] == 10_000 and len(times) == 21 and (np.diff(times) > 0).all()
    np.testing.assert_array_equal(u, times / 10_000)
    during = ((u > 0.44) & (u < 0.56)).sum()
    assert 17 <= during <= 19
    moved = np.diff(Flat(H, W, SampledMotion(20.0, rates, 0, 0)).tracks(u)[:, 0, 0])
    assert moved.max() < 1.3


def test_times_in_a_window_of_few_microseconds_are_each_there_once():
    times, _ = course(path="shake", duration_us=32).moments(right(500))
    assert len(set(times.tolist())) == len(times) <= 33


def test_the_reach_left_out_follows_the_kind_of_way():
    for settings, layered, most in (({}, False, 15), ({}, True, 50), ({"kind": "camera"}, False, 50)):
        lengths = [course(**settings).draw_path(np.random.default_rng(k), H, W, layered).length_px for k in range(200)]
        assert most * 0.8 < max(lengths) <= most and min(lengths) >= (2 if most == 15 else 0.5)
