"""N-ImageNet: the layout that the data set's own loader reads (github.com/82magnolia/n_imagenet, `load_event`)."""

import numpy as np
import pytest

from evlift.errors import InputError
from evlift.events.readers import arrays, n_imagenet
from evlift.events.readers.reader import Problems, Stated

ROWS = [(639, 479, 12, True), (0, 3, 1_000_000, False), (320, 240, 5_000_001, True)]


def write(path, types="u2 u2 i8 ?", member="event_data"):
    names = ["x", "y", "t", "p"]
    np.savez_compressed(path, **{member: np.array(ROWS, np.dtype(list(zip(names, types.split(), strict=True))))})
    return path


def head(path):
    with open(path, "rb") as file:
        return file.read(4096)


@pytest.mark.parametrize("types", ["u2 u2 i8 ?", "i2 i2 u4 u1", "i8 i8 f8 i1"])
def test_events_are_those_of_the_array(tmp_path, types):
    path = write(tmp_path / "n01440764_18.npz", types)
    assert n_imagenet.matches(path, head(path)) == "n-imagenet"
    reader, problems = n_imagenet.open_reader(path, "n-imagenet", Stated()), Problems()
    (c,) = reader.columns(problems)
    assert list(zip(c.x.tolist(), c.y.tolist(), c.t.tolist(), c.p.tolist(), strict=True)) == ROWS
    assert (reader.format, reader.height, reader.width, problems.lines()) == ("n-imagenet", 480, 640, [])


def test_other_archives_are_not_it(tmp_path):
    path = write(tmp_path / "a.npz", member="events")
    assert n_imagenet.matches(path, head(path)) is None and arrays.matches(path, head(path)) == "npz"
    for data in (b"", b"PK\x03\x04", b"PK\x03\x04" + b"\xff" * 40, b"\x93NUMPY", b"PK\x03\x04" + bytes(40)):
        assert n_imagenet.matches(path, data) is None
    with pytest.raises(InputError, match="has no array 'event_data'"):
        n_imagenet.open_reader(path, "n-imagenet", Stated())
    np.savez(path, event_data=np.zeros((3, 4)))
    with pytest.raises(InputError, match="does not name its columns"):
        n_imagenet.open_reader(path, "n-imagenet", Stated())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="no whole zip archive"):
        n_imagenet.open_reader(path, "n-imagenet", Stated())
