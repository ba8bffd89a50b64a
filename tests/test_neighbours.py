"""Tests of which passages lie nearest to each other, and of what their sides say."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse, stats

from premortem.interp.discover import discover
from premortem.interp.growth import Candidate, candidates
from premortem.interp.learner import Learner
from premortem.interp.neighbours import by_chance, neighbourhoods, one_sidedness
from premortem.interp.readout import Bag
from premortem.interp.sides import Responses
from synthetic import responses

PLANT = [3, 40, 77, 100]


def test_neighbours_lie_under_other_prompts_and_each_under_its_own() -> None:
    data = responses(60, dict.fromkeys(range(20), PLANT))
    shared = Responses(data.bag, np.arange(60) // 2)
    near = neighbourhoods(Learner(shared))
    owner = shared.bag.passages.owner[near.passages]
    groups = np.concatenate([shared.groups, shared.groups])
    assert near.responses.shape[1] == 29
    for own, found in zip(groups[owner], groups[near.responses], strict=True):
        assert own not in found
        assert len(set(found)) == len(found)


def test_one_sidedness_turns_with_the_sides() -> None:
    data = responses(120, dict.fromkeys(range(30), PLANT))
    near, sides = neighbourhoods(Learner(data)), np.repeat([1.0, -1.0], 120)
    (strength, way), (swapped, other) = one_sidedness(near, sides), one_sidedness(near, -sides)
    np.testing.assert_allclose(strength, swapped)
    assert way[strength.argmax()] == -other[strength.argmax()] == 1.0


def test_passages_that_are_asked_for_have_the_neighbours_they_have_among_all() -> None:
    learner = Learner(responses(60, dict.fromkeys(range(20), PLANT)))
    every, some = neighbourhoods(learner), neighbourhoods(learner, np.asarray([40, 7]))
    np.testing.assert_array_equal(some.responses, every.responses[[40, 7]])
    np.testing.assert_allclose(some.closeness, every.closeness[[40, 7]], rtol=1e-5)


def grown(learner: Learner, rows: range) -> Candidate:
    """Return the worthiest candidate that the chosen responses `rows` lead to."""
    marks = np.isin(np.arange(2 * learner.responses.n_pairs), rows)
    return max(candidates(learner, marks, None, 1.0), key=lambda one: one.worth)


def test_what_is_said_again_and_again_on_one_side_is_not_by_chance() -> None:
    data = responses(200, dict.fromkeys(range(30), PLANT))
    found = discover(Learner(data))
    assert found and found[0].by_chance < 1e-4


def test_the_fewer_rows_and_the_farther_apart_the_likelier_by_chance() -> None:
    learner = Learner(responses(200, dict.fromkeys(range(30), PLANT)))
    near, whole = neighbourhoods(learner), grown(learner, range(15))
    few = replace(whole, signs=np.where(np.arange(200) < 6, whole.signs, 0))
    assert by_chance(learner, near, few) > 100 * by_chance(learner, near, whole)
    nearest = replace(near, closeness=near.closeness + 1.0)
    assert by_chance(learner, nearest, whole) > by_chance(learner, near, whole)


def test_rows_of_one_prompt_count_once() -> None:
    data = responses(200, dict.fromkeys(range(30), PLANT))
    alone, shared = Learner(data), Learner(Responses(data.bag, np.arange(200) // 5, data.facts))
    candidate = grown(alone, range(15))
    assert by_chance(shared, neighbourhoods(shared), candidate) > 100 * by_chance(
        alone, neighbourhoods(alone), candidate
    )


def marking(learner: Learner, rows: range, side: int) -> Candidate:
    """Return a candidate that marks the responses `rows` of one side and nothing else; side 0 is the chosen one."""
    n, direction = learner.responses.n_pairs, 1.0 - 2 * side
    marks = np.isin(np.arange(2 * n), np.asarray(rows) + side * n)
    signs = np.where(np.isin(np.arange(n), rows), direction, 0).astype(np.int64)
    learnt = learner.fit(marks)
    return Candidate(learnt.readout, marks, direction, 1.0, 0.0, signs, learnt.heading)


@pytest.mark.parametrize("side", [0, 1])
def test_where_all_is_as_near_each_place_has_the_tail_of_the_binomial(side: int) -> None:
    learner = Learner(responses(100, dict.fromkeys(range(20), PLANT), side=side))
    near, n = neighbourhoods(learner), len(learner.points.passages)
    all_as_near = replace(near, closeness=np.full(len(near.closeness), 9.0))
    expected = n / 20 * stats.binom.sf(19, 20, 0.5)
    assert by_chance(learner, all_as_near, marking(learner, range(20), side)) == pytest.approx(expected)


@pytest.mark.parametrize("side", [0, 1])
def test_the_longer_side_says_anything_more_often(side: int) -> None:
    spoken = responses(225, dict.fromkeys(range(0, 40, 2), PLANT)).bag
    x = sparse.vstack([spoken.x[0:300:2].maximum(spoken.x[1:300:2]), spoken.x[300:]], format="csr")
    starts = np.concatenate([np.arange(0, 3600, 24), np.arange(3600, 5401, 12)])
    learner = Learner(Responses(Bag(x, spoken.units, starts), np.arange(150)))
    near, counts = neighbourhoods(learner), np.diff(learner.points.layout.starts)
    share = counts[:150].sum() / counts.sum()
    assert share > 0.7
    all_as_near = replace(near, closeness=np.full(len(near.closeness), 9.0))
    expected = counts.sum() / 20 * stats.binom.sf(19, 20, (share, 1 - share)[side])
    assert by_chance(learner, all_as_near, marking(learner, range(20), side)) == pytest.approx(expected)
