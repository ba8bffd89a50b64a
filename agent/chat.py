"""What goes to an LLM and what comes back, as plain values: the seam that everything else is written against.

A `Request` is all that decides an answer, so its hash is its name: the same request is asked once and then remembered
(see `ledger`). A `Reply` is what a completion said, redacted, with what it cost. Who carries a request is a `Carrier`:
the endpoint over HTTP (`llm`), or a recording. Nothing here knows of either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, Protocol

from pydantic import JsonValue

from premortem.interp.records import Record, content_id

Role = Literal["system", "user", "assistant"]
_FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL | re.IGNORECASE)


class ChatMessage(Record):
    """One message of a conversation with the LLM."""

    role: Role
    """Who speaks."""
    content: str
    """What is said."""


class ToolSchema(Record):
    """A function that the LLM may call."""

    name: str
    """Its name."""
    description: str
    """What it does, for the LLM."""
    parameters: dict[str, JsonValue]
    """JSON schema of its arguments."""


class Dialect(Record):
    """What an endpoint understands, found out by asking it once."""

    tools: bool = False
    """Whether it answers with native tool calls where tools are offered."""
    schema_mode: Literal["json_schema", "json_object", "none"] = "none"
    """The strongest `response_format` that it takes."""
    temperature: bool = True
    """Whether it takes a temperature; some reasoning models refuse it."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What it calls the bound on an answer's length."""
    bounds: bool = True
    """Whether it takes bounds in schemas (how many items, how long a text); strict modes of some refuse them."""


class Request(Record):
    """Everything that decides an answer."""

    model: str
    """The model's name at the endpoint."""
    messages: tuple[ChatMessage, ...]
    """The conversation."""
    tools: tuple[ToolSchema, ...] = ()
    """Functions it may call; empty: none."""
    answer_schema: dict[str, JsonValue] | None = None
    """JSON schema that the answer is asked to fit; null: free text."""
    max_tokens: int = 1024
    """Bound on the answer's length."""
    dialect: Dialect = Dialect()
    """How the endpoint is spoken to."""

    @property
    def request_id(self) -> str:
        """Hash of the content, the same on every machine."""
        return content_id("request", self.model_dump(mode="json"))


class ToolUse(Record):
    """One function call of the LLM, its arguments not yet checked."""

    name: str
    """The function's name, as the LLM gave it."""
    arguments: str
    """JSON text, as the LLM gave it."""


class Reply(Record):
    """What a completion said."""

    text: str
    """Its text; empty where it only calls tools. Of a refusal: why, without secrets."""
    refused: Literal["", "declined", "stopped", "unavailable"] = ""
    """Not empty: no completion came. The model declined, the endpoint refuses the request, or it fails at it."""
    tool_uses: tuple[ToolUse, ...] = ()
    """The functions it calls."""
    finish: str = "stop"
    """Why it ended, as the endpoint says: `stop`, `tool_calls`, `length`, `content_filter` …"""
    thinks: bool = False
    """Whether the model shows that it thought before it answered."""
    prompt_tokens: int = 0
    """Tokens of the request, as the endpoint counts them; where it does not say, a third of the characters."""
    completion_tokens: int = 0
    """Tokens of the answer."""
    seconds: float = 0.0
    """Wall-clock time until the answer was complete, retries included."""
    usd: float | None = None
    """Its price in US dollars; null where nobody knows the model's price."""

    @property
    def says_something(self) -> bool:
        """Whether there is a word or a call in it."""
        return bool(self.text.strip() or self.tool_uses)


class Carrier(Protocol):
    """Takes a request to an LLM and brings the reply."""

    @property
    def address(self) -> str:
        """Who receives the text, for the user; no credentials."""
        ...

    def send(self, request: Request) -> Reply:
        """Return the reply; raises one of the four leaves of LlmError. Called from several threads at once."""
        ...


_DECODER = json.JSONDecoder(strict=False)
"""Takes line breaks inside a string, which models write where no schema is enforced."""
_OPENS = re.compile(r"<(?:think|thinking|reasoning)>")
_CLOSES = re.compile(r"</(?:think|thinking|reasoning)>")
_BRACKET = re.compile(r"[{\[]")
MOST_STARTS = 200
"""Places at which a JSON value is looked for."""


def find_json(text: str) -> Any:
    """Return the JSON value that an answer holds, alone, in a code fence or behind some thinking aloud.

    An object is preferred to what else may stand before it. Raises ValueError where there is none; what stands in a
    block of thinking that never ends is none. A value with which the answer begins may speak of thinking, tags and all.
    """
    whole = _unfenced(text)
    if whole[:1] in ("{", "["):
        with suppress(ValueError):
            value, end = _DECODER.raw_decode(whole)
            if not _CLOSES.search(whole[end:]) and (whole[0] == "{" or "{" not in whole[end:]):
                return value
    if is_thinking(text):
        raise ValueError("there is no answer behind the thinking")
    values = list(_values(_answered(text)))
    found = next((value for value in values if _holds_object(value)), values[0] if values else None)
    if found is None:
        raise ValueError("there is no JSON value in it")
    return found


def _values(body: str) -> Iterator[Any]:
    """Yield the objects and lists in `body`, in order, then the bare value that it begins with; one cut off ends it."""
    at = 0
    for _ in range(MOST_STARTS):
        bracket = _BRACKET.search(body, at)
        if bracket is None:
            break
        try:
            value, at = _DECODER.raw_decode(body, bracket.start())
            yield value
        except json.JSONDecodeError as error:
            if error.msg.startswith("Unterminated") or error.pos >= len(body):
                break
            at = bracket.end()
    with suppress(ValueError):
        yield _DECODER.raw_decode(body)[0]


def _holds_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value))


def shows_thinking(text: str) -> bool:
    """Whether an answer holds a tag that opens or ends thinking."""
    return bool(_OPENS.search(text) or _CLOSES.search(text))


def is_thinking(text: str) -> bool:
    """Whether an answer ends before its thinking does, so that there is nothing else in it."""
    body = _answered(text)
    opened = _OPENS.search(body)
    return opened is not None and not any(bracket in body[: opened.start()] for bracket in "{[")


def _unfenced(text: str) -> str:
    """Return an answer without the code fence around all of it."""
    body = text.strip().removeprefix("\ufeff").strip()
    fenced = _FENCED.fullmatch(body)
    return fenced[1] if fenced else body


def _answered(text: str) -> str:
    """Return what stands behind the thinking; some endpoints leave out the tag that opens it."""
    return _CLOSES.split(text)[-1].strip()
