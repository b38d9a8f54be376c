"""Which patches saw enough, and how two token grids are laid over one another."""

import torch
from torch import Tensor
from torch.nn import functional as F


def activation_mask(grid: Tensor, patch: int, threshold: float) -> Tensor:
    """The patches whose event mass reaches the threshold: ``Σ |E| ≥ τ`` over the patch's channels and pixels.

    ScaleEvent keeps τ = 64 at 16×16 patches. A side that the patch does not divide counts as filled up with zeros on
    the right and at the bottom, as the encoder does it.

    Args:
        grid: float [B, C, H, W], the raw representation (before any normalisation).
        patch: side of a patch, pixels.
        threshold: τ, in units of the representation (events, for a voxel grid). 0 keeps every patch.
    Returns:
        bool [B, h, w], h = ⌈H / patch⌉, w = ⌈W / patch⌉.
    """
    mass = grid.abs().sum(1)
    b, height, width = mass.shape
    down, right = -height % patch, -width % patch
    if down or right:
        mass = F.pad(mass, (0, right, 0, down))
    return mass.view(b, (height + down) // patch, patch, (width + right) // patch, patch).sum((2, 4)) >= threshold


def resample(tokens: Tensor, size: tuple[int, int], *, ratio: float | tuple[float, float] | None = None) -> Tensor:
    """Lay tokens of one grid over another grid, bilinearly.

    Args:
        tokens: float [B, h, w, D].
        size: (h', w') of the wanted grid.
        ratio: wanted cell side ÷ given cell side, one number or (vertical, horizontal): ``16 / 14`` to bring tokens of
            stride 14 onto patches of 16. With it, cell centres are matched in pixels from the top left corner, which
            stays exact where padding made the two grids cover unlike extents; centres beyond the last given one take
            its value. Without it the given grid is stretched onto the wanted one (smoothed first when that shrinks).
    Returns:
        float [B, h', w', D].
    """
    b, h, w, _ = tokens.shape
    if (h, w) == tuple(size) and ratio in (None, 1, (1, 1)):
        return tokens
    planes = tokens.permute(0, 3, 1, 2)
    if ratio is None:
        out = F.interpolate(planes, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)
    else:
        ry, rx = ratio if isinstance(ratio, tuple) else (ratio, ratio)
        # With align_corners=False, grid_sample's −1…1 spans the outer edges of the given cells.
        y = (torch.arange(size[0], device=tokens.device, dtype=tokens.dtype) + 0.5) * ry / h * 2 - 1
        x = (torch.arange(size[1], device=tokens.device, dtype=tokens.dtype) + 0.5) * rx / w * 2 - 1
        where = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1).expand(b, -1, -1, -1)
        out = F.grid_sample(planes, where, mode="bilinear", padding_mode="border", align_corners=False)
    return out.permute(0, 2, 3, 1)
