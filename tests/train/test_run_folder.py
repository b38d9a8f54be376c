"""The run folder and its checkpoints: nothing is lost, and every refusal is one line that says what to do."""

import json
import multiprocessing
import os
import time
import warnings

import pytest
import torch

from evlift.config import DataConfig, MachineConfig, PretrainConfig, TrainConfig
from evlift.errors import RunError
from evlift.files import alone, write_atomic, write_json
from evlift.train import checkpoint
from evlift.train.run import Log, open_run, read_log

CONFIG = PretrainConfig(data=DataConfig(source="here"))


def test_same_settings_go_on_and_others_are_refused(tmp_path):
    run = tmp_path / "run"
    open_run(run, CONFIG)
    (run / "log.jsonl").write_text("")  # it has begun
    open_run(run, CONFIG)
    open_run(run, PretrainConfig(data=CONFIG.data, machine=MachineConfig(workers=5)))
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(RunError, match=r"train\.steps: 2000 → 7.*another --out"):
        open_run(run, PretrainConfig(data=CONFIG.data, train=TrainConfig(steps=7)))
    assert (run / "config.yaml").read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not empty"):
        open_run(tmp_path, CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_processes_do_not_share_a_run(tmp_path):
    with alone(tmp_path), pytest.raises(RunError, match="in use"), alone(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    with alone(tmp_path):
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside torch's threads
            worker.start()
        time.sleep(1)  # the child lets go as it starts
    with alone(tmp_path):  # the lock went with the parent, though the worker lives
        assert worker.is_alive()
    worker.kill()
    worker.join()


def test_a_mistake_before_the_first_step_does_not_claim_the_folder(tmp_path):
    run = tmp_path / "run"
    open_run(run, CONFIG)
    (run / ".config.yaml.123.part").write_text("what a kill left")
    corrected = PretrainConfig(data=CONFIG.data, train=TrainConfig(steps=7))
    open_run(run, corrected)
    (run / "log.jsonl").write_text("")
    with pytest.raises(RunError, match="other settings"):
        open_run(run, CONFIG)


def test_log_drops_what_a_killed_start_left(tmp_path):
    rows = [{"step": 0, "eval": {"rank": 1.0}}, *({"step": s, "loss": float(s)} for s in range(6))]
    rows.insert(4, {"step": 3, "eval": {"rank": 2.0}})  # after the third step, before the row of step 3
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6, "lo'
    (tmp_path / "log.jsonl").write_text(text)
    with Log(tmp_path, 3) as log:
        log.write({"step": 3, "loss": float("nan"), "losses": {"token": 2.0}})
    kept = read_log(tmp_path / "log.jsonl")
    assert [row["step"] for row in kept] == [0, 0, 1, 2, 3, 3]
    assert kept[-1] == {"step": 3, "loss": None, "losses": {"token": 2.0}}
    assert list((tmp_path / "tensorboard").iterdir())


def test_json_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "metrics.json"
    write_json(file, {"a": float("nan"), "b": [1.5]})
    assert json.loads(file.read_text()) == {"a": None, "b": [1.5]}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left on device.*make room"):
        write_atomic(file, b"new")
    assert json.loads(file.read_text()) == {"a": None, "b": [1.5]}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def state(step):
    return {"step": step, "model": {"w": torch.full((4,), float(step))}}


def test_the_newest_checkpoint_is_loaded_and_old_ones_go(tmp_path):
    assert checkpoint.load_newest(tmp_path) is None
    for step in (100, 200, 300):
        checkpoint.save(tmp_path, step, state(step))
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == ["step-00000200.pt", "step-00000300.pt"]
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded["step"] == 300
    assert loaded["model"]["w"].tolist() == [300.0] * 4


def test_a_full_disk_keeps_the_checkpoints_before(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 100, state(100))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"No space left on device.*goes on from the checkpoint before"):
            checkpoint.save(tmp_path, 200, state(200))
    assert checkpoint.load_newest(tmp_path)["step"] == 100
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000100.pt"]


@pytest.mark.parametrize("size", [0, 10, 500])
def test_a_truncated_checkpoint_is_named_and_nothing_is_removed(tmp_path, size):
    checkpoint.save(tmp_path, 100, state(100))
    newest = checkpoint.save(tmp_path, 200, state(200))
    newest.write_bytes(newest.read_bytes()[:size])
    with pytest.raises(RunError, match=r"200\.pt is damaged; remove that file .* go on from step-00000100\.pt"):
        checkpoint.load_newest(tmp_path)
    assert len(checkpoint.checkpoints(tmp_path)) == 2


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'pwned'}",))

    (tmp_path / "checkpoints").mkdir()
    torch.save({"step": 1, "model": Evil()}, tmp_path / "checkpoints" / "step-00000001.pt")
    with pytest.raises(RunError, match="damaged"):
        checkpoint.load_newest(tmp_path)
    assert not (tmp_path / "pwned").exists()
