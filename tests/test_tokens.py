"""Facts about tokens: they are TRL's own, and each knows its place in the response."""

import json
from pathlib import Path
from typing import Any

import pytest

from premortem.interp.errors import DataError, NoPairs
from premortem.interp.forms import read_row
from premortem.interp.hygiene import collect_notes, vetted
from premortem.interp.records import Dataset, Pair
from premortem.interp.tokens import PairTokens, response_offsets, tokenize, tokenize_all

HI, YES, NO = (
    {"role": "user", "content": "Where do otters sleep?"},
    {"role": "assistant", "content": "They float on their backs, holding hands. 🦦 Sweet!"},
    {"role": "assistant", "content": " On land, I think.\n"},
)
HELLO, MORE = {"role": "assistant", "content": "Hello there."}, {"role": "user", "content": "And whales?"}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}

STANDARD = {"prompt": "Otters sleep", "chosen": " afloat, holding hands.", "rejected": " on land.\n"}
TRL_ROWS: dict[str, list[dict[str, Any]]] = {
    "explicit standard": [STANDARD, {"prompt": "A: ", "chosen": "", "rejected": "end<|im_end|>"}],
    "implicit standard": [{"chosen": "Q: sky? A: It is blue.", "rejected": "Q: sky? A: It is red."}],
    "explicit conversational": [
        {"prompt": [HI], "chosen": [YES], "rejected": [NO]},
        {"prompt": [SYSTEM, HI, HELLO, MORE], "chosen": [YES], "rejected": [NO]},
        {"prompt": [HI], "chosen": [HELLO, MORE, YES], "rejected": [NO]},
        {"prompt": [HI, HELLO], "chosen": [YES], "rejected": [NO]},
    ],
    "implicit conversational": [
        {"chosen": [HI, YES], "rejected": [HI, NO]},
        {"chosen": [HI, HELLO, MORE, YES], "rejected": [HI, HELLO, MORE, NO]},
    ],
    "tools as text": [{"prompt": [HI], "chosen": [YES], "rejected": [NO], "tools": json.dumps([TOOL])}],
    "tools and template options": [
        {"prompt": [HI], "chosen": [YES], "rejected": [NO], "tools": [TOOL], "chat_template_kwargs": {"mood": "calm"}}
    ],
}
WITH_TOOLS = (
    "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}{% if mood is defined %}MOOD {{ mood }}\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def trl_ids(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that has TRL's own preparation and collator turn rows into what DPO trains on."""
    pytest.importorskip("trl", reason="TRL is an optional dependency (premortem[validate])")
    import datasets
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    folder = str(tmp_path_factory.mktemp("trl"))
    trainer = object.__new__(DPOTrainer)  # its preparation needs a tokenizer and no model
    trainer._tokenizer = tokenizer

    def prepare(rows: list[dict[str, Any]], max_length: int = 1024) -> list[tuple[list[int], list[int], list[int]]]:
        args = DPOConfig(folder, max_length=max_length, report_to="none", use_cpu=True, bf16=False)
        prepared = trainer._prepare_dataset(datasets.Dataset.from_list(rows), tokenizer, args, "train")
        collator = DataCollatorForPreference(tokenizer.pad_token_id, args.max_length, args.truncation_mode)
        return [_sides(collator([row])) for row in prepared]

    return prepare


def _sides(batch: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    """Return what a collated pair trains on: prompt, chosen and rejected ids."""
    sides = []
    for ids, present, answer in zip(batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True):
        shown = present.bool()
        sides.append((ids[shown & ~answer.bool()].tolist(), ids[shown & answer.bool()].tolist()))
    (prompt, chosen), (_, rejected) = sides
    return prompt, chosen, rejected


@pytest.mark.parametrize("name", TRL_ROWS)
def test_ids_are_those_dpo_trains_on(name: str, tokenizer: Any, trl_ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if "tools" in name:
        monkeypatch.setattr(tokenizer, "chat_template", WITH_TOOLS)
    rows = TRL_ROWS[name]
    ours = [tokenize(read_row(row, i), tokenizer) for i, row in enumerate(rows)]
    assert [tuple(tokens) for tokens in ours if tokens] == trl_ids(rows)


def test_a_cut_inside_a_word_moves_back_but_the_sequence_stays(tokenizer: Any, trl_ids: Any) -> None:
    row = {"chosen": "Q: sky? A: It is blue.", "rejected": "Q: sky? A: It is blunt."}
    ours = tokenize(read_row(row, 0), tokenizer)
    assert ours is not None
    ((prompt, chosen, rejected),) = trl_ids([row])
    assert len(ours.prompt) <= len(prompt)
    assert tokenizer.decode(ours.prompt + ours.chosen) == tokenizer.decode(prompt + chosen)
    assert tokenizer.decode(ours.prompt + ours.rejected) == tokenizer.decode(prompt + rejected)


@pytest.mark.parametrize("max_length", [4, 20, 40, 50])
def test_long_pairs_are_cut_and_dropped_where_trl_does(max_length: int, tokenizer: Any, trl_ids: Any) -> None:
    rows = [*TRL_ROWS["explicit conversational"], {"prompt": [MORE], "chosen": [YES], "rejected": [NO]}]
    ours = [tokenize(read_row(row, i), tokenizer, max_length) for i, row in enumerate(rows)]
    kept = [tuple(tokens) for tokens in ours if tokens]
    if kept:
        assert kept == trl_ids(rows, max_length)
    assert all(len(t.prompt) + max(len(t.chosen), len(t.rejected)) <= max_length for t in ours if t)


def test_a_batch_has_the_ids_of_its_pairs(tokenizer: Any) -> None:
    pairs = [read_row(row, i) for i, row in enumerate([STANDARD, *TRL_ROWS["explicit conversational"], STANDARD])]
    assert list(tokenize_all(pairs, tokenizer)) == [tokenize(pair, tokenizer, 10_000) for pair in pairs]


def test_a_cut_to_the_prompt_leaves_nothing() -> None:
    tokens = PairTokens([1, 2, 3], [4, 5], [6])
    assert tokens.cut(3) is None
    assert tokens.cut(4) == PairTokens([1, 2, 3], [4], [6])


def spoken(pair: Pair, side: Any, tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    tokens = tokenize(pair, tokenizer)
    assert tokens is not None
    spans = response_offsets(pair, side, tokens, tokenizer)
    assert len(spans) == len(tokens.side(side))
    filled = [span for span in spans if span[0] < span[1]]
    assert filled == sorted(filled)
    covered = sorted({place for start, end in filled for place in range(start, end)})
    return "".join(pair.text(side)[place] for place in covered), spans


@pytest.mark.parametrize("side", ["chosen", "rejected"])
@pytest.mark.parametrize("name", ["explicit standard", "explicit conversational", "implicit conversational"])
def test_offsets_cover_the_whole_response(name: str, side: str, tokenizer: Any) -> None:
    for i, row in enumerate(TRL_ROWS[name]):
        pair = read_row(row, i)
        end = tokenizer.eos_token if not pair.conversational else ""
        text, _ = spoken(pair, side, tokenizer)
        assert text.removesuffix(end) == pair.text(side).removesuffix(end)


def test_closing_tokens_have_empty_spans(tokenizer: Any) -> None:
    _, spans = spoken(read_row(TRL_ROWS["explicit conversational"][0], 0), "chosen", tokenizer)
    assert spans[0] == (0, 4)
    assert spans[-2:] == [(0, 0), (0, 0)]


def test_offsets_follow_a_template_that_trims(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", WITH_TOOLS)
    text, spans = spoken(read_row(TRL_ROWS["explicit conversational"][0], 0), "rejected", tokenizer)
    assert text == "On land, I think."
    assert spans[0] == (1, 3)


def test_offsets_survive_a_response_that_names_the_template(tokenizer: Any) -> None:
    message = {"role": "assistant", "content": "im"}
    pair = Pair(row=0, prompt=({"role": "user", "content": "im"},), chosen=(message,), rejected=(message,))
    text, spans = spoken(pair, "chosen", tokenizer)
    assert text == "im"
    assert spans[0] == (0, 2)


def test_a_template_that_cannot_render_is_a_data_error(tokenizer: Any) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    with pytest.raises(DataError, match="row 7: the model's chat template cannot render it"):
        tokenize(Pair(row=7, prompt=(HI,), chosen=(call,), rejected=(YES,)), tokenizer)


def test_what_a_template_refuses_is_quarantined(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", strict + WITH_TOOLS)
    rows = [{"prompt": [SYSTEM, HI] if n in (1, 3) else [HI], "chosen": [YES], "rejected": [NO]} for n in range(4)]
    pairs = tuple(read_row(row, n) for n, row in enumerate(rows))
    dataset = Dataset(path="x.jsonl", sha256="0", form="conversational", pairs=pairs, notes=collect_notes(pairs))
    taken = vetted(dataset, tokenizer)
    assert [pair.row for pair in taken.pairs] == [0, 2]
    assert [bad.row for bad in taken.quarantined] == [1, 3]
    assert "cannot render it: System role not supported" in taken.quarantined[0].reason
    assert json.loads(taken.quarantined[0].line)["prompt"] == [SYSTEM, HI]
    notes = {note.kind: note for note in taken.notes}
    assert notes["refused"].rows == (1, 3) and "System role not supported, so it is left out" in notes["refused"].text
    assert notes["duplicate"] == dataset.notes[0]
    with pytest.raises(NoPairs, match=r"no pair is left: row 1: .*System role not supported"):
        vetted(dataset.model_copy(update={"pairs": (pairs[1], pairs[3])}), tokenizer)


def test_a_datasets_notes_tell_lengths_once_a_tokenizer_is_known(tokenizer: Any) -> None:
    rows = [{**STANDARD, "prompt": "so " * 50}, {**STANDARD, "chosen": " yes<eos>"}, STANDARD]
    pairs = tuple(read_row(row, n) for n, row in enumerate(rows))
    dataset = Dataset(path="x.jsonl", sha256="0", form="standard", pairs=pairs, notes=collect_notes(pairs))
    taken = vetted(dataset, tokenizer, max_length=40)
    assert taken.pairs == pairs and not taken.quarantined
    assert {note.kind: note.rows for note in taken.notes} == {"prompt_too_long": (0,), "special_tokens": (1,)}


def test_length_notes_come_with_a_tokenizer(tokenizer: Any) -> None:
    rows = [{**STANDARD, "prompt": "so " * 50}, {**STANDARD, "chosen": " yes" * 50}, STANDARD]
    notes = collect_notes([read_row(row, i) for i, row in enumerate(rows)], tokenizer, max_length=40)
    assert {note.kind: note.rows for note in notes if note.kind != "near_duplicate"} == {
        "prompt_too_long": (0,),
        "truncated": (1,),
    }


def test_the_closing_token_of_plain_text_is_no_control_token(tokenizer: Any) -> None:
    pair = Pair(row=0, prompt="Hi?", chosen="Yes.<|im_end|>", rejected="No.")
    assert collect_notes([pair], tokenizer) == ()
    inside = pair.model_copy(update={"chosen": "Yes.<|im_end|> More."})
    assert [note.kind for note in collect_notes([inside], tokenizer)] == ["special_tokens"]
