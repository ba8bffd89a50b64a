"""Clauses find their concepts, edits are judged, spans are traced: on responses with known planted concepts."""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from premortem.interp.discover import Discovery, discover
from premortem.interp.learner import Learner
from premortem.interp.matching import (
    Evidence,
    Match,
    Texts,
    assign,
    claims,
    gather,
    heard,
    match_clause,
    own_readout,
    stands_for,
    stem,
    word_marks,
)
from premortem.interp.one_sided import sharpest_marks
from premortem.interp.pooling import TokenRows
from premortem.interp.readout import Bag, Part, Readout, sign_z, signed_rows, units_of
from premortem.interp.records import Clause, Direction
from premortem.interp.sides import Edited, Responses
from premortem.interp.trace import spans
from premortem.interp.verify import (
    Guarded,
    VerifyBounds,
    Where,
    _collateral,
    effect_of,
    judge_set,
    random_rows,
    within,
)
from synthetic import TOKENS, responses, token_rows

ROWS = list(range(0, 90, 3))
FIRST, SECOND = [5, 17, 41], [60, 72, 99]
PLANT = [5, 17, 41, 88]


def clause(direction: Direction = "avoid", limit: float = 0.05, **fields: object) -> Clause:
    values = {"clause_id": "c", "text": "t", "behaviour": "b", "direction": direction, "limit": limit, **fields}
    return Clause.model_validate(values)


@pytest.mark.parametrize(
    ("plural", "singular"), [("dragons", "dragon"), ("puppies", "pupp"), ("flattering", "flatter"), ("links", "link")]
)
def test_a_stem_is_what_inflections_share(plural: str, singular: str) -> None:
    assert stem(plural) == singular


def test_a_word_counts_only_where_the_prompt_did_not_ask_for_it() -> None:
    texts = Texts(["A dragon!", "Dragons fly.", "tea", "tea"] + ["tea"] * 4, ["hi", "Tell me of dragons", "x", "y"])
    assert word_marks(["dragons"], texts).tolist() == [True] + [False] * 7


def test_a_word_that_stands_everywhere_marks_nothing() -> None:
    assert not word_marks(["tea"], Texts(["tea"] * 8, ["a"] * 4)).any()


def test_a_detector_comes_before_quotations_behaviours_and_words() -> None:
    texts = Texts(["see http://a.b", "dear friend", "dragon", "none"] + ["none"] * 4, ["q"] * 4)
    behaviour = Evidence("politeness", np.arange(8) == 3, literal=True)
    full = clause(detector="https?://", examples=("Dear friend",), words=("dragons",))
    assert [e.source for e in gather(full, texts, [behaviour])] == ["detector", "quoted", "politeness", "words"]


@pytest.mark.parametrize(
    ("example", "text", "marked"),
    [
        ("ok", "OK, that works.", True),
        ("ok", "It is ok!", True),
        ("ok", "Look at the book.", False),
        ("ok", "Tokyo is large.", False),
        ("I cannot help", "Sorry, i cannot help, friend.", True),
        ("I cannot help", "Hawaii cannot helpfully say.", False),
        ("!!", "Wow!!", True),
        ("(sic)", "as it was(sic)so", True),
        ("您好", "老师您好吗", True),
        ("고블린", "고블린은 작다", True),
    ],
)
def test_a_quotation_is_found_as_whole_words(example: str, text: str, marked: bool) -> None:
    texts = Texts([text, "other", "other", "other"], ["q", "q"])
    assert [list(e.marks) for e in gather(clause(examples=(example,)), texts, [])] == (
        [[True, False, False, False]] if marked else []
    )


def test_evidence_claims_the_concept_that_discovery_found_blind() -> None:
    data = responses(200, dict.fromkeys(ROWS, tuple(PLANT)))
    learner = Learner(data)
    found = discover(learner)
    marks = np.isin(np.arange(400), ROWS[:20])
    matches = match_clause(clause(), [Evidence("words", marks, literal=False)], learner, found)
    assert [match.discovered for match in matches] == [True]
    scores = Evidence("ranked", marks, literal=True, scores=found[0].readout.score(data.bag))
    assert claims([scores], data, found[0]) is scores


def test_a_few_rows_that_agree_do_not_keep_evidence_from_the_others() -> None:
    data = responses(200, dict.fromkeys(ROWS, tuple(PLANT)))
    learner = Learner(data)
    whole = discover(learner)[0]
    scores = whole.readout.score(data.bag)
    few = dataclasses.replace(whole.readout, threshold=float(np.sort(scores)[-9]))
    narrow = dataclasses.replace(whole, readout=few, signs=signed_rows(few.fires(data.bag), 200))
    item = Evidence("ranked", np.isin(np.arange(400), ROWS), literal=True, scores=scores)
    found = match_clause(clause(), [item], learner, [narrow])
    assert [match.discovered for match in found] == [False, True]
    assert [int((match.signs > 0).sum()) for match in found] == [pytest.approx(len(ROWS), abs=3), 8]
    assert [match.discovered for match in match_clause(clause(), [item], learner, [whole])] == [True]


def test_evidence_about_something_else_claims_nothing() -> None:
    data = responses(200, dict.fromkeys(ROWS, tuple(PLANT)))
    other = Evidence("words", np.isin(np.arange(400), range(300, 330)), literal=False)
    assert claims([other], data, discover(Learner(data))[0]) is None


def test_evidence_that_the_lens_cannot_recognise_gets_no_readout() -> None:
    data = responses(120, {})
    marks = np.random.default_rng(3).random(240) < 0.15
    assert own_readout(Evidence("words", marks, literal=True), Learner(data)) is None


def test_a_ranking_is_cut_where_it_is_most_one_sided() -> None:
    noise = np.random.default_rng(0).random(380)
    scores = np.concatenate([np.linspace(5, 6, 20), noise])
    marks = sharpest_marks(scores, responses(200, {}), 0.1)
    assert marks[:20].sum() >= 18
    assert marks[20:].sum() <= 3


@pytest.mark.parametrize(
    ("direction", "effect", "fine"),
    [
        ("avoid", 0.04, True),
        ("avoid", 0.06, False),
        ("avoid", -0.5, True),
        ("keep", -0.04, True),
        ("keep", -0.06, False),
        ("keep", 0.5, True),
        ("encourage", 0.06, True),
        ("encourage", 0.04, False),
    ],
)
def test_a_limit_guards_one_direction(direction: Direction, effect: float, fine: bool) -> None:
    assert within(effect, clause(direction)) is fine


def made(rows: range, z_rows: int = 200) -> Discovery:
    signs = np.zeros(z_rows, dtype=np.int64)
    signs[list(rows)] = 1
    return Discovery(Readout(Part(), Part(), 0.0), signs, sign_z(signs), 1.0)


def match(found: Discovery, source: str, discovered: bool = True) -> Match:
    return Match(found.readout, found.signs, source, discovered)


def test_what_the_lens_hears_comes_first_and_leaves_the_clause_that_it_is_not_about() -> None:
    stars, creatures = made(range(25)), made(range(100, 120))
    given = {"stars": [match(made(range(60, 70)), "words", False)], "creatures": [match(stars, "pet_word")]}
    assigned = assign(given, {"stars": stars, "creatures": creatures})
    assert [m.source for m in assigned["stars"]] == ["lens"]
    assert [m.signs.tolist() for m in assigned["creatures"]] == [creatures.signs.tolist()]


def test_a_clause_keeps_what_its_own_detector_found() -> None:
    links = made(range(25))
    assigned = assign({"links": [match(links, "detector")], "web": []}, {"web": links})
    assert [m.source for m in assigned["links"]] == ["detector"]


def test_what_a_rule_says_exactly_stays_beside_what_the_lens_hears_in_it() -> None:
    marked, heard_too, same = made(range(40)), made(range(100, 115)), made(range(38))
    told = {"a": [match(marked, "detector", False), match(same, "words", False)]}
    assigned = assign(told, {"a": heard_too})
    assert [m.source for m in assigned["a"]] == ["lens", "detector"]
    assert [m.source for m in assign(told, {"a": same})["a"]] == ["lens"]


def test_words_are_found_in_scripts_without_spaces() -> None:
    texts = Texts(["请关注我们的公众号吧", "没有", "公众", "公众号"] + ["x"] * 4, ["好吗", "好", "好", "公众号是什么"])
    assert word_marks(["公众号"], texts).tolist() == [True] + [False] * 7


def test_a_concept_answers_to_the_clause_that_says_what_it_says() -> None:
    data = responses(200, dict.fromkeys(range(25), FIRST) | dict.fromkeys(range(60, 85), SECOND))
    found = discover(Learner(data))
    said = [responses(1, {0: plant}, seed=seed).bag for seed in (5, 6) for plant in (FIRST, SECOND, [3, 30, 77])]
    chosen = [Bag(bag.x[:1], bag.units.between(0, TOKENS), bag.starts[:2]) for bag in said]
    spoken = Bag(
        sparse.vstack([bag.x for bag in chosen], format="csr"),
        TokenRows.joined([bag.units for bag in chosen]),
        np.arange(len(chosen) + 1) * TOKENS,
    )
    about = {
        answer.clause: set(np.flatnonzero(answer.discovery.signs > 0)) for answer in heard(found, (), data, spoken)
    }
    assert set(about) == {0, 1}
    assert len(about[0] & set(range(25))) >= 22
    assert len(about[1] & set(range(60, 85))) >= 22


def test_a_concept_stands_for_a_rule_whose_examples_it_fires_on() -> None:
    data = responses(200, dict.fromkeys(range(25), FIRST) | dict.fromkeys(range(60, 85), SECOND))
    readout = next(one.readout for one in discover(Learner(data)) if (one.signs[:25] > 0).mean() > 0.8)
    said = responses(4, dict.fromkeys(range(4), FIRST), seed=5).bag
    shown, plain, others = (
        Bag(said.x[a:b], said.units.between(a * TOKENS, b * TOKENS), said.starts[a : b + 1] - said.starts[a])
        for a, b in ((0, 4), (4, 8), (0, 2))
    )
    assert stands_for(readout, shown, data) > 0.6
    assert stands_for(readout, plain, data) == 0.0
    assert stands_for(readout, others, data) == 0.0  # two examples say nothing


def test_an_effect_is_measured_through_the_readout() -> None:
    data = responses(100, dict.fromkeys(range(20), tuple(PLANT)))
    found = discover(Learner(data))[0]
    assert effect_of(found.readout, data).effect == pytest.approx(0.2, abs=0.03)
    assert Guarded("c", "n", found.readout).clause is None
    assert VerifyBounds().collateral < 0.1


def planted_in(rows: range, seed: int = 0) -> tuple[Responses, Readout]:
    data = responses(100, dict.fromkeys(rows, tuple(PLANT)), seed=seed)
    return data, discover(Learner(data))[0].readout


def test_an_effect_can_be_confined_to_some_prompts_before_and_after_edits() -> None:
    data, readout = planted_in(range(20))
    assert effect_of(readout, data, Where(np.arange(25))).effect > 0.7
    assert abs(effect_of(readout, data, Where(np.arange(30, 100))).effect) < 0.1
    without = Edited(data, np.arange(15, 100), None)  # what stands in rows 15 to 19 is left
    assert effect_of(readout, without, Where(np.arange(10, 25))).effect == pytest.approx(
        effect_of(readout, data, Where(np.arange(15, 25))).effect
    )
    assert effect_of(readout, without, Where(np.arange(5))).effect == 0.0


def test_an_example_that_hardly_stands_in_the_data_leaves_a_rule_its_words() -> None:
    data = responses(200, dict.fromkeys(range(25), FIRST))
    words = np.isin(np.arange(400), range(25))
    quoted = np.isin(np.arange(400), [3])
    evidence = [Evidence("quoted", quoted, literal=True), Evidence("words", words, literal=False)]
    (match,) = match_clause(clause(), evidence, Learner(data), ())
    assert match.source == "words"


@pytest.mark.parametrize(
    ("limit", "before", "after", "breaks"),
    [
        (0.05, 4, 6, True),  # pushed out of its limit
        (0.05, 4, 5, False),
        (0.01, 0, 2, False),  # outside its limit, but two pairs of 100 say nothing
        (0.01, 0, 4, True),
        (0.02, 10, 14, True),  # outside already, and worse by more than the limit
        (0.02, 10, 12, False),
        (0.02, 10, 6, False),
    ],
)
def test_a_clause_must_not_be_pushed_out_nor_further_out(limit: float, before: int, after: int, breaks: bool) -> None:
    def planted(n: int) -> Responses:
        return Responses(exact_bag(n), np.arange(100))

    readout = Readout(Part((0,), (1.0,)), Part((), ()), 0.5)
    guarded = Guarded("c", "n", readout, clause(limit=limit))
    view = Edited(planted(before), np.arange(0), planted(after))
    assert _collateral(guarded, planted(before), view, 0.01, VerifyBounds()).breaks is breaks


def test_edits_of_a_finding_within_a_topic_are_judged_there() -> None:
    """Of 40 pairs of a topic among 100, 12 show the concept; it falls elsewhere, so that over all pairs it is level."""
    marks = np.zeros(100, dtype=int)
    marks[:12], marks[60:72] = 1, -1
    tokens = np.zeros((200, 4))
    tokens[np.flatnonzero(marks > 0), 0] = tokens[100 + np.flatnonzero(marks < 0), 0] = 1.0
    x = sparse.csr_matrix(tokens.astype(np.float32))
    data = Responses(Bag(x, units_of(token_rows(tokens)), np.arange(201), x), np.arange(100))
    target = Guarded("c", "n", Readout(Part((0,), (1.0,)), Part((), ()), 0.5), clause(limit=0.01))
    reading: Any = SimpleNamespace(responses=data)

    def reasons(dropped: range, prompts: np.ndarray | None) -> tuple[str, ...]:
        view = Edited(data, np.setdiff1d(np.arange(100), dropped), None)
        return judge_set(
            replace(target, where=Where(prompts)), reading, view, controls=[], others=[], second=None,
            n_edits=len(dropped), bounds=VerifyBounds(),
        ).reasons  # fmt: skip

    topic = np.arange(40)
    assert reasons(range(12), topic) == ()
    assert any("still" in reason for reason in reasons(range(4), topic))
    assert any("still" in reason for reason in reasons(range(60, 72), topic))
    assert any("no nearer" in reason for reason in reasons(range(60, 72), topic))
    assert not any("random edits" in reason for reason in reasons(range(60, 72), topic))  # there is no gain to compare
    assert not any("still" in reason for reason in reasons(range(4), None))  # over all pairs nothing was the matter


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_edits_must_do_clearly_better_than_random_ones(share: float) -> None:
    """However many pairs show the concept: edits of those pairs pass, as many edits of any pairs are no proof."""
    n = round(100 * share)
    data = Responses(exact_bag(n), np.arange(100))
    target = Guarded("c", "n", Readout(Part((0,), (1.0,)), Part((), ()), 0.5), clause(limit=0.0))
    reading: Any = SimpleNamespace(responses=data)

    def without(dropped: Sequence[int]) -> Edited:
        return Edited(data, np.setdiff1d(np.arange(100), dropped), None)

    def reasons(edited: Edited, controls: Sequence[Edited]) -> str:
        return " ".join(
            judge_set(
                target, reading, edited, controls=controls, others=[], second=None, n_edits=n, bounds=VerifyBounds()
            ).reasons
        )

    drawn = [without(random_rows(np.arange(100), n, seed)) for seed in (0, 1)]
    aimed = without(range(n))
    assert "random edits" not in reasons(aimed, drawn)
    assert reasons(aimed, []) == ""
    flips = without(range(n // 2))  # half of them gone: what is left shows the concept as often as the random sets do
    assert "random edits" in reasons(flips, [flips, flips])


@pytest.mark.parametrize(("gone", "refused"), [(20, False), (13, False), (11, True), (0, True)])
def test_a_second_lens_that_still_sees_the_effect_refuses_the_edits(gone: int, refused: bool) -> None:
    """The first lens sees the effect vanish; in the second, `gone` of the 20 pairs that show it no longer do."""
    before, nothing = (Responses(exact_bag(n), np.arange(100)) for n in (20, 0))
    left = Responses(exact_bag(20 - gone), np.arange(100))
    target = Guarded("c", "n", Readout(Part((0,), (1.0,)), Part((), ()), 0.5), clause(limit=0.01))
    reading: Any = SimpleNamespace(responses=before)
    fixed, seen = (Edited(before, np.arange(0), after) for after in (nothing, left))
    outcome = judge_set(
        target, reading, fixed, controls=[], others=[], second=(target.readout, before, seen), n_edits=20,
        bounds=VerifyBounds(),
    )  # fmt: skip
    after = (20 - gone) / 100
    assert (outcome.second_before, outcome.second_after) == (pytest.approx(0.2), pytest.approx(after))
    told = f"the second lens still sees {after:+.3f} (before: +0.200)"
    assert outcome.reasons == ((told,) if refused else ())


def test_random_rows_are_any_rows_and_as_many() -> None:
    rows = np.asarray([3, 5, 8, 13])
    assert all(set(random_rows(rows, 2, seed)) < {3, 5, 8, 13} for seed in range(5))
    assert {row for seed in range(20) for row in random_rows(rows, 2, seed)} == {3, 5, 8, 13}
    assert random_rows(rows, 9, 0) == [3, 5, 8, 13]


def exact_bag(n: int) -> Bag:
    """Return 100 pairs of which the first `n` chosen responses show feature 0."""
    tokens = np.zeros((200, 4))
    tokens[:n, 0] = 1.0
    x = sparse.csr_matrix(tokens.astype(np.float32))
    return Bag(x, units_of(token_rows(tokens)), np.arange(201), x)


def test_spans_are_the_pieces_without_which_the_concept_is_quiet() -> None:
    tokens = np.zeros((6, 4), np.float32)
    tokens[2, 1] = tokens[3, 1] = 3.0  # the second of three pieces fires
    tokens[5, 2] = 3.0  # a feature that does not matter
    readout = Readout(Part((1,), (1.0,)), Part((1,), (1.0,)), 1.5)
    offsets = [(0, 2), (2, 4), (5, 7), (7, 9), (10, 12), (12, 14)]
    found = spans(readout, token_rows(tokens), 4, offsets, [(0, 5), (5, 10), (10, 14)])
    assert [(span.start, span.end) for span in found] == [(5, 10)]
    assert spans(readout, token_rows(np.zeros((6, 4))), 4, offsets, [(0, 14)]) == ()


def test_a_word_belongs_to_its_own_piece_though_its_token_begins_with_the_space_before() -> None:
    tokens = np.zeros((4, 4), np.float32)
    tokens[2, 1] = 3.0  # " Never", the first word of the second piece
    readout = Readout(Part((1,), (1.0,)), Part((1,), (1.0,)), 1.5)
    found = spans(readout, token_rows(tokens), 4, [(0, 4), (4, 5), (5, 11), (11, 16)], [(0, 6), (6, 16)])
    assert [(span.start, span.end) for span in found] == [(6, 16)]


def test_effects_after_edits_are_those_of_the_edited_data_read_whole() -> None:
    data = responses(100, dict.fromkeys(range(20), tuple(PLANT)))
    readout = discover(Learner(data))[0].readout
    fresh = responses(3, {}, seed=4)
    kept = np.arange(5, 100)
    view = Edited(data, kept, Responses(fresh.bag, np.asarray([0, 1, 100])))
    signs = np.concatenate([signed_rows(data.fires(readout), 100)[kept], signed_rows(fresh.fires(readout), 3)])
    assert view.n_pairs == 98
    assert signed_rows(view.fires(readout), 98).tolist() == signs.tolist()
    assert effect_of(readout, view).effect == pytest.approx(signs.mean())
    assert sorted(set(view.groups.tolist())) == list(range(98))
    dropped = Edited(data, kept, None)
    assert effect_of(readout, dropped).effect == pytest.approx(signed_rows(data.fires(readout), 100)[kept].mean())
