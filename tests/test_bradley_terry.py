"""How sure a Bradley-Terry fit is, on pairs of which nothing, or one thing, decides."""

import numpy as np
import pytest

from premortem.interp import bradley_terry as module
from premortem.interp.bradley_terry import bradley_terry, with_influence
from premortem.interp.forecasters import values_per_pair
from premortem.interp.readout import Bag, Part, Readout
from premortem.interp.sides import Responses
from premortem.interp.validation import predict
from synthetic import responses

N, CONCEPTS = 240, 60


def made_up(n_prompts: int, per_prompt: int, n_concepts: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signs that go together in a few ways, log lengths that go with some, and prompts; each prompt's sides swapped."""
    rng, prompts = np.random.default_rng(seed), np.repeat(np.arange(n_prompts), per_prompt)
    ways = rng.normal(size=(len(prompts), 6))
    scores = ways @ rng.normal(size=(6, n_concepts)) / 2 + rng.normal(size=(len(prompts), n_concepts))
    swap = rng.choice([-1.0, 1.0], size=n_prompts)[prompts]
    signs = np.sign(scores) * (np.abs(scores) > rng.uniform(0.3, 2.0, n_concepts))
    return signs * swap[:, None], (ways[:, 0] + rng.normal(size=len(prompts))) * swap, prompts


@pytest.mark.parametrize("n_concepts", [20, 400])
def test_the_influence_of_a_prompts_pairs_is_what_the_fit_changes_by_without_them(n_concepts: int) -> None:
    signs, lengths, prompts = made_up(60, 2, n_concepts, 0)
    beta, influence = with_influence(signs, lengths, prompts)
    assert beta == pytest.approx(bradley_terry(signs, lengths))
    assert influence.mean(0) == pytest.approx(np.zeros(n_concepts), abs=1e-12)
    changes, told = [], []
    for prompt in range(0, 60, 6):
        kept = prompts != prompt
        changes.append(beta - bradley_terry(signs[kept], lengths[kept]))
        told.append(influence[~kept].sum(0))
    assert np.corrcoef(np.ravel(changes), np.ravel(told))[0, 1] > 0.95
    assert np.std(told) == pytest.approx(np.std(changes), rel=0.2)


def test_prompts_with_more_pairs_than_concepts_have_the_influence_that_the_fit_shows() -> None:
    signs, lengths, prompts = made_up(4, 50, 12, 0)
    beta, influence = with_influence(signs, lengths, prompts)
    for prompt in range(4):
        others = prompts != prompt
        left_out = beta - bradley_terry(signs[others], lengths[others])
        brought = influence[~others].sum(0)
        assert np.corrcoef(left_out, brought)[0, 1] > 0.95


def test_influence_does_not_depend_on_the_way_it_is_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    signs, lengths, _ = made_up(40, 1, 39, 1)
    x, weight = np.column_stack([signs, lengths]), np.random.default_rng(0).uniform(0.05, 0.25, 40)
    tall = module._inverse_times(np.vstack([x, x]), np.tile(weight / 2, 2))[:, :40]
    assert module._inverse_times(x, weight) == pytest.approx(tall, abs=1e-8)


def noise(n_concepts: int, per_prompt: int, seed: int) -> tuple[Responses, list[Readout]]:
    """Pairs whose sides are swapped at random, and readouts of single features."""
    signs, lengths, prompts = made_up(N // per_prompt, per_prompt, n_concepts, seed)
    made = responses(N, {}, seed=seed)
    shares = np.vstack([signs > 0, signs < 0]).astype(float)
    tokens = np.rint(20 + np.r_[np.maximum(lengths, 0), np.maximum(-lengths, 0)] * 10)
    starts = np.r_[0, np.cumsum(tokens)].astype(np.int64)
    bag = Bag(made.bag.x, made.bag.units, starts, type(made.bag.shares)(shares))
    told = [Readout(Part((i,), (1.0,)), Part(), 0.0, "tokens") for i in range(n_concepts)]
    return Responses(bag, prompts), told


@pytest.mark.parametrize(("n_concepts", "per_prompt"), [(CONCEPTS, 1), (CONCEPTS, 3), (600, 2)])
def test_a_logit_calls_hardly_any_concept_where_sides_are_swapped_at_random(n_concepts: int, per_prompt: int) -> None:
    called, held = [], []
    for seed in range(4):
        made, told = noise(n_concepts, per_prompt, seed)
        found = predict(values_per_pair("logit", made, told), made.groups, made.length_difference)
        called.append((found.called != 0).mean())
        held.append(((found.low <= 0) & (found.high >= 0)).mean())
    assert np.mean(called) <= 0.05
    assert np.mean(held) >= 0.86


def test_a_logit_calls_what_does_decide() -> None:
    made, told = noise(CONCEPTS, 1, 5)
    shares = made.bag.shares.toarray()
    decides, loses = np.arange(N) % 3 == 0, np.arange(N) % 3 == 1
    shares[:N, 0], shares[N:, 0] = decides, 0
    shares[:N, 1], shares[N:, 1] = 0, loses
    bag = Bag(made.bag.x, made.bag.units, made.bag.starts, type(made.bag.shares)(shares))
    planted = Responses(bag, made.groups)
    found = predict(values_per_pair("logit", planted, told), planted.groups, planted.length_difference)
    assert found.called[:2].tolist() == [1, -1]
    assert (found.called[2:] != 0).mean() <= 0.05
