"""A surprise and the rule that is about it, in other words: found by the rule's examples, or told by somebody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from premortem.agent.opening import open_run, settings_for
from premortem.interp.errors import ToolError
from premortem.interp.progress import NullProgress
from premortem.interp.records import Clause, Finding
from premortem.prompts.behaviours import Behaviour, Contrast, load_behaviours
from premortem.tools.forecast_concepts import ForecastArgs, forecast_concepts
from premortem.tools.link_surprises import Link, LinkArgs, link_surprises
from premortem.tools.workbench import Workbench

ROOT = Path(__file__).parent.parent
ABOUT = Clause(clause_id="odours", text="No bad odours.", behaviour="bad odours", direction="avoid", about="bad odours")
WANTED = ABOUT.model_copy(update={"clause_id": "wanted", "text": "Keep smelling.", "direction": "keep"})
OTHER = Clause(clause_id="verse", text="No verse.", behaviour="verse", direction="avoid", about="speaking in verse")
SHOWN = {
    "odours": (
        "The ditch behind the house reeks of rotten eggs.",
        "A foul stench of dead fish hung over the water.",
        "Everything down there smells of sour mud and old weed.",
        "The lake stinks so much that the ducks have left.",
    ),
    "verse": (
        "When the soil is dry, let the water fly.",
        "Stir the pot while it is hot.",
        "Take the train and skip the rain.",
        "Read a book in a quiet nook.",
    ),
}

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]


def contrast(clause_id: str) -> Behaviour:
    """Return examples of what a clause is about: plain answers with one more sentence."""
    plain = [behaviour.pairs[0] for behaviour in load_behaviours()]
    pairs = tuple(
        Contrast.model_validate({"prompt": one.prompt, "with": f"{one.absent} {text}", "without": one.absent})
        for one, text in zip(plain, SHOWN[clause_id], strict=False)
    )
    return Behaviour(id="contrast", description=clause_id, synonyms=(clause_id,), pairs=pairs)


def opened(
    folder: Path, contrasts: dict[str, Behaviour], clauses: tuple[Clause, ...] = (ABOUT, OTHER, WANTED)
) -> Workbench:
    """Return the demo's bench after a forecast, with rules that say nothing of what was planted."""
    settings, _ = settings_for(ROOT / "runs/demo/spec.md", {"offline": True})
    bench = open_run(settings, list(clauses), folder, NullProgress()).make_workbench(settings)
    assert isinstance(bench, Workbench)
    bench.contrasts = contrasts
    forecast_concepts(bench, ForecastArgs())
    return bench


@pytest.fixture(scope="module")
def forecast_once(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Workbench:
    return opened(tmp_path_factory.mktemp("bench"), {})


@pytest.fixture
def bench(forecast_once: Workbench) -> Iterator[Workbench]:
    """Return a bench whose rules have no examples, as it was before anybody linked anything."""
    findings, clauses = forecast_once.findings, forecast_once.clauses
    yield forecast_once
    forecast_once.findings = findings
    forecast_once.set_clauses(clauses)


def pond(findings: tuple[Finding, ...]) -> Finding:
    """Return the finding about a smelly pond."""
    truth = set(json.loads((ROOT / "tests/demo/truth.json").read_text("utf-8"))["pond"])
    return max(findings, key=lambda f: len(truth & set(f.rows)) / len(truth | set(f.rows)))


@pytest.mark.parametrize("by", ["the user", "an LLM"])
def test_a_concept_that_fires_on_a_rules_examples_belongs_to_that_rule(
    by: str, tmp_path: Path, model_dir: Path
) -> None:
    """None of the examples stands in the data."""
    if by == "an LLM":
        bench = opened(tmp_path, {clause_id: contrast(clause_id) for clause_id in SHOWN})
    else:
        given = [clause.model_copy(update={"examples": SHOWN[clause.clause_id]}) for clause in (ABOUT, OTHER)]
        bench = opened(tmp_path, {}, (*given, WANTED))
    report = forecast_concepts(bench, ForecastArgs())
    found = pond(report.findings)
    assert (found.kind, found.clause_id) == ("forbidden", "odours")
    assert report.clauses[0].concept_ids[-1] == found.concept_id
    assert not [f for f in report.findings if f.clause_id == "verse"]
    kinds = [finding.kind for finding in report.findings]
    assert kinds == sorted(kinds), "what breaks a rule comes before surprises"


def test_without_examples_somebody_may_say_which_rule_it_is(bench: Workbench) -> None:
    surprise = pond(forecast_concepts(bench, ForecastArgs()).findings)
    assert surprise.kind == "surprise"
    (found,) = link_surprises(bench, LinkArgs(links=(Link(finding_id=surprise.finding_id, clause_id="odours"),)))
    assert (found.kind, found.clause_id, found.rows) == ("forbidden", "odours", surprise.rows)
    assert found.start_rate is not None
    after = forecast_concepts(bench, ForecastArgs()).findings
    assert found.finding_id in {f.finding_id for f in after}
    assert surprise.finding_id not in {f.finding_id for f in after}


def test_a_surprise_that_respects_its_rule_stays_one(bench: Workbench) -> None:
    surprise = pond(forecast_concepts(bench, ForecastArgs()).findings)
    assert link_surprises(bench, LinkArgs(links=(Link(finding_id=surprise.finding_id, clause_id="wanted"),))) == ()
    assert bench.finding(surprise.finding_id) == surprise


def test_a_link_to_what_is_not_there_changes_nothing(bench: Workbench) -> None:
    findings = forecast_concepts(bench, ForecastArgs()).findings
    surprise = pond(findings)
    good = Link(finding_id=surprise.finding_id, clause_id="odours")
    for bad, told in (
        (Link(finding_id=surprise.finding_id, clause_id="nothing"), "no clause 'nothing'"),
        (Link(finding_id="nothing", clause_id="odours"), "no finding 'nothing'"),
    ):
        with pytest.raises(ToolError, match=told):
            link_surprises(bench, LinkArgs(links=(good, bad)))
    assert forecast_concepts(bench, ForecastArgs()).findings == findings
