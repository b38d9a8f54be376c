"""A small share of what `tests/events/fuzz.py` does at length."""

import importlib.util
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("evlift_fuzz", Path(__file__).with_name("fuzz.py"))
fuzz = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = fuzz
spec.loader.exec_module(fuzz)


@pytest.mark.parametrize("format", fuzz.SEEDS)
def test_damaged_files_are_read_as_far_as_they_are_good_or_refused(format, tmp_path):
    if format in ("rosbag1", "mcap"):
        pytest.importorskip("rosbags")
    count = 40 if format in fuzz.LIBRARIES else 150
    outcomes = fuzz.fuzz(format, count, seed=0, folder=tmp_path)
    assert outcomes.total() == count
    assert outcomes["refused"] + outcomes["told"] > count // 10
