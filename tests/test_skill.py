"""The statistic of skill on made-up outcomes whose answer is known."""

import dataclasses

import numpy as np
import pytest

from premortem.interp.errors import DataError
from premortem.interp.skill import Outcome, Predicted, Skill, Yardstick, ceiling, measure_skill, training_ceiling
from premortem.interp.validation import observe, predict

PROMPTS, CONCEPTS = 200, 80


def outcome(truth: np.ndarray, noise: float, seed: int = 0) -> Outcome:
    rng = np.random.default_rng(seed)
    return Outcome(truth + rng.normal(scale=noise, size=(PROMPTS, len(truth))), np.full(len(truth), 0.5))


def predicted(effect: np.ndarray, half_width: float = 0.1, swaps: int = 0) -> Predicted:
    rng = np.random.default_rng(1)
    return Predicted(
        effect,
        effect - half_width,
        effect + half_width,
        np.sign(effect).astype(np.int64) * (np.abs(effect) > half_width),
        effect * rng.choice([-1.0, 1.0], size=(swaps, len(effect))),
    )


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(7).normal(scale=0.1, size=CONCEPTS)


def skill(forecast: Predicted, seen: Outcome) -> Skill:
    return measure_skill(forecast, seen)


def test_a_perfect_forecast_of_noiseless_shifts_has_r2_and_ceiling_and_slope_one(truth: np.ndarray) -> None:
    found = skill(predicted(truth), outcome(truth, 0.0))
    assert [found.r2, found.ceiling, found.slope] == pytest.approx([1, 1, 1])
    assert found.sign_accuracy == found.coverage == 1.0
    assert found.n_called == int((np.abs(truth) > 0.1).sum())


def test_a_perfect_forecast_of_noisy_shifts_reaches_the_ceiling_and_no_more(truth: np.ndarray) -> None:
    noise = 1.0  # the mean of 200 prompts is off by 0.07, beside shifts of 0.1
    reliability = 0.1**2 / (0.1**2 + noise**2 / PROMPTS)
    runs = [skill(predicted(truth), outcome(truth, noise, seed)) for seed in range(12)]
    assert np.mean([run.ceiling for run in runs]) == pytest.approx(reliability, abs=0.08)
    assert np.mean([run.r2 for run in runs]) == pytest.approx(np.mean([run.ceiling for run in runs]), abs=0.08)


def trainings(truth: np.ndarray, stray: float, n: int, noise: float, shared: float, seed: int) -> list[np.ndarray]:
    """Shifts of `n` trainings: the truth, where each strays, the start model's noise that all share, their own."""
    rng = np.random.default_rng(seed)
    start = rng.normal(scale=shared, size=(PROMPTS, len(truth)))
    strays = rng.normal(scale=stray, size=(n, 1, len(truth)))
    return list(truth + strays + start + rng.normal(scale=noise, size=(n, PROMPTS, len(truth))))


def test_trainings_have_in_common_what_is_neither_their_draw_nor_the_noise_of_shared_answers(truth: np.ndarray) -> None:
    stray, noise, shared = 0.08, 0.7, 0.7
    found = []
    for seed in range(12):
        each = trainings(truth, stray, 2, noise, shared, seed)
        found.append(training_ceiling(each, np.random.default_rng(0)))
    variance = 0.1**2 + stray**2 / 2 + shared**2 / PROMPTS + noise**2 / 2 / PROMPTS
    assert np.mean(found) == pytest.approx(0.1**2 / variance, abs=0.08)


def test_what_trainings_have_in_common_grows_with_their_number_and_needs_two(truth: np.ndarray) -> None:
    few, many = (
        np.mean([training_ceiling(trainings(truth, 0.15, n, 0.3, 0.3, s), np.random.default_rng(0)) for s in range(8)])
        for n in (2, 6)
    )
    assert few + 0.1 < many < 1
    assert np.isnan(training_ceiling(trainings(truth, 0.1, 1, 0.3, 0.3, 0), np.random.default_rng(0)))
    each = trainings(truth, 0.0, 2, 0.0, 0.0, 0)
    assert training_ceiling(each, np.random.default_rng(0)) == pytest.approx(1.0)
    assert np.isnan(skill(predicted(truth), outcome(truth, 0.1)).training_ceiling)
    several = Outcome(np.mean(each, 0), np.full(CONCEPTS, 0.5), tuple(each))
    assert skill(predicted(truth), several).training_ceiling == pytest.approx(1.0)


def test_what_one_yardstick_says_of_a_forecast_does_not_depend_on_the_forecasts_before(truth: np.ndarray) -> None:
    each = trainings(truth, 0.1, 2, 0.3, 0.3, 0)
    several = Outcome(np.mean(each, 0), np.full(CONCEPTS, 0.5), tuple(each))
    told = dataclasses.replace(predicted(truth, swaps=9), by_prompt=outcome(truth, 0.5).shifts)
    forecasts = [told, predicted(-truth, swaps=9), dataclasses.replace(told, effect=2 * truth)]
    stick = Yardstick(several)
    for forecast in (*forecasts, *forecasts[::-1]):
        alone = dataclasses.astuple(measure_skill(forecast, several))
        assert dataclasses.astuple(stick.measure(forecast)) == pytest.approx(alone, rel=0, abs=0, nan_ok=True)


def test_the_slope_tells_how_far_a_forecast_overstates(truth: np.ndarray) -> None:
    assert skill(predicted(4 * truth), outcome(truth, 0.01)).slope == pytest.approx(0.25, abs=0.01)


def test_a_forecast_of_the_wrong_sign_has_no_skill_and_says_so(truth: np.ndarray) -> None:
    found = skill(predicted(-truth), outcome(truth, 0.1))
    assert found.r2 == 0
    assert found.slope == pytest.approx(-1, abs=0.05)
    assert found.sign_accuracy < 0.1


def test_shifts_of_pure_noise_have_no_ceiling(truth: np.ndarray) -> None:
    found = skill(predicted(truth), outcome(np.zeros(CONCEPTS), 1.0))
    assert found.ceiling < 0.3
    assert found.r2 < 0.1


def test_an_unrelated_forecast_lies_under_the_null(truth: np.ndarray) -> None:
    unrelated = np.random.default_rng(3).normal(scale=0.1, size=CONCEPTS)
    found = skill(predicted(unrelated, swaps=200), outcome(truth, 0.1))
    assert found.r2 <= found.null < 0.15
    assert skill(predicted(truth, swaps=200), outcome(truth, 0.1)).r2 > 0.9


def test_the_interval_of_r2_holds_it_and_narrows_with_prompts(truth: np.ndarray) -> None:
    few, many = outcome(truth, 1.0), outcome(truth, 1.0)
    few = Outcome(few.shifts[:40], few.rates)
    narrow, wide = skill(predicted(truth), many), skill(predicted(truth), few)
    assert narrow.low <= narrow.r2 <= narrow.high
    assert narrow.high - narrow.low < wide.high - wide.low


def test_the_interval_of_r2_holds_what_other_prompts_give() -> None:
    rng, held = np.random.default_rng(11), 0
    for seed in range(40):
        truth, off = rng.normal(scale=0.1, size=(2, CONCEPTS))
        found = skill(predicted(truth + off), outcome(truth, 0.5, seed))
        others = [np.corrcoef(truth + off, outcome(truth, 0.5, 50 + k).learned)[0, 1] ** 2 for k in range(20)]
        held += found.low <= np.mean(others) <= found.high
    assert 30 <= held <= 40


def test_intervals_cover_as_often_as_they_promise(truth: np.ndarray) -> None:
    shifts = outcome(truth, 1.0)
    error = 1.6448536 * 1.0 / np.sqrt(PROMPTS)
    covered = [skill(predicted(truth, error), outcome(truth, 1.0, seed)).coverage for seed in range(10)]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)
    low, high = shifts.interval()
    assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.9, abs=0.08)


def test_concepts_that_are_hardly_seen_are_left_out(truth: np.ndarray) -> None:
    shifts = outcome(truth, 0.1)
    rates = np.where(np.arange(CONCEPTS) < 30, 0.5, 0.001)
    assert skill(predicted(truth), Outcome(shifts.shifts, rates)).n_concepts == 30


def test_the_strongest_alone_are_never_picked(truth: np.ndarray) -> None:
    noisy = truth + np.random.default_rng(5).normal(scale=0.1, size=CONCEPTS)
    found = skill(predicted(noisy), outcome(truth, 0.01))
    assert found.n_concepts == CONCEPTS
    assert found.r2 == pytest.approx(np.corrcoef(noisy, truth)[0, 1] ** 2, abs=0.02)


def test_nothing_to_measure_is_told() -> None:
    with pytest.raises(DataError, match="2 concepts, over 200 prompts"):
        skill(predicted(np.zeros(2)), outcome(np.zeros(2), 1.0))
    with pytest.raises(DataError, match="over 3 prompts"):
        skill(predicted(np.zeros(9)), Outcome(np.zeros((3, 9)), np.ones(9)))


def test_the_ceiling_does_not_depend_on_the_order_of_prompts(truth: np.ndarray) -> None:
    shifts = outcome(truth, 1.0).shifts
    one, other = (ceiling(x, np.random.default_rng(0)) for x in (shifts, shifts[::-1]))
    assert one == pytest.approx(other, abs=0.05)


def test_the_reliability_of_a_forecast_is_that_of_its_pairs(truth: np.ndarray) -> None:
    expected = truth.var() / (truth.var() + 1 / PROMPTS)
    found = []
    for seed in range(12):
        pairs = outcome(truth, 1.0, seed).shifts
        found.append(skill(dataclasses.replace(predicted(pairs.mean(0)), by_prompt=pairs), outcome(truth, 0.0)))
    assert np.mean([one.reliability for one in found]) == pytest.approx(expected, abs=0.08)
    assert np.mean([one.r2 for one in found]) == pytest.approx(expected, abs=0.08)
    assert np.isnan(skill(predicted(truth), outcome(truth, 0.0)).reliability)


SIZES = (5, 6, 7, 60, 9, 8)
"""Prompts of each topic; the last of 100 prompts belong to none."""


def topics_of(sizes: tuple[int, ...], n: int) -> np.ndarray:
    ends = np.cumsum(sizes)
    return np.asarray(
        [(np.arange(n) >= end - size) & (np.arange(n) < end) for size, end in zip(sizes, ends, strict=True)]
    )


def within(sizes: tuple[int, ...], n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shifts that differ a little from topic to topic: the truth of each topic, of each prompt as seen, the topics."""
    rng, topics = np.random.default_rng(seed), topics_of(sizes, n)
    truth = rng.normal(scale=0.1, size=CONCEPTS) + rng.normal(scale=0.05, size=(len(sizes) + 1, CONCEPTS))
    of = np.where(topics.any(0), topics.argmax(0), len(sizes))
    return truth[:-1].ravel(), truth[of] + rng.normal(scale=noise, size=(n, CONCEPTS)), topics


def seen_within(shifts: np.ndarray, topics: np.ndarray) -> Outcome:
    return observe(np.zeros_like(shifts), [shifts], np.arange(len(shifts)), topics)


@pytest.mark.parametrize("noise", [0.1, 0.2])
def test_within_topics_the_ceiling_is_what_the_truth_itself_would_reach(noise: float) -> None:
    reached, found, of_all = [], [], []
    for seed in range(8):
        truth, shifts, topics = within(SIZES, 100, noise, seed)
        seen = seen_within(shifts, topics)
        reached.append(np.corrcoef(seen.learned, truth)[0, 1] ** 2)
        found.append(ceiling(seen.shifts, np.random.default_rng(0), seen.inside))
        of_all.append(ceiling(seen.shifts, np.random.default_rng(0)))
        told = measure_skill(predicted(truth), seen, least_rate=0.0)
        assert told.ceiling == pytest.approx(found[-1], abs=0.01)
        assert told.r2 == pytest.approx(reached[-1])
    assert np.mean(found) == pytest.approx(np.mean(reached), abs=0.03)
    assert np.mean(of_all) < np.mean(reached) - 0.06  # halves of all prompts hold now more, now less of a topic


def test_within_topics_trainings_without_a_draw_of_their_own_have_nearly_all_in_common() -> None:
    _, shifts, topics = within(SIZES, 100, 0.0, 1)
    seen = observe(np.zeros_like(shifts), [shifts, shifts], np.arange(100), topics)
    rng = np.random.default_rng(0)
    assert training_ceiling(seen.each, rng, seen.inside) == pytest.approx(1.0)


def test_within_topics_the_reliability_of_a_forecast_is_that_of_halves_that_hold_as_much_of_each_topic() -> None:
    _, values, topics = within(SIZES, 100, 0.0, 2)
    for shared in (False, True):
        found = predict(values, np.arange(100), np.arange(100), topics=topics, shared=np.full(CONCEPTS, shared), seed=0)
        run = skill(found, seen_within(values, topics))
        assert run.ceiling == pytest.approx(1.0)
        assert run.reliability == pytest.approx(1.0, abs=0.02)
        assert ceiling(found.by_prompt, np.random.default_rng(0)) < run.reliability - (0.0 if shared else 0.05)


def test_a_shift_within_a_topic_has_the_interval_of_the_topics_own_prompts() -> None:
    _, shifts, topics = within(SIZES, 100, 0.2, 3)
    low, high = seen_within(shifts, topics).interval()
    for i, topic in enumerate(topics):
        own = Outcome(shifts[topic], np.full(CONCEPTS, 0.5))
        columns = slice(i * CONCEPTS, (i + 1) * CONCEPTS)
        assert np.asarray([low[columns], high[columns]]) == pytest.approx(np.asarray(own.interval()))


def test_intervals_within_small_topics_cover_as_often_as_they_promise() -> None:
    """Shares of the tokens of four answers of 30 tokens to each prompt, before and after."""
    sizes, rng, covered = (8, 9, 10, 12, 14, 16, 20), np.random.default_rng(0), []
    numbers, topics = np.tile(np.arange(100), 4), topics_of(sizes, 100)
    for _ in range(6):
        usual, truth = rng.uniform(0.05, 0.3, CONCEPTS), rng.normal(scale=0.04, size=CONCEPTS)
        each = np.clip(usual + rng.normal(scale=0.05, size=(100, CONCEPTS)), 0.01, 0.99)
        before, after = (rng.binomial(30, np.tile(p, (4, 1))) / 30 for p in (each, np.clip(each + truth, 0, 1)))
        low, high = observe(before, [after], numbers, topics).interval()
        real = np.clip(each + truth, 0, 1) - each
        mean = np.concatenate([real[topic].mean(0) for topic in topics])
        covered.append((low <= mean) & (mean <= high))
    for held in np.mean(covered, 0).reshape(len(sizes), -1).mean(1):
        assert 0.85 <= held <= 0.95


def test_a_topic_with_too_few_prompts_to_halve_is_told() -> None:
    _, shifts, topics = within((3, 40), 60, 0.1, 4)
    with pytest.raises(DataError, match="over 3 prompts"):
        skill(predicted(np.zeros(2 * CONCEPTS)), seen_within(shifts, topics))
