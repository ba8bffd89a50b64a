"""The only place that talks to an LLM: Chat Completions of any OpenAI-compatible endpoint, over HTTP.

Endpoints misbehave in many ways: a proxy answers with a web page, a gateway with half a document, a server with no
choice at all, an error with the key in it, a redirect that would carry the user's text elsewhere. The client library
lets most of that through. So the body is read here, bounded in bytes and in time, and whatever happens becomes one of
three errors: retry (`LlmUnavailable`), stop (`LlmStopped`) or configuration (`LlmMisconfigured`). A model that declines
has answered, at a price (`Reply.refused`). So has one whose answer is thrown away and asked for again: what it counted
is part of what the reply cost, or of what an error says in its cause (`pulse.Wasted`). Redirects are never followed.
What is remembered of a call is the ledger's business.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

import openai
import tenacity
from pydantic import BaseModel, ValidationError

from premortem.agent.cells import clean
from premortem.agent.chat import Reply, Request, ToolUse, shows_thinking
from premortem.agent.completion import Completion, Usage
from premortem.agent.llm_request import arguments
from premortem.agent.pulse import wasted, with_cost
from premortem.agent.redact import LogRedaction, Redactor
from premortem.interp.errors import LlmError, LlmMisconfigured, LlmStopped, LlmUnavailable

DEFAULT_ADDRESS = "https://api.openai.com/v1"
TIMEOUT = 180.0
"""Seconds an answer may take, from request to last byte."""
CONNECT_SECONDS = 10.0
RETRIES = 2
"""How often the client library tries again after a refused connection, a time-out or a status that asks for it."""
BODY_TRIES = 3
"""How often a request is sent whose answer is no completion at all."""
BUSY_SECONDS = 60.0
"""How long is waited in all for an endpoint that is asked too often, or that says itself how long to wait."""
MOST_BYTES = 8 * 2**20
"""Bytes of an answer, at most."""
MOST_ERROR_BYTES = 2**16
"""Bytes that are read of what comes with an error status."""
LINE = 160
"""Characters that are kept of what an endpoint says."""
MOST_SAID = 300
"""Characters that are kept of what a refused request is told: it may name what the endpoint does not take."""
OUT_OF_ROOM = "output limit was reached"
"""What OpenAI's own endpoint says with status 400 where the model thought until the answer had no room left."""
_CARRIERS = ("", ".connection", ".http11", ".http2", ".proxy", ".socks")
LOGGERS = (
    *("openai", "openai._base_client", "openai._legacy_response", "openai._response", "httpx", "httpx2"),
    *(f"{library}{part}" for library in ("httpcore", "httpcore2") for part in _CARRIERS),
)
"""Loggers of the client library and of what it may stand on, which log headers at the level DEBUG."""
_BARE = re.compile(r"\(?Error code: \d+\)?")
"""An error of the client library that found no message in the body."""


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
        secret = (key or os.environ.get("OPENAI_API_KEY") or "").strip(" \t\r\n\ufeff")
        parts = _split(base)
        if not secret:
            raise LlmMisconfigured("OPENAI_API_KEY is not set; a local server takes any word, as OPENAI_API_KEY=none")
        if not all("!" <= letter <= "~" for letter in secret):
            raise LlmMisconfigured("OPENAI_API_KEY holds a space or a letter that no key has; copy it again")
        more = (secret, parts.username or "", parts.password or "")
        self._redact = redact or Redactor.of_environment(os.environ, *more)
        self.address = self._redact(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
        self._timeout = timeout
        for name in LOGGERS:
            logging.getLogger(name).addFilter(LogRedaction(self._redact))
        limits = openai.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout))
        try:
            self._client = openai.OpenAI(
                base_url=base,
                api_key=secret,
                timeout=limits,
                max_retries=retries,
                http_client=_Client(follow_redirects=False, timeout=limits),
            )
        except Exception as error:
            raise LlmMisconfigured(f"the endpoint cannot be set up: {self._told(error)}") from None

    def send(self, request: Request) -> Reply:
        """Return the completion, or the refusal that stands in its place (`Reply.refused`).

        Raises one of the leaves of LlmError, none of which holds a secret.
        """
        started, lost = time.monotonic(), list[Reply]()
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_NoCompletion),
            stop=tenacity.stop_after_attempt(BODY_TRIES),
            wait=tenacity.wait_exponential_jitter(0.2, 2.0),
            reraise=True,
        )
        patient = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Busy), wait=_wait, stop=_waited_long, reraise=True
        )
        try:
            reply = patient(again, self._once, request, lost)
        except LlmError as error:
            told = f"the LLM at {self.address}: {self._redact(str(error))}"
            raise type(error)(told, cause=error.cause) from wasted(lost)
        except _Busy as error:
            told = f"the LLM at {self.address}: {self._redact(str(error))}"
            raise LlmUnavailable(told, cause="everywhere") from wasted(lost)
        except _NoCompletion as error:
            raise LlmUnavailable(f"the LLM at {self.address} {self._redact(str(error))}") from wasted(lost)
        return with_cost(reply, lost).model_copy(update={"seconds": time.monotonic() - started})

    def _once(self, request: Request, lost: list[Reply]) -> Reply:
        """Send the request once; what an answer that cannot be used has cost is added to `lost`."""
        try:
            with self._client.chat.completions.with_streaming_response.create(**arguments(request)) as response:
                body = self._body(response)
        except openai.APIStatusError as error:
            if error.status_code == 400 and OUT_OF_ROOM in str(error):
                return _thought_too_long(request, self.address)
            raise self._status(error) from None
        except openai.APITimeoutError:
            raise LlmUnavailable(f"no answer within {self._timeout:g} seconds", cause="silence") from None
        except openai.APIConnectionError as error:
            told = self._told(error.__cause__ or error)
            raise LlmUnavailable(f"no connection ({told})", cause="silence") from None
        except openai.OpenAIError as error:
            raise LlmUnavailable(self._told(error)) from None
        value = self._value(body)
        try:
            return self._reply(request, value, body.decode("utf-8", "replace"))
        except (LlmError, _Busy, _NoCompletion):
            lost.append(Reply(text="", **self._cost(request, _used_by(value))))
            raise

    def _body(self, response: Any) -> bytes:
        """Return the bytes of an answer, as long as they come in time and are not too many."""
        ends, body = time.monotonic() + self._timeout, bytearray()
        try:
            for part in response.iter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    raise _NoCompletion(f"answered with more than {MOST_BYTES // 2**20} MiB")
                if time.monotonic() > ends:
                    told = f"no complete answer within {self._timeout:g} seconds"
                    raise LlmUnavailable(told, cause="silence")
        except (LlmError, _NoCompletion):
            raise
        except Exception as error:  # the transport raises errors of its own while a body comes in
            raise _NoCompletion(f"broke off in the middle of an answer ({self._told(error)})") from None
        return bytes(body)

    def _value(self, body: bytes) -> Any:
        """Return the JSON value that an answer is."""
        text = body.decode("utf-8", "replace")
        try:
            return clean(json.loads(text))
        except (ValueError, RecursionError):
            raise _NoCompletion(f"answered with something that is no JSON: {self._line(text)!r}") from None

    def _reply(self, request: Request, value: Any, body: str) -> Reply:
        """Return what an answer says whose JSON value was read from `body`."""
        self._late_error(value)
        try:
            said = Completion.model_validate(value)
        except (ValidationError, RecursionError):
            raise _NoCompletion(f"answered with something that is no completion: {self._line(body)!r}") from None
        if not said.choices:
            raise _NoCompletion(f"answered without any choice: {self._line(body)!r}")
        choice, used = said.choices[0], said.usage or Usage()
        message = choice.message
        if choice.finish_reason == "error":
            raise _NoCompletion(f"broke off an answer: {self._line(body)!r}")
        if not (used.prompt_tokens or used.completion_tokens):
            asked = "".join(each.content for each in request.messages)
            answer = message.text() + "".join(call.model_dump_json() for call in message.tool_calls or ())
            used = Usage(prompt_tokens=_guessed(asked), completion_tokens=_guessed(answer))
        cost = self._cost(request, used)
        if message.refusal:  # it is paid for like any answer
            told = f"the LLM at {self.address}: the LLM declined: {self._line(message.refusal)}"
            return Reply(text=told, refused="declined", **cost)
        calls = [call.function for call in message.tool_calls or () if call.function is not None]
        text = message.text()
        return Reply(
            text=self._redact(text),
            thinks=message.thought() or used.thought() or shows_thinking(text),
            tool_uses=tuple(ToolUse(name=self._redact(f.name), arguments=self._redact(f.arguments)) for f in calls),
            finish=self._redact(choice.finish_reason or "stop"),
            **cost,
        )

    def _cost(self, request: Request, used: Usage) -> dict[str, Any]:
        """Return the fields of a reply that say what it cost."""
        return {
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "usd": price(request.model, used.prompt_tokens, used.completion_tokens, self.address),
        }

    def _late_error(self, value: Any) -> None:
        """Raise what an error in the place of a completion means where waiting or paying is all that helps.

        Routers send one with status 200 when the model had begun.
        """
        error = value.get("error") if isinstance(value, dict) and not value.get("choices") else None
        if isinstance(error, dict) and error.get("code") in (402, 429):
            said = self._line(str(error.get("message", "")))
            if error["code"] == 402:
                raise LlmMisconfigured(f"it wants to be paid first ({said})", cause="everywhere")
            raise _Busy(f"it cannot answer now ({said})", None)

    def _status(self, error: openai.APIStatusError) -> LlmError | _Busy:
        status, in_full = error.status_code, self._said(error)
        said = _start(in_full, LINE)
        if 300 <= status < 400:
            there = self._line(error.response.headers.get("location", "another address"))
            return LlmMisconfigured(
                f"it redirects to {there}, which is not followed; set OPENAI_BASE_URL if you trust it",
                cause="everywhere",
            )
        if status == 401:
            return LlmMisconfigured(f"it refuses the key ({said}); check OPENAI_API_KEY")
        if status == 403:
            return LlmMisconfigured(f"it forbids the request ({said}); check OPENAI_API_KEY and what the key allows")
        if status == 402 or error.code == "insufficient_quota":
            return LlmMisconfigured(f"it wants to be paid first ({said})", cause="everywhere")
        if status in (404, 405):
            return LlmMisconfigured(f"it does not know the path or the model ({said}); check OPENAI_BASE_URL and --llm")
        if status == 429 and "too large" in str(error).lower():  # waiting does not make it smaller
            return LlmStopped(f"it refuses the request ({in_full})")
        if status in (408, 409, 429) or status >= 500:
            wait = error.response.headers.get("retry-after", "")
            later = f"; try again after {self._line(wait)}{' seconds' if wait.isdigit() else ''}" if wait else ""
            told = f"it cannot answer now ({said}){later}"
            return _Busy(told, _seconds(wait)) if status == 429 else LlmUnavailable(told)
        return LlmStopped(f"it refuses the request ({in_full})")

    def _said(self, error: openai.APIStatusError) -> str:
        """Return what an error's message says, and its body where that says more: only one form of body is known."""
        told, body = str(error), error.response.text
        if body and body not in told and (_BARE.fullmatch(told) or '"metadata"' in body):
            told = f"{told}: {body}"
        return self._line(told, MOST_SAID) or type(error).__name__

    def _told(self, error: BaseException) -> str:
        """Return what an error says in one short line without secrets."""
        return self._line(str(error)) or type(error).__name__

    def _line(self, text: str, length: int = LINE) -> str:
        return _start(" ".join(self._redact(text).split()), length)


class _Client(openai.DefaultHttpxClient):
    """The client library's own, except that it bounds what comes with an error status: that is read there in full."""

    def send(self, request: Any, **options: Any) -> Any:
        """Return the response; of one with an error status only the beginning, as far as it comes in time."""
        response = super().send(request, **options)
        if response.is_success:
            return response
        ends, body = time.monotonic() + (self.timeout.read or TIMEOUT), bytearray()
        with suppress(Exception):  # the status counts, whatever becomes of its text
            for part in response.iter_bytes():
                body += part
                if len(body) > MOST_ERROR_BYTES or time.monotonic() > ends:
                    break
        response.close()
        sealed = {"content-encoding", "content-length", "transfer-encoding"}
        ours = {"x-should-retry": "false"} if response.status_code == 429 else {}  # `Endpoint.send` waits longer
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in {*sealed, *ours}]
        headers += ours.items()
        kept = bytes(body[:MOST_ERROR_BYTES])
        return type(response)(response.status_code, headers=headers, content=kept, request=request)


class _NoCompletion(Exception):
    """The endpoint answered with something that is no completion; worth another try."""


class _Busy(Exception):
    """The endpoint is asked too often; worth another try after a while."""

    def __init__(self, message: str, seconds: float | None) -> None:
        """Say what was seen, and for how long the endpoint wants to be left alone; None: it does not say."""
        super().__init__(message)
        self.seconds = seconds


_GROWING = tenacity.wait_exponential_jitter(initial=1.0, max=16.0, jitter=1.0)


def _wait(state: tenacity.RetryCallState) -> float:
    """Return the seconds until a busy endpoint is asked again: as it says itself, else longer each time."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked_for = error.seconds if isinstance(error, _Busy) else None
    return _GROWING(state) if asked_for is None else asked_for


def _waited_long(state: tenacity.RetryCallState) -> bool:
    return state.idle_for + state.upcoming_sleep > BUSY_SECONDS


def _seconds(retry_after: str) -> float | None:
    """Return how long a `Retry-After` asks to wait, in seconds; None where it does not say."""
    with suppress(ValueError, OverflowError):
        try:
            seconds = float(retry_after)
        except ValueError:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        return seconds if seconds > 0 else None
    return None


def _split(base: str) -> SplitResult:
    """Return the parts of a web address; raises LlmMisconfigured for anything else."""
    with suppress(ValueError):
        parts = urlsplit(base)
        _ = parts.port  # raises ValueError for what is no port
        if parts.scheme in ("http", "https") and parts.hostname and base.isprintable() and " " not in base:
            return parts
    raise LlmMisconfigured("OPENAI_BASE_URL is not a web address; it should read http://HOST:PORT/v1")


def strict_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of `model` in the strict form that endpoints enforce: no optional keys, none added."""
    tool: Any = openai.pydantic_function_tool(model)
    schema: dict[str, Any] = tool["function"]["parameters"]
    return schema


def price(model: str, prompt_tokens: int, completion_tokens: int, address: str | None = None) -> float | None:
    """Return the price of a call in US dollars, by the published price lists; None for a model they do not know.

    `address`: the endpoint's; a router names models its own way, and may ask its own price.
    """
    from genai_prices import Usage, calc_price

    used = Usage(input_tokens=prompt_tokens, output_tokens=completion_tokens)
    for where in (address, None) if address else (None,):
        with suppress(LookupError):
            return float(calc_price(used, model_ref=model, provider_api_url=where).total_price)
    return None


def _thought_too_long(request: Request, address: str) -> Reply:
    """Return the empty answer that an endpoint refuses to give whose model thought until there was no room left."""
    spent = request.max_tokens
    return Reply(
        text="",
        finish="length",
        thinks=True,
        completion_tokens=spent,
        usd=price(request.model, 0, spent, address),
    )


def _used_by(value: Any) -> Usage:
    """Return what an answer says that it took, whatever else is wrong with it."""
    usage = value.get("usage") if isinstance(value, dict) else None
    return Completion(choices=None, usage=usage).usage or Usage()


def _guessed(text: str) -> int:
    """Return how many tokens a text may have where the endpoint does not say; rather too many, for bounds to hold."""
    return len(text) // 3 + 1


def _start(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length].rstrip()} …"
