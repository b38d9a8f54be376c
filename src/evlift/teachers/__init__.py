"""Whom the event encoder learns from: image models behind one small protocol.

    teacher = load_teacher("efficientnet-lite0")      # packaged, needs no download
    teacher = load_teacher("facebook/dinov2-small")   # a Hugging Face id, or the folder that holds such a model
    teacher = load_teacher("python:mine.make_teacher")

Weights are read from safetensors, or by torch with `weights_only=True`: no code comes with a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import ConfigError
from ..from_python import load_function, told
from .efficientnet import EfficientNetLite0
from .vit import VisionTransformer

__all__ = ["TEACHERS", "Teacher", "TeacherEntry", "load_teacher"]

OTHERS = "a Hugging Face id or local folder of a DINOv2 or DINOv3 ViT, or python:module.function"


@runtime_checkable
class Teacher(Protocol):
    """What training asks of an image model. It normalises its own input, stays in eval mode and gives no gradient."""

    name: str
    dim: int
    """Width D of a token."""
    stride: int
    """Side of the picture's square under one token, pixels."""
    licence: str
    description: str

    def features(self, images: Tensor) -> Tensor:
        """float [B, 3, H, W] in 0…1, any size → float [B, ⌈H / stride⌉, ⌈W / stride⌉, D], without a gradient."""
        ...

    def to(self, device: str | torch.device) -> Teacher:
        """Move to a device; returns itself."""
        ...


@dataclass(frozen=True)
class TeacherEntry:
    """A line in the table of packaged teachers."""

    load: Callable[[], Teacher]
    dim: int
    stride: int
    licence: str
    description: str


TEACHERS: dict[str, TeacherEntry] = {
    kind.name: TeacherEntry(kind, kind.dim, kind.stride, kind.licence, kind.description)
    for kind in (EfficientNetLite0,)
}
"""The packaged teachers, by name."""


def load_teacher(name: str) -> Teacher:
    """The image model called `name`, on the CPU.

    Args:
        name: one of :data:`TEACHERS`; a Hugging Face id or the local folder of a DINOv2 or DINOv3 ViT; or
            `python:module.function`, which is called without arguments and returns a :class:`Teacher` of your own
            (modules in the working directory are found).
    Raises:
        ConfigError: there is none of that name, or it cannot be loaded; the message says why.
    """
    if name in TEACHERS:
        return TEACHERS[name].load()
    if name.startswith("python:"):
        return _from_python(name)
    path = Path(name).expanduser()
    if not name or (not path.exists() and (name.count("/") != 1 or name[0] in "./~")):
        raise ConfigError(f"there is no teacher {name!r}; give one of: {', '.join(TEACHERS)}; or {OTHERS}")
    return VisionTransformer(name)


def _from_python(name: str) -> Teacher:
    make = load_function(name, "teacher")
    try:
        teacher = make()
    except Exception as error:
        raise ConfigError(
            f"teacher {name!r}: {name.rpartition('.')[2]}() failed ({told(error)}); put that right first"
        ) from error
    _check(teacher, name)
    return teacher


def _check(teacher: Any, name: str) -> None:
    """Raise ConfigError unless `teacher` keeps the protocol, tried on a small picture."""
    wanted = f"; a teacher has {', '.join(Teacher.__annotations__)}, features(images) and to(device)"
    lacking = [a for a in (*Teacher.__annotations__, "features", "to") if not hasattr(teacher, a)]
    if lacking:
        raise ConfigError(f"teacher {name!r} lacks {', '.join(lacking)}{wanted}")
    for attribute in ("dim", "stride"):
        value = getattr(teacher, attribute)
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"teacher {name!r} has {attribute} {value!r}; give a positive whole number")
    side = 4 * teacher.stride
    try:
        tokens = teacher.features(torch.zeros(1, 3, side, side))
    except Exception as error:
        raise ConfigError(
            f"teacher {name!r} fails on a [1, 3, {side}, {side}] picture ({told(error)}); put that right first"
        ) from error
    shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
    if shape != (1, 4, 4, teacher.dim):
        raise ConfigError(
            f"teacher {name!r} gives {shape} for a [1, 3, {side}, {side}] picture; "
            f"with stride {teacher.stride} and dim {teacher.dim} it must be (1, 4, 4, {teacher.dim})"
        )
    if tokens.requires_grad:
        raise ConfigError(f"teacher {name!r} gives features with a gradient; compute them under torch.no_grad()")
