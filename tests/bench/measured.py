"""What a result was measured with: versions, commit and day, for the files of `results/`."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("premortem", "torch", "transformers", "sae-lens")


def stamped(result: dict[str, Any]) -> dict[str, Any]:
    """Return `result` with what it was measured with under the key `measured`."""
    return {"measured": measured(), **result}


def measured(*libraries: str) -> dict[str, str]:
    """Return the day, the commit (with `+` where files differ from it) and the versions, of `libraries` too."""
    found = {"day": datetime.date.today().isoformat(), "commit": commit(), "python": platform.python_version()}
    return found | {name: version(name) for name in (*LIBRARIES, *libraries)}


def commit() -> str:
    """Return the short name of the commit that is checked out, with `+` where code differs; `unknown` without git."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return told.stdout.strip() or "unknown"
