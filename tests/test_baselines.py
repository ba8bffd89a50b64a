"""Baselines on responses whose concepts are known."""

import numpy as np
import pytest

from premortem.interp.baselines import baselines, covariates_of, through
from premortem.interp.sides import Responses
from synthetic import responses

N = 200


def data() -> tuple[Responses, list[str], np.ndarray, np.ndarray]:
    """Return responses, their texts, three concepts, and likelihoods.

    The concepts are one of long answers, one of a word, one of neither; the third is there in likelier answers.
    """
    made = responses(N, {})
    rng = np.random.default_rng(0)
    long = rng.random(2 * N) < np.repeat([0.8, 0.2], N)
    word = rng.random(2 * N) < np.repeat([0.1, 0.5], N)
    neither = rng.random(2 * N) < np.repeat([0.5, 0.3], N)
    starts = np.concatenate([[0], np.cumsum(np.where(long, 40, 10))])
    bag = type(made.bag)(made.bag.x, made.bag.units, starts)
    texts = [f"{'otters swim' if has else 'ferns grow'} here {i % 7}" for i, has in enumerate(word)]
    likelihood = -2.0 * np.diff(starts) * np.where(neither, 0.5, 1.0)
    return Responses(bag, np.arange(N)), texts, np.column_stack([long, word, neither]), likelihood


def test_each_baseline_forecasts_what_it_knows_of_and_nothing_else() -> None:
    made, texts, amounts, likelihood = data()
    found = baselines(covariates_of(made, texts, likelihood), amounts)
    assert found["likelihood"][2] == pytest.approx(0.2, abs=0.12)
    assert found["length"] == pytest.approx([0.6, 0.0, 0.0], abs=0.12)
    assert found["embedding"] == pytest.approx([0.0, -0.4, 0.0], abs=0.12)
    assert np.abs(found["random features"]).max() < 0.12


def test_a_covariate_that_is_the_concept_gives_the_difference_of_the_sides() -> None:
    _, _, fires, _ = data()
    expected = fires[:N].mean(0) - fires[N:].mean(0)
    assert through(fires.astype(float), fires, N) == pytest.approx(expected, abs=0.01)


def test_texts_without_a_common_word_forecast_nothing() -> None:
    made, _, fires, likelihood = data()
    known = covariates_of(made, [f"{i}" for i in range(2 * N)], likelihood)
    assert (baselines(known, fires)["embedding"] == 0).all()
