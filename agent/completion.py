"""The body of an answer as endpoints give it: read leniently, because many leave out much or add to it."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

MOST_TOKENS = 2**40
"""A count above this, or below zero, is none."""
_SAID = ("text", "output_text")
_THOUGHT = ("thinking", "reasoning")


class Lenient(BaseModel):
    """What endpoints add is ignored."""

    model_config = ConfigDict(extra="ignore")


def _as_text(value: Any) -> Any:
    """Some servers give the arguments of a function as the object itself, or null."""
    return value if isinstance(value, str) else json.dumps({} if value is None else value)


def _as_count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value <= MOST_TOKENS else 0


class Function(Lenient):
    """A function that is called, its arguments as JSON text."""

    name: Annotated[str, BeforeValidator(lambda value: value or "")] = ""
    arguments: Annotated[str, BeforeValidator(_as_text)] = "{}"


class Call(Lenient):
    """One call."""

    function: Function | None = None


class Message(Lenient):
    """What the model says."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    reasoning_content: Any = None
    reasoning: Any = None

    def text(self) -> str:
        """Return what it says; some endpoints send it in parts, what the model thought among them."""
        if isinstance(self.content, list):
            parts = [part for part in self.content if isinstance(part, dict) and part.get("type") in _SAID]
            return "".join(str(part.get("text", "")) for part in parts)
        return self.content or ""

    def thought(self) -> bool:
        """Whether it holds what the model thought, beside the text or as a part of it."""
        parts = self.content if isinstance(self.content, list) else ()
        in_parts = any(isinstance(part, dict) and part.get("type") in _THOUGHT for part in parts)
        return in_parts or bool(self.reasoning_content or self.reasoning)


class Choice(Lenient):
    """One answer."""

    message: Message
    finish_reason: str | None = None


class Usage(Lenient):
    """The tokens that an endpoint counted; 0 where it counts none."""

    prompt_tokens: Annotated[int, BeforeValidator(_as_count)] = 0
    completion_tokens: Annotated[int, BeforeValidator(_as_count)] = 0
    completion_tokens_details: Any = None

    def thought(self) -> bool:
        """Whether tokens went into thinking that is not shown."""
        told = self.completion_tokens_details
        return isinstance(told, dict) and _as_count(told.get("reasoning_tokens")) > 0


class Completion(Lenient):
    """The whole answer."""

    choices: list[Choice] | None
    usage: Annotated[Usage | None, BeforeValidator(lambda value: value if isinstance(value, dict) else None)] = None
