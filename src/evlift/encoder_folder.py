"""The folder that an encoder is kept in: `config.json`, `model.safetensors`, `README.md`.

Nothing in it is code and nothing is unpickled. It is written beside its place and moved there when complete.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import RunError

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def write(path: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Write an encoder folder at `path`, replacing an encoder that is there.

    The new folder is complete and on the disk before the old one is moved aside; if the move fails, the old one is put
    back. A process killed between the two moves leaves the old encoder as `.NAME.old-…` beside the place.

    Raises:
        RunError: `path` holds something else, or the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(os.path.abspath(path))
    if path.exists() and not _replaceable(path):
        raise RunError(f"{path} exists and is no encoder; choose another place, or remove it")
    made = aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
        made.chmod(0o777 & ~_umask())  # mkdtemp's folders are for their owner alone
        (made / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (made / CARD).write_text(_card(path.name, config, weights), encoding="utf-8")
        save_file(weights, made / WEIGHTS, metadata={"format": "pt"})
        for entry in (CONFIG, CARD, WEIGHTS, "."):
            _sync(made / entry)
        if path.exists():
            aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
            path.rename(aside / path.name)
        made.rename(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        if aside and (aside / path.name).exists() and not path.exists():
            (aside / path.name).rename(path)
        raise RunError(
            f"the encoder cannot be written to {path} ({error}); free space or choose another place"
        ) from error
    finally:
        for leftover in (made, aside):
            if leftover and leftover.exists():
                shutil.rmtree(leftover, ignore_errors=True)


def find(path: Path) -> Path:
    """The encoder folder that `path` means: itself, or `encoder/` in a run folder.

    Raises:
        RunError: there is none.
    """
    for folder in (path, path / "encoder"):
        if (folder / CONFIG).is_file() or (folder / WEIGHTS).is_file():
            return folder
    if not path.exists():
        raise RunError(f"{path} does not exist; give an encoder folder, or the run folder that holds one")
    raise RunError(f"{path} holds no encoder ({CONFIG} and {WEIGHTS}); give an encoder folder, or a finished run")


def read_config(folder: Path, kind: str, version: int) -> dict[str, Any]:
    """The settings in `config.json`.

    Raises:
        RunError: missing, damaged, of another kind, or of a later version than `version`.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{file} is missing; save the encoder again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"{file} cannot be read ({' '.join(str(error).split())[:200]}); save the encoder again"
        ) from error
    if not isinstance(config, dict) or config.get("format") != kind:
        raise RunError(
            f"{file} is not the config of an evlift encoder; give an encoder folder, or the run that holds one"
        )
    if not isinstance(config.get("version"), int) or config["version"] > version:
        raise RunError(f"{folder} has version {config.get('version')} of the encoder format; update evlift to read it")
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors in `model.safetensors`, on the CPU.

    Raises:
        RunError: missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / WEIGHTS
    try:
        return load_file(file)
    except FileNotFoundError:
        raise RunError(f"{file} is missing; save the encoder again") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"{file} is damaged ({' '.join(str(error).split())[:200]}); save the encoder again") from error


def _replaceable(path: Path) -> bool:
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    return names <= {CONFIG, WEIGHTS, CARD}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _card(name: str, config: dict[str, Any], weights: dict[str, Tensor]) -> str:
    backbone, teacher = config["backbone"], config["teacher"]
    parameters = sum(tensor.numel() for tensor in weights.values())
    taught = f"`{teacher['name']}`" if teacher["name"] else "not recorded"
    settings = ", ".join(f"{k} {v}" for k, v in config["representation"].items())
    return f"""---
library_name: evlift
pipeline_tag: image-feature-extraction
tags: [event-camera, neuromorphic, feature-extraction]
---
# {name}: an event-camera encoder

| | |
|---|---|
| input | events as {settings}; each sample divided by the root mean square of its non-zero entries |
| network | {backbone["model_type"]}, {backbone["num_hidden_layers"]} blocks of width {backbone["hidden_size"]}, \
patch {backbone["patch_size"]}, stem `{config["stem"]}` |
| parameters | {parameters / 1e6:.1f} M |
| teacher | {taught}, {teacher["dim"]} channels |

```python
import evlift

encoder = evlift.load_encoder("{name}")
tokens = encoder.encode(events)   # evlift.Events -> float32 [h, w, {backbone["hidden_size"]}], one token a patch
lifted = encoder.lift(tokens)     # [h, w, {teacher["dim"]}], in the teacher's space, every channel standardised
```

Made with evlift, by distilling an image model into an event encoder. Whatever licences the teacher and the training
data carry apply to these weights.
"""
