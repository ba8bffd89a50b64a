"""The run database: records go in and come out as records, and writing the same twice changes nothing.

A run may be killed at any moment and started again with the same command. So every write is an upsert by content id,
a group of records goes in as one transaction, and what a run has used is added up over all its attempts. Reviews are a
person's word: they are appended, and triggers refuse to change them.

`document` is what a user gets from `--json`. Nothing here decides anything or knows about the graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from premortem.agent.cells import Cell, clean, from_cells, to_cells, to_json
from premortem.agent.chat import Reply
from premortem.agent.database import BUSY_SECONDS, RunDatabase
from premortem.agent.document import build_document
from premortem.agent.journal import LlmCall, Outcome, RunInfo, Stage, Status, ToolCall
from premortem.interp.errors import StoreError
from premortem.interp.records import (
    Clause,
    Cluster,
    Concept,
    ConceptEffect,
    Cost,
    Dataset,
    Edit,
    Finding,
    Forecast,
    LensSummary,
    Record,
    Review,
    Verdict,
    content_id,
)

R = TypeVar("R", bound=Record)

_OF_FORECAST = ("n_pairs", "reliability", "told_apart", "parts_agree")
"""What a forecast says as a whole."""


class Store:
    """All runs of one database file."""

    def __init__(self, path: Path | str, *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Open or create the database; raise StoreError with one clear line when it cannot be used."""
        self.path = Path(path)
        self.database = RunDatabase(self.path, busy_seconds=busy_seconds)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Runs

    def begin_run(self, run_id: str, *, spec: str, settings: Mapping[str, Any], forecaster: str) -> None:
        """Note that a process works on the run, for the first time or again."""
        row = {"run_id": run_id, "spec": clean(spec), "settings": to_json(settings), "forecaster": forecaster}
        row |= {"status": "running", "error": "", "updated_at": _now()}
        if not self.has_run(run_id):
            row["created_at"] = row["updated_at"]
        with self.database.write():
            if "created_at" in row:
                self.database.db.table("runs").insert(row)
            else:
                self.database.db.table("runs").update(run_id, row)

    def set_status(self, run_id: str, status: Status, error: str = "") -> None:
        """Note where the run stands."""
        self._update_run(run_id, status=status, error=clean(error), updated_at=_now())

    def mark_killed(self, run_id: str) -> None:
        """Note that nobody works on the run any more, unless it has ended since; when it was last worked on stays."""
        with self.database.write():
            self.database.execute(
                "UPDATE runs SET status = 'interrupted' WHERE run_id = ? AND status = 'running'", [run_id]
            )

    def relocate(self, run_id: str, settings: Mapping[str, Any], path: str) -> None:
        """Note where the run's data lies now, if that has changed."""
        known = self.run(run_id)
        moved = known.dataset_path not in (None, clean(path)) or known.settings.get("cwd") != settings["cwd"]
        if moved:
            there = {"dataset_path": clean(path)} if known.dataset_path is not None else {}
            self._update_run(run_id, settings=to_json(settings), **there)

    def save_dataset(self, run_id: str, dataset: Dataset) -> None:
        """Note what the run reads; the pairs themselves stay in the user's file."""
        notes = to_json([note.model_dump() for note in dataset.notes])
        self._update_run(
            run_id,
            dataset_path=clean(dataset.path),
            dataset_sha256=dataset.sha256,
            form=dataset.form,
            pairs=len(dataset.pairs),
            quarantined=len(dataset.quarantined),
            notes=notes,
        )

    def save_lens(self, run_id: str, lens: LensSummary) -> None:
        """Note what the run reads through."""
        cells = to_cells(lens)
        self._update_run(run_id, **{name: cells[name] for name in LensSummary.model_fields})

    def save_spec_problems(self, run_id: str, problems: Sequence[str]) -> None:
        """Note what in the spec cannot be checked."""
        self._update_run(run_id, spec_problems=to_json(list(problems)))

    def note_llm_stopped(self, run_id: str, reason: str) -> None:
        """Note why the LLM was asked in vain; the first reason stays."""
        with self.database.write():
            sql = "UPDATE runs SET llm_stopped = ? WHERE run_id = ? AND llm_stopped = ''"
            self.database.db.execute(sql, [reason, run_id])

    def has_run(self, run_id: str) -> bool:
        """Whether the run exists."""
        return bool(self.database.read("SELECT 1 FROM runs WHERE run_id = ?", [run_id]))

    def run(self, run_id: str) -> RunInfo:
        """Return the run; raise StoreError when there is none."""
        rows = self.database.read("SELECT * FROM runs WHERE run_id = ?", [run_id])
        if not rows:
            raise StoreError(f"database {self.path} has no run {run_id!r}")
        return _run_info(rows[0])

    def runs(self) -> tuple[RunInfo, ...]:
        """Return all runs, the newest first."""
        return tuple(
            _run_info(row) for row in self.database.read("SELECT * FROM runs ORDER BY created_at DESC, run_id")
        )

    def find_run(self, start: str) -> str:
        """Return the id of the only run whose id begins with `start`; raise StoreError when it is none or several."""
        found = [info.run_id for info in self.runs() if start and info.run_id.startswith(start)]
        if len(found) != 1:
            seen = "no run" if not found else f"{len(found)} runs"
            elsewhere = "" if found else "; --runs-dir or --db says where other runs are"
            raise StoreError(f"{seen} in {self.path} with an id that begins with {start!r}{elsewhere}")
        return found[0]

    # What the forecast says

    def save_clauses(self, run_id: str, clauses: Iterable[Clause]) -> None:
        """Write the rules of the spec."""
        self._save("clauses", ("run_id", "clause_id"), clauses, run_id=run_id)

    def load_clauses(self, run_id: str) -> tuple[Clause, ...]:
        """Return the rules of the spec in its order."""
        return self._load(Clause, "SELECT * FROM clauses WHERE run_id = ? ORDER BY seq", [run_id])

    def save_concepts(self, run_id: str, concepts: Iterable[Concept]) -> None:
        """Write concepts."""
        self._save("concepts", ("run_id", "concept_id"), concepts, run_id=run_id)

    def load_concepts(self, run_id: str) -> tuple[Concept, ...]:
        """Return the run's concepts."""
        return self._load(Concept, "SELECT * FROM concepts WHERE run_id = ? ORDER BY seq", [run_id])

    def save_forecast(
        self, run_id: str, forecast: Forecast, *, stage: Stage = "before", remaining: Sequence[Finding] = ()
    ) -> None:
        """Write a forecast in place of the one of the same stage and forecaster.

        `remaining`: for stage `after`, the findings that the edited data still give.
        """
        keys = {"run_id": run_id, "stage": stage, "forecaster": forecast.forecaster}
        left = to_json([finding.model_dump() for finding in remaining])
        row = {**keys, "remaining": left, **{name: getattr(forecast, name) for name in _OF_FORECAST}}
        effects = [
            {**keys, "position": position, **to_cells(effect)} for position, effect in enumerate(forecast.concepts)
        ]
        with self.database.write():
            self.database.upsert("forecasts", tuple(keys), [row])
            self.database.db.table("effects").delete_where(
                "run_id = ? AND stage = ? AND forecaster = ?", list(keys.values())
            )
            self.database.upsert("effects", (*keys, "position"), effects)

    def load_forecast(self, run_id: str, stage: Stage = "before", forecaster: str | None = None) -> Forecast | None:
        """Return a forecast (of the run's own forecaster unless another is named); None: it was not made."""
        keys = [run_id, stage, forecaster or self.run(run_id).forecaster]
        where = "WHERE run_id = ? AND stage = ? AND forecaster = ?"
        rows = self.database.read(f"SELECT * FROM forecasts {where}", keys)
        if not rows:
            return None
        effects = self._load(ConceptEffect, f"SELECT * FROM effects {where} ORDER BY position", keys)
        told = {name: rows[0][name] for name in _OF_FORECAST}
        return Forecast(forecaster=rows[0]["forecaster"], **told, concepts=effects)

    def load_remaining(self, run_id: str) -> tuple[Finding, ...]:
        """Return the findings that the edited data still give; empty until the run is done."""
        sql = "SELECT remaining FROM forecasts WHERE run_id = ? AND stage = 'after' AND forecaster = ?"
        rows = self.database.read(sql, [run_id, self.run(run_id).forecaster])
        return tuple(Finding.model_validate(item) for row in rows for item in json.loads(row["remaining"]))

    # Findings and edits

    def save_findings(self, run_id: str, findings: Iterable[Finding]) -> None:
        """Write findings; the outcome of one that is already there stays."""
        self._save("findings", ("run_id", "finding_id"), findings, run_id=run_id)

    def load_findings(self, run_id: str) -> tuple[Finding, ...]:
        """Return the run's findings in the order they were given."""
        return self._load(Finding, "SELECT * FROM findings WHERE run_id = ? ORDER BY seq", [run_id])

    def load_finding(self, run_id: str, finding_id: str) -> Finding:
        """Return one finding; raise StoreError when there is none."""
        sql = "SELECT * FROM findings WHERE run_id = ? AND finding_id = ?"
        found = self._load(Finding, sql, [run_id, finding_id])
        if not found:
            raise StoreError(f"run {run_id} has no finding {finding_id!r}")
        return found[0]

    def save_outcome(self, run_id: str, finding_id: str, outcome: Outcome) -> None:
        """Write how the work on a finding ended."""
        sql = "UPDATE findings SET outcome = ?, outcome_reason = ? WHERE run_id = ? AND finding_id = ?"
        self.database.execute(sql, [outcome.kind, clean(outcome.reason), run_id, finding_id])

    def load_outcomes(self, run_id: str) -> dict[str, Outcome]:
        """Return the outcome of each finding that has one, by finding_id."""
        sql = "SELECT finding_id, outcome, outcome_reason FROM findings WHERE run_id = ? AND outcome IS NOT NULL"
        rows = self.database.read(sql, [run_id])
        return {row["finding_id"]: Outcome(kind=row["outcome"], reason=row["outcome_reason"]) for row in rows}

    def save_clusters(self, run_id: str, finding_id: str, clusters: Sequence[Cluster]) -> None:
        """Write a finding's clusters in place of those it had."""
        keys = {"run_id": run_id, "finding_id": finding_id}
        rows = [{**keys, "position": position, **to_cells(cluster)} for position, cluster in enumerate(clusters)]
        with self.database.write():
            self.database.db.table("clusters").delete_where("run_id = ? AND finding_id = ?", [run_id, finding_id])
            self.database.upsert("clusters", (*keys, "position"), rows)

    def load_clusters(self, run_id: str, finding_id: str) -> tuple[Cluster, ...]:
        """Return a finding's clusters in the order they were given."""
        sql = "SELECT * FROM clusters WHERE run_id = ? AND finding_id = ? ORDER BY position"
        return self._load(Cluster, sql, [run_id, finding_id])

    def save_edits(self, run_id: str, edits: Iterable[Edit], *, attempt: int = 0) -> None:
        """Write proposed edits and the attempt that proposed them."""
        self._save("edits", ("run_id", "edit_id"), edits, run_id=run_id, attempt=attempt)

    def load_edits(self, run_id: str, finding_id: str | None = None) -> tuple[Edit, ...]:
        """Return the run's edits, or those of one finding, in the order they were proposed."""
        sql = "SELECT * FROM edits WHERE run_id = ? AND finding_id = coalesce(?, finding_id) ORDER BY seq"
        return self._load(Edit, sql, [run_id, finding_id])

    def save_verdicts(self, run_id: str, verdicts: Iterable[Verdict]) -> None:
        """Write verdicts, each in place of the edit's former one."""
        self._save("verdicts", ("run_id", "edit_id"), verdicts, run_id=run_id)

    def load_verdicts(self, run_id: str) -> dict[str, Verdict]:
        """Return the verdict of each edit that has one, by edit_id."""
        verdicts = self._load(Verdict, "SELECT * FROM verdicts WHERE run_id = ? ORDER BY seq", [run_id])
        return {verdict.edit_id: verdict for verdict in verdicts}

    def passed_edits(self, run_id: str) -> tuple[Edit, ...]:
        """Return the edits whose verdict passed, in the order they were proposed."""
        verdicts = self.load_verdicts(run_id)
        return tuple(e for e in self.load_edits(run_id) if e.edit_id in verdicts and verdicts[e.edit_id].passed)

    def save_review(self, run_id: str, review: Review) -> None:
        """Append a person's decision; the same one twice is written once."""
        row = {"review_id": content_id(run_id, review.model_dump()), "run_id": run_id, **to_cells(review)}
        with self.database.write():
            self.database.db.table("reviews").insert(row, ignore=True)

    def load_reviews(self, run_id: str) -> dict[str, Review]:
        """Return the last decision on each edit that has one, by edit_id."""
        return {review.edit_id: review for review in self.review_history(run_id)}

    def review_history(self, run_id: str) -> tuple[Review, ...]:
        """Return every decision, the oldest first."""
        return self._load(Review, "SELECT * FROM reviews WHERE run_id = ? ORDER BY seq", [run_id])

    def document(self, run_id: str) -> dict[str, Any]:
        """Return the run's JSON document (see `agent/document.py`)."""
        stages: tuple[Stage, ...] = ("before", "after")
        return build_document(
            info=self.run(run_id),
            clauses=self.load_clauses(run_id),
            concepts=self.load_concepts(run_id),
            forecasts={stage: self.load_forecast(run_id, stage) for stage in stages},
            remaining=self.load_remaining(run_id),
            findings=self.load_findings(run_id),
            outcomes=self.load_outcomes(run_id),
            clusters={f.finding_id: self.load_clusters(run_id, f.finding_id) for f in self.load_findings(run_id)},
            edits=self.load_edits(run_id),
            verdicts=self.load_verdicts(run_id),
            reviews=self.load_reviews(run_id),
            cost=self.load_cost(run_id),
        )

    # What was done and used

    def save_tool_call(self, run_id: str, call: ToolCall) -> None:
        """Write a tool call in place of the one with the same step."""
        row = {"run_id": run_id, **call.model_dump()}
        row |= {"arguments": to_json(call.arguments), "result": to_json(call.result)}
        self.database.upsert("tool_calls", ("run_id", "step"), [row])

    def load_tool_calls(self, run_id: str) -> tuple[ToolCall, ...]:
        """Return the run's tool calls in order."""
        rows = self.database.read("SELECT * FROM tool_calls WHERE run_id = ? ORDER BY step", [run_id])
        return tuple(_tool_call(row) for row in rows)

    def save_llm_call(self, run_id: str, call: LlmCall) -> None:
        """Write a request with its answer and count what it cost, in one transaction; a known one changes nothing."""
        row = {"run_id": run_id, "request_id": call.request.request_id, "at": _now(), **to_cells(call)}
        reply = call.reply
        used = Cost(
            seconds=0.0,
            tokens_encoded=0,
            llm_calls=1,
            llm_tokens=reply.prompt_tokens + reply.completion_tokens,
            llm_seconds=reply.seconds,
            llm_usd=reply.usd or 0.0,
        )
        with self.database.write():
            known = "SELECT 1 FROM llm_calls WHERE run_id = ? AND request_id = ?"
            if self.database.read(known, [run_id, row["request_id"]]):
                return
            self.database.db.table("llm_calls").insert(row)
            if not call.remembered:
                self.spend(run_id, used)

    def find_reply(self, request_id: str, run_id: str, *, only_own: bool = False) -> Reply | None:
        """Return the answer that any run got to a request, or what this one got in its place; None: nothing.

        Refusals and answers without a word may have been the endpoint's trouble of that day. `only_own`: other runs'
        answers do not count.
        """
        asked = "SELECT * FROM llm_calls WHERE request_id = ?"
        own = self._load(LlmCall, f"{asked} AND run_id = ?", [request_id, run_id])
        others = () if own or only_own else self._load(LlmCall, asked, [request_id])
        calls = own or [call for call in others if not call.reply.refused and call.reply.says_something]
        return calls[0].reply if calls else None

    def load_llm_calls(self, run_id: str) -> tuple[LlmCall, ...]:
        """Return the run's requests to the LLM, the oldest first."""
        return self._load(LlmCall, "SELECT * FROM llm_calls WHERE run_id = ? ORDER BY seq", [run_id])

    def spend(self, run_id: str, cost: Cost) -> None:
        """Add `cost` to what the run has used."""
        values = cost.model_dump()
        names, marks = ", ".join(values), ", ".join("?" for _ in values)
        added = ", ".join(f"{name} = {name} + excluded.{name}" for name in values)
        sql = f"INSERT INTO spending (run_id, {names}) VALUES (?, {marks}) ON CONFLICT (run_id) DO UPDATE SET {added}"
        self.database.execute(sql, [run_id, *values.values()])

    def load_cost(self, run_id: str) -> Cost:
        """Return what the run has used, over all its attempts."""
        rows = self.database.read(f"SELECT {', '.join(Cost.model_fields)} FROM spending WHERE run_id = ?", [run_id])
        return Cost(**rows[0]) if rows else Cost(seconds=0.0, tokens_encoded=0, llm_calls=0, llm_tokens=0)

    # How forecasts have done

    def save_validation(self, document: Mapping[str, Any]) -> None:
        """Append the document of a validation; one with the same figures is written once."""
        sha256, text = document["dataset"]["sha256"], to_json(document)
        row = {"validation_id": content_id("validation", text), "at": _now()}
        with self.database.write():
            table = self.database.db.table("validations")
            table.insert({**row, "dataset_sha256": sha256, "document": text}, ignore=True)

    def validations(self) -> tuple[dict[str, Any], ...]:
        """Return the documents of all validations, the oldest first."""
        rows = self.database.read("SELECT document FROM validations ORDER BY seq")
        return tuple(json.loads(row["document"]) for row in rows)

    def _save(self, table: str, keys: tuple[str, ...], records: Iterable[Record], **same: Cell) -> None:
        self.database.upsert(table, keys, [{**same, **to_cells(record)} for record in records])

    def _load(self, kind: type[R], sql: str, parameters: Sequence[Any]) -> tuple[R, ...]:
        return tuple(from_cells(kind, row) for row in self.database.read(sql, parameters))

    def _update_run(self, run_id: str, **cells: Cell) -> None:
        with self.database.write():
            self.database.db.table("runs").update(run_id, cells)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _run_info(row: Mapping[str, Any]) -> RunInfo:
    nested = {name: json.loads(row[name]) for name in ("settings", "notes", "spec_problems")}
    return RunInfo(**{**row, **nested})


def _tool_call(row: Mapping[str, Any]) -> ToolCall:
    values = {name: row[name] for name in ToolCall.model_fields}
    return ToolCall(**{**values, "arguments": json.loads(row["arguments"]), "result": json.loads(row["result"])})
