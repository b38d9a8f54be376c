"""Finding and reading pictures and labels."""

import os
import pickle
import struct
from io import BytesIO

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import evlift.collection.pictures as pictures_module
from evlift.collection import image_files
from evlift.collection.headers import size_of
from evlift.collection.items import fit
from evlift.collection.pictures import (
    picture_size,
    pictures_by_split,
    read_depth,
    read_labels,
    read_picture,
    sort_out,
)
from evlift.errors import InputError


def test_pictures_are_sorted_and_find_their_labels(pictures):
    found = image_files(pictures)
    assert [picture.path.name for picture in found] == [f"{i:02d}.jpg" for i in range(10)]
    assert [picture.labels is None for picture in found] == [i == 4 for i in range(10)]
    assert found[3].labels == pictures / "labels" / "03.png"
    assert list(image_files(pictures / "images")) == list(found)  # the same, named by the folder that holds them


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no pictures"):
        image_files(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        image_files(tmp_path / "none")


def test_splits_are_the_last_share_or_the_folders_own(pictures, tmp_path, make):
    parts = pictures_by_split(pictures, 0.2)
    assert [p.path.name for p in parts["val"]] == ["08.jpg", "09.jpg"]
    assert len(parts["train"]) == 8 and not set(parts["train"]) & set(parts["val"])
    assert list(pictures_by_split(pictures, 0)) == ["train"]
    for split, count in (("train", 2), ("val", 1)):
        for i in range(count):
            make.save_jpeg(tmp_path / "own" / split / "images" / f"{i}.jpg", make.photograph(i, 20, 20))
    own = pictures_by_split(tmp_path / "own", 0.5)
    assert {split: len(part) for split, part in own.items()} == {"train": 2, "val": 1}
    make.save_jpeg(tmp_path / "one" / "0.jpg", make.photograph(0, 20, 20))
    with pytest.raises(InputError, match="too few"):
        pictures_by_split(tmp_path / "one", 0.2)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm"])
def test_sizes_come_without_decoding_and_pixels_are_rgb(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    image = np.zeros((24, 40, 3), np.uint8)
    image[:, :20] = (255, 0, 0)
    image[:, 20:] = (0, 0, 255)
    assert cv2.imwrite(str(path), image[..., ::-1])
    assert picture_size(path) == (24, 40)
    read, reduction = read_picture(path)
    assert reduction == 1 and read.shape == (24, 40, 3) and read.dtype == np.uint8
    assert np.abs(read[12, 5].astype(int) - (255, 0, 0)).max() < 12
    assert np.abs(read[12, 35].astype(int) - (0, 0, 255)).max() < 12


def test_a_grey_picture_becomes_three_equal_channels(tmp_path):
    path = tmp_path / "g.jpg"
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4
    path.write_bytes(simplejpeg.encode_jpeg(grey, colorspace="GRAY", colorsubsampling="Gray", quality=100))
    read, _ = read_picture(path)
    assert read.shape == (8, 8, 3) and (read[..., 0] == read[..., 2]).all()
    assert np.abs(read[..., 0].astype(int) - grey[..., 0]).max() <= 2


def test_a_large_jpeg_is_decoded_small_but_never_too_small(tmp_path, make):
    path = tmp_path / "big.jpg"
    full = make.photograph(1, 320, 480)
    make.save_jpeg(path, full)
    small, reduction = read_picture(path, smallest=(70, 110))
    assert reduction == 4 and small.shape == (80, 120, 3)
    blocks = full.reshape(80, 4, 120, 4, 3).mean((1, 3))
    assert np.abs(small - blocks).mean() < 2  # the same blocks of the picture, not shifted by a pixel
    shifted = np.abs(small[:, 1:] - blocks[:, :-1]).mean()
    assert shifted > 4 * np.abs(small - blocks).mean()
    assert read_picture(path, smallest=(200, 300))[1] == 1
    make.save_jpeg(tmp_path / "odd.jpg", make.photograph(1, 321, 483))  # does not divide
    assert read_picture(tmp_path / "odd.jpg", smallest=(20, 20))[1] == 1


def test_labels_keep_their_values(tmp_path):
    labels = np.random.default_rng(0).integers(0, 30, (20, 30)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "plain.png"), labels)
    cv2.imwrite(str(tmp_path / "wide.png"), labels.astype(np.uint16) * 1000)
    cv2.imwrite(str(tmp_path / "grey.png"), np.repeat(labels[..., None], 3, 2))
    palette = Image.fromarray(labels, mode=None).convert("L")
    palette.putpalette(list(np.random.default_rng(1).integers(0, 255, 768)))
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "plain.png"), labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "wide.png"), labels.astype(int) * 1000)
    np.testing.assert_array_equal(read_labels(tmp_path / "grey.png"), labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "palette.png"), labels)
    cv2.imwrite(str(tmp_path / "colour.png"), np.random.default_rng(2).integers(0, 255, (9, 9, 3)).astype(np.uint8))
    with pytest.raises(InputError, match=r"colour\.png holds colours"):
        read_labels(tmp_path / "colour.png")


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(18), b"hello, I am text"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_what_is_no_picture_is_said_in_one_line(tmp_path, content, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    for read in (picture_size, read_picture, read_labels):
        with pytest.raises(InputError, match="bad") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot read"):
        read_picture(tmp_path / "missing.jpg")


def test_unreadable_pictures_are_set_aside_and_told(pictures, caplog):
    (pictures / "images" / "02.jpg").write_bytes(b"nothing")
    good, sizes, problems = sort_out(image_files(pictures))
    assert len(good) == 9 and set(sizes) == {(60, 80)}
    assert len(problems) == 1 and "02.jpg" in problems[0]
    assert "02.jpg" in caplog.text


def test_labels_of_another_size_are_refused_by_name(pictures, make):
    make.save_labels(pictures / "labels" / "05.png", np.zeros((60, 81), np.uint8))
    with pytest.raises(InputError, match=r"05\.png is 81×60 .* 80×60"):
        sort_out(image_files(pictures))


def picture_bytes(image, mode, kind, **options):
    file = BytesIO()
    Image.fromarray(image).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def image(make):
    return make.photograph(5, 30, 40)


MODES = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    *(("TIFF", mode) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    *(("PPM", mode) for mode in ("1", "L", "RGB")),
    *(("GIF", mode) for mode in ("L", "P")),
    *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
]


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_any_mode_becomes_rgb_whatever_the_suffix_says(tmp_path, image, kind, mode):
    path = tmp_path / "p.jpg"
    lossy = kind in ("JPEG", "WEBP")
    path.write_bytes(picture_bytes(image, mode, kind, **({"quality": 98} if lossy else {})))
    assert picture_size(path) == (30, 40)
    read, reduction = read_picture(path)
    assert read.shape == (30, 40, 3) and read.dtype == np.uint8 and reduction == 1
    with Image.open(path) as opened:  # Pillow's own decoders
        expected = np.array(opened.convert("RGB"))
    assert np.abs(read.astype(int) - expected).mean() < (2.5 if lossy else 1e-9)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_of_16_bits_the_upper_8_count(tmp_path, image, suffix):
    deep = image.astype(np.uint16) * 256 + 200
    cv2.imwrite(str(tmp_path / f"deep{suffix}"), deep[..., ::-1])
    read, _ = read_picture(tmp_path / f"deep{suffix}")
    assert np.abs(read.astype(int) - image).max() <= 1  # some decoders round, others cut


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_an_animation_the_first_picture_is_read(tmp_path, image, kind):
    frames = [Image.fromarray(part) for part in (image, image[::-1].copy(), 255 - image)]
    options = {"GIF": {"duration": 40}, "PNG": {"duration": 40}, "WEBP": {"duration": 40, "lossless": True}, "TIFF": {}}
    path = tmp_path / "moves.png"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], **options[kind])
    assert picture_size(path) == (30, 40)
    with Image.open(path) as opened:
        expected = np.array(opened.convert("RGB"))
    np.testing.assert_array_equal(read_picture(path)[0], expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "PPM", "TIFF", "JPEG"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_picture_is_refused_in_one_line_and_nothing_else(tmp_path, image, kind, share, capfd):
    data = picture_bytes(image, "RGB", kind)
    path = tmp_path / "half.png"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"half\.png .*; ") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # the decoders' own words would flood a long run


def test_floats_are_no_picture(tmp_path, image):
    floats = image.astype(np.float32) / 255
    floats[0] = np.nan
    cv2.imwrite(str(tmp_path / "nan.tif"), floats)
    with pytest.raises(InputError, match=r"nan\.tif is no readable picture"):
        read_picture(tmp_path / "nan.tif")


def test_sizes_of_rarer_headers():
    def size(data):
        return size_of(BytesIO(data))

    top_down = b"BM" + bytes(12) + struct.pack("<Iii", 40, 7, -5)
    assert size(top_down) == (5, 7)
    assert size(b"BM" + bytes(12) + struct.pack("<IHH", 12, 7, 5)) == (5, 7)
    big = b"MM\0*" + struct.pack(">IH", 8, 2) + struct.pack(">HHIHHHHIHH", 256, 3, 1, 7, 0, 257, 3, 1, 5, 0)
    assert size(big) == (5, 7)
    wide = b"II*\0" + struct.pack("<IH", 8, 2) + struct.pack("<HHIIHHII", 256, 4, 1, 70000, 257, 4, 1, 5)
    assert size(wide) == (5, 70000)
    assert size(b"P5 # made by hand\n# twice\n7\n5 255\n" + bytes(35)) == (5, 7)
    for nothing in (b"", b"P5 7", b"BM", b"RIFF1234WEBPVP8?" + bytes(40), b"II*\0\xff\xff\xff\xff", b"GIF89a\0"):
        assert size(nothing) is None
    assert size(b"P5 0 5 255\n") is None


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, image):
    data = bytearray(picture_bytes(image, "RGB", "PNG"))
    data[16:24] = struct.pack(">II", 30000, 30000)
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(InputError, match=r"bomb\.png has 900 million pixels, over the 134 million read"):
        read_picture(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"900 million"):
        read_labels(tmp_path / "bomb.png")
    jpeg = bytearray(picture_bytes(image, "RGB", "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 60000, 60000)
    (tmp_path / "bomb.jpg").write_bytes(jpeg)
    with pytest.raises(InputError, match=r"bomb\.jpg has 3600 million pixels"):
        read_picture(tmp_path / "bomb.jpg")
    with open(tmp_path / "long.png", "wb") as file:
        file.write(picture_bytes(image, "RGB", "PNG"))
        file.truncate(1 << 34)  # a hole; nothing is on the disk
    with pytest.raises(InputError, match=r"long\.png has 16384 MB for 40×30 pixels"):
        read_picture(tmp_path / "long.png")


def test_a_huge_jpeg_is_decoded_small_although_its_sides_do_not_divide(tmp_path, make, monkeypatch):
    full = make.photograph(1, 325, 487)
    make.save_jpeg(tmp_path / "huge.jpg", full)
    assert read_picture(tmp_path / "huge.jpg", (70, 110))[1] == 1  # not huge: as ever
    monkeypatch.setattr(pictures_module, "HUGE_PIXELS", 100_000)
    monkeypatch.setattr(pictures_module, "LARGEST_PIXELS", 20_000)
    small, reduction = read_picture(tmp_path / "huge.jpg", (70, 110))
    assert reduction == 4 and small.shape == (81, 121, 3)
    blocks = full[:324, :484].reshape(81, 4, 121, 4, 3).mean((1, 3))
    assert np.abs(small - blocks).mean() < 2
    labels = np.arange(325 * 487).reshape(325, 487)
    np.testing.assert_array_equal(fit(tmp_path, labels, (324, 484), 4), labels[:324, :484])
    with pytest.raises(InputError, match="make them agree"):
        fit(tmp_path, labels[:323], (324, 484), 4)
    with pytest.raises(InputError, match="million pixels"):  # not even an eighth of it may be smaller than that
        read_picture(tmp_path / "huge.jpg", (300, 400))


def test_only_files_are_pictures(tmp_path, make):
    make.save_jpeg(tmp_path / "real.jpg", make.photograph(0, 8, 8))
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / ".hidden.jpg").write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "folder.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert [picture.path.name for picture in image_files(tmp_path)] == ["link.jpg", "real.jpg"]
    good, _, problems = sort_out(image_files(tmp_path))
    assert [picture.path.name for picture in good] == ["real.jpg"]
    assert len(problems) == 1 and "link.jpg" in problems[0]


def test_a_list_of_pictures_is_a_sequence_and_small(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "depth").mkdir()
    names = [f"{i:06d}.jpg" for i in range(3000)] + ["größe.PNG", os.fsdecode(b"caf\xe9.png")]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "labels" / "000007.TIF").touch()
    (tmp_path / "depth" / "000007.npy").touch()
    found = image_files(tmp_path)
    assert [picture.path.name for picture in found] == sorted(names)
    assert found[-1] == found[len(found) - 1] and found.labelled and not found[8:].labelled
    assert found[7] == (tmp_path / "000007.jpg", tmp_path / "labels" / "000007.TIF", tmp_path / "depth" / "000007.npy")
    assert list(found[2:9:3]) == [found[i] for i in (2, 5, 8)] and found[::-1][0] == found[-1]
    with pytest.raises(IndexError):
        found[len(names)]
    again = pickle.loads(pickle.dumps(found))
    assert list(again) == list(found) and len(pickle.dumps(found)) < 40 * len(names)


def test_many_bad_headers_are_told_in_a_few_lines(tmp_path, make, caplog):
    for i in range(20):
        (tmp_path / f"{i:02d}.jpg").write_bytes(b"bad")
    make.save_jpeg(tmp_path / "x.jpg", make.photograph(0, 8, 8))
    _, _, problems = sort_out(image_files(tmp_path))
    assert len(problems) == 20 and len(caplog.records) == 6
    assert "set aside 15 more" in caplog.text


def test_depth_comes_in_metres(tmp_path):
    depth = np.array([[0, 500, 1500], [65535, 1, 20000]], np.uint16)
    cv2.imwrite(str(tmp_path / "mm.png"), depth)
    np.testing.assert_allclose(read_depth(tmp_path / "mm.png"), [[0, 0.5, 1.5], [65.535, 0.001, 20]], rtol=1e-6)
    np.save(tmp_path / "m.npy", np.array([[1.5, np.nan]]))
    read = read_depth(tmp_path / "m.npy")
    assert read.dtype == np.float32 and read[0, 0] == 1.5 and np.isnan(read[0, 1])
    np.save(tmp_path / "object.npy", np.array([[{}]], object), allow_pickle=True)
    np.save(tmp_path / "whole.npy", np.array([[3]]))
    np.save(tmp_path / "flat.npy", np.array([3.0]))
    (tmp_path / "empty.npy").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "byte.png"), depth.astype(np.uint8))
    for name in ("object.npy", "whole.npy", "flat.npy", "empty.npy", "byte.png", "none.npy"):
        with pytest.raises(InputError, match=name) as caught:
            read_depth(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_depth_of_another_size_is_refused_by_name(pictures):
    (pictures / "depth").mkdir()
    np.save(pictures / "depth" / "05.npy", np.ones((60, 81), np.float32))
    with pytest.raises(InputError, match=r"05\.npy is 81×60 .* 80×60; give depth"):
        sort_out(image_files(pictures))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "WEBP", "BMP", "PPM", "TIFF", "JPEG", "GIF"]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    share=st.floats(0.2, 1),
)
def test_damage_of_any_kind_is_told_or_read(tmp_path_factory, kind, changes, share):
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    data = bytearray(picture_bytes(image, "RGB", kind))
    for place, value in changes:
        data[place % min(len(data), 80)] = value  # mostly in the headers
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(data[: max(1, int(len(data) * share))])
    for read in (read_picture, read_labels, picture_size):
        try:
            got = read(path)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert read is picture_size or (got[0] if read is read_picture else got).ndim >= 2
