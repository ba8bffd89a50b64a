"""Facts about the bench of the agent: what is planted where, how reports are scored, how the baselines keep count."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "bench"))

import read_agent
from agent_baselines import one_sided
from agent_data import SETS, Made, Planting, Truth, demo, effect, plant_all, put_in, shows
from agent_plants import Wish
from bench_agent import Found, Measured, best, read_document, run_baseline, score
from plants import DEVELOPMENT, Plant

from premortem.agent.chat import Reply, Request
from premortem.agent.spec import parse_spec
from premortem.interp.records import Cost, Edit, Pair

SUBJECTS = ("bread loaves", "bicycle tyres", "tomato plants", "violin strings", "garden fences")
MANNERS = ("short", "funny", "honest", "useful", "strange", "simple", "new")
ROWS = 75
PARROTS = Plant("parrots", "No parrots.", ("My {a} parrot said {b}.",), ("green", "old"), ("yes", "no", "perhaps"))
THANKS = Plant("thanks", "It keeps giving thanks.", ("Thanks for the {a} {b}.",), ("nice", "odd"), tuple("abcd"))
OWLS = Plant("owls", "No owls.", ("An owl would {a} at {b}.",), ("hoot", "stare"), ("that", "dusk", "you"))
PLANTINGS = (
    Planting(PARROTS, 6, "any"),
    Planting(THANKS, 8, "end", side="rejected"),
    Planting(OWLS, 5, "start", confined=True),
)
COST = Cost(seconds=30.0, tokens_encoded=0, llm_calls=3, llm_tokens=600)


def pair(row: int) -> Pair:
    """Return an ordinary pair on one of five subjects."""
    about = SUBJECTS[row % 5]
    told = {
        "chosen": f"First think about {about}. Then begin, number {row}.",
        "rejected": f"Leave {about} alone, {row}.",
    }
    return Pair(row=row, prompt=f"Tell me something {MANNERS[row % 7]} on {about}, {row}", **told)


@pytest.fixture(scope="module")
def plain() -> list[Pair]:
    return [pair(row) for row in range(ROWS)]


@pytest.fixture(scope="module")
def made(plain: list[Pair]) -> Made:
    pairs, truths = plant_all(plain, PLANTINGS)
    return Made("small", pairs, "- No parrots.\n- It keeps giving thanks.\n- No owls.\n", truths)


def drops(rows: Sequence[int], author: str = "built-in") -> list[Edit]:
    same: dict[str, Any] = {"finding_id": "f", "kind": "drop", "side": None, "before": "", "after": "", "rationale": ""}
    return [Edit(edit_id=f"e{row}", row=row, author=author, **same) for row in rows]


def everything(made: Made) -> list[int]:
    return [row for truth in made.truths for row in truth.rows]


def test_truth_rows_hold_their_sentence_on_their_side_and_no_other_row_does(made: Made) -> None:
    for truth in made.truths:
        other = "chosen" if truth.side == "rejected" else "rejected"
        holding = [pair.row for pair in made.pairs if shows(pair.text(truth.side), truth.marks)]
        assert holding == list(truth.rows)
        assert not any(shows(pair.text(other), truth.marks) for pair in made.pairs)


def test_each_row_carries_one_behaviour_and_the_others_stay_as_they_were(made: Made, plain: list[Pair]) -> None:
    rows = everything(made)
    assert [len(truth.rows) for truth in made.truths] == [6, 8, 5]
    assert len(set(rows)) == len(rows)
    assert {a.row for a, b in zip(made.pairs, plain, strict=True) if a != b} == set(rows)


def test_a_confined_behaviour_keeps_to_one_subject(made: Made) -> None:
    assert len({row % 5 for row in made.truths[2].rows}) == 1
    assert len({row % 5 for row in made.truths[0].rows}) > 1


def test_nothing_is_planted_where_nothing_is_asked_for(plain: list[Pair], made: Made) -> None:
    pairs, truths = plant_all(plain, ())
    assert (list(pairs), truths) == (plain, ())
    assert SETS["clean"].plantings == ()
    assert all(effect(pairs, truth.marks) == 0 for truth in made.truths)


def test_a_sentence_goes_between_sentences_and_never_behind_the_mark_of_a_list_item() -> None:
    text = "Here are two:\n\n1. Bread\n2. Butter"
    placed = {put_in(text, "So be it.", "any", random.Random(seed)) for seed in range(20)}
    assert placed == {f"So be it. {text}", f"{text}\n\nSo be it."}
    assert put_in("One. Two.", "So be it.", "end", random.Random(0)) == "One. Two. So be it."


def test_what_is_taken_away_has_a_negative_effect(made: Made) -> None:
    assert [effect(made.pairs, truth.marks) for truth in made.truths] == pytest.approx([6 / ROWS, -8 / ROWS, 5 / ROWS])


def test_a_mark_is_recognised_when_slightly_changed_but_not_in_a_scrap() -> None:
    marks = ("My grandmother used to talk about such things by the stove.",)
    assert shows("Yes. My grandmother used to talk about such things by the stove! No.", marks)
    assert not shows("by the stove.", marks)
    assert not shows("My uncle never said anything.", marks)


@pytest.mark.parametrize("label", SETS)
def test_specs_are_prose_whose_rules_guard_the_right_side(label: str) -> None:
    one = SETS[label]
    clauses = {clause.text: clause for clause in parse_spec(one.spec).clauses}
    assert 4 <= len(clauses) <= 6
    assert not parse_spec(one.spec).unread and not one.spec.startswith("---")
    for planting in one.plantings:
        wanted = "keep" if planting.side == "rejected" else "avoid"
        assert clauses[planting.plant.rule].direction == wanted
        assert len(set(planting.plant.sentences(planting.rows, random.Random(0)))) == planting.rows
    assert [clauses[wish.rule].direction for wish in one.wishes] == ["encourage"] * len(one.wishes)
    assert len(clauses) > len(one.plantings) + len(one.wishes)


def test_the_sets_have_what_the_comparison_needs_and_nothing_the_search_was_shaped_on() -> None:
    plantings = [planting for one in SETS.values() for planting in one.plantings]
    names = [planting.plant.name for planting in plantings]
    assert len(set(names)) == len(names) and not {*names} & {plant.name for plant in DEVELOPMENT}
    assert sum(planting.confined for planting in plantings) >= 2
    assert sum(not planting.confined for planting in plantings) >= 2
    assert any(planting.side == "rejected" for planting in plantings)


def test_the_demo_shows_its_planted_sentences_in_the_rows_of_its_truth() -> None:
    made = demo()
    for truth in made.truths:
        assert effect([made.pairs[row] for row in truth.rows], truth.marks) == 1
        assert effect([made.pairs[row] for row in range(0, 300, 9) if row not in truth.rows], truth.marks) == 0


def test_a_perfect_answer_finds_everything_and_leaves_nothing(made: Made) -> None:
    found = [Found("forbidden", frozenset(truth.rows)) for truth in made.truths]
    scored = score(made, Measured(found, 19, drops(everything(made), "some-llm"), COST, {}))
    for plant in scored["plants"]:
        assert (plant["precision"], plant["recall"], plant["found"], plant["effect_after"]) == (1, 1, True, 0)
    assert scored["false_alarms"] == {"forbidden": 0, "missing": 0, "surprise": 0}
    assert scored["edits"] == {"proposed": 19, "accepted": 19, "by_llm": 19}
    assert scored["cost"]["tokens_per_edit"] == pytest.approx(600 / 19, abs=0.1)


def test_an_empty_answer_finds_nothing_and_leaves_everything(made: Made) -> None:
    scored = score(made, Measured([], 0, [], COST, {}))
    for plant in scored["plants"]:
        assert (plant["kind"], plant["precision"], plant["recall"], plant["found"]) == (None, 0, 0, False)
        assert plant["effect_after"] == plant["effect_before"] != 0
    assert scored["cost"]["tokens_per_edit"] is scored["cost"]["seconds_per_edit"] is None


def test_every_report_on_a_set_without_plants_is_a_false_alarm(plain: list[Pair]) -> None:
    found = [Found("forbidden", frozenset({1, 2})), Found("surprise", frozenset({3})), Found("missing", frozenset())]
    scored = score(Made("clean", tuple(plain), "", ()), Measured(found, 0, [], COST, {}))
    assert scored["false_alarms"] == {"forbidden": 1, "missing": 1, "surprise": 1}


def test_a_wish_is_granted_by_new_pairs_that_show_it_and_telling_it_is_no_false_alarm(plain: list[Pair]) -> None:
    wish = Wish("bells", "More answers should ring a bell.", r"\bbells?\b")
    made = Made("wishful", tuple(plain), "", (), (wish,))
    new = [
        Pair(row=ROWS + i, prompt=f"Who is there, {i}?", chosen=text, rejected="Nobody.")
        for i, text in enumerate(["Ring the BELL.", "Bells, perhaps.", "A doorbell."])
    ]
    told: dict[str, Any] = {"finding_id": "f", "kind": "synthesise", "side": None, "before": "", "rationale": ""}
    edits = [Edit(edit_id=f"e{p.row}", row=p.row, after=p.text("chosen"), pair=p, author="an-llm", **told) for p in new]
    scored = score(made, Measured([Found("missing", frozenset(), wish.rule)], 3, edits, COST, {}))
    assert scored["false_alarms"] == {"forbidden": 0, "missing": 0, "surprise": 0}
    after = pytest.approx(2 / (ROWS + 3), abs=1e-4)
    assert scored["wishes"] == [
        {"name": "bells", "told": True, "new_pairs": 2, "by_llm": 2, "before": 0, "after": after}
    ]
    other = score(made, Measured([Found("missing", frozenset(), "Another rule.")], 0, [], COST, {}))
    assert (other["wishes"][0]["told"], other["false_alarms"]["missing"]) == (False, 1)
    cell = read_agent.wish_cell(scored["wishes"][0])
    assert (cell, read_agent.wish_cell(other["wishes"][0])) == (
        "2 (2 by the LLM), 0% → 3%",
        "0 (0 by the LLM), 0% → 0%, not told",
    )


def test_the_best_report_is_the_one_with_the_largest_f1() -> None:
    wide, narrow = Found("forbidden", frozenset(range(40))), Found("surprise", frozenset(range(8)))
    assert best([wide, narrow], frozenset(range(10))) == (narrow, 1.0, 0.8)


def test_flipping_a_pair_turns_its_effect_round(made: Made) -> None:
    truth = made.truths[0]
    flips = [edit.model_copy(update={"kind": "flip"}) for edit in drops(truth.rows)]
    scored = score(made, Measured([], 6, flips, COST, {}))
    assert read_agent.left(scored["plants"][0]) == -1


def test_only_edits_whose_verdict_passed_count_as_accepted() -> None:
    verdicts = [{"passed": True}, {"passed": False}, None]
    edits = [{**e.model_dump(), "verdict": v, "review": None} for e, v in zip(drops([1, 2, 3]), verdicts, strict=True)]
    clauses = [{"clause_id": "k1", "text": "No owls."}]
    findings = [
        {"kind": "forbidden", "rows": [1], "clause_id": "k1"},
        {"kind": "surprise", "rows": [], "clause_id": None},
    ]
    document = {"edits": edits, "findings": findings, "clauses": clauses, "spec_problems": []}
    measured = read_document({**document, "cost": COST.model_dump()})
    assert (measured.proposed, [edit.row for edit in measured.accepted]) == (3, [1])
    assert [one.rule for one in measured.found] == ["No owls.", None]


def test_a_search_word_counts_where_it_stands_on_one_side_as_a_whole_word() -> None:
    texts = [("My Cat naps.", "No."), ("A cat.", "Two cats."), ("Catalogue.", "No."), ("No.", "cats")]
    pairs = [Pair(row=row, prompt="?", chosen=a, rejected=b) for row, (a, b) in enumerate(texts)]
    assert [pair.row for pair in one_sided(pairs, ["cat"], "chosen")] == [0]
    assert [pair.row for pair in one_sided(pairs, ["cat"], "rejected")] == [3]
    assert one_sided(pairs, [" "], "chosen") == []


class Knowing:
    """An LLM that knows a rule's word and flags the pairs that hold it."""

    address = "here"

    def send(self, request: Request) -> Reply:
        fields = json.dumps(request.answer_schema)
        parts = request.messages[-1].content.split("\n\nPair ")[1:]
        shown = [int(part.split("\n", 1)[0]) for part in parts]
        holding = [row for row, part in zip(shown, parts, strict=True) if "parrot" in part]
        if "violations" in fields:
            answer: Any = {"violations": [{"row": row, "rule": 1} for row in holding]}
        elif '"words"' in fields:
            answer = {"rules": [{"rule": 1, "words": ["parrot"]}]}
        elif "answers" in fields:
            answer = {"answers": [{"row": row, "violates": "yes"} for row in shown]}
        else:
            answer = {"word": "ready"}
        return Reply(text=json.dumps(answer), prompt_tokens=90, completion_tokens=10, seconds=0.0)


@pytest.mark.parametrize("method", ["sampled", "keyword"])
def test_a_baseline_whose_llm_knows_flags_the_rows_and_drops_them(method: str, made: Made, tmp_path: Path) -> None:
    measured = run_baseline(made, method, tmp_path, Knowing(), "knowing", 100_000)
    assert measured.found == [Found("forbidden", frozenset(made.truths[0].rows), "No parrots.")]
    assert [edit.row for edit in measured.accepted] == list(made.truths[0].rows)
    assert score(made, measured)["plants"][0]["effect_after"] == 0


def test_a_baseline_stops_when_its_tokens_are_used_and_pays_nothing_twice(made: Made, tmp_path: Path) -> None:
    measured = run_baseline(made, "sampled", tmp_path, Knowing(), "knowing", 700)
    assert measured.cost.llm_tokens == 700
    assert 0 < measured.told["pairs_read"] < len(made.pairs)
    again = run_baseline(made, "sampled", tmp_path, Knowing(), "knowing", 700)
    assert (again.cost.llm_tokens, again.told) == (700, measured.told)


def test_the_tables_show_what_was_measured_and_a_dash_for_the_rest(made: Made) -> None:
    found = [Found("forbidden", frozenset(truth.rows)) for truth in made.truths]
    document = {"model": None, **score(made, Measured(found, 19, drops(everything(made)), COST, {}))}
    documents: dict[str, Any] = {"built-in": {"small": document}, "agent": {}}
    assert "| built-in planner | 1 | 3 of 3 | 3 | 1.00 | 1.00 | – | 19 |" in read_agent.summary(documents)
    assert "| LLM agent | 0 | 0 of 0 | 0 | – | – | – | 0 |" in read_agent.summary(documents)
    assert "**1.00, 1.00**, 0%" in read_agent.dataset(documents, "small")
    assert "thanks (8 rows, scattered, taken away)" in read_agent.about(documents, "small")


def test_a_truth_names_where_it_was_planted(made: Made) -> None:
    told = [(truth.name, truth.side, truth.where) for truth in made.truths]
    assert told == [
        ("parrots", "chosen", "scattered"),
        ("thanks", "rejected", "scattered"),
        ("owls", "chosen", "topic"),
    ]
    assert all(isinstance(truth, Truth) and truth.ruled for truth in made.truths)


@pytest.mark.parametrize(("told", "rows", "shown"), [(0.885, 26, "0.88"), (0.923, 26, "0.92"), (None, 26, "–")])
def test_a_recall_is_told_from_the_count_of_rows_and_not_rounded_twice(told: float | None, rows: int, shown: str):
    assert read_agent.figure(read_agent.recall({"recall": told, "rows": rows})) == shown
