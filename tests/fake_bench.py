"""A workbench and tools without a model: what they say follows from row numbers, so a test can check it by eye.

`bugs` groups of `ROWS_PER_BUG` rows each carry one forbidden concept; a rewrite helps on every row but the first of a
group, a flip helps on all. One finding is missing and wants new pairs, one is a surprise.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel

from premortem.interp.addressed import addressed_pairs
from premortem.interp.errors import ToolError
from premortem.interp.records import (
    Clause,
    Cluster,
    Concept,
    ConceptEffect,
    Dataset,
    Edit,
    Finding,
    Forecast,
    LensSummary,
    Pair,
    Record,
    Verdict,
    content_id,
)
from premortem.tools.author import Author, Hint, Task
from premortem.tools.find_passages import Passages
from premortem.tools.link_surprises import Link
from premortem.tools.read_pairs import PairExcerpt
from premortem.tools.score_rule import RuleScore

ROWS_PER_BUG = 4
N_PAIRS = 40


class Report(Record):
    forecast: Forecast
    concepts: tuple[Concept, ...]
    clauses: tuple[Clause, ...]
    findings: tuple[Finding, ...]


class ForecastArgs(BaseModel):
    forecaster: str | None = None
    edits: tuple[str, ...] = ()


class ClusterArgs(BaseModel):
    finding_id: str


class ReadArgs(BaseModel):
    rows: tuple[int, ...]
    finding_id: str | None = None


class ProposeArgs(BaseModel):
    finding_id: str
    attempt: int = 0
    refused: tuple[str, ...] = ()
    reasons: dict[str, str] = {}
    kinds: tuple[str, ...] = ()
    advice: str = ""
    authored: int = 0
    room: int | None = None


class FindingArgs(BaseModel):
    finding_id: str


class LinkArgs(BaseModel):
    links: tuple[Link, ...]


class SynthesiseArgs(BaseModel):
    finding_id: str
    count: int
    kept: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    earlier: tuple[int, ...] = ()
    advice: str = ""
    authored: int = 0
    room: int | None = None


class VerifyArgs(BaseModel):
    finding_id: str
    edit_ids: tuple[str, ...]


def make_clause(number: int, direction: str = "avoid") -> Clause:
    text = f"rule {number}"
    return Clause(
        clause_id=content_id(text), text=text, behaviour=text, direction=direction, limit=0.05,
        concept_ids=(f"c{number}",),
    )  # fmt: skip


def make_finding(number: int, kind: str, rows: tuple[int, ...]) -> Finding:
    clause_id = None if kind == "surprise" else make_clause(number).clause_id
    effect = len(rows) / N_PAIRS
    return Finding(
        finding_id=content_id(clause_id, number, kind), clause_id=clause_id, concept_id=f"c{number}", kind=kind,
        name=f"concept {number}", topic=None, effect=effect, low=effect - 0.02, high=effect + 0.02, rows=rows,
    )  # fmt: skip


def make_effect(finding: Finding, effect: float) -> ConceptEffect:
    return ConceptEffect(
        concept_id=finding.concept_id, name=finding.name, name_tested=True, features=(1, 2), topic=None, effect=effect,
        low=effect - 0.02, high=effect + 0.02, verdict="amplified", split_half=effect, rows=finding.rows,
    )  # fmt: skip


def make_edit(finding_id: str, row: int, kind: str) -> Edit:
    new = Pair(row=row, prompt="p", chosen="c", rejected="r") if kind == "synthesise" else None
    return Edit(
        edit_id=content_id(finding_id, row, kind), finding_id=finding_id, row=row, kind=kind,
        side="chosen" if kind == "rewrite" else None, before=f"text {row}", after=f"{kind} {row}",
        rationale="it helps", pair=new,
    )  # fmt: skip


@dataclass
class FakeBench:
    bugs: int = 2
    delay: float = 0.0
    asleep: bool = True
    """No tool may be called before the forecast."""
    known: dict[str, Edit] = field(default_factory=dict)
    author: Author | None = None
    contrasts: dict[str, object] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Names that somebody gave to concepts."""
    tokens: int = 0

    def __post_init__(self) -> None:
        pairs = tuple(Pair(row=row, prompt=f"p{row}", chosen=f"text {row}", rejected="no") for row in range(N_PAIRS))
        self.dataset = Dataset(path="pairs.jsonl", sha256="d1", form="standard", pairs=pairs)
        kinds = ["forbidden"] * self.bugs + ["missing", "surprise"]
        groups = [tuple(range(at * ROWS_PER_BUG, (at + 1) * ROWS_PER_BUG)) for at in range(len(kinds))]
        self.findings = tuple(make_finding(n, kind, groups[n]) for n, kind in enumerate(kinds))
        self.clauses = tuple(make_clause(n) for n, kind in enumerate(kinds) if kind != "surprise")

    def set_clauses(self, clauses: Sequence[Clause]) -> None:
        """Leave things as they are: the findings here are about the bench's own rules."""

    def rename(self, names: dict[str, tuple[str, bool, float]]) -> None:
        self.names = {concept_id: name for concept_id, (name, _, _) in names.items()}

    def pair(self, row: int) -> Pair:
        return self.dataset.pairs[row]

    def knows(self, clause: Clause) -> bool:
        return False

    def addressed(self, pair: Pair) -> str:
        return addressed_pairs([pair])[0]

    def lens_summary(self) -> LensSummary:
        return LensSummary(model="tiny", hook="layer", sae="sae", fvu=0.1, l0=20.0)

    def tokens_encoded(self) -> int:
        return self.tokens

    def remember(self, edits: Sequence[Edit]) -> None:
        self.known |= {edit.edit_id: edit for edit in edits}

    def finding(self, finding_id: str) -> Finding:
        self.work()
        if self.asleep:
            raise RuntimeError("the bench has not been woken")
        return next(found for found in self.findings if found.finding_id == finding_id)

    def work(self) -> None:
        self.tokens += 10
        time.sleep(self.delay)


def forecast_concepts(bench: FakeBench, args: ForecastArgs) -> Report:
    bench.work()
    bench.asleep = False
    mended = {bench.known[edit_id].row for edit_id in args.edits}
    left = {found.finding_id: len(set(found.rows) - mended) / N_PAIRS for found in bench.findings}
    left |= {bench.known[one].finding_id: 0.0 for one in args.edits if bench.known[one].kind == "synthesise"}
    effects = tuple(make_effect(found, left[found.finding_id]) for found in bench.findings)
    findings = tuple(found for found in bench.findings if left[found.finding_id] > 0)
    concepts = tuple(
        Concept(concept_id=found.concept_id, name=found.name, name_tested=True, name_score=0.9, features=(1, 2),
                weights=(1.0, 0.5), threshold=0.3) for found in bench.findings
    )  # fmt: skip
    forecast = Forecast(forecaster=args.forecaster or "disparity", n_pairs=N_PAIRS, concepts=effects)
    return Report(forecast=forecast, concepts=concepts, clauses=bench.clauses, findings=findings)


def fetch_clusters(bench: FakeBench, args: ClusterArgs) -> tuple[Cluster, ...]:
    found = bench.finding(args.finding_id)
    share = tuple(1 / N_PAIRS for _ in found.rows)
    return (
        Cluster(cluster_id=content_id(found.rows), concept_id=found.concept_id, name="all", rows=found.rows,
                contribution=share),
    )  # fmt: skip


def read_pairs(bench: FakeBench, args: ReadArgs) -> tuple[PairExcerpt, ...]:
    bench.work()
    asked = (bench.dataset.pairs[row] for row in args.rows)
    return tuple(
        PairExcerpt(row=one.row, prompt=one.prompt_text(), chosen=one.text("chosen"), rejected=one.text("rejected"))
        for one in asked
    )


def find_passages(bench: FakeBench, args: FindingArgs) -> Passages:
    found = bench.finding(args.finding_id)
    return Passages(
        showing=tuple(f"It fires in passage {row}." for row in found.rows),
        lacking=tuple(f"It is quiet in passage {row}." for row in found.rows),
    )


def link_surprises(bench: FakeBench, args: LinkArgs) -> tuple[Finding, ...]:
    """Take every surprise for a breach of the clause that it is linked to."""
    known = {link.finding_id: link.clause_id for link in args.links}
    bench.findings = tuple(
        found.model_copy(
            update={
                "finding_id": content_id(known[found.finding_id], found.concept_id),
                "clause_id": known[found.finding_id],
                "kind": "forbidden",
            }
        )
        if found.finding_id in known
        else found
        for found in bench.findings
    )
    return tuple(found for found in bench.findings if found.clause_id in known.values())


def score_rule(bench: FakeBench, args: FindingArgs) -> RuleScore:
    bench.finding(args.finding_id)
    return RuleScore(rule="be kind", auroc=0.8, inside=-0.2, outside=0.1, agrees=True)


def propose_edits(bench: FakeBench, args: ProposeArgs) -> tuple[Edit, ...]:
    """Propose for every row; the author, if there is one, writes the first `authored` of them."""
    found = bench.finding(args.finding_id)
    kind = ("rewrite", "flip", "drop")[args.attempt]
    edits = [make_edit(found.finding_id, row, kind) for row in found.rows[: args.room]]
    if bench.author is not None and kind == "rewrite":
        tasks = [make_task(bench.pair(row), args.advice) for row in found.rows[: args.authored][: args.room]]
        for at, written in enumerate(bench.author.write(tasks)):
            if written is not None:
                update = {"after": written.sentences.get(0, ""), "author": bench.author.name}
                edits[at] = edits[at].model_copy(update=update)
    return keep(bench, edits)


def make_task(pair: Pair, advice: str) -> Task:
    text = pair.text("chosen")
    return Task(
        kind="mend", rule="be kind", behaviour="unkind words", question=pair.prompt_text(), answer=text,
        sentences=(text,), marked=(0,), hint=Hint(advice=advice),
    )  # fmt: skip


def synthesise_pairs(bench: FakeBench, args: SynthesiseArgs) -> tuple[Edit, ...]:
    """Make a set of `count` pairs, refused ones among them."""
    found = bench.finding(args.finding_id)
    first = N_PAIRS + sum(edit.kind == "synthesise" for edit in bench.known.values())
    again = [bench.known[edit_id] for edit_id in args.refused]
    wanted = max(0, args.count - len(args.kept) - len(again))
    new = keep(bench, [make_edit(found.finding_id, first + n, "synthesise") for n in range(wanted)][: args.room])
    return (*again, *new)


def verify_edits(bench: FakeBench, args: VerifyArgs) -> tuple[Verdict, ...]:
    bench.finding(args.finding_id)
    if unknown := [edit_id for edit_id in args.edit_ids if edit_id not in bench.known]:
        raise ToolError(f"no edit {unknown[0]}")
    edits = [bench.known[edit_id] for edit_id in args.edit_ids]
    return tuple(make_verdict(edit, passed=edit.kind != "rewrite" or edit.row % ROWS_PER_BUG != 0) for edit in edits)


def make_verdict(edit: Edit, passed: bool) -> Verdict:
    return Verdict(
        edit_id=edit.edit_id, passed=passed, effect_before=0.1, effect_after=0.0, control_after=0.1, collateral=(),
        second_lens=None, reasons=("the target is inside the limit",),
    )  # fmt: skip


def keep(bench: FakeBench, edits: list[Edit]) -> tuple[Edit, ...]:
    bench.remember(edits)
    return tuple(edits)


TOOLS = {
    tool.__name__: tool
    for tool in (
        forecast_concepts,
        fetch_clusters,
        read_pairs,
        find_passages,
        link_surprises,
        score_rule,
        propose_edits,
        synthesise_pairs,
        verify_edits,
    )
}
