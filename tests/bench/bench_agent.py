"""Is the LLM agent worth its tokens? `make bench-agent PAIRS=FOLDER LLM=MODEL`

FOLDER holds alpacaeval.jsonl, pandalm.jsonl and hh-harmless.jsonl; MODEL is served at OPENAI_BASE_URL. On each set of
`agent_data.py` four methods look for what was planted and propose edits: the built-in planner, the LLM agent, and two
that have an LLM and no interpretability tools, with as many tokens as the agent used there. `sampled` reads sampled
pairs, `keyword` has search words named for each rule and reads the pairs where one stands in one response only; both
drop what they flag. Each measurement is one file of `results/agent/`; what is there is not measured again, and an
interrupted one goes on, as every answer is kept in the work folder. Some hours with a small LLM on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from agent_baselines import READERS, Flags, drop
from agent_data import LABELS, Made, effect, granted, make
from agent_plants import Wish
from measured import measured as measured_with
from skill_data import write

from premortem.agent.asking import Asker
from premortem.agent.chat import Carrier
from premortem.agent.ledger import Budget, Ledger
from premortem.agent.llm import Endpoint
from premortem.agent.spec import parse_spec
from premortem.agent.store import Store
from premortem.interp.edits import apply_edits
from premortem.interp.errors import LlmStopped
from premortem.interp.records import Cost, Edit, Pair

RESULTS = Path(__file__).parent / "results" / "agent"
METHODS = ("built-in", "agent", "sampled", "keyword")
"""In the order in which they are measured: the last two need what the agent used."""
CALLS = 45
"""Requests of the agent, at most."""
TIMEOUT = 600
"""Seconds that one answer may take."""
FOUND = 0.5
"""Precision and recall from which a planted behaviour counts as found."""
LIBRARIES = ("openai", "rapidfuzz")
"""Whose versions are told beside the usual ones."""


class Found(NamedTuple):
    """What a method reports as one thing: a finding, or a rule with the rows flagged for it."""

    kind: str
    """`forbidden`, `missing` or `surprise`."""
    rows: frozenset[int]
    rule: str | None = None
    """The rule that it is about."""


class Measured(NamedTuple):
    """What a method did."""

    found: Sequence[Found]
    proposed: int
    accepted: Sequence[Edit]
    cost: Cost
    told: dict[str, Any]
    """What only this method can tell."""


# The two that use the tools


def run_agent(folder: Path, database: str, llm: str, calls: int) -> Measured:
    """Run `agent run` on the set in `folder`, or go on with it; `llm` may be `built-in`."""
    command = [sys.executable, "-m", "premortem.agent", "run", "--spec", f"{folder / 'spec.md'}"]
    command += ["--data", f"{folder / 'pairs.jsonl'}", "--llm", llm, "--max-llm-calls", f"{calls}"]
    command += ["--llm-timeout", f"{TIMEOUT}", "--runs-dir", f"{folder / database}", "--json"]
    command += ["--db", f"{folder / database}.db"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return read_document(json.loads(done.stdout))


def read_document(document: dict[str, Any]) -> Measured:
    """Return what a run's document says."""
    edits = [
        (Edit.model_validate({k: v for k, v in edit.items() if k not in ("review", "verdict")}), edit["verdict"])
        for edit in document["edits"]
    ]
    rules = {clause["clause_id"]: clause["text"] for clause in document["clauses"]}
    found = [
        Found(finding["kind"], frozenset(finding["rows"]), rules.get(finding["clause_id"]))
        for finding in document["findings"]
    ]
    accepted = [edit for edit, verdict in edits if verdict is not None and verdict["passed"]]
    told = {"clauses": len(document["clauses"]), "spec_problems": len(document["spec_problems"])}
    return Measured(found, len(edits), accepted, Cost.model_validate(document["cost"]), told)


# The two that have none


def run_baseline(
    made: Made, method: str, folder: Path, carrier: Carrier, model: str, tokens: int, seed: int = 0
) -> Measured:
    """Let the LLM read pairs until `tokens` are used or nothing is left to read; what it flags is dropped."""
    clauses = parse_spec(made.spec).clauses
    run_id, flags, started = f"{made.label}.{method}", Flags(), time.monotonic()
    with Store(folder / f"{method}.db") as store:
        store.begin_run(run_id, spec=made.spec, settings={"tokens": tokens}, forecaster="none")
        asker = Asker(Ledger(store, run_id, carrier, Budget(calls=None, tokens=tokens)), model)
        try:
            with suppress(LlmStopped):
                READERS[method](made, clauses, asker, flags, random.Random(seed))
        finally:
            store.spend(run_id, Cost(seconds=time.monotonic() - started, tokens_encoded=0, llm_calls=0, llm_tokens=0))
        cost = store.load_cost(run_id)
    found = [Found("forbidden", frozenset(rows), clauses[n - 1].text) for n, rows in sorted(flags.rows.items())]
    drops = [drop(made.pairs[row]) for row in sorted(set().union(*flags.rows.values()))]
    told = {"rules": len(clauses), "pairs_read": len(flags.read), "unusable": flags.unusable}
    return Measured(found, len(drops), drops, cost, told)


# What it comes to


def score(made: Made, measured: Measured) -> dict[str, Any]:
    """Return the figures of one measurement."""
    after = apply_edits(made.pairs, measured.accepted)
    wished = {wish.rule for wish in made.wishes}
    others = [one for one in measured.found if not (one.kind == "missing" and one.rule in wished)]
    beside = [one for one in others if all(_share(one.rows & {*t.rows}, one.rows) < FOUND for t in made.truths)]
    cost, accepted = measured.cost, len(measured.accepted)
    return {
        "pairs": len(made.pairs),
        "plants": [plant_score(made, at, measured.found, after) for at in range(len(made.truths))],
        "wishes": [wish_score(made, wish, measured, after) for wish in made.wishes],
        "findings": _kinds(measured.found),
        "false_alarms": _kinds(beside),
        "edits": {
            "proposed": measured.proposed,
            "accepted": accepted,
            "by_llm": sum(edit.author != "built-in" for edit in measured.accepted),
        },
        "cost": {
            "llm_calls": cost.llm_calls,
            "llm_tokens": cost.llm_tokens,
            "llm_seconds": round(cost.llm_seconds, 1),
            "seconds": round(cost.seconds, 1),
            "tokens_per_edit": round(cost.llm_tokens / accepted, 1) if accepted else None,
            "seconds_per_edit": round(cost.seconds / accepted, 2) if accepted else None,
        },
        "told": measured.told,
    }


def plant_score(made: Made, at: int, found: Sequence[Found], after: Sequence[Pair]) -> dict[str, Any]:
    """Return how well the best report fits a planted behaviour, and what is left of the behaviour."""
    truth = made.truths[at]
    own, p, r = best(found, frozenset(truth.rows))
    return {
        "name": truth.name,
        "side": truth.side,
        "where": truth.where,
        "ruled": truth.ruled,
        "rows": len(truth.rows),
        "kind": own and own.kind,
        "precision": round(p, 3),
        "recall": round(r, 3),
        "found": p >= FOUND and r >= FOUND,
        "effect_before": round(effect(made.pairs, truth.marks), 4),
        "effect_after": round(effect(after, truth.marks), 4),
    }


def wish_score(made: Made, wish: Wish, measured: Measured, after: Sequence[Pair]) -> dict[str, Any]:
    """Return whether it was told that the data lack what is asked for, and how much the edited data show of it."""
    new = [edit for edit in measured.accepted if edit.pair is not None and granted([edit.pair], wish) > 0]
    return {
        "name": wish.name,
        "told": any(one.kind == "missing" and one.rule == wish.rule for one in measured.found),
        "new_pairs": len(new),
        "by_llm": sum(edit.author != "built-in" for edit in new),
        "before": round(granted(made.pairs, wish), 4),
        "after": round(granted(after, wish), 4),
    }


def best(found: Iterable[Found], truth: frozenset[int]) -> tuple[Found | None, float, float]:
    """Return the report that fits `truth` best (largest F1), with precision and recall of its rows."""
    rated = [(one, _share(one.rows & truth, one.rows), _share(one.rows & truth, truth)) for one in found]
    rated = [one for one in rated if one[1] > 0]
    return max(rated, key=lambda one: one[1] * one[2] / (one[1] + one[2]), default=(None, 0.0, 0.0))


def _share(part: frozenset[int], whole: frozenset[int]) -> float:
    return len(part) / len(whole) if whole else 0.0


def _kinds(found: Iterable[Found]) -> dict[str, int]:
    kinds = [one.kind for one in found]
    return {kind: kinds.count(kind) for kind in ("forbidden", "missing", "surprise")}


# The whole


def measure(made: Made, method: str, work: Path, llm: str | None, calls: int) -> dict[str, Any]:
    """Measure one method on one set."""
    folder = work / made.label
    folder.mkdir(parents=True, exist_ok=True)
    write(made.pairs, folder / "pairs.jsonl")
    (folder / "spec.md").write_text(made.spec, "utf-8")
    if method in ("sampled", "keyword"):
        tokens = json.loads(_result(made.label, "agent").read_text("utf-8"))["cost"]["llm_tokens"]
        measured = run_baseline(made, method, folder, Endpoint(timeout=TIMEOUT), str(llm), tokens)
    else:
        run_agent(folder, "warm", "built-in", 0)  # so that both find the cache filled
        measured = run_agent(folder, method, llm if llm and method == "agent" else "built-in", calls)
    model = Path(llm).name if llm and method != "built-in" else None
    told = {"dataset": made.label, "method": method, "model": model}
    return {**told, **score(made, measured), "measured": measured_with(*LIBRARIES)}


def _result(label: str, method: str) -> Path:
    return RESULTS / f"{label}.{method}.json"


def main() -> None:
    """Measure what has no file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the files of pairs")
    parser.add_argument("--llm", help="the LLM's name at OPENAI_BASE_URL; only `built-in` needs none")
    parser.add_argument("--only", action="append", choices=LABELS, help="only this set; may be repeated")
    parser.add_argument("--method", action="append", choices=METHODS, help="only this method; may be repeated")
    parser.add_argument("--work", type=Path, default=Path("build/bench-agent"), help="folder for sets and databases")
    parser.add_argument("--calls", type=int, default=CALLS, help="requests of the agent, at most")
    arguments = parser.parse_args()
    methods = [method for method in METHODS if method in (arguments.method or METHODS)]
    if arguments.llm is None and methods != ["built-in"]:
        parser.error("give --llm, or --method built-in")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for label in arguments.only or LABELS:
        missing = [method for method in methods if not _result(label, method).exists()]
        made = make(label, arguments.pairs) if missing else None
        for method in missing:
            result = measure(made, method, arguments.work, arguments.llm, arguments.calls)  # type: ignore[arg-type]
            _result(label, method).write_text(json.dumps(result, indent=1) + "\n", "utf-8")
            print(f"{label}, {method}: {result['cost']['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
