"""The JSON document of a run: what `--json` prints, and what terminal, review and report are drawn from.

One flat document, lists beside each other, joined by ids. What a run has not reached yet is null or an empty list,
never a missing key, so that a script may read a document of any status. Nothing here knows about the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from premortem.agent.journal import Outcome, RunInfo, Stage
from premortem.interp.records import Clause, Cluster, Concept, Cost, Edit, Finding, Forecast, Review, Verdict

Json = dict[str, Any]


def build_document(
    *,
    info: RunInfo,
    clauses: Iterable[Clause],
    concepts: Iterable[Concept],
    forecasts: Mapping[Stage, Forecast | None],
    remaining: Iterable[Finding],
    findings: Iterable[Finding],
    outcomes: Mapping[str, Outcome],
    clusters: Mapping[str, Iterable[Cluster]],
    edits: Iterable[Edit],
    verdicts: Mapping[str, Verdict],
    reviews: Mapping[str, Review],
    cost: Cost,
) -> Json:
    """Return the document; mappings are keyed by finding_id (outcomes, clusters) and edit_id (verdicts, reviews)."""
    name_scores = {concept.concept_id: concept.name_score for concept in concepts}
    return {
        "run_id": info.run_id,
        "status": info.status,
        "error": info.error,
        "dataset": _dataset(info),
        "lens": {name: getattr(info, name) for name in ("model", "hook", "sae", "fvu", "l0")},
        "spec_problems": list(info.spec_problems),
        "llm_stopped": info.llm_stopped,
        "clauses": [clause.model_dump(mode="json") for clause in clauses],
        "forecast": _forecast(info, forecasts.get("before"), name_scores),
        "forecast_after": {
            **_forecast(info, forecasts.get("after"), name_scores),
            "findings": [finding.model_dump(mode="json") for finding in remaining],
        },
        "findings": [
            _finding(finding, outcomes.get(finding.finding_id))
            for finding in findings
            if _is_of(finding, forecasts.get("before"))
        ],
        "clusters": [
            {"finding_id": finding_id, **cluster.model_dump(mode="json")}
            for finding_id, found in clusters.items()
            for cluster in found
        ],
        "edits": [_edit(edit, verdicts.get(edit.edit_id), reviews.get(edit.edit_id)) for edit in edits],
        "cost": cost.model_dump(mode="json"),
    }


def _dataset(info: RunInfo) -> Json:
    return {
        "path": info.dataset_path,
        "pairs": info.pairs,
        "quarantined": info.quarantined,
        "sha256": info.dataset_sha256,
        "form": info.form,
        "notes": list(info.notes),
    }


def _forecast(info: RunInfo, forecast: Forecast | None, name_scores: Mapping[str, float]) -> Json:
    """Return a forecast with each concept's `Concept.name_score`; null where the run has not stored the concept."""
    if forecast is None:
        return {"forecaster": info.forecaster, "n_pairs": None, "concepts": []}
    effects = [
        {**effect.model_dump(mode="json"), "name_score": name_scores.get(effect.concept_id)}
        for effect in forecast.concepts
    ]
    return {**forecast.model_dump(mode="json"), "concepts": effects}


def _is_of(finding: Finding, forecast: Forecast | None) -> bool:
    """Whether a finding is of this forecast; one of an earlier reading is kept for its reviewed edits alone.

    What is known by its words has no effect in any forecast.
    """
    if forecast is None or finding.kind == "injection":
        return True
    return any(effect.concept_id == finding.concept_id for effect in forecast.concepts)


def _finding(finding: Finding, outcome: Outcome | None) -> Json:
    ended = {"outcome": outcome.kind, "outcome_reason": outcome.reason} if outcome else {}
    return {**finding.model_dump(mode="json"), "outcome": None, "outcome_reason": "", **ended}


def _edit(edit: Edit, verdict: Verdict | None, review: Review | None) -> Json:
    return {**edit.model_dump(mode="json"), "review": _nested(review), "verdict": _nested(verdict)}


def _nested(record: Review | Verdict | None) -> Json | None:
    return record.model_dump(mode="json", exclude={"edit_id"}) if record else None
