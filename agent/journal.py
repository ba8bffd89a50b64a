"""Records that only the agent keeps: where a run stands, what it called, how each finding ended.

They are written by the graph's nodes and read by the commands; `interp` never sees them.
"""

from __future__ import annotations

from typing import Any, Literal

from premortem.agent.chat import Reply, Request
from premortem.interp.records import Record

QUARANTINE = "quarantined.jsonl"
"""File in a run's folder that holds the lines which could not be read, each with its reason."""
Status = Literal["running", "done", "interrupted", "failed"]
Stage = Literal["before", "after"]
OutcomeKind = Literal["fixed", "unfixed", "reported"]


class RunInfo(Record):
    """The row of one run; what is not known yet is null."""

    run_id: str
    """Content hash of spec, dataset, model, lenses and settings."""
    status: Status
    """`running`: a process works on it, or was killed while it did (see `runs.recover_runs`)."""
    error: str
    """Why it failed; empty otherwise."""
    created_at: str
    """When it was first started, ISO 8601 in UTC."""
    updated_at: str
    """When its status last changed, ISO 8601 in UTC."""
    spec: str
    """The spec's text."""
    settings: dict[str, Any]
    """The settings it was started with."""
    forecaster: str
    """The forecaster it uses."""
    dataset_path: str | None
    """See `Dataset.path`."""
    dataset_sha256: str | None
    """See `Dataset.sha256`."""
    form: str | None
    """See `Dataset.form`."""
    pairs: int | None
    """Number of pairs that were read."""
    quarantined: int | None
    """Number of lines that could not be read."""
    notes: tuple[dict[str, Any], ...]
    """See `Dataset.notes`."""
    spec_problems: tuple[str, ...]
    """What in the spec cannot be checked or contradicts itself, as the LLM reads it."""
    llm_stopped: str
    """The first reason why the LLM gave no answer to a question though its endpoint was there; empty: none."""
    model: str | None
    """See `LensSummary.model`."""
    hook: str | None
    """See `LensSummary.hook`."""
    sae: str | None
    """See `LensSummary.sae`."""
    fvu: float | None
    """See `LensSummary.fvu`."""
    l0: float | None
    """See `LensSummary.l0`."""


class ToolCall(Record):
    """One function call of the agent."""

    step: int
    """Position in the run, from 0; a step that is run again after an interruption keeps its number."""
    tool: str
    """Name of the function."""
    arguments: Any
    """Its arguments, as JSON."""
    result: Any
    """What it returned, as JSON; `{"error": …}` when it could not serve the call."""
    seconds: float
    """Wall-clock time."""


class LlmCall(Record):
    """One request to the LLM with its answer, as it was paid for."""

    purpose: str
    """What it was asked for: `probe`, `read_spec`, `contrast`, `name_concept`, `plan`, `rewrite` …"""
    prompt: str
    """Name and hash of the prompt file it was rendered from, as `rewrite@3f2a…`; empty for a probe."""
    request: Request
    """What was asked."""
    reply: Reply
    """What was answered."""
    remembered: bool = False
    """Whether another run had asked the same, so that nothing was sent or paid."""


class Outcome(Record):
    """How the work on a finding ended."""

    kind: OutcomeKind
    """`fixed`: its edits passed together; `unfixed`: no set of edits did; `reported`: nobody asked for a change."""
    reason: str
    """Why, in one sentence."""
