"""`evlift demo`: the whole road on the packaged street video, in minutes and without a download.

Video → events → collection → three short runs on the same pairs and the same budget → figures and one report:

    OUT/collection/       pairs of the video: the last fifth of every shot is held out
    OUT/structure/        a structure-aware objective (`scaleevent-released`: of the presets it learns fastest here)
    OUT/token/            plain token distillation, for comparison
    OUT/shot-collection/  the same pairs, but one whole shot held out
    OUT/shot/             the structure-aware objective without that shot
    OUT/metrics.json      relation fidelity of all of them
    OUT/report.html       what they see
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from .collection import Collection, build_from_video
from .config import DataConfig, ObjectiveConfig, PretrainConfig, StudentConfig, TrainConfig
from .files import write_json
from .simulate import packaged_video
from .train import pretrain

SHAKE_PX, WINDOW_US, VAL_FRACTION = 6.0, 40_000, 0.2
HELD_OUT_SHOT = 4
"""The street with parked cars behind a fence: 55 frames with nothing like them in the other shots."""


def demo(out: str | Path = "runs/demo", *, steps: int = 320, progress: bool = True) -> dict[str, Any]:
    """Run the demo, or go on with the one in `out`; returns the figures of `out/metrics.json`.

    Args:
        out: folder of the demo.
        steps: optimiser steps of each of the two compared runs; the run without one shot takes a third.
        progress: show progress bars.
    """
    from .view.run import report_run

    out = Path(out)
    video = packaged_video()
    say = print if progress else (lambda *_: None)
    say(f"1/5  simulating the events of {video.name}: {out / 'collection'}")
    pairs = _pairs(video, out / "collection", progress)
    config = demo_config(pairs.path, steps)
    say(f"2/5  pretraining with the structure-aware objective: {out / 'structure'}")
    trained = pretrain(config, out / "structure", progress=progress)
    say(f"3/5  pretraining with plain token distillation: {out / 'token'}")
    token_config = replace(config, objective=replace(config.objective, preset="token"))
    token = pretrain(token_config, out / "token", progress=progress)
    say(f"4/5  pretraining without shot {HELD_OUT_SHOT}: {out / 'shot'}")
    rest = _pairs(video, out / "shot-collection", progress, held_out=(HELD_OUT_SHOT,))
    shot = pretrain(demo_config(rest.path, max(1, steps // 3)), out / "shot", progress=progress)

    figures: dict[str, Any] = {}
    for name in ("relation_fidelity", "effective_rank"):
        figures[name] = {**trained[name], "token": token[name]["trained"]}
    figures["held_out_shot"] = {
        "shot": HELD_OUT_SHOT,
        "steps": max(1, steps // 3),
        "relation_fidelity": shot["test"]["relation_fidelity"],
        "pairs": shot["test"]["pairs"],
    }
    figures |= {"steps": steps, "held_out_pairs": trained["pairs"], "objective": config.objective.preset}
    figures |= {"teacher": config.teacher.name}
    say("5/5  drawing the report")
    report = report_run(
        out / "structure",
        config,
        figures,
        title="evlift demo",
        lead="An event encoder that was taught, in minutes on a CPU, to see a street as an image network does. "
        "Held out: the last fifth of every shot, which training never saw.",
        others={"token": out / "token"},
        out=out / "report.html",
    )
    write_json(out / "metrics.json", figures)
    fidelity = figures["relation_fidelity"]
    say(
        f"relation fidelity on held-out pairs: {fidelity['trained']:.2f} trained, {fidelity['token']:.2f} plain token "
        f"distillation, {fidelity['untrained']:.2f} untrained\n"
        f"open {report}"
    )
    return figures


def _pairs(video: Path, out: Path, progress: bool, held_out: tuple[int, ...] = ()) -> Collection:
    return build_from_video(
        video,
        out,
        shake_px=SHAKE_PX,
        window_us=WINDOW_US,
        val_fraction=VAL_FRACTION,
        held_out_shots=held_out,
        progress=progress,
    )


def demo_config(source: Path, steps: int) -> PretrainConfig:
    """The settings of the demo's runs over the collection `source`."""
    return PretrainConfig(
        data=DataConfig(source=str(source), size=(128, 304), scale=(0.75, 1.0)),
        student=StudentConfig(size="tiny", depth=4),
        objective=ObjectiveConfig(preset="scaleevent-released"),
        train=TrainConfig(steps=steps, batch=8, lr=2e-3, eval_every=75, eval_pairs=0, checkpoint_every=50),
    )
