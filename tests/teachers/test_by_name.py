"""Names: what is told for one that does not exist, and teachers of the user's own."""

import sys

import pytest
import torch

from evlift.errors import ConfigError
from evlift.teachers import Teacher, load_teacher

MINE = """
import torch
from torch.nn import functional as F

class Grey:
    name, dim, stride, licence, description = "grey", 2, 8, "CC0-1.0", "mean and extent of brightness"
    def to(self, device):
        return self
    def features(self, images):
        x = images.mean(1, keepdim=True)
        mean = F.avg_pool2d(x, 8)
        return torch.cat((mean, F.max_pool2d(x, 8) - mean), 1).permute(0, 2, 3, 1)

class Flat(Grey):
    def features(self, images):
        return super().features(images).flatten(1, 2)

class Learns(Grey):
    def features(self, images):
        return super().features(images) * torch.ones(2, requires_grad=True)

class Raises(Grey):
    def features(self, images):
        raise RuntimeError("out of paint\\nand brushes")

class Wide(Grey):
    dim = 2.0

class Bare:
    name = "bare"
    dim = 2

def fails():
    raise OSError("no weights here")

number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_teachers.py").write_text(MINE)
    (tmp_path / "broken_teachers.py").write_text("import nothing_of_that_name")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("my_teachers", "broken_teachers"):
        sys.modules.pop(name, None)


def test_a_teacher_of_ones_own(here):
    teacher = load_teacher("python:my_teachers.Grey")
    assert isinstance(teacher, Teacher)
    image = torch.zeros(1, 3, 16, 8)
    image[:, :, 8:, :4] = 1
    torch.testing.assert_close(teacher.features(image), torch.tensor([[[[0.0, 0.0]], [[0.5, 0.5]]]]))


@pytest.mark.parametrize(
    "name, message",
    [
        ("Bare", "lacks stride, licence, description, features, to; a teacher has name, dim"),
        ("Wide", r"has dim 2.0; give a positive whole number"),
        ("Flat", r"gives \(1, 16, 2\) for a \[1, 3, 32, 32\] picture; .* must be \(1, 4, 4, 2\)"),
        ("Learns", "under torch.no_grad"),
        ("Raises", "RuntimeError: out of paint and brushes"),
        ("fails", r"fails\(\) failed \(OSError: no weights here\)"),
        ("number", "has no function 'number'"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_what_is_wrong_with_a_teacher_of_ones_own_is_said(here, name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_teacher(f"python:my_teachers.{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, message",
    [
        ("python:absent_module.make", "'absent_module' cannot be imported"),
        ("python:broken_teachers.make", "nothing_of_that_name"),
        ("python:make", "write python:module.function"),
        ("python:", "write python:module.function"),
        ("efficientnet", "give one of: efficientnet-lite0; or a Hugging Face id or local folder"),
        ("", "there is no teacher ''"),
        ("./nowhere", "python:module.function"),
        ("/nowhere/at/all", "there is no teacher"),
    ],
)
def test_unknown_names(here, name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_teacher(name)
    assert "\n" not in str(caught.value)
