"""A small cache of JSON values on disk, one line per entry, that survives being killed while it writes.

Entries are only ever appended, each batch in one write under a file lock. A line that a killed process left unfinished
does not parse and is passed over; the next write starts on a line of its own. Keys are content hashes, so an entry
never goes stale, and two processes that append the same key have written the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock


class LineCache:
    """A mapping from keys to JSON values kept in `path`; None keeps it in memory only."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._entries: dict[str, Any] = _read(path) if path is not None and path.exists() else {}

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def add(self, entries: Mapping[str, Any]) -> None:
        """Keep `entries`; a key that is there already keeps its value."""
        new = {key: value for key, value in entries.items() if key not in self._entries}
        self._entries.update(new)
        if self.path is None or not new:
            return
        lines = "".join(json.dumps([key, value]) + "\n" for key, value in new.items())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"), self.path.open("ab+") as file:
            if file.tell() and _last_byte(self.path) != b"\n":
                lines = "\n" + lines
            file.write(lines.encode())


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1)


def _read(path: Path) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    with path.open("rb") as file:
        for line in file:
            try:
                key, value = json.loads(line)
            except ValueError:
                continue
            if isinstance(key, str):
                entries.setdefault(key, value)
    return entries
