"""Rows and contact sheets: the right picture in the right place."""

import numpy as np
import pytest
import torch

from evlift.errors import InputError
from evlift.view import PCABasis, event_picture, pair_grid, pair_strip, panel_basis
from evlift.view.tokens import veil


def test_strip_has_every_column_in_order(make_panel):
    panel = make_panel(extra={"token": np.ones((6, 8, 12), np.float32)})
    basis = panel_basis([panel])
    strip = pair_strip(panel, basis, labels=False, gap=8)
    height, width = panel.image.shape[:2]
    assert strip.shape == (height, 6 * width + 5 * 8, 3)
    cells = [strip[:, k * (width + 8) : k * (width + 8) + width] for k in range(6)]
    assert np.array_equal(cells[0], panel.image)
    assert np.array_equal(cells[1], event_picture(panel.grid))
    assert np.array_equal(cells[2], basis.colours(panel.teacher, (height, width)))
    assert np.array_equal(cells[4], veil(basis.colours(panel.after, (height, width)), panel.mask))
    assert np.array_equal(cells[5], veil(basis.colours(panel.extra["token"], (height, width)), panel.mask))
    assert (strip[:, width : width + 8] == 255).all()


def test_labels_stand_above_every_column(make_panel):
    panel = make_panel(patch=16)
    basis = panel_basis([panel])
    strip, plain = pair_strip(panel, basis), pair_strip(panel, basis, labels=False)
    head = strip.shape[0] - plain.shape[0]
    assert head >= 16 and np.array_equal(strip[head:], plain)
    width = panel.image.shape[1]
    for k in range(5):
        column = strip[:head, k * (width + 8) : k * (width + 8) + width]
        dark = np.nonzero((column < 128).any(axis=(0, 2)))[0]
        assert len(dark) and abs(dark.mean() - width / 2) < width * 0.1  # there is text, and it is centred
    assert (strip[:head, width : width + 8] == 255).all()


def test_one_basis_for_all_panels(make_panel):
    panels = [make_panel(seed=s) for s in range(3)]
    basis = panel_basis(panels)
    tokens = np.concatenate([p.teacher.reshape(-1, 12) for p in panels])
    np.testing.assert_allclose(basis.components, PCABasis.fit(tokens).components)
    assert panel_basis([]) is None
    with pytest.raises(InputError, match="one teacher"):
        panel_basis([panels[0], make_panel("other", dim=5)])


def test_tensors_are_taken(make_panel):
    panel = make_panel()
    same = make_panel(
        grid=torch.from_numpy(panel.grid),
        teacher=torch.from_numpy(panel.teacher).requires_grad_(),
        after=torch.from_numpy(panel.after).to(torch.bfloat16),
        mask=torch.from_numpy(panel.mask),
    )
    assert np.array_equal(same.teacher, panel.teacher) and same.mask.dtype == bool
    np.testing.assert_allclose(same.after, panel.after, rtol=1e-2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": np.zeros((4, 4, 3), np.float32)}, "uint8"),
        ({"image": np.zeros((4, 4, 4), np.uint8)}, "RGB"),
        ({"grid": np.zeros((4, 4), np.float32)}, r"\[C, H, W\]"),
        ({"teacher": np.zeros((48, 12))}, r"\[h, w, D\]"),
        ({"before": np.zeros((6, 8, 3))}, "student before"),
        ({"extra": {"token": np.zeros((3, 4, 12))}}, "token"),
        ({"mask": np.ones((8, 6), bool)}, "mask"),
    ],
)
def test_parts_that_do_not_fit_are_refused(make_panel, changes, words):
    with pytest.raises(InputError, match=words):
        make_panel("pair 7", **changes)


def test_grid_of_pairs_puts_events_beside_their_image():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in range(3)]
    grids = [rng.normal(size=(2, 6, 8)).astype(np.float32) for _ in range(3)]
    sheet = pair_grid(list(zip(images, grids, strict=True)), 2, gap=4)
    cell = 8 + 2 + 8
    assert sheet.shape == (6 + 4 + 6, 2 * cell + 4, 3)
    for k, (top, left) in enumerate([(0, 0), (0, cell + 4), (10, 0)]):
        assert np.array_equal(sheet[top : top + 6, left : left + 8], images[k])
        assert np.array_equal(sheet[top : top + 6, left + 10 : left + 18], event_picture(grids[k]))
    assert (sheet[10:, cell + 4 :] == 255).all()  # the cell left over is blank
    assert pair_grid([(images[0], grids[0])], 5, width=16).shape == (12, 34, 3)
    with pytest.raises(InputError, match="no pairs"):
        pair_grid([], 2)
