"""What SIGINT and SIGTERM do to a run: the first one ends it in good order, and while that waits a second one kills it.

Good order may mean waiting for answers of an LLM that are on their way and will be paid for. An endpoint that hangs is
just when people press Ctrl-C, so whoever does not want to wait any longer presses it again; a killed run loses nothing
but those answers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt inside the block, once: a second one may not break the cleanup."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handled(interrupt):
        yield


@contextmanager
def mortal() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process at once inside the block, with the exit code that shells give them."""

    def leave(number: int, frame: FrameType | None) -> None:
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # a progress bar has hidden the cursor
        os._exit(128 + number)

    with _handled(leave):
        yield


@contextmanager
def _handled(handler: signal._HANDLER) -> Iterator[None]:
    """Handle SIGNALS by `handler` inside the block, and as before behind it; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {each: signal.signal(each, handler) for each in SIGNALS}
    try:
        yield
    finally:
        for each, own in former.items():
            signal.signal(each, own)
