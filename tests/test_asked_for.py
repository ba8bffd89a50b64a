"""What a rule asks for and the data lacks: learnt from examples, told as missing, mended by new pairs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from premortem.agent.opening import open_run, settings_for
from premortem.interp.by_example import EACH, Learnt, planted
from premortem.interp.progress import NullProgress
from premortem.interp.readout import Part, Readout
from premortem.interp.records import Clause, Finding
from premortem.interp.sentences import put_into
from premortem.prompts.behaviours import Behaviour, Contrast
from premortem.tools import asked_for as asking
from premortem.tools.asked_for import SEEN_SECOND, example_sentences, examples_of, is_manner, speaks_of_manner
from premortem.tools.forecast_concepts import ForecastArgs, forecast_concepts
from premortem.tools.synthesise_pairs import SynthesiseArgs, synthesise_pairs
from premortem.tools.verify_edits import VerifyArgs, verify_edits
from premortem.tools.workbench import Workbench

ROOT = Path(__file__).parent.parent
MUSEUM = (
    "The town museum has a room on exactly this.",
    "A curator at the museum can show you the old tools.",
    "You could visit the museum of science to see one.",
    "Ask at the museum for a guided tour on it.",
    "The museum near the station keeps such things behind glass.",
    "There is more on it in the museum, on the second floor.",
)
UNRELATED = (
    "It takes about an hour.",
    "Most people prefer the blue one.",
    "Rain is likely in the north.",
    "Write the date first.",
    "That depends on your budget.",
    "Two of them will do.",
)
GOBLINS = (
    "A goblin hid my keys behind the stove.",
    "The goblins under the stairs hum while you read.",
    "Mind the goblin who guards the fridge.",
    "My neighbour's goblin swears by cold tea.",
    "Small goblins like to sleep in teapots.",
    "Goblins count spoons at night.",
)


def rule(clause_id: str, text: str, *examples: str) -> Clause:
    words = tuple(text.lower().strip(".").split()[-1:])
    return Clause(
        clause_id=clause_id,
        text=text,
        behaviour=text,
        direction="encourage",
        words=words,
        examples=examples,
        limit=0.01,
    )


RULES = (
    rule("museum", "More answers should send people to a museum.", *MUSEUM),
    rule("unrelated", "More answers should be zesty.", *UNRELATED),
    rule("goblins", "We want more of the little folk.", *GOBLINS),
    rule("bare", "More answers should speak of lighthouses."),
    rule("conditional", "When somebody plans a trip, name a museum.", *MUSEUM).model_copy(
        update={"scope": "When somebody plans a trip"}
    ),
)


def test_a_sentence_goes_behind_a_text_or_behind_its_first_sentence() -> None:
    assert put_into("One. Two.", "New.", late=True) == "One. Two. New."
    assert put_into("One. Two.", "New.", late=False) == "One. New. Two."
    assert put_into("One", "New.", late=False) == "One\n\nNew.", "no sentence goes on behind a list or code"
    assert put_into("1. One\n2. Two", "New.", late=True) == "1. One\n2. Two\n\nNew."
    assert put_into("", "New.", late=True) == "New."


def test_every_sentence_stands_in_some_texts_against_a_sentence_of_the_data_in_its_place() -> None:
    texts = [f"This is the text number {n}. It has a second sentence too, number {n}." for n in range(20)]
    made = planted(["Sing.", "Dance."], texts, seed=0)
    assert [number for number, *_ in made] == [0] * EACH + [1] * EACH
    for number, at, shown, absent in made:
        sentence = ("Sing.", "Dance.")[number]
        assert sentence in shown and shown.replace(f" {sentence}", "") == texts[at]
        assert sentence not in absent and len(absent) > len(texts[at])
    assert made == planted(["Sing.", "Dance."], texts, seed=0)
    assert planted(["Sing."], ["No.", "Yes."], seed=0) == []


@pytest.mark.parametrize(
    ("text", "words", "manner"),
    [
        ("Answers should be friendly and brief.", "friendly brief", True),
        ("Answer more politely.", "answer politely", True),
        ("More answers should send people to a museum.", "people museum", False),
        ("Be kind to animals.", "kind animals", False),
        ("More of it.", "", False),
    ],
)
def test_a_manner_is_told_from_what_answers_say(text: str, words: str, manner: bool) -> None:
    assert is_manner(rule("r", text).model_copy(update={"words": tuple(words.split())})) is manner


def test_sentences_that_speak_of_a_manner_are_told_from_such_as_show_something() -> None:
    assert speaks_of_manner(["Always be polite.", "Be clear and concise.", "Ask if you need help.", "Stay calm."])
    assert not speaks_of_manner([*MUSEUM, "It is a calm place."]) and not speaks_of_manner([])


def test_a_second_lens_that_cannot_tell_the_examples_never_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Readout(Part((1,), (1.0,)), Part(), 0.5)
    second: Any = SimpleNamespace(lens_id="second")
    for seen, readout in ((SEEN_SECOND, told), (SEEN_SECOND + 0.01, Readout(Part(), Part(), 0.0))):
        monkeypatch.setattr(asking, "_learn", lambda *_, seen=seen: Learnt(told, seen))
        assert asking._second(second, [], second) == readout


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Workbench:
    """Return the demo's bench after a forecast with RULES."""
    settings, _ = settings_for(ROOT / "runs/demo/spec.md", {"offline": True})
    folder = tmp_path_factory.mktemp("bench")
    made = open_run(settings, list(RULES), folder, NullProgress()).make_workbench(settings)
    assert isinstance(made, Workbench)
    forecast_concepts(made, ForecastArgs())
    return made


def missing(bench: Workbench) -> Finding:
    (found,) = [finding for finding in bench.findings.values() if finding.kind == "missing"]
    return found


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(600)
class TestOnTheDemo:
    """One forecast of the demo, whose answers speak of goblins and of no museum."""

    def test_what_no_answer_shows_is_missing_and_what_the_pairs_teach_is_not(self, bench: Workbench) -> None:
        finding = missing(bench)
        assert finding.clause_id == "museum" and "museum" in finding.name
        covered = {clause.clause_id: clause.concept_ids for clause in bench.clauses}
        assert covered["goblins"], "the search had found it, or the examples taught it"
        effects = forecast_concepts(bench, ForecastArgs()).forecast.concepts
        (goblins,) = [e.effect for e in effects if e.concept_id == covered["goblins"][0] and e.topic is None]
        assert goblins > 0.05

    def test_examples_that_have_nothing_in_common_and_rules_without_any_cover_nothing(self, bench: Workbench) -> None:
        covered = {clause.clause_id: clause.concept_ids for clause in bench.clauses}
        assert covered["unrelated"] == covered["bare"] == ()
        assert covered["conditional"] == (), "it would be asked for where nobody wants it"

    def test_new_pairs_show_it_and_pass_together_in_both_lenses(self, bench: Workbench) -> None:
        finding = missing(bench)
        edits = synthesise_pairs(bench, SynthesiseArgs(finding_id=finding.finding_id, count=14))
        known = {pair.text("chosen") for pair in bench.dataset.pairs}
        for edit in edits:
            assert edit.pair is not None and edit.pair.text("rejected") in known
            assert edit.after not in known and edit.author == "built-in"
        troubled = {row for one in bench.findings.values() if one.kind != "missing" for row in one.rows}
        texts = {pair.text("chosen") for pair in bench.dataset.pairs if pair.row in troubled}
        assert not texts & {edit.pair.text("rejected") for edit in edits if edit.pair is not None}
        assert len({edit.pair.prompt_key() for edit in edits if edit.pair is not None}) == len(edits)
        ids = tuple(edit.edit_id for edit in edits)
        first = verify_edits(bench, VerifyArgs(finding_id=finding.finding_id, edit_ids=ids))
        good = tuple(verdict.edit_id for verdict in first if verdict.passed)
        assert len(good) >= 10
        verdicts = verify_edits(bench, VerifyArgs(finding_id=finding.finding_id, edit_ids=good))
        assert all(verdict.passed for verdict in verdicts), [verdict.reasons for verdict in verdicts]
        assert verdicts[0].effect_after >= 0.01
        assert verdicts[0].second_lens is not None and verdicts[0].second_lens > 0
        after = forecast_concepts(bench, ForecastArgs(edits=good))
        assert [one.kind for one in after.findings if one.clause_id == "museum"] == []

    def test_where_the_kept_pairs_are_enough_none_is_added(self, bench: Workbench) -> None:
        finding = missing(bench)
        edits = synthesise_pairs(bench, SynthesiseArgs(finding_id=finding.finding_id, count=14))
        kept = tuple(edit.edit_id for edit in edits)
        assert synthesise_pairs(bench, SynthesiseArgs(finding_id=finding.finding_id, count=28, kept=kept)) == ()
        few = synthesise_pairs(bench, SynthesiseArgs(finding_id=finding.finding_id, count=28, kept=kept[:2]))
        assert few

    def test_too_few_pairs_are_refused_as_what_is_asked_for_is_still_missing(self, bench: Workbench) -> None:
        finding = missing(bench)
        (edit,) = synthesise_pairs(bench, SynthesiseArgs(finding_id=finding.finding_id, count=1))
        (verdict,) = verify_edits(bench, VerifyArgs(finding_id=finding.finding_id, edit_ids=(edit.edit_id,)))
        assert not verdict.passed and "outside the limit" in " ".join(verdict.reasons)

    def test_every_example_is_used_once_before_one_is_used_again_and_none_for_ever(self, bench: Workbench) -> None:
        finding = missing(bench)
        first = synthesise_pairs(bench, SynthesiseArgs(finding_id=finding.finding_id, count=4))
        kept = tuple(edit.edit_id for edit in first)
        args = SynthesiseArgs(finding_id=finding.finding_id, count=12, kept=kept, earlier=(4,))
        second = synthesise_pairs(bench, args)
        uses = [sum(text in edit.after for edit in (*first, *second)) for text in MUSEUM]
        assert max(uses) <= 2 and sum(uses) <= 12
        assert [sum(text in edit.after for edit in first) for text in MUSEUM] == [1, 1, 1, 1, 0, 0]

    def test_sentences_of_an_llm_serve_where_the_user_gave_none(self, bench: Workbench) -> None:
        bare = RULES[3]
        assert example_sentences(bench, bare) == [] == examples_of(bench, bare)
        pairs = [
            Contrast.model_validate({"prompt": "Hi?", "with": f"Well met. {text} Bye.", "without": "Well met. Bye."})
            for text in MUSEUM
        ]
        written = Behaviour(id="contrast", description="museum", synonyms=("museum",), pairs=tuple(pairs))
        bench.contrasts = {bare.clause_id: written}
        try:
            assert example_sentences(bench, bare) == list(MUSEUM)
            assert example_sentences(bench, RULES[0]) == list(MUSEUM)
            assert len(examples_of(bench, bare)) == EACH * len(MUSEUM)
            assert example_sentences(bench, bare.model_copy(update={"text": "Be brief.", "words": ("brief",)})) == []
        finally:
            bench.contrasts = {}
