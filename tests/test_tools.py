"""The tools' own decisions: what breaks a clause, how many pairs must change."""

import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from premortem.interp.edits import apply_edits
from premortem.interp.errors import ToolError
from premortem.interp.forecast import Reading, name_readout, without_rows
from premortem.interp.matching import Match
from premortem.interp.names import Vocabulary
from premortem.interp.readout import Part, Readout
from premortem.interp.records import Clause, ConceptEffect, Direction, Finding, Forecast, Pair, Span, Topic
from premortem.interp.rewrite import Candidate, framed
from premortem.interp.verify import Measured, SetOutcome
from premortem.tools import forecast_concepts as forecasting
from premortem.tools import propose_edits as proposing
from premortem.tools import synthesise_pairs as synthesising
from premortem.tools import tracing
from premortem.tools.evidence import own_words
from premortem.tools.findings import breach, left_in_topic, measured
from premortem.tools.forecast_concepts import _fresh, _is_fresh
from premortem.tools.propose_edits import ProposeArgs, _edit, _in_new_row, dose, propose_edits
from premortem.tools.synthesise_pairs import TRIES, SynthesiseArgs, synthesise_pairs
from premortem.tools.tracing import carrying_side
from premortem.tools.verify_edits import _verdict, implied_clause
from premortem.tools.workbench import OWN_ANSWERS, OWN_TIMES, Workbench
from synthetic import responses


def clause(direction: Direction, limit: float = 0.01) -> Clause:
    return Clause(clause_id="c", text="t", behaviour="b", direction=direction, limit=limit)


def effect(value: float, half_width: float = 0.02, q: float = 0.0001) -> ConceptEffect:
    return ConceptEffect(
        concept_id="x",
        name="n",
        name_tested=True,
        features=(),
        topic=None,
        effect=value,
        low=value - half_width,
        high=value + half_width,
        verdict="amplified" if value > 0 else "suppressed",
        split_half=value,
        rows=(),
        q=q,
    )


def finding(value: float, n_rows: int, topic: str | None = None) -> Finding:
    return Finding(
        finding_id="f",
        clause_id="c",
        concept_id="x",
        kind="forbidden",
        name="n",
        topic=topic,
        effect=value,
        low=value - 0.01,
        high=value + 0.01,
        rows=tuple(range(n_rows)),
    )


@pytest.mark.parametrize(
    ("direction", "value", "kind"),
    [
        ("avoid", 0.08, "forbidden"),
        ("avoid", -0.08, None),
        ("keep", -0.08, "forbidden"),
        ("keep", 0.08, None),
        ("encourage", -0.08, "forbidden"),
        ("encourage", 0.08, None),
    ],
)
def test_an_effect_breaks_a_clause_in_one_direction(direction: Direction, value: float, kind: str | None) -> None:
    assert breach(effect(value), clause(direction)) == kind


def test_an_effect_inside_the_limit_or_by_chance_breaks_nothing() -> None:
    assert breach(effect(0.08), clause("avoid", limit=0.1)) is None
    assert breach(effect(0.08, q=0.05), clause("avoid")) is None
    assert breach(effect(0.08, half_width=0.1), clause("avoid")) is None


def test_a_clause_is_said_in_its_own_words_and_not_in_those_that_an_llm_added() -> None:
    said = {"text": "No metaphors of ships and the sea.", "words": ("ships", "sea", "ship")}
    rule = clause("avoid").model_copy(update=said)
    assert own_words(rule) == ["ships", "sea"]
    assert own_words(rule.model_copy(update={"words": ("boat",)})) == ["boat"]


def test_a_rule_is_broken_by_longer_answers_too() -> None:
    explained = effect(0.08).model_copy(update={"verdict": "cannot_tell", "length_controlled": 0.0})
    assert breach(explained, clause("avoid")) == "forbidden"


def test_a_wish_that_the_data_does_not_meet_is_missing() -> None:
    assert breach(effect(0.0, half_width=0.005), clause("encourage")) == "missing"


def test_the_dose_leaves_no_more_than_the_limit_allows_at_the_end_of_its_interval() -> None:
    net = 0.1 * 300
    left = net - dose(finding(0.1, 30), clause("avoid", limit=0.02), 300)
    assert left == 3  # 3 + 1.645 * sqrt(3) = 5.85 <= 6 = 300 * 0.02, and 4 + 1.645 * sqrt(4) = 7.3 is not


def test_what_a_rule_asks_for_must_rise_from_where_it_is_to_its_limit() -> None:
    assert dose(finding(-0.02, 6), clause("encourage", limit=0.05), 300) == pytest.approx(21)
    assert dose(finding(0.04, 6), clause("encourage", limit=0.05), 300) == pytest.approx(3)


def test_what_findings_hold_by_chance_explains_no_surprise() -> None:
    most = set(range(80))
    assert _fresh(tuple(range(60, 100)), most, 100) == 1.0  # they hold 20 of 40, and would hold 32 by chance
    assert _fresh(tuple(range(10)), most, 100) == 0.0
    assert _fresh(tuple(range(76, 86)), set(range(80)), 1000) == pytest.approx(1 - (0.4 - 0.08) / 0.92)
    assert _fresh((), most, 100) == 0.0


def test_a_narrow_surprise_is_told_where_wide_findings_hold_nearly_every_pair() -> None:
    """Two findings hold 230 and 220 of 480 pairs, a third one 30; 22 rows are all among them, as any rows would be."""
    wide, narrow, rows = [set(range(230)), set(range(230, 450))], set(range(440, 470)), tuple(range(220, 242))
    assert len(set(rows) - set().union(*wide, narrow)) == 0
    assert _is_fresh(rows, [*wide, narrow], 480)
    assert not _is_fresh(tuple(range(445, 465)), [*wide, narrow], 480)  # what the third one holds
    assert not _is_fresh(tuple(range(100, 200)), [*wide, narrow], 480)  # a part of the first


def test_what_two_narrow_findings_hold_between_them_is_no_surprise() -> None:
    told = [set(range(30)), set(range(30, 60))]
    assert not _is_fresh(tuple(range(15, 45)), told, 480) and _is_fresh(tuple(range(15, 45)), told[:1], 480)
    assert not _is_fresh(tuple(range(57, 63)), told, 480)  # three fresh rows are too few


def test_the_start_model_is_asked_prompts_from_all_of_a_file_and_answers_keep_their_numbers() -> None:
    pairs = [Pair(row=row, prompt=f"prompt {row}?", chosen="a", rejected="b") for row in range(200)]
    asked: list[Pair] = []
    sampled = SimpleNamespace(sample=lambda prompts, **_: asked.extend(prompts) or ["c"] * len(prompts))
    bench: Any = SimpleNamespace(readable=pairs, start_model=sampled, progress=None)
    told, texts, numbers = Workbench.said.func(bench)
    assert told == asked and len(texts) == len(told)
    assert numbers.tolist() == [pair.row for pair in asked]
    assert len(set(numbers.tolist())) == len(numbers) == OWN_ANSWERS < len(pairs)
    assert min(numbers) < 20 and max(numbers) >= 180
    assert 60 < numbers.mean() < 140
    again: Any = SimpleNamespace(**{**vars(bench), "readable": pairs[::-1]})
    before = {pair.prompt for pair in asked}
    asked.clear()
    Workbench.said.func(again)
    assert {pair.prompt for pair in asked} == before


def test_few_prompts_are_each_asked_twice() -> None:
    pairs = [Pair(row=row, prompt=f"prompt {row}?", chosen="a", rejected="b") for row in range(7)]
    sampled = SimpleNamespace(sample=lambda prompts, **_: ["c"] * len(prompts))
    bench: Any = SimpleNamespace(readable=pairs, start_model=sampled, progress=None)
    assert sorted(Workbench.said.func(bench)[2].tolist()) == sorted([*range(7)] * OWN_TIMES)


def test_what_edits_newly_break_is_found_and_no_rows_are_told_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    concepts = ("known", "same rows", "broken", "fine")
    rule = clause("avoid").model_copy(update={"concept_ids": concepts})

    def measure(_: Any, __: Any, concept_id: str, ___: str, ____: Clause) -> Finding | None:
        rows = {"same rows": tuple(range(10)), "broken": tuple(range(20, 30))}.get(concept_id)
        return rows and finding(0.1, 0).model_copy(update={"concept_id": concept_id, "rows": rows})

    monkeypatch.setattr(forecasting, "measured", measure)
    known = finding(0.1, 10).model_copy(update={"concept_id": "known"})
    bench: Any = SimpleNamespace(clauses=(rule,), findings={"f": known})
    after: Any = None
    assert [one.concept_id for one in forecasting._new_breaches(bench, after, [known], "x")] == ["broken"]
    assert [one.concept_id for one in forecasting._new_breaches(bench, after, [], "x")] == ["same rows", "broken"]


def test_of_two_rules_about_the_same_rows_the_stricter_one_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = tuple(
        clause("avoid", limit).model_copy(update={"clause_id": name, "concept_ids": (name,)})
        for name, limit in (("lax", 0.05), ("strict", 0.01), ("other", 0.1))
    )

    def measure(_: Any, __: Any, concept_id: str, ___: str, of: Clause) -> Finding:
        rows = tuple(range(20, 30)) if concept_id == "other" else tuple(range(10))
        return finding(0.12, 0).model_copy(update={"concept_id": concept_id, "clause_id": of.clause_id, "rows": rows})

    monkeypatch.setattr(forecasting, "measured", measure)
    monkeypatch.setattr(forecasting, "with_start_rate", lambda _, found: found)
    for given in (rules, rules[::-1]):
        bench: Any = SimpleNamespace(clauses=given, reading=None)
        wanted = [rule.clause_id for rule in given if rule.clause_id != "lax"]
        assert [one.clause_id for one in forecasting._clause_findings(bench, "x")] == wanted


@pytest.mark.parametrize("kept_by_it", [True, False])
def test_a_discovery_that_keeps_its_rule_and_what_breaks_one_leave_no_surprise(
    kept_by_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond the limit of its rule, and not certain enough to break it, is no secret either."""
    monkeypatch.setattr(forecasting, "_respects", lambda *_: kept_by_it)
    readouts = {name: Readout(Part((i,), (1.0,)), Part(), 0.5) for i, name in enumerate(("blind", "broken", "worse"))}
    matches = [Match(readout, np.ones(3, dtype=np.int64), "words", True) for readout in readouts.values()]
    rule = clause("avoid").model_copy(update={"concept_ids": tuple(readouts)})
    bench: Any = SimpleNamespace(clauses=(rule,), discoveries=(SimpleNamespace(readout=readouts["blind"]),))
    found = finding(0.1, 3).model_copy(update={"concept_id": "broken"})
    kept = forecasting._claimed(bench, {"c": matches}, [found], "x")
    assert [match.readout for match in kept] == [readouts["blind"]] * kept_by_it + [readouts["broken"]]


@pytest.mark.parametrize(
    ("direction", "limit", "keeps"), [("avoid", 0.01, False), ("avoid", 0.2, True), ("keep", 0.01, True)]
)
def test_a_concept_keeps_a_rule_where_its_effect_is_inside_the_limit(
    direction: Direction, limit: float, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "effect_and_rows", lambda *_: (effect(0.08), ()))
    bench: Any = SimpleNamespace(concept=lambda _: None, held_to=lambda _: SimpleNamespace(pairs=(1,)))
    assert forecasting._respects(bench, "x", clause(direction, limit), "x") is keeps
    none_left: Any = SimpleNamespace(concept=lambda _: None, held_to=lambda _: SimpleNamespace(pairs=()))
    assert forecasting._respects(none_left, "x", clause(direction, limit), "x")


def test_a_breach_confined_to_a_topic_must_go_entirely() -> None:
    assert dose(finding(0.005, 7, topic="medicine"), clause("avoid"), 1400) == 7
    assert dose(finding(0.02, 10, topic="medicine"), clause("avoid", limit=0.01), 300) == 10


@pytest.mark.parametrize(("flips", "drops", "more"), [(0, 0, 17), (6, 0, 5), (0, 10, 7), (7, 0, 0), (0, 14, 0)])
def test_kept_edits_count_and_their_pairs_are_left_alone(
    flips: int, drops: int, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = finding(0.1, 30)
    assert dose(one, clause("avoid", limit=0.01), 140) == pytest.approx(14)  # some 15% more are proposed
    drop, flip = (Candidate(kind, None, "", "why") for kind in ("drop", "flip"))
    made = [_edit(one, Pair(row=row, prompt="?", chosen="a", rejected="b"), flip) for row in range(flips)]
    made += [_edit(one, Pair(row=20 + row, prompt="?", chosen="a", rejected="b"), drop) for row in range(drops)]
    offered: list[int] = []

    def offer(_: Any, __: Any, rows: list[int], *___: Any) -> list[Any]:
        offered.extend(rows)
        return [_edit(one, Pair(row=row, prompt="?", chosen="a", rejected="b"), drop) for row in rows]

    monkeypatch.setattr(proposing, "_edits_of_batch", offer)
    monkeypatch.setattr(proposing, "_still_in_topics", lambda *_: [])
    bench: Any = SimpleNamespace(
        edits={edit.edit_id: edit for edit in made}, author=None, remember=lambda _: None, finding=lambda _: one,
        clause_of=lambda _: clause("avoid", limit=0.01), held_to=lambda _: SimpleNamespace(pairs=range(140)),
        next_row=140,
    )  # fmt: skip
    proposed = propose_edits(bench, ProposeArgs(finding_id="f", attempt=1, kept=tuple(bench.edits)))
    assert len(proposed) == more
    assert not {edit.row for edit in made} & set(offered)


def test_no_more_is_written_or_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one, asked, kept = finding(0.1, 30), list[int](), list[Any]()
    drop = Candidate("drop", None, "", "why")
    pairs = {row: Pair(row=row, prompt="?", chosen="a", rejected="b") for row in range(30)}
    monkeypatch.setattr(proposing, "_written", lambda _, __, ___, rows, args: asked.extend(rows) or {})
    monkeypatch.setattr(
        proposing, "_edits_of_batch", lambda _, __, rows, *___: [_edit(one, pairs[row], drop) for row in rows]
    )
    monkeypatch.setattr(proposing, "_still_in_topics", lambda *_: [])
    bench: Any = SimpleNamespace(
        edits={}, author=None, remember=kept.extend, finding=lambda _: one, next_row=140,
        clause_of=lambda _: clause("avoid", limit=0.01), held_to=lambda _: SimpleNamespace(pairs=range(140)),
    )  # fmt: skip
    proposed = propose_edits(bench, ProposeArgs(finding_id="f", authored=100, room=5))
    assert [edit.row for edit in proposed] == asked == [0, 1, 2, 3, 4]
    assert kept == list(proposed)


def new_pair(number: int) -> Pair:
    return Pair(row=number, prompt=f"{number}?", chosen="xyzuvw"[number % 6] * 9 + str(number) * 9, rejected="b")


def synthesising_bench(monkeypatch: pytest.MonkeyPatch, drawn: list[int], bad: str = "") -> Any:
    """A bench whose start model shows the behaviour for every prompt; an edit whose text holds `bad` is no good."""
    one = finding(-0.1, 0).model_copy(update={"kind": "missing"})

    def answered(_: Any, __: Any, ___: Any, args: SynthesiseArgs, lacking: synthesising.Lacking) -> list[Pair]:
        drawn.append(used := synthesising._used(args))
        return [new_pair(used + n) for n in range(lacking.pairs)]

    monkeypatch.setattr(synthesising, "_answered", answered)
    monkeypatch.setattr(synthesising, "_showing", lambda _, __, drafts: drafts)
    monkeypatch.setattr(
        synthesising,
        "own_objections",
        lambda _, __, edits: {e.edit_id: ("bad",) if bad and bad in e.after else () for e in edits},
    )
    bench: Any = SimpleNamespace(
        edits={}, author=None, finding=lambda _: one, clause_of=lambda _: clause("encourage"), next_row=140,
        texts=SimpleNamespace(responses=["a", "b"]), contrasts={}, readable=[], settings=SimpleNamespace(seed=0),
        findings={},
    )  # fmt: skip
    bench.remember = lambda edits: bench.edits.update({edit.edit_id: edit for edit in edits})
    return bench


def test_a_larger_set_holds_the_pairs_of_the_smaller_one_that_are_good_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[int] = []
    bench = synthesising_bench(monkeypatch, drawn, bad="xxx")
    first = synthesise_pairs(bench, SynthesiseArgs(finding_id="f", count=4))
    refused = tuple(edit.edit_id for edit in first)
    second = synthesise_pairs(bench, SynthesiseArgs(finding_id="f", count=8, refused=refused, earlier=(4,)))
    assert second[:3] == first[1:], "the first holds what it should not"
    assert len({edit.edit_id for edit in second} - set(refused)) == 5
    assert drawn == [0, 4 * TRIES]
    third = synthesise_pairs(bench, SynthesiseArgs(finding_id="f", count=8, refused=refused, earlier=(4, 8), room=4))
    assert third[:3] == first[1:] and len(third) == 4


def test_no_new_pair_is_an_error_that_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = synthesising_bench(monkeypatch, [])
    monkeypatch.setattr(synthesising, "_answered", lambda *_: [])
    with pytest.raises(ToolError, match="neither an author nor the start model"):
        synthesise_pairs(bench, SynthesiseArgs(finding_id="f", count=4))
    assert bench.edits == {}


def test_of_two_new_pairs_with_the_same_prompt_the_first_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = synthesising_bench(monkeypatch, [])
    drafts = [Pair(row=n, prompt="0?", chosen=letter * 9, rejected="b") for n, letter in enumerate("xyz")]
    monkeypatch.setattr(synthesising, "_answered", lambda *_: [*drafts, new_pair(1)])
    made = synthesise_pairs(bench, SynthesiseArgs(finding_id="f", count=4))
    assert [edit.after for edit in made] == ["x" * 9, new_pair(1).chosen]


def sources(bench: Any, *earlier: int, asked: Sequence[str] = ()) -> list[int]:
    args = SynthesiseArgs(finding_id="f", count=4, earlier=earlier)
    return [pair.row for pair in synthesising._sources(bench, finding(0.1, 0), args, frozenset(asked))]


def test_prompts_that_were_used_are_drawn_last_and_those_that_new_pairs_have_not_at_all() -> None:
    pairs = [Pair(row=row, prompt=f"{row}?", chosen="a", rejected="b") for row in range(50)]
    bench: Any = SimpleNamespace(settings=SimpleNamespace(seed=0), readable=pairs, findings={})
    rows = sources(bench)
    assert sources(bench, 4) == rows[4 * TRIES :] + rows[: 4 * TRIES]
    assert sources(bench, asked=[pairs[rows[0]].prompt_key()]) == rows[1:]


def test_no_new_pair_is_made_of_one_that_carries_another_finding_unless_all_do() -> None:
    pairs = [Pair(row=row, prompt=f"{row}?", chosen="a", rejected="b") for row in range(9)]
    other, lacking = finding(0.1, 0), finding(0.1, 0).model_copy(update={"kind": "missing", "rows": (5,)})
    bench: Any = SimpleNamespace(settings=SimpleNamespace(seed=0), readable=pairs, findings={"a": lacking})
    bench.findings["b"] = other.model_copy(update={"rows": (1, 2, 3)})
    assert sorted(sources(bench)) == [0, 4, 5, 6, 7, 8]
    bench.findings["b"] = other.model_copy(update={"rows": tuple(range(9))})
    assert sorted(sources(bench)) == list(range(9))


def test_a_pair_against_itself_keeps_all_that_its_chosen_side_holds() -> None:
    called = (
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "content": "Bad."},
    )
    good = ({"role": "assistant", "content": "Good."},)
    source = Pair(row=3, prompt=({"role": "user", "content": "Hi?"},), chosen=good, rejected=called, extra={"id": 7})
    made = synthesising._against_itself(source, "Good. More.")
    assert (made.rejected, made.text("chosen"), made.extra) == (good, "Good. More.", {})


def test_examples_go_where_they_fit_and_one_that_fits_nowhere_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = "It has been so since the days of old. " * 15, "Sorry to hear."
    texts = [long] * 6 + [short] * 3
    pairs = [Pair(row=row, prompt=f"{row}?", chosen=text, rejected="b") for row, text in enumerate(texts)]
    told = [
        "See it in the museum.",
        "The museum by the river has three of them behind glass, as the guide will tell you.",
    ]
    monkeypatch.setattr(synthesising, "example_sentences", lambda *_: told)
    bench: Any = SimpleNamespace(
        settings=SimpleNamespace(seed=0), readable=pairs, findings={}, edits={}, addressed=lambda pair: ""
    )
    args = SynthesiseArgs(finding_id="f", count=9)
    lacking = synthesising.Lacking(9, 0)
    made = synthesising._by_example(bench, finding(0.1, 0), clause("encourage"), args, lacking)
    assert [told[1] in pair.text("chosen") for pair in made] == [True] * synthesising.USES
    bench.addressed = lambda pair: "a fake turn"
    assert synthesising._by_example(bench, finding(0.1, 0), clause("encourage"), args, lacking) == []


def test_an_author_is_sent_no_more_requests_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = synthesising_bench(monkeypatch, [])
    sent: list[int] = []

    def drafts(requests: Callable[[synthesising.Lacking], int], found: int, first: int) -> Any:
        def draft(*given: Any) -> list[Pair]:
            sent.append(requests(given[-1]))
            return [new_pair(first + n) for n in range(found)]

        return draft

    monkeypatch.setattr(synthesising, "_invented", drafts(lambda lacking: lacking.requests, 30, 0))
    monkeypatch.setattr(synthesising, "_added", drafts(lambda lacking: min(lacking.pairs, lacking.authored), 0, 50))
    monkeypatch.setattr(synthesising, "_distinct", lambda _, drafts, __: drafts)
    made = synthesise_pairs(bench, SynthesiseArgs(finding_id="f", count=40, authored=12))
    assert sent == [10, 2] and len(made) == 40
    assert sum(edit.author == "built-in" for edit in made) == 10


def test_pairs_of_anothers_refused_edits_are_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = finding(0.1, 8), finding(0.1, 8).model_copy(update={"finding_id": "other"})
    drop = Candidate("drop", None, "", "why")
    theirs = [_edit(other, Pair(row=row, prompt="?", chosen="a", rejected="b"), drop) for row in (1, 2, 3)]
    offered: list[int] = []
    monkeypatch.setattr(proposing, "_edits_of_batch", lambda _, __, rows, *___: offered.extend(rows) or [])
    monkeypatch.setattr(proposing, "_still_in_topics", lambda *_: [])
    bench: Any = SimpleNamespace(
        edits={edit.edit_id: edit for edit in theirs}, author=None, remember=lambda _: None, finding=lambda _: one,
        clause_of=lambda _: clause("avoid", limit=0.01), held_to=lambda _: SimpleNamespace(pairs=range(80)),
        next_row=80,
    )  # fmt: skip
    propose_edits(bench, ProposeArgs(finding_id="f", void=(theirs[1].edit_id,)))
    assert offered == [0, 2, 4, 5, 6, 7]


def test_a_verdict_begins_with_what_speaks_against_the_edit_itself() -> None:
    still = Measured(0.08, 0.05, 0.1)
    outcome = SetOutcome(still, still, 0.08, (), None, None, ("the effect is still +0.080",))
    edit = _edit(finding(0.1, 8), Pair(row=0, prompt="?", chosen="a", rejected="b"), Candidate("drop", None, "", ""))
    assert _verdict(edit, outcome, ("half a sentence",)).reasons == ("half a sentence", "the effect is still +0.080")


def test_a_text_keeps_the_white_space_around_the_one_it_replaces() -> None:
    assert framed("Sure.", " Of course.\n") == " Sure.\n"
    assert framed("Sure.", "Of course.") == "Sure."
    assert framed("", " Of course.") == ""


def test_a_rise_is_carried_by_the_chosen_side_and_a_fall_by_the_rejected_one() -> None:
    assert carrying_side(finding(0.1, 3)) == "chosen"
    assert carrying_side(finding(-0.1, 3)) == "rejected"


def test_a_surprise_is_judged_as_if_no_change_were_wanted() -> None:
    assert implied_clause(finding(0.1, 3)).direction == "avoid"
    assert implied_clause(finding(-0.1, 3)).direction == "keep"


def test_new_pairs_stand_in_rows_of_their_own_and_a_kept_one_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one = finding(0.1, 40)
    pairs = {row: Pair(row=row, prompt=f"{row}?", chosen=f"a{row}", rejected="b") for row in range(40)}
    fresh = Candidate("synthesise", None, "c", "why")
    kept = [_in_new_row(_edit(one, pairs[row], fresh), 140 + row) for row in (0, 3)]
    monkeypatch.setattr(proposing, "BATCH", 4)
    monkeypatch.setattr(
        proposing, "_edits_of_batch", lambda _, __, rows, *___: [_edit(one, pairs[row], fresh) for row in rows]
    )
    monkeypatch.setattr(proposing, "_still_in_topics", lambda *_: [])
    bench: Any = SimpleNamespace(
        edits={edit.edit_id: edit for edit in kept}, author=None, remember=lambda _: None, finding=lambda _: one,
        clause_of=lambda _: clause("avoid", limit=0.01), held_to=lambda _: SimpleNamespace(pairs=range(140)),
        pair=lambda row: pairs[row], next_row=142,
    )  # fmt: skip
    proposed = propose_edits(bench, ProposeArgs(finding_id="f", kept=tuple(bench.edits)))
    assert [edit.row for edit in proposed] == list(range(142, 142 + len(proposed)))
    assert [edit.pair and edit.pair.row for edit in proposed] == [edit.row for edit in proposed]
    beside = [edit.pair.text("rejected") for edit in proposed if edit.pair]
    assert len(beside) == len(proposed) > 4
    assert beside[:4] == ["a1", "a2", "a4", "a5"]


def test_a_counter_pair_prefers_what_lacks_the_concept() -> None:
    pair = Pair(row=3, prompt="Why?", chosen="Because, teapot.", rejected="Because.", extra={"source": "here"})
    candidate = Candidate("synthesise", None, "Because of the rain.", "a counter-pair prefers a fresh answer to it")
    edit = _in_new_row(_edit(finding(0.1, 20), pair, candidate), 40)
    assert (edit.row, edit.kind, edit.side, edit.before, edit.after) == (40, "synthesise", None, "", candidate.text)
    assert edit.pair == Pair(row=40, prompt="Why?", chosen=candidate.text, rejected="Because, teapot.")
    assert apply_edits([pair], [edit]) == [pair, edit.pair]


def test_rows_left_together_in_one_topic_are_mended_too_where_they_break_the_rule_there() -> None:
    """40 of 400 pairs show it, 20 of them in a topic of 40; in at most a twelfth of the answers it may."""
    liked, rows = [5, 17, 31], [*range(0, 40, 2), *range(40, 400, 18)]
    made = responses(400, dict.fromkeys(rows, liked))
    pairs = tuple(Pair(row=row, prompt=f"what of {row}?", chosen="one way", rejected="another") for row in range(400))
    words = Vocabulary(["one way"] * 400 + ["another"] * 400, np.tile(np.arange(400), 2))
    topic = Topic(topic_id="first", name="first", rows=tuple(range(40)))
    reading = Reading("lens", pairs, made, words, (topic,))
    named = name_readout(reading, Readout(Part(tuple(liked), (1.0,) * 3), Part(), 3.0), "c")
    rule = clause("avoid", limit=1 / 12)
    bench: Any = SimpleNamespace(
        clauses=(rule,), clause_of=lambda _: rule, concept=lambda _: named, held_to=lambda _, reading: reading,
        reading=reading, settings=SimpleNamespace(forecaster="mean-difference"), by_example={},
    )  # fmt: skip
    everywhere = measured(bench, reading, "x", "mean-difference", rule)
    assert everywhere is not None and everywhere.topic is None
    scattered = [row for row in everywhere.rows if row >= 40]
    left = left_in_topic(bench, without_rows(reading, scattered), everywhere)
    assert left is not None and left.topic == "first" and set(left.rows) <= set(range(40))
    assert everywhere.overall is None and left.overall is not None
    assert left.effect == 0.5 and left.low < 0.5 < left.high, "of the 40 pairs of the topic 20 show it"
    assert left.everywhere == left.overall < 1 / 12
    more = proposing._still_in_topics(bench, everywhere, list(everywhere.rows), set(scattered))
    assert sorted(more) == sorted(left.rows)
    assert proposing._still_in_topics(bench, everywhere, list(everywhere.rows), {*scattered, *more}) == []
    assert left_in_topic(bench, without_rows(reading, scattered), left) is None  # that is what the finding is about


def test_clauses_are_traced_within_the_sentences_that_fire(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Boil it well, like a teapot. Then serve it, with milk. Good night."
    offsets = [(m.start(), m.end()) for m in re.finditer(r"\s?\S+", text)]
    asked: list[tuple[Any, Any]] = []

    def fire(_: Any, __: Any, ___: Any, tokens: Any, pieces: Any) -> tuple[Span, ...]:
        asked.append((tokens, pieces))
        return tuple(Span(start=a, end=b, activation=1.0) for a, b in pieces[1:2])

    monkeypatch.setattr(tracing, "spans", fire)
    monkeypatch.setattr(tracing, "tokenize", lambda *_: object())
    monkeypatch.setattr(tracing, "response_offsets", lambda *_: offsets)
    sides = SimpleNamespace(chosen=SimpleNamespace(tokens=None), rejected=None)
    bench: Any = SimpleNamespace(
        reader=SimpleNamespace(model=SimpleNamespace(tokenizer=None), encode=lambda _: {"main": sides}),
        main=SimpleNamespace(lens_id="main", d_sae=4),
        concept=lambda _: SimpleNamespace(readout=None),
    )
    pair, one = Pair(row=0, prompt="?", chosen=text, rejected="No."), finding(0.1, 1)
    first = Span(start=0, end=29, activation=1.0)
    (clause_span,) = tracing.firing_clauses(bench, one, pair, [first])
    tokens, pieces = asked[-1]
    assert [text[a:b].strip(" ,.") for a, b in pieces] == ["Boil it well", "like a teapot"]
    assert tokens == [(a, b) if b <= 28 else (0, 0) for a, b in offsets]
    assert (clause_span.start, clause_span.end) == pieces[1]
    last = Span(start=55, end=len(text), activation=1.0)
    assert tracing.firing_clauses(bench, one, pair, [last]) == (last,), "a sentence of one clause is its own"
    assert tracing.finding_spans(bench, one, pair)[0] == "chosen"
    assert asked[-1][0] == offsets, "sentences hold every token"


@pytest.mark.parametrize(
    ("name", "edited", "told"), [("calibrated", 0, -0.5), ("calibrated", 1, None), ("tilt", 0, None)]
)
def test_parts_are_compared_for_calibrated_on_the_data_as_it_is(
    name: str, edited: int, told: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Forecast(forecaster=name, n_pairs=1, concepts=())
    stubs = {"forecast": made, "injections": ()}
    for function, answer in stubs.items():
        monkeypatch.setattr(forecasting, function, lambda *_, answer=answer: answer)
    readings = [SimpleNamespace(responses=None, answers=None) for _ in range(2)]
    bench: Any = SimpleNamespace(reading=readings[0], parts_agree=-0.5, told_apart=0.7, concepts={}, clauses=())
    found = forecasting._report(bench, readings[edited], name, ()).forecast
    assert (found.parts_agree, found.told_apart) == (told, None if edited else 0.7)
