"""Everyday prompts that belong to no dataset: what a model does with them tells how far training has spread."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files


@lru_cache(maxsize=1)
def elsewhere_prompts() -> tuple[str, ...]:
    """Return the prompts of `elsewhere.txt`, one a line."""
    text = (files(__package__) / "elsewhere.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line.strip())
