"""Where a run stands, as the graph keeps it on disk between two nodes: ids and counters, never text or tensors."""

from __future__ import annotations

from typing import Any, TypedDict


class RunState(TypedDict):
    """Where a run stands: ids and counters."""

    step: int
    """Number of the next tool call."""
    findings: list[str]
    """Findings (finding_id) to work on, in order."""
    turn: list[str]
    """Findings that still want work, the one whose turn it is first."""
    calls: int
    """Requests that had been sent to the LLM when this turn began."""
    parked: dict[str, dict[str, Any]]
    """What findings have reached that were worked on before, by finding_id: the fields below."""
    attempt: int
    """Attempts made for the current finding."""
    settles: int
    """Times that kept edits of the current finding were sent to the verifier alone."""
    testing: list[str]
    """Edits (edit_id) for the next verification."""
    kept: list[str]
    """Edits that passed the last verification."""
    refused: list[str]
    """Edits of the current finding that failed one."""
    cut: int
    """1 where the last set of the current finding took all the pairs that edits may touch; else 0."""


Update = dict[str, Any]
FRESH: Update = {"attempt": 0, "settles": 0, "testing": [], "kept": [], "refused": [], "cut": 0}


def first_state() -> RunState:
    """Return the state of a run that has done nothing."""
    return RunState(
        step=0, findings=[], turn=[], calls=0, parked={}, attempt=0, settles=0, testing=[], kept=[], refused=[], cut=0
    )
