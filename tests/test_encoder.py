"""The student network: its values, its file, and what it does with files that are not right."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from evlift import backbones
from evlift.encoder import Encoder, load_encoder
from evlift.errors import ConfigError, InputError, RunError
from evlift.events import Events, open_recording, write_recording


@pytest.fixture(scope="module")
def tiny():
    return Encoder.create(depth=2, bins=3, teacher_dim=7, seed=3).eval()


def random_events(n, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return Events(
        rng.integers(0, width, n).astype(np.uint16),
        rng.integers(0, height, n).astype(np.uint16),
        np.sort(rng.integers(0, 50_000, n)),
        rng.random(n) < 0.5,
        height,
        width,
    )


def sparse(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g) * (torch.rand(shape, generator=g) < 0.2)


@torch.no_grad()
def test_tokens_are_the_library_model_on_normalised_input(tiny):
    x = 5 * sparse(2, 3, 48, 64)
    scaled = torch.stack([s / s[s != 0].square().mean().sqrt() for s in x])
    output = tiny.backbone(scaled, output_hidden_states=True)
    want = output.last_hidden_state[:, 5:].reshape(2, 3, 4, 192)  # CLS and four registers first
    torch.testing.assert_close(tiny(x), want)
    first, last = tiny(x, layers=[0, -1])
    torch.testing.assert_close(last, want)
    torch.testing.assert_close(first, tiny.backbone.norm(output.hidden_states[1])[:, 5:].reshape(2, 3, 4, 192))
    assert (first - last).abs().max() > 0.1


@torch.no_grad()
def test_attention_is_sdpa_and_equals_eager(tiny):
    assert tiny.backbone.config._attn_implementation == "sdpa"
    x = sparse(1, 3, 32, 48)
    want = tiny(x)
    tiny.backbone.set_attn_implementation("eager")
    try:
        torch.testing.assert_close(tiny(x), want, rtol=1e-4, atol=1e-5)
    finally:
        tiny.backbone.set_attn_implementation("sdpa")


@torch.no_grad()
def test_sides_are_filled_up_after_normalisation(tiny):
    x = sparse(2, 3, 41, 50)
    got = tiny(x)
    assert got.shape == (2, 3, 4, 192)
    torch.testing.assert_close(got, tiny(F.pad(x, (0, 14, 0, 7))))


@torch.no_grad()
@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_the_scale_of_a_sample_and_its_neighbours_do_not_matter(stem):
    encoder = Encoder.create(depth=1, bins=2, stem=stem, seed=1)
    x = sparse(3, 2, 32, 32)
    x[2] = 0
    got = encoder(x)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(
        encoder(x * torch.tensor([7.0, 0.01, 1.0])[:, None, None, None]), got, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(encoder(x[:1]), got[:1], rtol=1e-4, atol=1e-5)
    assert (encoder.train()(x) == got).all()  # nothing is drawn in training mode


def test_an_empty_window_has_a_finite_gradient():
    encoder = Encoder.create(depth=1, bins=2, stem="conv", teacher_dim=4)
    encoder.lift(encoder(torch.zeros(1, 2, 16, 16))).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_every_trained_parameter_takes_part(stem):
    encoder = Encoder.create(depth=2, bins=2, stem=stem, teacher_dim=4)
    encoder.lift(encoder(sparse(2, 2, 32, 32))).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


@torch.no_grad()
def test_conv_stem_is_its_convolutions(tiny):
    stem = Encoder.create(depth=1, bins=2, stem="conv").backbone.embeddings.patch_embeddings
    x = torch.randn(2, 2, 32, 48)
    want = x
    for i in range(0, 12, 3):
        conv, norm = stem.layers[i], stem.layers[i + 1]
        assert conv.weight.shape[:2] == ([24, 48, 96, 192][i // 3], [2, 24, 48, 96][i // 3])
        want = F.conv2d(want, conv.weight, stride=2, padding=1)
        want = F.gelu(F.group_norm(want, 8, norm.weight, norm.bias, norm.eps))
    want = torch.einsum("oc,bchw->bohw", stem.layers[12].weight[:, :, 0, 0], want) + stem.layers[12].bias[:, None, None]
    torch.testing.assert_close(stem(x), want, rtol=1e-4, atol=1e-5)
    assert stem(x).shape == (2, 192, 2, 3)


def test_sizes_and_seeds():
    for size, wanted, shape in [("tiny", None, (192, 3, 12)), ("small", 1, (384, 6, 1))]:
        encoder = Encoder.create(size, depth=wanted, patch=8, bins=4)
        assert (encoder.dim, encoder.backbone.config.num_attention_heads, encoder.depth) == shape
        assert encoder.patch == 8 and encoder.representation.channels == 4
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (Encoder.create(depth=1, seed=seed, stem="conv", teacher_dim=3).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["projector.weight"], c["projector.weight"])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"size": "huge"}, "tiny, small, base, large"),
        ({"stem": "resnet"}, "'patch' or 'conv'"),
        ({"stem": "conv", "patch": 14}, "give patch 8, 16 or 32"),
        ({"depth": 0}, "no blocks"),
        ({"patch": 0}, "such as 16"),
    ],
)
def test_unusable_settings(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Encoder.create(**{"depth": 1} | wrong)


@torch.no_grad()
def test_lift_goes_to_the_standardised_teacher_space():
    tokens = torch.randn(2, 3, 3, 192)
    encoder = Encoder.create(depth=1, teacher_dim=5)
    mean, std = torch.arange(5.0), torch.arange(1.0, 6.0)
    encoder.set_teacher_statistics(mean, std)
    want = tokens @ encoder.projector.weight.T + encoder.projector.bias
    torch.testing.assert_close(encoder.lift(tokens), want)
    features = torch.randn(2, 3, 3, 5)
    torch.testing.assert_close(encoder.standardise_teacher(features), (features - mean) / std)

    own = Encoder.create(depth=1)  # no projector: tokens are in the teacher's space, as they are
    torch.testing.assert_close(own.lift(tokens), tokens)
    own.set_teacher_statistics(torch.full((192,), 2.0), torch.full((192,), 4.0))
    torch.testing.assert_close(own.lift(tokens), (tokens - 2) / 4)
    with pytest.raises(ConfigError, match="create it with this teacher's dim"):
        encoder.set_teacher_statistics(torch.zeros(4), torch.ones(4))
    with pytest.raises(ConfigError, match="no variation"):
        encoder.set_teacher_statistics(torch.zeros(5), torch.zeros(5))


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_half_precision(stem):
    encoder = Encoder.create(depth=1, bins=2, stem=stem, teacher_dim=4)
    x = sparse(1, 2, 32, 32)
    want = encoder(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = encoder(x)
    pure = encoder.bfloat16()(x)
    for got in (mixed, pure):
        torch.testing.assert_close(got.float(), want, rtol=0.1, atol=0.15)


def test_encode_is_represent_then_forward(tiny):
    events = [random_events(400, 40, 60, seed) for seed in range(3)]
    got = tiny.encode(events, batch_size=2)
    assert got.shape == (3, 3, 4, 192) and not got.requires_grad
    for i, each in enumerate(events):
        with torch.no_grad():
            want = tiny(torch.from_numpy(tiny.representation(each))[None])[0]
        torch.testing.assert_close(tiny.encode(each), want, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(got[i], want, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(tiny.encode(Events.empty(40, 60))).all()
    (tiny.encode(events) @ torch.zeros(192, 2, requires_grad=True)).sum().backward()  # a probe may train on it
    tiny.train()
    tiny.encode(events[0])
    assert tiny.training
    tiny.eval()
    with pytest.raises(InputError, match="empty list"):
        tiny.encode([])
    for batch_size in (1, 2):
        with pytest.raises(InputError, match="different sizes"):
            tiny.encode([events[0], random_events(10, 20, 20)], batch_size=batch_size)
    with pytest.raises(InputError, match="3 channels, not 4"):
        tiny(torch.zeros(1, 4, 32, 32))
    with pytest.raises(InputError, match="blocks 0 to 1"):
        tiny(torch.zeros(1, 3, 32, 32), layers=[2])


def test_a_window_of_a_recording_is_encoded_as_its_events_are(tiny, tmp_path):
    write_recording(tmp_path / "packed", random_events(3000, 48, 64))
    recording = open_recording(tmp_path / "packed")
    got = tiny.encode([recording.window(10_250, 30_500), recording.window(30_500, 50_000)])
    for i, (t0, t1) in enumerate([(10_250, 30_500), (30_500, 50_000)]):
        torch.testing.assert_close(got[i], tiny.encode(recording.events(t0, t1)), rtol=1e-3, atol=1e-4)


# The file


@pytest.mark.parametrize("stem, teacher_dim", [("patch", None), ("conv", 6)])
def test_a_saved_encoder_comes_back_whole(tmp_path, stem, teacher_dim):
    encoder = Encoder.create(depth=2, bins=4, stem=stem, teacher_dim=teacher_dim, teacher_name="somebody", seed=9)
    e = encoder.teacher_dim
    encoder.set_teacher_statistics(torch.randn(e), torch.rand(e) + 0.5)
    encoder.save(tmp_path / "run" / "encoder")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["encoder"]
    assert sorted(p.name for p in (tmp_path / "run/encoder").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    before = torch.get_rng_state()
    for path in (tmp_path / "run", tmp_path / "run" / "encoder", str(tmp_path / "run")):
        again = load_encoder(path)
        assert not again.training and again.teacher_name == "somebody"
        assert again.representation == encoder.representation
        assert again.config() == encoder.config()
        assert again.state_dict().keys() == encoder.state_dict().keys()
        assert all(torch.equal(v, encoder.state_dict()[k]) for k, v in again.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)
    x = sparse(1, 4, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(again.lift(again(x)), encoder.lift(encoder(x)), rtol=0, atol=0)
    card = (tmp_path / "run/encoder/README.md").read_text()
    assert "somebody" in card and "voxel-grid" in card


def test_file_names_are_those_of_the_published_weights(tmp_path):
    from safetensors import safe_open

    encoder = Encoder.create(depth=1)
    encoder.save(tmp_path / "e")
    encoder.backbone.save_pretrained(tmp_path / "official")
    names = []
    for folder in ("e", "official"):
        with safe_open(tmp_path / folder / "model.safetensors", "pt") as file:
            names.append(set(file.keys()))
    assert names[0] == {f"backbone.{name}" for name in names[1]} | {"teacher_mean", "teacher_std"}


def test_saving_replaces_an_encoder_and_nothing_else(tmp_path, monkeypatch):
    place = tmp_path / "encoder"
    first, second = Encoder.create(depth=1, seed=1), Encoder.create(depth=1, seed=2)
    first.save(place)
    second.save(place)
    assert torch.equal(load_encoder(place).backbone.norm.weight, second.backbone.norm.weight)
    same = torch.equal(
        load_encoder(place).backbone.embeddings.patch_embeddings.weight,
        second.backbone.embeddings.patch_embeddings.weight,
    )
    assert same
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]

    # The disk gives up while the weights are written: the old encoder is still there, and no rest of the new one.
    def full(*_args, **_keywords):
        raise OSError("No space left on device")

    with monkeypatch.context() as m:
        m.setattr("safetensors.torch.save_file", full)
        with pytest.raises(RunError, match="No space left"):
            first.save(place)
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]
    load_encoder(place)

    # …or when the new one is to be moved to its place.
    rename = type(place).rename
    with monkeypatch.context() as m:
        m.setattr(type(place), "rename", lambda p, to: full() if ".new-" in p.name else rename(p, to))
        with pytest.raises(RunError, match="No space left"):
            first.save(place)
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]
    load_encoder(place)

    (place / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is no encoder"):
        first.save(place)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(RunError, match="is no encoder"):
        first.save(file)
    with pytest.raises(RunError, match="cannot be written"):
        first.save(file / "below")


def edit(place, change):
    config = json.loads((place / "config.json").read_text())
    change(config)
    (place / "config.json").write_text(json.dumps(config))


def cut(place, name, share):
    data = (place / name).read_bytes()
    (place / name).write_bytes(data[: math.floor(len(data) * share)])


DAMAGES = {
    "no config": (lambda p: (p / "config.json").unlink(), "config.json is missing"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "model.safetensors is missing"),
    "cut config": (lambda p: cut(p, "config.json", 0.5), "cannot be read"),
    "binary config": (lambda p: (p / "config.json").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "a list": (lambda p: (p / "config.json").write_text("[1, 2]"), "not the config of an evlift encoder"),
    "another model": (lambda p: edit(p, lambda c: c.update(format="bert")), "not the config of an evlift encoder"),
    "later version": (lambda p: edit(p, lambda c: c.update(version=99)), "update evlift"),
    "other normalisation": (lambda p: edit(p, lambda c: c.update(normalisation="z")), "update evlift"),
    "no backbone": (lambda p: edit(p, lambda c: c.pop("backbone")), "does not describe an encoder"),
    "foreign backbone": (lambda p: edit(p, lambda c: c["backbone"].update(model_type="bert")), "supported: dinov2"),
    "backbone of words": (lambda p: edit(p, lambda c: c["backbone"].update(hidden_size="wide")), "does not describe"),
    "backbone is text": (lambda p: edit(p, lambda c: c.update(backbone="vit")), "does not describe an encoder"),
    "odd heads": (lambda p: edit(p, lambda c: c["backbone"].update(num_attention_heads=0)), "does not describe"),
    "unknown stem": (lambda p: edit(p, lambda c: c.update(stem="x")), "does not describe an encoder"),
    "no such representation": (lambda p: edit(p, lambda c: c["representation"].update(name="x")), "does not describe"),
    "cut weights": (lambda p: cut(p, "model.safetensors", 0.7), "is damaged"),
    "cut header": (lambda p: cut(p, "model.safetensors", 0.001), "is damaged"),
    "empty weights": (lambda p: cut(p, "model.safetensors", 0), "is damaged"),
    "other depth": (lambda p: edit(p, lambda c: c["backbone"].update(num_hidden_layers=2)), "do not fit its config"),
    "other width": (lambda p: edit(p, lambda c: c["backbone"].update(intermediate_size=64)), "do not fit its config"),
    "other bins": (lambda p: edit(p, lambda c: c["representation"].update(bins=2)), "does not describe"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved") / "encoder"
    Encoder.create(depth=1, teacher_dim=3).save(place)
    return place


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_encoder_is_refused_in_one_line(tmp_path, saved, what):
    damage, message = DAMAGES[what]
    place = tmp_path / "encoder"
    shutil.copytree(saved, place)
    damage(place)
    with pytest.raises(RunError, match=message) as caught:
        load_encoder(place)
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


def test_nothing_to_load(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(RunError, match="holds no encoder"):
        load_encoder(tmp_path)


# From a teacher


def published(folder, kind, **more):
    values = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56} | more
    torch.manual_seed(0)
    model = backbones.build({"model_type": kind, **values})
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.1)
    model.save_pretrained(folder)
    return model


KINDS = {
    "dinov2": {"patch_size": 14},
    "dinov2_with_registers": {"patch_size": 14, "num_register_tokens": 3},
    "dinov3_vit": {"patch_size": 16, "intermediate_size": 64, "num_register_tokens": 4},
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_from_teacher_keeps_the_network_and_adapts_the_patch_embedding(tmp_path, kind):
    model = published(tmp_path / "teacher", kind, **KINDS[kind])
    rgb = getattr(*backbones.patch_embedding(model))
    rgb.weight[3] = 0
    rgb.weight[3, 0], rgb.weight[3, 2] = 1, -1  # red minus blue: its mean over RGB vanishes
    model.save_pretrained(tmp_path / "teacher")

    encoder = Encoder.from_teacher(str(tmp_path / "teacher"), bins=5)
    conv = getattr(*backbones.patch_embedding(encoder.backbone))
    assert conv.weight.shape == (32, 5, model.config.patch_size, model.config.patch_size)
    for d in range(32):
        mean = rgb.weight[d].double().mean(0)
        want = mean / (mean.norm() * math.sqrt(5)) * rgb.weight[d].double().norm() if d != 3 else 0 * mean
        for c in range(5):
            torch.testing.assert_close(conv.weight[d, c].double(), want, rtol=1e-5, atol=1e-6)
    assert torch.equal(conv.bias, rgb.bias)

    # A grey picture repeated over the channels meets the teacher's own filters, up to one scale a filter, so with the
    # scale undone the tokens must be the teacher's, at any resolution.
    side = model.config.patch_size
    grey = sparse(2, 1, 3 * side, 5 * side)
    grey /= grey.square().sum((1, 2, 3), keepdim=True).div((grey != 0).sum((1, 2, 3), keepdim=True)).sqrt()
    scale = 3 * rgb.weight.mean(1).flatten(1).norm(dim=1) / conv.weight.sum(1).flatten(1).norm(dim=1)
    scale[3] = 1
    conv.weight.mul_(scale[:, None, None, None])
    want = model.eval()(grey.expand(-1, 3, -1, -1)).last_hidden_state[:, -15:].reshape(2, 3, 5, 32)
    torch.testing.assert_close(encoder(grey.expand(-1, 5, -1, -1)), want, rtol=1e-3, atol=1e-4)

    encoder.save(tmp_path / "encoder")
    again = load_encoder(tmp_path / "encoder")
    x = sparse(1, 5, 40, 60)
    torch.testing.assert_close(again(x), encoder(x), rtol=0, atol=0)
    assert again.lift(again(x)).shape[-1] == again.teacher_dim == 32


def test_from_teacher_refuses_what_it_cannot_use(tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        Encoder.from_teacher(str(tmp_path / "nothing"))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "bert/model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="type 'bert'; supported: dinov2"):
        Encoder.from_teacher(str(tmp_path / "bert"))
