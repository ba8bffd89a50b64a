"""A run's document, read as its findings: the one join that the terminal, the review and the report all need.

`Store.document(run_id)` is a plain JSON document in which findings, clauses, concepts and edits stand in separate
lists. `finding_views` puts beside each finding the rule it breaks, its interval, its clusters and its edits;
`headline` says in one sentence how the run ended; `broken_rules` is what `--fail-on violation` asks.

Nothing here knows about colours, HTML or the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from premortem.agent.diff import excerpt

Document = Mapping[str, Any]
"""The JSON document of one run."""

KIND_MEANING = {
    "forbidden": "the spec forbids it, the data teaches it",
    "missing": "the spec asks for it, the data does not teach it",
    "surprise": "the spec never mentions it, the data would strongly teach it",
    "injection": "text that addresses whoever audits the data",
}
AT_WORK = "the run is at work; `agent show` tells how far it is"
"""What is said of a run that another process is at."""
LOST = {
    "keep": "the spec wants to keep it, the data takes it away",
    "encourage": "the spec asks for it, the data takes it away",
}
"""What `forbidden` means where the rule wants something to be there, by its direction."""


@dataclass(frozen=True)
class FindingView:
    """One finding with everything a reader wants beside it."""

    finding_id: str
    """Id of the finding."""
    kind: str
    """`forbidden`, `missing`, `surprise` or `injection`."""
    name: str
    """The concept's name."""
    name_score: float | None
    """See `Concept.name_score`; None: no concept of the forecast bears the name."""
    topic: str
    """The topic it is confined to; empty: everywhere."""
    rule: str
    """The clause in the user's words; empty for a surprise."""
    direction: str
    """What the clause wants: `avoid`, `encourage` or `keep`; empty for a surprise."""
    limit: float | None
    """The tolerated effect, or the least rise that is asked for; None for a surprise."""
    effect: float
    """Forecast change in the share of responses, -1 to 1; within the topic, if it is confined to one."""
    overall: float | None
    """The same over all pairs, for a finding that is confined to a topic; else None."""
    low: float
    """Lower end of the 90% interval."""
    high: float
    """Upper end of the 90% interval."""
    rows: tuple[int, ...]
    """The rows held responsible, most responsible first."""
    note: str
    """A warning for the reader, or empty."""
    start_rate: float | None
    """Share of the start model's own samples that show the behaviour already; None: not measured."""
    edits: tuple[Document, ...]
    """Its edits as the document gives them."""
    clusters: tuple[Document, ...]
    """Its clusters, the largest first."""
    outcome: str
    """`fixed`, `unfixed`, `reported`; empty: the run has not reached it."""
    outcome_reason: str
    """Why it ended so."""

    @property
    def passed(self) -> int:
        """Number of its edits whose verdict passed."""
        return sum(edit_passed(edit) for edit in self.edits)

    @property
    def meaning(self) -> str:
        """What its kind means, in a sentence."""
        usual = KIND_MEANING.get(self.kind, "")
        return LOST.get(self.direction, usual) if self.kind == "forbidden" else usual

    @property
    def title(self) -> str:
        """Name and topic in one line."""
        return _in_topic(self.name, self.topic)

    @property
    def label(self) -> str:
        """What a reader recognises it by: the rule in their own words, or the name of a surprise; and its topic."""
        return _in_topic(self.rule, self.topic) if self.rule else self.title

    @property
    def verdict(self) -> Document | None:
        """The verdict that its edits are told by: the first that passed, else the last one; None: none was judged."""
        judged = [edit["verdict"] for edit in self.edits if edit.get("verdict")]
        return next((verdict for verdict in judged if verdict["passed"]), judged[-1] if judged else None)


def edit_passed(edit: Document) -> bool:
    """Return whether the edit has a verdict and it passed."""
    return bool((edit.get("verdict") or {}).get("passed"))


def edit_decision(edit: Document) -> str | None:
    """Return a person's latest decision on the edit, or None."""
    decision = (edit.get("review") or {}).get("decision")
    return str(decision) if decision else None


def finding_views(document: Document) -> list[FindingView]:
    """Return a run's findings, forbidden before missing before surprising, each with its rule, clusters and edits."""
    clauses = {clause["clause_id"]: clause for clause in document.get("clauses", ())}
    views = [_view(document, found, clauses.get(found.get("clause_id"))) for found in document.get("findings", ())]
    return sorted(views, key=lambda view: (list(KIND_MEANING).index(view.kind), -abs(view.effect)))


def _view(document: Document, finding: Document, clause: Document | None) -> FindingView:
    concept = _concept(document, finding)
    rejected = _rejected(document, finding["finding_id"])
    since = f"; {rejected} of its edits were rejected since, which no forecast knows" if rejected else ""
    effect = float(finding["effect"])
    return FindingView(
        finding_id=finding["finding_id"],
        kind=finding["kind"],
        name=str(_first("name", finding, concept, default=finding["concept_id"])),
        name_score=concept.get("name_score"),
        topic=str(_first("topic", finding, concept, default="")),
        rule=str(clause["text"]) if clause else "",
        direction=str(clause["direction"]) if clause else "",
        limit=float(clause["limit"]) if clause else None,
        effect=effect,
        overall=finding.get("overall"),
        low=float(_first("low", finding, concept, default=effect)),
        high=float(_first("high", finding, concept, default=effect)),
        rows=tuple(finding.get("rows", ())),
        note=str(finding.get("note") or ""),
        start_rate=finding.get("start_rate"),
        edits=_of_finding(document, "edits", "finding_id", finding["finding_id"]),
        clusters=_of_finding(document, "clusters", "finding_id", finding["finding_id"]),
        outcome="unfixed" if rejected else str(finding.get("outcome") or ""),
        outcome_reason=str(finding.get("outcome_reason") or "") + since,
    )


def _concept(document: Document, finding: Document) -> Document:
    concepts = document.get("forecast", {}).get("concepts", ())
    same = [c for c in concepts if c["concept_id"] == finding["concept_id"]]
    exact = [c for c in same if c.get("topic") == finding.get("topic")]
    return (exact or same or [{}])[0]


def _first(key: str, *sources: Document, default: object) -> Any:
    return next((source[key] for source in sources if source.get(key) is not None), default)


def _of_finding(document: Document, part: str, key: str, value: str) -> tuple[Document, ...]:
    return tuple(item for item in document.get(part, ()) if item.get(key) == value)


def broken_rules(document: Document, *, after: bool) -> list[str]:
    """Return the rules that the forecast breaks, on the data as it is or `after` the edits that passed.

    A rule stays broken where a person has since rejected an edit that passed for it: no forecast knows the data so.
    """
    changed = document.get("forecast_after") or {}
    if not after or changed.get("n_pairs") is None:
        return _broken(document, document.get("findings", ()))
    undone = [finding for finding in document.get("findings", ()) if _rejected(document, finding["finding_id"])]
    return _broken(document, [*changed.get("findings", ()), *undone])


def _rejected(document: Document, finding_id: str) -> int:
    """Return how many edits that passed for a finding a person has rejected since."""
    own = _of_finding(document, "edits", "finding_id", finding_id)
    return sum(edit_passed(edit) and edit_decision(edit) == "reject" for edit in own)


def _broken(document: Document, findings: Sequence[Document]) -> list[str]:
    """Return the rules that `findings` break, each once."""
    rules = {clause["clause_id"]: str(clause["text"]) for clause in document.get("clauses", ())}
    broken = (finding for finding in findings if finding["kind"] in ("forbidden", "missing"))
    return list(dict.fromkeys(str(rules.get(finding["clause_id"], finding["name"])) for finding in broken))


def newly_broken(document: Document) -> list[str]:
    """Return the rules that the forecast breaks with the edits that passed, and keeps on the data as it is.

    A rule may be as far from kept on the data as it is without a finding of its own: where that is not certain, or
    another finding holds the rows.
    """
    before, found = broken_rules(document, after=False), (document.get("forecast_after") or {}).get("findings", ())
    clauses = {clause["clause_id"]: clause for clause in document.get("clauses", ())}
    further = [finding for finding in found if _is_further(document, finding, clauses)]
    return [rule for rule in _broken(document, further) if rule not in before]


def _is_further(document: Document, finding: Document, clauses: Mapping[str, Document]) -> bool:
    """Whether a finding on the edited data goes further against its rule than its concept on the data as it is."""
    clause = clauses.get(finding["clause_id"])
    effects = document.get("forecast", {}).get("concepts", ())
    was = [one for one in effects if (one["concept_id"], one["topic"]) == (finding["concept_id"], finding["topic"])]
    if clause is None or not was:
        return True
    return _against(finding["effect"], clause) > _against(was[0]["effect"], clause)


def _against(effect: float, clause: Document) -> float:
    """Return how far an effect goes against a rule."""
    return effect if clause["direction"] == "avoid" else -effect


def clause_state(document: Document, clause: Document) -> str:
    """Return what becomes of a rule: `broken`, `kept`, `uncovered` where no concept stands for it, or `beyond`.

    `beyond`: an effect over all pairs is beyond its limit and makes no finding of its own.
    """
    if not clause.get("concept_ids"):
        return "uncovered"
    if any(finding.get("clause_id") == clause["clause_id"] for finding in document.get("findings", ())):
        return "broken"
    effects = (one for one in document.get("forecast", {}).get("concepts", ()) if one["topic"] is None)
    own = (one["effect"] for one in effects if one["concept_id"] in clause["concept_ids"])
    return "beyond" if any(_against(effect, clause) > clause["limit"] for effect in own) else "kept"


def uncovered(document: Document) -> list[Document]:
    """Return the clauses that no concept of this dataset covers."""
    return [clause for clause in document.get("clauses", ()) if not clause.get("concept_ids")]


def headline(document: Document) -> str:
    """Return in one sentence what DPO on the data would do, measured against the spec."""
    kinds = Counter(finding["kind"] for finding in document.get("findings", ()) if finding["kind"] != "injection")
    pairs = document["dataset"]["pairs"]
    if not has_forecast(document):
        status, why = document.get("status"), document.get("error") or "the same command goes on with it"
        return f"No forecast yet, {AT_WORK if status == 'running' else f'the run is {status}: {why}'}."
    if not kinds:
        nothing = f"Nothing in these {pairs} pairs would teach what the spec forbids, as far as this lens can see."
        return nothing + _aside(document)
    wanted = {clause["clause_id"] for clause in document.get("clauses", ()) if clause["direction"] in LOST}
    lost = sum(f["kind"] == "forbidden" and f["clause_id"] in wanted for f in document["findings"])
    taught = [
        _count(kinds["forbidden"] - lost, "thing", "that the spec forbids"),
        _count(kinds["surprise"], "thing", f"that {'it' if kinds['forbidden'] > lost else 'the spec'} never mentions"),
    ]
    does = [
        ("would teach", " and ".join(filter(None, taught))),
        ("would take away", _count(lost, "thing", "that the spec wants to keep")),
        ("would not teach", _count(kinds["missing"], "thing", "that the spec asks for")),
    ]
    told = [f"{verb} {what}" for verb, what in does if what]
    return f"DPO on these {pairs} pairs {_in_a_row(told)}.{_aside(document)}"


def _in_a_row(parts: Sequence[str]) -> str:
    return ", and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _aside(document: Document) -> str:
    """Return how many pairs address their reader, as a further sentence."""
    rows = {row for f in document.get("findings", ()) if f["kind"] == "injection" for row in f["rows"]}
    whose = "pair holds" if len(rows) == 1 else "pairs hold"
    return f" {len(rows)} {whose} text that addresses whoever audits the data." if rows else ""


def _count(number: int, noun: str, rest: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''} {rest}" if number else ""


def lens_name(sae: str) -> str:
    """Return how to call an SAE: the folder's name for a path, else the reference itself."""
    return PurePath(sae).name if PurePath(sae).is_absolute() else sae


def points(value: float | None, unit: str = "responses") -> str:
    """Return an effect as signed percentage points: 0.123 -> `+12.3`; of tokens with one more digit."""
    return "–" if value is None else f"{100 * value:+.{2 if unit == 'tokens' else 1}f}"


UNTESTED = " ?"
"""Behind a concept's name that failed its test on held-out contexts."""


def concept_title(concept: Document) -> str:
    """Return a concept's name, with the topic that its effect is confined to."""
    return _in_topic(str(concept["name"]), concept.get("topic"))


def told_title(concept: Document, limit: int) -> str:
    """Return a concept's title, cut to `limit` characters, with a mark where its name failed its test."""
    return excerpt(concept_title(concept), limit) + ("" if concept["name_tested"] else UNTESTED)


def _in_topic(name: str, topic: str | None) -> str:
    return f"{name} · in {topic}" if topic else name


def has_forecast(document: Document) -> bool:
    """Whether the run has come as far as its forecast."""
    return document.get("forecast", {}).get("n_pairs") is not None


LEAST_RELIABLE = 0.5
"""Reliability of a forecast below which a warning goes with it: three such forecasts explained 22 to 52% of what was
within reach, against 81% on the median of eleven runs."""


def unreliable(reliability: float) -> str:
    """Return the warning for a forecast whose pairs hardly agree among themselves."""
    return (
        f"the halves of these pairs hardly agree ({reliability:.2f} of 1): others of their kind would teach other "
        "groups; three such forecasts explained 22 to 52% of what was within reach, the median of eleven 81%"
    )


ONE_SIDED = 0.95
"""Share of pairs told apart from which shifts stayed behind the forecast: at 99% they were 0.5 to 0.7 of it."""

LEAST_AGREEMENT = 0.1
"""Agreement of a forecast's parts below which a warning goes with it: four such runs, from -0.64 to -0.09, explained
7 to 52% of what was within reach, thirteen others, from 0.31 to 0.89, explained 60 to 92%. Set on these very runs."""


def doubts(forecast: Document) -> list[str]:
    """Return the warnings that a forecast carries."""
    agree, apart = forecast.get("reliability"), forecast.get("told_apart")
    found = [unreliable(agree)] if agree is not None and agree < LEAST_RELIABLE else []
    if apart is not None and apart >= ONE_SIDED:
        found.append(
            f"the sides of {apart:.0%} of the pairs can be told apart: so consistent a preference is soon learnt, and "
            "shifts are likely to stay behind the effects on groups of features told here"
        )
    parts = forecast.get("parts_agree")
    if parts is not None and parts < LEAST_AGREEMENT:
        found.append(
            f"the forecast's two parts point in different directions ({parts:.2f}): four such runs explained 7 to 52% "
            "of what was within reach, thirteen others 60 to 92%; the bound was set on these runs"
        )
    return found


def by_unit(concepts: Sequence[Document]) -> dict[str, list[Document]]:
    """Return effects by what they are shares of, in their order."""
    units: dict[str, list[Document]] = {}
    for concept in concepts:
        units.setdefault(concept.get("unit", "responses"), []).append(concept)
    return units


def groups_learned(validation: Document) -> list[Document]:
    """Return the groups of features of a validation, everywhere and within topics; early ones tell of nothing else."""
    return [concept for concept in validation["concepts"] if concept.get("unit", "tokens") == "tokens"]


def row_list(rows: Sequence[int], limit: int = 12) -> str:
    """Return the first rows and how many more there are."""
    shown = ", ".join(str(row) for row in rows[:limit])
    return f"{shown} and {len(rows) - limit} more" if len(rows) > limit else shown
