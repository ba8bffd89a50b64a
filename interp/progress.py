"""How long work tells the person who waits that it goes on.

Encoding, forecasting and the graph's nodes take a `Progress` as an argument and open a stage on it:

    with progress.stage("Encoding", total=len(pairs)) as stage:
        stage.advance(64)

The CLI draws the stages, tests and notebooks pass `NullProgress`. Nothing here knows about terminals.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Stage(Protocol):
    """One stage of the work, open until its `with` block ends."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more steps as done."""


class Progress(Protocol):
    """Hears about stages of work; stages may nest."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Stage]:
        """Open a stage called `name` of `total` steps; None: nobody knows how many."""
        ...


class NullStage:
    """A stage that nobody watches."""

    def advance(self, n: int = 1) -> None:
        """Ignore the steps."""


class NullProgress:
    """A `Progress` that nobody watches."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Stage]:
        """Return a stage that ignores its steps."""
        return nullcontext(NullStage())
