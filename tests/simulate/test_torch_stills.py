"""Batches of pictures on a device against the pairs of the CPU, picture by picture."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from evlift.errors import ConfigError, InputError
from evlift.represent import VoxelGrid
from evlift.simulate import Sensor, draw_motion, get_sensor, pair_from_image, torch_engine
from evlift.simulate.camera import draw_camera
from evlift.simulate.readout import queue
from evlift.simulate.scene import Flat
from evlift.simulate.sensor import to_grey
from evlift.simulate.torch_stills import log_intensity, simulate_batch, warp

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def scenes(batch, height, width, seed=0):
    """Smooth textured pictures with hard edges, uint8 [B, 3, H, W]."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(batch):
        small = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.circle(picture, (width // 3, height // 2), height // 5, tuple(int(c) for c in rng.integers(0, 256, 3)), -1)
        pictures.append(picture)
    return torch.as_tensor(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def count(events):
    picture = np.zeros((events.height, events.width), np.int64)
    np.add.at(picture, (events.y, events.x), 1)
    return picture


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "colours, how",
    [
        (3, {}),
        (1, {}),
        (3, {"path": "mixed", "motion_px": (6, 20)}),
        (1, {"kind": "camera", "motion_px": (3, 20)}),
        (3, {"duration_us": 7001, "step_px": 0.4}),
    ],
)
def test_the_same_pairs_as_picture_by_picture(device, colours, how):
    """The same paths and frames; OpenCV samples to the last bit otherwise, which moves a few crossings."""
    pictures = scenes(5, 72, 96)[:, :colours]
    seeds = [11, 5, 8, 2**40, 3]
    made = simulate_batch(pictures.to(device), seeds=seeds, **how)
    assert len(made) == 5 and made.counts().sum() == made.total
    for mine, picture, seed in zip(made.events(), pictures, seeds, strict=True):
        image = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
        wanted = pair_from_image(image if colours == 3 else image[..., 0], seed=seed, **how).events
        assert len(wanted) > 500 and abs(len(mine) - len(wanted)) <= 0.002 * len(wanted) + 2
        differ = count(mine) != count(wanted)
        assert differ.mean() < 0.005
        for events in (mine, wanted):
            assert events.t.min() > 0 and events.t.max() <= how.get("duration_us", 50_000)
        times = [np.bincount(e.y.astype(int) * 96 + e.x, e.t, 72 * 96) for e in (mine, wanted)]
        apart = np.abs(times[0] - times[1])[~differ.ravel()] / np.maximum(count(wanted).ravel()[~differ.ravel()], 1)
        assert np.median(apart) <= 1 and np.quantile(apart, 0.99) < 200


@pytest.mark.parametrize("kind", ["planar", "camera"])
def test_a_pixel_sees_its_picture_through_the_camera(kind):
    """Sampling against the same in float64, borders mirrored."""
    rng = np.random.default_rng(4)
    pictures = rng.normal(size=(6, 40, 50)).astype(np.float32)
    scale = np.array([[2 / 49, 0, -1], [0, 2 / 39, -1], [0, 0, 1]])
    for k in range(6):
        motion = draw_motion(k, 40, 50, (2, 60), rotation=1.0, zoom=1.0)
        scene = Flat(40, 50, motion, draw_camera(k, motion, 40, 50, False) if kind == "camera" else None)
        back = np.linalg.inv(scene.maps(np.array([0.3])))
        maps = torch.as_tensor(scale @ back, dtype=torch.float32)
        mine = warp(torch.as_tensor(pictures[k : k + 1]), maps, kind == "planar")
        y, x = np.mgrid[:40, :50]
        places = np.einsum("ij,jhw->ihw", back[0], np.stack([x, y, np.ones_like(x)]))
        places = places[:2] / places[2]
        padded = np.pad(pictures[k].astype(np.float64), 199, "reflect")
        i, j = np.floor(places[1]).astype(int), np.floor(places[0]).astype(int)
        fy, fx = places[1] - i, places[0] - j
        i, j = i + 199, j + 199
        expected = (1 - fy) * ((1 - fx) * padded[i, j] + fx * padded[i, j + 1])
        expected += fy * ((1 - fx) * padded[i + 1, j] + fx * padded[i + 1, j + 1])
        np.testing.assert_allclose(mine[0].numpy(), expected, rtol=0, atol=2e-4)


def test_who_else_is_in_the_batch_does_not_matter():
    """Without random effects: in parts, in another order, alone."""
    pictures = scenes(4, 40, 56)
    whole = simulate_batch(pictures, seeds=[4, 5, 6, 7])
    parts = simulate_batch(pictures, seeds=[4, 5, 6, 7], most_pixels=2 * 40 * 56)
    assert torch.equal(whole.words.sort().values, parts.words.sort().values)
    turned = simulate_batch(pictures.flip(0), seeds=[7, 6, 5, 4]).events()[::-1]
    alone = [simulate_batch(pictures[i : i + 1], seeds=[4 + i]).events()[0] for i in range(4)]
    for one, other, third in zip(whole.events(), turned, alone, strict=True):
        assert len(one)
        for name in "xytp":
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            np.testing.assert_array_equal(getattr(one, name), getattr(third, name))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sensor", ["davis346", "noisy-night"])
def test_grids_of_a_batch_are_those_of_its_events(device, sensor):
    pictures = scenes(3, 64, 80).to(device)
    made = simulate_batch(pictures, sensor, seeds=[1, 2, 3])
    for grid in (VoxelGrid(5), VoxelGrid(3, "split")):
        expected = np.stack([grid(events) for events in made.events()])
        np.testing.assert_allclose(made.voxel_grid(grid).cpu().numpy(), expected, rtol=0, atol=1e-4)
    again = simulate_batch(pictures, sensor, seeds=[1, 2, 3])
    assert torch.equal(made.voxel_grid(), again.voxel_grid())
    other = simulate_batch(pictures, sensor, seeds=[1, 2, 4])
    assert made.total != other.total


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # within PyTorch, while it is imported
@pytest.mark.parametrize("sensor", ["ideal", "davis346"])
def test_fused_it_gives_the_same(monkeypatch, sensor):
    """Traced by the compiler, whole; run without generating code, which would take half a minute."""
    torch_engine._fused.cache_clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    torch.compiler.reset()
    counters.clear()
    pictures = scenes(4, 40, 56)
    made = simulate_batch(pictures, sensor, seeds=[4, 5, 6, 7], fuse=True)
    wanted = simulate_batch(pictures, sensor, seeds=[4, 5, 6, 7])
    torch_engine._fused.cache_clear()
    assert counters["frames"]["ok"] <= 4  # of each function one for many cameras and one for a last one
    assert made.total == wanted.total > 1000
    assert torch.equal(made.words.sort().values, wanted.words.sort().values)


def test_a_slow_readout_and_clock_hold_for_the_whole_window():
    """The other engine's own queue, over the events of the same window as they leave the pixels."""
    pictures = scenes(3, 64, 80, 1)
    plain = simulate_batch(pictures, seeds=[1, 2, 3]).events()
    made = simulate_batch(pictures, Sensor(readout_hz=1e5, readout_wait_us=400, tick_us=20), seeds=[1, 2, 3]).events()
    lossy = 0
    for events, mine in zip(plain, made, strict=True):
        x, y, t, p = (column.copy() for column in (events.x, events.y, events.t, events.p))
        passed, _ = queue(x, y, t, p, 0, 0.0, 10.0, 400.0)
        t = -(-t[:passed] // 20) * 20
        kept = t <= 50_000
        np.testing.assert_array_equal(mine.t, t[kept])
        assert sorted(zip(mine.x, mine.y, strict=True)) == sorted(zip(x[:passed][kept], y[:passed][kept], strict=True))
        lossy += passed < len(events)
        assert np.bincount(mine.t // 20).max() <= 2
    assert lossy


def test_log_intensity_is_that_of_the_other_engine():
    rng = np.random.default_rng(0)
    sensor = get_sensor("ideal")
    pictures = rng.integers(0, 256, (2, 3, 300, 200), dtype=np.uint8)
    for picture, mine in zip(pictures, log_intensity(torch.as_tensor(pictures), sensor), strict=True):
        expected = sensor.log_intensity(to_grey(np.ascontiguousarray(picture.transpose(1, 2, 0))))
        np.testing.assert_array_equal(mine.numpy(), expected)
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(log_intensity(grey.float() / 255, sensor), log_intensity(grey, sensor))
    between = torch.linspace(0, 1, 10_001, dtype=torch.float64).view(1, 1, 1, -1)
    exact = torch.log(between[0, 0] + sensor.log_offset)
    for dtype in (torch.float32, torch.float64):
        torch.testing.assert_close(log_intensity(between.to(dtype), sensor)[0].double(), exact, rtol=0, atol=2.1e-4)
    colours = log_intensity(torch.rand(1, 3, 50, 50), sensor)
    assert colours.shape == (1, 50, 50) and torch.isfinite(colours).all()
    wild = torch.tensor([-3.0, 2.0, torch.inf]).view(1, 1, 1, 3)
    assert torch.equal(log_intensity(wild, sensor).view(-1).exp(), torch.tensor([0.1, 1.1, 1.1]).log().exp())


def test_pictures_of_one_pixel_and_of_no_contrast():
    for shape in ((1, 1), (1, 9), (9, 1)):
        made = simulate_batch(torch.full((2, 3, *shape), 80, dtype=torch.uint8))
        assert made.total == 0 and not made.voxel_grid().any()
        assert [len(events) for events in made.events()] == [0, 0]


def test_what_cannot_be_used_is_refused():
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for bad in (pictures[0], pictures[:, :2], pictures[:0], pictures.permute(0, 2, 3, 1)):
        with pytest.raises(InputError, match=r"give \[batch, 3, height, width\]"):
            simulate_batch(bad)
    with pytest.raises(InputError, match=r"torch.int64; give torch.uint8"):
        simulate_batch(pictures.long())
    for value in (torch.nan, torch.inf):
        with pytest.raises(InputError, match="not finite"):
            simulate_batch(torch.full((1, 1, 8, 8), value))
    with pytest.raises(InputError, match="with 3 seeds"):
        simulate_batch(pictures, seeds=[1, 2, 3])
    for bad in ({"step_px": 0}, {"max_steps": 1}, {"duration_us": 31}, {"duration_us": 1 << 30}, {"motion_px": (0, 1)}):
        with pytest.raises(ConfigError):
            simulate_batch(pictures, **bad)
    for bad in ({"kind": "sideways"}, {"path": "home"}):
        with pytest.raises(ConfigError, match="choose one of"):
            simulate_batch(pictures, **bad)
    with pytest.raises(ConfigError, match="no sensor"):
        simulate_batch(pictures, "dvs")
