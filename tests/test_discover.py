"""Discovery and readouts on responses whose planted concepts are known."""

import numpy as np
import pytest
from scipy import sparse

from premortem.interp.discover import Discovery, chance_level, column_z, discover, grow, overlap, purity_bound
from premortem.interp.readout import (
    Part,
    Readout,
    best_agreement,
    even_odds,
    fit_readout,
    out_of_fold,
    prompt_groups,
    sign_z,
    signed_rows,
    strongest,
)
from synthetic import TOKENS, responses

ROWS = list(range(0, 90, 3))
PLANT = [5, 17, 41, 88]


def test_a_concept_planted_in_chosen_responses_is_found_with_its_rows() -> None:
    found = discover(responses(200, dict.fromkeys(ROWS, PLANT)))
    rows = np.flatnonzero(found[0].signs > 0)
    hits = len(set(rows) & set(ROWS))
    assert hits / len(rows) >= 0.9
    assert hits / len(ROWS) >= 0.8


def test_swapping_sides_turns_what_is_found_round() -> None:
    found = discover(responses(200, dict.fromkeys(ROWS, PLANT), side=1))
    assert found[0].z < 0
    assert set(np.flatnonzero(found[0].signs < 0)) <= set(range(90))


def test_nothing_is_found_where_nothing_is_planted() -> None:
    assert sum(len(discover(responses(150, {}, seed=seed))) for seed in range(1, 6)) <= 1


def test_two_planted_concepts_are_kept_apart() -> None:
    first = {row: [5, 17, 41] for row in range(30)}
    second = {row: [60, 72, 99] for row in range(60, 90)}
    found = discover(responses(220, first | second))
    best = [max(len(set(np.flatnonzero(d.signs > 0)) & set(rows)) for d in found) for rows in (first, second)]
    assert min(best) >= 24
    for item in found:
        rows = set(np.flatnonzero(item.signs > 0))
        assert min(len(rows & set(first)), len(rows & set(second))) <= 3


def test_growing_from_half_of_the_rows_brings_in_the_others() -> None:
    data = responses(200, dict.fromkeys(ROWS, PLANT))
    marks = np.zeros(400, dtype=bool)
    marks[ROWS[:15]] = True
    grown = grow(data, marks)
    assert grown is not None
    assert len(set(np.flatnonzero(grown.signs > 0)) & set(ROWS)) >= 24


def test_out_of_fold_scores_recognise_what_they_were_not_fitted_on() -> None:
    data = responses(120, dict.fromkeys(range(30), PLANT))
    y = np.arange(240) < 30
    scores = out_of_fold(data, y)
    assert scores[y].min() > np.quantile(scores[~y], 0.9)


def test_a_readout_fires_where_its_score_exceeds_the_threshold() -> None:
    data = responses(120, dict.fromkeys(range(30), PLANT))
    readout = fit_readout(data, np.arange(240) < 30)
    assert (readout.fires(data.bag) == (readout.score(data.bag) > readout.threshold)).all()
    assert {feature for feature, weight in readout.strongest(4) if weight > 0} <= set(PLANT)


def test_empty_parts_score_zero() -> None:
    data = responses(5, {})
    assert (Readout(Part(), Part(), 0.0).score(data.bag) == 0).all()


def test_strongest_is_the_mean_of_the_two_largest_token_values() -> None:
    values, starts = np.asarray([1.0, 5.0, 3.0, 7.0, -1.0]), np.asarray([0, 3, 4, 4, 5])
    assert strongest(values, starts).tolist() == [4.0, 7.0, -1.0, -1.0]


def test_signs_and_their_statistic() -> None:
    fires = np.asarray([True, True, False, False, True, False])
    assert signed_rows(fires, 3).tolist() == [1, 0, 0]
    assert sign_z(np.asarray([1] * 8)) == pytest.approx(8 / 3)
    assert sign_z(np.asarray([1, -1])) == 0


def test_agreement_and_even_odds_separate_two_clear_groups() -> None:
    scores = np.concatenate([np.linspace(-1, 1, 80), np.linspace(9, 11, 20)])
    y = np.arange(100) >= 80
    assert 1 < best_agreement(scores, y) < 9
    assert 1 < even_odds(scores, y) < 9


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


def test_effects_of_opposite_direction_never_overlap() -> None:
    none = Readout(Part(), Part(), 0.0)
    up, down = np.asarray([1, 1, 0]), np.asarray([-1, -1, 0])
    assert overlap(Discovery(none, up, 1.0, 1.0), Discovery(none, up, 1.0, 1.0)) == 1.0
    assert overlap(Discovery(none, up, 1.0, 1.0), Discovery(none, down, -1.0, 1.0)) == 0.0


def test_prompts_are_numbered_in_order() -> None:
    assert prompt_groups(["a", "b", "a"]).tolist() == [0, 1, 0]


def test_every_response_has_its_tokens() -> None:
    assert len(responses(3, {}).bag) * TOKENS == responses(3, {}).bag.tokens.shape[0]
