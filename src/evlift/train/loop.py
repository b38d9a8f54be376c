"""The training loop: pairs in, a run folder out.

It is one function that reads from top to bottom: set up, go on from the newest checkpoint, step, measure, save. What is
random in it (order, crops, simulated motion, initial weights) is a function of the seed and the step, so that a run
that was killed and started again ends as if it had never stopped, and any number of processes sees the same batches.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader

from ..config import PretrainConfig
from ..encoder import Encoder
from ..errors import ConfigError, EvliftError, RunError
from ..files import alone, write_json
from ..objective import PRESETS, activation_mask, resample
from ..teachers import load_teacher
from . import checkpoint
from .evaluate import collapse_measures, held_out_batches
from .optimiser import adamw, rate
from .order import StepSampler
from .run import Log, open_run, read_metrics
from .source import open_pairs


class Distiller(nn.Module):
    """The student as it trains: encoder, then its projection into the teacher's space.

    One module and one forward, because data parallelism only hears of parameters that its `forward` uses.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Voxel grids [B, C, H, W] → tokens [B, h, w, D] and lifted tokens [B, h, w, E]."""
        tokens = self.encoder(grid)
        return tokens, self.encoder.lift(tokens)


def pretrain(config: PretrainConfig, out: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Distil a teacher into an event encoder, or go on with the run that `out` holds.

    Args:
        config: the settings; `config.data.source` names the pairs.
        out: the run folder. It is made, or continued when it holds a run with these settings.
        progress: show a progress bar (on the first process only).

    Returns:
        The figures that `out/metrics.json` holds.

    Raises:
        ConfigError: a setting that cannot be used.
        InputError: the source cannot be read.
        RunError: `out` holds another run, a checkpoint is damaged, the disk is full.
    """
    out = Path(out)
    fabric = _fabric(config)
    fabric.launch()
    with ExitStack() as held:

        def begin() -> None:
            open_run(out, config)
            held.enter_context(alone(out))

        _first_for_all(fabric, begin)
        finished = fabric.broadcast(read_metrics(out) if fabric.is_global_zero else None)
        if finished is not None:
            return finished if fabric.is_global_zero else {}
        return _run(config, out, fabric, progress and fabric.is_global_zero)


def _run(config: PretrainConfig, out: Path, fabric: Fabric, progress: bool) -> dict[str, Any]:
    train = config.train
    if train.batch % fabric.world_size:
        raise ConfigError(f"train.batch is {train.batch}, not a multiple of {fabric.world_size} processes; change one")
    torch.manual_seed(train.seed)

    # Teacher and student. Every process builds the same ones.
    teacher = load_teacher(config.teacher.name).to(fabric.device)
    encoder = make_encoder(config, teacher.dim)
    # The first process makes a video into a collection; the others then find it.
    _first_for_all(fabric, lambda: open_pairs(config.data, encoder.representation, out, seed=train.seed))
    pairs, held_out = open_pairs(config.data, encoder.representation, out, seed=train.seed)
    if len(pairs) == 0 or len(held_out["val"]) == 0:
        raise ConfigError(
            f"{config.data.source} gives {len(pairs)} training and {len(held_out['val'])} held-out pairs; "
            "give more frames or pictures, or another data.val_fraction"
        )
    distiller = Distiller(encoder)
    optimiser = adamw(distiller, lr=train.lr, weight_decay=train.weight_decay)

    state = checkpoint.load_newest(out)
    if state is None and config.teacher.standardise:
        encoder.set_teacher_statistics(*_teacher_statistics(teacher, pairs, config, fabric))
    model, optimiser = fabric.setup(distiller, optimiser)
    start = 0
    losses: list[float] = []  # of the last hundred steps
    measures: dict[str, dict] = {}  # when → split → figures
    if state is not None:
        start, losses, measures = _restore(state, distiller, optimiser, fabric)

    def targets(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        with torch.no_grad(), fabric.autocast():
            return encoder.standardise_teacher(
                resample(teacher.features(images).float(), size, ratio=encoder.patch / teacher.stride)
            )

    def measure(split: str) -> dict[str, float]:
        distiller.eval()
        found = collapse_measures(
            distiller,
            targets,
            held_out_batches(held_out[split], train.eval_pairs),
            patch=encoder.patch,
            threshold=config.objective.mask_threshold,
            device=fabric.device,
        )
        distiller.train()
        return found

    first = fabric.is_global_zero
    objective = PRESETS[config.objective.preset]
    share = _denominator_share(fabric)
    model.train()
    with Log(out if first else None, start) as log, _bar(progress, train.steps, start) as tick:
        if state is None and first:
            measures["untrained"] = {split: measure(split) for split in held_out}
            log.write({"step": 0, "eval": measures["untrained"]["val"]})
        fabric.barrier()
        waited = time.perf_counter()
        for step, batch in enumerate(_batches(config, pairs, fabric, start), start):
            began = time.perf_counter()
            batch = fabric.to_device(batch)
            for group in optimiser.param_groups:
                group["lr"] = rate(step, steps=train.steps, peak=train.lr, warmup=train.warmup)
            mask = activation_mask(batch["grid"], encoder.patch, config.objective.mask_threshold).flatten(1)
            _, lifted = model(batch["grid"])
            teaching = targets(batch["image"], (lifted.shape[1], lifted.shape[2])).flatten(1, 2)
            parts = objective(lifted.flatten(1, 2).float(), teaching, mask, reduce=share)
            fabric.backward(parts["total"])
            norm = fabric.clip_gradients(model, optimiser, max_norm=train.clip, error_if_nonfinite=False)
            assert norm is not None
            optimiser.step()
            optimiser.zero_grad()

            means = {name: _mean(fabric, part) for name, part in parts.items()}
            loss = means.pop("total")
            if not math.isfinite(loss):
                raise RunError(f"the loss is {loss} at step {step}; start again with a lower --train.lr")
            losses = [*losses[-99:], loss]
            done = step + 1
            ended = time.perf_counter()
            if first:
                row = {"step": step, "loss": loss, "losses": means, "lr": optimiser.param_groups[0]["lr"]}
                row |= {"grad_norm": norm.item(), "active_share": float(mask.float().mean())}
                row |= {"seconds": ended - waited, "waited": began - waited}
                log.write(row)
                tick(done, loss)
            if done % train.eval_every == 0 or done == train.steps:
                if first:
                    measures["trained"] = {split: measure(split) for split in held_out}
                    log.write({"step": done, "eval": measures["trained"]["val"]})
                fabric.barrier()
            if done % train.checkpoint_every == 0 or done == train.steps:
                state = _state(done, losses, measures, distiller, optimiser, fabric)
                _first_for_all(fabric, partial(checkpoint.save, out, done, state))
            waited = time.perf_counter()
        set_aside = getattr(pairs, "set_aside", 0)
        if first and set_aside:  # in the log, not among the metrics: a run that was killed counts anew
            log.write({"step": train.steps, "set_aside": set_aside})
            print(f"{set_aside} pictures could not be used; others took their places")
    if not first:
        return {}
    encoder.save(out / "encoder")
    metrics = _metrics(config, losses, measures)
    write_json(out / "metrics.json", metrics)
    return metrics


def _fabric(config: PretrainConfig) -> Fabric:
    machine = config.machine
    nodes, local = 1, machine.devices or 1
    if "WORLD_SIZE" in os.environ and "LOCAL_WORLD_SIZE" in os.environ:  # torchrun has already decided
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // local
    strategy = "ddp" if local * nodes > 1 else "auto"
    try:
        return Fabric(
            accelerator=machine.accelerator,
            devices=local,
            num_nodes=nodes,
            strategy=strategy,
            precision=config.train.precision,
        )
    except (ValueError, RuntimeError, TypeError) as error:  # Lightning's words for hardware that is not there
        reason = " ".join(str(error).split())
        raise ConfigError(f"machine.accelerator={machine.accelerator} cannot be used ({reason}); try cpu") from error


def _first_for_all(fabric: Fabric, action: Callable[[], object]) -> None:
    """Run `action` on the first process while the others wait; when it fails there, all end."""
    failure: EvliftError | None = None
    if fabric.is_global_zero:
        try:
            action()
        except EvliftError as error:
            failure = error
    if fabric.broadcast(failure is not None):
        raise failure or SystemExit(2)  # the first process says what is wrong


def make_encoder(config: PretrainConfig, teacher_dim: int) -> Encoder:
    """The student of these settings before its first step: the same weights whenever it is called."""
    student = config.student
    if student.start_from_teacher:
        return Encoder.from_teacher(config.teacher.name, bins=config.data.bins, seed=config.train.seed)
    return Encoder.create(
        size=student.size,
        depth=student.depth,
        bins=config.data.bins,
        patch=student.patch,
        stem=student.stem,
        teacher_dim=teacher_dim,
        teacher_name=config.teacher.name,
        seed=config.train.seed,
    )


def _teacher_statistics(teacher, pairs, config: PretrainConfig, fabric: Fabric) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation [D] of the teacher's channels over the first pairs of the run's own order."""
    order = StepSampler(0, -(-config.teacher.stat_pairs // 16), length=len(pairs), batch=16, seed=config.train.seed)
    features = []
    for batch in DataLoader(pairs, batch_sampler=order):
        with torch.no_grad():
            features.append(teacher.features(batch["image"].to(fabric.device)).float().flatten(0, 2).cpu().double())
    rows = torch.cat(features)
    return rows.mean(0).float(), rows.std(0).clamp_min(1e-6).float()


def _batches(config: PretrainConfig, pairs, fabric: Fabric, start: int) -> Iterator[dict[str, Any]]:
    order = StepSampler(
        start,
        config.train.steps,
        length=len(pairs),
        batch=config.train.batch,
        seed=config.train.seed,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    workers = config.machine.workers if start < config.train.steps else 0
    cuda = fabric.device.type == "cuda"
    yield from DataLoader(
        pairs,
        batch_sampler=order,
        num_workers=workers,
        pin_memory=cuda,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # else every start of a loader would draw from the restored random state
    )


def _denominator_share(fabric: Fabric):
    """What a loss divides by, so that gradients averaged over processes equal those of one process.

    Each process sums over its own active tokens; dividing by (all processes' count / processes) and averaging gives
    the mean over all active tokens, however unevenly they fall.
    """

    def share(denominator: torch.Tensor) -> torch.Tensor:
        if fabric.world_size == 1:
            return denominator
        total = denominator.detach().clone()
        torch.distributed.all_reduce(total)
        return total / fabric.world_size

    return share


def _mean(fabric: Fabric, value: torch.Tensor) -> float:
    """The mean of a scalar over the processes."""
    reduced = fabric.all_reduce(value.detach(), reduce_op="mean")
    assert isinstance(reduced, torch.Tensor)
    return reduced.item()


def _state(step, losses, measures, distiller, optimiser, fabric: Fabric) -> dict[str, Any]:
    state = {
        "step": step,
        "losses": losses,
        "measures": measures,
        "model": distiller.state_dict(),
        "optimiser": optimiser.state_dict(),
        "precision": fabric.strategy.precision.state_dict(),
        "rng": torch.get_rng_state(),
    }
    if fabric.device.type == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state(fabric.device)
    return state


def _restore(state: dict[str, Any], distiller, optimiser, fabric: Fabric) -> tuple[int, list[float], dict]:
    distiller.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    fabric.strategy.precision.load_state_dict(state["precision"])
    torch.set_rng_state(state["rng"])
    if fabric.device.type == "cuda" and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"], fabric.device)
    return state["step"], state["losses"], state["measures"]


def _metrics(config: PretrainConfig, losses: list[float], measures: dict[str, dict]) -> dict[str, Any]:
    """The figures of a run: for each measure the trained and the untrained value on the split `val`, then the rest."""
    splits: dict[str, dict[str, Any]] = {}
    for when in ("trained", "untrained"):
        for split, found in measures[when].items():
            for name, value in found.items():
                if name in ("active_share", "pairs"):  # of the held-out pairs, whoever looks at them
                    splits.setdefault(split, {})[name] = int(value) if name == "pairs" else value
                else:
                    splits.setdefault(split, {}).setdefault(name, {})[when] = value
    metrics: dict[str, Any] = {"objective": config.objective.preset, "teacher": config.teacher.name}
    metrics |= {"steps": config.train.steps, "loss": sum(losses) / len(losses)}
    return metrics | splits.pop("val") | splits


class _bar:
    """A progress bar on a terminal, a line now and then elsewhere, nothing when told to be quiet."""

    def __init__(self, show: bool, steps: int, start: int):
        self.show, self.steps, self.start = show, steps, start

    def __enter__(self):
        if not self.show:
            return lambda done, loss: None
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = ("pretrain", BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"))
        self.progress = Progress(*columns, TimeRemainingColumn())
        if not self.progress.console.is_terminal:
            return self._line
        self.progress.start()
        task = self.progress.add_task("pretrain", total=self.steps, completed=self.start, loss="–")
        return lambda done, loss: self.progress.update(task, completed=done, loss=f"{loss:.3f}")

    def _line(self, done: int, loss: float) -> None:
        if done % max(1, self.steps // 10) == 0 or done == self.steps:
            print(f"step {done}/{self.steps}  loss {loss:.4f}", flush=True)

    def __exit__(self, *_):
        if self.show and self.progress.console.is_terminal:
            self.progress.stop()
