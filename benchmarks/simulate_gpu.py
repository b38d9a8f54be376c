"""The simulator in PyTorch: pairs and events a second, against the card's memory, alone and inside a training step.

    python benchmarks/simulate_gpu.py                     # CPU: a toy of seconds, to see that it runs
    python benchmarks/simulate_gpu.py --out runs/gpu      # GPU: 64 pictures of 480×640, 5 bins; gpu.json and gpu.md

A pair is one picture and the voxel grid of the events of a camera that moved over it for 50 ms. Each row of the first
table is a sensor and what is asked for: grids, events sorted by time, or the words alone. (Events are sorted for
columns, and where a readout acts.) `--fuse` lets torch.compile fuse what is done to every pixel. The floor is what must
cross the card's memory when every step goes over all pixels: the picture read, what is seen written and read again, the
levels read (20 bytes a pixel and frame); of each event a word written and read; and the grids or columns written. What
more the effects need is not in it. The card's bandwidth is measured here, by copying a large tensor.

The second table is a training step: a vision transformer's forward and backward pass in bfloat16 with AdamW, on grids
made beforehand, and on grids simulated in every step. Pictures are noise with the spectrum of photographs (amplitude
1/f), of a contrast at which it makes as many events as street scenes do (CamVid: 150,000 a pair of 480×640);
`--pictures` takes real ones.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evlift.encoder import Encoder
from evlift.represent import VoxelGrid
from evlift.simulate import Sensor
from evlift.simulate.course import Course
from evlift.simulate.torch_events import EventBatch
from evlift.simulate.torch_stills import simulate_batch

EVERYTHING = Sensor(
    threshold_sigma=0.03,
    refractory_us=500,
    bandwidth_hz=300.0,
    leak_hz=0.2,
    shot_noise_hz=2.0,
    noise_hz=0.1,
    hot_share=1e-4,
    hot_hz=50.0,
    jitter_us=20.0,
    tick_us=10,
    readout_hz=66e6,
)
SENSORS: dict[str, str | Sensor] = {"ideal": "ideal", "all effects": EVERYTHING}


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64 if cuda else 4, help="pictures a batch")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640) if cuda else (96, 128), help="height, width")
    parser.add_argument("--bins", type=int, default=5)
    parser.add_argument("--encoder", default="small" if cuda else "tiny", help="size of the vision transformer")
    parser.add_argument("--repeats", type=int, default=20 if cuda else 3)
    parser.add_argument("--fuse", action="store_true", help="compile what is done to every pixel")
    parser.add_argument("--pictures", type=Path, help="folder of pictures to take in place of noise")
    parser.add_argument("--out", type=Path, help="where to write the results, without .json and .md")
    args = parser.parse_args()
    device = torch.device("cuda" if cuda else "cpu")
    pictures = (real(args) if args.pictures else noise(args.batch, *args.size)).to(device)
    facts = {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads (a toy)",
        "host": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "copy_gb_s": round(copy_bandwidth(device, 1 << 30 if cuda else 1 << 24) / 1e9, 1),
        **{name: getattr(args, name) for name in ("batch", "bins", "encoder", "repeats", "fuse")},
        "size": list(args.size),
        "pictures": str(args.pictures) if args.pictures else "1/f noise",
    }
    grid = VoxelGrid(args.bins)
    rows = [row for name in SENSORS for row in engine(name, pictures, grid, facts)]
    step = training(args.encoder, pictures, grid, args.repeats, args.fuse)
    text = markdown(facts, rows, step)
    print(text)
    result = json.dumps({**facts, "engine": rows, "training": step}, indent=1)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.with_suffix(".json").write_text(result + "\n")
        args.out.with_suffix(".md").write_text(text + "\n")
    else:
        print(result)


def engine(name: str, pictures: Tensor, grid: VoxelGrid, facts: dict) -> list[dict]:
    """Rows of one sensor: seconds a batch, and what follows from them."""
    sensor, batch = SENSORS[name], len(pictures)
    made = simulate_batch(pictures, sensor, fuse=facts["fuse"])
    check(made, grid)
    events = made.total
    pixels = pictures.shape[-2] * pictures.shape[-1] * batch
    frames = mean_frames(pictures)
    floor = 20 * frames * pixels + 16 * events
    asks: dict[str, tuple[Callable[[], object], float]] = {
        "words": (lambda: simulate_batch(pictures, sensor, fuse=facts["fuse"]), floor),
        "grids": (
            lambda: simulate_batch(pictures, sensor, fuse=facts["fuse"]).voxel_grid(grid),
            floor + 4 * grid.channels * pixels,
        ),
        "sorted events": (lambda: simulate_batch(pictures, sensor, fuse=facts["fuse"]).columns(), floor + 42 * events),
    }
    rows = []
    for what, (work, moved) in asks.items():
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        seconds = timed(work, facts["repeats"])
        row = {
            "sensor": name,
            "what": what,
            "ms": seconds * 1e3,
            "pairs_s": batch / seconds,
            "events_s": events / seconds,
            "events_a_pair": events / batch,
            "frames_a_pair": frames,
            "share_of_bandwidth": moved / seconds / facts["copy_gb_s"] / 1e9,
        }
        if torch.cuda.is_available():
            row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        rows.append(row)
    return rows


def mean_frames(pictures: Tensor) -> float:
    """Frames that a camera sees in a window, the mean of the batch; as `simulate_batch` chooses them."""
    course = Course("planar", "smooth", None, rotation=0.3, zoom=0.5, duration_us=50_000, step_px=1.0, max_steps=32)
    cameras = [course.draw(np.random.default_rng(seed), *pictures.shape[-2:]) for seed in range(len(pictures))]
    return float(np.mean([len(course.moments(camera)[0]) for camera in cameras]))


def check(made: EventBatch, grid: VoxelGrid) -> None:
    """The grids are those of the events, before anything is timed."""
    grids = made.voxel_grid(grid).cpu().numpy()
    for events, mine in list(zip(made.events(), grids, strict=True))[:2]:
        np.testing.assert_allclose(mine, grid(events), rtol=0, atol=1e-4)


def training(size: str, pictures: Tensor, grid: VoxelGrid, repeats: int, fuse: bool) -> dict:
    """Seconds of a training step on ready grids and on grids made in the step, all effects on."""
    device = pictures.device
    encoder = Encoder.create(size, bins=grid.bins).to(device).train()
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-5)
    ready = simulate_batch(pictures, EVERYTHING).voxel_grid(grid)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        target = torch.randn_like(encoder(ready).float())

    def train(grids: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = (encoder(grids).float() - target).abs().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    alone = timed(lambda: train(ready), repeats)
    both = timed(lambda: train(simulate_batch(pictures, EVERYTHING, fuse=fuse).voxel_grid(grid)), repeats)
    return {
        "step_ms_on_ready_grids": alone * 1e3,
        "step_ms_with_simulation": both * 1e3,
        "share_of_the_step": (both - alone) / both,
    }


def markdown(facts: dict, rows: list[dict], step: dict) -> str:
    height, width = facts["size"]
    lines = [
        f"{facts['device']}, {facts['copy_gb_s']:.0f} GB/s copying; torch {facts['torch']}; {facts['batch']} pictures "
        f"of {width}×{height} ({facts['pictures']}), {facts['bins']} bins; medians of {facts['repeats']}",
        "",
        "| sensor | what | ms a batch | pairs/s | M events/s | events a pair | share of the bandwidth | peak GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peak = f"{row['peak_gib']:.1f}" if "peak_gib" in row else ""
        lines.append(
            f"| {row['sensor']} | {row['what']} | {row['ms']:.1f} | {row['pairs_s']:.0f} | "
            f"{row['events_s'] / 1e6:.1f} | {row['events_a_pair']:.0f} | {row['share_of_bandwidth']:.1%} | {peak} |"
        )
    lines += [
        "",
        f"| training step, ViT {facts['encoder']}, bfloat16 | ms |",
        "|---|---|",
        f"| on grids made beforehand | {step['step_ms_on_ready_grids']:.1f} |",
        f"| simulated in the step, all effects | {step['step_ms_with_simulation']:.1f} |",
        f"| share of the step | {step['share_of_the_step']:.1%} |",
    ]
    return "\n".join(lines)


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, to the end of what it queued on the card."""
    sync = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    seconds = []
    for _ in range(repeats + 2):
        sync()
        start = time.perf_counter()
        work()
        sync()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second that a copy within the device's memory reads and writes."""
    a, b = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / timed(lambda: b.copy_(a), 10)


def noise(batch: int, height: int, width: int) -> Tensor:
    """Pictures uint8 [B, 3, H, W] whose amplitude falls with frequency as that of photographs does (Field 1987)."""
    rng = torch.Generator().manual_seed(0)
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)).clamp(
        min=1 / max(height, width)
    )
    white = torch.fft.rfft2(torch.randn(batch, 3, height, width, generator=rng))
    pictures = torch.fft.irfft2(white / frequency, s=(height, width))
    pictures /= pictures.std((1, 2, 3), keepdim=True)
    return (110 + 35 * pictures).round().clamp(0, 255).byte()


def real(args: argparse.Namespace) -> Tensor:
    """The first pictures of a folder, resized, uint8 [B, 3, H, W]; from the start again when there are too few."""
    import cv2

    height, width = args.size
    paths = sorted(p for p in args.pictures.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise SystemExit(f"{args.pictures} holds no JPEG or PNG pictures; give another folder")
    paths = [paths[i % len(paths)] for i in range(args.batch)]
    pictures = [cv2.resize(cv2.imread(str(path)), (width, height), interpolation=cv2.INTER_AREA) for path in paths]
    return torch.from_numpy(np.stack(pictures)[..., ::-1].copy()).permute(0, 3, 1, 2).contiguous()


if __name__ == "__main__":
    main()
