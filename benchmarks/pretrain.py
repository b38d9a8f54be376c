"""How fast pretraining runs: samples a second, peak memory, and the share of a step that waits for data.

    python benchmarks/pretrain.py                                    # CPU: a toy of a minute
    python benchmarks/pretrain.py --pictures DIR --minutes 8         # GPU: 384×512, ViT-S, steps that fill 8 minutes
    python benchmarks/pretrain.py --pictures DIR --minutes 8 --probe-train DIR --probe-test DIR     # and mIoU

It times a short run first, and sets the number of steps of the long one by it. Without `--pictures` it draws random
ones. Prints one JSON object, and writes it to `--out`.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from evlift.config import DataConfig, MachineConfig, PretrainConfig, StudentConfig, TeacherConfig, TrainConfig
from evlift.train import pretrain
from evlift.train.run import read_log


def pictures(folder: Path, count: int = 64) -> Path:
    """Random smooth pictures, where none are given: speed does not depend on what they show."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        small = rng.integers(0, 255, (24, 32, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i:03}.jpg"), cv2.resize(small, (512, 384), interpolation=cv2.INTER_CUBIC))
    return folder


def settings(args, cuda: bool, steps: int) -> PretrainConfig:
    every = max(1, steps // 4)
    return PretrainConfig(
        data=DataConfig(
            source=str(args.pictures), size=(384, 512) if cuda else (96, 128), motion_px=(3.0, 15.0), val_fraction=0.05
        ),
        teacher=TeacherConfig(name=args.teacher),
        student=StudentConfig(size="small") if cuda else StudentConfig(size="tiny", depth=2),
        train=TrainConfig(
            steps=steps,
            batch=args.batch or (64 if cuda else 8),
            lr=5e-4,
            precision="bf16-mixed" if cuda else "32-true",
            eval_every=every,
            checkpoint_every=every,
        ),
        machine=MachineConfig(accelerator="cuda" if cuda else "cpu", workers=args.workers),
    )


def rates(run: Path, batch: int) -> dict[str, float]:
    """Medians over the steps of a run, its first ten (compilation, warm caches) left out."""
    rows = [row for row in read_log(run / "log.jsonl") if "seconds" in row][10:]
    seconds = statistics.median(row["seconds"] for row in rows)
    waited = sum(row["waited"] for row in rows) / sum(row["seconds"] for row in rows)
    return {"samples_per_second": batch / seconds, "step_seconds": seconds, "waits_for_data": waited}


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--teacher", default="efficientnet-lite0")
    parser.add_argument("--minutes", type=float, default=8.0 if cuda else 0.5)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--probe-train", type=Path)
    parser.add_argument("--probe-test", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    args = parser.parse_args()
    args.pictures = args.pictures or pictures(args.out / "pictures")
    with tempfile.TemporaryDirectory() as scratch:
        trial = settings(args, cuda, 30)
        pretrain(trial, Path(scratch) / "trial", progress=False)
        step = rates(Path(scratch) / "trial", trial.train.batch)["step_seconds"]
    config = settings(args, cuda, max(20, int(args.minutes * 60 / step)))
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    run = args.out / "run"
    metrics = pretrain(config, run)
    result = {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "size": list(config.data.size),
        "student": config.student.size,
        "batch": config.train.batch,
        "steps": config.train.steps,
        "workers": args.workers,
        **rates(run, config.train.batch),
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "relation_fidelity": metrics["relation_fidelity"],
    }
    if args.probe_train:
        from evlift.downstream import probe_segmentation

        measured = probe_segmentation([run], args.probe_train, args.probe_test, args.out / "probe", labels="camvid")
        result["miou"] = measured["miou"]
    print(json.dumps(result, indent=2))
    (args.out / "benchmark.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
