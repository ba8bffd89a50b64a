"""How much of a token the text around it does not already tell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from premortem.interp.news import FAITH, UNSEEN, Text, news

RESPONSES = st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=6)


def text(*responses: list[int]) -> Text:
    starts = np.concatenate([[0], np.cumsum([len(each) for each in responses])]).astype(np.int64)
    return Text(np.asarray([token for each in responses for token in each], dtype=np.int64), starts)


def one_by_one(responses: list[list[int]], groups: list[int]) -> list[float]:
    """Return the same, counted by hand."""
    said = [
        (group, before, token)
        for response, group in zip(responses, groups, strict=True)
        for before, token in zip([-1, *response], response, strict=False)
    ]
    kinds = len({token for _, _, token in said})
    told = []
    for i, (group, before, token) in enumerate(said):
        others = said[:i] + said[i + 1 :]
        frequent = (sum(o[2] == token for o in others) + UNSEEN) / (len(others) + UNSEEN * kinds)
        chance = frequent
        for some in (others, [o for o in others if o[0] == group]):
            both, first = sum(o[1:] == (before, token) for o in some), sum(o[1] == before for o in some)
            chance = (both + FAITH * chance) / (first + FAITH)
        told.append(1 - chance)
    return told


@given(RESPONSES, st.data())
def test_news_is_what_the_counts_say(responses: list[list[int]], data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(0, 2), min_size=len(responses), max_size=len(responses)))
    if sum(map(len, responses)) > 1:
        found = news(text(*responses), np.asarray(groups))
        assert found == pytest.approx(one_by_one(responses, groups))
        assert ((found >= 0) & (found <= 1)).all()


def test_what_both_sides_say_is_hardly_news() -> None:
    said = text([1, 2, 3, 4, 9], [1, 2, 3, 4, 8])
    told = news(said, np.asarray([0, 0]))
    shared, own = told[:4], told[4]
    assert shared.max() < own
    assert news(said, np.asarray([0, 1]))[:4].min() > shared.max()  # answers to two prompts tell less of each other


def test_other_responses_tell_what_is_no_news() -> None:
    said, groups = text([1, 2, 3], [4, 5, 6]), np.asarray([0, 0])
    known = news(said, groups, beside=text([1, 2, 3], [1, 2, 3]))
    assert (known[:3] < news(said, groups)[:3]).all()
    assert known.shape == (6,)
    assert news(text([], []), groups).shape == (0,)
