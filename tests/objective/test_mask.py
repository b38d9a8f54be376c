import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.objective import activation_mask, resample


@settings(max_examples=30, deadline=None)
@given(h=st.integers(1, 11), w=st.integers(1, 11), patch=st.integers(1, 5), seed=st.integers(0, 99))
def test_mask_equals_a_loop(h, w, patch, seed):
    g = torch.Generator().manual_seed(seed)
    grid = torch.randint(-2, 3, (2, 3, h, w), generator=g).float()  # whole numbers: the sums are exact
    threshold = 1.2 * 3 * patch * patch
    got = activation_mask(grid, patch, threshold)
    assert got.dtype == torch.bool
    assert got.shape == (2, -(-h // patch), -(-w // patch))
    for b in range(2):
        for i in range(got.shape[1]):
            for j in range(got.shape[2]):
                cell = grid[b, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
                assert got[b, i, j].item() == (cell.abs().sum().item() >= threshold)


def test_the_threshold_itself_is_enough_and_signs_do_not_cancel():
    grid = torch.zeros(1, 2, 4, 4)
    grid[0, 0, 1, 1], grid[0, 1, 2, 2] = 40, -24
    assert activation_mask(grid, 4, 64).item() is True
    assert activation_mask(grid, 4, 64.5).item() is False
    assert activation_mask(torch.zeros(1, 1, 4, 4), 2, 0).all()


def test_resample_keeps_a_constant_and_a_matching_grid():
    tokens = torch.randn(2, 3, 4, 5)
    assert resample(tokens, (3, 4)) is tokens
    flat = torch.full((1, 3, 4, 2), 1.5)
    for out in (resample(flat, (7, 2)), resample(flat, (7, 2), ratio=(0.4, 2))):
        torch.testing.assert_close(out, torch.full((1, 7, 2, 2), 1.5))


def test_resample_halves_by_averaging_neighbours():
    ramp = torch.arange(8.0).view(1, 1, 8, 1).expand(1, 2, 8, 1)
    plain = resample(ramp, (2, 4), ratio=(1, 2))  # a centre of the wanted grid lies between two given ones
    torch.testing.assert_close(plain[0, 0, :, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]))


@pytest.mark.parametrize("given_side, wanted_side", [(14, 16), (16, 8), (16, 14)])
def test_resample_with_a_ratio_matches_pixel_positions(given_side, wanted_side):
    """Tokens that hold their own centre, in pixels, still hold the centre of the cell they were brought to."""
    h, w, size = 9, 12, (6, 7)
    y = (torch.arange(h) + 0.5) * given_side
    x = (torch.arange(w) + 0.5) * given_side
    tokens = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)[None]
    out = resample(tokens, size, ratio=wanted_side / given_side)
    for i in range(size[0]):
        for j in range(size[1]):
            want = torch.tensor([(i + 0.5) * wanted_side, (j + 0.5) * wanted_side]).clamp_min(given_side / 2)
            torch.testing.assert_close(out[0, i, j], want, rtol=0, atol=1e-3)


def test_resample_has_a_gradient():
    tokens = torch.randn(1, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    resample(tokens, (2, 3)).sum().backward()
    assert tokens.grad is not None and torch.isfinite(tokens.grad).all()
