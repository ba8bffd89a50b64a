"""Keeps secrets out of everything that is written: the run database, recordings, logs, and what errors say.

An endpoint may echo a key in an error or even in an answer. So whatever comes from outside passes a `Redactor` before
it is stored or shown. It replaces the values of environment variables that look like secrets, and whatever has the
shape of a common key.

Libraries that carry requests log headers as they come, where somebody asks for that much. A `LogRedaction` is a filter
for their loggers. What it does not reach is a logger that it was not given to: filters are not inherited.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

REDACTED = "[redacted]"
SHORTEST = 8
"""Values shorter than this are no secrets: local servers are given `none` or `test` as a key."""

_PLACEHOLDERS = frozenset(
    "anything changeme localhost lm-studio no-key-required none-needed not-needed not-required nothing notneeded "
    "password placeholder required undefined whatever whatever-you-like".split()
)
"""What people give as a key where none is asked for. As secrets they would be taken out of ordinary text."""
_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SHAPES = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}|\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bAKIA[A-Z0-9]{16}\b"
    r"|(?<=Bearer )[A-Za-z0-9._~+/=-]{16,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


class Redactor:
    """Replaces secrets in text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Hide `secrets` beside what has the shape of a key; the longest first, since one may contain another."""
        hidden = {secret for secret in secrets if len(secret) >= SHORTEST and secret.lower() not in _PLACEHOLDERS}
        known = sorted(hidden, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ, *more: str) -> Redactor:
        """Hide the values of all variables whose name says that they are secrets, and `more`."""
        return cls([*(value for name, value in environment.items() if _NAMES.search(name)), *more])

    def __call__(self, text: str) -> str:
        """Return `text` without secrets."""
        known = self._known.sub(REDACTED, text) if self._known else text
        return _SHAPES.sub(REDACTED, known)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Redactor) and self._known == other._known

    def __hash__(self) -> int:
        return hash(self._known)


@dataclass(frozen=True)
class LogRedaction:
    """A filter that lets every record of a logger pass without secrets; a logger takes one like it only once."""

    redact: Redactor
    """What it hides."""

    def __call__(self, record: logging.LogRecord) -> bool:
        """Put the redacted message, and the redacted traceback if there is one, in the place of their parts."""
        record.msg, record.args = self.redact(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = self.redact(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True
