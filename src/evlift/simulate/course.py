"""How a camera moves over a still, and when it looks: what both engines agree on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .camera import draw_camera
from .motion import Motion, SampledMotion, draw_path
from .scene import Flat, Scene

KINDS = ("planar", "camera")
"""How a camera moves: in the picture's plane, or turning and moving in space."""


@dataclass(frozen=True)
class Course:
    """The settings of a camera's way over a still, as `pair_from_image` describes them.

    Raises:
        ConfigError: a setting out of its range.
    """

    kind: str
    path: str
    motion_px: tuple[float, float] | None
    rotation: float
    zoom: float
    duration_us: int
    step_px: float
    max_steps: int

    def __post_init__(self) -> None:
        if not self.step_px > 0 or self.max_steps < 2:
            given = f"step_px is {self.step_px} and max_steps is {self.max_steps}"
            raise ConfigError(f"{given}; give a positive step and 2 or more")
        if not self.max_steps <= self.duration_us < 1 << 30:
            given = f"duration_us is {self.duration_us}"
            raise ConfigError(f"{given}; give {self.max_steps} microseconds or more, and under 2³⁰")
        if self.kind not in KINDS:
            raise ConfigError(f"there is no kind of motion {self.kind!r}; choose one of {', '.join(KINDS)}")

    @property
    def _plain(self) -> bool:
        return self.kind == "planar" and self.path == "smooth"

    def draw(
        self, rng: np.random.Generator, height: int, width: int, relief: bool = False, layered: bool = False
    ) -> Flat:
        """The picture as a plane, and a camera on a random path over it.

        Args:
            relief, layered: there will be depth, or layers.
        """
        motion = self.draw_path(rng, height, width, layered)
        if self.kind == "planar":
            return Flat(height, width, motion)
        camera = draw_camera(rng, motion, height, width, relief)
        return Flat(height, width, camera.motion, camera)

    def draw_path(
        self, rng: np.random.Generator, height: int, width: int, layered: bool = False
    ) -> Motion | SampledMotion:
        """A random path, of the camera or of a layer."""
        reach = self.motion_px or ((2.0, 15.0) if self._plain and not layered else (0.5, 50.0))
        return draw_path(rng, height, width, self.path, reach, self.rotation, self.zoom)

    def moments(self, scene: Scene) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """When the scene is looked at, from 0 to `duration_us`: in µs, and as u, each [K].

        A smooth way in the plane at even intervals; any other about as often for each pixel of the way, and now and
        then at rest.
        """
        if self._plain and isinstance(scene, Flat) and isinstance(scene.motion, Motion):
            steps = self._steps(scene.motion.corner_way(scene.height, scene.width))
            u = np.arange(steps + 1) / steps
            return np.round(u * self.duration_us).astype(np.int64), u
        fine = np.linspace(0, 1, 129)
        ways = np.linalg.norm(np.diff(scene.tracks(fine), axis=0), axis=-1)  # [128, points]
        pace = ways.max(axis=1) + 0.1 * ways.max(axis=1).mean() + 1e-12
        way = np.concatenate([[0], np.cumsum(pace)])
        steps = self._steps(float(ways.sum(0).max()))
        u = np.interp(np.linspace(0, way[-1], steps + 1), way, fine)
        times = np.unique(np.round(u * self.duration_us).astype(np.int64))
        return times, times / self.duration_us

    def _steps(self, way_px: float) -> int:
        return min(max(math.ceil(way_px / self.step_px), 4), self.max_steps)
