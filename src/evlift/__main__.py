"""The command line: one table from command to function. A room is imported when its command runs, not before."""

from __future__ import annotations

import difflib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import EvliftError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=str, default="runs/demo", help="folder of the demo; an unfinished one is continued"
    )
    parser.add_argument("--steps", type=int, default=320, help="optimiser steps of each run")


def _demo(args: Namespace) -> None:
    from .demo import demo

    demo(args.out, steps=args.steps)


def _simulate_arguments(parser: ArgumentParser) -> None:
    from typing import Any, Literal  # Any: the parser looks it up here

    from .simulate import SENSORS

    parser.add_argument(
        "source", type=str, help="a video, or a folder of pictures (labels/ and depth/ beside them come along)"
    )
    parser.add_argument("--out", type=str, required=True, help="folder to make; an unfinished one is continued")
    parser.add_argument(
        "--as",
        dest="kind",
        type=Literal["collection", "recording"],
        default="collection",
        help="collection: pairs with splits, to train on. recording: a packed recording of each shot or picture",
    )
    parser.add_argument("--sensor", type=str, default="ideal", help=f"sensor preset: {', '.join(SENSORS)}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sensor and of the motion")
    parser.add_argument(
        "--size",
        type=tuple[int, int],
        default=None,
        help="[height, width] of sensor and frames: the largest centre crop of that aspect, resized. Default: as is",
    )
    parser.add_argument(
        "--preview",
        type=str,
        default=None,
        help="also draw image, events and flow of some pairs: a sheet (.png) or a video (.mp4, .gif)",
    )
    parser.add_argument("--licence", type=str, default="", help="licence of the source, in words, kept with the data")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument("--variants", type=int, default=1, help="camera motions over each picture")
    pictures.add_argument(
        "--motion",
        type=dict[str, Any],
        default={},
        metavar="JSON",
        help='how the camera moves: {"kind": "planar" or "camera", "path": "smooth", "saccade", "shake" or "mixed", '
        '"layers": how many cut-outs move by themselves, "motion_px": [2, 40], "duration_us": 50000}, and whatever '
        "evlift.simulate.pair_from_image takes; one at a time as --motion.path shake",
    )
    video = parser.add_argument_group("video")
    video.add_argument("--shake_px", type=float, default=6.0, help="amplitude of added hand-held motion; 0 for none")
    video.add_argument("--max_frames", type=int, default=None, help="leave out the frames after so many")
    video.add_argument("--window_us", type=int, default=100_000, help="length of the event window before a frame")
    splits = parser.add_argument_group("splits of a collection")
    splits.add_argument("--val_fraction", type=float, default=0.2, help="last share of each shot, or of the pictures")
    splits.add_argument("--held_out_shots", type=list[int], default=[], help="shots kept whole for the split `test`")


def _simulate(args: Namespace) -> None:
    from .collection import build_from_images, build_from_video, record_images, record_video

    source, out, pairs = Path(args.source), Path(args.out), args.kind == "collection"
    if args.preview:
        from .view.pairs import check_preview

        check_preview(args.preview)  # before the work, not after it
    common: dict[str, Any] = dict(sensor=args.sensor, seed=args.seed, size=args.size, licence=args.licence)
    if source.is_dir():
        common |= dict(variants=args.variants, motion=args.motion)
        if pairs:
            collection = build_from_images(source, out, val_fraction=args.val_fraction, **common)
        else:
            recordings = record_images(source, out, **common)
    else:
        common |= dict(shake_px=args.shake_px, max_frames=args.max_frames)
        if pairs:
            splits = dict(val_fraction=args.val_fraction, held_out_shots=tuple(args.held_out_shots))
            collection = build_from_video(source, out, window_us=args.window_us, **splits, **common)
        else:
            recordings = record_video(source, out, **common)
    if args.preview:
        from .view.pairs import preview_images, preview_video

        if source.is_dir():
            preview_images(args.preview, source, args.size, args.sensor, args.seed, args.motion)
        else:
            preview_video(
                args.preview, map(collection.recording, collection.info["recordings"]) if pairs else recordings
            )
    if pairs:
        _print_table(collection.describe(), title=str(out))
        return
    facts: dict[str, Any] = {"recordings": len(recordings), "events": sum(len(recording) for recording in recordings)}
    facts["sizes"] = sorted({f"{recording.height}×{recording.width}" for recording in recordings})
    _print_table(facts | {"sensor": args.sensor, "seed": args.seed}, title=str(out))


def _pretrain_arguments(parser: ArgumentParser) -> None:
    from .config import PretrainConfig

    parser.add_argument("source", type=str, nargs="?", default=None, help="the same as --data.source")
    parser.add_argument(
        "--config", action="config", help="a YAML file of the settings below, such as those in recipes/"
    )
    parser.add_argument(
        "--out", type=str, required=True, help="the run folder; the same command goes on where it stopped"
    )
    parser.add_class_arguments(PretrainConfig, None)


def _pretrain(args: Namespace) -> None:
    from .config import PretrainConfig
    from .errors import ConfigError

    parts = {name: args[name] for name in PretrainConfig.__dataclass_fields__}
    config = PretrainConfig(**parts)
    source = args.source or config.data.source
    if source is None:
        raise ConfigError("no data; name a collection, pictures or a video: evlift pretrain SOURCE --out RUN")
    config = replace(config, data=replace(config.data, source=str(Path(source).resolve())))

    from .train import pretrain

    metrics = pretrain(config, args.out)
    if metrics:  # the first process only
        from .view.run import report_run

        report = report_run(Path(args.out), config, metrics)
        _print_table({k: v for k, v in metrics.items() if not isinstance(v, dict)}, title=str(args.out))
        for name in ("relation_fidelity", "effective_rank"):
            print(f"{name}: {metrics[name]['trained']:.3f} trained, {metrics[name]['untrained']:.3f} untrained")
        print(f"open {report}")


def _probe_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("task", choices=["segmentation"], help="what to measure the frozen encoder on")
    parser.add_argument(
        "--encoder", type=str, nargs="+", required=True, help="run or encoder folders; a row of the table each"
    )
    parser.add_argument(
        "--train", type=str, required=True, help="folder with images/ and labels/, or a labelled collection"
    )
    parser.add_argument("--test", type=str, required=True, help="the same, held out")
    parser.add_argument("--out", type=str, required=True, help="folder for metrics.json and pictures")
    parser.add_argument(
        "--size", type=tuple[int, int], default=None, help="[height, width]; default: what the encoder was trained at"
    )
    parser.add_argument(
        "--labels",
        type=str,
        default=None,
        help="name of a known label set (camvid); default: classes.txt, or the values",
    )
    parser.add_argument("--void", type=int, default=None, help="label value without a class, beside 255")
    parser.add_argument("--sensor", type=str, default="ideal", help="sensor preset of the simulator")
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps of the linear head")
    parser.add_argument("--seed", type=int, default=0, help="seed of the head and of the simulated motion")
    parser.add_argument(
        "--untrained", action="store_true", help="also measure the same network with fresh random weights"
    )
    parser.add_argument(
        "--teacher", type=str, default=None, help="also measure this teacher on the images: the ceiling"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare pairs")


def _probe(args: Namespace) -> None:
    from .downstream import probe_segmentation
    from .errors import ConfigError

    if args.workers < 0:
        raise ConfigError(f"workers is {args.workers}; give 0 or more")
    options = {k: v for k, v in vars(args).items() if k not in ("task", "encoder", "train", "test", "out", "debug")}
    probe_segmentation(args.encoder, args.train, args.test, args.out, **options)


def _stated_arguments(parser: ArgumentParser) -> None:
    from typing import Literal

    parser.add_argument(
        "--format", type=str, default=None, help="the recording's format, where content and name mislead"
    )
    parser.add_argument(
        "--size", type=tuple[int, int], default=None, help="[height, width] of the sensor, where the file is silent"
    )
    parser.add_argument(
        "--time_unit", type=Literal["s", "ms", "us", "ns"], default=None, help="unit of the times in text and arrays"
    )
    parser.add_argument(
        "--columns", type=str, default=None, help='order of the columns in text and arrays, such as "t x y p"'
    )
    parser.add_argument(
        "--stream", type=str, default=None, help="which event stream: a ROS topic, an HDF5 group, a stream number"
    )
    parser.add_argument("--image_stream", type=str, default=None, help="which image stream, likewise")


def _stated(args: Namespace) -> Any:
    from .events.readers import Stated

    return Stated(**{name: args[name] for name in Stated.__dataclass_fields__})


def _convert_arguments(parser: ArgumentParser) -> None:
    from typing import Literal

    parser.add_argument("sources", type=str, nargs="+", help="recordings in any format, or folders of them")
    parser.add_argument(
        "--out",
        type=str,
        required=True,
        help="the packed recording; of several sources, the folder that theirs go into. What is done is kept",
    )
    _stated_arguments(parser)
    parser.add_argument(
        "--duplicates", type=Literal["keep", "drop"], default="keep", help="events equal in pixel, polarity and µs"
    )
    parser.add_argument("--workers", type=int, default=1, help="recordings converted at the same time")


def _convert(args: Namespace) -> None:
    from .errors import ConfigError
    from .events import convert

    if args.workers < 1:
        raise ConfigError(f"workers is {args.workers}; give 1 or more")
    recordings = convert(
        args.sources,
        args.out,
        stated=_stated(args),
        duplicates=args.duplicates,
        workers=args.workers,
        progress=True,
    )
    for recording in recordings:
        facts = f"{len(recording):,} events, {recording.width}×{recording.height}, {recording.duration_us / 1e6:.3f} s"
        print(f"{recording.path}: {facts}, {len(recording.frames)} frames")
        for problem in recording.info.get("problems", []):
            print(f"  {problem}")


def _info_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "path",
        type=str,
        nargs="?",
        default=None,
        help="a recording in any format, a collection, run, encoder, video or folder of pictures",
    )
    parser.add_argument("--formats", action="store_true", help="list the recording formats that evlift reads")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--picture", type=str, default=None, help="also draw what it holds into this PNG file")
    _stated_arguments(parser)


def _info(args: Namespace) -> None:
    from .errors import ConfigError
    from .info import describe, draw

    if args.formats:
        from .events.readers import formats

        print(json.dumps(formats(), ensure_ascii=False)) if args.json else _print_table(formats(), title="formats")
        return
    if args.path is None:
        raise ConfigError("no path; name what to look at: evlift info PATH, or see evlift info --formats")
    path, stated = Path(args.path), _stated(args)
    found = describe(path, stated, progress=not args.json)
    if args.picture:
        draw(path, Path(args.picture), stated, found.get("busiest_us"))
    if args.json:
        print(json.dumps(found))
    else:  # what nobody said takes no row
        _print_table({key: value for key, value in found.items() if value not in (None, "", [])}, title=args.path)


Arguments = Callable[["ArgumentParser"], None]
COMMANDS: dict[str, tuple[str, Arguments, Callable[[Namespace], None]]] = {
    "demo": ("pretrain on the packaged street video and show what was learned", _demo_arguments, _demo),
    "convert": ("make packed recordings of recordings in any format", _convert_arguments, _convert),
    "simulate": (
        "make events of a video or pictures: pairs to train on, or recordings",
        _simulate_arguments,
        _simulate,
    ),
    "pretrain": ("distil an image model into an event encoder", _pretrain_arguments, _pretrain),
    "probe": ("measure a frozen encoder with a linear head", _probe_arguments, _probe),
    "info": ("tell what a recording, collection, run or encoder is", _info_arguments, _info),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status 0, or 2 after a mistake that the person at the keyboard can put right."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["--version"]:
        print(f"evlift {__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0
    name, rest = argv[0], argv[1:]
    debug = "--debug" in rest
    try:
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            raise EvliftError(
                f"there is no command {name!r}; " + (f"did you mean {near[0]}?" if near else "see --help")
            )
        _run(name, rest)
    except EvliftError as error:
        if debug:
            raise
        print(f"evlift: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:  # one that no room expected
        if debug or error.filename is None:
            raise
        print(f"evlift: {error.filename}: {error.strerror}; check the path and the disk", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"evlift: stopped; the same command goes on: evlift {shlex.join(argv)}", file=sys.stderr)
        return 130
    return 0


def _run(name: str, rest: list[str]) -> None:
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    from .usage import plain

    help_line, add_arguments, run = COMMANDS[name]
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=f"evlift {name}", description=f"{help_line[0].upper()}{help_line[1:]}.", exit_on_error=False
    )
    add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    try:
        args = parser.instantiate(parser.parse_args(rest))
    except ArgumentError as error:
        raise EvliftError(plain(str(error), name, rest, parser)) from error
    run(args)


def _overview() -> str:
    lines = [f"  {name:<10}{text}" for name, (text, _, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: evlift COMMAND …",
            "",
            "Lift event-camera recordings into the feature space of image foundation models.",
            "",
            *lines,
            "",
            "evlift COMMAND --help tells more. Begin with: evlift demo",
        ]
    )


def _print_table(values: dict[str, Any], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for key, value in values.items():
        if isinstance(value, (dict, list)):
            parts = [f"{k} {_word(v)}" for k, v in value.items()] if isinstance(value, dict) else map(_word, value)
            value = ", ".join(parts)
        table.add_row(key, _word(value))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _word(value: Any) -> str:
    """A value within a table: four digits of a fraction, none after the point of a large one."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 or value != value else f"{value:.0f}"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
