"""Prompts and responses in the shapes that public datasets use, and back again.

Inside, a conversation is a tuple of messages with `role` and `content`. Outside, it may be a plain string, one
message, a list of messages, a list of turns with `from` and `value` (sharegpt), or one string with "Human:" and
"Assistant:" paragraphs (HH transcripts). Each shape has a reader here that says in plain words what is wrong with a
value, and `in_style_of` writes messages back in the shape of a given value. Nothing here knows about rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from premortem.interp.errors import RowError
from premortem.interp.records import Content, Message

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})
"""Roles that a chat template may know."""

_TURN_ROLES: dict[str, str] = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function"), "tool"),
    "system": "system",
}
_TURN_NAMES = {"user": "human", "assistant": "gpt", "tool": "observation"}
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_TURN = re.compile(r"\n\n(?:Human|Assistant):")
_SPEAKER_ROLES = {"Human": "user", "Assistant": "assistant"}
_SPEAKER_NAMES = {"user": "Human", "assistant": "Assistant"}


def read_content(value: Any, column: str) -> Content:
    """Return `value` as text or as messages; raise RowError naming `column` where it is neither."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return (read_message(value, column),)
    if not isinstance(value, list | tuple):
        raise RowError(f"'{column}' is {kind_of(value)}, not text or a list of messages")
    if not value:
        raise RowError(f"'{column}' is an empty list")
    return tuple(read_message(item, column) for item in value)


def read_message(item: Any, column: str) -> Message:
    """Return one message; a sharegpt turn becomes a message, anything else keeps its keys."""
    if not isinstance(item, dict):
        raise RowError(f"'{column}' holds {kind_of(item)} where a message was expected")
    if "role" not in item and "from" in item:
        return _from_turn(item, column)
    role = item.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise RowError(f"'{column}' has a message whose role is {json.dumps(role, default=str)[:60]}")
    content = item.get("content")
    if content is None and not item.get("tool_calls"):
        raise RowError(f"'{column}' has a {role} message without content")
    if not isinstance(content, str | None):
        _check_parts(content, column, role)
    return item


def check_response(messages: tuple[Message, ...], column: str) -> None:
    """Raise RowError unless the messages end with the assistant's answer."""
    if not any(message["role"] == "assistant" for message in messages):
        raise RowError(f"'{column}' has no assistant message")
    if messages[-1]["role"] != "assistant":
        raise RowError(f"'{column}' ends with a {messages[-1]['role']} message, not with the assistant's")


def common_lead(first: tuple[Message, ...], second: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the leading messages that say the same in both, leaving at least one message on each side."""
    length = 0
    while length < min(len(first), len(second)) - 1 and _same(first[length], second[length]):
        length += 1
    return first[:length]


def without_lead(lead: tuple[Message, ...], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return `messages` without the ones of `lead` where they begin by repeating all of it."""
    repeated = len(messages) > len(lead) and all(map(_same, lead, messages))
    return messages[len(lead) :] if repeated else messages


def _same(one: Message, other: Message) -> bool:
    return _says(one) == _says(other)


def _says(message: Message) -> tuple[Any, ...]:
    """Return what a message says; ids and dates beside it are nobody's words."""
    return message["role"], plain(message), message.get("tool_calls"), message.get("name")


def is_transcript(text: str) -> bool:
    """Whether `text` is a dialogue written as "Human:" and "Assistant:" paragraphs."""
    return text.lstrip().startswith("Human:") and "\n\nAssistant:" in text


def read_transcript(text: str) -> tuple[Message, ...]:
    """Return the messages of an HH transcript; one space after each colon belongs to the notation."""
    parts = _SPEAKER.split("\n\n" + text.lstrip())[1:]
    speakers, contents = parts[::2], parts[1::2]
    return tuple(
        {"role": _SPEAKER_ROLES[speaker], "content": content.removeprefix(" ")}
        for speaker, content in zip(speakers, contents, strict=True)
    )


def write_transcript(messages: tuple[Message, ...]) -> str:
    """Return messages as an HH transcript."""
    return "".join(f"\n\n{_SPEAKER_NAMES.get(m['role'], 'Human')}: {plain(m)}" for m in messages)


def holds_turn(text: str) -> bool:
    """Whether a message that says `text` would be several messages once a transcript holds it."""
    return _TURN.search(text) is not None


def in_style_of(value: Any, messages: tuple[Message, ...]) -> Any:
    """Return `messages` in the shape of `value`: messages or turns, a list or a single one."""
    items = value if isinstance(value, list | tuple) else [value]
    turns = are_turns(value)
    named = {_TURN_ROLES.get(item["from"]): item["from"] for item in items} if turns else {}
    written = [_to_turn(message, named) if turns else message for message in messages]
    return written[-1] if isinstance(value, dict) else written


def with_last_text(value: Any, text: str) -> Any:
    """Return turns, a list or a single one, whose last says `text`; every other key of each stays."""
    if isinstance(value, dict):
        return {**value, "value": text}
    return [*value[:-1], {**value[-1], "value": text}]


def are_turns(value: Any) -> bool:
    """Whether `value` is made of sharegpt's turns."""
    last = value[-1] if isinstance(value, list | tuple) and value else value
    return isinstance(last, dict) and "role" not in last and "value" in last


def plain(message: Message) -> str:
    """Return a message's content as text, its parts joined by line breaks."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    for kind, words in ((str, "text"), (dict, "an object"), (list | tuple, "a list")):
        if isinstance(value, kind):
            return words
    return type(value).__name__


def _check_parts(content: Any, column: str, role: str) -> None:
    if not isinstance(content, list) or not content:
        raise RowError(f"'{column}' has a {role} message whose content is {kind_of(content)}, not text")
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise RowError(f"'{column}' has a {role} message with a part that is not text")


def _from_turn(item: dict[str, Any], column: str) -> Message:
    speaker, value = item["from"], item.get("value")
    if not isinstance(speaker, str) or speaker not in _TURN_ROLES:
        raise RowError(f"'{column}' has a turn from {json.dumps(speaker, default=str)[:60]}")
    if not isinstance(value, str):
        raise RowError(f"'{column}' has a turn whose value is {kind_of(value)}, not text")
    return {"role": _TURN_ROLES[speaker], "content": value}


def _to_turn(message: Message, named: Mapping[str | None, str]) -> dict[str, str]:
    """Return a message as a turn, its speaker called as in `named`."""
    role = str(message["role"])
    return {"from": named.get(role) or _TURN_NAMES.get(role, role), "value": plain(message)}
