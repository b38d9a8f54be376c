"""Finding and reading pictures and labels."""

import cv2
import numpy as np
import pytest
import simplejpeg

from evlift.collection import image_files
from evlift.collection.pictures import picture_size, pictures_by_split, read_labels, read_picture, sort_out
from evlift.errors import InputError


def test_pictures_are_sorted_and_find_their_labels(pictures):
    found = image_files(pictures)
    assert [picture.path.name for picture in found] == [f"{i:02d}.jpg" for i in range(10)]
    assert [picture.labels is None for picture in found] == [i == 4 for i in range(10)]
    assert found[3].labels == pictures / "labels" / "03.png"
    assert image_files(pictures / "images") == found  # the same, named by the folder that holds them


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
    from PIL import Image

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
