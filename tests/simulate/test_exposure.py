import dataclasses

import numpy as np

from evlift.simulate import Sensor
from evlift.simulate.exposure import expose
from evlift.simulate.motion import Motion
from evlift.simulate.scene import Flat

T = 50_000
SWEEP = Motion(length_px=40, heading=0, turn=0, swing=0, phase=0, angle=0, log_zoom=0)  # 40 px to the right


def exposed(image, sensor, motion=SWEEP):
    return expose(image, Flat(*image.shape[:2], motion), sensor, T)


def test_without_a_frame_camera_the_picture_is_the_very_array():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert exposed(image, Sensor()) is image
    assert exposed(image, Sensor(exposure_us=10)) is image  # nothing moves by a pixel


def test_blur_is_as_long_as_the_way_and_stays_in_place():
    image = np.zeros((5, 81), np.uint8)
    image[:, 40] = 240
    before = image.copy()
    blurred = exposed(image, Sensor(exposure_us=10_000))  # a fifth of 40 px
    np.testing.assert_array_equal(image, before)
    row = blurred[2].astype(float)
    lit = np.flatnonzero(row > 1)
    assert 8 <= len(lit) <= 10 and row.sum() == 240 + np.clip(row.sum() - 240, -5, 5)
    np.testing.assert_allclose((row * np.arange(81)).sum() / row.sum(), 40, atol=0.05)  # evenly to both sides
    np.testing.assert_allclose(row[38:43], 30, atol=1)
    assert blurred.dtype == np.uint8 and (blurred == blurred[0]).all()


def test_blur_goes_along_the_motion():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    blurred = exposed(image, Sensor(exposure_us=10_000)).astype(float)
    along, across = np.diff(blurred, axis=1).std(), np.diff(blurred, axis=0).std()
    assert along < 0.5 * across
    flat = np.full((40, 60), 77, np.uint8)
    np.testing.assert_array_equal(exposed(flat, Sensor(exposure_us=10_000)), flat)


def test_a_turned_view_of_an_array_will_do():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)[:, ::-1]
    sensor = Sensor(exposure_us=10_000)
    np.testing.assert_array_equal(exposed(image, sensor), exposed(np.ascontiguousarray(image), sensor))


def test_an_exposure_longer_than_the_window_still_ends():
    image = np.random.default_rng(0).integers(0, 256, (10, 200), np.uint8)
    longest = exposed(image, Sensor(exposure_us=2 * T))
    np.testing.assert_array_equal(exposed(image, Sensor(exposure_us=10**9)), longest)


def test_tone():
    image = np.arange(256, dtype=np.uint8)[None]
    shown = exposed(image, Sensor(dynamic_range_db=20))  # a tenth of white is black
    assert (shown[0, :26] == 0).all() and shown[0, 255] == 255
    assert shown[0, 128] == round(255 * (128 / 255 - 0.1) / 0.9)
    shown = exposed(image, Sensor(gamma=2.0))
    assert (shown[0, 0], shown[0, 64], shown[0, 255]) == (0, round(255 * (64 / 255) ** 0.5), 255)
    both = exposed(image, dataclasses.replace(Sensor(gamma=2.0), dynamic_range_db=20))
    assert both[0, 128] == round(255 * ((128 / 255 - 0.1) / 0.9) ** 0.5)
