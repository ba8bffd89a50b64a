"""One raw row of a preference dataset becomes a `Pair`, and an edited `Pair` becomes a row again.

Forms that are read, row by row, so that one file may mix them:

* explicit: a prompt and two responses, each text or messages (TRL's standard and conversational format);
* implicit: two full texts or message lists; the shared beginning is the prompt;
* mixed: the prompt is text, the responses are message lists, which may repeat the prompt;
* transcripts: two strings of "Human:" and "Assistant:" paragraphs;
* sharegpt: `conversations` of turns, and one turn for each response;
* `system` and `question` columns with two text responses.

Other names are mapped by the caller: `{"chosen": "answer_a"}` reads `chosen` from the column `answer_a`.

Where TRL takes the longest common run of characters as the prompt of an implicit text, it cuts "blue" and "black"
after "bl". Here the cut goes back to the start of the word. DPO learns the same from both cuts: what the responses
share from their start cancels in its loss.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from premortem.interp.columns import (
    PLAIN,
    Columns,
    Mapped,
    advice,
    find_columns,
    prompts_elsewhere,
    shared_start,
)
from premortem.interp.errors import PromptlessRow, RowError
from premortem.interp.messages import (
    are_turns,
    check_response,
    common_lead,
    in_style_of,
    is_transcript,
    kind_of,
    plain,
    read_content,
    read_transcript,
    with_last_text,
    without_lead,
    write_transcript,
)
from premortem.interp.records import Content, Message, Pair

_IMAGES = ("image", "images")


def read_row(raw: Mapping[str, Any], row: int, mapping: Mapped | None = None) -> Pair:
    """Return the pair of one raw row; raise RowError saying which column holds what, where it holds none."""
    columns = find_columns(raw, mapping)
    if raw.get("image") or raw.get("images"):
        raise RowError("the row has images, which are not read")
    chosen = read_content(raw[columns.chosen], columns.chosen)
    rejected = read_content(raw[columns.rejected], columns.rejected)
    if columns.prompt is None:
        if names := prompts_elsewhere(raw, columns):
            raise RowError(f"the row has no 'prompt' but has {advice(raw, names)}")
        prompt, chosen, rejected = _split_implicit(chosen, rejected, columns)
    else:
        prompt, chosen, rejected = _join_explicit(raw, chosen, rejected, columns)
    if not isinstance(chosen, str) and not isinstance(rejected, str):
        check_response(chosen, columns.chosen)
        check_response(rejected, columns.rejected)
    return Pair(
        row=row,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        tools=_read_tools(raw.get(columns.tools), columns.tools),
        template_kwargs=_read_kwargs(raw.get(columns.template_kwargs), columns.template_kwargs),
        extra={name: value for name, value in raw.items() if name not in columns.all()},
    )


def write_row(pair: Pair, raw: Mapping[str, Any], mapping: Mapped | None = None) -> dict[str, Any]:
    """Return `raw` with the responses of `pair`, an edited version of the pair that `raw` holds, in the same form."""
    columns = find_columns(raw, mapping)
    before = read_row(raw, pair.row, mapping)
    sides = ((before.chosen, raw[columns.chosen]), (before.rejected, raw[columns.rejected]))
    written = dict(raw)
    for column, content, own in (
        (columns.chosen, pair.chosen, sides),
        (columns.rejected, pair.rejected, sides[::-1]),
    ):
        known = next((value for old, value in own if old == content), None)
        old, value = next((side for side in own if _earlier(side[0]) == _earlier(content)), own[0])
        written[column] = _rewritten(value, old, content) if known is None else known
    return written


def new_row(pair: Pair, like: Mapping[str, Any], mapping: Mapped | None = None) -> dict[str, Any]:
    """Return a row for a pair that has none, in the form of the row `like`."""
    columns = find_columns(like, mapping)
    written: dict[str, Any] = {}
    full = columns.prompt is None or _repeats_prompt(like, columns, several=len(_messages(pair.prompt, "user")) > 1)
    if columns.system is not None:
        written[columns.system] = "".join(plain(m) for m in _messages(pair.prompt, "user") if m["role"] == "system")
    if columns.prompt is not None:
        written[columns.prompt] = _shaped(like[columns.prompt], pair.prompt, "user", columns.system is not None)
    for column, content in ((columns.chosen, pair.chosen), (columns.rejected, pair.rejected)):
        value = _joined(pair.prompt, content) if full else content
        written[column] = _shaped(like[column], value, "assistant", False)
    options = _options(pair, columns)
    if like.get(columns.template_kwargs) is not None:
        options.setdefault(columns.template_kwargs, {})
    return {**written, **options, **pair.extra}


def explicit_row(
    pair: Pair, raw: Mapping[str, Any] | None = None, mapping: Mapped | None = None, *, with_kwargs: bool = False
) -> dict[str, Any]:
    """Return the pair as a row of TRL's explicit form: `prompt`, `chosen`, `rejected`, its options, other columns.

    `raw` is the row that the pair comes from, if any: its options are kept as they are written there. `with_kwargs`
    says that rows of the file have template options, so that each must have some, be they none. Other columns that
    would make TRL take the row otherwise are left out: empty images, and messages beside text or text beside messages.
    """
    columns = find_columns(raw, mapping) if raw is not None else PLAIN
    body = {"prompt": _listed(pair.prompt), "chosen": _listed(pair.chosen), "rejected": _listed(pair.rejected)}
    options = _options(pair, PLAIN)
    for name, column in (("tools", columns.tools), ("chat_template_kwargs", columns.template_kwargs)):
        if raw is not None and column in raw:
            options[name] = raw[column]
    if options.get("chat_template_kwargs", {}) is None:
        del options["chat_template_kwargs"]
    if with_kwargs:
        options.setdefault("chat_template_kwargs", {})
    left_out = {*body, *_IMAGES, *_misleading(pair.extra, conversational=pair.conversational)}
    return {**body, **options, **{name: value for name, value in pair.extra.items() if name not in left_out}}


def trl_form(raw: Mapping[str, Any], mapping: Mapped | None = None) -> str:
    """Return the form in which TRL trains on just what was read from this row; empty: it takes it otherwise or not.

    It knows no mapping, and a transcript is text to it, which no chat template ever sees. A column of images, be it
    empty, makes it want a vision model; it stops at template options that are null; and it takes for the kind of a row
    that of any of its columns of text or messages.
    """
    columns = find_columns(raw, mapping)
    if columns[1:3] != ("chosen", "rejected") or columns.prompt not in ("prompt", None) or columns.system is not None:
        return ""
    if any(name in raw for name in _IMAGES) or raw.get("chat_template_kwargs", {}) is None:
        return ""
    values = [raw[name] for name in columns[:3] if name is not None]
    if _misleading(raw, conversational=not all(isinstance(value, str) for value in values)):
        return ""
    form = "implicit" if columns.prompt is None else "explicit"
    if all(isinstance(value, str) for value in values):
        return f"{form} text" if form == "explicit" or not all(is_transcript(value) for value in values) else ""
    return f"{form} messages" if all(map(_are_messages, values)) else ""


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _misleading(raw: Mapping[str, Any], *, conversational: bool) -> list[str]:
    """Return the other columns by which TRL may take a row for text that is `conversational`, or the reverse."""
    beside = [name for name in ("messages", "completion") if name in raw]
    if conversational:
        return [name for name in beside if not _are_messages(raw[name])]
    return [name for name in beside if _are_messages(raw[name]) or raw[name] == []]


def _split_implicit(chosen: Content, rejected: Content, columns: Columns) -> tuple[Content, Content, Content]:
    if isinstance(chosen, str) and isinstance(rejected, str):
        if not (is_transcript(chosen) and is_transcript(rejected)):
            return _split_text(chosen, rejected, columns)
        chosen, rejected = read_transcript(chosen), read_transcript(rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise RowError(f"'{columns.chosen}' and '{columns.rejected}' differ in kind: one is text, one is messages")
    lead = common_lead(chosen, rejected)
    if not lead:
        raise _no_prompt(columns)
    return lead, chosen[len(lead) :], rejected[len(lead) :]


def _split_text(chosen: str, rejected: str, columns: Columns) -> tuple[str, str, str]:
    """Cut two texts where they part, back at the start of a word, leaving something on each side."""
    for text, column in ((chosen, columns.chosen), (rejected, columns.rejected)):
        if not text:
            raise RowError(f"'{column}' is empty, and the row has no 'prompt'")
    shared = min(shared_start(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    cut = shared
    while cut and not chosen[cut - 1].isspace():
        cut -= 1
    if not cut and shared and not chosen[shared - 1].isascii():  # a language that needs no spaces
        cut = shared
    if not chosen[:cut].strip():
        raise _no_prompt(columns)
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _no_prompt(columns: Columns) -> RowError:
    return PromptlessRow(
        f"the row has no 'prompt', and '{columns.chosen}' and '{columns.rejected}' share no beginning; "
        "map the column that holds the prompt"
    )


def _join_explicit(
    raw: Mapping[str, Any], chosen: Content, rejected: Content, columns: Columns
) -> tuple[Content, Content, Content]:
    assert columns.prompt is not None
    prompt = read_content(raw[columns.prompt], columns.prompt)
    texts = isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str)
    if texts and columns.system is None:
        return prompt, chosen, rejected
    if isinstance(prompt, str) and not isinstance(chosen, str) and not isinstance(rejected, str):
        prompt, chosen, rejected = _split_mixed(prompt, chosen, rejected, columns)
    elif isinstance(prompt, str):
        for side, column in ((chosen, columns.chosen), (rejected, columns.rejected)):
            if not isinstance(side, str) and side[0]["role"] != "assistant":
                raise RowError(f"'{column}' begins with a {side[0]['role']} message, and the other side with an answer")
    elif not isinstance(chosen, str) and not isinstance(rejected, str):
        chosen, rejected = without_lead(prompt, chosen), without_lead(prompt, rejected)
    system = raw[columns.system] if columns.system is not None else None
    if system is not None and not isinstance(system, str):
        raise RowError(f"'{columns.system}' is {kind_of(system)}, not text")
    lead: tuple[Message, ...] = ({"role": "system", "content": system},) if system else ()
    return (*lead, *_messages(prompt, "user")), _messages(chosen, "assistant"), _messages(rejected, "assistant")


def _split_mixed(
    prompt: str, chosen: tuple[Message, ...], rejected: tuple[Message, ...], columns: Columns
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """Take off the messages that both responses begin with, which usually repeat the prompt."""
    lead = common_lead(chosen, rejected)
    chosen, rejected = chosen[len(lead) :], rejected[len(lead) :]
    if any(plain(message).strip() == prompt.strip() for message in lead):
        return lead, chosen, rejected
    if lead and lead[0]["role"] != "assistant":
        raise RowError(f"'{columns.prompt}' differs from the messages that both responses begin with")
    if not lead and any(side[0]["role"] != "assistant" for side in (chosen, rejected)):
        raise RowError(f"'{columns.chosen}' and '{columns.rejected}' begin with different prompts")
    return ({"role": "user", "content": prompt}, *lead), chosen, rejected


def _messages(content: Content, role: str) -> tuple[Message, ...]:
    return ({"role": role, "content": content},) if isinstance(content, str) else content


def _read_tools(value: Any, column: str) -> tuple[Any, ...] | None:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowError(f"'{column}' is text that is not JSON") from error
    if value is None or value == "":
        return None
    if not isinstance(value, list):
        raise RowError(f"'{column}' is {kind_of(value)}, not a list of tools")
    return tuple(value)


def _read_kwargs(value: Any, column: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RowError(f"'{column}' is {kind_of(value)}, not an object")
    return value


def _rewritten(value: Any, old: Content, new: Content) -> Any:
    """Return the raw `value` of a side with its response `old` replaced by `new`, what precedes it kept."""
    if isinstance(value, str):
        tail, text = (old, new) if isinstance(old, str) else (plain(old[-1]), _last(new))
        return value[: len(value) - len(tail)] + _last(text)
    if are_turns(value) and len(old) == len(new):
        return with_last_text(value, _last(new))
    lead = read_content(value, "")[: -len(old)] if not isinstance(value, dict) else ()
    written = in_style_of(value, _messages(new, "assistant"))
    return [*value[: len(lead)], *written] if isinstance(value, list) else written


def _earlier(content: Content) -> tuple[Message, ...]:
    """Return what a response says before its last message."""
    return () if isinstance(content, str) else content[:-1]


def _repeats_prompt(raw: Mapping[str, Any], columns: Columns, *, several: bool) -> bool:
    """Whether the responses of rows like `raw` carry the prompt's messages again; a text cannot hold `several`."""
    value = raw[columns.chosen]
    if not isinstance(raw[columns.prompt or ""], str) or not isinstance(value, list):
        return False
    return several or value[0].get("role") in ("system", "user")


def _joined(prompt: Content, content: Content) -> Content:
    if isinstance(prompt, str) and isinstance(content, str):
        return prompt + content
    return (*_messages(prompt, "user"), *_messages(content, "assistant"))


def _shaped(value: Any, content: Content, role: str, without_system: bool) -> Any:
    """Return `content` in the shape of `value`."""
    if isinstance(value, str):
        if isinstance(content, str):
            return content
        return write_transcript(content) if is_transcript(value) else _last(content)
    messages = _messages(content, role)
    return in_style_of(value, tuple(m for m in messages if not (without_system and m["role"] == "system")))


def _options(pair: Pair, columns: Columns) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if pair.tools is not None:
        options[columns.tools] = list(pair.tools)
    if pair.template_kwargs:
        options[columns.template_kwargs] = pair.template_kwargs
    return options


def _listed(content: Content) -> Any:
    return content if isinstance(content, str) else list(content)


def _last(content: Content) -> str:
    return content if isinstance(content, str) else plain(content[-1])
