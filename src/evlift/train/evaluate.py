"""The collapse measures: how far the student's tokens keep the structure of the teacher's on pairs held out.

Relation fidelity: for each pair, the Pearson correlation between the student's and the teacher's matrices of cosine
similarities between active patches; its mean over pairs. Both sides are in the teacher's standardised space. A student
whose tokens have collapsed onto each other, or that blurs everything, scores near 0 whatever its loss.

Effective rank: exp of the entropy of the normalised singular values (Roy & Vetterli 2007) of the active tokens that
the encoder gives to downstream tasks, before any projection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..objective import activation_mask, effective_rank, relation_fidelity

MOST_TOKENS = 4096  # enough for a stable rank at the widths of a ViT


def held_out_batches(pairs: Dataset, count: int, batch: int = 16) -> Iterable[dict[str, Any]]:
    """Batches of `count` pairs (0: all), spread evenly over `pairs`, without augmentation."""
    total = len(pairs)  # type: ignore[arg-type]
    count = min(count or total, total)
    chosen = [i * total // count for i in range(count)]
    return DataLoader(torch.utils.data.Subset(pairs, chosen), batch_size=batch)


@torch.no_grad()
def collapse_measures(
    student: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    targets: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor],
    batches: Iterable[dict[str, Any]],
    *,
    patch: int,
    threshold: float,
    device: torch.device,
) -> dict[str, float]:
    """Relation fidelity and effective rank over held-out pairs.

    Args:
        student: grid [B, C, H, W] → (tokens [B, h, w, D], tokens lifted to the teacher's space [B, h, w, E]).
        targets: images [B, 3, H, W] in 0…1 and a grid size (h, w) → teacher tokens [B, h, w, E].
        batches: dicts with `image` and `grid`.
        patch, threshold: of the activation mask.
    """
    fidelity, plain, kept, active = [], [], [], []
    for batch in batches:
        grid, image = batch["grid"].to(device), batch["image"].to(device)
        tokens, lifted = student(grid)
        teacher = targets(image, (tokens.shape[1], tokens.shape[2])).flatten(1, 2).float()
        mask = activation_mask(grid, patch, threshold).flatten(1)
        fidelity.append(relation_fidelity(lifted.flatten(1, 2).float(), teacher, mask))
        plain.append(relation_fidelity(tokens.flatten(1, 2).float(), teacher, mask))
        kept.append(tokens.flatten(1, 2)[mask].float())
        active.append(mask.float().mean(1))
    rows = torch.cat(kept)
    rows = rows[:: max(1, -(-len(rows) // MOST_TOKENS))]
    return {
        "relation_fidelity": float(torch.cat(fidelity).nanmean()),
        "relation_fidelity_tokens": float(torch.cat(plain).nanmean()),
        "effective_rank": float(effective_rank(rows)) if len(rows) else float("nan"),
        "active_share": float(torch.cat(active).mean()),
        "pairs": float(sum(len(a) for a in active)),
    }
