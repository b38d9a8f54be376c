import cv2
import numpy as np
import pytest

from evlift.errors import InputError
from evlift.simulate.cutouts import draw_cutouts


def labels():
    """Four things on class 0, one of them too small, one too large."""
    out = np.zeros((60, 80), np.uint8)
    out[:, :30] = 9
    out[5:15, 40:50] = out[30:40, 40:50] = 3
    out[30:40, 60:70] = 4
    out[55, 55] = 5
    out[45:55, 60:70] = 255
    return out


def test_regions_of_labels():
    found = set()
    for seed in range(30):
        (mask,) = draw_cutouts(seed, 60, 80, 1, labels())
        assert mask.dtype == bool and mask.sum() == 100
        y, x = np.nonzero(mask)
        found.add((int(y.min()), int(x.min())))
    assert found == {(5, 40), (30, 40), (30, 60)}


def test_blobs_where_there_are_too_few_regions():
    masks = draw_cutouts(0, 60, 80, 5, labels())
    assert len(masks) == 5 and sum(masks).max() == 1
    assert all(mask.any() for mask in masks)


def test_blobs():
    shares = []
    for seed in range(100):
        (mask,) = draw_cutouts(seed, 96, 128, 1)
        assert mask.shape == (96, 128)
        assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2  # one piece, and the rest
        shares.append(mask.mean())
    assert 0.02 < np.mean(shares) < 0.09 and min(shares) > 0.003 and max(shares) < 0.3
    np.testing.assert_array_equal(draw_cutouts(5, 96, 128, 2), draw_cutouts(5, 96, 128, 2))


def test_a_full_picture_gives_fewer():
    masks = draw_cutouts(0, 1, 1, 3)
    assert len(masks) == 1 and masks[0].all()


def test_mistakes():
    for bad in (labels()[:9], labels().astype(float)):
        with pytest.raises(InputError, match="give integers"):
            draw_cutouts(0, 60, 80, 1, bad)
