"""Teachers from the Hugging Face hub or a local folder: DINOv2, DINOv2 with registers, DINOv3 ViT."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import backbones


class VisionTransformer:
    """Patch tokens of a pretrained vision transformer: its last hidden state after the final norm, without CLS and
    registers.

    Pixels are normalised by the mean and standard deviation in the model's own preprocessor_config.json (ImageNet's
    where there is none). A picture whose sides the patch does not divide is filled up by repeating its right and bottom
    edge, so token (i, j) always lies over the pixels from (stride i, stride j) on.
    """

    def __init__(self, name: str):
        """Load `name`, a Hugging Face id or a folder.

        Raises:
            ConfigError: see :func:`evlift.backbones.load_pretrained`.
        """
        self.network, folder = backbones.load_pretrained(name)
        self.network.requires_grad_(False)
        mean, std = backbones.pixel_statistics(folder)
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
        self.name = name
        self.stride = backbones.patch_side(self.network)
        self.dim = int(self.network.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.licence = _licence(name)
        kind = self.network.config.model_type  # type: ignore[union-attr]
        self.description = f"{kind}, {backbones.depth(self.network)} blocks of width {self.dim}, patch {self.stride}"

    def to(self, device: str | torch.device) -> VisionTransformer:
        """Move the network; returns itself."""
        self.network.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return self

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """float [B, 3, H, W] in 0…1 → float [B, ⌈H / patch⌉, ⌈W / patch⌉, D]."""
        height, width = images.shape[-2:]
        down, right = -height % self.stride, -width % self.stride
        x = (images - self.mean) / self.std
        if down or right:
            x = F.pad(x, (0, right, 0, down), mode="replicate")
        tokens: Tensor = backbones.patch_tokens(self.network, x)  # type: ignore[assignment]
        return tokens.unflatten(1, ((height + down) // self.stride, (width + right) // self.stride))


def _licence(name: str) -> str:
    if not Path(name).exists():
        if name.startswith("facebook/dinov2"):
            return "Apache-2.0"
        if name.startswith("facebook/dinov3"):
            return "DINOv3 License"
    return "see the model's own card"
