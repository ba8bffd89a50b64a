"""Facts about rows: which pair each public form holds, and that an edited pair goes back into the form it came in."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from premortem.interp.columns import check_mapping
from premortem.interp.errors import DataError, RowError
from premortem.interp.forms import explicit_row, new_row, read_row, trl_form, write_row
from premortem.interp.records import Pair

HI, YES, NO = (
    {"role": "user", "content": "Hi?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "assistant", "content": "No."},
)
OPEN, MORE = {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "More?"}

STANDARD = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No.", "score": 3}
CONVERSATIONAL = {"prompt": [HI], "chosen": [YES], "rejected": [NO]}
IMPLICIT_CHAT = {"chosen": [HI, YES], "rejected": [HI, NO], "id": "x"}
IMPLICIT_TEXT = {"chosen": "Q: sky? A: It is blue.", "rejected": "Q: sky? A: It is black."}
MIXED = {"prompt": "Hi?", "chosen": [HI, YES], "rejected": [HI, NO], "score_chosen": 8.0}
MIXED_BARE = {"prompt": "Hi?", "chosen": [YES], "rejected": [NO]}
TRANSCRIPT = {
    "chosen": "\n\nHuman: Hi?\n\nAssistant: Hello.\n\nHuman: More?\n\nAssistant: Yes.",
    "rejected": "\n\nHuman: Hi?\n\nAssistant: Hello.\n\nHuman: More?\n\nAssistant: No.",
}
SHAREGPT = {
    "conversations": [{"from": "human", "value": "Hi?"}],
    "chosen": {"from": "gpt", "value": "Yes."},
    "rejected": {"from": "gpt", "value": "No."},
}
ORCA = {"system": "Be brief.", "question": "Hi?", "chosen": "Yes.", "rejected": "No."}
CHAT_PROMPT = {"prompt": [HI], "chosen": "Yes.", "rejected": "No."}

FORMS = {
    "standard": STANDARD,
    "conversational": CONVERSATIONAL,
    "implicit chat": IMPLICIT_CHAT,
    "implicit text": IMPLICIT_TEXT,
    "mixed": MIXED,
    "mixed without the prompt": MIXED_BARE,
    "transcript": TRANSCRIPT,
    "sharegpt": SHAREGPT,
    "orca": ORCA,
    "chat prompt": CHAT_PROMPT,
}
each_form = pytest.mark.parametrize("raw", FORMS.values(), ids=FORMS.keys())


def test_explicit_standard() -> None:
    pair = read_row(STANDARD, 4)
    assert (pair.row, pair.prompt, pair.chosen, pair.rejected) == (4, "Hi?", "Yes.", "No.")
    assert pair.extra == {"score": 3}


def test_explicit_conversational() -> None:
    pair = read_row(CONVERSATIONAL, 0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((HI,), (YES,), (NO,))


def test_implicit_conversational_takes_the_common_messages() -> None:
    pair = read_row({"chosen": [HI, OPEN, MORE, YES], "rejected": [HI, OPEN, MORE, NO]}, 0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((HI, OPEN, MORE), (YES,), (NO,))


def test_implicit_text_is_cut_at_the_start_of_a_word() -> None:
    pair = read_row(IMPLICIT_TEXT, 0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Q: sky? A: It is ", "blue.", "black.")


def test_implicit_text_in_a_language_without_spaces_is_cut_where_it_parts() -> None:
    pair = read_row({"chosen": "问题：天空？回答：蓝色。", "rejected": "问题：天空？回答：绿色。"}, 0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ("问题：天空？回答：", "蓝色。", "绿色。")


def test_prompts_are_told_apart_by_all_that_stands_in_them() -> None:
    ask = {"role": "user", "content": "Summarise it."}
    sides = {
        side: [{"role": "assistant", "content": [{"type": "text", "text": side}]}] for side in ("chosen", "rejected")
    }
    one, other = (
        read_row({"prompt": [{"role": "system", "content": text}, ask], **sides}, 0) for text in ("First.", "Second.")
    )
    assert one.prompt_text() == other.prompt_text() and one.prompt_key() != other.prompt_key()
    assert one.with_text("chosen", "new").chosen[0]["content"] == [{"type": "text", "text": "new"}]  # type: ignore[index]


def test_identical_implicit_texts_keep_a_response_on_both_sides() -> None:
    pair = read_row({"chosen": "Q: sky? Blue", "rejected": "Q: sky? Blue"}, 0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Q: sky? ", "Blue", "Blue")


def test_an_implicit_text_that_begins_the_other_keeps_its_last_word() -> None:
    pair = read_row({"chosen": "Q: sky? Blue", "rejected": "Q: sky? Blue and wide"}, 0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Q: sky? ", "Blue", "Blue and wide")


def test_mixed_rows_lose_the_repeated_prompt() -> None:
    pair = read_row(MIXED, 0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((HI,), (YES,), (NO,))
    assert read_row(MIXED_BARE, 0).model_copy(update={"extra": pair.extra}) == pair


def test_a_mixed_row_keeps_the_system_message_of_its_responses() -> None:
    system = {"role": "system", "content": "Be brief."}
    pair = read_row({"prompt": "Hi?", "chosen": [system, HI, YES], "rejected": [system, HI, NO]}, 0)
    assert pair.prompt == (system, HI)


def test_transcripts_become_messages() -> None:
    pair = read_row(TRANSCRIPT, 0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((HI, OPEN, MORE), (YES,), (NO,))


def test_sharegpt_turns_become_messages() -> None:
    pair = read_row(SHAREGPT, 0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((HI,), (YES,), (NO,))
    assert read_row({**SHAREGPT, "system": "Be brief."}, 0).prompt == ({"role": "system", "content": "Be brief."}, HI)


def test_system_and_question_become_messages() -> None:
    assert read_row(ORCA, 0).prompt == ({"role": "system", "content": "Be brief."}, HI)
    assert read_row({**ORCA, "system": ""}, 0).prompt == (HI,)


def test_tools_may_be_a_list_or_json_text() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    as_list, as_text = {**CONVERSATIONAL, "tools": tools}, {**CONVERSATIONAL, "tools": json.dumps(tools)}
    assert read_row(as_list, 0).tools == read_row(as_text, 0).tools == tuple(tools)
    assert read_row({**CONVERSATIONAL, "tools": None}, 0).tools is None
    assert read_row({**CONVERSATIONAL, "chat_template_kwargs": {"a": 1}}, 0).template_kwargs == {"a": 1}


def test_a_mapping_names_other_columns() -> None:
    pair = read_row(
        {"q": "Hi?", "good": "Yes.", "bad": "No.", "chosen": 7}, 0, {"prompt": "q", "chosen": "good", "rejected": "bad"}
    )
    assert (pair.prompt, pair.chosen, pair.rejected, pair.extra) == ("Hi?", "Yes.", "No.", {"chosen": 7})


def test_a_mapping_of_something_else_is_refused() -> None:
    with pytest.raises(DataError, match="cannot map 'winner'"):
        check_mapping({"winner": "x"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": 5}, "'chosen' is the number 5"),
        ({"chosen": None}, "'chosen' is null"),
        ({"rejected": True}, "'rejected' is true"),
        ({"prompt": None}, "'prompt' is null"),
        ({"prompt": []}, "'prompt' is an empty list"),
        ({"chosen": []}, "'chosen' is an empty list"),
        ({"chosen": ["Yes."]}, "'chosen' holds text where a message"),
        ({"chosen": [{"role": "robot", "content": "x"}]}, 'role is "robot"'),
        ({"chosen": [{"content": "x"}]}, "role is null"),
        ({"chosen": [{"role": "assistant"}]}, "assistant message without content"),
        ({"chosen": [{"role": "assistant", "content": 5}]}, "content is the number 5"),
        ({"chosen": [{"role": "assistant", "content": [{"type": "image"}]}]}, "a part that is not text"),
        ({"chosen": [MORE]}, "'chosen' has no assistant message"),
        ({"rejected": [NO, MORE]}, "'rejected' ends with a user message"),
        ({"tools": "{"}, "'tools' is text that is not JSON"),
        ({"tools": 3}, "'tools' is the number 3"),
        ({"chat_template_kwargs": [1]}, "'chat_template_kwargs' is a list"),
        ({"images": ["x.png"]}, "images"),
        ({"prompt": "Other?", "chosen": [HI, YES], "rejected": [HI, NO]}, "'prompt' differs"),
        ({"chosen": {"from": "nobody", "value": "x"}}, 'a turn from "nobody"'),
        ({"chosen": {"from": "gpt", "value": 5}}, "value is the number 5"),
    ],
)
def test_a_row_that_is_no_pair_says_which_column_and_what_was_seen(change: dict, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        read_row({**CONVERSATIONAL, **change}, 0)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({}, "'chosen' is missing; the row has no columns"),
        ({"prompt": "Hi?", "chosen": "Yes."}, "'rejected' is missing; the row has 'prompt', 'chosen'"),
        ({"chosen": "blue", "rejected": "red"}, "share no beginning"),
        ({"chosen": "", "rejected": "red"}, "'chosen' is empty, and the row has no 'prompt'"),
        ({"chosen": [YES], "rejected": [NO]}, "share no beginning"),
        ({"chosen": [HI, YES], "rejected": "No."}, "one is text, one is messages"),
    ],
)
def test_a_row_without_a_prompt_says_so(raw: dict, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        read_row(raw, 0)


@pytest.mark.parametrize("name", ["instruction", "question", "query", "input"])
def test_a_prompt_under_another_name_is_not_made_up_from_the_answers(name: str) -> None:
    raw = {name: "Which colour has the sky?", "chosen": "The sky is blue.", "rejected": "The sky is black."}
    with pytest.raises(RowError, match=f"no 'prompt' but has '{name}'; give --map prompt={name}"):
        read_row(raw, 0)
    pair = read_row(raw, 0, {"prompt": name})
    assert (pair.prompt, pair.chosen) == ("Which colour has the sky?", "The sky is blue.")


@pytest.mark.parametrize("form", ["implicit text", "implicit chat", "transcript", "standard", "orca"])
def test_a_column_named_like_a_prompt_does_not_hide_the_prompt_that_a_row_has(form: str) -> None:
    text = "sky?" if form == "implicit text" else "Something else."
    more = {"query": text, "input": ""}
    assert read_row({**FORMS[form], **more}, 0).prompt == read_row(FORMS[form], 0).prompt


@each_form
def test_an_unedited_pair_writes_the_row_it_came_from(raw: dict) -> None:
    assert write_row(read_row(raw, 0), raw) == raw


@each_form
def test_a_rewritten_side_is_read_back_from_the_row(raw: dict) -> None:
    pair = read_row(raw, 0)
    edited = pair.with_text("chosen", "Yes, in other words.")
    row = write_row(edited, raw)
    assert read_row(row, 0) == edited
    assert row.keys() == raw.keys()
    assert type(row["chosen"]) is type(raw["chosen"])
    assert row["rejected"] == raw["rejected"]


@each_form
def test_a_flip_exchanges_the_raw_values(raw: dict) -> None:
    row = write_row(read_row(raw, 0).swapped(), raw)
    assert (row["chosen"], row["rejected"]) == (raw["rejected"], raw["chosen"])


def test_a_flip_with_a_rewrite_keeps_the_earlier_turns_of_the_side_that_moves() -> None:
    start = "\n\nHuman: Hi?\n\nAssistant:"
    raw = {"chosen": f"{start} Yes.", "rejected": f"{start} Well.\n\nHuman: More?\n\nAssistant: No."}
    edited = read_row(raw, 0).swapped().with_text("chosen", "Maybe.")
    written = write_row(edited, raw)
    assert written["chosen"] == f"{start} Well.\n\nHuman: More?\n\nAssistant: Maybe."
    assert written["rejected"] == raw["chosen"]


@each_form
def test_a_new_row_takes_the_form_of_its_neighbours(raw: dict) -> None:
    like = read_row(raw, 0)
    new = like.model_copy(update={"row": 9, "extra": {}}).with_text("chosen", "bold.").with_text("rejected", "timid.")
    row = new_row(new, raw)
    assert read_row(row, 9) == new
    assert row.keys() <= raw.keys()


@pytest.mark.parametrize("earlier", [(HI, OPEN), ({"role": "system", "content": "Be brief."},)])
def test_a_new_row_of_text_and_messages_keeps_what_stands_before_the_question(earlier: tuple) -> None:
    new = Pair(row=9, prompt=(*earlier, MORE), chosen=(YES,), rejected=(NO,))
    assert read_row(new_row(new, MIXED_BARE), 9) == new


@each_form
def test_an_explicit_row_is_what_trl_reads(raw: dict) -> None:
    pair = read_row(raw, 0)
    row = explicit_row(pair, raw)
    assert trl_form(row).startswith("explicit")
    assert read_row(row, 0) == pair


def test_what_trl_takes_as_it_was_read_is_known() -> None:
    assert {name: form for name, raw in FORMS.items() if (form := trl_form(raw))} == {
        "standard": "explicit text",
        "conversational": "explicit messages",
        "implicit chat": "implicit messages",
        "implicit text": "implicit text",
    }
    assert trl_form({"prompt": "P", "a": "x", "b": "y"}, {"chosen": "a", "rejected": "b"}) == ""


@pytest.mark.parametrize(
    ("raw", "beside"),
    [
        (STANDARD, {"chat_template_kwargs": None}),
        (CONVERSATIONAL, {"image": None}),
        (CONVERSATIONAL, {"images": []}),
        (STANDARD, {"messages": [HI, YES]}),
        (STANDARD, {"messages": []}),
        (CONVERSATIONAL, {"messages": None}),
        (CONVERSATIONAL, {"completion": "Yes."}),
    ],
)
def test_columns_at_which_trl_stops_are_known_and_left_out_of_an_explicit_row(raw: dict, beside: dict) -> None:
    row = {**raw, **beside}
    assert trl_form(row) == ""
    explicit = explicit_row(read_row(row, 0), row)
    assert trl_form(explicit).startswith("explicit") and not beside.keys() & explicit.keys()


@pytest.mark.parametrize(
    ("raw", "beside"),
    [
        (STANDARD, {"chat_template_kwargs": {"enable_thinking": False}}),
        (STANDARD, {"messages": "Hi?", "completion": None}),
        (CONVERSATIONAL, {"messages": [HI, YES]}),
    ],
)
def test_columns_that_trl_takes_stay_in_an_explicit_row(raw: dict, beside: dict) -> None:
    row = {**raw, **beside}
    assert trl_form(row).startswith("explicit")
    assert beside.items() <= explicit_row(read_row(row, 0), row).items()


WORDS = st.text(alphabet="ab \n", min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_an_implicit_text_loses_nothing(chosen: str, rejected: str) -> None:
    raw = {"chosen": "start " + chosen, "rejected": "start " + rejected}
    pair = read_row(raw, 0)
    assert isinstance(pair.prompt, str)
    assert pair.prompt + pair.text("chosen") == raw["chosen"]
    assert pair.prompt + pair.text("rejected") == raw["rejected"]
    assert pair.chosen and pair.rejected
    assert pair.prompt[-1].isspace()


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "text", "tool_calls"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["prompt", "chosen", "rejected", "tools", "conversations", "system", "question", "chat_template_kwargs"]
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(NAMES, ANY))
def test_any_row_is_a_pair_or_a_row_error(raw: dict) -> None:
    try:
        pair = read_row(raw, 0)
    except RowError:
        return
    assert isinstance(pair, Pair)
    assert pair.text("chosen") is not None and pair.prompt_text() is not None
    assert write_row(pair, raw) == raw


def message(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("x", [message("user", "x", id="a1"), message("assistant", "1")], [message("user", "x", id="b7"), NO]),
        ([message("user", "x")], [message("user", "x"), YES], [message("user", "x"), NO]),
    ],
)
def test_a_prompt_that_the_responses_repeat_is_read_once(prompt: Any, chosen: Any, rejected: Any) -> None:
    pair = read_row({"prompt": prompt, "chosen": chosen, "rejected": rejected}, 0)
    assert [one["content"] for one in pair.prompt if isinstance(one, dict)] == ["x"]
    assert (len(pair.chosen), len(pair.rejected)) == (1, 1)


def test_messages_that_differ_in_their_ids_alone_are_the_same_prompt() -> None:
    pair = read_row({"chosen": [message("user", "x", id=1), YES], "rejected": [message("user", "x", id=2), NO]}, 0)
    assert (len(pair.prompt), pair.chosen, pair.rejected) == (1, (YES,), (NO,))


@pytest.mark.parametrize(
    ("chosen", "rejected", "told"),
    [
        ([message("user", "x"), YES], [message("user", "x "), NO], "different prompts"),
        ([message("system", "s"), message("user", "x"), YES], [message("user", "x"), NO], "different prompts"),
        ("yes", [message("user", "x"), NO], "'rejected' begins with a user message"),
    ],
)
def test_sides_that_repeat_another_prompt_are_refused(chosen: Any, rejected: Any, told: str) -> None:
    with pytest.raises(RowError, match=told):
        read_row({"prompt": "x", "chosen": chosen, "rejected": rejected}, 0)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"problem": "What is 2+2?"}, "has 'problem'; give --map prompt=problem$"),
        ({"messages": [message("user", "What is 2+2?")]}, "has 'messages'; give --map prompt=messages"),
        ({"messages": [message("user", "2+2?"), message("assistant", "4")]}, "'messages', which ends with an answer"),
        ({"trajectory": [{"from": "human", "value": "What is 2+2?"}]}, "--map prompt=trajectory"),
        ({"input": "What is 2+2?", "system": "Be kind."}, "--map prompt=input --map system=system"),
        ({"instruction": "Translate", "input": "hello"}, "'instruction' and 'input'; join them"),
        ({"instruction": "Translate", "input": ""}, "--map prompt=instruction$"),
    ],
)
def test_a_prompt_under_another_name_is_asked_for(more: dict[str, Any], told: str) -> None:
    with pytest.raises(RowError, match=told):
        read_row({**more, "chosen": "The answer is 4", "rejected": "The answer is 5"}, 0)
