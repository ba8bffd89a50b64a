"""Forecasters on responses whose concepts are known."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from scipy import sparse

from premortem.agent.cli_options import Forecaster
from premortem.agent.runs import RunSettings
from premortem.interp import forecasters
from premortem.interp.errors import DataError
from premortem.interp.forecasters import (
    CALIBRATED,
    DATA_TOKENS,
    DEAR,
    DEFAULT,
    FITTED,
    FORECASTERS,
    LEAST_GROUPS,
    MOST_LOG,
    ONE_SIDED,
    RARE,
    REACH,
    STRAY,
    ForecasterName,
    Own,
    log_length_difference,
    model_error,
    parts_agree,
    tilted,
    values_per_pair,
)
from premortem.interp.pooling import TokenRows
from premortem.interp.readout import Bag, Part, Readout, units_of
from premortem.interp.sides import Edited, Responses, TokenFacts
from premortem.tools.workbench import BenchSettings
from synthetic import D_SAE, TOKENS, facts, responses, token_rows

N = 240
LIKED, UNHEARD = [5, 17, 31], [8, 21, 40]
CONCEPTS = [Readout(Part(tuple(f), (1.0,) * 3), Part(), 2.0, "tokens") for f in (LIKED, UNHEARD)]


def data() -> Responses:
    """Return pairs whose chosen responses show LIKED in a third of the pairs, and UNHEARD in another third.

    A step on a pair raises an answer by how much of the same features both have.
    """
    made = responses(N, {row: LIKED if row < N // 3 else UNHEARD for row in range(2 * N // 3)})
    assert made.facts is not None
    made.facts = replace(made.facts, steps=lambda: ((made.shares[:N] - made.shares[N:]) @ own().bag.shares.T).toarray())
    return made


def own() -> Own:
    """Return two answers to each of 60 prompts; one of them shows LIKED, and none UNHEARD."""
    made = responses(60, dict.fromkeys(range(60), LIKED), seed=1)
    amounts = made.bag.shares.toarray()
    amounts[:, UNHEARD] = 0.0
    bag = Bag(made.bag.x, made.bag.units, made.bag.starts, type(made.bag.shares)(amounts))
    return Own(bag, np.tile(np.arange(60), 2))


def effects(name: str, said: Own | None = None) -> np.ndarray:
    return values_per_pair(name, data(), CONCEPTS, said and (lambda: said)).mean(0)


def test_each_forecaster_says_something_of_every_pair() -> None:
    for name in FORECASTERS:
        values = values_per_pair(name, data(), CONCEPTS, own)
        assert values.shape == (N, 2)
        assert (values.mean(0)[0] > 0) == (name != "own-gap"), name  # the model shows LIKED more often itself
        assert values_per_pair(name, data(), [], own).shape == (N, 0)


def test_a_mean_difference_is_the_share_of_tokens_that_the_chosen_side_has_more() -> None:
    shares = data().shares.toarray()
    expected = [(shares[:N, f].mean(1) - shares[N:, f].mean(1)).mean() for f in (LIKED, UNHEARD)]
    assert effects("mean-difference") == pytest.approx(expected)


def test_what_the_start_model_never_says_is_not_tilted_towards() -> None:
    liked, unheard = effects("tilt", own())
    assert liked > 0
    assert unheard == pytest.approx(0.0, abs=1e-12)
    assert effects("mean-difference")[1] > 0


def test_swapped_sides_tilt_the_other_way() -> None:
    forward = data()
    bag = forward.bag
    order = np.r_[N : 2 * N, :N]
    turned = Responses(Bag(bag.x[order], bag.units, bag.starts, bag.shares[order]), forward.groups)
    there, back = (values_per_pair("tilt", each, CONCEPTS, own).mean(0) for each in (forward, turned))
    assert back == pytest.approx(-there, rel=0.05)


def test_swapping_sides_turns_what_a_pair_adds_for_all_forecasters_but_those_that_see_one_side() -> None:
    forward = data()
    bag, order, half = forward.bag, np.r_[N : 2 * N, :N], N * TOKENS
    units = TokenRows.joined([bag.units.between(half, 2 * half), bag.units.between(0, half)])
    assert forward.facts is not None
    facts_turned = replace(forward.facts, steps=lambda: -forward.steps)
    turned = Responses(Bag(bag.x[order], units, bag.starts, bag.shares[order]), forward.groups, facts_turned)
    turns = {}
    for name in FORECASTERS:
        there, back = (values_per_pair(name, each, CONCEPTS, own) for each in (forward, turned))
        turns[name] = (
            (there * back).sum(0) <= -0.95 * np.linalg.norm(there, axis=0) * np.linalg.norm(back, axis=0)
        ).all()
    assert {name for name, turned_round in turns.items() if not turned_round} == set(ONE_SIDED)


def test_an_own_gap_is_measured_from_what_the_model_says_to_the_same_prompt() -> None:
    said = own()
    assert said.expected(np.arange(120.0)[:, None], np.asarray([0, 59, 200]))[:, 0] == pytest.approx([30, 89, 59.5])
    chosen = data().shares.toarray()[:N, LIKED].mean(1)
    answers = said.bag.shares.toarray()[:, LIKED].mean(1)
    known = answers.reshape(2, 60).mean(0)
    expected = chosen - np.concatenate([known, np.full(N - 60, answers.mean())])
    assert values_per_pair("own-gap", data(), CONCEPTS, lambda: said)[:, 0] == pytest.approx(expected)


def test_an_edit_leaves_the_own_gap_of_every_other_pair_as_it_was() -> None:
    made, said = data(), own()
    kept = np.setdiff1d(np.arange(N), [0, 7])
    fresh = responses(2, {}, seed=5)
    changed = Responses(fresh.bag, np.asarray([7, N]), facts(len(fresh.bag.units)))
    before = values_per_pair("own-gap", made, CONCEPTS, lambda: said)
    for edited in (Edited(made, kept, changed), Edited(made, kept, None)):
        after = values_per_pair("own-gap", edited, CONCEPTS, lambda: said)
        assert after[: len(kept)] == pytest.approx(before[kept])
        assert edited.prompts[: len(kept)].tolist() == kept.tolist()
    shown = said.bag.shares.toarray()[:, LIKED].mean(1, keepdims=True)
    answers = said.expected(shown, np.asarray([7, N]))[:, 0]
    new = fresh.shares.toarray()[:2, LIKED].mean(1)
    found = values_per_pair("own-gap", Edited(made, kept, changed), CONCEPTS, lambda: said)[-2:, 0]
    assert found == pytest.approx(new - answers)


def test_at_equal_length_nothing_is_left_of_what_only_goes_with_length() -> None:
    made = data()
    shares = made.bag.shares.toarray()
    lengths = np.where(np.arange(2 * N) < N, 30, 10) + np.arange(2 * N) % 7
    shares[:, 0] = np.log1p(lengths) / 10
    bag = Bag(made.bag.x, made.bag.units, np.r_[0, np.cumsum(lengths)], type(made.bag.shares)(shares))
    longer = Responses(bag, made.groups)
    of_length = Readout(Part((0,), (1.0,)), Part(), 0.0, "tokens")
    assert values_per_pair("mean-difference", longer, [of_length]).mean() > 0.05
    assert values_per_pair("equal-length", longer, [of_length]).mean() == pytest.approx(0.0, abs=1e-9)
    assert log_length_difference(longer).mean() > 0.5


def test_an_excess_is_over_what_the_model_says_anyway_and_tilts_what_the_model_says() -> None:
    n, said = 60, own()
    lengths = np.where(np.arange(2 * n) < n, 16, 4)
    starts = np.r_[0, np.cumsum(lengths)]
    tokens = (np.random.default_rng(2).random((starts[-1], D_SAE)) < 0.1).astype(float)
    tokens[: 16 * n : 8, LIKED] = 1.0
    owner = np.repeat(np.arange(2 * n), lengths)
    shares = np.stack([tokens[owner == one].mean(0) for one in range(2 * n)])
    bag = Bag(sparse.csr_matrix(shares), units_of(token_rows(tokens)), starts, sparse.csr_matrix(shares))
    made = Responses(bag, np.arange(n), facts(starts[-1]))
    usual = said.bag.shares.toarray()[:, LIKED].mean()
    above = shares[:, LIKED].mean(1) - usual
    weighed = (4 * above[:n] - 2 * above[n:]) / 3
    written = float(lengths @ (above + usual) / lengths.sum())
    n_own = int(said.bag.starts[-1])
    shown = (n_own * usual + DATA_TOKENS * written) / (n_own + DATA_TOKENS)
    found = values_per_pair("excess", made, CONCEPTS, lambda: said)[:, 0]
    log = MOST_LOG * np.tanh(REACH * weighed.mean() / (written + RARE) / MOST_LOG)
    assert found.mean() == pytest.approx(shown * np.expm1(log), rel=1e-3)  # no token is quite like another
    assert found / found.mean() == pytest.approx(weighed / weighed.mean(), abs=0.01)


def test_what_both_sides_say_counts_less_than_what_one_of_them_says() -> None:
    made = data()
    even, at = np.arange(int(made.bag.starts[-1])), made.bag.starts
    both = even.copy()
    for row in range(N // 3):  # the tokens that show LIKED are the rejected response's, too
        shown = slice(at[row], at[row + 1])
        both[at[N + row] : at[N + row + 1]] = both[shown]
    told = [Responses(made.bag, made.groups, TokenFacts(lambda ids=ids: ids, lambda: even)) for ids in (even, both)]
    alone, repeated = (values_per_pair("excess", each, CONCEPTS, own).mean(0) for each in told)
    assert 0 < repeated[0] < 0.9 * alone[0]


def test_where_all_tokens_are_pulled_at_alike_and_all_is_news_a_pull_is_an_excess() -> None:
    found = {name: values_per_pair(name, data(), CONCEPTS, own) for name in ("pull", "excess")}
    assert found["pull"] == pytest.approx(found["excess"], rel=1e-3, abs=1e-5)


def test_what_the_model_would_never_say_is_hardly_pulled_towards() -> None:
    made = data()
    fires = made.bag.units.matrix(made.bag.x.shape[1])[:, UNHEARD].toarray().any(1)
    told = Responses(made.bag, made.groups, facts(len(fires), np.where(fires, -20.0, -1.0)))
    even, remote = (values_per_pair("pull", each, CONCEPTS, own).mean(0) for each in (made, told))
    assert even.min() > 0
    assert abs(remote[1]) < 0.1 * even[1]
    assert remote[0] > 0.8 * even[0]


def test_no_share_is_forecast_to_fall_below_zero_or_to_rise_without_bound() -> None:
    excess, shown, written = np.asarray([-10.0, 0.0, 10.0]), np.full(3, 0.02), np.full(3, 0.05)
    changes = excess * tilted(excess, written, shown)
    assert changes[0] == pytest.approx(0.02 * np.expm1(-MOST_LOG))
    assert changes[0] > -0.02
    assert changes[1] == 0
    assert changes[2] == pytest.approx(0.02 * np.expm1(MOST_LOG))


def test_a_small_excess_moves_a_concept_in_proportion_to_what_the_model_says_of_it() -> None:
    small, written = np.full(2, 1e-6), np.full(2, 0.04)
    seldom, often = small * tilted(small, written, np.asarray([0.01, 0.04]))
    assert often == pytest.approx(4 * seldom)
    assert often == pytest.approx(1e-6 * REACH * 0.04 / (0.04 + RARE), rel=1e-3)


def test_what_is_told_by_response_has_no_excess_and_asks_nobody() -> None:
    told = [Readout(concept.whole, Part(), 2.0) for concept in CONCEPTS]
    found = values_per_pair("excess", data(), told)
    assert (found == values_per_pair("mean-difference", data(), told)).all()
    assert set(np.unique(found)) <= {-1.0, 0.0, 1.0}


def test_a_calibrated_forecast_is_the_weighted_sum_of_others_where_it_is_told_by_token() -> None:
    told = [CONCEPTS[0], Readout(CONCEPTS[1].whole, Part(), 2.0)]
    found = values_per_pair("calibrated", data(), told, own)
    parts = [weight * values_per_pair(name, data(), told, own)[:, 0] for name, weight in CALIBRATED.items()]
    assert found[:, 0] == pytest.approx(np.sum(parts, 0))
    assert (found[:, 1] == values_per_pair("mean-difference", data(), told)[:, 1]).all()


def test_a_first_step_is_read_in_what_the_model_says_of_a_concept() -> None:
    liked, unheard = effects("first-order", own())
    assert liked > 0
    assert unheard == pytest.approx(0.0, abs=1e-12)
    made = data()
    assert made.facts is not None
    shown, steps = own().bag.shares.toarray()[:, LIKED].mean(1), made.steps
    expected = np.cov(steps.mean(0), shown, bias=True)[0, 1] / steps.std(1).mean()
    assert liked == pytest.approx(expected)
    longer = Responses(made.bag, made.groups, replace(made.facts, steps=lambda: 7 * steps))
    assert values_per_pair("first-order", longer, CONCEPTS, own).mean(0)[0] == pytest.approx(liked)
    untold = Responses(made.bag, made.groups, replace(made.facts, steps=None))
    with pytest.raises(DataError, match="gradients of the start model"):
        values_per_pair("first-order", untold, CONCEPTS, own)


@pytest.mark.parametrize("name", ["excess", "pull", "calibrated", "own-gap", "tilt", "first-order"])
def test_forecasters_that_ask_the_model_say_so(name: str) -> None:
    with pytest.raises(DataError, match="asks the start model"):
        effects(name)


def test_the_command_line_offers_all_forecasters() -> None:
    assert [one.value for one in Forecaster] == list(FORECASTERS) == list(get_args(ForecasterName))
    assert set(FITTED) < set(FORECASTERS)
    assert set(DEAR) < set(FORECASTERS) - {DEFAULT, *CALIBRATED}


def test_runs_and_benches_take_the_same_forecaster() -> None:
    assert RunSettings.model_fields["forecaster"].default == DEFAULT == BenchSettings().forecaster


def test_how_far_training_strays_is_known_of_the_default_in_tokens_alone() -> None:
    values = np.asarray([[0.3, 0.3, 0.3], [0.1, 0.1, 0.1]])
    told = [CONCEPTS[0], Readout(CONCEPTS[0].whole, Part(), 2.0), CONCEPTS[1]]
    found = model_error("calibrated", told, own)(values)
    draw, drift, *slopes = STRAY
    spread = own().bag.shares.toarray()[:, LIKED].mean(1).std()
    chance = draw * 0.1 / np.sqrt(2)
    assert spread > 0
    assert found[:, 0] == pytest.approx([np.hypot(np.hypot(chance, drift * spread), 0.2 * slope) for slope in slopes])
    assert (found[:, 1] == 0).all()
    assert found[:, 2] == pytest.approx([np.hypot(chance, 0.2 * slope) for slope in slopes])  # the model never says it
    assert (model_error("mean-difference", told, None)(values) == 0).all()


def test_parts_agree_as_far_as_their_effects_do(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [Readout(Part((i, i + 1), (1.0, 1.0)), Part(), 0.5, "tokens") for i in range(12)]
    said = own()
    parts = [values_per_pair(name, data(), groups, lambda: said).mean(0) for name in ("excess", "tilt")]
    by_response = Readout(Part((3,), (1.0,)), Part(), 0.5)
    assert parts_agree(data(), [by_response, *groups], lambda: said) == round(np.corrcoef(parts)[0, 1], 4)
    opposed = {"excess": lambda *_: np.arange(12.0)[None], "tilt": lambda *_: -np.arange(12.0)[None]}
    monkeypatch.setattr(forecasters, "_TABLE", opposed)
    assert parts_agree(data(), groups) == -1.0
    opposed["tilt"] = lambda *_: np.full((1, 12), 0.1)
    assert parts_agree(data(), groups) is None


def test_parts_are_not_compared_over_few_groups() -> None:
    groups = [Readout(Part((i,), (1.0,)), Part(), 0.5, "tokens") for i in range(LEAST_GROUPS - 1)]
    by_response = Readout(Part((3,), (1.0,)), Part(), 0.5)
    assert parts_agree(data(), [*groups, by_response], own) is None
