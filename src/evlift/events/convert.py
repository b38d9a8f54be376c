"""From recordings in any format to packed recordings: bounded memory, several files at once, whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from evlift.errors import EvliftError, InputError
from evlift.events.readers import Problems, Stated, detect
from evlift.events.recording import Recording, looks_packed
from evlift.events.source import FileRecording
from evlift.events.writing import fingerprint, write_recording

Duplicates = Literal["keep", "drop"]


def convert(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    stated: Stated | None = None,
    duplicates: Duplicates = "keep",
    workers: int = 1,
    progress: bool = False,
) -> list[Recording]:
    """Make a packed recording of each source.

    One recording becomes the folder `out` itself; several (or a folder that holds several, at any depth) become
    folders in `out` with the names of their files. What is there already from the same source is kept, so the same
    command goes on after a kill; a source that cannot be read does not stop the others.

    Args:
        source: a recording in any format, a folder of them, or a list of either.
        stated: what the files do not say themselves, for all of them.
        duplicates: see `evlift.events.rules`.
        workers: files converted at the same time, a process each. Memory is bounded: about 200 MB a file.
        progress: show a progress bar.

    Returns:
        The recordings, opened, in the order of their sources.

    Raises:
        InputError: nothing to convert; a target that holds something else; a file cannot be read (the others are done
            first, and the message counts the failures).
    """
    stated = stated or Stated()
    jobs = plan([source] if isinstance(source, (str, Path)) else source, Path(out), stated)
    failures: list[tuple[Path, EvliftError]] = []
    done: dict[int, Recording] = {}
    with _progress(jobs, progress) as report:
        for number, result in _run(jobs, stated, duplicates, workers, report):
            if isinstance(result, EvliftError):
                failures.append((jobs[number][0], result))
            else:
                done[number] = Recording(result)
    if failures:
        first = str(failures[0][1])
        if len(jobs) == 1:
            raise failures[0][1]
        raise InputError(f"{len(failures)} of {len(jobs)} recordings could not be converted, the first: {first}")
    return [done[number] for number in range(len(jobs))]


def plan(sources: Sequence[str | Path], out: Path, stated: Stated) -> list[tuple[Path, Path]]:
    """(source, target) of every recording. InputError when there is none, or two would become one target."""
    found: list[tuple[Path, str]] = []  # (file, name in `out`; "" for `out` itself)
    for source in map(Path, sources):
        if source.is_dir() and not looks_packed(source) and not _known(source, stated):
            inside = [(path, _stem(path.relative_to(source))) for path in _recordings_in(source)]
            if not inside:
                raise InputError(f"{source} holds no recording that evlift knows; see evlift info --formats")
            found += inside
        else:
            found.append((source, _stem(Path(source.name)) if len(sources) > 1 else ""))
    names = [name for _, name in found]
    jobs = []
    for path, name in found:
        if names.count(name) > 1:  # two formats of one recording: tell them apart by their suffix
            name = f"{name}-{path.suffix.lstrip('.')}"
        jobs.append((path, out / name if name else out))
    targets = [target for _, target in jobs]
    for path, target in jobs:
        if targets.count(target) > 1:
            raise InputError(f"{path} and another file would both become {target}; convert them into two folders")
    return jobs


def convert_one(
    source: Path,
    target: Path,
    stated: Stated,
    duplicates: Duplicates = "keep",
    report: Callable[[float], None] = lambda share: None,
) -> Path:
    """Convert one recording, or find it converted; `report` hears the share that is done, 0…1.

    Raises:
        InputError: the source cannot be read, or the target holds something else.
    """
    asked = {key: value for key, value in asdict(stated).items() if value is not None} | {"duplicates": duplicates}
    if target.exists():
        if not _same(target, source, asked):
            raise InputError(f"{target} exists already and was not made from {source} this way; choose another --out")
        report(1.0)
        return target
    if looks_packed(source):
        raise InputError(f"{source} is a packed recording already; open it as it is")
    recording = FileRecording(source, stated)
    problems = Problems()

    def events() -> Iterator:
        for chunk, share in recording.progressing(duplicates=duplicates, problems=problems):
            report(0.9 * share)
            yield chunk

    written = write_recording(
        target,
        events(),
        frames=recording.images(problems),
        sensor=recording.sensor,
        clock=recording.clock,
        calibration=recording.calibration,
        height=recording.height,
        width=recording.width,
        source={
            "name": source.name,
            "format": recording.format,
            "asked": asked,
            "files": fingerprint(recording.reader.files),
            "changed_ns": [path.stat().st_mtime_ns for path in recording.reader.files],
        },
        problems=problems,
    )
    report(1.0)
    return written.path


def _same(target: Path, source: Path, asked: dict[str, Any]) -> bool:
    """Whether a target was made from this source as it is now, with these settings: by size and time, else by SHA-256."""
    try:
        kept = Recording(target).info["source"]
        if kept["name"] != source.name or kept["asked"] != _plain(asked):
            return False
        files = FileRecording(source, Stated(**{k: v for k, v in asked.items() if k != "duplicates"})).reader.files
        sizes = [file["bytes"] for file in kept["files"]]
        if [path.stat().st_size for path in files] != sizes:
            return False
        return [path.stat().st_mtime_ns for path in files] == kept["changed_ns"] or fingerprint(files) == kept["files"]
    except (EvliftError, OSError, KeyError, TypeError):
        return False


def _plain(value: Any) -> Any:
    """As JSON gives it back: lists for tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _known(path: Path, stated: Stated) -> bool:
    if stated.format is not None and path.is_file():
        return True
    try:
        detect(path)
    except InputError:
        return False
    return True


def _recordings_in(folder: Path) -> list[Path]:
    """Every recording below a folder, sorted; folders that are a recording are not looked into."""
    found: list[Path] = []
    for root, folders, files in os.walk(folder):
        here = Path(root)
        if here != folder and (looks_packed(here) or _known(here, Stated())):
            folders[:] = []
            if not looks_packed(here):
                found.append(here)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [here / name for name in sorted(files) if not name.startswith(".") and _telling(here / name)]
    return sorted(found)


def _telling(path: Path) -> bool:
    """Whether a file in a folder is taken for a recording.

    Text and arrays may be anything (calibration, times, labels) and are only converted when named themselves. A file
    whose name promises a recording is taken whatever it holds, so that a damaged one is reported and not passed over.
    """
    suffix = path.suffix.lower()
    if suffix in (".txt", ".csv", ".tsv", ".npy", ".npz", ".yaml", ".json"):
        return False
    return suffix in (".raw", ".dat", ".aedat", ".aedat4", ".es", ".bag", ".mcap") or _known(path, Stated())


def _stem(path: Path) -> str:
    return str(path.with_suffix("")) if path.suffix else str(path)


def _run(
    jobs: list[tuple[Path, Path]],
    stated: Stated,
    duplicates: Duplicates,
    workers: int,
    report: Callable[[int, float], None],
) -> Iterator[tuple[int, Path | EvliftError]]:
    if workers <= 1 or len(jobs) == 1:
        for number, (source, target) in enumerate(jobs):
            try:
                yield number, convert_one(source, target, stated, duplicates, partial(report, number))
            except EvliftError as error:
                yield number, error
        return
    context = get_context("spawn")  # OpenCV's and numba's threads do not survive a fork
    shares = context.Array("d", len(jobs))
    with ProcessPoolExecutor(workers, context, initializer=_set_shares, initargs=(shares,)) as pool:
        futures = {
            pool.submit(_job, number, source, target, stated, duplicates): number
            for number, (source, target) in enumerate(jobs)
        }
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, timeout=0.2, return_when="FIRST_COMPLETED")
            for number in range(len(jobs)):
                report(number, shares[number])
            for future in finished:
                yield futures[future], future.result()


_shares: Any = None


def _set_shares(shares: Any) -> None:
    global _shares
    _shares = shares


def _job(number: int, source: Path, target: Path, stated: Stated, duplicates: Duplicates) -> Path | EvliftError:
    def report(share: float) -> None:
        _shares[number] = share

    try:
        return convert_one(source, target, stated, duplicates, report)
    except EvliftError as error:
        return error


@contextmanager
def _progress(jobs: list[tuple[Path, Path]], show: bool) -> Iterator[Callable[[int, float], None]]:
    """A bar for each recording on a terminal, nothing elsewhere."""
    with ExitStack() as stack:
        tasks: dict[int, Any] = {}
        bars: Any = None
        if show:
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            bars = Progress(*columns)
            if bars.console.is_terminal:
                stack.enter_context(bars)

        def report(number: int, share: float) -> None:
            if bars is None or not bars.console.is_terminal or share == 0:
                return
            if number not in tasks:
                tasks[number] = bars.add_task(jobs[number][0].name, total=1.0)
            bars.update(tasks[number], completed=share)

        yield report
