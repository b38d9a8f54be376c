"""Simulated against real: between consecutive real frames of a DAVIS240b, and its own events of that time.

The bounds are those that the preset must reach, not what it reaches. Their synthetic twins are
`test_video.test_interpolation_gives_the_events_of_a_faster_camera` and `test_steady`.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

from evlift.simulate import VideoSimulator

DATA = Path(__file__).parents[2] / "../shared/data/evbench"


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared recordings are not here")
@pytest.mark.parametrize(("sequence", "least", "same_sign"), [("seq_0001", 0.80, 0.97), ("seq_0003", 0.66, 0.90)])
def test_counts_agree_with_a_real_sensor(sequence, least, same_sign):
    rows = np.loadtxt(DATA / sequence / "events.txt")
    t, (x, y, p) = np.round(rows[:, 0] * 1e6).astype(np.int64), rows[:, 1:].astype(int).T
    listed = [line.split() for line in (DATA / sequence / "images.txt").read_text().splitlines()]
    times = [round(float(at) * 1e6) for at, _ in listed]
    frames = [cv2.imread(str(DATA / sequence / name), cv2.IMREAD_GRAYSCALE) for _, name in listed]
    height, width = frames[0].shape
    usable = np.ones((height, width), bool)
    usable[:, 190:] = False  # this recording has no events there
    usable.ravel()[np.argsort(-np.bincount(y * width + x, minlength=height * width))[:5]] = False  # hot pixels

    def counts(y, x, p):
        volume = np.zeros((height, width, 2))
        np.add.at(volume, (y, x, p.astype(int)), 1)
        return volume[usable]

    simulator = VideoSimulator(height, width, "davis240")
    simulator.push(frames[0], times[0])
    pairs = []
    for k in range(1, len(frames)):
        events = simulator.push(frames[k], times[k])
        span = slice(*np.searchsorted(t, [times[k - 1] + 1, times[k] + 1]))
        pairs.append((counts(y[span], x[span], p[span]), counts(events.y, events.x, events.p)))
    real, simulated = map(np.concatenate, zip(*pairs, strict=True))
    assert np.corrcoef(real.sum(1), simulated.sum(1))[0, 1] >= least
    signed, like = np.diff(real)[:, 0], np.diff(simulated)[:, 0]
    both = (signed != 0) & (like != 0)
    assert (np.sign(signed) == np.sign(like))[both].mean() >= same_sign
    assert 0.75 <= simulated.sum() / real.sum() <= 1.35
