"""The whole probe on a small labelled folder, its files, its refusals; and on some of CamVid where that is present."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from evlift.collection import build_from_images
from evlift.downstream import probe_segmentation
from evlift.downstream.pictures import palette
from evlift.encoder import Encoder
from evlift.errors import ConfigError, InputError, RunError

CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"
SIZE = (32, 48)
QUICK = {"size": SIZE, "steps": 30, "batch": 4, "progress": False, "device": "cpu"}


def labelled_folder(folder, count, seed=0, classes=3, label_size=None, names=True):
    """Boxes on a ground, each class with a texture of its own: busy ones make more events than flat ones."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for i in range(count):
        label = np.zeros((64, 96), np.uint8)
        image = np.full((64, 96, 3), 110, np.uint8)
        for k in range(1, classes):
            y, x = rng.integers(0, 32), rng.integers(0, 48)
            label[y : y + 32, x : x + 48] = k
            noise = rng.integers(-60 * k, 60 * k + 1, (8, 12, 1)).repeat(4, 0).repeat(4, 1)
            image[y : y + 32, x : x + 48] = np.clip(110 + noise, 0, 255)
        label[:2] = 255
        cv2.imwrite(str(folder / "images" / f"{i:03}.png"), image)
        if label_size:
            label = label[: label_size[0], : label_size[1]]
        cv2.imwrite(str(folder / "labels" / f"{i:03}.png"), label)
    if names:
        (folder / "classes.txt").write_text("ground\nsmooth\nrough\n")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("probe")
    labelled_folder(place / "train", 12, seed=1)
    labelled_folder(place / "test", 6, seed=2)
    Encoder.create("tiny", depth=1, stem="conv", teacher_dim=12, seed=0).save(place / "run" / "encoder")
    (place / "run" / "config.yaml").write_text("data: {size: [32, 48], source: elsewhere}\n")
    return place


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher for which the classes are easy: local contrast and brightness, by `python:module.function`."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "probe_test_teacher.py").write_text(
        """
import torch
import torch.nn.functional as F

class Contrast:
    name, dim, stride, licence, description = "contrast", 12, 16, "none", "mean and deviation of grey, in parts"
    def to(self, device):
        return self
    def features(self, images):
        blocks = F.unfold(images.mean(1, keepdim=True), 16, stride=16)  # [B, 256, L]
        parts = blocks.unflatten(1, (4, 64))
        found = torch.cat([parts.mean(2), parts.std(2), parts.amax(2)], 1)
        h, w = images.shape[2] // 16, images.shape[3] // 16
        return found.transpose(1, 2).unflatten(1, (h, w))

def make():
    return Contrast()
"""
    )
    import sys

    sys.path.insert(0, str(folder))
    yield "python:probe_test_teacher.make"
    sys.path.remove(str(folder))


def test_every_row_is_measured_written_and_reproducible(place, teacher, capsys):
    options = {**QUICK, "size": None, "untrained": True, "teacher": teacher, "seed": 3}
    run, train, test = place / "run", place / "train", place / "test"
    found = probe_segmentation([run], train, test, place / "all", **{**options, "progress": True})
    written = (place / "all" / "metrics.json").read_bytes()
    assert json.loads(written) == found

    assert found["task"] == "segmentation" and found["encoder"] == str(run)
    assert found["classes"] == ["ground", "smooth", "rough"]
    assert found["evaluated_at"] == [32, 48]  # what the run behind the encoder was trained at
    assert (found["train_pictures"], found["test_pictures"]) == (12, 6)
    kinds = [row["kind"] for row in found["rows"]]
    assert kinds == ["encoder", "zero-shot", "untrained", "teacher", "constant"]
    for row in found["rows"]:
        values = [v for v in row["iou"].values() if v is not None]
        assert row["miou"] == pytest.approx(np.mean(values), rel=1e-4)
        assert all(0 <= v <= 1 for v in [*values, row["accuracy"]])
    assert [found[k] for k in ("miou", "accuracy", "iou")] == [found["rows"][0][k] for k in ("miou", "accuracy", "iou")]
    assert found["rows"][0]["tokens"] == [2, 3] and found["rows"][0]["width"] == 192
    assert len(found["rows"][0]["sha256"]) == 64 and found["rows"][0]["pretrained_on_test_pictures"] is False

    # The floor by a loop over the label files at the scored size: nearest pixels 1, 3, 5, …, void in the first row.
    labels = np.stack([cv2.imread(str(p), -1)[1::2, 1::2] for p in sorted((test / "labels").iterdir())])
    counted = labels[labels != 255]
    floor = found["rows"][-1]
    assert floor["name"] == "always ground" and floor["accuracy"] == pytest.approx((counted == 0).mean(), abs=1e-5)
    assert floor["miou"] == pytest.approx((counted == 0).mean() / 3, abs=1e-5)
    # The teacher sees what tells the classes apart.
    assert found["rows"][3]["accuracy"] > floor["accuracy"]

    for name in ("best", "median", "worst"):
        picture = cv2.imread(str(place / "all" / found["pictures"][name]["file"]))
        assert picture.shape[1] == 7 * 48 + 6 * 4  # image, events, label and four predictions
        assert (test / "images" / found["pictures"][name]["of"]).is_file()
    scores = [found["pictures"][name]["miou"] for name in ("worst", "median", "best")]
    assert scores == sorted(scores)

    log = [json.loads(line) for line in (place / "all" / "log.jsonl").read_text().splitlines()]
    assert any("seconds" in line for line in log) and b"seconds" not in written
    table = capsys.readouterr().out
    assert "mIoU" in table and f"{100 * found['miou']:.1f}" in table and "rough" in table

    # The same command again gives the same bytes, with a worker, too; in another folder as well.
    probe_segmentation([run], train, test, place / "all", **{**options, "workers": 1})
    assert (place / "all" / "metrics.json").read_bytes() == written
    assert capsys.readouterr().out == ""
    with pytest.raises(RunError, match=r"other settings \(steps: 30 → 31\)"):
        probe_segmentation([run], train, test, place / "all", **{**options, "steps": 31})


def test_the_zero_shot_row_is_the_teachers_head_on_lifted_tokens(place, teacher):
    """With a projector that ignores its input every token is one point: the row must equal a constant prediction."""
    encoder = Encoder.create("tiny", depth=1, teacher_dim=12, seed=0)
    with torch.no_grad():
        encoder.projector.weight.zero_()
        encoder.projector.bias.zero_()
    # Standardised zero is the teacher's mean token. Put that mean far out on the side of brightness and contrast 0.
    encoder.set_teacher_statistics(
        torch.full((12,), 0.43) * torch.tensor([1.0] * 4 + [0.0] * 4 + [1.0] * 4), torch.ones(12)
    )
    encoder.save(place / "blind")
    found = probe_segmentation(
        [place / "blind"], place / "train", place / "test", place / "blind_out", teacher=teacher, **QUICK
    )
    rows = {row["kind"]: row for row in found["rows"]}
    assert rows["zero-shot"]["iou"] == rows["constant"]["iou"]  # flat grey is the ground


def test_unnamed_classes_void_and_one_folder_for_both(place, tmp_path):
    folder = labelled_folder(tmp_path / "both", 10, names=False)
    found = probe_segmentation(place / "run", folder, folder, tmp_path / "a", **QUICK)
    assert found["classes"] == ["class 0", "class 1", "class 2"]
    assert (found["train_pictures"], found["test_pictures"]) == (8, 2)  # the last fifth is held out
    remarks = [json.loads(line).get("remark", "") for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert any("every value from 0 to 2 is one, 255 void" in remark for remark in remarks)
    found = probe_segmentation(place / "run", folder, folder, tmp_path / "b", void=2, **QUICK)
    assert found["classes"] == ["class 0", "class 1"]


def test_a_collection_with_labels_and_splits(place, tmp_path):
    made = tmp_path / "collection"
    build_from_images(place / "train", made, size=SIZE, val_fraction=0.25, progress=False)
    (made / "classes.txt").write_text("ground\nsmooth\nrough\n")
    found = probe_segmentation(place / "run", made, made, tmp_path / "out", **QUICK)
    assert (found["train_pictures"], found["test_pictures"]) == (9, 3)
    assert found["splits"]["test"] == "val" and found["classes"][2] == "rough"


def test_wrong_use_ends_in_one_line(place, tmp_path):
    run, train, test = place / "run", place / "train", place / "test"
    bare = tmp_path / "bare"
    (bare / "images").mkdir(parents=True)
    cv2.imwrite(str(bare / "images" / "a.png"), np.zeros((64, 96, 3), np.uint8))
    cut = labelled_folder(tmp_path / "cut", 2, label_size=(60, 96))
    many = labelled_folder(tmp_path / "many", 2)
    cv2.imwrite(str(many / "labels" / "001.png"), np.full((64, 96), 7, np.uint8))
    void = labelled_folder(tmp_path / "void", 2)
    for file in (void / "labels").iterdir():
        cv2.imwrite(str(file), np.full((64, 96), 255, np.uint8))
    apart = labelled_folder(tmp_path / "apart", 2, classes=1)
    others = labelled_folder(tmp_path / "others", 2)
    for file in (others / "labels").iterdir():
        cv2.imwrite(str(file), np.random.default_rng(0).integers(1, 3, (64, 96)).astype(np.uint8))
    renamed = labelled_folder(tmp_path / "renamed", 2)
    (renamed / "classes.txt").write_text("a\nb\nc\n")
    broken = tmp_path / "broken"
    Encoder.create("tiny", depth=1).save(broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").touch()

    out = tmp_path / "out"
    cases = [
        (InputError, "has no labels", (run, bare, test, out), {}),
        (InputError, "has no labels", (run, train, bare, out), {}),
        (InputError, "60", (run, cut, test, out), {}),
        (InputError, "label value 7 is none of the 3 classes", (run, many, test, out), {}),
        (InputError, "void", (run, void, test, out), {}),
        (InputError, "no class in common", (run, others, apart, out), {}),
        (InputError, "name different classes", (run, renamed, test, out), {}),
        (InputError, "does not exist|not a folder", (run, tmp_path / "nowhere", test, out), {}),
        (RunError, "damaged", (broken, train, test, out), {}),
        (RunError, "does not exist", (tmp_path / "nowhere", train, test, out), {}),
        (RunError, "holds no probe", (run, train, test, full), {}),
        (RunError, "cannot", (run, train, test, full / "thesis.tex"), {}),
        (ConfigError, "unknown labels", (run, train, test, out), {"labels": "camvit"}),
        (ConfigError, "void is 300", (run, train, test, out), {"void": 300}),
        (ConfigError, "steps is 0", (run, train, test, out), {"steps": 0}),
        (ConfigError, "lr is -1", (run, train, test, out), {"lr": -1}),
        (ConfigError, "seed is -1", (run, train, test, out), {"seed": -1}),
        (ConfigError, "no encoder", ([], train, test, out), {}),
        (ConfigError, "given twice", ([run, run], train, test, out), {}),
        (ConfigError, "teacher", (run, train, test, out), {"teacher": "efficientnet"}),
        (ConfigError, "device", (run, train, test, out), {"device": "tpu9"}),
        (ConfigError, "sensor", (run, train, test, out), {"sensor": "eye"}),
    ]
    for kind, message, arguments, options in cases:
        with pytest.raises(kind, match=message) as raised:
            probe_segmentation(*arguments, **{**QUICK, **options})
        assert "\n" not in str(raised.value)
    # None of these mistakes has claimed the folder.
    assert not (out / "probe.yaml").exists()
    assert probe_segmentation(run, train, test, out, **QUICK)["test_pictures"] == 6


def test_palette_tells_classes_apart_and_leaves_void_black():
    names = [f"class {i}" for i in range(19)]
    colours = palette(names)
    assert colours.shape == (256, 3) and colours[255].tolist() == [0, 0, 0]
    assert len({tuple(c) for c in colours[:19].tolist()}) == 19 and colours[:19].sum(1).min() > 0
    assert palette(["sky"])[0].tolist() == [128, 128, 128]  # CamVid's own


@pytest.mark.skipif(not CAMVID.is_dir(), reason="../shared/data/camvid is not here")
def test_on_some_of_camvid(place, tmp_path):
    for split, every in (("train", 46), ("val", 25)):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
            for file in sorted((CAMVID / split / kind).iterdir())[::every]:
                (tmp_path / split / kind / file.name).symlink_to(file)
    found = probe_segmentation(
        place / "run",
        tmp_path / "train",
        tmp_path / "val",
        tmp_path / "out",
        labels="camvid",
        **{**QUICK, "size": (96, 128)},
    )
    assert found["classes"][:4] == ["sky", "building", "pole", "road"] and len(found["classes"]) == 11
    assert (found["train_pictures"], found["test_pictures"]) == (8, 5)
    floor = found["rows"][-1]
    assert floor["kind"] == "constant" and 0.15 < floor["accuracy"] < 0.5
    assert found["accuracy"] > floor["accuracy"]  # even random convolutions tell sky from the rest
