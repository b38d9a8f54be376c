"""The loop learns, ends the same however often it is killed, and on however many processes it runs."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from evlift.config import write_yaml
from evlift.errors import ConfigError, RunError
from evlift.train import checkpoint, pretrain
from evlift.train.run import read_log


def losses(run):
    return [row["loss"] for row in read_log(run / "log.jsonl") if "loss" in row]


def figures(metrics):
    """Every number of nested metrics, in order."""
    if isinstance(metrics, dict):
        return [number for key in sorted(metrics) for number in figures(metrics[key])]
    return [float(metrics)] if isinstance(metrics, (int, float)) else []


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the loop's may see it."""


def test_training_lowers_the_loss_and_leaves_a_whole_run(config, tmp_path):
    # One view a picture, so that thirty steps have something to learn.
    config = replace(config, data=replace(config.data, scale=(1.0, 1.0), flip=False))
    config = replace(
        config, train=replace(config.train, steps=30, batch=8, lr=2e-3, eval_every=15, checkpoint_every=10)
    )
    run = tmp_path / "run"
    metrics = pretrain(config, run, progress=False)
    curve = losses(run)
    assert len(curve) == 30
    assert sum(curve[-5:]) < 0.9 * sum(curve[:5])
    assert json.loads((run / "metrics.json").read_text()) == metrics
    assert {"trained", "untrained"} == set(metrics["relation_fidelity"])
    assert [p.name for p in checkpoint.checkpoints(run)] == ["step-00000020.pt", "step-00000030.pt"]
    assert (run / "encoder" / "model.safetensors").is_file()
    evaluations = [row for row in read_log(run / "log.jsonl") if "eval" in row]
    assert [row["step"] for row in evaluations] == [0, 15, 30]
    assert evaluations[-1]["eval"]["relation_fidelity"] == metrics["relation_fidelity"]["trained"]
    assert pretrain(config, run, progress=False) == metrics, "a finished run is left as it is"


@pytest.mark.parametrize("preset", ["token", "scaleevent", "scaleevent-released"])
def test_killed_anywhere_and_started_again_it_ends_the_same(config, tmp_path, monkeypatch, preset):
    config = replace(config, objective=replace(config.objective, preset=preset))
    whole = pretrain(config, tmp_path / "whole", progress=False)
    for kill_at in (0, 1, 2, 5):  # before any checkpoint, between two, just after one is written, in the last step
        run = tmp_path / f"killed-{kill_at}"
        calls = 0
        step = torch.optim.AdamW.step

        def die(self, *args, kill_at=kill_at, step=step, **kwargs):
            nonlocal calls
            calls += 1
            if calls == kill_at + 1:
                raise Killed
            return step(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", die)
            with pytest.raises(Killed):
                pretrain(config, run, progress=False)
        assert figures(pretrain(config, run, progress=False)) == pytest.approx(figures(whole), abs=1e-6)
        assert losses(run) == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)


def command(config, run, file):
    file.write_text(write_yaml(config))
    return ["pretrain", "--config", str(file), "--out", str(run)]


def test_sigkill_between_processes(config, tmp_path):
    config = replace(config, train=replace(config.train, steps=40, checkpoint_every=3, eval_every=20))
    whole = pretrain(config, tmp_path / "whole", progress=False)
    run = tmp_path / "run"
    arguments = [sys.executable, "-m", "evlift", *command(config, run, tmp_path / "c.yaml")]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(losses(run)) < 7 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "metrics.json").exists(), "the kill came too late to test anything"
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((run / "metrics.json").read_text())
    assert figures(found) == pytest.approx(figures(whole), abs=1e-6)
    assert (run / "report.html").is_file()


def test_two_processes_give_the_curve_of_one(config, tmp_path):
    one = tmp_path / "one"
    pretrain(config, one, progress=False)
    two = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [*torchrun, "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "-m", "evlift"]
    subprocess.run([*arguments, *command(config, two, tmp_path / "c.yaml")], check=True, env=environment)
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert len(losses(two)) == config.train.steps


def test_refusals_say_what_to_do(config, tmp_path):
    run = tmp_path / "run"
    pretrain(config, run, progress=False)
    with pytest.raises(RunError, match="other settings"):
        pretrain(replace(config, train=replace(config.train, lr=2e-3)), run, progress=False)
    newest = checkpoint.checkpoints(run)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    (run / "metrics.json").unlink()
    with pytest.raises(RunError, match="damaged; remove that file"):
        pretrain(config, run, progress=False)
    newest.unlink()
    pretrain(config, run, progress=False)
    with pytest.raises(ConfigError, match="no data source"):
        pretrain(replace(config, data=replace(config.data, source=None)), tmp_path / "none", progress=False)
    with pytest.raises(ConfigError, match="teacher"):
        pretrain(replace(config, teacher=replace(config.teacher, name="dinov9")), tmp_path / "dino", progress=False)
