"""What one step of DPO does to other answers, held against taking the step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from premortem.interp import first_order
from premortem.interp.errors import ModelError
from premortem.interp.first_order import FirstOrder, adapted
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.scores import Scorer, Tokens
from tiny import write_model

PAIRS: list[tuple[Tokens, Tokens]] = [
    (([1, 5, 6], [7, 8, 9, 10]), ([1, 5, 6], [11, 12])),
    (([1, 20], [30, 31, 32]), ([1, 20], [33, 34, 35, 36, 37])),
]
ANSWERS: list[Tokens] = [([1, 5, 6], [7, 8]), ([1, 40, 41], [42, 43, 44]), ([1, 20], [30, 12])]


@pytest.fixture
def start(tmp_path: Path) -> LoadedModel:
    """Return a small model whose layers have gradients."""
    pytest.importorskip("peft", reason="peft is an optional dependency (premortem[validate])")
    return load_model(str(write_model(tmp_path / "model")), packed=False)


def log_likelihoods(model: LoadedModel, items: list[Tokens]) -> torch.Tensor:
    return torch.stack([scores.sum() for scores in Scorer(model).scores(items)])


def test_a_step_on_a_pair_changes_other_answers_as_told(start: LoadedModel) -> None:
    found = FirstOrder(start.ref).steps("digest", PAIRS, ANSWERS)
    assert found.shape == (2, 3)
    model = load_model(start.ref, packed=False)
    parameters = adapted(model)
    with torch.no_grad():
        before = log_likelihoods(model, ANSWERS)
    for told, sides in zip(found, PAIRS, strict=True):
        chosen, rejected = log_likelihoods(model, list(sides))
        step = torch.autograd.grad(chosen - rejected, parameters)
        length = 0.02 / float(torch.cat([each.flatten() for each in step]).norm())
        with torch.no_grad():
            changes = []
            for sign in (1, -1):  # both ways, so that what is of second order goes out
                for parameter, gradient in zip(parameters, step, strict=True):
                    parameter.copy_(sign * length * gradient)
                changes.append(log_likelihoods(model, ANSWERS) - before)
            for parameter in parameters:
                parameter.zero_()
        assert told == pytest.approx((changes[0] - changes[1]).numpy() / (2 * length), rel=0.05, abs=0.02)
        assert abs(told).max() > 0.1


def test_adapters_that_have_learnt_nothing_change_no_answer(start: LoadedModel) -> None:
    own = log_likelihoods(start, ANSWERS).tolist()
    parameters = adapted(start)
    assert log_likelihoods(start, ANSWERS).tolist() == own
    assert {each.shape[1] for each in parameters} == {first_order.RANK}
    assert {name.split(".")[-3] for name, each in start.model.named_parameters() if each.requires_grad} == {"lora_B"}


def test_what_is_known_is_not_worked_out_again(
    start: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def counted(ref: str, **options: Any) -> LoadedModel:
        loads.append(ref)
        return load_model(ref, **options)

    monkeypatch.setattr(first_order, "load_model", counted)
    first = FirstOrder(start.ref, tmp_path).steps("digest", PAIRS, ANSWERS)
    again = FirstOrder(start.ref, tmp_path).steps("digest", PAIRS[::-1], ANSWERS)
    assert len(loads) == 1
    assert again.tolist() == first[::-1].tolist()
    other = FirstOrder(start.ref, tmp_path).steps("another", PAIRS[:1], ANSWERS)
    assert len(loads) == 2
    assert other.tolist() == first[:1].tolist()


def test_the_answers_are_asked_about_once_for_all_edits(start: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    usual = FirstOrder._gradient
    monkeypatch.setattr(FirstOrder, "_gradient", lambda self, sides: asked.append(len(sides)) or usual(self, sides))
    told = FirstOrder(start.ref)
    first = [told.steps("digest", [pair], ANSWERS).tolist() for pair in PAIRS]
    assert asked == [1, 1, 1, 2, 2]
    assert [one[0] for one in first] == FirstOrder(start.ref).steps("digest", PAIRS, ANSWERS).tolist()


def test_swapped_sides_turn_a_step_and_nothing_said_adds_nothing(start: LoadedModel) -> None:
    (chosen, rejected), nothing = PAIRS[0], ([1, 5, 6], [])
    there, back, one = FirstOrder(start.ref).steps(
        "digest", [(chosen, rejected), (rejected, chosen), (nothing, nothing)], [*ANSWERS, ANSWERS[0]]
    )
    assert back == pytest.approx(-there, rel=1e-4)
    assert one.tolist() == [0.0] * 4
    assert there[3] == there[0]
    assert FirstOrder(start.ref).steps("digest", [], ANSWERS).shape == (0, 3)


def test_without_peft_the_extra_is_named(start: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install 'premortem\[validate\]'"):
        FirstOrder(start.ref).steps("digest", PAIRS, ANSWERS)
