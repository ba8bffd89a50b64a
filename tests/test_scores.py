"""How likely a model finds responses, held against its own logits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from premortem.interp import scores
from premortem.interp.forward import Forward, template_opening
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.scores import Scorer, Tokens
from tiny import write_model


@pytest.fixture(params=[True, False], ids=["packed", "with gradients"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    return load_model(str(write_model(tmp_path / "model")), packed=request.param)


def items(model: LoadedModel) -> list[Tokens]:
    """Return responses of which some share a prompt, some an opening, and some have no prompt or say nothing."""
    opening = template_opening(model.tokenizer).tolist()
    return [
        ([*opening, 20, 21], [30, 31, 32]),
        ([5, 6], [7]),
        ([*opening, 20, 21], [40, 41]),
        (opening, [50, 51, 52, 53]),
        ([], [60, 61, 62]),
        ([*opening, 22], []),
        ([5, 6], [7]),
        ([], [63]),
    ]


def expected(model: LoadedModel, prompt: list[int], response: list[int]) -> list[float]:
    if not response:
        return []
    with torch.inference_mode():
        logs = model.model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
    first = max(len(prompt) - 1, 0)
    wanted = response if prompt else response[1:]
    return [float(logs[first + at, token]) for at, token in enumerate(wanted)]


@pytest.mark.parametrize("tree", [True, False], ids=["in one row", "padded"])
def test_scores_are_the_log_probabilities_of_the_model(
    model: LoadedModel, tree: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forward, "_tree_works", lambda self: tree)
    with torch.inference_mode():
        found = Scorer(model).scores(items(model))
    for told, (prompt, response) in zip(found, items(model), strict=True):
        assert told.tolist() == pytest.approx(expected(model, prompt, response), abs=1e-4)


@pytest.mark.parametrize("tree", [True, False], ids=["in one row", "padded"])
def test_batches_hold_every_item_once_and_stay_within_their_bounds(
    model: LoadedModel, tree: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forward, "_tree_works", lambda self: tree)
    rng, scorer = np.random.default_rng(0), Scorer(model)
    prompts = [rng.integers(5, 100, n).tolist() for n in (3, 9, 9, 30)]
    many = {
        str(at): (prompts[int(rng.integers(4))], rng.integers(5, 100, int(rng.integers(12))).tolist())
        for at in range(60)
    }
    monkeypatch.setattr(scores, "BATCH_TOKENS", 90)
    batches = list(scorer.batches(many))
    assert sorted(key for batch in batches for key in batch) == sorted(many)
    for batch in batches:
        lengths = [len(prompt) + len(response) for prompt, response in map(many.__getitem__, batch)]
        alone = {tuple(many[key][0]) for key in batch}
        read = sum(map(len, alone)) + sum(len(many[key][1]) for key in batch) if tree else max(lengths) * len(batch)
        assert read <= 90
    assert len(batches) < len(many) / 2
    monkeypatch.setattr(scores, "BATCH_LOGITS", 1)
    assert max(map(len, scorer.batches({key: item for key, item in many.items() if item[1]}))) == 1
    assert list(scorer.batches({})) == []


def test_a_prompt_is_read_once_for_all_its_responses(model: LoadedModel) -> None:
    prompt, read = list(range(5, 25)), []
    scorer = Scorer(model)
    scorer.scores([(prompt, [30])])  # whether a flat row works has been tried now
    model.model.get_input_embeddings().register_forward_pre_hook(lambda _, given: read.append(given[0].numel()))
    scorer.scores([(prompt, [30, 31]), (prompt, [32, 33, 34]), (prompt, [35])])
    assert read == [20 + 2 + 3 + 1]


def test_layers_that_another_model_reads_with_are_scored_through_too(model: LoadedModel) -> None:
    trunk = load_model(model.ref, layers=2)
    shared = load_model(model.ref, trunk=trunk)
    asked = items(model)
    with torch.inference_mode():
        own, found = (Scorer(each).scores(asked) for each in (model, shared))
    assert Scorer(shared)._opening is not None
    for one, other in zip(own, found, strict=True):
        assert one.tolist() == pytest.approx(other.tolist(), abs=1e-4)
