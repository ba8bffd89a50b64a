"""Discovery and readouts on responses whose planted concepts are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from premortem.interp.discover import discover, grow, led
from premortem.interp.growth import _worthiest, candidates, parted, widened
from premortem.interp.learner import Learner
from premortem.interp.one_sided import chance_level, column_z, one_sided_threshold, purity_bound
from premortem.interp.pooling import no_tokens
from premortem.interp.readout import (
    Bag,
    Part,
    Passages,
    Readout,
    best_agreement,
    best_passage,
    prompt_groups,
    sign_z,
    signed_rows,
)
from synthetic import D_SAE, TOKENS, responses

ROWS = list(range(0, 90, 3))
PLANT = [5, 17, 41, 88]
FIRST, SECOND = [5, 17, 41], [60, 72, 99]


def test_a_concept_planted_in_chosen_responses_is_found_with_its_rows() -> None:
    found = discover(Learner(responses(200, dict.fromkeys(ROWS, PLANT))))
    rows = np.flatnonzero(found[0].signs > 0)
    hits = len(set(rows) & set(ROWS))
    assert hits / len(rows) >= 0.9
    assert hits / len(ROWS) >= 0.8


def test_swapping_sides_turns_what_is_found_round() -> None:
    found = discover(Learner(responses(200, dict.fromkeys(ROWS, PLANT), side=1)))
    assert found[0].z < 0
    assert set(np.flatnonzero(found[0].signs < 0)) <= set(range(90))


def test_nothing_is_found_where_nothing_is_planted() -> None:
    assert sum(len(discover(Learner(responses(150, {}, seed=seed)))) for seed in range(1, 6)) <= 1


def test_two_planted_concepts_are_kept_apart() -> None:
    first, second = dict.fromkeys(range(30), FIRST), dict.fromkeys(range(60, 90), SECOND)
    found = discover(Learner(responses(220, first | second)))
    best = [max(len(set(np.flatnonzero(d.signs > 0)) & set(rows)) for d in found) for rows in (first, second)]
    assert min(best) >= 24
    for item in found:
        rows = set(np.flatnonzero(item.signs > 0))
        assert min(len(rows & set(first)), len(rows & set(second))) <= 3


def test_a_concept_spread_over_the_rows_of_others_is_kept_beside_them() -> None:
    wide = dict.fromkeys(range(70), FIRST) | dict.fromkeys(range(70, 140), SECOND)
    spread = set(range(0, 200, 6))
    found = discover(
        Learner(responses(200, {row: wide.get(row, []) + [30, 110] * (row in spread) for row in range(200)}))
    )
    assert len(spread & set(range(140))) > 0.6 * len(spread)
    assert max(len(set(np.flatnonzero(d.signs > 0)) & spread) / (d.signs > 0).sum() for d in found) >= 0.8


@pytest.mark.parametrize("share", [0.5, 0.7, 0.85])
def test_what_most_pairs_show_is_found(share: float) -> None:
    rows = set(range(int(share * 100)))
    found = discover(Learner(responses(100, dict.fromkeys(rows, PLANT))))
    assert max(len(rows & set(np.flatnonzero(d.signs > 0))) for d in found) >= 0.95 * len(rows)


def test_what_a_concept_widens_into_still_holds_it() -> None:
    data = responses(220, dict.fromkeys(range(30), FIRST) | dict.fromkeys(range(60, 90), SECOND))
    learner = Learner(data)
    narrow = max(candidates(learner, np.arange(440) < 15, None, 1.0), key=lambda one: one.worth)
    rows = [set(np.flatnonzero(part.signs > 0)) for part in widened(learner, narrow)]
    assert max(len(found & set(range(30))) for found in rows) >= 24
    assert min(len(found & set(range(60, 90))) for found in rows) <= 3


def test_what_runs_into_others_does_not_hide_what_grew_on_the_way() -> None:
    learner = Learner(responses(220, dict.fromkeys(range(30), FIRST)))
    start = max(candidates(learner, np.arange(440) < 15, None, 1.0), key=lambda one: one.worth)
    some = np.zeros(440, dtype=bool)
    some[np.flatnonzero(start.marks)[:10]] = True
    narrow = replace(start, marks=some)
    on_the_way, into_others = replace(start, agreement=0.9), replace(start, marks=np.arange(440) < 200)
    assert _worthiest([on_the_way, into_others], narrow) == [into_others, on_the_way]
    assert _worthiest([on_the_way, replace(into_others, agreement=0.8)], narrow) == [on_the_way]
    assert _worthiest([replace(start, signs=-start.signs)], narrow) == []


def test_a_candidate_knows_in_which_passages_it_shows() -> None:
    data = responses(200, dict.fromkeys(ROWS, PLANT))
    learner = Learner(data)
    marks = np.zeros(400, dtype=bool)
    marks[ROWS[:15]] = True
    best = max(candidates(learner, marks, None, 1.0), key=lambda one: one.worth)
    scores, passages = learner.along(best.heading), data.bag.passages
    fires = np.asarray(data.bag.units.matrix(D_SAE)[:, PLANT].todense()).all(1)
    for row in set(ROWS) & set(np.flatnonzero(best.marks).tolist()):
        first, last = passages.starts[[row, row + 1]]
        at = first + int(np.argmax(scores[first:last]))
        assert fires[passages.begin[at] : passages.end[at]].any()


def test_growing_from_half_of_the_rows_brings_in_the_others() -> None:
    data = responses(200, dict.fromkeys(ROWS, PLANT))
    marks = np.zeros(400, dtype=bool)
    marks[ROWS[:15]] = True
    grown = grow(Learner(data), marks)
    assert grown is not None
    assert len(set(np.flatnonzero(grown.signs > 0)) & set(ROWS)) >= 24


def test_scores_recognise_a_response_that_was_left_out() -> None:
    data = responses(120, dict.fromkeys(range(30), PLANT))
    y = np.arange(240) < 30
    assert roc_auc_score(y, Learner(data).fit(y).scores) > 0.98


def test_scores_hardly_know_their_own_marks() -> None:
    data = responses(150, {})
    learner = Learner(data)
    left_out, fitted = [], []
    for seed in range(8):
        y = np.random.default_rng(seed).random(300) < 0.1
        learnt = learner.fit(y)
        left_out.append(roc_auc_score(y, learnt.scores))
        fitted.append(roc_auc_score(y, learnt.readout.score(data.bag)))
    assert np.mean(left_out) < 0.62  # the choice of a response's best passage still knows its mark
    assert np.mean(fitted) > 0.85


def test_a_readout_says_of_a_text_what_learning_said_of_it() -> None:
    data = responses(120, dict.fromkeys(range(30), PLANT))
    y = np.arange(240) < 30
    learnt = Learner(data).fit(y)
    scores = learnt.readout.score(data.bag)
    np.testing.assert_allclose(scores[~y], learnt.scores[~y], rtol=1e-3, atol=1e-3)
    assert (learnt.readout.fires(data.bag) == (scores > learnt.readout.threshold)).all()
    assert {feature for feature, weight in learnt.readout.strongest(4) if weight > 0} <= set(PLANT)


def test_minimal_pairs_teach_a_ranking_of_the_dataset() -> None:
    data = responses(150, dict.fromkeys(ROWS, PLANT))
    pairs = responses(12, dict.fromkeys(range(12), PLANT), seed=9)
    scores = Learner(data).fit_pairs(pairs.bag).score(data.bag)
    assert roc_auc_score(np.isin(np.arange(300), ROWS), scores) > 0.95


def marked(scores: np.ndarray, direction: float = 1.0) -> set[int]:
    return set(np.flatnonzero(scores > one_sided_threshold(scores, len(scores) // 2, direction)))


def bulk(n: int = 400) -> np.ndarray:
    return np.random.default_rng(0).normal(size=n)


def test_the_threshold_takes_in_whatever_stands_on_one_side() -> None:
    scores = bulk()
    scores[:10], scores[10:25] = 12.0, np.linspace(6, 8, 15)
    assert marked(scores) == set(range(25))


def test_the_threshold_stops_where_both_sides_are_alike() -> None:
    scores = bulk()
    scores[:20] = 9.0
    scores[20:40] = scores[220:240] = np.linspace(5, 6, 20)  # the same in both responses of a pair, and in others
    scores[40:60], scores[260:280] = np.linspace(5, 6, 20), np.linspace(5, 6, 20)
    assert marked(scores) == set(range(20))


def test_the_threshold_lies_in_the_valley_before_another_concept_of_the_same_side() -> None:
    scores = bulk()
    scores[:25], scores[25:60] = np.linspace(9, 11, 25), np.linspace(2.5, 4, 35)
    assert marked(scores) == set(range(25))


def test_the_threshold_turns_with_the_sides() -> None:
    scores = bulk()
    scores[:25] = 9.0
    assert marked(np.roll(scores, 200), -1.0) == {row + 200 for row in range(25)}


def test_two_concepts_that_one_beginning_has_mixed_areparted() -> None:
    first, second = dict.fromkeys(range(28), FIRST), dict.fromkeys(range(60, 88), SECOND)
    data = responses(220, first | second)
    learner = Learner(data)
    marks = np.isin(np.arange(440), [*first, *second])
    mixed = list(candidates(learner, marks, None, 1.0))[-1]
    assert (mixed.marks & marks).sum() >= 50
    parts = parted(learner, mixed)
    assert len(parts) == 2
    for part in parts:
        rows = set(np.flatnonzero(part.signs > 0))
        assert min(len(rows & set(first)), len(rows & set(second))) <= 2
        assert max(len(rows & set(first)), len(rows & set(second))) >= 24


def test_one_concept_is_notparted() -> None:
    learner = Learner(responses(200, dict.fromkeys(ROWS, PLANT)))
    whole = list(candidates(learner, np.isin(np.arange(400), ROWS), None, 1.0))[-1]
    assert parted(learner, whole) == [whole]


def test_a_text_leads_to_the_concept_that_it_shows() -> None:
    data = responses(200, dict.fromkeys(range(25), FIRST) | dict.fromkeys(range(60, 85), SECOND))
    spoken, usual = responses(1, {0: SECOND}, seed=5).bag, responses(6, {}, seed=6).bag
    found = led(Learner(data), spoken, usual)
    rows = [set(np.flatnonzero(item.signs > 0)) for item in found]
    assert any(len(own & set(range(60, 85))) >= 22 and len(own & set(range(25))) <= 2 for own in rows)


def test_empty_parts_score_zero() -> None:
    data = responses(5, {})
    assert (Readout(Part(), Part(), 0.0).score(data.bag) == 0).all()


def test_passages_cover_every_token_and_never_two_responses() -> None:
    starts = np.asarray([0, 3, 3, 24, 32])
    passages = Passages.of(starts)
    covered = [set(range(a, b)) for a, b in zip(passages.begin, passages.end, strict=True)]
    assert set().union(*covered) == set(range(32))
    for owner, tokens in zip(passages.owner, covered, strict=True):
        assert starts[owner] <= min(tokens)
        assert max(tokens) < starts[owner + 1]


def test_the_best_passage_is_a_mean_of_neighbouring_tokens() -> None:
    values = np.zeros(24)
    values[[4, 5, 6, 7, 20]] = 1.0
    assert best_passage(values, Passages.of(np.asarray([0, 16, 16, 24]))).tolist() == [0.5, 0.0, 0.125]


def test_tokens_are_scaled_to_length_one() -> None:
    units = responses(4, {0: PLANT}).bag.units.matrix(D_SAE)
    lengths = np.sqrt(np.asarray(units.multiply(units).sum(1)).ravel())
    assert set(np.round(lengths, 2)) <= {0.0, 1.0}


def test_responses_without_tokens_are_the_least_likely() -> None:
    empty = Bag(sparse.csr_matrix((2, 5)), no_tokens(5), np.zeros(3, dtype=np.int64))
    assert (Readout(Part(), Part((1,), (1.0,)), 0.0).score(empty) == 0).all()


def test_signs_and_their_statistic() -> None:
    fires = np.asarray([True, True, False, False, True, False])
    assert signed_rows(fires, 3).tolist() == [1, 0, 0]
    assert sign_z(np.asarray([1] * 8)) == pytest.approx(8 / 3)
    assert sign_z(np.asarray([1, -1])) == 0


def test_agreement_separates_two_clear_groups() -> None:
    scores = np.concatenate([np.linspace(-1, 1, 80), np.linspace(9, 11, 20)])
    y = np.arange(100) >= 80
    assert 1 < best_agreement(scores, y) < 9


def test_recall_is_favoured_by_a_larger_beta() -> None:
    rng = np.random.default_rng(0)
    scores, y = rng.normal(size=200), rng.random(200) < 0.2
    scores = scores + 1.5 * y
    assert best_agreement(scores, y, 2.0) <= best_agreement(scores, y, 1.0)


def test_pairs_that_share_a_prompt_are_swapped_together() -> None:
    column = sparse.csr_matrix(np.ones((40, 1)))
    alone, together = np.arange(40), np.repeat(np.arange(4), 10)
    assert chance_level(column, together) > chance_level(column, alone)
    assert column_z(column)[0] == pytest.approx(40 / np.sqrt(41))


def test_purity_bound_grows_with_evidence() -> None:
    assert purity_bound(np.asarray(26), np.asarray(26)) > purity_bound(np.asarray(8), np.asarray(8)) > 0.5
    assert purity_bound(np.asarray(26), np.asarray(26)) > purity_bound(np.asarray(60), np.asarray(72))


def test_prompts_are_numbered_in_order() -> None:
    assert prompt_groups(["a", "b", "a"]).tolist() == [0, 1, 0]


def test_every_response_has_its_tokens() -> None:
    assert len(responses(3, {}).bag) * TOKENS == len(responses(3, {}).bag.units)
