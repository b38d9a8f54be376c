"""The colour basis against NumPy's SVD, similarity against a loop, and what drawing must not distort."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import InputError
from evlift.view import PCABasis, query_points, similarity_map, similarity_picture
from evlift.view.tokens import LUMA, VEIL, VEIL_DRAIN, VEIL_STRENGTH, similarity_colours, spread, veil


def scaled(rng, rows, dim):
    """Tokens whose principal directions are well apart."""
    return rng.normal(size=(rows, dim)) * np.linspace(5, 0.5, dim) @ np.linalg.qr(rng.normal(size=(dim, dim)))[0] + 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 60), st.integers(4, 30))  # more rows than dimensions, and fewer
def test_basis_is_the_svd(seed, rows, dim):
    tokens = scaled(np.random.default_rng(seed), rows, dim)
    basis = PCABasis.fit(tokens)
    centred = tokens - tokens.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    share = singular[:3] ** 2 / (singular**2).sum()
    np.testing.assert_allclose(basis.share, share, rtol=1e-6)
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(3), atol=1e-9)
    for k in range(3):
        gap = min(abs(singular[k] - s) for j, s in enumerate(singular) if j != k) / singular[0]
        if gap > 1e-3:  # else the direction is not determined
            assert abs(abs(basis.components[k] @ directions[k]) - 1) < 1e-6
    assert all(row[np.argmax(np.abs(row))] > 0 for row in basis.components)


def test_sign_does_not_depend_on_the_order_of_the_tokens():
    tokens = scaled(np.random.default_rng(1), 40, 9)
    a, b = PCABasis.fit(tokens), PCABasis.fit(tokens[::-1].copy())
    np.testing.assert_allclose(a.components, b.components, atol=1e-9)


def test_colours_by_hand():
    # Three directions with variances 9 > 4 > 1 along the axes; each coordinate is taken to its share of the range.
    rng = np.random.default_rng(2)
    tokens = rng.uniform(-1, 1, (4000, 3)) * [3, 2, 1]
    basis = PCABasis.fit(tokens)
    low, high = np.percentile((tokens - tokens.mean(0)) @ basis.components.T, [1, 99], axis=0)
    np.testing.assert_allclose((basis.low, basis.high), (low, high))
    at = np.array([[[0, 0, 0], [2.2, 0, 0], [0, 0, 5.0]]])
    coordinates = ((at - tokens.mean(0)) @ basis.components.T - low) / (high - low)
    assert np.array_equal(basis.colours(at), np.rint(coordinates.clip(0, 1) * 255).astype(np.uint8))
    assert basis.colours(at)[0, 2, 2] == 255 and abs(int(basis.colours(at)[0, 0, 0]) - 128) < 6


def test_equal_tokens_have_equal_colours_whoever_made_them():
    rng = np.random.default_rng(3)
    teacher = rng.normal(size=(5, 7, 16)).astype(np.float32)
    basis = PCABasis.fit(teacher)
    student = rng.normal(size=(5, 7, 16)).astype(np.float32)
    student[2, 3] = teacher[4, 6]
    assert np.array_equal(basis.colours(student)[2, 3], basis.colours(teacher)[4, 6])
    assert np.array_equal(basis.colours(torch.from_numpy(teacher)), basis.colours(teacher))
    assert not np.array_equal(basis.colours(student), basis.colours(teacher))


def test_a_collapsed_student_looks_flat():
    rng = np.random.default_rng(4)
    teacher = rng.normal(size=(6, 6, 8))
    basis = PCABasis.fit(teacher)
    flat = basis.colours(teacher.mean(axis=(0, 1)) + 0.01 * rng.normal(size=(6, 6, 8)))
    assert np.ptp(flat.reshape(-1, 3), axis=0).max() < 10
    assert np.ptp(basis.colours(teacher).reshape(-1, 3), axis=0).min() == 255


def test_mask_and_nan_leave_tokens_out():
    rng = np.random.default_rng(5)
    tokens = scaled(rng, 48, 6).reshape(6, 8, 6)
    mask = rng.random((6, 8)) < 0.6
    spoilt = np.where(mask[..., None], tokens, 1e6)
    np.testing.assert_allclose(PCABasis.fit(spoilt, mask).components, PCABasis.fit(tokens[mask]).components)
    broken = tokens.copy()
    broken[0, 0, 0] = np.nan
    np.testing.assert_allclose(PCABasis.fit(broken).mean, tokens.reshape(-1, 6)[1:].mean(axis=0))
    assert np.array_equal(PCABasis.fit(tokens).colours(broken)[0, 0], [128, 128, 128])


@pytest.mark.parametrize("tokens", [np.ones((3, 3, 8)), np.ones((1, 1, 2)), np.arange(9.0).reshape(3, 3, 1)])
def test_tokens_that_span_less_than_three_dimensions(tokens):
    basis = PCABasis.fit(tokens)
    colours = basis.colours(tokens)
    assert np.isfinite(basis.components).all() and (colours[..., 1:] == 128).all()
    if np.ptp(tokens) > 0:
        assert colours[0, 0, 0] == 0 and colours[2, 2, 0] == 255


def test_what_cannot_be_fitted_or_drawn_is_refused():
    tokens = np.random.default_rng(0).normal(size=(3, 4, 5))
    with pytest.raises(InputError, match="no token"):
        PCABasis.fit(tokens, np.zeros((3, 4), bool))
    with pytest.raises(InputError, match="mask"):
        PCABasis.fit(tokens, np.ones((4, 3), bool))
    basis = PCABasis.fit(tokens)
    with pytest.raises(InputError, match="width 6"):
        basis.colours(np.zeros((3, 4, 6)))
    with pytest.raises(InputError, match=r"\[h, w, D\]"):
        basis.colours(tokens.reshape(12, 5))
    with pytest.raises(InputError, match="outside"):
        similarity_map(tokens, (3, 0))


def test_similarity_is_the_cosine():
    rng = np.random.default_rng(6)
    tokens = rng.normal(size=(4, 5, 7)).astype(np.float32)
    tokens[1, 1] = 0
    found = similarity_map(tokens, (2, 3))
    assert found.shape == (4, 5) and found.dtype == np.float32
    query = tokens[2, 3].astype(float)
    for row in range(4):
        for column in range(5):
            token = tokens[row, column].astype(float)
            length = np.sqrt((token**2).sum() * (query**2).sum())
            assert found[row, column] == pytest.approx((token * query).sum() / length if length else 0.0, abs=1e-6)
    assert found[2, 3] == pytest.approx(1)


def test_queries_stand_for_different_things():
    rng = np.random.default_rng(7)
    kinds = np.zeros((6, 9), int)
    kinds[:, 3:6], kinds[:, 6:] = 1, 2
    tokens = np.eye(8)[kinds] + 0.05 * rng.normal(size=(6, 9, 8))
    mask = np.ones((6, 9), bool)
    mask[:3] = False
    points = query_points(tokens, mask, 3)
    assert sorted(kinds[p] for p in points) == [0, 1, 2]
    assert all(mask[p] for p in points) and points == query_points(tokens.copy(), mask, 3)
    # Each is the typical patch of its kind: no other of the kind is nearer to the kind's mean direction.
    for point in points:
        own = mask & (kinds == kinds[point])
        unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
        centre = unit[own].mean(axis=0)
        assert unit[point] @ centre == pytest.approx((unit[own] @ centre).max())


@pytest.mark.parametrize("active", [0, 1, 2])
def test_queries_where_hardly_any_patch_is_active(active):
    mask = np.zeros((3, 3), bool)
    mask.flat[:active] = True
    points = query_points(np.random.default_rng(8).normal(size=(3, 3, 5)), mask, 3)
    assert len(points) == len(set(points)) == (active or 3)
    assert len(query_points(np.ones((3, 3, 5)), None, 3)) == 1  # all alike: one stands for all


def test_spread_puts_patch_centres_in_place():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    flat = spread(values, 24, 32, smooth=False)
    assert np.array_equal(flat, np.repeat(np.repeat(values, 8, 0), 8, 1))
    smooth = spread(values, 27, 36)  # patch 9: the centre is a pixel
    np.testing.assert_allclose(smooth[4::9, 4::9], values, atol=1e-5)
    # A picture that the patch does not divide: the last row and column of patches reach beyond it.
    cut = spread(values, 22, 32, smooth=False)
    assert np.array_equal(cut, flat[:22])
    assert spread(values, 10, 32).shape == (10, 32)  # no square patch fits: stretched


def test_veil_greys_the_inactive_and_leaves_the_rest():
    picture = np.full((4, 8, 3), [200, 40, 0], np.uint8)
    mask = np.array([[True, False]])
    veiled = veil(picture, mask)
    assert np.array_equal(veiled[:, :4], picture[:, :4]) and (picture == [200, 40, 0]).all()
    luma = 0.299 * 200 + 0.587 * 40
    drained = np.array([200, 40, 0]) + VEIL_DRAIN * (luma - np.array([200, 40, 0]))
    expected = drained + VEIL_STRENGTH * (np.array(VEIL) - drained)
    assert np.abs(veiled[:, 4:] - expected).max() <= 0.51
    np.testing.assert_allclose(LUMA.sum(axis=0), 1, rtol=1e-6)


def test_similarity_colours_rise_in_lightness():
    colours = similarity_colours(np.linspace(0, 1, 64)).astype(float)
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()
    assert np.array_equal(similarity_colours(np.array([-1.0, np.nan, 2.0])), similarity_colours(np.array([0, 0, 1.0])))


def test_the_query_is_ringed_where_it_is():
    tokens = np.ones((4, 6, 3), np.float32)
    plain = similarity_colours(np.ones((320, 480)))
    drawn = similarity_picture(tokens, (1, 4), (320, 480))
    rows, columns = np.nonzero((drawn != plain).any(axis=2))
    assert abs(rows.mean() - 119.5) <= 1 and abs(columns.mean() - 359.5) <= 1  # patch 80: centre of row 1, column 4
    assert np.ptp(rows) < 40 and [255, 255, 255] in drawn.reshape(-1, 3).tolist()
