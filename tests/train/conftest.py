"""A world small enough to train in: a folder of pictures, a teacher in a file, a config of seconds."""

import sys

import cv2
import numpy as np
import pytest

from evlift.config import DataConfig, MachineConfig, ObjectiveConfig, PretrainConfig, StudentConfig, TeacherConfig
from evlift.config import TrainConfig as Train

TEACHER = '''
import torch
from torch.nn import functional as F


class Averages:
    """Mean, contrast and gradients of 16-pixel patches: a teacher that costs nothing."""

    name, dim, stride, licence, description = "averages", 8, 16, "none", "patch statistics"

    def to(self, device):
        return self

    def features(self, images):
        means = F.avg_pool2d(images, 16)
        squares = F.avg_pool2d(images.square(), 16) - means.square()
        dx = F.avg_pool2d(images.diff(dim=3, append=images[..., -1:]).mean(1, keepdim=True).abs(), 16)
        dy = F.avg_pool2d(images.diff(dim=2, append=images[..., -1:, :]).mean(1, keepdim=True).abs(), 16)
        return torch.cat([means, squares, dx, dy], 1).permute(0, 2, 3, 1)


def make():
    return Averages()
'''


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(12):
        noise = cv2.resize(rng.integers(0, 255, (8, 12, 3), np.uint8), (96, 64), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{i:02}.png"), noise)
    return folder


@pytest.fixture
def config(pictures, tmp_path, monkeypatch):
    (tmp_path / "tiny_teacher.py").write_text(TEACHER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sys.modules.pop("tiny_teacher", None)
    return PretrainConfig(
        data=DataConfig(source=str(pictures), size=(32, 48), bins=2, val_fraction=0.3),
        teacher=TeacherConfig(name="python:tiny_teacher.make", stat_pairs=16),
        student=StudentConfig(size="tiny", depth=1),
        objective=ObjectiveConfig(mask_threshold=2),
        train=Train(steps=6, batch=4, lr=1e-3, eval_every=3, checkpoint_every=2),
        machine=MachineConfig(accelerator="cpu", workers=0),
    )
