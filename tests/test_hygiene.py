"""Facts about notes on the data: each kind is told once, with its rows, and nothing is removed."""

from collections.abc import Sequence

from premortem.interp import hygiene
from premortem.interp.hygiene import collect_notes
from premortem.interp.records import Pair


def pair(row: int, prompt: str, chosen: str, rejected: str) -> Pair:
    return Pair(row=row, prompt=prompt, chosen=chosen, rejected=rejected)


def chat(row: int, prompt: str, chosen: str, rejected: str) -> Pair:
    return Pair(
        row=row,
        prompt=({"role": "user", "content": prompt},),
        chosen=({"role": "assistant", "content": chosen},),
        rejected=({"role": "assistant", "content": rejected},),
    )


def rows(pairs: Sequence[Pair]) -> dict[str, tuple[int, ...]]:
    return {note.kind: note.rows for note in collect_notes(pairs)}


def test_clean_pairs_have_no_notes() -> None:
    assert (
        collect_notes([pair(0, "What is red?", "A colour.", "A fish."), chat(1, "And blue?", "Also.", "A bird.")]) == ()
    )


def test_identical_sides_are_told() -> None:
    assert rows([pair(0, "a?", "x", "x"), chat(1, "b?", "y", "y"), pair(2, "c?", "x", "y")]) == {"identical": (0, 1)}


def test_a_side_that_begins_the_other_is_told() -> None:
    assert rows([pair(0, "a?", "Yes", "Yes, sure"), chat(1, "b?", "No, never", "No"), pair(2, "c?", "Yes", "No")]) == {
        "prefix": (0, 1)
    }


def test_an_empty_response_is_empty_and_not_a_prefix() -> None:
    assert rows([pair(0, "a?", "", "x"), chat(1, "b?", "y", " \n")])["empty"] == (0, 1)
    assert "prefix" not in rows([pair(0, "a?", "", "x")])


def test_a_tool_call_without_text_is_not_empty() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    assert rows([chat(0, "a?", "x", "y").model_copy(update={"chosen": (call,)})]) == {}


def test_copies_are_told_at_the_later_rows() -> None:
    assert rows([pair(3, "a?", "x", "y"), pair(5, "a?", "x", "y"), pair(8, "a?", "x", "y")]) == {"duplicate": (5, 8)}


def test_near_copies_are_told_and_swapped_sides_are_not() -> None:
    words = [f"word{i}" for i in range(60)]
    chosen, rejected = " ".join(words[:30]), " ".join(words[30:])
    pairs = [
        pair(0, "What now?", chosen, rejected),
        pair(1, "What now?", chosen + " indeed", rejected),
        pair(2, "What now?", rejected, chosen),
    ]
    assert rows(pairs) == {"near_duplicate": (1,)}


def test_large_data_is_not_searched_for_near_copies(monkeypatch) -> None:
    monkeypatch.setattr(hygiene, "NEAR_DUPLICATE_PAIRS", 1)
    text = " ".join(f"word{i}" for i in range(40))
    assert rows([pair(0, "a?", text, "y"), pair(1, "a?", text + " z", "y")]) == {}


def test_control_tokens_in_any_text_are_told() -> None:
    texts = ["<|im_end|>", "<｜User｜>", "[INST] do", "[/INST]", "</s>", "<start_of_turn>user", "<<SYS>>"]
    pairs = [pair(row, f"number {row}?", f"fine {text} so", f"other {row}") for row, text in enumerate(texts)]
    pairs.append(chat(20, "hello <|im_start|>system", "x", "y"))
    assert rows(pairs) == {"special_tokens": (0, 1, 2, 3, 4, 5, 6, 20)}


def test_code_and_markup_are_not_control_tokens() -> None:
    assert rows([pair(0, "a?", "a <b> c | d <- e; x[INSTANCE] <|> y", "<p>no</p>")]) == {}


def test_a_note_counts_in_words() -> None:
    (note,) = collect_notes([pair(0, "a?", "x", "x")])
    assert note.text == "1 pair: both responses are the same, which teaches nothing."
