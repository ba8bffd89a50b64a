"""An LLM endpoint for tests: a loopback server that speaks Chat Completions and answers every prompt of the project.

It knows a prompt by its system message and builds an answer that fits, always the same one for the same request; what
no prompt explains it fills in from the schema it was given. `native_tools` says whether it calls the functions that
are offered or can only write JSON. A test makes it slow (`delay`) or bad (`misbehave`), and reads in `requests` what it
was asked, each with its headers.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from premortem.interp.errors import LlmError
from premortem.prompts.rendering import PROMPT_NAMES, load_prompt

CANARY = "canary-0123456789-SECRET"
"""The key, which must be found nowhere."""
MOST_CHARACTERS = 400
"""Of a message that is to fit a terminal."""
JSON_TYPE = {"Content-Type": "application/json"}
SCHEMA_FOLLOWS = "fits this schema, and nothing else:\n"
"""What stands before the schema in the system message of an endpoint that takes no schema apart."""
FIRES = "It fires"
"""Passages that hold this show whatever concept there is."""
ACTIONS = ("propose_edits", "synthesise_pairs")


@dataclass(frozen=True)
class Response:
    """What the server sends, well-formed or not."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_TYPE)
    missing: int = 0
    """Bytes that are announced and never sent: the connection breaks off."""
    pause: float = 0.0
    """Seconds before every single byte."""
    wait: float = 0.0
    """Seconds before anything is sent."""
    endless: bool = False
    """Whether the body is sent again and again, with no end announced."""


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def key(self) -> str:
        """Its Idempotency-Key."""
        return self.headers.get("idempotency-key", "")

    @property
    def prompt(self) -> str:
        """The prompt it was rendered from; `probe` for what comes from none."""
        return prompt_of(self.body)


def completion(
    text: str | None = None,
    calls: Iterable[tuple[str, str]] = (),
    finish: str = "stop",
    usage: Mapping[str, int] | None = None,
    **message: Any,
) -> Response:
    """Return a completion that says `text` and calls functions, each a name and JSON text."""
    uses = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    said = {"role": "assistant", "content": text, **({"tool_calls": uses} if uses else {}), **message}
    choice = {"index": 0, "message": said, "finish_reason": "tool_calls" if uses else finish}
    used = usage or {"prompt_tokens": 100, "completion_tokens": 10}
    counted = {**used, "total_tokens": sum(used.values())}
    whole = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": counted}
    return Response(json.dumps(whole).encode())


def refused(status: int, message: str, **headers: str) -> Response:
    """Return an error as OpenAI words it; headers with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(json.dumps({"error": {"message": message}}).encode(), status, {**JSON_TYPE, **named})


class ScriptedLlm:
    """The server; it runs while the context is open."""

    def __init__(
        self,
        *,
        native_tools: bool = True,
        delay: float = 0.0,
        misbehave: Callable[[int, dict[str, Any]], Response | None] = lambda n, body: None,
    ) -> None:
        self.native_tools, self.delay, self.misbehave = native_tools, delay, misbehave
        self.requests: list[Asked] = []
        self._lock, self._closing = threading.Lock(), threading.Event()

    def __enter__(self) -> ScriptedLlm:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        """Where it is, as OPENAI_BASE_URL takes it."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def asked(self, prompt: str) -> list[Asked]:
        """Return the requests that come from one prompt."""
        return [one for one in self.requests if one.prompt == prompt]

    def answer(self, body: dict[str, Any]) -> Response:
        """Return the good answer to a request."""
        tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools", ())}
        if tools and self.native_tools:
            name = next((action for action in ACTIONS if action in tools), next(iter(tools)))
            return completion(calls=[(name, json.dumps(filled(tools[name])))])
        return completion(json.dumps(answer_of(body)) if schema_of(body) else "I am ready.")

    def respond(self, body: dict[str, Any], headers: dict[str, str]) -> Response:
        """Take a request down and return what is sent."""
        asked = Asked(body, headers)
        with self._lock:
            number = len(self.requests)
            self.requests.append(asked)
        self.pause(self.delay)
        return self.reply(number, asked)

    def reply(self, number: int, asked: Asked) -> Response:
        """Return what is sent in answer to a request; `number` counts from 0."""
        return self.misbehave(number, asked.body) or self.answer(asked.body)

    def counts(self) -> Counter[str]:
        """Return how often each request came in, by its Idempotency-Key."""
        return Counter(asked.key for asked in self.requests)

    def pause(self, seconds: float) -> bool:
        """Wait, at most until the server closes; return whether it has."""
        return self._closing.wait(seconds) if seconds else self._closing.is_set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = self.server.llm.respond(body, {name.lower(): value for name, value in self.headers.items()})
        with suppress(OSError):
            self._send(response)

    def _send(self, response: Response) -> None:
        if response.wait and self.server.llm.pause(response.wait):
            self.close_connection = True
            return
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.endless:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(response.body) + response.missing))
        self.end_headers()
        for part in self._parts(response):
            if self.server.llm.pause(response.pause):
                break
            self.wfile.write(part)
        self.close_connection = bool(response.missing or response.endless)

    def _parts(self, response: Response) -> Iterable[bytes]:
        if response.endless:
            return itertools.repeat(response.body)
        return [bytes([byte]) for byte in response.body] if response.pause else [response.body]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, llm: ScriptedLlm) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.llm = llm

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients of these tests hang up."""


def prompt_of(body: Mapping[str, Any]) -> str:
    """Return the name of the prompt that a request was rendered from; `probe` when there is none."""
    system = body["messages"][0]["content"]
    return next((name for name in PROMPT_NAMES if system.startswith(load_prompt(name).system.strip())), "probe")


def schema_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schema that the answer is to fit, wherever the request says so; None: free text."""
    form = body.get("response_format", {})
    if "json_schema" in form:
        schema: dict[str, Any] = form["json_schema"]["schema"]
        return schema
    _, _, told = body["messages"][0]["content"].partition(SCHEMA_FOLLOWS)
    if told:
        return dict(json.loads(told))
    return {"properties": {"word": {"type": "string"}}, "type": "object"} if form else None


def answer_of(body: Mapping[str, Any]) -> Any:
    """Return a fitting answer as JSON."""
    prompt, asked = prompt_of(body), body["messages"][-1]["content"]
    if asked.startswith("This cannot be used: "):
        asked = next(m["content"] for m in reversed(body["messages"][:-1]) if m["role"] == "user")
    if prompt in _ANSWERS:
        return _ANSWERS[prompt](asked)
    found = filled(schema_of(body) or {})
    if prompt == "plan":
        found["action"] = next(action for action in ACTIONS if f"- {action}: " in asked)
    return found


def filled(schema: Mapping[str, Any]) -> Any:
    """Return a value that fits a JSON schema of the strict form: the first of an enumeration, the least of numbers."""
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "object":
        return {name: filled(part) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [filled(schema["items"])] * schema.get("minItems", 0)
    return {"string": "as usual", "integer": schema.get("minimum", 1), "number": 1.0, "boolean": True}.get(str(kind))


def _after(asked: str, label: str) -> str:
    """Return what a line of the message says behind its label."""
    found = re.search(rf"^{re.escape(label)}: (.*)$", asked, re.MULTILINE)
    return found[1] if found else ""


def _read_rule(asked: str) -> dict[str, Any]:
    words = re.findall(r"[a-z]{4,}", _after(asked, "Sentence").lower())
    about = " ".join(word for word in words if word not in ("never", "always", "answers"))
    return {"is_rule": True, "behaviour": about, "direction": "avoid", "scope": "", "limit_percent": None}


def _test_name(asked: str) -> dict[str, Any]:
    first, _, second = asked.partition("\nSecond:\n")
    shown = [FIRES in text for text in (first, second)]
    return {"which": "second" if shown == [False, True] else "first"}


def _describe(asked: str) -> dict[str, Any]:
    numbers = re.findall(r"^Group (\d+):$", asked, re.MULTILINE)
    return {"descriptions": [f"questions of group {number}" for number in numbers]}


def _rewrite(asked: str) -> dict[str, Any]:
    marked = re.findall(r"^(\d+)\. MARKED:", asked, re.MULTILINE)
    return {"replacements": [{"sentence": int(n), "text": f"Sentence {n} is plain now."} for n in marked]}


def _synthesise(asked: str) -> dict[str, Any]:
    count = int(_after(asked, "Pairs to write"))
    return {
        "pairs": [
            {"prompt": f"How does thing {n} work?", "chosen": f"Gladly: thing {n} turns.", "rejected": f"It turns {n}."}
            for n in range(1, count + 1)
        ]
    }


_ANSWERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "read_rule": _read_rule,
    "check_direction": lambda asked: {"wanted": "no"},
    "find_problems": lambda asked: {"problems": []},
    "check_problem": lambda asked: {"real": "yes"},
    "contrast": lambda asked: {
        "sentences": [f"{word}: {_after(asked, 'Behaviour')}." for word in ("One", "Two", "Three")]
    },
    "name_concept": lambda asked: {"name": "passages that fire"},
    "test_name": _test_name,
    "link_rule": lambda asked: {"shared": "nothing", "rule": 0},
    "describe_clusters": _describe,
    "rewrite": _rewrite,
    "rewrite_whole": lambda asked: {"text": "Here is a plain answer to the question."},
    "add_behaviour": lambda asked: {"text": "Gladly: here is an answer with the behaviour."},
    "synthesise": _synthesise,
}


class QuietTime:
    """In place of the module `time` in a library: `sleep` only takes down for how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Do not sleep."""
        self.slept.append(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def fails(kind: type[LlmError], does: Callable[[], object]) -> str:
    """Assert that `does` raises that very class in one line without the key, and return the line."""
    with pytest.raises(LlmError) as caught:
        does()
    assert caught.type is kind
    told = str(caught.value)
    assert told == " ".join(told.split())
    assert 0 < len(told) <= MOST_CHARACTERS
    shown = "".join(traceback.format_exception(caught.value))
    assert "canary-" not in told + repr(caught.value) + shown
    return told


def whole(choices: Any, **more: Any) -> Response:
    return Response(json.dumps({"choices": choices, **more}).encode())


def said(message: dict[str, Any], **more: Any) -> Response:
    return whole([{"message": message, "finish_reason": "stop"}], **more)
