"""Every loss against a loop in float64 that spells out its formula."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError
from evlift.objective import PRESETS, get_objective, scaleevent, scaleevent_released, token


def make(b, n, d, seed, keep=0.6):
    g = torch.Generator().manual_seed(seed)
    # A common offset makes most teacher similarities positive, some below the floor of 0.1, and some negative.
    t = torch.randn(b, n, d, generator=g, dtype=torch.float64) + 0.4
    s = 0.7 * t + torch.randn(b, n, d, generator=g, dtype=torch.float64)
    return s, t, torch.rand(b, n, generator=g) < keep


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def loop(s, t, m, released):
    """(token, intra, cross) by the book, in plain Python floats."""
    l1 = intra = cross = 0.0
    tokens = relations = 0
    s, t, m = s.tolist(), t.tolist(), m.tolist()
    n, d = len(s[0]), len(s[0][0])
    for b in range(len(s)):
        for i in range(n):
            if m[b][i]:
                tokens += 1
                l1 += sum(abs(x - y) for x, y in zip(s[b][i], t[b][i], strict=True)) / d
            for j in range(n):
                if not (m[b][i] and m[b][j]):
                    continue
                target = max(cosine(t[b][i], t[b][j]), 0.0)
                if target <= 0.1:
                    continue
                relations += 1
                p = 2 if released else 1
                intra += abs(max(cosine(s[b][i], s[b][j]), 0.0) - target) ** p
                cross += abs(max(cosine(s[b][i], t[b][j]), 0.0) - target) ** p
    if released:
        tokens, relations = len(s) * n, len(s) * n * n
    return l1 / max(tokens, 1), intra / max(relations, 1), cross / max(relations, 1)


@settings(max_examples=25, deadline=None)
@given(
    b=st.integers(1, 3),
    n=st.integers(1, 7),
    d=st.integers(2, 5),
    seed=st.integers(0, 999),
    keep=st.sampled_from([0.0, 0.3, 1.0]),
)
@pytest.mark.parametrize("name", ["scaleevent", "scaleevent-released"])
def test_structure_losses_equal_the_loop(name, b, n, d, seed, keep):
    s, t, m = make(b, n, d, seed, keep)
    got = PRESETS[name](s, t, m)
    l1, intra, cross = loop(s, t, m, released=name == "scaleevent-released")
    assert {k: v.item() for k, v in got.items()} == pytest.approx(
        {"token": l1, "intra": intra, "cross": cross, "total": l1 + 10 * intra + 4 * cross}, abs=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(
    b=st.integers(1, 3),
    n=st.integers(1, 7),
    d=st.integers(1, 5),
    seed=st.integers(0, 999),
    keep=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_token_equals_the_loop(b, n, d, seed, keep):
    s, t, m = make(b, n, d, seed, keep)
    got = token(s, t, m)
    assert got["total"].item() == pytest.approx(loop(s, t, m, released=False)[0], abs=1e-12)
    assert got["token"].item() == got["total"].item()


def test_the_floor_and_the_clip_act():
    """Pairs at cosine 0.05 (ignored), −0.5 (clipped, ignored) and 0.6 (kept), worked out by hand."""
    t = torch.tensor([[[1.0, 0.0], [0.05, math.sqrt(1 - 0.0025)]]], dtype=torch.float64)
    s = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    m = torch.ones(1, 2, dtype=torch.bool)
    assert scaleevent(s, t, m)["intra"].item() == pytest.approx(0)  # only the diagonal is kept
    t = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]], dtype=torch.float64)
    s = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]], dtype=torch.float64)
    got = scaleevent(s, t, m)
    assert got["intra"].item() == pytest.approx((0.6 + 0.6) / 4)
    # cos(s, t) = [[1, 0.6], [−1, −0.6]], clipped [[1, 0.6], [0, 0]], against [[1, 0.6], [0.6, 1]]
    assert got["cross"].item() == pytest.approx((0.6 + 1.0) / 4)
    assert scaleevent_released(s, t, m)["cross"].item() == pytest.approx((0.36 + 1.0) / 4)


@pytest.mark.parametrize("name", PRESETS)
def test_empty_mask_gives_zero_with_a_graph(name):
    s, t, m = make(2, 5, 4, 0)
    s.requires_grad_()
    losses = PRESETS[name](s, t, torch.zeros_like(m))
    assert losses["total"].item() == 0
    losses["total"].backward()
    assert s.grad is not None and torch.equal(s.grad, torch.zeros_like(s))


@pytest.mark.parametrize("name", PRESETS)
def test_gradients_are_finite_and_only_active_tokens_have_one(name):
    s, t, m = make(3, 8, 6, 1, keep=0.5)
    t[0, 0] = 0  # a teacher token of all zeros has no direction
    s.requires_grad_(), t.requires_grad_()
    PRESETS[name](s, t, m)["total"].backward()
    assert torch.isfinite(s.grad).all() and t.grad is None
    assert (s.grad[m] != 0).any(-1).all()
    assert (s.grad[~m] == 0).all()


@pytest.mark.parametrize("name", PRESETS)
def test_gradient_matches_finite_differences(name):
    s, t, m = make(2, 4, 3, 5)
    s.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: PRESETS[name](x, t, m)["total"], (s,), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("split", [1, 2, 3])
def test_gradients_averaged_over_ranks_are_those_of_the_whole_batch(name, split):
    """Two ranks with unequal shares and masks; rank 0 may even have no active patch."""
    s, t, m = make(4, 6, 5, 7)
    m[:1] = False
    whole = s.clone().requires_grad_()
    PRESETS[name](whole, t, m)["total"].backward()

    shares = [slice(0, split), slice(split, 4)]
    seen = []  # denominators in call order, by rank: a dry run stands in for the all-reduce
    for share in shares:
        calls = []
        PRESETS[name](s[share], t[share], m[share], reduce=lambda d, calls=calls: calls.append(d) or d)
        seen.append(calls)
    means = [sum(ds).double() / 2 for ds in zip(*seen, strict=True)]

    spread = s.clone().requires_grad_()
    for share in shares:
        queue = iter(means)
        (PRESETS[name](spread[share], t[share], m[share], reduce=lambda d, q=queue: next(q))["total"] / 2).backward()
    torch.testing.assert_close(spread.grad, whole.grad, rtol=1e-10, atol=1e-14)


def test_a_global_share_below_one_is_not_rounded_up():
    s, t, m = make(1, 1, 3, 2, keep=1.0)
    alone = token(s, t, m)["total"]
    halved = token(s, t, m, reduce=lambda d: d / 2)["total"]  # the only active patch of two ranks
    assert halved.item() == pytest.approx(2 * alone.item())


@pytest.mark.parametrize("name", PRESETS)
def test_half_precision_and_autocast_compute_in_float32(name):
    s, t, m = make(2, 9, 16, 3)
    s, t = s.bfloat16(), t.bfloat16()
    exact = PRESETS[name](s.double(), t.double(), m)["total"].item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = PRESETS[name](s, t, m)["total"]
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(exact, rel=1e-5)


def test_wrong_shapes_are_refused_rather_than_broadcast():
    s, t, m = make(2, 5, 4, 0)
    for bad in [(s[:1], t, m), (s, t[..., :1], m), (s, t, m[:1]), (s, t, m.long()), (s[0], t[0], m[0])]:
        with pytest.raises(ValueError, match="student"):
            scaleevent(*bad)


def test_objectives_by_name():
    assert get_objective("scaleevent-released") is scaleevent_released
    with pytest.raises(ConfigError, match="'scalevent'; choose one of: token, scaleevent, scaleevent-released"):
        get_objective("scalevent")
