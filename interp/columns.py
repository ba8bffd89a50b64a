"""Columns: where a row keeps the prompt and the responses of its pair, and where it seems to, under other names.

Nothing here reads a cell further than that takes; what stands in them is read by `forms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from premortem.interp.errors import DataError, RowError
from premortem.interp.messages import is_transcript, plain, read_content
from premortem.interp.records import Message

Mapped = Mapping[str, str]
"""Our column name -> the dataset's."""

COLUMNS = ("prompt", "chosen", "rejected", "tools", "chat_template_kwargs", "system")
"""The names that a mapping may give another column for."""

_PROMPT_NAMES = (
    *("instruction", "question", "query", "input", "problem", "user_prompt", "post"),
    *("messages", "conversation", "trajectory"),
)
"""What other datasets call the column of the prompt; which of them is meant, only a person knows."""


class Columns(NamedTuple):
    """Where a row keeps what a pair needs; None: nowhere."""

    prompt: str | None
    chosen: str
    rejected: str
    tools: str
    template_kwargs: str
    system: str | None

    def all(self) -> set[str]:
        """Return the names of all columns that the pair takes."""
        return {name for name in self if name is not None}


PLAIN = Columns("prompt", "chosen", "rejected", "tools", "chat_template_kwargs", None)
"""The columns of a row in TRL's own form."""


def check_mapping(mapping: Mapped | None) -> None:
    """Raise DataError where a mapping names something that a pair does not have."""
    for name in mapping or {}:
        if name not in COLUMNS:
            raise DataError(f"cannot map {name!r}: a pair has {', '.join(COLUMNS)}.")


def find_columns(raw: Mapping[str, Any], mapping: Mapped | None = None) -> Columns:
    """Return where this row keeps its parts; raise RowError naming the column that is missing."""
    given = dict(mapping or {})
    for name, column in given.items():
        if column not in raw and name in ("prompt", "chosen", "rejected"):
            raise RowError(f"the column '{column}' (for {name}) is missing; the row has {listed(raw)}")
    chosen, rejected = given.get("chosen", "chosen"), given.get("rejected", "rejected")
    for column in (chosen, rejected):
        if column not in raw:
            raise RowError(f"the column '{column}' is missing; the row has {listed(raw)}")
    prompt = given.get("prompt") or next((name for name in ("prompt", "conversations") if name in raw), None)
    if prompt is None and "question" in raw and "system" in raw:
        prompt = "question"
    system = given.get("system", "system" if prompt in ("conversations", "question") else None)
    tools, kwargs = given.get("tools", "tools"), given.get("chat_template_kwargs", "chat_template_kwargs")
    return Columns(prompt, chosen, rejected, tools, kwargs, system if system in raw else None)


def prompts_elsewhere(raw: Mapping[str, Any], columns: Columns) -> list[str]:
    """Return the columns in which a row without a prompt of its own seems to keep it under another name.

    None where the responses begin with what stands there.
    """
    if not implied_prompt(raw, columns):
        return []
    sides = (raw[columns.chosen], raw[columns.rejected])
    lead = sides[0][: shared_start(*sides)]
    named = {name: _words_of(raw.get(name)) for name in _PROMPT_NAMES if name not in columns.all()}
    return [name for name, text in named.items() if text and text not in lead]


def implied_prompt(raw: Mapping[str, Any], columns: Columns) -> bool:
    """Whether a row's prompt, if it has any, is what its two text responses begin with."""
    sides = (raw[columns.chosen], raw[columns.rejected])
    if columns.prompt is not None or not all(isinstance(side, str) for side in sides):
        return False
    return not all(is_transcript(side) for side in sides)


def _words_of(value: Any) -> str:
    """Return the text of a cell that may be a prompt: a text, or what the last message of a user says."""
    if isinstance(value, str):
        return value.strip()
    return next((plain(one).strip() for one in reversed(_messages(value)) if one["role"] == "user"), "")


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        return ()
    try:
        content = read_content(value, "")
    except RowError:
        return ()
    return () if isinstance(content, str) else content


def advice(raw: Mapping[str, Any], names: Sequence[str]) -> str:
    """Say which column holds the prompt, and what to give so that all of it is read."""
    texts = [name for name in names if isinstance(raw[name], str)]
    if len(texts) > 1:
        return f"'{texts[0]}' and '{texts[1]}'; join them into one column 'prompt' first"
    messages = _messages(raw[names[0]])
    if messages and messages[-1]["role"] == "assistant":
        return f"'{names[0]}', which ends with an answer; put what stands before it into a column 'prompt' first"
    also = " --map system=system" if isinstance(raw.get("system"), str) and raw["system"] else ""
    return f"'{names[0]}'; give --map prompt={names[0]}{also}"


def shared_start(first: str, second: str) -> int:
    """Return how many characters two texts have in common from their start."""
    length, shortest = 0, min(len(first), len(second))
    while length < shortest and first[length] == second[length]:
        length += 1
    return length


def listed(raw: Iterable[str]) -> str:
    """Return the names of columns as a line tells them."""
    every = [repr(name)[:40] for name in raw]
    return ", ".join(every[:12]) + (", ..." if len(every) > 12 else "") if every else "no columns"
