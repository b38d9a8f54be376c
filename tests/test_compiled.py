"""The cache of compiled loops never runs old code, whatever changed, and never stops a program."""

import os
import subprocess
import sys

import pytest

USER = """
from numba import types as nb
from evlift.compiled import compiled
from other import NUMBER, TABLE, helper

@compiled(nb.int64(nb.int64))
def call(a):
    return helper(a) + NUMBER + TABLE[1]
"""
OTHER = """
import numpy as np
from numba import types as nb
from evlift.compiled import compiled

NUMBER, INNER = {number}, {inner}
TABLE = np.array([0, {entry}])

@compiled(nb.int64(nb.int64))
def helper(a):
    return a * {factor} + INNER
"""


def run(folder, code, **variables):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(folder), **variables}
    command = [sys.executable, "-B", "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.strip()


def test_a_change_in_another_file_is_seen(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    given = {"number": 1000, "inner": 20, "factor": 3, "entry": 0}
    changes = [{}, {"number": 2000}, {"inner": 30}, {"factor": 4}, {"entry": 7}, {"number": 1000.0}]
    for change in changes:
        given |= change
        (tmp_path / "other.py").write_text(OTHER.format(**given))
        expected = int(2 * given["factor"] + given["inner"] + given["number"] + given["entry"])
        assert run(tmp_path, "import user; print(user.call(2))") == str(expected), change


def test_a_file_changed_while_it_is_compiled_leaves_no_old_code_behind(tmp_path):
    text = USER.replace("from other import NUMBER, TABLE, helper", "{first}\nNUMBER = {number}")
    text = text.replace("helper(a) + NUMBER + TABLE[1]", "a + NUMBER")
    new = text.format(first="", number=2)
    (tmp_path / "new.txt").write_text(new)
    first = "import pathlib; pathlib.Path(__file__).write_text(pathlib.Path(__file__).with_name('new.txt').read_text())"
    (tmp_path / "user.py").write_text(text.format(first=first, number=1))
    assert run(tmp_path, "import user; print(user.call(0))") == "1"
    assert (tmp_path / "user.py").read_text() == new
    assert run(tmp_path, "import user; print(user.call(0))") == "2"


def test_unchanged_loops_come_from_the_cache(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "other.py").write_text(OTHER.format(number=1, inner=2, factor=3, entry=4))
    code = "import user; print(sum(user.call.stats.cache_hits.values()))"
    assert [run(tmp_path, code, PYTHONHASHSEED=str(seed)) for seed in range(3)] == ["0", "1", "1"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_costs_the_cache_and_nothing_else(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "other.py").write_text(OTHER.format(number=1, inner=2, factor=3, entry=4))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
    for start in (limit, limit, ""):
        assert run(tmp_path, start + "import user; print(user.call(10))") == "37"


def test_without_a_place_for_the_cache_loops_are_compiled_anew(tmp_path):
    nowhere = "from numba.core import caching; caching.CompileResultCacheImpl._locator_classes = []; "
    code = nowhere + "import evlift.represent.kernels, evlift.simulate.kernels as k; print(k.cross.stats.cache_path)"
    assert run(tmp_path, code) == "None"
