"""Effects: signs per pair become an effect with an interval, controls and a verdict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from premortem.interp.effects import INSIDE, Z90, adjusted, first_half, measure, measure_inside, verdict

SIGNS = st.lists(st.sampled_from([-1, 0, 1]), min_size=4, max_size=60)


def table(signs: list[int], groups: list[int] | None = None, lengths: list[int] | None = None):  # type: ignore[no-untyped-def]
    n = len(signs)
    numbers = np.arange(n) if groups is None else np.asarray(groups)
    return measure(np.asarray(signs)[:, None], numbers, np.zeros(n) if lengths is None else np.asarray(lengths))


@given(SIGNS)
def test_swapping_sides_negates_every_effect(signs: list[int]) -> None:
    one, other = table(signs), table([-sign for sign in signs])
    assert one.effect[0] == -other.effect[0]
    assert one.low[0] == pytest.approx(-other.high[0])
    assert one.split_half[0] == -other.split_half[0]
    assert one.p[0] == pytest.approx(other.p[0])


@given(SIGNS)
def test_the_interval_holds_the_effect_and_stays_in_range(signs: list[int]) -> None:
    result = table(signs)
    assert -1 <= result.low[0] <= result.effect[0] <= result.high[0] <= 1


def test_the_effect_is_the_mean_sign() -> None:
    assert table([1, 1, 0, -1]).effect[0] == 0.25


def test_pairs_that_share_a_prompt_count_less_than_independent_ones() -> None:
    signs = [1, 1, 1, 1, 0, 0, 0, 0] * 4
    together = [i // 4 for i in range(32)]
    alone, shared = table(signs), table(signs, groups=together)
    assert shared.high[0] - shared.low[0] > 1.5 * (alone.high[0] - alone.low[0])


@pytest.mark.parametrize("sources", [2, 3, 4, 5, 8])
def test_each_of_some_sources_that_take_turns_stands_in_both_halves(sources: int) -> None:
    numbers = np.arange(1000)
    half = first_half(numbers)
    assert half.sum() == 500
    shares = [half[numbers % sources == source].mean() for source in range(sources)]
    assert min(shares) > 0.3 and max(shares) < 0.7
    signs = [int(number % sources == 1 and number < 400) for number in numbers]
    assert table(signs).split_half[0] > 0


def test_the_halves_of_the_first_prompts_do_not_depend_on_those_that_follow() -> None:
    assert (first_half(np.arange(100)) == first_half(np.arange(1000))[:100]).all()
    assert (first_half(np.asarray([0, 0, 1, 1])) == first_half(np.asarray([0, 1])).repeat(2)).all()


def test_what_has_nothing_to_do_with_length_is_not_explained_by_it_where_one_side_is_always_longer() -> None:
    doubted = 0
    for seed in range(100):
        chance = np.random.default_rng(seed)
        longer = np.round(chance.lognormal(4.6, 0.5, 300)) + 5
        one = measure((chance.random(300) < 0.1)[:, None].astype(int), np.arange(300), longer)
        doubted += abs(one.length_controlled[0]) < 0.25 * one.effect[0]
    assert doubted <= 3  # 14 where every slope counts


def test_what_the_longer_answer_shows_is_explained_by_length_though_it_varies() -> None:
    chance = np.random.default_rng(0)
    lengths = chance.normal(120, 200, 2000).round()
    signs = np.sign(lengths) * (chance.random(2000) < 0.2)
    one = measure(signs[:, None], np.arange(2000), lengths)
    assert one.effect[0] > 0.05
    assert abs(one.length_controlled[0]) < 0.25 * one.effect[0]


def test_split_half_is_zero_where_the_halves_disagree() -> None:
    assert table([1, -1, 1, -1]).split_half[0] == 0
    assert table([1, 1, 1, 0]).split_half[0] == 0.5


def test_an_effect_that_is_all_length_vanishes_at_equal_length() -> None:
    signs = [1] * 20 + [-1] * 10
    lengths = [50] * 20 + [-50] * 10
    assert table(signs, lengths=lengths).length_controlled[0] == pytest.approx(0.0, abs=1e-9)
    level = table([1, 0] * 15, lengths=lengths)
    assert level.length_controlled[0] == pytest.approx(0.5, abs=0.05)


def test_adjusted_p_values_follow_benjamini_and_hochberg() -> None:
    assert adjusted(np.asarray([0.01, 0.02, 0.03])) == pytest.approx([0.03, 0.03, 0.03])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "amplified"),
        ({"effect": -0.2, "low": -0.3, "high": -0.1, "split_half": -0.1, "at_equal_length": -0.2}, "suppressed"),
        ({"q": 0.2}, "cannot_tell"),
        ({"low": -0.1}, "cannot_tell"),
        ({"split_half": 0.0}, "cannot_tell"),
        ({"at_equal_length": 0.0}, "cannot_tell"),
        ({"at_equal_length": -0.2}, "cannot_tell"),
    ],
)
def test_one_objection_is_enough_for_cannot_tell(changed: dict[str, float], expected: str) -> None:
    sound = {"effect": 0.2, "low": 0.1, "high": 0.3, "q": 0.01, "split_half": 0.1, "at_equal_length": 0.2}
    assert verdict(**(sound | changed)) == expected


def test_what_training_strays_by_widens_the_interval_and_may_undo_a_verdict() -> None:
    signs = np.asarray([1] * 30 + [0] * 10)[:, None]
    sharp = measure(signs, np.arange(40), np.zeros(40))
    wide = measure(signs, np.arange(40), np.zeros(40), np.asarray([[0.6], [0.1]]))
    assert wide.effect[0] == sharp.effect[0]
    assert wide.p[0] == sharp.p[0]
    assert wide.low[0] < 0 < sharp.low[0]
    assert sharp.high[0] < wide.high[0] < sharp.high[0] + Z90 * 0.1
    told = (float(sharp.p[0]), float(sharp.split_half[0]), float(sharp.length_controlled[0]))
    assert verdict(float(sharp.effect[0]), float(sharp.low[0]), float(sharp.high[0]), *told) == "amplified"
    assert verdict(float(wide.effect[0]), float(wide.low[0]), float(wide.high[0]), *told) == "cannot_tell"


def test_what_a_topic_learns_comes_mostly_from_all_pairs_where_real_runs_have_shown_that() -> None:
    rng = np.random.default_rng(0)
    values, lengths = rng.normal(0.1, 0.3, (60, 2)), rng.integers(-5, 6, 60)
    inside = np.arange(60) < 15

    def stray(some: np.ndarray) -> np.ndarray:
        return np.full((2, some.shape[1]), 0.01)

    shared = np.asarray([False, True])
    found = measure_inside(values, np.arange(60), lengths, inside, model_error=stray, shared=shared)
    own = measure(values[inside], np.arange(15), lengths[inside], stray(values))
    assert found.effect[0] == own.effect[0]
    assert found.length_controlled[0] == own.length_controlled[0]
    assert found.effect[1] == pytest.approx((1 - INSIDE) * values[:, 1].mean() + INSIDE * values[inside, 1].mean())
    assert found.high[1] - found.low[1] < own.high[1] - own.low[1]  # all pairs tell more than the topic's own
    for nothing in (np.zeros(2, dtype=bool), np.ones(2, dtype=bool)):
        every = measure_inside(values, np.arange(60), lengths, inside | True, model_error=stray, shared=nothing)
        assert (every.effect == values.mean(0)).all()
    none = measure_inside(values[:, :0], np.arange(60), lengths, inside, model_error=stray, shared=shared[:0])
    assert none.effect.shape == (0,)


def test_few_prompts_do_not_make_chance_certain() -> None:
    rng = np.random.default_rng(0)
    for prompts, least in ((1, 1.0), (3, 0.8), (10, 0.8)):
        groups = np.arange(200) % prompts
        shared = rng.normal(0.0, 0.2, size=(prompts, 400))  # what a prompt does to all its pairs, and nothing else
        found = measure(shared[groups], groups, np.zeros(200))
        inside = (found.low <= 0) & (found.high >= 0)
        assert inside.mean() >= least, f"{prompts} prompts: 90% intervals hold zero"
    one = measure(np.ones((50, 1)), np.zeros(50, dtype=np.int64), np.zeros(50))
    assert (one.low[0], one.high[0], one.p[0]) == (-1.0, 1.0, 1.0)


@pytest.mark.parametrize(("prompts", "certain"), [(2, False), (3, False), (200, True)])
def test_prompts_whose_pairs_all_agree_are_as_certain_as_their_number_allows(prompts: int, certain: bool) -> None:
    found = measure(np.ones((200, 1)), np.arange(200) % prompts, np.zeros(200))
    assert bool(found.p[0] < 0.01) is certain
    assert found.effect[0] == 1.0
