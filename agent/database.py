"""One SQLite file, opened safely: checked, migrated, and every failure told in one clear line.

SQLite's defaults do not fit a run that may be killed at any moment. Foreign keys are off, a reader that turns writer
inside a transaction can fail although it waited, and a damaged page is noticed only when it is read. So `RunDatabase`
checks the file at open, keeps a write-ahead log, and starts every write with `BEGIN IMMEDIATE`. What sqlite3 raises
leaves as `StoreError`. Nothing here knows what the tables mean.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tenacity
from sqlite_utils import Database

from premortem.agent.migrations import MIGRATIONS
from premortem.interp.errors import StoreError

BUSY_SECONDS = 15.0
"""How long a write waits for another process's write."""

_ADVICE = {
    "locked": "another process is writing to it; try again when it has finished",
    "busy": "another process is writing to it; try again when it has finished",
    "disk is full": "the disk is full; free some space and run the same command again, it goes on where it stopped",
    "disk i/o error": "the disk could not be read or written; check its space and health",
    "readonly": "it cannot be written; check its permissions",
    "unable to open": "it cannot be opened; check the path and its permissions",
    "not a database": "it is not a SQLite database; name another file",
    "malformed": "it is damaged; restore a copy, or name another file and run again",
}


def explain(error: sqlite3.Error, path: Path) -> StoreError:
    """Return the StoreError that tells a user what `error` means for the database at `path`."""
    seen = str(error)
    for sign, advice in _ADVICE.items():
        if sign in seen.lower():
            return StoreError(f"database {path}: {advice}")
    return StoreError(f"database {path}: {seen}")


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn every sqlite3 error inside the block into a StoreError about `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error, path) from error


class RunDatabase:
    """The connection: read, upsert, and transactions that either happen or do not."""

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Open or create the file; raise StoreError when it is damaged, locked, foreign or newer than this program."""
        self.path = path
        _create_private(path)
        with clear_errors(path):
            # langgraph may call a node from another thread than the one that opened the file, never from two at once
            connection = sqlite3.connect(path, timeout=busy_seconds, check_same_thread=False)
        try:
            with clear_errors(path):
                self.db = Database(connection)
                self._check()
                self._migrate(busy_seconds)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    @contextmanager
    def write(self) -> Iterator[None]:
        """Run the block as one transaction that holds the write lock from its start; blocks may nest."""
        with clear_errors(self.path):
            if self.db.conn.in_transaction:
                yield
                return
            self.db.conn.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.db.rollback()
                raise
            self.db.commit()

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a SELECT as dicts."""
        with clear_errors(self.path):
            return list(self.db.query(sql, parameters))

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one writing statement in a transaction and return the number of rows it touched."""
        with self.write():
            return self.db.execute(sql, parameters).rowcount

    def upsert(self, table: str, keys: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
        """Write `rows`, each in place of the row with the same `keys` if there is one."""
        with self.write():
            self.db.table(table).upsert_all([dict(row) for row in rows], pk=keys)

    def _check(self) -> None:
        self.db.execute("PRAGMA foreign_keys = ON")
        problems = [row[0] for row in self.db.execute("PRAGMA quick_check(1)").fetchall()]
        if problems != ["ok"]:
            raise sqlite3.DatabaseError(f"database disk image is malformed: {problems[0]}")
        applied = {migration.name for migration in MIGRATIONS.applied(self.db)}
        if applied - _known_migrations():
            raise StoreError(f"database {self.path}: written by a newer Premortem; update this one")
        if not applied and self.db.table_names():
            raise StoreError(f"database {self.path}: it belongs to another program; name another file")

    def _migrate(self, busy_seconds: float) -> None:
        """Bring the tables up to date; SQLite itself does not wait where two processes turn to the log at once."""
        patient = tenacity.Retrying(
            retry=tenacity.retry_if_exception_message(match=".*locked"),
            stop=tenacity.stop_after_delay(busy_seconds),
            wait=tenacity.wait_random(0.01, 0.05),
            reraise=True,
        )
        patient(self.db.enable_wal)
        if MIGRATIONS.pending(self.db):
            with self.write():
                MIGRATIONS.apply(self.db)


def _known_migrations() -> set[str]:
    return {migration.name for migration in MIGRATIONS.pending(Database(memory=True))}


def _create_private(path: Path) -> None:
    """Create the file for its owner's eyes only, if it is not there: it will hold the user's data."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(f"database {path}: {error.strerror or error}") from error
