"""How well sides can be told apart, on responses whose sides are known to differ or not."""

import numpy as np
import pytest

from premortem.agent.diff import excerpt
from premortem.agent.summary import doubts
from premortem.interp.told_apart import told_apart
from synthetic import responses

N = 200


def test_sides_that_always_differ_alike_are_told_apart() -> None:
    assert told_apart(responses(N, {row: [3, 4, 5] for row in range(N)})) >= 0.97


def test_sides_drawn_alike_are_told_apart_by_chance_only() -> None:
    found = [told_apart(responses(N, {}, seed=seed)) for seed in range(5)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_the_more_pairs_prefer_the_same_the_better_they_are_told_apart() -> None:
    found = [told_apart(responses(N, {row: [3, 4, 5] for row in range(n)})) for n in (0, N // 2, N)]
    assert found[0] < found[1] < found[2]


def test_what_is_learnt_of_one_prompt_does_not_tell_its_own_pairs_apart() -> None:
    made = responses(N, {row: [*range(row // 10 * 4, row // 10 * 4 + 4)] for row in range(N)})
    apart = told_apart(made)
    made.groups = made.groups // 10
    assert apart > 0.85
    assert told_apart(made) < 0.65


def test_too_few_prompts_or_equal_sides_tell_nothing() -> None:
    assert told_apart(responses(4, {})) is None
    same = responses(20, {})
    same.bag.shares.data[:] = 0.0
    assert told_apart(same) is None


def test_only_a_preference_as_good_as_unanimous_is_warned_of() -> None:
    assert "99% of the pairs" in doubts({"told_apart": 0.99})[0]
    assert doubts({"told_apart": 0.8}) == doubts({}) == doubts({"told_apart": None, "reliability": None}) == []
    assert len(doubts({"told_apart": 0.99, "reliability": 0.1})) == 2


def test_the_warning_of_halves_that_disagree_fits_a_line_and_does_not_speak_of_chance() -> None:
    (told,) = doubts({"reliability": 0.31})
    assert "0.31 of 1" in told and "others of their kind would teach other groups" in told
    assert "chance" not in told
    assert excerpt(f"features: {told}", 200).endswith("81%")


def test_parts_that_are_opposed_are_warned_of_and_parts_that_agree_are_not() -> None:
    (told,) = doubts({"parts_agree": -0.64})
    assert "two parts point in different directions (-0.64)" in told
    assert excerpt(told, 200).endswith("on these runs")
    assert doubts({"parts_agree": 0.09}) != []
    assert doubts({"parts_agree": 0.31}) == doubts({"parts_agree": None}) == []
