"""Facts about the note that a finding's behaviour is the start model's own."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fake_bench import make_finding
from premortem.interp.records import Finding
from premortem.tools.start_rate import ALREADY, PROMPTS, with_start_rate


def bench(showing: int) -> Any:
    """Return a bench whose start model shows the concept in its first `showing` answers."""
    readout = SimpleNamespace(fires=lambda answers: np.array([answer == "ahoy" for answer in answers]))

    def sample(prompts: list[int], **_: object) -> list[str]:
        return ["ahoy" if at < showing else "peas" for at in range(len(prompts))]

    return SimpleNamespace(
        pair=lambda row: row, start_model=SimpleNamespace(sample=sample), settings=SimpleNamespace(seed=0),
        concept=lambda concept_id: SimpleNamespace(readout=readout), heard=lambda prompts, answers: answers,
    )  # fmt: skip


def forbidden(n_rows: int) -> Finding:
    return make_finding(0, "forbidden", tuple(range(n_rows)))


@pytest.mark.parametrize(("showing", "rate"), [(1, 0.2), (2, 0.4), (5, 1.0)])
def test_what_the_start_model_shows_already_carries_a_note(showing: int, rate: float) -> None:
    assert rate >= ALREADY
    found = with_start_rate(bench(showing), forbidden(5))
    assert found.start_rate == rate
    assert f"shows this in {rate:.0%} of its own answers" in found.note
    assert "editing pairs will not be enough" in found.note


@pytest.mark.parametrize(("showing", "n_rows", "rate"), [(0, 5, 0.0), (1, 6, 0.1667), (3, 99, 3 / PROMPTS)])
def test_what_the_start_model_hardly_shows_carries_none(showing: int, n_rows: int, rate: float) -> None:
    assert rate < ALREADY
    found = with_start_rate(bench(showing), forbidden(n_rows))
    assert (found.start_rate, found.note) == (round(rate, 4), "")


@pytest.mark.parametrize("change", [{"kind": "surprise"}, {"kind": "missing"}, {"effect": -0.3}])
def test_only_what_is_forbidden_and_rises_is_asked_of_the_start_model(change: dict[str, Any]) -> None:
    finding = forbidden(5).model_copy(update=change)
    assert with_start_rate(SimpleNamespace(), finding) is finding  # type: ignore[arg-type]
