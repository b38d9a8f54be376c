"""Which value is which class, by name, by file, and by what is found."""

import json

import numpy as np
import pytest

from evlift.downstream.labels import LABEL_SETS, LabelSet, found_label_set, read_label_set
from evlift.errors import ConfigError, InputError


def test_camvid_has_eleven_classes_and_leaves_eleven_out():
    camvid = LABEL_SETS["camvid"]
    assert len(camvid.names) == 11 and camvid.names[3] == "road" and camvid.names[10] == "bicyclist"
    table = camvid.table()
    assert (
        table[:11].tolist() == list(range(11))
        and table[11] == 255
        and table[255] == 255
        and (table[12:255] == 254).all()
    )


def test_nothing_is_known_of_a_bare_folder(tmp_path):
    assert read_label_set(tmp_path) is None
    found = found_label_set(np.array([[0, 3], [1, 255]]))
    assert found.names == ("class 0", "class 1", "class 2", "class 3") and found.void == (255,)
    found = found_label_set(np.array([0, 2, 11]), void=11)
    assert found.values == (0, 1, 2) and found.table()[11] == 255
    # A void value below the classes leaves a gap that the table closes.
    found = found_label_set(np.array([0, 1, 2]), void=0)
    assert found.names == ("class 1", "class 2") and found.table()[:3].tolist() == [255, 0, 1]
    with pytest.raises(InputError, match="every label pixel is void"):
        found_label_set(np.array([255, 11]), void=11)


def test_classes_txt_names_the_values(tmp_path):
    (tmp_path / "classes.txt").write_text("void\nroad\nsky\n")
    found = read_label_set(tmp_path)
    assert found == LabelSet(("road", "sky"), (1, 2), (0, 255))
    assert found.table()[:4].tolist() == [255, 0, 1, 254]
    assert read_label_set(tmp_path, void=7).table()[7] == 255
    # The names of a known set bring its void value along.
    (tmp_path / "classes.txt").write_text("\n".join(LABEL_SETS["camvid"].names).title() + "\n\n")
    assert read_label_set(tmp_path) == LABEL_SETS["camvid"]
    # A name in the table wins over the file.
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert read_label_set(tmp_path, labels="camvid") == LABEL_SETS["camvid"]
    assert read_label_set(tmp_path, labels="camvid", void=0).names[0] == "building"


def test_labels_json_gives_names_and_void(tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps({"names": ["road", "sky"], "void": 9}))
    assert read_label_set(tmp_path) == LabelSet(("road", "sky"), (0, 1), (9, 255))
    (tmp_path / "labels.json").write_text(json.dumps({"names": ["road", "sky"], "void": [1, 8]}))
    assert read_label_set(tmp_path) == LabelSet(("road",), (0,), (1, 8, 255))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classes.txt", "road\nroad\n", "'road' occurs twice"),
        ("classes.txt", "\n\n", "not a single class"),
        ("classes.txt", "\n".join(map(str, range(255))), "255 classes are more than the 254"),
        ("labels.json", "{", "cannot read"),
        ("labels.json", "[]", "no list of class names"),
        ("labels.json", '{"names": [1]}', "no list of class names"),
        ("labels.json", '{"names": ["a"], "void": "b"}', "gives void as 'b'"),
        ("labels.json", '{"names": ["a"], "void": [300]}', "gives void as"),
    ],
)
def test_files_that_name_nothing_are_refused(tmp_path, file, content, message):
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        read_label_set(tmp_path)
    assert "\n" not in str(raised.value)


def test_unknown_names_and_void_values_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="known are camvid"):
        read_label_set(tmp_path, labels="cityscape")
    for void in (-1, 256):
        with pytest.raises(ConfigError, match=f"void is {void}"):
            read_label_set(tmp_path, void=void)
