"""The only place that talks to an LLM: Chat Completions of any OpenAI-compatible endpoint, over HTTP.

Endpoints misbehave in many ways: a proxy answers with a web page, a gateway with half a document, a server with no
choice at all, an error with the key in it, a redirect that would carry the user's text elsewhere. The client library
lets most of that through. So the body is read here, bounded in bytes and in time, and whatever happens becomes one of
four errors: retry (`LlmUnavailable`), repair (`LlmUnusable`), stop (`LlmStopped`) or configuration
(`LlmMisconfigured`). Redirects are never followed. What is remembered of a call is the ledger's business.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

import openai
import tenacity
from pydantic import BaseModel, ConfigDict, ValidationError

from premortem.agent.chat import Reply, Request, ToolUse
from premortem.agent.redact import Redactor
from premortem.interp.errors import LlmError, LlmMisconfigured, LlmStopped, LlmUnavailable, LlmUnusable

DEFAULT_ADDRESS = "https://api.openai.com/v1"
TIMEOUT = 120.0
"""Seconds an answer may take, from request to last byte."""
CONNECT_SECONDS = 10.0
RETRIES = 3
"""How often the client library tries again after a refused connection, a time-out or a status that asks for it."""
BODY_TRIES = 3
"""How often a request is sent whose answer is no completion at all."""
MOST_BYTES = 8 * 2**20
"""Bytes of an answer, at most."""


class Endpoint:
    """An OpenAI-compatible endpoint."""

    def __init__(
        self,
        address: str | None = None,
        key: str | None = None,
        *,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        redact: Redactor | None = None,
    ) -> None:
        """Speak to `address` (default: OPENAI_BASE_URL) with `key` (default: OPENAI_API_KEY).

        Raises LlmMisconfigured when the address is no web address or no key is given.
        """
        base = address or os.environ.get("OPENAI_BASE_URL") or DEFAULT_ADDRESS
        secret = key or os.environ.get("OPENAI_API_KEY") or ""
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LlmMisconfigured("OPENAI_BASE_URL is not a web address; it should read http://HOST:PORT/v1")
        if not secret:
            raise LlmMisconfigured("OPENAI_API_KEY is not set; a local server takes any word, as OPENAI_API_KEY=none")
        self.address = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
        self._redact = redact or Redactor.of_environment(os.environ, secret)
        self._timeout = timeout
        try:
            self._client = openai.OpenAI(
                base_url=base,
                api_key=secret,
                timeout=openai.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
                max_retries=retries,
                http_client=openai.DefaultHttpx2Client(follow_redirects=False),
            )
        except Exception as error:
            raise LlmMisconfigured(f"the endpoint cannot be set up: {self._told(error)}") from None

    def send(self, request: Request) -> Reply:
        """Return the completion; raises one of the four leaves of LlmError, none of which holds a secret."""
        started = time.monotonic()
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_NoCompletion),
            stop=tenacity.stop_after_attempt(BODY_TRIES),
            wait=tenacity.wait_exponential_jitter(0.2, 2.0),
            reraise=True,
        )
        try:
            reply = again(self._once, request)
        except LlmError as error:
            raise type(error)(f"the LLM at {self.address}: {self._redact(str(error))}") from None
        except _NoCompletion as error:
            raise LlmUnavailable(f"the LLM at {self.address} {self._redact(str(error))}") from None
        return reply.model_copy(update={"seconds": time.monotonic() - started})

    def _once(self, request: Request) -> Reply:
        try:
            with self._client.chat.completions.with_streaming_response.create(**_arguments(request)) as response:
                body = self._body(response)
        except openai.APIStatusError as error:
            raise self._status(error) from None
        except openai.APITimeoutError:
            raise LlmUnavailable(f"no answer within {self._timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            raise LlmUnavailable(f"no connection ({self._told(error.__cause__ or error)})") from None
        except openai.OpenAIError as error:
            raise LlmUnavailable(self._told(error)) from None
        return self._reply(request, body)

    def _body(self, response: Any) -> bytes:
        """Return the bytes of an answer, as long as they come in time and are not too many."""
        ends, body = time.monotonic() + self._timeout, bytearray()
        try:
            for part in response.iter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    raise _NoCompletion(f"answered with more than {MOST_BYTES // 2**20} MiB")
                if time.monotonic() > ends:
                    raise LlmUnavailable(f"no complete answer within {self._timeout:g} seconds")
        except (LlmError, _NoCompletion):
            raise
        except Exception as error:  # the transport raises errors of its own while a body comes in
            raise _NoCompletion(f"broke off in the middle of an answer ({self._told(error)})") from None
        return bytes(body)

    def _reply(self, request: Request, body: bytes) -> Reply:
        text = body.decode("utf-8", "replace")
        try:
            said = _Completion.model_validate(json.loads(text))
        except ValueError as error:
            what = "is no completion" if isinstance(error, ValidationError) else "is no JSON"
            raise _NoCompletion(f"answered with something that {what}: {_start(text)!r}") from None
        if not said.choices:
            raise _NoCompletion(f"answered without any choice: {_start(text)!r}")
        choice, used = said.choices[0], said.usage or _Usage()
        message = choice.message
        if message.refusal:
            raise LlmUnusable(f"the LLM declined: {message.refusal}")
        calls = [call.function for call in message.tool_calls or () if call.function is not None]
        return Reply(
            text=self._redact(message.content or ""),
            tool_uses=tuple(ToolUse(name=f.name, arguments=self._redact(f.arguments)) for f in calls),
            finish=choice.finish_reason or "stop",
            prompt_tokens=used.prompt_tokens,
            completion_tokens=used.completion_tokens,
            usd=price(request.model, used.prompt_tokens, used.completion_tokens),
        )

    def _status(self, error: openai.APIStatusError) -> LlmError:
        status, said = error.status_code, self._told(error)
        if 300 <= status < 400:
            there = self._redact(error.response.headers.get("location", "another address"))
            return LlmMisconfigured(
                f"it redirects to {there}, which is not followed; set OPENAI_BASE_URL if you trust it"
            )
        if status in (401, 403):
            return LlmMisconfigured(f"it refuses the key ({said}); check OPENAI_API_KEY")
        if status in (404, 405):
            return LlmMisconfigured(f"it does not know the path or the model ({said}); check OPENAI_BASE_URL and --llm")
        if status in (408, 409, 429) or status >= 500:
            wait = error.response.headers.get("retry-after")
            later = f", try again after {self._redact(wait)} seconds" if wait else ""
            return LlmUnavailable(f"it cannot answer now ({said}){later}")
        return LlmStopped(f"it refuses the request ({said})")

    def _told(self, error: BaseException) -> str:
        """Return what an error says in one short line without secrets."""
        text = self._redact(str(error)) or type(error).__name__
        return _start(" ".join(text.split()))


class _NoCompletion(Exception):
    """The endpoint answered with something that is no completion; worth another try."""


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Function(_Lenient):
    name: str
    arguments: str = "{}"


class _Call(_Lenient):
    function: _Function | None = None


class _Message(_Lenient):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(_Lenient):
    message: _Message
    finish_reason: str | None = None


class _Usage(_Lenient):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(_Lenient):
    choices: list[_Choice] | None
    usage: _Usage | None = None


def _arguments(request: Request) -> dict[str, Any]:
    dialect = request.dialect
    arguments: dict[str, Any] = {
        "model": request.model,
        "messages": [message.model_dump() for message in request.messages],
        dialect.limit_name: request.max_tokens,
        "extra_headers": {"Idempotency-Key": request.request_id},
    }
    if dialect.temperature:
        arguments["temperature"] = 0
    if request.tools:
        arguments["tools"] = [
            {"type": "function", "function": {**tool.model_dump(), "strict": True}} for tool in request.tools
        ]
    if request.answer_schema is not None and dialect.schema_mode == "json_schema":
        named = {"name": "answer", "schema": request.answer_schema, "strict": True}
        arguments["response_format"] = {"type": "json_schema", "json_schema": named}
    elif request.answer_schema is not None and dialect.schema_mode == "json_object":
        arguments["response_format"] = {"type": "json_object"}
    return arguments


def strict_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of `model` in the strict form that endpoints enforce: no optional keys, none added."""
    tool: Any = openai.pydantic_function_tool(model)
    schema: dict[str, Any] = tool["function"]["parameters"]
    return schema


def price(model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    """Return the price of a call in US dollars, by the published price lists; None for a model they do not know."""
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(input_tokens=prompt_tokens, output_tokens=completion_tokens), model_ref=model)
    except LookupError:
        return None
    return float(found.total_price)


def _start(text: str, length: int = 160) -> str:
    return text if len(text) <= length else text[:length] + " …"
