"""A small finished run as `agent show --json` prints it, for tests of what people look at."""

from __future__ import annotations

from typing import Any

from premortem.interp.records import Pair

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp.exe\u2066 </script>\x1b[2J & \"'`"


def pairs(hostile: str = "") -> dict[int, Pair]:
    """Return four pairs by row; `hostile` is worked into every text."""
    return {
        row: Pair(
            row=row,
            prompt=f"What should I plant in spring? ({row}) {hostile}",
            chosen=f"Plant peas first. Ahoy, my dear sailor! Then sow carrots and radishes. {hostile}",
            rejected=f"Plant peas first. Then sow carrots and radishes. {hostile}",
        )
        for row in range(4)
    }


def verdict(passed: bool = True, **changes: Any) -> dict[str, Any]:
    """Return a verdict that took an effect from 0.5 to 0.01."""
    reasons = ["the target is inside its limit"] if passed else ["the text no longer answers its prompt"]
    base = {
        "passed": passed,
        "effect_before": 0.5,
        "effect_after": 0.01,
        "control_after": 0.48,
        "collateral": [],
        "second_lens": 0.02,
        "reasons": reasons,
    }
    return {**base, **changes}


def edit(number: int, row: int, passed: bool = True, hostile: str = "", **changes: Any) -> dict[str, Any]:
    """Return a rewrite of the chosen side of `row`."""
    base = {
        "edit_id": f"e{number:015d}",
        "finding_id": "f000000000000001",
        "row": row,
        "kind": "rewrite",
        "side": "chosen",
        "before": f"Plant peas first. Ahoy, my dear sailor! Then sow carrots and radishes. {hostile}",
        "after": f"Plant peas first. Then sow carrots and radishes. {hostile}",
        "author": "built-in",
        "rationale": f"Takes out the sentence where the concept fires. {hostile}",
        "pair": None,
        "review": None,
        "verdict": verdict(passed),
    }
    return {**base, **changes}


def concept(number: int, effect: float, name: str, says: str = "amplified") -> dict[str, Any]:
    """Return one effect of a forecast."""
    return {
        "concept_id": f"c{number:015d}",
        "name": name,
        "name_tested": number != 3,
        "name_score": 0.52 if number == 3 else 0.876,
        "features": [number],
        "topic": None,
        "effect": effect,
        "low": effect - 0.08,
        "high": effect + 0.08,
        "verdict": says,
        "split_half": effect * 0.9,
        "rows": [2, 0, 1],
        "q": 0.001,
        "length_controlled": effect,
    }


def document(hostile: str = "") -> dict[str, Any]:
    """Return a run with one forbidden finding, one surprise and three edits; `hostile` is worked into every text."""
    forecast = {
        "forecaster": "disparity",
        "n_pairs": 4,
        "concepts": [
            concept(1, 0.5, f"ahoy, sailor {hostile}"),
            concept(2, -0.3, "sorry, cannot", "suppressed"),
            concept(3, 0.05, "carrots", "cannot_tell"),
        ],
    }
    finding = {
        "finding_id": "f000000000000001",
        "clause_id": "k000000000000001",
        "concept_id": "c000000000000001",
        "kind": "forbidden",
        "name": f"ahoy, sailor {hostile}",
        "topic": None,
        "effect": 0.5,
        "low": 0.42,
        "high": 0.58,
        "rows": [2, 0, 1],
        "start_rate": 0.0,
        "note": f"only in garden answers {hostile}",
        "outcome": "fixed",
        "outcome_reason": "2 edits passed together",
    }
    surprise = {**finding, "finding_id": "f000000000000002", "clause_id": None, "kind": "surprise"}
    surprise |= {"concept_id": "c000000000000002", "name": "sorry, cannot", "effect": -0.3, "low": -0.38, "high": -0.22}
    cluster = {"finding_id": "f000000000000001", "cluster_id": "g1", "concept_id": "c000000000000001"}
    return {
        "run_id": "a1b2c3d4e5f60718",
        "status": "done",
        "error": "",
        "dataset": {
            "path": f"pairs.jsonl {hostile}".strip(),
            "pairs": 4,
            "quarantined": 1,
            "sha256": "00" * 32,
            "form": "standard",
            "notes": [{"kind": "duplicate", "rows": [1, 3], "text": f"Two pairs say the same. {hostile}"}],
        },
        "lens": {"model": "smollm2", "hook": "model.layers.9", "sae": "main", "fvu": 0.183, "l0": 47.2},
        "spec_problems": [],
        "clauses": [
            {
                "clause_id": "k000000000000001",
                "text": f"Never talk like a sailor. {hostile}",
                "direction": "avoid",
                "scope": "",
                "limit": 0.02,
                "concept_ids": ["c000000000000001"],
            },
            {
                "clause_id": "k000000000000002",
                "text": "Always answer in whole sentences.",
                "direction": "encourage",
                "scope": "in long answers",
                "limit": 0.02,
                "concept_ids": [],
            },
        ],
        "forecast": forecast,
        "forecast_after": {**forecast, "findings": [surprise]},
        "findings": [finding, surprise],
        "clusters": [
            {**cluster, "name": f"garden: ahoy {hostile}", "rows": [2, 0, 1], "contribution": [0.2, 0.2, 0.1]}
        ],
        "edits": [
            edit(1, 2, hostile=hostile),
            edit(2, 0, hostile=hostile),
            edit(3, 1, passed=False, hostile=hostile),
        ],
        "cost": {"seconds": 12.5, "tokens_encoded": 4096, "llm_calls": 0, "llm_tokens": 0},
    }
