"""Where things are kept that can be fetched or computed again, and the hash of a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import platformdirs


def cache_home() -> Path:
    """Return the folder for what can be fetched or computed again: $PREMORTEM_CACHE, or the user's cache folder."""
    return Path(os.environ.get("PREMORTEM_CACHE") or platformdirs.user_cache_dir("premortem"))


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
