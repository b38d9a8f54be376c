import numpy as np
import pytest
import torch

from evlift.objective import effective_rank, relation_fidelity


def test_effective_rank_of_known_matrices():
    assert effective_rank(torch.eye(7)) == pytest.approx(7)
    assert effective_rank(torch.ones(50, 6)) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.eye(5).repeat(20, 1)) == pytest.approx(5)
    assert effective_rank(torch.zeros(4, 3)) == 0
    assert effective_rank(torch.zeros(0, 3)) == 0
    p = np.array([0.7, 0.2, 0.1])  # singular values 7 : 2 : 1
    assert effective_rank(torch.diag(torch.tensor([7.0, 2.0, 1.0]))) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
@pytest.mark.parametrize("centred", [False, True])
def test_effective_rank_equals_its_formula_on_singular_values(shape, centred):
    x = np.random.default_rng(0).normal(0.5, 1, shape)
    sigma = np.linalg.svd(x - x.mean(0) * centred, compute_uv=False)
    p = sigma / sigma.sum()
    p = p[p > 1e-12]
    assert effective_rank(torch.from_numpy(x), centred=centred) == pytest.approx(
        np.exp(-(p * np.log(p)).sum()), rel=1e-6
    )


def test_relation_fidelity_equals_numpy():
    rng = np.random.default_rng(1)
    s, t = rng.normal(size=(4, 9, 5)), rng.normal(size=(4, 9, 7))
    t[..., :5] += s
    mask = rng.random((4, 9)) < 0.7
    mask[3] = [True, True, *[False] * 7]  # two patches: one relation, no correlation
    got = relation_fidelity(torch.from_numpy(s), torch.from_numpy(t), torch.from_numpy(mask))
    for b in range(3):
        u, v = (x[b, mask[b]] / np.linalg.norm(x[b, mask[b]], axis=1, keepdims=True) for x in (s, t))
        off = ~np.eye(len(u), dtype=bool)
        assert got[b].item() == pytest.approx(np.corrcoef((u @ u.T)[off], (v @ v.T)[off])[0, 1], rel=1e-9)
    assert torch.isnan(got[3])


def test_relation_fidelity_of_the_teacher_itself_is_one_and_of_a_constant_undefined():
    t = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 12, dtype=torch.bool)
    torch.testing.assert_close(relation_fidelity(3 * t, t, mask), torch.ones(2))
    assert torch.isnan(relation_fidelity(torch.ones_like(t), t, mask)).all()
    assert torch.isnan(relation_fidelity(t, t, torch.zeros_like(mask))).all()
