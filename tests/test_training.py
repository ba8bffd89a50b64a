"""Real DPO with TRL on a random model of four layers: what it learns, and that it can be interrupted."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from premortem.interp import training
from premortem.interp.errors import ModelError, NoPairs
from premortem.interp.forward import Forward, template_opening
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.progress import NullProgress
from premortem.interp.records import Pair, content_id
from premortem.interp.start_model import StartModel
from premortem.interp.tokens import tokenize
from premortem.interp.training import TrainingSettings, _dataset, _name, reference_log_likelihood, train_dpo
from premortem.interp.trl_trainer import dpo_trainer, each_row, in_one_row, unpadded
from tiny import TEMPLATE, chat_pair, write_model

pytest.importorskip("trl", reason="TRL is an optional dependency (premortem[validate])")
from trl import DPOConfig, DPOTrainer
from trl.trainer import utils

SETTINGS = TrainingSettings(epochs=4, learning_rate=1e-2, batch_pairs=2, rank=4, max_length=128)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return [chat_pair(i, f"Say {word}.", "aaaa", "zzzz") for i, word in enumerate(["one", "two", "three", "four"])]


def margin(folder: Path, pair: Pair) -> float:
    """Return how much likelier the chosen response is than the rejected one, in nats a token."""
    loaded = load_model(str(folder))
    tokens = tokenize(pair, loaded.tokenizer)
    assert tokens is not None
    chosen, rejected = StartModel(loaded).log_likelihood(
        [(tokens.prompt, tokens.chosen), (tokens.prompt, tokens.rejected)]
    )
    return float(chosen - rejected)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_makes_the_chosen_side_likelier(method: str, model: Path, pairs: list[Pair], tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"method": method})
    trained = train_dpo(str(model), pairs, tmp_path, settings)
    assert margin(trained.folder, pairs[0]) > margin(model, pairs[0]) + 0.05
    assert trained.steps == 8
    assert trained.loss < 0.69
    assert set(trained.versions) == {"torch", "transformers", "trl", "peft"}
    assert [folder.name for folder in tmp_path.glob("[!.]*")] == [trained.folder.name]


def test_the_head_scores_the_tokens_of_responses_alone(
    model: Path, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []

    class Counting(utils._ChunkedLogProbFunction):  # type: ignore[misc, name-defined]
        @classmethod
        def apply(cls, hidden: torch.Tensor, *others: Any) -> Any:
            scored.append(len(hidden))
            return super().apply(hidden, *others)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counting)
    usual = utils._use_triton  # type: ignore[attr-defined]
    train_dpo(str(model), pairs, tmp_path, SETTINGS.model_copy(update={"epochs": 1}))
    tokens = [tokenize(pair, load_model(str(model)).tokenizer) for pair in pairs]
    assert sum(scored) == sum(len(side) for each in tokens if each is not None for side in (each.chosen, each.rejected))
    assert len(scored) == -(-len(pairs) // SETTINGS.batch_pairs)  # the pairs of a step at once
    assert utils._use_triton is usual  # type: ignore[attr-defined]


def test_what_goes_through_the_model_without_padding_tells_the_same(model: Path) -> None:
    loaded = load_model(str(model), packed=False).model.requires_grad_(True)
    utils.add_fused_lm_head(loaded, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    ids = torch.randint(5, loaded.config.vocab_size, (4, 11), generator=torch.Generator().manual_seed(0))
    ids[2:, :4] = ids[:2, :4]  # chosen sides first, then the rejected ones of the same prompts
    ids[:, :2] = torch.tensor([3, 4])
    lengths, prompts = torch.tensor([[11], [7], [6], [4]]), torch.tensor([[3], [4], [3], [4]])
    mask = torch.arange(11) < lengths
    labels = ids.masked_fill(~mask | (torch.arange(11) < prompts), -100)  # nothing of the last side is scored
    batch = {"input_ids": ids, "attention_mask": mask.long(), "labels": labels, "use_cache": False}
    read: list[int] = []
    loaded.get_input_embeddings().register_forward_pre_hook(lambda _, given: read.append(given[0].numel()))
    scored, found = (labels != -100)[:, 1:], []
    for forward in (loaded, each_row(loaded), in_one_row(loaded, np.asarray([3, 4], np.int32))):
        loaded.zero_grad()
        told = forward(**batch, fused_lm_head=True)
        assert told.log_probs.shape == (4, 10)
        (told.log_probs[:2].sum() - told.log_probs[2:].sum()).backward()
        gradients = torch.cat([weight.grad.flatten() for weight in loaded.parameters() if weight.grad is not None])
        found.append(
            [*(told[name][scored].double() for name in ("log_probs", "entropy", "mean_logits", "is_top1")), gradients]
        )
    assert read == [44, 11, 7, 6, 4, 2 + (9 + 4) + (1 + 4 + 1)]
    for other in found[1:]:
        for told, usual in zip(other, found[0], strict=True):
            torch.testing.assert_close(told, usual, atol=1e-5 * max(1.0, float(usual.abs().max())), rtol=1e-4)


def test_a_side_without_any_token_adds_nothing(model: Path) -> None:
    loaded = load_model(str(model), packed=False).model
    utils.add_fused_lm_head(loaded)
    ids = torch.tensor([[7, 8, 9], [0, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    labels = ids.masked_fill(mask == 0, -100)
    told = in_one_row(loaded, np.zeros(0, np.int32))(
        input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, fused_lm_head=True
    )
    alone = loaded(input_ids=ids[:1], attention_mask=mask[:1], labels=labels[:1], use_cache=False, fused_lm_head=True)
    assert told.log_probs[0].tolist() == pytest.approx(alone.log_probs[0].tolist(), abs=1e-5)
    assert told.log_probs[1].tolist() == [0.0, 0.0]


def test_a_model_that_cannot_be_laid_out_in_one_row_is_called_on_each(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(str(model), packed=False)
    assert unpadded(loaded).keywords["opening"].tolist() == template_opening(loaded.tokenizer).tolist()
    loaded.model.config.attention_dropout = 0.1
    assert unpadded(loaded) is each_row
    loaded.model.config.attention_dropout = 0.0
    monkeypatch.setattr(Forward, "_tree_works", lambda self: False)
    assert unpadded(loaded) is each_row
    experts: list[int] = []

    def routed(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        experts.append(input_ids.numel())
        return utils.FusedCausalLMOutput(log_probs=attention_mask[:, 1:].float(), aux_loss=torch.tensor(1.0))

    mask = torch.ones(2, 3, dtype=torch.long)
    in_one_row(routed, np.zeros(0, np.int32))(
        input_ids=mask, attention_mask=mask, labels=mask, output_router_logits=True
    )
    assert experts == [3, 3]


def test_a_figure_of_the_whole_batch_is_the_mean_over_its_sides() -> None:
    def model(attention_mask: torch.Tensor, **_: torch.Tensor) -> Any:
        n = attention_mask.sum()
        return utils.FusedCausalLMOutput(log_probs=attention_mask[:, 1:].float(), aux_loss=n.float())

    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    told = each_row(model)(input_ids=mask, attention_mask=mask, labels=mask)
    assert told.aux_loss == 3
    assert told.log_probs.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_what_is_trained_is_not_trained_again(model: Path, pairs: list[Pair], tmp_path: Path) -> None:
    first = train_dpo(str(model), pairs, tmp_path, SETTINGS)
    written = (first.folder / "model.safetensors").stat().st_mtime_ns
    assert train_dpo(str(model), pairs, tmp_path, SETTINGS) == first
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == written
    other = train_dpo(str(model), pairs, tmp_path, SETTINGS.model_copy(update={"seed": 1}))
    assert other.folder != first.folder


def test_an_interrupted_training_goes_on_and_ends_with_the_same_weights(
    model: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    class Interrupted(Exception):
        pass

    class Stage:
        count = 0

        def advance(self, n: int = 1) -> None:
            self.count += n
            if self.count == 6:
                raise Interrupted

    class Breaks:
        def stage(self, name: str, total: int | None = None) -> object:
            from contextlib import nullcontext

            return nullcontext(Stage())

    whole = train_dpo(str(model), pairs, tmp_path / "whole", SETTINGS)
    with pytest.raises(Interrupted):
        train_dpo(str(model), pairs, tmp_path / "broken", SETTINGS, Breaks())  # type: ignore[arg-type]
    left = next((tmp_path / "broken").glob("[!.]*"))
    assert left.name.endswith(".partial")
    assert list(left.glob("checkpoint-*"))
    (left / "checkpoint-999").mkdir()  # killed while it was written
    resumed = train_dpo(str(model), pairs, tmp_path / "broken", SETTINGS)
    assert margin(resumed.folder, pairs[0]) == pytest.approx(margin(whole.folder, pairs[0]), abs=1e-4)
    assert [folder.name for folder in (tmp_path / "broken").glob("[!.]*")] == [resumed.folder.name]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_are_held_in_float32_where_a_model_is_read_in_bfloat16(
    method: str, model: Path, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"method": method, "epochs": 1, "learning_rate": 1e-5})
    usual = train_dpo(str(model), pairs, tmp_path / "float32", settings)

    def in_bfloat16(ref: str, *, dtype: torch.dtype | None = None, packed: bool = True) -> LoadedModel:
        return load_model(ref, packed=packed, dtype=dtype or torch.bfloat16)

    monkeypatch.setattr(training, "load_model", in_bfloat16)
    there = train_dpo(str(model), pairs, tmp_path / "bfloat16", settings)
    ours, theirs, start = (load_file(folder / "model.safetensors") for folder in (usual.folder, there.folder, model))
    moved = [name for name in ours if not torch.equal(ours[name], start[name])]
    assert moved
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_only_what_was_trained_otherwise_before_gets_another_name(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"trl": "1"}
    rows = [pair.model_dump(mode="json", exclude={"row"}) for pair in pairs]
    known = content_id("d", SETTINGS.model_dump(), versions, rows)
    assert _name("d", pairs, SETTINGS, versions) == known
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _name("d", pairs, SETTINGS, versions) != known


def test_no_pairs_and_no_trl_are_told(model: Path, pairs: list[Pair], tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NoPairs):
        train_dpo(str(model), [], tmp_path)
    import premortem.interp.training as module

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"premortem\[validate\]"):
        train_dpo(str(model), pairs, tmp_path)


def prepared(rows: datasets.Dataset, model: Path, folder: Path, kind: type) -> list[dict[str, list[int]]]:
    """Return the tokens that a trainer of that `kind` trains on."""
    loaded = load_model(str(model), packed=False)
    arguments = DPOConfig(
        str(folder), max_length=128, precompute_ref_log_probs=True, use_cpu=True, bf16=False, report_to="none"
    )
    trainer = kind(model=loaded.model, args=arguments, train_dataset=rows, processing_class=loaded.tokenizer)
    return list(trainer.train_dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]))


def of_pairs(pairs: list[Pair], model: Path) -> datasets.Dataset:
    return _dataset(pairs, load_model(str(model), layers=1).tokenizer, np.zeros((len(pairs), 2)), 128)


def test_ordinary_pairs_are_trained_on_as_trl_prepares_them_itself(
    model: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    too_long = chat_pair(8, "Say it. " * 20, "yes", "no")
    varied = [*pairs, too_long, chat_pair(9, "Say it at length.", "a long answer " * 9, "no")]
    rows = [pair.model_dump(mode="json", include={"prompt", "chosen", "rejected"}) for pair in varied]
    ours = prepared(of_pairs(varied, model), model, tmp_path, dpo_trainer(each_row))
    assert ours == prepared(datasets.Dataset.from_list(rows), model, tmp_path, DPOTrainer)
    assert len(ours) == len(varied) - 1


def calls(row: int, arguments: dict[str, str], **more: Any) -> Pair:
    said = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    return chat_pair(row, "Call it.", "", "no").model_copy(update={"chosen": (said,), **more})


def test_each_pair_is_trained_on_as_it_was_read_whatever_form_the_others_have(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text(
        TEMPLATE.replace("m['content']", "m['content'] ~ (m.tool_calls or mark)")
    )
    listed = ({"role": "user", "content": [{"type": "text", "text": "Say it."}]},)
    mixed = [
        calls(0, {"city": "Rome"}),
        calls(1, {"x": "1"}, template_kwargs={"mark": "a"}),
        chat_pair(2, "Say it.", "yes", "no").model_copy(update={"template_kwargs": {"mark": "!", "other": 1}}),
        chat_pair(3, "Say it.", "yes", "no").model_copy(update={"prompt": listed}),
        Pair(row=4, prompt="Say it: ", chosen="yes", rejected="no"),
    ]
    found = prepared(of_pairs(mixed, model), model, tmp_path / "work", dpo_trainer(each_row))
    tokenizer = load_model(str(model), layers=1).tokenizer
    said = [tokenizer.decode(row["prompt_ids"] + row["chosen_ids"]) for row in found]
    assert ["None" in text for text in said] == [False] * 5
    assert "'city': 'Rome'" in said[0]
    assert "'x': '1'" in said[1]
    assert said[2].endswith("yes!<|im_end|>\n")
    assert [tuple(row.values()) for row in found] == [tokenize(pair, tokenizer) for pair in mixed]


def test_mixed_pairs_train_and_only_what_a_table_changes_gets_another_name(
    model: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    mixed = [*pairs[:2], Pair(row=4, prompt="Say it: ", chosen="yes", rejected="no")]
    assert train_dpo(str(model), mixed, tmp_path, SETTINGS.model_copy(update={"epochs": 1})).steps == 2
    for some, named in ((mixed, True), ([calls(0, {"x": "1"})], False)):
        rows = [pair.model_dump(mode="json", exclude={"row"}) for pair in some]
        assert (_name("d", some, SETTINGS, {}) == content_id("d", SETTINGS.model_dump(), {}, rows)) is named


def test_prompts_that_are_all_too_long_are_told(model: Path, tmp_path: Path) -> None:
    with pytest.raises(NoPairs, match="every prompt alone has 128 tokens"):
        train_dpo(str(model), [chat_pair(0, "Say it. " * 20, "yes", "no")], tmp_path, SETTINGS)


@pytest.mark.parametrize("max_length", [128, 60])
def test_the_reference_is_what_trl_computes_itself(
    max_length: int, model: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    loaded = load_model(str(model), packed=False)
    varied = [*pairs, chat_pair(9, "Say it at length.", "a long answer " * 3, "no")]
    own = reference_log_likelihood(StartModel(loaded), varied, max_length, NullProgress())
    arguments = DPOConfig(
        str(tmp_path),
        max_length=max_length,
        precompute_ref_log_probs=True,
        per_device_train_batch_size=2,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    rows = [pair.model_dump(mode="json", include={"prompt", "chosen", "rejected"}) for pair in varied]
    trainer = DPOTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=loaded.tokenizer,
    )
    kept = own[(own != 0).any(1)]
    for column, name in enumerate(("ref_chosen_logps", "ref_rejected_logps")):
        assert kept[:, column] == pytest.approx(np.asarray(trainer.train_dataset[name]), abs=1e-2)


def test_a_pair_that_is_not_trained_on_has_no_reference(model: Path, pairs: list[Pair]) -> None:
    loaded = load_model(str(model), packed=False)
    too_long = chat_pair(9, "Say it. " * 20, "yes", "no")
    found = reference_log_likelihood(StartModel(loaded), [too_long, *pairs], 100, NullProgress())
    assert (found[0] == 0).all()
    assert (found[1:] < 0).all()


@pytest.mark.parametrize(
    ("longest", "vocabulary", "at_once"),
    [(350, 49_152, 8), (1024, 151_936, 1), (400, 128_000, 4), (1024, 256_000, 1), (0, 1, 8)],
)
def test_so_many_pairs_go_through_a_gpu_at_once_as_their_logits_allow(
    longest: int, vocabulary: int, at_once: int
) -> None:
    assert training.pairs_at_once(longest, training.LOGITS // vocabulary, 8) == at_once
    assert training.pairs_at_once(longest, training.LOGITS // vocabulary, 7) in (1, 7)


def test_so_many_pairs_go_through_a_cpu_at_once_as_one_row_may_hold() -> None:
    assert [training.pairs_at_once(longest, 2048, 8) for longest in (100, 256, 300, 512, 1024, 5000)] == [
        8, 4, 2, 2, 1, 1
    ]  # fmt: skip
