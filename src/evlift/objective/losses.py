"""The losses that pull event tokens to image tokens: token for token, and relation for relation.

Each preset is a plain function on ``student [B, N, D]``, ``teacher [B, N, D]`` and ``mask [B, N]`` (True = the patch
saw enough events). It returns its parts, unweighted, and their weighted sum under ``"total"``.

A mean over a mask is a mean over the *batch's* kept entries, not a mean of per-sample means: a picture with few active
patches weighs as little as it has to say. Under several processes the batch is spread, so each mean's denominator goes
through ``reduce``, which returns *global denominator ÷ number of processes*; the gradients that data-parallel training
averages are then those of one process that holds the whole batch.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError

Reduce = Callable[[Tensor], Tensor]
Objective = Callable[..., dict[str, Tensor]]

INTRA_WEIGHT = 10.0
CROSS_WEIGHT = 4.0
SIMILARITY_FLOOR = 0.1
"""Relations that the teacher itself holds for this weak are left out of the structure losses."""


def local(denominator: Tensor) -> Tensor:
    """The ``reduce`` of a single process: the denominator itself."""
    return denominator


def token(student: Tensor, teacher: Tensor, mask: Tensor, *, reduce: Reduce = local) -> dict[str, Tensor]:
    """Plain distillation: the mean absolute difference of the active tokens.

        L = Σ_{b,i} M_bi Σ_d |s_bid − t_bid| / (D Σ_{b,i} M_bi)

    Args:
        student: float [B, N, D], event tokens in the teacher's space.
        teacher: float [B, N, D], image tokens; no gradient flows into them.
        mask: bool [B, N], True where a patch is active.
        reduce: see the module.
    Returns:
        ``{"token", "total"}``, scalars; zero, with its graph, when no patch is active.
    """
    student, teacher = _checked(student, teacher, mask)
    with _full_precision(student):
        loss = _token(student, teacher, mask, reduce)
    return {"token": loss, "total": loss}


def scaleevent(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    reduce: Reduce = local,
    intra_weight: float = INTRA_WEIGHT,
    cross_weight: float = CROSS_WEIGHT,
    floor: float = SIMILARITY_FLOOR,
) -> dict[str, Tensor]:
    """ScaleEvent as its paper states it (arXiv 2603.03969): ``token + 10 intra + 4 cross``.

    With ``[·]₊ = max(·, 0)``, ``T_ij = [cos(t_i, t_j)]₊`` and the kept relations ``K = {(b, i, j): M_bi M_bj = 1 and
    T_bij > 0.1}``:

        token = Σ M |s − t| / (D Σ M)
        intra = Σ_K |[cos(s_i, s_j)]₊ − T_ij| / |K|           event–event relations as image–image ones
        cross = Σ_K |[cos(s_i, t_j)]₊ − T_ij| / |K|           event–image relations as image–image ones

    The diagonal is part of the matrices: it costs nothing in ``intra`` and asks for ``cos(s_i, t_i) = 1`` in ``cross``.

    Args:
        student: float [B, N, D], event tokens in the teacher's space.
        teacher: float [B, N, D], image tokens; no gradient flows into them.
        mask: bool [B, N], True where a patch is active.
        reduce: see the module.
        intra_weight, cross_weight: the paper's 10 and 4.
        floor: relations at most this similar in the teacher are ignored.
    Returns:
        ``{"token", "intra", "cross", "total"}``, scalars.
    """
    student, teacher = _checked(student, teacher, mask)
    with _full_precision(student):
        s, t = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
        target, kept = _relations(t, mask, floor)  # [B, N, N] both
        count = _filled(reduce(kept.sum()))
        # The three matrices of a large batch are the memory of this loss: one is gone before the next is made.
        intra = ((torch.bmm(s, s.mT).relu() - target).abs() * kept).sum() / count
        cross = ((torch.bmm(s, t.mT).relu() - target).abs() * kept).sum() / count
        l1 = _token(student, teacher, mask, reduce)
        return {"token": l1, "intra": intra, "cross": cross, "total": l1 + intra_weight * intra + cross_weight * cross}


def scaleevent_released(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    reduce: Reduce = local,
    intra_weight: float = INTRA_WEIGHT,
    cross_weight: float = CROSS_WEIGHT,
    floor: float = SIMILARITY_FLOOR,
) -> dict[str, Tensor]:
    """ScaleEvent as its released code computes it, which is not what its paper says.

    Features are multiplied by M before anything else, and every mean is over *all* tokens or relations, so a sparse
    window counts for little; the structure terms are squared. In the notation of :func:`scaleevent`:

        token = Σ |M s − M t| / (B N D)
        intra = Σ_K ([cos(s_i, s_j)]₊ − T_ij)² / (B N²)
        cross = Σ_K ([cos(s_i, t_j)]₊ − T_ij)² / (B N²)

    (A masked feature is a zero vector, whose similarities are 0 ≤ 0.1: it leaves K by itself.)

    Arguments and result as for :func:`scaleevent`.
    """
    student, teacher = _checked(student, teacher, mask)
    with _full_precision(student):
        s, t = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
        target, kept = _relations(t, mask, floor)
        tokens = _filled(reduce(torch.tensor(mask.numel(), device=mask.device)))
        relations = _filled(reduce(torch.tensor(kept.numel(), device=mask.device)))
        l1 = ((student - teacher).abs().mean(-1) * mask).sum() / tokens
        intra = ((torch.bmm(s, s.mT).relu() - target).square() * kept).sum() / relations
        cross = ((torch.bmm(s, t.mT).relu() - target).square() * kept).sum() / relations
        return {"token": l1, "intra": intra, "cross": cross, "total": l1 + intra_weight * intra + cross_weight * cross}


PRESETS: dict[str, Objective] = {
    "token": token,
    "scaleevent": scaleevent,
    "scaleevent-released": scaleevent_released,
}
"""Name on the command line → loss."""


def get_objective(name: str) -> Objective:
    """The loss called ``name``.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no objective {name!r}; choose one of: {', '.join(PRESETS)}")
    return PRESETS[name]


def _token(student: Tensor, teacher: Tensor, mask: Tensor, reduce: Reduce) -> Tensor:
    # Multiplying by the mask, rather than indexing with it, keeps shapes fixed: no device synchronisation, and an empty
    # mask leaves a zero that still has its graph.
    return ((student - teacher).abs().mean(-1) * mask).sum() / _filled(reduce(mask.sum()))


@torch.no_grad()
def _relations(unit_teacher: Tensor, mask: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """``T [B, N, N]`` and which of its entries count: both patches active and T above the floor."""
    target = torch.bmm(unit_teacher, unit_teacher.mT).relu_()
    return target, (target > floor) & mask[:, :, None] & mask[:, None, :]


def _filled(denominator: Tensor) -> Tensor:
    """A denominator that may be divided by: 1 where nothing was kept. (A global share below one is a fair value.)"""
    return torch.where(denominator > 0, denominator, torch.ones_like(denominator))


def _full_precision(x: Tensor) -> AbstractContextManager:
    # Similarities near 1 and sums over N² entries are beyond bfloat16: leave any autocast of the loop here.
    return torch.autocast(x.device.type, enabled=False)


def _checked(student: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    # Broadcasting would turn a wrong shape into a wrong number.
    if (
        student.ndim != 3
        or student.shape != teacher.shape
        or mask.shape != student.shape[:2]
        or mask.dtype != torch.bool
    ):
        raise ValueError(
            "an objective takes student [B, N, D], teacher [B, N, D] and bool mask [B, N]; "
            f"got {tuple(student.shape)}, {tuple(teacher.shape)} and {mask.dtype} {tuple(mask.shape)}"
        )
    teacher = teacher.detach()
    if student.dtype != torch.float64:
        student, teacher = student.float(), teacher.float()
    return student, teacher
