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
from ..files import finite, write_atomic


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
        if changed:
            shown = "; ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            raise RunError(f"{out} holds a run with other settings ({shown}); give another --out, or the same settings")
        return
    if out.exists() and (not out.is_dir() or any(p.name != ".lock" for p in out.iterdir())):
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
        kept = [r for r in read_log(path) if r["step"] < self.start or (r["step"] == self.start and "eval" in r)]
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = open(path, "a", encoding="utf-8")
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.start)
        return self

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; numbers in it, nested ones too, become TensorBoard scalars at its `step`."""
        if self.out is None:
            return
        try:
            self._file.write(json.dumps(finite(row)) + "\n")
            self._file.flush()
        except OSError as error:
            raise RunError(f"cannot write {self._file.name} ({error.strerror}); make room and run it again") from error
        for name, value in row.items():
            for tag, number in value.items() if isinstance(value, dict) else [("", value)]:
                if name != "step" and isinstance(number, (int, float)):
                    self._board.add_scalar(f"{name}/{tag}" if tag else name, number, row["step"])

    def __exit__(self, *_: object) -> None:
        if self.out is not None:
            self._file.close()
            self._board.close()
