"""Facts about packing: every response comes out of a shared, unpadded batch as if it had been read alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from premortem.interp.encode import request_key
from premortem.interp.forward import Forward, template_opening
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.packing import Request, Tree, batches, lay_out
from tiny import LAYERS, write_model

NONE = np.zeros(0, np.int32)
OPENING = np.array([1, 40, 41, 42], np.int32)


def request(prompt: list[int], response: list[int]) -> Request:
    ids = np.array(prompt, np.int32), np.array(response, np.int32)
    return Request(request_key(*ids), *ids)


def numbers(seed: int, length: int) -> list[int]:
    return [int(n) for n in np.random.default_rng(seed).integers(3, 100, length)]


def some_requests() -> list[Request]:
    prompts = [OPENING.tolist() + numbers(n, 3 + n) for n in range(4)] + [numbers(9, 6), OPENING.tolist()]
    return [request(prompt, numbers(100 + 10 * i + j, 2 + 3 * j)) for i, prompt in enumerate(prompts) for j in range(3)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(write_model(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture(params=["segment by segment", "the whole row, as on a GPU"])
def attending(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to compute attention along a tree."""
    if request.param.startswith("the whole row"):
        monkeypatch.setattr(Tree, "whole", True)


@pytest.mark.usefixtures("attending")
def test_a_response_reads_the_same_in_a_tree_as_alone(model: LoadedModel) -> None:
    forward = Forward(model)
    assert forward.tree
    for batch in batches(some_requests(), OPENING, 100):
        seen, owner, computed = forward.read(batch, [0, 2, LAYERS - 1])
        assert computed == batch.n_tokens
        for at, one in enumerate(batch.requests):
            ids = torch.from_numpy(np.concatenate([one.prompt, one.response]).astype(np.int64))[None]
            with torch.no_grad():
                alone = model.model(ids, output_hidden_states=True).hidden_states
            for layer in (0, 2):
                expected = alone[layer + 1][0, len(one.prompt) :]
                torch.testing.assert_close(seen[layer][torch.from_numpy(owner == at)], expected, rtol=1e-4, atol=1e-4)


def test_both_ways_of_reading_agree(model: LoadedModel) -> None:
    tree, plain = Forward(model, tree=True), Forward(model, tree=False)
    for batch in batches(some_requests(), OPENING, 200):
        one, owner, _ = tree.read(batch, [3])
        other, owner_too, computed = plain.read(batch, [3])
        assert np.array_equal(owner, owner_too)
        assert computed > batch.n_tokens
        torch.testing.assert_close(one[3], other[3], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("attending")
def test_a_model_with_a_sliding_window_reads_the_same(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, initializer_range=0.3,
    )  # fmt: skip
    mistral = LoadedModel(MistralForCausalLM(config).eval(), None, "mistral", "0", 2)
    batch = lay_out([[request(numbers(1, 12), numbers(2, 9)), request(numbers(1, 12), numbers(3, 4))]], NONE)
    one = Forward(mistral, tree=True).read(batch, [1])[0][1]
    other = Forward(mistral, tree=False).read(batch, [1])[0][1]
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_model_that_cannot_attend_along_a_tree_is_read_plainly(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(Forward, "_read_tree", refuse)
    assert not Forward(model).tree


def test_reading_leaves_the_model_as_it_was(model: LoadedModel) -> None:
    ids = torch.tensor([[1, 5, 9, 30]])
    before = model.model(ids).logits
    batch = next(batches(some_requests(), OPENING, 100))
    Forward(model).read(batch, [1])
    assert model.model.config._attn_implementation != "premortem_tree"
    assert torch.equal(model.model(ids).logits, before)


def test_rows_come_in_few_lengths() -> None:
    lengths = {len(batch.ids) for n in range(40, 140) for batch in batches([request(numbers(1, n), [5])], NONE, 1000)}
    assert lengths <= {64, 96, 128, 160}


def test_a_shared_prompt_is_computed_once() -> None:
    prompt = numbers(1, 50)
    (batch,) = batches([request(prompt, [5, 6]), request(prompt, [7])], NONE, 1000)
    assert batch.n_tokens == 53
    positions = batch.positions[:53].tolist()
    assert positions == [*range(52), 50] or positions == [*range(51), 50, 51]


def test_a_shared_opening_is_computed_once_per_batch() -> None:
    (batch,) = batches(some_requests(), OPENING, 10_000)
    unique = sum(len(r.response) for r in batch.requests) + sum(3 + n for n in range(4)) + 6 + len(OPENING)
    assert batch.n_tokens == unique


def test_the_opening_is_what_the_template_says_before_the_user(model: LoadedModel) -> None:
    assert model.tokenizer.decode(template_opening(model.tokenizer)).endswith("user\n")
    assert len(template_opening(object())) == 0


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_batches_depend_on_nothing_but_the_requests_left(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), min_size=1, max_size=25))
    requests = [request(numbers(p, 4 + p), numbers(50 + i, length)) for i, (p, length) in enumerate(lengths)]
    planned = list(batches(requests, OPENING, 120))
    assert sorted(r.key for batch in planned for r in batch.requests) == sorted(r.key for r in requests)
    done = data.draw(st.integers(0, len(planned) - 1))
    left = [r for batch in planned[done:] for r in batch.requests]
    again = list(batches(data.draw(st.permutations(left)), OPENING, 120))
    assert [[r.key for r in batch.requests] for batch in again] == [
        [r.key for r in batch.requests] for batch in planned[done:]
    ]
