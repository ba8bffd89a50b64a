"""Progress on stderr: bars with rates and time left for a person, one line per stage for a log file.

`interp` reports progress through a protocol and knows no terminal; this is the terminal's side of it. stdout stays
free for the one JSON document a command may print.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class RateColumn(TextColumn):
    """Steps per second, once there is something to divide."""

    def __init__(self) -> None:
        """Make the column; it needs no format."""
        super().__init__("")

    def render(self, task: Task) -> Text:
        """Return the task's rate."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed and task.total else "", style="progress.data.speed")


class LineStage:
    """A stage that only counts."""

    def __init__(self, name: str) -> None:
        """Start counting at zero."""
        self.name, self.done, self.started = name, 0, time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count `n` more steps as done."""
        self.done += n

    def line(self) -> str:
        """Return the stage in one line, for a log."""
        count = f", {self.done} steps" if self.done else ""
        return f"{self.name} ({time.monotonic() - self.started:.1f} s{count})"


class BarStage(LineStage):
    """A stage that moves a bar as well."""

    def __init__(self, name: str, total: int | None, bars: Progress) -> None:
        """Add the bar."""
        super().__init__(name)
        self._bars, self._task = bars, bars.add_task(escape(name), total=total)

    def advance(self, n: int = 1) -> None:
        """Count and redraw."""
        super().advance(n)
        self._bars.advance(self._task, n)

    def close(self) -> None:
        """Take the bar away; the stage's line stays behind."""
        self._bars.remove_task(self._task)


class TerminalProgress:
    """Stages drawn with rich on a terminal, and written as lines elsewhere.

    A stage inside another leaves no line of its own, because the outer one says enough.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Write to `console`, by default stderr."""
        self.console = console or Console(stderr=True, highlight=False)
        self._bars: Progress | None = None
        self._depth = 0

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[LineStage]:
        """Open a stage of `total` steps; None: nobody knows how many."""
        stage = BarStage(name, total, self._start()) if self.console.is_terminal else LineStage(name)
        self._depth += 1
        try:
            yield stage
        finally:
            self._depth -= 1
            self._end(stage)
        if self._depth == 0:
            self.console.print(Text(stage.line(), style="dim"), soft_wrap=True)

    def _start(self) -> Progress:
        if self._bars is None:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bars = Progress(*columns, RateColumn(), TimeRemainingColumn(), console=self.console, transient=True)
            self._bars.start()
        return self._bars

    def _end(self, stage: LineStage) -> None:
        if isinstance(stage, BarStage):
            stage.close()
        if self._depth == 0 and self._bars is not None:
            self._bars.stop()
            self._bars = None
