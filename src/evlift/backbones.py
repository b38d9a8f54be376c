"""Vision transformers of the library `transformers`: built from a config, found by name, run block by block.

Teachers and the encoder both stand on these. Three architectures are known: DINOv2, DINOv2 with registers and DINOv3
ViT. They differ in names more than in kind, so this module holds what tells them apart: where the blocks are, which
norm is the last, how many tokens stand before the patches, and what the weights are called in a file.

`transformers` takes seconds to import, so it is imported when a network is asked for.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ConfigError

MODEL_TYPES = {
    "dinov2": ("Dinov2Config", "Dinov2Model"),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel"),
    "dinov3_vit": ("DINOv3ViTConfig", "DINOv3ViTModel"),
}
"""`model_type` of a config → names of its config and model class. Nothing else is ever built from a file."""

SIZES = {
    "tiny": {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3},
    "small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}
"""The sizes of DINOv3's ViTs, and the tiny one that the field uses below them. The MLP is four times as wide."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of RGB in 0…1, where a model's folder doesn't say otherwise."""

# The fields of the three configs that shape the network; a whole config also holds traces of the library's release.
_FIELDS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "intermediate_size", "hidden_act"),
    *("layer_norm_eps", "layerscale_value", "initializer_range", "drop_path_rate", "hidden_dropout_prob"),
    *("attention_probs_dropout_prob", "attention_dropout", "image_size", "patch_size", "num_channels"),
    *("num_register_tokens", "use_mask_token", "qkv_bias", "query_bias", "key_bias", "value_bias", "proj_bias"),
    *("mlp_bias", "use_swiglu_ffn", "use_gated_mlp", "rope_theta"),
    *("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"),
)

# Names in memory follow the installed transformers, names in a file the official layout of each architecture.
_OFFICIAL = (
    (re.compile(r"^model\.layer\."), "layer."),
    (re.compile(r"^(encoder\.layer\.\d+\.)attention\.q_proj\."), r"\1attention.attention.query."),
    (re.compile(r"^(encoder\.layer\.\d+\.)attention\.k_proj\."), r"\1attention.attention.key."),
    (re.compile(r"^(encoder\.layer\.\d+\.)attention\.v_proj\."), r"\1attention.attention.value."),
    (re.compile(r"^(encoder\.layer\.\d+\.)attention\.o_proj\."), r"\1attention.output.dense."),
)


def official_name(key: str) -> str:
    """The name that a parameter has in the architecture's published files, whatever transformers calls it in memory."""
    for pattern, name in _OFFICIAL:
        key = pattern.sub(name, key)
    return key


def config_of(model: nn.Module) -> dict[str, Any]:
    """The architecture of `model` as plain values, enough for :func:`build`."""
    config = model.config
    values = {name: getattr(config, name) for name in _FIELDS if hasattr(config, name)}
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    return {"model_type": config.model_type, **plain}  # type: ignore[union-attr]


def build(config: dict[str, Any]) -> nn.Module:
    """A randomly initialised network.

    Args:
        config: `model_type`, one of :data:`MODEL_TYPES`, and the fields of that architecture's config.
    Raises:
        ConfigError: another model type, or values that make no network.
    """
    import transformers

    values = dict(config)
    kind = values.pop("model_type", None)
    if kind not in MODEL_TYPES:
        raise ConfigError(f"cannot build a network of type {kind!r}; supported: {', '.join(MODEL_TYPES)}")
    config_class, model_class = (getattr(transformers, name) for name in MODEL_TYPES[kind])
    try:
        model = model_class._from_config(config_class(**values), attn_implementation="sdpa")
    except Exception as error:  # the library has no one family for values it cannot use
        raise ConfigError(f"the settings of the {kind} network are not usable ({_first_line(error)})") from error
    return _settled(model)


def load_pretrained(name: str) -> tuple[nn.Module, Path]:
    """A network with its published weights, by Hugging Face id or local folder.

    Args:
        name: such as `facebook/dinov2-small`, or a folder that holds `config.json` and `model.safetensors`.
    Returns:
        The network (float32, eval mode) and the folder it was read from.
    Raises:
        ConfigError: nothing there, not to be had without a network, another architecture, or damaged files.
    """
    folder = find(name)
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = values.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{folder / 'config.json'} cannot be read ({_first_line(error)}); get it again") from error
    if kind not in MODEL_TYPES:
        raise ConfigError(f"{name} is a network of type {kind!r}; supported: {', '.join(MODEL_TYPES)}")
    import transformers
    from transformers.utils import logging

    model_class = getattr(transformers, MODEL_TYPES[kind][1])
    talkative = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # reading a file takes a second
    try:
        model, report = model_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="sdpa",
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # safetensors, OS and library errors alike: the files are not what they should be
        raise ConfigError(f"the weights in {folder} cannot be loaded ({_first_line(error)}); get them again") from error
    finally:
        if talkative:
            logging.enable_progress_bar()
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would start these at random and only warn
        raise ConfigError(f"the weights in {folder} lack {len(missing)} tensors ({missing[0]}, …); get them again")
    return _settled(model), folder


def find(name: str) -> Path:
    """The local folder of a model: the folder itself, the hub's cache, or a download into it (weights as safetensors).

    Raises:
        ConfigError: see :func:`load_pretrained`.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{folder} has no config.json; give the folder that save_pretrained wrote")
        if not _has_weights(folder):
            raise ConfigError(f"{folder} has no model.safetensors; save the weights as safetensors")
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ConfigError(f"there is no folder {name}, and it is not a Hugging Face id such as facebook/dinov2-small")
    import huggingface_hub
    from huggingface_hub import errors

    wanted = ["config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json"]
    try:
        cached = Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted, local_files_only=True))
        if (cached / "config.json").is_file() and _has_weights(cached):
            return cached  # no look at the network: the same files every time, and at once
    except (OSError, ValueError):
        pass
    once = "download it once where there is one, or give a local folder"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ConfigError(
            f"{name} is not in the local Hugging Face cache and HF_HUB_OFFLINE is set; unset it or {once}"
        )
    try:
        cached = Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted, etag_timeout=5))
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{name} asks for its licence to be accepted; do so on its page at huggingface.co, then run `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"there is no model {name} at the Hugging Face hub (or it is private); check the id"
        ) from error
    except Exception as error:  # whatever the network does: refused, unresolved, timed out, cut
        raise ConfigError(
            f"{name} is not in the local Hugging Face cache and the hub cannot be reached ({_first_line(error)}); "
            + once
        ) from error
    if not (cached / "config.json").is_file() or not _has_weights(cached):
        raise ConfigError(f"{name} has no config.json with model.safetensors; choose a model published as safetensors")
    return cached


def pixel_statistics(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of RGB that the model in `folder` expects; ImageNet's where it doesn't say.

    Raises:
        ConfigError: preprocessor_config.json is damaged.
    """
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return IMAGENET
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        mean, std = (tuple(float(v) for v in values.get(k, d)) for k, d in zip(("image_mean", "image_std"), IMAGENET))  # noqa: B905
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("image_mean and image_std must be three numbers each")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} cannot be used ({_first_line(error)}); get it again") from error
    return mean, std


def patch_side(model: nn.Module) -> int:
    """Side of a patch, pixels."""
    patch = model.config.patch_size  # type: ignore[union-attr]
    return int(patch if isinstance(patch, int) else patch[0])  # type: ignore[index]


def patch_embedding(model: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the patch embedding's convolution, and the attribute it goes by."""
    if hasattr(model, "rope_embeddings"):
        return model.embeddings, "patch_embeddings"  # type: ignore[return-value]
    return model.embeddings.patch_embeddings, "projection"  # type: ignore[return-value, union-attr]


def patch_tokens(model: nn.Module, pixels: Tensor, layers: list[int] | None = None) -> Tensor | list[Tensor]:
    """Patch tokens after the final norm, without CLS and registers.

    Args:
        model: a network from :func:`build` or :func:`load_pretrained`.
        pixels: float [B, C, H, W], normalised; H and W multiples of the patch.
        layers: blocks to read, counted from 0, negative from the end; the final norm is applied to each.
    Returns:
        float [B, N, D], N = (H / patch) (W / patch) in reading order: the model's `last_hidden_state`; a list of such,
        in the order asked for, where `layers` are given.
    """
    blocks = _blocks(model)
    pixels = pixels.to(getattr(*patch_embedding(model)).weight.dtype)  # the position code follows the pixels' dtype
    wanted = [len(blocks) - 1] if layers is None else [i % len(blocks) for i in layers]
    keywords = {}
    if hasattr(model, "rope_embeddings"):
        keywords["position_embeddings"] = model.rope_embeddings(pixels)  # type: ignore[operator]
        norm = model.norm
    else:
        norm = model.layernorm
    x = model.embeddings(pixels)  # type: ignore[operator]
    prefix = 1 + getattr(model.config, "num_register_tokens", 0)
    read = {}
    for i, block in enumerate(blocks[: max(wanted, default=-1) + 1]):
        x = block(x, **keywords)
        x = x[0] if isinstance(x, tuple) else x  # older releases return a tuple
        if i in wanted:
            read[i] = norm(x)[:, prefix:]  # type: ignore[operator]
    return read[wanted[0]] if layers is None else [read[i] for i in wanted]


def depth(model: nn.Module) -> int:
    """Number of blocks."""
    return len(_blocks(model))


def _blocks(model: nn.Module) -> nn.ModuleList:
    for holder in ("model", "encoder"):
        if hasattr(model, holder):
            return getattr(model, holder).layer
    return model.layer  # type: ignore[return-value]


def _settled(model: nn.Module) -> nn.Module:
    """Make the network a plain function of its input and weights, every weight of which takes part."""
    # Only masked-image training uses the mask token; a parameter without a gradient stops data-parallel training.
    token = getattr(model.embeddings, "mask_token", None)
    if token is not None:
        token.requires_grad_(False)
    # DINOv3 draws a random scale of its position code at each training step; a run must not depend on such a draw.
    for name in ("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"):
        if hasattr(model.config, name):
            setattr(model.config, name, None)
    return model.eval()


def _has_weights(folder: Path) -> bool:
    return (folder / "model.safetensors").is_file() or (folder / "model.safetensors.index.json").is_file()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
