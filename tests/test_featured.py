"""Concepts that one feature stands for, on responses whose planted concepts are known."""

import numpy as np
import pytest

from premortem.interp.discover import discover
from premortem.interp.featured import LEAST_ROWS, featured, seeds
from premortem.interp.learner import Learner
from synthetic import responses

SHARED = 11
"""The feature of a behaviour that is worded in three ways, each with features of its own."""
WORDINGS = ([17, 41, 88], [60, 72, 99], [10, 33, 64])
ROWS = set(range(0, 180, 2))


def worded(side: int = 0) -> dict[int, list[int]]:
    """Return 90 rows with the behaviour, each in one of its wordings."""
    return {row: [SHARED, *WORDINGS[i % 3]] for i, row in enumerate(sorted(ROWS))}


def test_a_behaviour_in_three_wordings_is_one_concept_where_the_lens_has_a_feature_for_it() -> None:
    learner = Learner(responses(260, worded()))
    assert SHARED in [seed.feature for seed in seeds(learner.responses)]
    first = discover(learner)[0]
    rows = set(np.flatnonzero(first.signs > 0))
    assert len(rows & ROWS) >= 0.9 * max(len(rows), len(ROWS))


def test_without_such_a_feature_they_are_three() -> None:
    apart = {row: features[1:] for row, features in worded().items()}
    found = discover(Learner(responses(260, apart)))
    assert max(len(set(np.flatnonzero(item.signs > 0)) & ROWS) for item in found) <= 0.4 * len(ROWS)


@pytest.mark.parametrize("side", [0, 1])
def test_a_feature_that_fires_on_one_side_begins_there(side: int) -> None:
    data = responses(200, {row: [SHARED] for row in range(40)}, side=side)
    first = next(iter(seeds(data)))
    assert (first.feature, first.direction) == (SHARED, 1.0 - 2 * side)
    assert set(range(40)) <= set(np.flatnonzero(first.marks) - side * 200)


def test_too_few_rows_and_chance_begin_nothing() -> None:
    few = responses(200, {row: [SHARED] for row in range(LEAST_ROWS // 2)})
    assert SHARED not in [seed.feature for seed in seeds(few)]
    assert sum(len(list(seeds(responses(150, {}, seed=seed)))) for seed in range(1, 6)) <= 2


def test_what_grows_from_a_feature_marks_what_the_feature_marks() -> None:
    data = responses(260, worded())
    shares = data.shares.toarray()
    for candidate in featured(Learner(data)):
        told = max(
            2 * (fires & candidate.marks).sum() / (fires.sum() + candidate.marks.sum()) for fires in (shares > 0.3).T
        )
        assert told >= 0.8
