"""Batches of windows on a torch device against the representation of each window on the CPU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.encoder import Encoder, load_encoder
from evlift.errors import InputError
from evlift.events import Events, Window, write_recording
from evlift.represent import REPRESENTATIONS, Histogram, TimeSurface, VoxelGrid, build, torch_batch
from evlift.represent.torch_batch import pack_windows, represent_batch

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
KINDS = [
    VoxelGrid(5),
    VoxelGrid(1),
    VoxelGrid(4, polarity="split"),
    Histogram(10),
    Histogram(3, max_count=1),
    Histogram(1, max_count=None),
    TimeSurface(700),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("representation", KINDS, ids=repr)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), st.integers(0, 9))
def test_a_batch_is_its_windows_one_by_one(stream, as_window, device, representation, seeds, lead):
    windows = [as_window(stream(seed, 13, 17), lead) for seed in seeds]
    batch = pack_windows(windows).to(device, non_blocking=True)
    made = represent_batch(representation, batch)
    assert made.dtype == torch.float32 and made.device.type == device and len(batch) == len(windows)
    expected = np.stack([representation(window) for window in windows])
    np.testing.assert_allclose(made.cpu().numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_windows_of_a_recording_that_begin_and_end_within_a_millisecond(tmp_path, device):
    rng = np.random.default_rng(0)
    n = 20_000
    x, y, p = rng.integers(0, 64, n), rng.integers(0, 48, n), rng.integers(0, 2, n)
    recording = write_recording(tmp_path / "rec", Events(x, y, np.sort(rng.integers(0, 10**5, n)), p, 48, 64))
    windows = [
        recording.window(*bounds) for bounds in ((0, 10**5), (12_345, 20_001), (777, 778), (5, 5), (99_000, 10**6))
    ]
    batch = pack_windows(windows).to(device)
    out = torch.full((5, 5, 48, 64), torch.nan, device=device)
    assert represent_batch(VoxelGrid(5), batch, out=out) is out
    expected = np.stack([VoxelGrid(5)(window) for window in windows])
    np.testing.assert_allclose(out.cpu().numpy(), expected, rtol=1e-5, atol=2e-5)
    assert np.array_equal(batch.words.cpu().numpy().view(np.uint32)[: len(windows[0])], windows[0].words)


def test_only_empty_windows():
    batch = pack_windows([Window(np.zeros(0, np.uint32), np.zeros(0, np.int64), 0, 0, 0, 5, 3, 4)] * 2)
    for representation in KINDS:
        made = represent_batch(representation, batch)
        assert made.shape == (2, representation.channels, 3, 4) and not made.any()


def test_workers_of_a_loader_leave_pinning_to_it(monkeypatch, as_window, stream):
    window = as_window(stream(1, 8, 9))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_batch, "get_worker_info", lambda: "a worker's")
    batch = pack_windows([window])  # where there is no CUDA, pinning raises
    assert not batch.buffer.is_pinned()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    pinned = batch.pin_memory()
    assert torch.equal(pinned.words, batch.words) and pinned.words.data_ptr() != batch.words.data_ptr()


def test_damaged_words_are_refused_before_they_travel(as_window):
    n = 3000
    events = Events(np.arange(n) % 30, np.arange(n) % 20, np.arange(n) * 3, np.arange(n) % 2, 20, 30)
    good = as_window(events)
    cases = [(0x7FF, "outside the sensor"), (0x3FF << 11, "outside the sensor"), (0x3FF << 22, "out of order")]
    for change, message in cases:
        words = good.words.copy()
        words[1500] |= np.uint32(change)
        with pytest.raises(InputError, match=message):
            pack_windows([good, Window(words, good.offsets, 0, 0, 0, 9000, 20, 30)])
    words = good.words.copy()
    words[[1500, 1501]] = words[[1501, 1500]]
    with pytest.raises(InputError, match="out of order"):
        pack_windows([Window(words, good.offsets, 0, 0, 0, 9000, 20, 30)])
    for offsets in (good.offsets[::-1].copy(), good.offsets * 3 + 1, good.offsets - 2**40, good.offsets[:2]):
        with pytest.raises(InputError, match="damaged"):
            pack_windows([Window(good.words, offsets, 0, 0, 0, 9000, 20, 30)])


def test_what_does_not_fit_is_refused(as_window, stream):
    window = as_window(stream(1, 8, 9))
    with pytest.raises(InputError, match="no windows"):
        pack_windows([])
    with pytest.raises(InputError, match="cannot share a batch"):
        pack_windows([window, as_window(stream(1, 9, 9))])
    batch = pack_windows([window])
    for out in (torch.zeros(1, 5, 8, 8), torch.zeros(1, 5, 8, 9).double(), torch.zeros(1, 8, 9, 5).permute(0, 3, 1, 2)):
        with pytest.raises(InputError, match="out is"):
            represent_batch(VoxelGrid(5), batch, out=out)
    with pytest.raises(InputError, match="batched"):
        represent_batch(_Mean(), batch)


class _Mean:
    channels = 1

    def config(self):
        return {}


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_an_encoder_takes_every_representation_and_keeps_it(tmp_path, stream, name):
    encoder = Encoder.create("tiny", representation=build({"name": name}), depth=1)
    encoder.save(tmp_path / "encoder")
    loaded = load_encoder(tmp_path / "encoder")
    assert loaded.representation == encoder.representation
    events = stream(3, 32, 48)
    assert torch.equal(loaded.encode(events), encoder.encode(events))
    assert loaded.encode(events).shape[:2] == (2, 3)
