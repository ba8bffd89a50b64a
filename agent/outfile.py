"""New files that appear whole or not at all, and never in the place of another.

What is written goes to a part file in the same folder. `commit` brings it to disk and links it to its name, which
fails where anything has that name already, a dangling symbolic link included. An interrupted run leaves the name free.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from premortem.interp.errors import ExportError

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_CHUNK = 1 << 20


class NewFile:
    """A context in which `file` is written; nothing but `commit` makes it appear as `target`.

    Raises ExportError on entering where the target exists or its folder does not.
    """

    file: BinaryIO

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.part")

    def __enter__(self) -> NewFile:
        if not self.target.parent.is_dir():
            raise ExportError(f"{self.target}: the folder {self.target.parent} does not exist; make it first.")
        refuse_existing(self.target)
        self.file = open(self.part, "xb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        self.part.unlink(missing_ok=True)

    def sha256(self) -> str:
        """Return the hash of what was written so far."""
        self.file.flush()
        digest = hashlib.sha256()
        with open(self.part, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def commit(self) -> None:
        """Make the file appear under its name; raise ExportError where the name is taken by now."""
        self.file.flush()
        os.fsync(self.file.fileno())
        try:
            os.link(self.part, self.target)
        except FileExistsError:
            refuse_existing(self.target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._copy()
        _sync_folder(self.target.parent)

    def _copy(self) -> None:
        """Stand in for a link on a file system that has none: create the name afresh and fill it."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
        try:
            handle = os.open(self.target, flags, 0o666)
        except FileExistsError:
            refuse_existing(self.target)
            raise
        with open(self.part, "rb") as source, os.fdopen(handle, "wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
            copy.flush()
            os.fsync(copy.fileno())


def refuse_existing(target: Path) -> None:
    """Raise ExportError where anything has the name `target`, be it a symbolic link to nowhere."""
    if os.path.lexists(target):
        raise ExportError(f"{target}: exists already and is not overwritten; choose another name.")


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
