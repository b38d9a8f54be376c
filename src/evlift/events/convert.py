"""From recordings in any format to packed recordings: bounded memory, several files at once, whole or not there."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Literal, overload

from evlift.errors import EvliftError, InputError, RunError
from evlift.events.readers import Problems, Stated, detect, hdf5
from evlift.events.recording import Recording, looks_packed
from evlift.events.source import FileRecording, reading
from evlift.events.writing import fingerprint, is_free, write_recording

Duplicates = Literal["keep", "drop"]

_LOOSE = ("csv", "npy", "npz")  # text and arrays may be anything: calibration, times, labels
_PROMISING = (".raw", ".dat", ".aedat", ".aedat4", ".es", ".bag", ".mcap")


class Converted(Sequence[Recording]):
    """The recordings that `convert` made, in the order of their sources, each opened whenever it is asked for.

    Not all at once: an open recording holds two files, and a data set has more recordings than a process may hold open.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"Converted({', '.join(map(str, self.paths[:3]))}{', …' if len(self) > 3 else ''})"

    @overload
    def __getitem__(self, i: int) -> Recording: ...
    @overload
    def __getitem__(self, i: slice) -> Converted: ...
    def __getitem__(self, i: int | slice) -> Recording | Converted:
        return Converted(self.paths[i]) if isinstance(i, slice) else Recording(self.paths[i])


def convert(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    stated: Stated | None = None,
    duplicates: Duplicates = "keep",
    workers: int = 1,
    progress: bool = False,
) -> Converted:
    """Make a packed recording of each source.

    One recording becomes the folder `out` itself; several (or a folder that holds several, at any depth) become
    folders in `out` with the names of their files. What is there already from the same source is kept, so the same
    command goes on after a kill; a source that cannot be read does not stop the others. In a folder, text and arrays
    are passed over unless `stated.format` names them: they may be anything.

    Args:
        source: a recording in any format, a folder of them, or a list of either.
        stated: what the files do not say themselves, for all of them.
        duplicates: see `evlift.events.rules`.
        workers: files converted at the same time, a process each. Memory is bounded: about 200 MB a file.
        progress: show a progress bar.

    Returns:
        The recordings in the order of their sources, each opened when it is looked at.

    Raises:
        InputError: nothing to convert; a target that holds something else; a file cannot be read (the others are done
            first, and the message counts and names the failures).
        RunError: a worker was killed.
    """
    stated = stated or Stated()
    jobs = plan([source] if isinstance(source, (str, Path)) else source, Path(out), stated)
    failures: list[tuple[Path, EvliftError]] = []
    with _progress(jobs, progress) as report:
        for number, result in _run(jobs, stated, duplicates, workers, report):
            report(number, 1.0)
            if isinstance(result, EvliftError):
                failures.append((jobs[number][0], result))
    if failures:
        failures.sort(key=lambda failure: failure[0])
        first = str(failures[0][1])
        if len(jobs) == 1:
            raise failures[0][1]
        others = ", ".join(str(path) for path, _ in failures[1:9]) + (" …" if len(failures) > 9 else "")
        raise InputError(
            f"{len(failures)} of {len(jobs)} recordings could not be converted, the first: {first}"
            + (f" (the others: {others})" if others else "")
        )
    return Converted(target for _, target in jobs)


def plan(sources: Sequence[str | Path], out: Path, stated: Stated) -> list[tuple[Path, Path]]:
    """(source, target) of every recording. InputError when there is none, or two would become one target."""
    found: list[tuple[Path, str]] = []  # (file, name in `out`; "" for `out` itself)
    for source in map(Path, sources):
        if source.is_dir() and not looks_packed(source) and not _known(source, stated):
            inside = [(path, _stem(path, source)) for path in recordings_in(source, stated)]
            if not inside:
                raise InputError(
                    f"{source} holds no recording that evlift knows (text and arrays are taken from a folder with "
                    "--format csv, npy or npz only); see evlift info --formats"
                )
            found += inside
        else:
            found.append((source, _stem(source, source.parent) if len(sources) > 1 else ""))
    if not found:
        raise InputError("there is nothing to convert; name a recording")
    names = Counter(name for _, name in found)
    jobs = []
    for path, name in found:
        if names[name] > 1:  # two formats of one recording: tell them apart by their suffix
            name = f"{name}-{path.suffix.lstrip('.')}"
        jobs.append((path, out / name if name else out))
    targets = Counter(target for _, target in jobs)
    for path, target in jobs:
        if targets[target] > 1:
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
    if not is_free(target):
        if not _same(target, source, asked):
            raise InputError(f"{target} exists already and was not made from {source} this way; choose another --out")
        report(1.0)
        return target
    if looks_packed(source):
        raise InputError(f"{source} is a packed recording already; open it as it is")
    recording = FileRecording(source, stated)
    problems = Problems()
    with reading(source):
        files = recording.reader.files
        fingerprints, changed_ns = fingerprint(files), [path.stat().st_mtime_ns for path in files]
    try:
        rectify_map = recording.rectify_map
    except InputError as error:  # the events are good without it
        rectify_map = None
        problems.say(f"rectification left out: {error}")

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
        rectify_map=rectify_map,
        height=recording.height,
        width=recording.width,
        source={
            "name": source.name,
            "format": recording.format,
            "asked": asked,
            "files": fingerprints,
            "changed_ns": changed_ns,
        },
        problems=problems,
    )
    report(1.0)
    return written.path


def _same(target: Path, source: Path, asked: dict[str, Any]) -> bool:
    """Whether a target was made from this source as it is now and these settings: by size and time, else SHA-256."""
    try:
        kept = Recording(target).info["source"]
        if kept["name"] != source.name or kept["asked"] != _plain(asked):
            return False
        files = FileRecording(source, Stated(**{k: v for k, v in asked.items() if k != "duplicates"})).reader.files
        then = list(zip(kept["files"], kept["changed_ns"], strict=True))
        return len(files) == len(then) and all(map(_unchanged, files, *zip(*then, strict=True)))
    except (EvliftError, OSError, KeyError, TypeError, ValueError):
        return False


def _unchanged(path: Path, fingerprint_then: dict[str, Any], changed_ns: int) -> bool:
    if not path.is_dir():
        state = path.stat()
        if state.st_size != fingerprint_then["bytes"]:
            return False
        if state.st_mtime_ns == changed_ns:
            return True
    return fingerprint([path]) == [fingerprint_then]


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


def recordings_in(folder: Path, stated: Stated) -> list[Path]:
    """Every recording below a folder, sorted; folders that are a recording are not looked into. Links are followed."""
    found: list[Path] = []
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}); check its permissions") from error

    for root, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        here, place = Path(root), os.path.realpath(root)
        if place in seen:  # a link back to what was walked already
            folders[:] = []
            continue
        seen.add(place)
        if here != folder and (looks_packed(here) or _known(here, Stated())):
            folders[:] = []
            if not looks_packed(here):
                found.append(here)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [here / name for name in sorted(files) if not name.startswith(".") and _telling(here / name, stated)]
    return sorted(found)


def _telling(path: Path, stated: Stated) -> bool:
    """Whether a file in a folder is taken for a recording.

    Text and arrays of no data set are only taken when their format is stated. A file whose name promises a recording is
    taken whatever it holds, so that a damaged one is reported and not passed over.
    """
    try:
        found = detect(path)
    except InputError:
        return path.suffix.lower() in _PROMISING or _broken(path)
    if found == "mvsec" and path.stem.endswith("_gt"):  # the ground truth, which lies beside the recordings
        return False
    return found == stated.format if stated.format in _LOOSE else found not in _LOOSE


def _broken(path: Path) -> bool:
    """Whether a file is HDF5 that was cut short: nobody can say any longer that it was no recording."""
    try:
        with open(path, "rb") as file:
            return hdf5.fault(path, file.read(len(hdf5.SIGNATURE))) is not None
    except OSError:
        return False


def _stem(path: Path, base: Path) -> str:
    """The name of a recording in `out`: its path below `base`, without a file's suffix."""
    name = path.relative_to(base)
    return str(name if path.is_dir() else name.with_suffix(""))


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
    shares, stop = context.Array("d", len(jobs)), context.Value("b", 0)
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(shares, stop))
    queue = iter(enumerate(jobs))
    running: dict[Future[Path | EvliftError], int] = {}
    try:
        while True:  # few are handed out ahead of time: some data sets have a hundred thousand recordings
            for number, (source, target) in islice(queue, 2 * workers - len(running)):
                running[pool.submit(_job, number, source, target, stated, duplicates)] = number
            if not running:
                return
            finished, _ = wait(running, timeout=0.2, return_when="FIRST_COMPLETED")
            for number in running.values():
                report(number, shares[number])
            for future in finished:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise RunError(
            "a worker was killed, perhaps for want of memory; the same command goes on, maybe with fewer --workers"
        ) from error
    finally:
        stop.value = 1  # after Ctrl-C, what is under way ends at its next chunk and what is queued at once
        pool.shutdown(cancel_futures=True)


_shares: Any = None
_stop: Any = None


def _start_worker(shares: Any, stop: Any) -> None:
    global _shares, _stop
    _shares, _stop = shares, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the job, if there is one
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent was killed: a worker would wait for jobs for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _job(number: int, source: Path, target: Path, stated: Stated, duplicates: Duplicates) -> Path | EvliftError:
    def report(share: float) -> None:
        _shares[number] = share
        if _stop.value:
            raise KeyboardInterrupt

    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        report(0.0)
        return convert_one(source, target, stated, duplicates, report)
    except EvliftError as error:
        return error
    finally:
        signal.signal(signal.SIGINT, ignored)


@contextmanager
def _progress(jobs: list[tuple[Path, Path]], show: bool) -> Iterator[Callable[[int, float], None]]:
    """On a terminal a bar for each recording under way, and one for all of several; nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield lambda number, share: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        whole = bars.add_task(f"{len(jobs)} recordings", total=len(jobs)) if len(jobs) > 1 else None
        tasks: dict[int, Any] = {}
        done: set[int] = set()

        def report(number: int, share: float) -> None:
            if number in done or share == 0:
                return
            if whole is None or share < 1:
                if number not in tasks:
                    tasks[number] = bars.add_task(jobs[number][0].name, total=1.0)
                bars.update(tasks[number], completed=share)
            else:
                done.add(number)
                bars.advance(whole)
                if number in tasks:
                    bars.remove_task(tasks[number])

        yield report
