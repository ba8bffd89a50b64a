"""What goes to an LLM and what comes back, as plain values: the seam that everything else is written against.

A `Request` is all that decides an answer, so its hash is its name: the same request is asked once and then remembered
(see `ledger`). A `Reply` is what a completion said, redacted, with what it cost. Who carries a request is a `Carrier`:
the endpoint over HTTP (`llm`), or a recording. Nothing here knows of either.
"""

from __future__ import annotations

import json
import re
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
    """Tokens of the request, as the endpoint counts them; 0 where it does not say."""
    completion_tokens: int = 0
    """Tokens of the answer."""
    seconds: float = 0.0
    """Wall-clock time until the answer was complete, retries included."""
    usd: float | None = None
    """Its price in US dollars; null where nobody knows the model's price."""


class Carrier(Protocol):
    """Takes a request to an LLM and brings the reply."""

    @property
    def address(self) -> str:
        """Who receives the text, for the user; no credentials."""
        ...

    def send(self, request: Request) -> Reply:
        """Return the reply; raises one of the four leaves of LlmError. Called from several threads at once."""
        ...


def find_json(text: str) -> Any:
    """Return the JSON value that an answer holds, alone, in a code fence or behind some thinking aloud.

    Raises ValueError where there is none; what stands in a block of thinking that never ends is none. A value with
    which the answer begins may speak of thinking, tags and all.
    """
    whole = _unfenced(text)
    if whole[:1] in ("{", "["):
        with suppress(ValueError):
            value, end = json.JSONDecoder().raw_decode(whole)
            if "</think>" not in whole[end:]:
                return value
    if is_thinking(text):
        raise ValueError("there is no answer behind the thinking")
    body = _answered(text)
    starts = [at for at in (0, body.find("{"), body.find("[")) if 0 <= at < len(body)]
    for start in sorted(set(starts)):
        try:
            return json.JSONDecoder().raw_decode(body, start)[0]
        except ValueError:
            continue
    raise ValueError("there is no JSON value in it")


def is_thinking(text: str) -> bool:
    """Whether an answer ends before its thinking does, so that there is nothing else in it."""
    before, opened, _ = _answered(text).partition("<think>")
    return bool(opened) and not any(bracket in before for bracket in "{[")


def _unfenced(text: str) -> str:
    """Return an answer without the code fence around all of it."""
    body = text.strip().removeprefix("\ufeff").strip()
    fenced = _FENCED.fullmatch(body)
    return fenced[1] if fenced else body


def _answered(text: str) -> str:
    """Return what stands behind the thinking; some endpoints leave out the tag that opens it."""
    return text.rsplit("</think>", 1)[-1].strip()
