"""The settings of every command, as dataclasses that are checked when they are built, and their way to and from YAML.

Only the command table, this file and the training loop know them; models, losses and kernels take plain arguments.
Nothing here imports torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from .errors import ConfigError, RunError


def _check(good: bool, message: str) -> None:
    if not good:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to learn from, and how a pair is cut out of it."""

    source: str | None = None
    """A collection, a folder of pictures (events are simulated on the fly) or a video (see `on_the_fly`)."""
    size: tuple[int, int] = (192, 256)
    """Height and width of the network's input in pixels."""
    bins: int = 5
    """Time bins of the voxel grid."""
    scale: tuple[float, float] = (0.5, 1.0)
    """Range of the random crop's side, relative to the largest crop that fits."""
    flip: bool = True
    """Mirror half of the training pairs left to right."""
    sensor: str = "ideal"
    """Sensor preset of the simulator, for pictures and videos."""
    motion_px: tuple[float, float] = (2.0, 12.0)
    """Length of the simulated camera path over a still picture, in pixels of the network's input."""
    motion: dict[str, Any] = field(default_factory=dict)
    """Pictures: whatever else `evlift.simulate.pair_from_image` takes, as JSON, such as {"path": "shake", "layers": 2}
    or {"kind": "camera"}."""
    shake_px: float = 6.0
    """Amplitude of the hand-held camera motion that is added to a video, in pixels of the video."""
    window_us: int = 100_000
    """Length of the event window before a video frame, in microseconds."""
    on_the_fly: bool = False
    """A video: make the events of a pair whenever it is asked for, from frames decoded once, and keep no recording.
    Otherwise the video is made a collection first. (Pictures are always simulated on the fly.)"""
    val_fraction: float = 0.2
    """Held out: the last share of every shot of a video, or of the pictures in a folder."""
    held_out_shots: tuple[int, ...] = ()
    """Shots of a video that training never sees at all; they become the split `test`."""

    def __post_init__(self) -> None:
        good = len(self.size) == 2 and min(self.size) >= 16
        _check(good, f"data.size is {self.size}; give height and width, 16 or more")
        _check(self.bins >= 1, f"data.bins is {self.bins}; give 1 or more")
        lo, hi = self.scale
        _check(0 < lo <= hi <= 1, f"data.scale is {self.scale}; give a range within 0…1, such as [0.5, 1.0]")
        lo, hi = self.motion_px
        _check(0 < lo <= hi, f"data.motion_px is {self.motion_px}; give a range of positive pixels, such as [2, 12]")
        _check(0 < self.val_fraction < 1, f"data.val_fraction is {self.val_fraction}; give a share between 0 and 1")
        _check(self.window_us > 0, f"data.window_us is {self.window_us}; give a positive number of microseconds")
        _check(self.shake_px >= 0, f"data.shake_px is {self.shake_px}; give 0 or more pixels")


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Whom to learn from."""

    name: str = "efficientnet-lite0"
    """A packaged teacher, a Hugging Face id or local folder, or `python:module.function`."""
    standardise: bool = True
    """Give every teacher channel mean 0 and variance 1 over the training pairs before it is compared."""
    stat_pairs: int = 128
    """How many training pairs estimate that mean and variance."""

    def __post_init__(self) -> None:
        _check(self.stat_pairs >= 2, f"teacher.stat_pairs is {self.stat_pairs}; give 2 or more")


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """The event encoder."""

    size: Literal["tiny", "small", "base", "large"] = "small"
    """Width and depth of the ViT: tiny 192×12, small 384×12, base 768×12, large 1024×24."""
    depth: int | None = None
    """Number of blocks, where it should differ from the size's own."""
    patch: int = 16
    """Patch side in pixels."""
    stem: Literal["patch", "conv"] = "conv"
    """`patch`: one linear projection a patch. `conv`: a few strided convolutions, which learn faster from scratch."""
    start_from_teacher: bool = False
    """Take the teacher's network and weights (DINOv2, DINOv3), its patch embedding adapted to event channels."""

    def __post_init__(self) -> None:
        _check(self.depth is None or self.depth >= 1, f"student.depth is {self.depth}; give 1 or more")
        _check(self.patch in (8, 14, 16, 32), f"student.patch is {self.patch}; give 8, 14, 16 or 32")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What the student is asked to match."""

    preset: Literal["token", "scaleevent", "scaleevent-released"] = "scaleevent"
    """`token`: plain distillation. `scaleevent`: the paper's structure-aware loss; `-released`: as in its code."""
    mask_threshold: float = 16.0
    """A patch takes part when the absolute voxel values in it sum to this or more (the paper: 64 at 640×480)."""

    def __post_init__(self) -> None:
        _check(self.mask_threshold >= 0, f"objective.mask_threshold is {self.mask_threshold}; give 0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The optimiser and the run."""

    steps: int = 2000
    """Optimiser steps."""
    batch: int = 16
    """Pairs a step, over all processes."""
    lr: float = 5e-4
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.05
    """Decoupled weight decay on matrices; never on norms and biases."""
    warmup: float = 0.05
    """Share of the steps over which the rate climbs from 0; after it, a cosine falls to a hundredth of the peak."""
    clip: float = 1.0
    """Gradients are scaled down to this norm."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    """Lightning Fabric's precision."""
    seed: int = 0
    """Seed of the weights, the order of the pairs, the crops and the simulated motion."""
    eval_every: int = 100
    """Steps between the collapse measures on held-out pairs."""
    eval_pairs: int = 64
    """How many held-out pairs they look at; 0 for all."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "eval_every", "checkpoint_every"):
            _check(getattr(self, name) >= 1, f"train.{name} is {getattr(self, name)}; give 1 or more")
        _check(self.lr > 0 and self.clip > 0, "train.lr and train.clip must be positive; lower lr to 1e-5, not to 0")
        _check(self.seed >= 0, f"train.seed is {self.seed}; give 0 or more")
        _check(self.weight_decay >= 0, f"train.weight_decay is {self.weight_decay}; give 0 or more")
        _check(0 <= self.warmup < 1, f"train.warmup is {self.warmup}; give a share of the steps, 0 up to 1")
        _check(self.eval_pairs >= 0, f"train.eval_pairs is {self.eval_pairs}; give 0 (all) or more")


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """How this machine runs it. None of these changes the result, so a run may go on with others."""

    accelerator: str = "auto"
    """`auto`, `cpu`, `cuda` or `mps`."""
    devices: int | None = None
    """Processes to start on this machine; torchrun decides it for itself. Default: one."""
    workers: int = 1
    """Processes that prepare pairs, for each training process; 0 prepares them in the training process itself."""

    def __post_init__(self) -> None:
        _check(self.workers >= 0, f"machine.workers is {self.workers}; give 0 or more")
        _check(self.devices is None or self.devices >= 1, f"machine.devices is {self.devices}; give 1 or more")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that `evlift pretrain` does, as it is saved in the run's `config.yaml`."""

    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain nested dicts and lists, fit for YAML and JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    return plain(asdict(config))


def write_yaml(config: Any) -> str:
    """The config as YAML text, in the order of its fields."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, default_flow_style=None)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The settings that a run saved, as nested dicts. Raises RunError when the file is missing or not YAML."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise RunError(f"cannot read {path} ({line}); give the run another --out folder") from error
    if not isinstance(values, dict):
        raise RunError(f"{path} holds no settings; give the run another --out folder")
    return values


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings in which two nested dicts differ, as `data.size: [96, 128] → [192, 256]`, one string each."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} → {b}")
    return found
