"""Events from a single picture: a camera moves over it on a smooth random path that ends at the picture itself.

The picture is then exactly what the camera sees when the window ends, so that picture, labels and events share one
pixel grid. It runs inside the training loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError
from ..events import Events
from .camera import Camera
from .course import Course
from .cutouts import draw_cutouts
from .exposure import expose
from .motion import Motion, SampledMotion
from .pixels import PixelArray
from .readout import Columns
from .relief import Relief, relative_inverse_depth
from .scene import Flow, Layer, Layered, Scene
from .sensor import Seed, Sensor, get_sensor, to_grey

LONGEST_SIDE = 32_766
"""Most pixels of a side: OpenCV's warps count in int16."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A picture, its labels and the events up to the moment of the picture."""

    image: NDArray[np.uint8]
    """The picture, [H, W, 3] or [H, W]: the very array given, or as the sensor's frame camera takes it."""
    labels: NDArray[np.generic] | None
    """The labels as given: the very same array."""
    events: Events
    """Times in (0, duration_us], in the picture's pixel grid."""
    motion: Motion | SampledMotion | Camera
    """The camera's path."""
    duration_us: int
    scene: Scene = field(repr=False)
    """What the camera saw: it renders views at any time."""

    @property
    def flow(self) -> NDArray[np.float32]:
        """Optical flow over the window, float32 [H, W, 2] (dx, dy): what the picture shows at pixel r was at
        r − flow(r) when the window began."""
        return self._backward[0]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where `flow` is between two places that were both seen, bool [H, W]: within the frame, and hidden by nothing.
        Elsewhere `flow` is right all the same, but the first view did not show it."""
        return self._backward[1]

    @property
    def forward_flow(self) -> NDArray[np.float32]:
        """Optical flow on the grid of the window's *first* view, float32 [H, W, 2]: what it shows at pixel p is at
        p + forward_flow(p) in the picture."""
        return self._forward[0]

    @property
    def forward_mask(self) -> NDArray[np.bool_]:
        """Where `forward_flow` is between two places that are both seen, bool [H, W]. Elsewhere the first view shows a
        filling or a mirror image, of which the flow says where it was taken from."""
        return self._forward[1]

    @cached_property
    def _backward(self) -> Flow:
        return self.scene.backward()

    @cached_property
    def _forward(self) -> Flow:
        return self.scene.forward()


def pair_from_image(
    image: NDArray[np.uint8],
    labels: NDArray[np.generic] | None = None,
    depth: NDArray[np.generic] | None = None,
    sensor: str | Sensor = "ideal",
    seed: Seed = 0,
    *,
    kind: str | None = None,
    path: str = "smooth",
    layers: int = 0,
    motion_px: tuple[float, float] | None = None,
    rotation: float = 0.3,
    zoom: float = 0.5,
    duration_us: int = 50_000,
    step_px: float = 1.0,
    max_steps: int = 32,
) -> Pair:
    """A picture and the events of a camera that moved over it and ended there.

    Args:
        image: uint8 RGB [H, W, 3] or grey [H, W]. What lies outside is its mirror image.
        labels: anything that belongs to the picture; carried along untouched.
        depth: distance of each pixel [H, W], in metres or any unit; 0, NaN and infinity are unknown and count as far.
        sensor: preset or sensor. One with an exposure, gamma or dynamic range changes the pair's picture, too.
        seed: of the path and the sensor; the same seed gives the same events.
        kind: `planar`: shift, rotation and zoom in the picture's plane. `camera`: a camera in space that turns and
            moves, over the picture as a plane or, with `depth`, in 3-D: near things move more and hide what is behind.
            Left out, it is `camera` with a depth map and `planar` without.
        path: `smooth`, `saccade`, `shake` or `mixed`; see `draw_path`.
        layers: how many cut-outs of the picture move by themselves, each on a path of its own: connected regions of
            integer `labels` [H, W] where they are given, else random blobs. Not with `depth`.
        motion_px: range of the path's length in pixels of this picture, drawn log-uniformly. Left out, it is (2, 15)
            for smooth planar motion, and two orders of magnitude, (0.5, 50), for all others.
        rotation, zoom: as in `draw_motion`.
        duration_us: length of the window; only what depends on time in the sensor feels it.
        step_px: about the most pixels that anything moves between two rendered frames.
        max_steps: most rendered frames, whatever the path's length.

    Raises:
        InputError: the picture is no uint8 array of that shape, or one with a side over `LONGEST_SIDE`; a depth map or,
            with layers, labels of another shape, or with values that cannot be used.
        ConfigError: a setting out of its range, or at odds with another.
    """
    _check_image(image)
    height, width = image.shape[:2]
    kind = kind or ("planar" if depth is None else "camera")
    course = Course(kind, path, motion_px, rotation, zoom, duration_us, step_px, max_steps)
    if depth is not None and kind == "planar":
        raise ConfigError("kind is 'planar' but a depth map is given; choose 'camera', or leave the depth out")
    if layers < 0 or (layers and depth is not None):
        raise ConfigError(f"layers is {layers}{' with a depth map' if layers > 0 else ''}; give 0, or a flat picture")
    sensor = get_sensor(sensor)
    rng = np.random.default_rng(seed)
    ground = course.draw(rng, height, width, relief=depth is not None, layered=layers > 0)
    scene: Scene = ground
    if depth is not None and ground.camera is not None:
        scene = Relief(ground.camera, relative_inverse_depth(depth, height, width))
    if layers:
        masks = draw_cutouts(rng, height, width, layers, labels)
        scene = Layered(ground, [Layer(mask, course.draw_path(rng, height, width, True)) for mask in masks])
    times, u = course.moments(scene)
    log = sensor.log_intensity(to_grey(image))
    pixels = PixelArray(height, width, sensor, rng)
    parts = []
    for t, view in zip(times[:-1], scene.views(log, u), strict=False):
        parts.append(pixels.step(np.asarray(view, np.float32), int(t)))
    parts.append(pixels.step(log, int(times[-1])))  # at rest: the picture itself, to the last bit
    columns = Columns.join(parts)
    events = Events(columns.x, columns.y, columns.t, columns.p, height, width)
    picture = expose(image, scene, sensor, duration_us)
    return Pair(picture, labels, events, ground.camera or ground.motion, int(duration_us), scene)


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        raise InputError(f"a picture is {image.dtype} {image.shape}; give uint8 [height, width, 3] or [height, width]")
    if max(image.shape[:2]) > LONGEST_SIDE:
        raise InputError(f"a picture is {image.shape[1]}×{image.shape[0]}; give sides of at most {LONGEST_SIDE} pixels")
