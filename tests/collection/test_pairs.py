"""Items of both data sets, by value; the same whoever makes them."""

import json
import pickle
from math import ceil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from evlift.collection import PairDataset, SimulatedPairs, build_from_images, image_files, open_collection, open_source
from evlift.collection.store import PAIRS, write_info, write_pairs
from evlift.collection.transform import View, draw
from evlift.errors import ConfigError, InputError
from evlift.events import Events, Frame, write_recording
from evlift.represent import VoxelGrid
from evlift.simulate import pair_from_image

CAMVID = Path(__file__).parents[2] / "../shared/data/camvid"


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


@pytest.fixture(scope="module")
def beacons(tmp_path_factory):
    """Three pairs: in each one pixel of a black picture is bright, has all the events, and alone has label 1."""
    path = tmp_path_factory.mktemp("beacons") / "c"
    height, width = 54, 80
    places = [(10, 7), (41, 30), (70, 50)]
    events, frames, rows = [], [], []
    for i, (x, y) in enumerate(places):
        t = np.arange(100) * 10 + i * 2000
        events.append(Events(np.full(100, x), np.full(100, y), t, np.ones(100, bool), height, width))
        image = np.zeros((height, width, 3), np.uint8)
        image[y - 1 : y + 2, x - 1 : x + 2] = 255  # 3×3, which a JPEG keeps
        frames.append(Frame(i * 2000 + 1000, image))
        row = {"recording": "r", "frame": i, "t_image_us": i * 2000 + 1000, "t0_us": i * 2000, "t1_us": i * 2000 + 1000}
        rows.append({**row, "split": "train", "shot": 0, "events": 100, "labels": None})
    write_recording(path / "recordings" / "r", Events.concatenate(events), frames=frames)
    write_pairs(path, rows)
    made = {"r": {"pairs": 3, "events": 300, "height": height, "width": width}}
    info = {"format": "evlift-collection", "version": 1, "name": "beacons", "complete": True, "licence": ""}
    info |= {"source": {}, "sensor": "none", "settings": {}, "planned": ["r"], "recordings": made, "problems": []}
    write_info(path, info)
    return path, places


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    epoch=st.integers(0, 10**6),
    index=st.integers(0, 2),
    size=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    low=st.floats(0.3, 1),
)
def test_image_and_events_of_a_pair_move_together(beacons, counts, epoch, index, size, low):
    path, places = beacons
    item = PairDataset(path, "train", counts, size, scale=(low, 1.0), seed=3)[(epoch, index)]
    image, grid = item["image"].numpy(), item["grid"].numpy()
    assert image.shape == (3, *size) and grid.shape == (2, *size) and item["index"] == index
    assert grid[0].max() == 0

    view = draw(np.random.default_rng([3, epoch, index]), (low, 1.0), True).view(54, 80, size)
    x, y = places[index]
    centre_inside = view.x0 <= x < view.x0 + view.box_width and view.y0 <= y < view.y0 + view.box_height
    assert grid.sum() == pytest.approx(100 if centre_inside else 0, abs=1e-3)  # events are neither lost nor made
    margin = 5  # the whole square and the ripples that JPEG makes around it
    if not (view.x0 + margin <= x < view.x0 + view.box_width - margin):
        return
    if not (view.y0 + margin <= y < view.y0 + view.box_height - margin):
        return
    rows, columns = np.mgrid[: size[0], : size[1]]
    bright = np.where(image[0] > 0.1 * image.max(), image[0], 0)  # without the ripples that JPEG leaves

    def centre(weight):
        return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()

    np.testing.assert_allclose(centre(bright), centre(grid[1]), atol=0.6)
    expected = np.array(view.points(np.array(x), np.array(y)))
    np.testing.assert_allclose(centre(grid[1]), expected, atol=0.51)


def test_without_augmentation_a_pair_is_its_recording(beacons, counts):
    path, places = beacons
    data = PairDataset(path, "train", counts, None, augment=False)
    assert len(data) == 3 and not data.labelled
    for i, (x, y) in enumerate(places):
        item = data[(i, i)]
        expected = np.zeros((2, 54, 80), np.float32)
        expected[1, y, x] = 100
        np.testing.assert_array_equal(item["grid"].numpy(), expected)
        frame = open_collection(path).recording("r").frame(i)
        np.testing.assert_allclose(item["image"].numpy(), frame.transpose(2, 0, 1) / 255, atol=1e-6)
    assert "labels" not in item
    with pytest.raises(IndexError):
        data[3]
    with pytest.raises(IndexError):
        data[(0, -1)]


def test_a_simulated_pair_is_the_simulator_on_the_view(pictures, counts):
    from evlift.collection.pictures import read_labels, read_picture

    data = SimulatedPairs(pictures, counts, (24, 32), scale=(0.5, 0.9), seed=5, ignore_label=11)
    reductions = set()
    for epoch, index in ((0, 0), (3, 7), (0, 1), (0, 2), (0, 3)):
        rng = np.random.default_rng([5, epoch, index])
        motion = int(rng.integers(2**31))
        drawn = draw(rng, (0.5, 0.9), True)
        picture = image_files(pictures)[index]
        image, reduction = read_picture(picture.path, (ceil(24 / drawn.side), ceil(32 / drawn.side)))
        reductions.add(reduction)
        view = drawn.view(*image.shape[:2], (24, 32))
        seen = view.image(image)
        item = data[(epoch, index)]
        np.testing.assert_array_equal(np.round(item["image"].numpy() * 255), seen.transpose(2, 0, 1))
        events = pair_from_image(seen, seed=motion).events
        assert len(events) > 100
        np.testing.assert_array_equal(item["grid"].numpy(), counts(events))
        labels = view.labels(read_labels(picture.labels), reduction).astype(np.int64)
        labels[labels == 11] = 255
        np.testing.assert_array_equal(item["labels"].numpy(), labels)
        assert item["labels"].dtype == torch.int64 and item["index"] == index
    assert reductions == {1, 2}  # decoded whole, and at half its size
    assert (data[4]["labels"] == 255).all()  # the picture without labels
    assert not (SimulatedPairs(pictures, counts, (24, 32))[0]["labels"] == 255).any()  # values stay as they are


def both(pictures, tmp_path, representation, **options):
    """One data set of each kind over the same pictures."""
    collection = build_from_images(pictures, tmp_path / "c", progress=False)
    yield SimulatedPairs(pictures, representation, (24, 32), **options)
    yield PairDataset(collection, "train", representation, (24, 32), **options)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_make_what_the_main_process_makes(pictures, tmp_path, counts):
    keys = [[(epoch, i) for i in (5, 0, 3)] for epoch in (0, 1)]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((1500, 1500), np.float32), (0, 0), 5)  # OpenCV's threads run when the workers are forked
    for data in both(pictures, tmp_path, counts, seed=1):
        alone = list(DataLoader(data, batch_sampler=keys))
        two = list(DataLoader(data, batch_sampler=keys, num_workers=2, timeout=60))
        assert cv2.getNumThreads() == 4
        assert len(alone) == 2 and all(same(a, b) for a, b in zip(alone, two, strict=True))
        again = pickle.loads(pickle.dumps(data))
        assert same(again[(1, 3)], data[(1, 3)])
    cv2.setNumThreads(threads)


def test_epochs_differ_and_repeat(pictures, tmp_path, counts):
    for data in both(pictures, tmp_path, counts, seed=1):
        assert same(data[(4, 2)], data[(4, 2)])
        assert same(data[2], data[(0, 2)])
        assert not same(data[(4, 2)], data[(5, 2)])
        assert not torch.equal(data[(4, 2)]["grid"], data[(4, 3)]["grid"])
    for data in both(pictures, tmp_path, counts, seed=1, augment=False):
        assert same(data[(4, 2)], data[(5, 2)])
    one, other = (SimulatedPairs(pictures, counts, (24, 32), seed=seed)[0] for seed in (1, 2))
    assert not same(one, other)


def test_an_item_does_not_change_when_the_next_is_made(pictures, tmp_path, counts):
    for data in both(pictures, tmp_path, counts):  # grids are made in one buffer
        first = data[0]
        kept = {name: torch.as_tensor(value).clone() for name, value in first.items()}
        _ = data[1]
        assert same(first, kept)


def test_the_sum_of_a_voxel_grid_outlives_the_view(beacons):
    item = PairDataset(beacons[0], "train", VoxelGrid(5), (27, 40), augment=False)[1]
    assert item["grid"].shape == (5, 27, 40)
    assert item["grid"].sum().item() == pytest.approx(100, rel=1e-4)


def test_labels_come_along_from_disk(pictures, tmp_path, counts):
    collection = build_from_images(pictures, tmp_path / "c", progress=False)
    data = PairDataset(collection, "train", counts, (30, 40), augment=False, ignore_label=11)
    from evlift.collection.pictures import read_labels

    for index in (0, 6):
        labels = read_labels(pictures / "labels" / f"{index:02d}.png")
        expected = View(0, 0, 80, 60, 30, 40).labels(labels).astype(np.int64)
        expected[expected == 11] = 255
        np.testing.assert_array_equal(data[index]["labels"].numpy(), expected)
    assert (data[4]["labels"] == 255).all()


def test_a_picture_damaged_behind_its_header_gives_its_place_to_the_next(pictures, counts, caplog):
    path = pictures / "images" / "03.jpg"
    path.write_bytes(path.read_bytes()[:900])
    data = SimulatedPairs(pictures, counts, (24, 32), augment=False)
    assert len(data) == 10
    item = data[3]
    assert "03.jpg" in caplog.text and item["index"] == 3
    assert torch.equal(item["image"], data[4]["image"])


def test_a_header_that_cannot_be_read_is_in_problems(pictures, counts):
    (pictures / "images" / "03.jpg").write_bytes(b"")
    data = SimulatedPairs(pictures, counts, (24, 32))
    assert len(data) == 9 and len(data.problems) == 1 and "03.jpg" in data.problems[0]
    for i in range(10):
        (pictures / "images" / f"{i:02d}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="none of 10 pictures"):
        SimulatedPairs(pictures, counts, (24, 32))


def test_open_source_knows_what_a_path_is(pictures, tmp_path, counts, video):
    collection = build_from_images(pictures, tmp_path / "c", progress=False)
    for path in (pictures, pictures / "images", collection.path):
        sizes = {split: len(open_source(path, split, counts, (24, 32))) for split in ("train", "val")}
        assert sizes == {"train": 8, "val": 2}
    assert isinstance(open_source(collection.path, "val", counts, augment=False), PairDataset)
    assert len(open_source(pictures, "train", counts, val_fraction=0)) == 10
    for path, split, words in (
        (pictures, "test", "no pictures for split 'test', only for train, val"),
        (collection.path, "test", r"no usable pairs in split 'test'; it has train \(8\), val \(2\)"),
        (collection.path, "gap", "no usable pairs"),
        (tmp_path / "none", "train", "does not exist"),
        (video, "test", r"no pairs for split 'test'; it has train \(21\), val \(1\)"),
        (collection.path / "labels", "train", "holds no pictures"),
    ):
        with pytest.raises(InputError, match=words):
            open_source(path, split, counts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": (0, 1)}, "scale"),
        ({"size": (0, 1)}, "size"),
        ({"seed": -1}, "seed"),
        ({"sensor": "eye"}, "eye"),
        ({"motion": {"speed": 3}}, "motion has no speed; it has .*motion_px"),
        ({"motion": {"motion_px": (5, 2)}}, "motion_px"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_at_once(pictures, counts, options, words):
    with pytest.raises(ConfigError, match=words):
        SimulatedPairs(pictures, counts, **options)


def test_a_frame_that_is_not_on_the_events_grid_is_refused(beacons, counts, tmp_path):
    path = tmp_path / "c"
    events = Events(np.array([1]), np.array([1]), np.array([5]), np.array([True]), 20, 30)
    write_recording(path / "recordings" / "r", events, frames=[Frame(9, np.zeros((40, 60, 3), np.uint8))])
    info = json.loads((beacons[0] / "collection.json").read_text())
    info["recordings"] = {"r": {"pairs": 1, "events": 1, "height": 20, "width": 30}}
    row = dict.fromkeys(PAIRS.names, 0) | {"recording": "r", "t1_us": 10, "split": "train", "labels": None}
    write_pairs(path, [row])
    write_info(path, info)
    with pytest.raises(InputError, match="align the frames"):
        PairDataset(path, "train", counts)[0]


@pytest.mark.skipif(not CAMVID.is_dir(), reason="real photographs (shared/data/camvid) are not here")
def test_real_photographs_with_labels():
    data = SimulatedPairs(CAMVID / "train", VoxelGrid(5), (96, 128), ignore_label=11, seed=2)
    assert len(data) == 367 and not data.problems
    for key in ((0, 0), (1, 200), (2, 366)):
        item = data[key]
        assert 0 <= item["image"].min() and item["image"].max() <= 1 and item["image"].std() > 0.05
        assert item["grid"].abs().sum() > 1000
        assert set(item["labels"].unique().tolist()) <= {*range(11), 255} and len(item["labels"].unique()) > 3
    val = open_source(CAMVID, "val", VoxelGrid(5), (96, 128), augment=False)
    assert len(val) == 101  # CamVid's own split, from its folder
