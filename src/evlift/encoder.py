"""The student: raw event representation in, tokens out, on a standard vision transformer.

An encoder carries its own representation, normalisation, stem, backbone and projection into its teacher's space. It
is saved as a folder (`config.json`, `model.safetensors`, `README.md`) that loads without teacher, data or network.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import backbones, represent
from .errors import ConfigError, InputError, RunError
from .represent import Representation

if TYPE_CHECKING:
    from .events import Events
    from .events.recording import Window

FORMAT = "evlift-encoder"
VERSION = 1
NORMALISATION = "nonzero-rms"


class ConvStem(nn.Module):
    """Patch embedding by a few small convolutions, "early convolutions" (Xiao et al. 2021), which learn faster.

    Stride-2 3×3 convolutions, each with GroupNorm and GELU, double the width until the patch's stride is reached; a
    1×1 convolution gives the tokens. GroupNorm, where the paper has BatchNorm, keeps samples apart: no running state.
    """

    def __init__(self, channels: int, dim: int, patch: int):
        super().__init__()
        steps = patch.bit_length() - 1
        widths = [channels, *(dim >> (steps - 1 - i) for i in range(steps))]  # dim/8, dim/4, dim/2, dim at patch 16
        layers: list[nn.Module] = []
        for given, made in pairwise(widths):
            layers += [nn.Conv2d(given, made, 3, stride=2, padding=1, bias=False)]
            layers += [nn.GroupNorm(_groups(made), made), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(dim, dim, 1))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        last = self.layers[-1]
        nn.init.trunc_normal_(last.weight, std=dim**-0.5)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    @property
    def weight(self) -> Tensor:
        """Tells the backbone, which asks its patch embedding's weight, which dtype to work in."""
        return self.layers[0].weight  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """float [B, C, H, W] → [B, D, H / patch, W / patch]."""
        return self.layers(x)


class Encoder(nn.Module):
    """An event encoder. Make one with :meth:`create`, :meth:`from_teacher` or :func:`load_encoder`.

    Attributes:
        representation: events → float32 [C, H, W]; what :meth:`forward` expects is its plain output.
        dim: width D of a token. patch: side of a patch, pixels. depth: number of blocks.
        teacher_dim: width E of the space that :meth:`lift` leads to.
        teacher_name: whom it was made to learn from, "" if unknown.
        projector: `nn.Linear(D, E)`, or `nn.Identity` where tokens are in the teacher's own space already.
        teacher_mean, teacher_std: float32 [E] buffers, the teacher's channel statistics; 0 and 1 until set.
    """

    teacher_mean: Tensor
    teacher_std: Tensor

    def __init__(
        self,
        representation: Representation,
        backbone: nn.Module,
        *,
        stem: str = "patch",
        teacher_dim: int | None = None,
        teacher_name: str = "",
    ):
        """Put the parts together. `backbone` is of :mod:`evlift.backbones`; `teacher_dim` asks for a projector."""
        super().__init__()
        self.representation = representation
        self.backbone = backbone
        self.stem = stem
        self.patch = backbones.patch_side(backbone)
        self.depth = backbones.depth(backbone)
        self.dim = int(backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.teacher_name = teacher_name
        self.teacher_dim = teacher_dim or self.dim
        taken = backbone.config.num_channels  # type: ignore[union-attr]
        if taken != representation.channels:
            raise ConfigError(f"the network takes {taken} channels, its representation has {representation.channels}")
        if stem == "conv":
            least = self.patch // 2
            if self.patch & (self.patch - 1) or self.patch < 2 or self.dim % least:
                raise ConfigError(
                    "a conv stem halves the picture down to the patch, which does not work for patch "
                    f"{self.patch} and width {self.dim}; give patch 8, 16 or 32, or stem 'patch'"
                )
            holder, name = backbones.patch_embedding(backbone)
            setattr(holder, name, ConvStem(representation.channels, self.dim, self.patch))
        elif stem != "patch":
            raise ConfigError(f"there is no stem {stem!r}; choose 'patch' or 'conv'")
        self.projector: nn.Module = nn.Linear(self.dim, teacher_dim) if teacher_dim else nn.Identity()
        self.register_buffer("teacher_mean", torch.zeros(self.teacher_dim))
        self.register_buffer("teacher_std", torch.ones(self.teacher_dim))

    @classmethod
    def create(
        cls,
        size: str = "tiny",
        *,
        bins: int = 5,
        representation: Representation | None = None,
        patch: int = 16,
        depth: int | None = None,
        stem: str = "patch",
        registers: int = 4,
        teacher_dim: int | None = None,
        teacher_name: str = "",
        seed: int = 0,
    ) -> Encoder:
        """An untrained encoder: a DINOv3 ViT (rotary positions, any resolution) with random weights.

        Args:
            size: tiny, small, base or large; see :data:`evlift.backbones.SIZES`.
            bins: of the voxel grid, unless a `representation` is given.
            representation: anything :func:`evlift.represent.build` makes.
            patch: side of a patch, pixels.
            depth: number of blocks, where it should differ from the size's own.
            stem: "patch" (one linear map a patch) or "conv" (:class:`ConvStem`; patch a power of two).
            registers: tokens that take part in attention and are no patch.
            teacher_dim: width of the teacher's features; adds the projector to them.
            teacher_name: kept for the model card.
            seed: of the initial weights; the caller's random state is left alone.
        Raises:
            ConfigError: an unknown size or stem, or a value out of range.
        """
        if size not in backbones.SIZES:
            raise ConfigError(f"there is no encoder size {size!r}; choose one of: {', '.join(backbones.SIZES)}")
        if depth is not None and depth < 1:
            raise ConfigError(f"an encoder of depth {depth} has no blocks; give 1 or more")
        if patch < 1:
            raise ConfigError(f"patch is {patch}; give a number of pixels, such as 16")
        representation = representation or represent.build({"name": "voxel-grid", "bins": bins})
        shape = backbones.SIZES[size]
        config = {
            "model_type": "dinov3_vit",
            **shape,
            "intermediate_size": 4 * shape["hidden_size"],
            "num_hidden_layers": depth or shape["num_hidden_layers"],
            "num_register_tokens": registers,
            "num_channels": representation.channels,
            "patch_size": patch,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = backbones.build(config)
            return cls(representation, backbone, stem=stem, teacher_dim=teacher_dim, teacher_name=teacher_name)

    @classmethod
    def from_teacher(
        cls,
        name: str,
        *,
        bins: int = 5,
        representation: Representation | None = None,
        seed: int = 0,
    ) -> Encoder:
        """An encoder that starts as its teacher: the same network and weights, fed with events.

        Only the patch embedding changes, to C event channels. Each channel gets the mean of the three RGB filters,
        scaled so that the norm of every output's filter is kept:

            w'_c = (‖[w_R w_G w_B]‖ / (√C ‖w̄‖)) w̄,   w̄ = (w_R + w_G + w_B) / 3,   norms over one output's weights

        (An output whose mean filter vanishes, a pure colour filter, has nothing to keep and stays zero.) There is no
        projector: tokens are in the teacher's space from the start.

        Args:
            name: Hugging Face id or local folder of a DINOv2 or DINOv3 ViT.
            bins, representation: as for :meth:`create`.
            seed: unused (nothing is random); so that both ways to make a student take one.
        Raises:
            ConfigError: see :func:`evlift.backbones.load_pretrained`.
        """
        representation = representation or represent.build({"name": "voxel-grid", "bins": bins})
        backbone, _ = backbones.load_pretrained(name)
        holder, attribute = backbones.patch_embedding(backbone)
        rgb: nn.Conv2d = getattr(holder, attribute)
        channels: int = representation.channels
        conv = nn.Conv2d(channels, rgb.out_channels, rgb.kernel_size, rgb.stride, bias=rgb.bias is not None)  # type: ignore[arg-type]
        with torch.no_grad():
            mean = rgb.weight.mean(1, keepdim=True)  # [D, 1, p, p]
            kept = rgb.weight.flatten(1).norm(dim=1)
            spread = mean.flatten(1).norm(dim=1) * channels**0.5
            scale = torch.where(spread > 1e-6 * kept, kept / spread, torch.zeros_like(kept))
            conv.weight.copy_((mean * scale[:, None, None, None]).expand_as(conv.weight))
            if rgb.bias is not None and conv.bias is not None:
                conv.bias.copy_(rgb.bias)
        setattr(holder, attribute, conv)
        backbone.config.num_channels = channels  # type: ignore[union-attr]
        if hasattr(holder, "num_channels"):
            holder.num_channels = channels  # type: ignore[assignment]
        return cls(representation, backbone, teacher_name=name)

    def forward(self, x: Tensor, layers: Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """Tokens of raw representations.

        Each sample is divided by the root mean square of its non-zero entries, which makes its contrast independent of
        the event rate and leaves zero at zero; an empty window stays zero. Then sides that the patch does not divide
        are filled up with zeros on the right and at the bottom.

        Args:
            x: float [B, C, H, W].
            layers: blocks to read, counted from 0, negative from the end; the final norm is applied to each.
        Returns:
            float [B, h, w, D], h = ⌈H / patch⌉, w = ⌈W / patch⌉; with `layers`, a list of these.
        """
        _, channels, height, width = x.shape
        if channels != self.representation.channels:
            raise InputError(
                f"this encoder reads {self.representation.channels} channels, not {channels}; "
                "make them with encoder.representation"
            )
        if layers is not None and not all(-self.depth <= i < self.depth for i in layers):
            raise InputError(f"layers {list(layers)} are not all there; this encoder has blocks 0 to {self.depth - 1}")
        x = _normalised(x)
        down, right = -height % self.patch, -width % self.patch
        if down or right:
            x = F.pad(x, (0, right, 0, down))
        h, w = (height + down) // self.patch, (width + right) // self.patch
        if layers is None:
            tokens: Tensor = backbones.patch_tokens(self.backbone, x)  # type: ignore[assignment]
            return tokens.unflatten(1, (h, w))
        return [t.unflatten(1, (h, w)) for t in backbones.patch_tokens(self.backbone, x, list(layers))]

    def lift(self, tokens: Tensor) -> Tensor:
        """Tokens [..., D] → the *standardised* teacher space [..., E], where every channel has mean 0 and variance 1.

        A projector has learnt to land there. Without one, tokens are in the teacher's own space and are standardised
        as the teacher's are. A head trained on :meth:`standardise_teacher` of image features so works on lifted events.
        """
        return self.standardise_teacher(tokens) if isinstance(self.projector, nn.Identity) else self.projector(tokens)

    def standardise_teacher(self, features: Tensor) -> Tensor:
        """Teacher features [..., E] → ``(features − teacher_mean) / teacher_std``, the target of :meth:`lift`."""
        return (features - self.teacher_mean) / self.teacher_std

    def set_teacher_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Keep the teacher's channel means and standard deviations, float [E] each, with the encoder.

        Raises:
            ConfigError: another width than `teacher_dim`, or a standard deviation that is not positive.
        """
        mean, std = torch.as_tensor(mean), torch.as_tensor(std)
        if mean.shape != self.teacher_mean.shape or std.shape != self.teacher_std.shape:
            raise ConfigError(
                f"teacher statistics have shapes {tuple(mean.shape)} and {tuple(std.shape)}, the encoder leads to "
                f"{self.teacher_dim} channels; create it with this teacher's dim"
            )
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ConfigError("a teacher channel has no variation or no finite value; use more images, or other ones")
        with torch.no_grad():
            self.teacher_mean.copy_(mean)
            self.teacher_std.copy_(std)

    @torch.no_grad()
    def encode(self, events: Events | Window | Sequence[Events | Window], *, batch_size: int = 16) -> Tensor:
        """Events in, tokens out, on the encoder's own device and without a gradient.

        Args:
            events: Events or a recording's Window; or a list of them, all of one sensor size.
            batch_size: how many of a list go through the network at once.
        Returns:
            float32 [h, w, D]; for a list float32 [B, h, w, D].
        Raises:
            InputError: an empty list, or sensors of different sizes.
        """
        several = isinstance(events, (list, tuple))
        items: Sequence[Any] = events if several else [events]  # type: ignore[assignment]
        if not items:
            raise InputError("there is nothing to encode in an empty list; give one Events or more")
        was_training = self.training
        self.eval()
        try:
            tokens: list[Tensor] = []
            sizes: set[tuple[int, ...]] = set()
            for start in range(0, len(items), batch_size):
                grids = [self.representation(item) for item in items[start : start + batch_size]]
                sizes.update(grid.shape for grid in grids)
                if len(sizes) > 1:
                    raise InputError("these events come from sensors of different sizes; encode one size at a time")
                tokens.append(self(torch.from_numpy(np.stack(grids)).to(self.teacher_mean.device)).float())
        finally:
            self.train(was_training)
        return torch.cat(tokens) if several else tokens[0][0]

    def config(self) -> dict[str, Any]:
        """What `config.json` holds: enough to build this encoder before its weights are read."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "representation": self.representation.config(),
            "normalisation": NORMALISATION,
            "stem": self.stem,
            "projector": not isinstance(self.projector, nn.Identity),
            "teacher": {"name": self.teacher_name, "dim": self.teacher_dim},
            "backbone": backbones.config_of(self.backbone),
        }

    def save(self, path: str | Path) -> None:
        """Write the encoder folder, whole or not at all; an encoder that is there already is replaced.

        Raises:
            RunError: `path` holds something that is no encoder, or cannot be written.
        """
        from .encoder_folder import write

        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write(Path(path), self.config(), {_in_file(name): tensor for name, tensor in weights.items()})


def load_encoder(path: str | Path, device: str | torch.device = "cpu") -> Encoder:
    """Read an encoder, in eval mode.

    Args:
        path: an encoder folder, or a run folder, whose `encoder/` is taken.
        device: where to put it.
    Raises:
        RunError: there is none, or its files are damaged or of a later version.
    """
    from .encoder_folder import find, read_config, read_weights

    folder = find(Path(path))
    config = read_config(folder, FORMAT, VERSION)
    damaged = f"{folder / 'config.json'} does not describe an encoder"
    try:
        if config["normalisation"] != NORMALISATION:
            raise RunError(f"{damaged} of this release (normalisation {config['normalisation']!r}); update evlift")
        dim = int(config["teacher"]["dim"]) if config["projector"] else None
        with torch.random.fork_rng(devices=[]):
            encoder = Encoder(
                represent.build(config["representation"]),
                backbones.build(config["backbone"]),
                stem=config["stem"],
                teacher_dim=dim,
                teacher_name=str(config["teacher"]["name"]),
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # ConfigError is a ValueError
        raise RunError(f"{damaged} ({' '.join(str(error).split())[:200]}); save it again") from error
    weights = read_weights(folder)
    held = {_in_file(name): tensor for name, tensor in encoder.state_dict().items()}
    wrong = sorted(held.keys() ^ weights.keys()) or sorted(k for k in held if held[k].shape != weights[k].shape)
    if wrong:
        raise RunError(
            f"the weights in {folder} do not fit its config.json ({len(wrong)} tensors, as {wrong[0]}); save it again"
        )
    encoder.load_state_dict({name: weights[_in_file(name)] for name in encoder.state_dict()})
    return encoder.to(device).eval()


def _in_file(name: str) -> str:
    """The tensor's name in `model.safetensors`: the backbone's parts are called as in its published weights."""
    head, dot, tail = name.partition(".")
    return f"{head}{dot}{backbones.official_name(tail)}" if head == "backbone" else name


def _normalised(x: Tensor) -> Tensor:
    x = x.float()
    energy = x.square().sum((1, 2, 3))
    entries = (x != 0).sum((1, 2, 3))
    # rsqrt of the mean square; an empty window is multiplied by zero rather than by infinity.
    scale = torch.where(entries > 0, (entries / energy.clamp_min(torch.finfo(x.dtype).tiny)).sqrt(), energy)
    return x * scale[:, None, None, None]


def _groups(width: int) -> int:
    return next(g for g in (8, 4, 2, 1) if width % g == 0)
