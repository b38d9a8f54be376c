"""A small video with three shots and a folder of labelled pictures, made once."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

SHOTS = ((0, 20), (20, 34), (34, 36))
PERIOD_US = 40_000


@pytest.fixture(scope="session")
def video(tmp_path_factory) -> Path:
    """36 frames of 48×64 at 25 Hz: a red texture that slides, a green one, and two frames of a blue one."""
    path = tmp_path_factory.mktemp("video") / "slides.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    rng = np.random.default_rng(0)
    for channel, (start, stop) in zip((2, 1, 0), SHOTS, strict=True):
        texture = cv2.resize(rng.integers(0, 256, (12, 32), np.uint8), (128, 48), interpolation=cv2.INTER_CUBIC)
        for i in range(stop - start):
            frame = np.full((48, 64, 3), 20, np.uint8)
            frame[..., channel] = texture[:, i : i + 64]
            writer.write(frame)
    writer.release()
    return path


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    """A random smooth colour picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def save_jpeg(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95))


def save_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), labels)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Ten 60×80 pictures in images/, nine of them with labels 0…11."""
    folder = tmp_path / "stills"
    for i in range(10):
        save_jpeg(folder / "images" / f"{i:02d}.jpg", photograph(i, 60, 80))
        if i != 4:
            labels = np.random.default_rng(100 + i).integers(0, 12, (60, 80)).astype(np.uint8)
            save_labels(folder / "labels" / f"{i:02d}.png", labels)
    return folder


class Counts:
    """A representation anyone can check: events a pixel, channel 0 darker and 1 brighter."""

    channels = 2

    def __call__(self, events, out=None):
        events = events if hasattr(events, "x") else events.events()
        out = np.empty((2, events.height, events.width), np.float32) if out is None else out
        out[:] = 0
        np.add.at(out, (events.p.astype(int), events.y, events.x), 1)
        return out


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def make():
    """The helpers above, for tests that build their own folders."""

    class Make:
        photograph = staticmethod(photograph)
        save_jpeg = staticmethod(save_jpeg)
        save_labels = staticmethod(save_labels)

    return Make
