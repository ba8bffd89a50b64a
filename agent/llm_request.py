"""A request as it goes over the wire: the arguments of a Chat Completions call in the dialect of one endpoint."""

from __future__ import annotations

from typing import Any

from premortem.agent.chat import Request

BOUNDS = frozenset(
    "minLength maxLength pattern format minItems maxItems uniqueItems minimum maximum exclusiveMinimum "
    "exclusiveMaximum multipleOf minProperties maxProperties default".split()
)
"""Keywords that strict modes of some endpoints refuse; `asking` holds every answer against the full schema."""
_NAMED_PARTS = frozenset({"properties", "$defs", "definitions"})
"""Keywords that hold schemas under names of ours, which may be called like a keyword."""
_VALUES = frozenset({"enum", "const", "required"})
"""Keywords that hold values, no schema."""


def _unbounded(schema: Any) -> Any:
    """Return a JSON schema without BOUNDS, as every endpoint takes it."""
    if isinstance(schema, list):
        return [_unbounded(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    sent: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED_PARTS:
            sent[key] = {name: _unbounded(part) for name, part in value.items()}
        elif key not in BOUNDS:
            sent[key] = value if key in _VALUES else _unbounded(value)
    return sent


def arguments(request: Request) -> dict[str, Any]:
    """Return the arguments of the Chat Completions call that a request is, in its endpoint's dialect."""
    dialect = request.dialect

    def sent(schema: Any) -> Any:
        return schema if dialect.bounds else _unbounded(schema)

    sending: dict[str, Any] = {
        "model": request.model,
        "messages": [message.model_dump() for message in request.messages],
        dialect.limit_name: request.max_tokens,
        "extra_headers": {"Idempotency-Key": request.request_id},
    }
    if dialect.temperature:
        sending["temperature"] = 0
    if request.tools:
        sending["tools"] = [
            {
                "type": "function",
                "function": {**tool.model_dump(), "parameters": sent(tool.parameters), "strict": True},
            }
            for tool in request.tools
        ]
    if request.answer_schema is not None and dialect.schema_mode == "json_schema":
        named = {"name": "answer", "schema": sent(request.answer_schema), "strict": True}
        sending["response_format"] = {"type": "json_schema", "json_schema": named}
    elif request.answer_schema is not None and dialect.schema_mode == "json_object":
        sending["response_format"] = {"type": "json_object"}
    return sending
