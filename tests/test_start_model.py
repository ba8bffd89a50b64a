"""The start model's answers depend on their own content only, and its likelihoods are those of a plain full pass."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from premortem.interp import scores
from premortem.interp.errors import DataError
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.records import Content, Pair
from premortem.interp.start_model import StartModel, Suppression, _Answer, suppressed
from premortem.interp.tokens import tokenize
from tiny import some_pairs, write_model


class Letters:
    """A tokenizer whose tokens are the letters a to z (ids 1 to 26); 0 pads and ends."""

    eos_token_id = pad_token_id = 0

    def __call__(self, text: str, **_options: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(char) - 96 for char in text.lower() if char.isalpha()]}

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        turns = "".join(f"{m['role'][0]}{m['content']}" for m in messages)
        return turns + ("a" if options["add_generation_prompt"] else "")

    def decode(self, ids: list[int], **_options: Any) -> str:
        return "".join(chr(96 + i) if 0 < i < 27 else "?" for i in ids)


@pytest.fixture(scope="module")
def tiny() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data *= 40
    return LoadedModel(model, cast("Any", Letters()), "tiny", "tiny", 3)


def naive(model: Any, prompt: list[int], response: list[int]) -> float:
    logits = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
    places = range(len(prompt), len(prompt) + len(response))
    return float(np.mean([logits[at - 1, (prompt + response)[at]].item() for at in places]))


ITEMS = [([1, 2, 3], [4, 5]), ([7], [8, 9, 10, 11, 12, 13]), ([1, 2, 3], [5]), ([1, 2, 3], [4, 5])]


def test_likelihood_is_that_of_a_plain_full_pass(tiny: Any) -> None:
    found = StartModel(tiny).log_likelihood(ITEMS)
    assert found == pytest.approx([naive(tiny.model, *item) for item in ITEMS], abs=2e-5)


def test_likelihood_does_not_depend_on_batches(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = StartModel(tiny).log_likelihood(ITEMS)
    monkeypatch.setattr(scores, "BATCH_LOGITS", 1)
    assert StartModel(tiny).log_likelihood(ITEMS) == pytest.approx(together, abs=2e-5)


def test_the_head_sees_response_tokens_only(tiny: Any) -> None:
    shapes = []
    handle = tiny.model.lm_head.register_forward_hook(lambda _m, _a, out: shapes.append(tuple(out.shape)))
    StartModel(tiny).log_likelihood([([1] * 50, [2, 3]), ([1] * 40, [2])])
    handle.remove()
    assert shapes == [(1, 3, 32)]


def test_nothing_to_score_is_nan(tiny: Any) -> None:
    found = StartModel(tiny).log_likelihood([([1], []), ([], [3]), ([], [3, 4])])
    assert np.isnan(found[:2]).all() and found[2] < 0


def test_likelihoods_are_kept_on_disk(tiny: Any, tmp_path: Path) -> None:
    first = StartModel(tiny, cache_dir=tmp_path).log_likelihood(ITEMS)
    again = StartModel(tiny, cache_dir=tmp_path)
    assert (again.log_likelihood(ITEMS) == first).all() and again.tokens_used == 0


PROMPTS: list[Content] = ["abc", ({"role": "user", "content": "hi"},), "abc", "a longer prompt than the others"]


def test_same_seed_same_samples_in_any_order_and_company(tiny: Any) -> None:
    first = StartModel(tiny).sample(PROMPTS, max_new_tokens=12, seed=5)
    model = StartModel(tiny)
    model.sample(["something else"], seed=9)
    torch.manual_seed(1)
    assert model.sample(PROMPTS[::-1], max_new_tokens=12, seed=5) == [first[3], first[0], first[1], first[2]]
    assert StartModel(tiny).sample(["abc"], max_new_tokens=12, seed=5) == first[:1]
    assert StartModel(tiny, seed=5).sample(["abc"], max_new_tokens=12) == first[:1]


def test_a_repeated_prompt_and_another_seed_get_other_samples(tiny: Any) -> None:
    first = StartModel(tiny).sample(PROMPTS, max_new_tokens=12, seed=5)
    assert first[0] != first[2]
    assert StartModel(tiny).sample(["abc"], max_new_tokens=12, seed=6) != first[:1]


def test_samples_follow_the_softmax(tiny: Any) -> None:
    found = StartModel(tiny).sample(["abc"] * 2000, max_new_tokens=1, seed=0, temperature=2.0)
    share = np.array([found.count(Letters().decode([i]) if i else "") for i in range(27)]) / 2000
    expected = (tiny.model(torch.tensor([[1, 2, 3]])).logits[0, -1] / 2.0).softmax(-1).tolist()
    assert np.abs(share - expected[:27]).max() < 0.04


def test_samples_leave_the_global_generator_alone(tiny: Any) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    StartModel(tiny).sample(["abc"], max_new_tokens=3)
    assert torch.rand(1) == expected


def test_a_whole_answer_lacks_what_the_limit_cut_off(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([_Answer("One. Two and", True), _Answer("Two and", True), _Answer("One. Two", False)])
    model = StartModel(tiny, cache_dir=tmp_path)
    monkeypatch.setattr(model, "_generate", lambda draws, *_: [next(answers) for _ in draws])
    asked: list[Content] = ["a", "b", "c"]
    whole = model.sample(asked, max_new_tokens=4, whole=True)
    assert sorted(whole) == ["", "One.", "One. Two"]
    again = StartModel(tiny, cache_dir=tmp_path)
    assert again.sample(asked, max_new_tokens=4, whole=True) == whole
    assert sorted(again.sample(asked, max_new_tokens=4)) == ["One. Two", "One. Two and", "Two and"]


def test_an_answer_is_cut_where_no_end_stands_in_it(tiny: Any) -> None:
    model = StartModel(tiny)
    end = model._end_ids()[0]
    assert model._decode([1, 2, end, end], [end]) == _Answer(model.tokenizer.decode([1, 2]), False)
    assert model._decode([1, 2, 3], [end]).cut


def test_samples_are_kept_on_disk(tiny: Any, tmp_path: Path) -> None:
    first = StartModel(tiny, cache_dir=tmp_path).sample(PROMPTS, max_new_tokens=5)
    again = StartModel(tiny, cache_dir=tmp_path)
    assert again.sample(PROMPTS, max_new_tokens=5) == first and again.tokens_used == 0
    again.sample(PROMPTS, max_new_tokens=6)
    assert again.tokens_used > 0


def test_a_rule_goes_before_the_conversation(tiny: Any) -> None:
    seen = StartModel(tiny).prompt_ids
    assert seen(({"role": "user", "content": "hi"},), "be kind") == Letters()("sbekinduhia")["input_ids"]
    assert seen("hi", "be kind") == Letters()("bekindhi")["input_ids"]


def test_a_rule_goes_before_the_first_message_where_a_template_takes_none(tiny: Any) -> None:
    class Strict(Letters):
        def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
            if messages[0]["role"] == "system":
                raise ValueError("System role not supported")
            return super().apply_chat_template(messages, **options)

    strict = replace(tiny, tokenizer=Strict())
    asked = ({"role": "user", "content": "hi"},)
    assert StartModel(strict).prompt_ids(asked, "be kind") == Letters()("ubekindhia")["input_ids"]
    with pytest.raises(DataError, match="System role not supported"):
        StartModel(strict).prompt_ids(({"role": "system", "content": "x"}, *asked))


def test_a_pairs_tools_and_template_options_are_part_of_its_prompt(tiny: Any) -> None:
    class Options(Letters):
        def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
            return f"{options.get('tools')}{options.get('mood', '')}{super().apply_chat_template(messages, **options)}"

    seen = StartModel(replace(tiny, tokenizer=Options())).prompt_ids
    asked = ({"role": "user", "content": "hi"},)
    pair = Pair(
        row=0, prompt=asked, chosen=asked, rejected=asked, tools=({"f": "x"},), template_kwargs={"mood": "calm"}
    )
    assert seen(asked) == Letters()("Noneuhia")["input_ids"]
    assert seen(pair) == Letters()("fxcalmuhia")["input_ids"]
    assert seen(pair.model_copy(update={"tools": None, "template_kwargs": {}})) == seen(asked)


def switch(scale: float) -> Suppression:
    weights = torch.linspace(-1, 1, 32).reshape(2, 16)
    decoder = np.full((2, 16), scale, dtype=np.float32)
    return Suppression(layer=1, features=(3, 8), decoder=decoder, acts=lambda h: (h @ weights.T).relu(), ref="test")


def test_suppression_subtracts_what_the_features_wrote(tiny: Any) -> None:
    states: list[torch.Tensor] = []
    ids = torch.tensor([[0, 0, 1, 2, 3], [4, 5, 6, 7, 8]])
    tiny.model(ids)
    layer, off = tiny.model.model.layers[1], switch(0.5)
    for suppress in (None, off):
        with suppressed(tiny.model, suppress, torch.tensor([2, 0])):
            handle = layer.register_forward_hook(lambda _m, _a, out: states.append(out.detach().clone()))
            tiny.model(ids)
            handle.remove()
    before, after = states
    stated = before - off.acts(before) @ torch.as_tensor(off.decoder)
    assert torch.allclose(after[0, 3:], stated[0, 3:]) and torch.allclose(after[1, 1:], stated[1, 1:])
    assert torch.equal(after[0, :3], before[0, :3]) and torch.equal(after[1, :1], before[1, :1])
    assert not torch.allclose(after[1, 1:], before[1, 1:])


def test_suppression_reaches_generated_tokens_and_then_ends(tiny: Any) -> None:
    model = StartModel(tiny)
    plain = model.sample(["abc"], max_new_tokens=20)
    assert model.sample(["abc"], max_new_tokens=20, suppress=switch(0.0)) == plain
    assert model.sample(["abc"], max_new_tokens=20, suppress=switch(3.0)) != plain
    assert StartModel(tiny).sample(["abc"], max_new_tokens=20) == plain


def test_a_lens_switches_off_what_its_sae_reads_and_writes() -> None:
    sae = SimpleNamespace(
        W_dec=torch.eye(4)[:3] * 2, encode=lambda h: h[:, :3].relu(), decode=lambda f: f @ (torch.eye(4)[:3] * 2) + 7.0
    )
    lens: Any = SimpleNamespace(sae=sae, layer=1, d_sae=3, lens_id="l")
    off = Suppression.of_lens(lens, [2, 0])
    assert off.decoder.tolist() == [[0, 0, 2, 0], [2, 0, 0, 0]]
    assert off.acts(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[3.0, 1.0]]
    assert off.key() == Suppression.of_lens(lens, [2, 0]).key() != Suppression.of_lens(lens, [2]).key()


@pytest.mark.model
def test_the_embedded_model_finds_sense_likelier_than_noise(model_dir: Path) -> None:
    from premortem.interp.models import load_model

    loaded = load_model(str(model_dir))
    texts = ("The capital of France is", " Paris.", " thumb xylophone.")
    prompt, sense, noise = (loaded.tokenizer(text)["input_ids"] for text in texts)
    model = StartModel(loaded)
    likely, unlikely = model.log_likelihood([(prompt, sense), (prompt, noise)])
    assert likely > unlikely + 2
    assert model.sample([texts[0]], max_new_tokens=1, temperature=0) == [" Paris"]


def test_an_answer_ends_with_the_token_that_the_template_writes_there(tmp_path: Path) -> None:
    model = StartModel(load_model(str(write_model(tmp_path / "model"))))
    for pair in (some_pairs()[0], Pair(row=0, prompt="Say it: ", chosen="yes", rejected="no")):
        read = tokenize(pair, model.tokenizer)
        assert read is not None
        assert model.end_id(pair) in read.chosen[-2:]
        assert model.end_id(pair) in model._end_ids()
