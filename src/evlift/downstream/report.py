"""What a probe says while it runs and when it is done: a bar, a log with times, a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import RunError


class Report:
    """A progress bar on the terminal and `log.jsonl` in the output folder; a context manager."""

    def __init__(self, out: Path, show: bool):
        self.show = show
        # The bar and remarks go to stderr, so that stdout holds the table alone.
        self._console = Console(stderr=True, quiet=not show)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=self._console, transient=True, disable=not show)
        self._path = out / "log.jsonl"

    def __enter__(self) -> Report:
        try:
            self._file = open(self._path, "w", encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot write {self._path} ({error.strerror}); give another --out folder") from error
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        self._file.close()

    def log(self, **row: Any) -> None:
        """One line of `log.jsonl`. Times belong here: `metrics.json` must not differ between two equal runs."""
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise RunError(f"cannot write {self._path} ({error.strerror}); make room and run it again") from error

    def remark(self, text: str) -> None:
        """One line to the reader, kept in the log as well."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self.log(remark=text)

    def table(self, rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
        """A line a row: mIoU, accuracy and the IoU of every class, in percent, on stdout."""
        self.bar.stop()
        if not self.show:
            return
        table = Table(title="linear probe, frozen tokens: mIoU, pixel accuracy and IoU a class, in %")
        table.add_column("", overflow="fold")
        for name in ("mIoU", "accuracy", *classes):
            table.add_column(name, justify="right")
        for row in rows:
            values = [row["miou"], row["accuracy"], *(row["iou"][name] for name in classes)]
            shown = ["–" if value is None else f"{100 * value:.1f}" for value in values]
            table.add_row(row["name"], f"[bold]{shown[0]}[/bold]", *shown[1:])
        console = Console()
        # In a file or a pipe there is no edge to fold at, and a folded number cannot be read.
        (console if console.is_terminal else Console(width=60 + 12 * (2 + len(classes)))).print(table)
