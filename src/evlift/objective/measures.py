"""Numbers that show a collapse before a downstream task does. They take no part in training: no gradient."""

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def effective_rank(tokens: Tensor, *, centred: bool = False) -> float:
    """How many directions a set of tokens really uses: exp of the entropy of its normalised singular values.

        erank = exp(−Σ_k p_k ln p_k),   p_k = σ_k / Σ σ           (Roy & Vetterli, EUSIPCO 2007)

    Args:
        tokens: float [M, D].
        centred: take the mean token off first. By default the matrix is taken as it is, as the definition has it.
    Returns:
        1 … min(M, D); 0.0 when there is no token or all are zero.
    """
    x = tokens.detach()
    x = (x.cpu() if x.device.type == "mps" else x).double()
    if x.shape[0] == 0:
        return 0.0
    if centred:
        x = x - x.mean(0)
    # Singular values from the smaller Gram matrix: D³ rather than M D², and in float64 the lost digits don't matter.
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    sigma = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = sigma.sum()
    if total == 0:
        return 0.0
    p = sigma / total
    return float(torch.special.entr(p).sum().exp())


@torch.no_grad()
def relation_fidelity(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """How well relations between event tokens follow those between image tokens, a value a sample.

    Pearson's correlation, over the pairs (i ≠ j) of active patches, of ``cos(s_i, s_j)`` with ``cos(t_i, t_j)``. It
    needs no common space: the dimensions may differ.

    Args:
        student: float [B, N, D], event tokens.
        teacher: float [B, N, D'], image tokens.
        mask: bool [B, N], True where a patch is active.
    Returns:
        float [B], −1 … 1; NaN where fewer than three patches are active or one of the two has no variation.
    """
    with torch.autocast(student.device.type, enabled=False):
        similarities = []
        for x in (student, teacher):
            unit = F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)
            similarities.append(torch.bmm(unit, unit.mT))
        pairs = mask[:, :, None] & mask[:, None, :]
        pairs = pairs & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        count = pairs.sum((1, 2)).to(similarities[0].dtype)

        def mean(values: Tensor) -> Tensor:
            return (values * pairs).sum((1, 2)) / count

        s, t = (x - mean(x)[:, None, None] for x in similarities)
        variance_s, variance_t = mean(s * s), mean(t * t)
        correlation = mean(s * t) / (variance_s * variance_t).sqrt()
        # Rounding alone varies cosines by about 1e-7; what is not above that says nothing.
        defined = (mask.sum(1) >= 3) & (variance_s > 1e-12) & (variance_t > 1e-12)
        return correlation.where(defined, correlation.new_tensor(float("nan"))).clamp(-1, 1)
