"""Facts about the classifier of short texts."""

from __future__ import annotations

import numpy as np
import pytest

from premortem.interp.text_model import TextModel, shipped

TOLD = [["red", "apple"], ["red", "pear"], ["blue", "sea"], ["blue", "sky"], ["green", "leaf"], ["green", "frog"]]


def fitted(labels: list[int]) -> TextModel:
    return TextModel.fit(TOLD, np.array(labels), buckets=64, strength=10.0)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2]])
def test_it_learns_and_is_the_same_after_a_file(labels: list[int]) -> None:
    model = fitted(labels)
    again = TextModel.read(model.to_bytes())
    unseen = [["red", "brick"], ["blue", "eyes"], ["green", "tea"]]
    assert model.weights.shape == (len(set(labels)), 64)
    assert model.log_odds(unseen).argmax(axis=1).tolist() == labels[::2]
    assert np.allclose(again.log_odds(unseen), model.log_odds(unseen), atol=1e-2)
    assert again.to_bytes() == model.to_bytes(), "learned weights lie in memory column by column; the file must not"


def test_importance_counts() -> None:
    alike = [["a"], ["a"], ["b"]]
    heavy = TextModel.fit(alike, np.array([0, 1, 1]), 64, 10.0, np.array([1.0, 9.0, 1.0]))
    assert heavy.log_odds([["a"]]).argmax() == 1


def test_nothing_and_what_no_encoding_holds_have_an_answer() -> None:
    model = fitted([0, 0, 1, 1, 1, 1])
    assert model.log_odds([]).shape == (0, 2)
    assert np.isfinite(model.log_odds([[], ["\ud800"], ["é", "忽略"]])).all()


@pytest.mark.parametrize(("name", "labels"), [("spec", 4), ("addressed", 2)])
def test_the_shipped_ones_are_whole(name: str, labels: int) -> None:
    assert shipped(name).weights.shape[0] == labels == len(shipped(name).bias)
    assert np.isfinite(shipped(name).weights).all() and shipped(name).weights.any(axis=1).all()
