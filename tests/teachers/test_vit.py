"""Hugging Face teachers against the library's own forward, on small random models saved in the official layout."""

import json
import time

import pytest
import torch
from torch.nn import functional as F

from evlift import backbones
from evlift.errors import ConfigError
from evlift.teachers import load_teacher

KINDS = {
    "dinov2": {"patch_size": 14, "image_size": 56},
    "dinov2_with_registers": {"patch_size": 14, "image_size": 56, "num_register_tokens": 3},
    "dinov3_vit": {"patch_size": 16, "intermediate_size": 64, "num_register_tokens": 4},
}


def published(folder, kind):
    import transformers

    config_class, model_class = (getattr(transformers, name) for name in backbones.MODEL_TYPES[kind])
    torch.manual_seed(1)
    config = config_class(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, **KINDS[kind])
    model = model_class(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.1)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own_statistics", [True, False])
def test_features_are_the_patch_tokens_of_the_library(tmp_path, kind, own_statistics):
    model = published(tmp_path, kind)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    if own_statistics:
        mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    teacher = load_teacher(str(tmp_path))
    patch = KINDS[kind]["patch_size"]
    assert (teacher.dim, teacher.stride) == (32, patch)
    assert kind in teacher.description and teacher.licence

    images = torch.rand(2, 3, 3 * patch, 4 * patch)
    x = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        hidden = model(x).last_hidden_state
    prefix = 1 + KINDS[kind].get("num_register_tokens", 0)
    assert hidden.shape[1] == prefix + 12
    got = teacher.features(images)
    torch.testing.assert_close(got, hidden[:, prefix:].reshape(2, 3, 4, 32), rtol=1e-4, atol=1e-5)
    assert not got.requires_grad and not any(p.requires_grad for p in teacher.network.parameters())

    ragged = images[..., : 2 * patch + 1, : 3 * patch + 5]
    want = teacher.features(F.pad(ragged, (0, patch - 5, 0, patch - 1), mode="replicate"))
    torch.testing.assert_close(teacher.features(ragged), want)
    assert teacher.to("cpu") is teacher


def test_damaged_folders_are_refused_in_one_line(tmp_path):
    def refused(message):
        with pytest.raises(ConfigError, match=message) as caught:
            load_teacher(str(tmp_path))
        assert "\n" not in str(caught.value) and "; " in str(caught.value)

    refused("no config.json")
    published(tmp_path, "dinov2")
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    refused("preprocessor_config.json cannot be used")
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused("cannot be loaded")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    refused("save the weights as safetensors")
    (tmp_path / "model.safetensors").write_bytes(weights)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    refused("lack 1[0-9] tensors")
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    refused("cannot be loaded")
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "clip"}))
    refused("type 'clip'; supported: dinov2, dinov2_with_registers, dinov3_vit")
    (tmp_path / "config.json").write_text("{")
    refused("cannot be read")


def test_a_model_that_is_not_cached_is_refused_at_once(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    asked = []
    real = huggingface_hub.snapshot_download

    def no_network(name, *, local_files_only=False, **keywords):
        if local_files_only:
            return real(name, cache_dir=tmp_path, local_files_only=True, **keywords)
        asked.append(name)
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.monotonic()
    with pytest.raises(ConfigError, match="not in the local Hugging Face cache and HF_HUB_OFFLINE is set"):
        load_teacher("somebody/something")
    assert asked == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(ConfigError, match=r"cannot be reached \(Name or service not known\); download it once"):
        load_teacher("somebody/something")
    assert asked == ["somebody/something"]
    assert time.monotonic() - began < 30  # it hangs, or it does not


def test_a_cached_model_needs_no_network(tmp_path, monkeypatch):
    import huggingface_hub

    folder = tmp_path / "models--somebody--something"
    snapshot = folder / "snapshots" / "0123"
    published(snapshot, "dinov2")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    real = huggingface_hub.snapshot_download

    def cache_only(name, *, local_files_only=False, **keywords):
        assert local_files_only
        return real(name, cache_dir=tmp_path, local_files_only=True, **keywords)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cache_only)
    assert load_teacher("somebody/something").dim == 32
