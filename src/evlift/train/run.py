"""The run folder: who may write in it, its settings, its log and its figures.

RUN/config.yaml      the settings, resolved
RUN/log.jsonl        a line a step, and a line an evaluation
RUN/tensorboard/     the same for TensorBoard
RUN/checkpoints/     see checkpoint.py
RUN/encoder/         what the run is for
RUN/metrics.json     its figures; without times, so that the same run gives the same file
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..config import PretrainConfig, differences, read_yaml, to_dict, write_yaml
from ..errors import RunError
from ..files import finite, holds_others, write_atomic


def open_run(out: Path, config: PretrainConfig) -> None:
    """Make the run folder, or check that it holds a run of these settings.

    Raises:
        RunError: the folder holds a run with other settings, or files that are no run of evlift's.
    """
    settings = out / "config.yaml"
    if settings.exists():
        old, new = read_yaml(settings), to_dict(config)
        for values in (old, new):
            values.pop("machine", None)  # how it is run may change from one start to the next
        changed = differences(old, new)
        begun = (out / "log.jsonl").exists() or (out / "checkpoints").exists()
        if changed and begun:
            shown = "; ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            raise RunError(f"{out} holds a run with other settings ({shown}); give another --out, or the same settings")
        if begun:
            return
    elif out.exists() and (not out.is_dir() or holds_others(out)):
        raise RunError(f"{out} is not empty and holds no run; give another --out folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {out} ({error.strerror}); give another --out folder") from error
    write_atomic(settings, write_yaml(config).encode())


def read_metrics(out: Path) -> dict[str, Any] | None:
    """The figures of a finished run, or None while it is unfinished."""
    try:
        return json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{out / 'metrics.json'} is damaged; remove it and run the same command again") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a `log.jsonl`; a last line that a kill cut short is left out."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


class Log:
    """`log.jsonl` and TensorBoard, from step `start` on: rows of later steps, left by a killed start, are dropped.

    A context manager. Without a folder (a process that is not the first) it writes nothing.
    """

    def __init__(self, out: Path | None, start: int):
        self.out, self.start = out, start

    def __enter__(self) -> Log:
        if self.out is None:
            return self
        path = self.out / "log.jsonl"
        at_start = self.start > 0  # an evaluation after that many steps; before the first, it is made again
        kept = [
            row
            for row in read_log(path)
            if row["step"] < self.start or (at_start and row["step"] == self.start and "eval" in row)
        ]
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._file = open(path, "a", encoding="utf-8")
            self._board = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.start)
        except OSError as error:
            raise self._refused(error) from error
        return self

    def _refused(self, error: OSError) -> RunError:
        return RunError(f"cannot write the log in {self.out} ({error.strerror}); make room and run it again")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; numbers in it, nested ones too, become TensorBoard scalars at its `step`."""
        if self.out is None:
            return
        try:
            self._file.write(json.dumps(finite(row)) + "\n")
            self._file.flush()
            for name, value in row.items():
                for tag, number in value.items() if isinstance(value, dict) else [("", value)]:
                    if name != "step" and isinstance(number, (int, float)):
                        self._board.add_scalar(f"{name}/{tag}" if tag else name, number, row["step"])
        except OSError as error:
            raise self._refused(error) from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.out is None:
            return
        for part in (self._file, self._board):
            try:
                part.close()  # flushes, and a full disk is told only now
            except OSError as error:
                if kind is None:
                    raise self._refused(error) from error
