"""Asks an LLM for records: an answer of a given kind, or one of several tools with checked arguments.

Endpoints differ in what they enforce. At the start each is asked to call a function, then to fit a schema, and what it
does decides the `Dialect`: native tool calls, or one JSON object that names the action. `tool_choice` is never relied
on. A model whose first answers show that it thinks gets more room from then on. Whatever comes back is checked here;
an answer that does not fit goes back with the reason, twice at most, and then the question is given up
(`LlmUnusable`): what the LLM may mend goes back to it, everything else is the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from premortem.agent.cells import clean
from premortem.agent.chat import ChatMessage, Dialect, Reply, Request, Role, ToolSchema, find_json, is_thinking
from premortem.agent.ledger import PROBE, Inquiry, Ledger
from premortem.agent.llm import strict_schema
from premortem.agent.llm_request import BOUNDS
from premortem.interp.errors import LlmError, LlmStopped, LlmUnusable
from premortem.interp.records import Record
from premortem.prompts.rendering import Rendered

A = TypeVar("A", bound=BaseModel)

_ROLES: tuple[Role, Role] = ("user", "assistant")
REPAIRS = 2
"""How often an answer that cannot be used is sent back with the reason."""
MAX_TOKENS = 1200
"""Bound on an answer."""
MOST_TOKENS = 4 * MAX_TOKENS
"""Bound for an answer that was cut off, and for every answer of a model that thinks before it answers."""
ROUND, ROUNDS = 48, 3
"""Characters at the end of an answer that was cut off, and how often they stand in it where it only repeats itself."""
PROBE_TOKENS = 1024
"""Bound on the answer to a probe."""

MOST_NAMED = 60
"""Characters that are told back of a name that the LLM made up."""


class Ready(Record):
    """The probe's answer."""

    word: str = Field(min_length=1)
    """Any word; the bound tells whether an endpoint takes one."""


class Question(Record):
    """One question of a batch."""

    purpose: str
    """See `LlmCall.purpose`."""
    system: str
    """System message."""
    turns: tuple[tuple[str, str], ...] = ()
    """Examples that come before it: what is asked, and the answer."""
    user: str
    """User message."""
    source: str
    """See `LlmCall.prompt`."""
    max_tokens: int = MAX_TOKENS
    """Bound on the answer."""

    @classmethod
    def of(cls, purpose: str, prompt: Rendered, max_tokens: int = MAX_TOKENS) -> Question:
        """Return the question that a rendered prompt asks."""
        return cls(
            purpose=purpose,
            system=prompt.system,
            turns=prompt.turns,
            user=prompt.user,
            source=prompt.source,
            max_tokens=max_tokens,
        )


class Asker:
    """Puts questions to one model through one run's ledger."""

    def __init__(self, ledger: Ledger, model: str) -> None:
        """Ask `model`."""
        self.ledger, self.model = ledger, model
        self._thinks, self._roomy = False, True

    @cached_property
    def dialect(self) -> Dialect:
        """What the endpoint understands; a few short calls the first time, none later."""
        dialect = Dialect()
        for _ in range(4):
            answer = self._probed(dialect, tools=True)
            if isinstance(answer, Reply):
                native = any(use.name == "report_ready" and _fits(use.arguments) for use in answer.tool_uses)
                dialect = dialect.model_copy(update={"tools": native})
                break
            changed = _without(dialect, str(answer))
            if isinstance(answer, LlmUnusable) or changed == dialect:  # it declined, or fails where tools are offered
                break
            dialect = changed
        for mode in ("json_schema", "json_object"):
            asked = dialect.model_copy(update={"schema_mode": mode})
            answer = self._probed(asked, tools=False)
            while isinstance(answer, LlmStopped) and (changed := _without(dialect, str(answer))) != dialect:
                dialect, asked = changed, changed.model_copy(update={"schema_mode": mode})
                answer = self._probed(asked, tools=False)
            if isinstance(answer, Reply) and _fits(answer.text):
                return asked
        return dialect

    def _probed(self, dialect: Dialect, tools: bool) -> Reply | LlmError:
        """Return what becomes of a probe; a model that is cut off while it thinks is asked again with more room.

        Where much room is refused and little is not, the endpoint's context is small: little is asked for from then on.
        """
        while True:
            room = self._limit(PROBE_TOKENS)
            answer = self._probe(dialect, tools, room)
            if isinstance(answer, LlmStopped) and room > PROBE_TOKENS:
                answer = self._probe(dialect, tools, PROBE_TOKENS)
                self._roomy = not isinstance(answer, Reply)
            if isinstance(answer, LlmError):
                return answer
            self._thinks = self._thinks or answer.thinks
            if answer.finish != "length" or room == self._limit(PROBE_TOKENS) or not self._roomy:
                return answer

    def _limit(self, tokens: int) -> int:
        """Return the bound on an answer that is `tokens` long without any thinking."""
        return max(tokens, MOST_TOKENS) if self._thinks and self._roomy else tokens

    def _probe(self, dialect: Dialect, tools: bool, room: int) -> Reply | LlmError:
        system = "You answer in the form that is asked for."
        user = "Report that you are ready, by the function." if tools else 'Answer with the JSON {"word": "ready"}.'
        schema = strict_schema(Ready)
        request = Request(
            model=self.model,
            messages=(ChatMessage(role="system", content=system), ChatMessage(role="user", content=user)),
            tools=(ToolSchema(name="report_ready", description="Say that you are ready.", parameters=schema),)
            if tools
            else (),
            answer_schema=None if tools else schema,
            max_tokens=room,
            dialect=dialect,
        )
        (answer,) = self.ledger.answers([Inquiry(purpose=PROBE, prompt="", request=request)])
        return answer

    def ask(self, question: Question, answer: type[A], check: Callable[[A], None] = lambda _: None) -> A:
        """Return the answer; raises a leaf of LlmError, LlmUnusable after the last repair."""
        (found,) = self.ask_all([question], answer, [check])
        if isinstance(found, LlmError):
            raise found
        return found

    def ask_all(
        self,
        questions: Sequence[Question],
        answer: type[A],
        checks: Sequence[Callable[[A], None]] | None = None,
        heard: Callable[[], object] = lambda: None,
    ) -> list[A | LlmError]:
        """Return the answer to each question, side by side, or why there is none (`LlmUnusable`, `LlmStopped`).

        A check raises ValueError for an answer that fits its schema and still cannot be used. Raises LlmUnavailable
        and LlmMisconfigured: then nothing else can be asked either.
        """
        if not questions:
            return []
        schema = strict_schema(answer)
        tests = checks or [lambda _: None] * len(questions)

        def read(at: int, reply: Reply) -> A:
            found = _checked(reply.text, answer)
            tests[at](found)
            return found

        requests = [self._request(question, schema) for question in questions]
        return self._settle(questions, requests, read, heard)

    def choose(self, question: Question, tools: Mapping[str, type[Record]], flat: type[Record]) -> tuple[str, Record]:
        """Return the tool that the LLM chose and its checked arguments.

        `tools` are the argument models by name, their docstrings written for the LLM. Endpoints without native tool
        calls fill in `flat`, one record with a field `action` and the union of the arguments. Raises a leaf of
        LlmError; an invented tool or argument is answered with what there is.
        """
        request = self._request(question, None if self.dialect.tools else strict_schema(flat))
        if self.dialect.tools:
            schemas = tuple(
                ToolSchema(name=name, description=(model.__doc__ or "").strip(), parameters=strict_schema(model))
                for name, model in tools.items()
            )
            request = request.model_copy(update={"tools": schemas})

        def read(_: int, reply: Reply) -> tuple[str, Record]:
            name, arguments = _chosen(reply)
            if name not in tools:
                raise ValueError(f"there is no action {name[:MOST_NAMED]!r}; there are {', '.join(tools)}")
            model = tools[name]
            return name, _checked(json.dumps({k: v for k, v in arguments.items() if k in model.model_fields}), model)

        (found,) = self._settle([question], [request], read, lambda: None)
        if isinstance(found, LlmError):
            raise found
        return found

    def _request(self, question: Question, schema: dict[str, Any] | None) -> Request:
        system = question.system
        if schema is not None and self.dialect.schema_mode != "json_schema":
            system += f"\n\nAnswer with one JSON object that fits this schema, and nothing else:\n{json.dumps(schema)}"
        turns = [
            ChatMessage(role=role, content=text)
            for turn in question.turns
            for role, text in zip(_ROLES, turn, strict=True)
        ]
        return Request(
            model=self.model,
            messages=(
                ChatMessage(role="system", content=system),
                *turns,
                ChatMessage(role="user", content=question.user),
            ),
            answer_schema=schema,
            max_tokens=self._limit(question.max_tokens),
            dialect=self.dialect,
        )

    def _settle(
        self,
        questions: Sequence[Question],
        requests: list[Request],
        read: Callable[[int, Reply], Any],
        heard: Callable[[], object],
    ) -> list[Any]:
        """Ask, and ask again with the reason where an answer cannot be used, in rounds of the whole batch."""
        found: list[Any] = [None] * len(questions)
        open_ones = list(range(len(questions)))
        for last in (*[False] * REPAIRS, True):
            inquiries = [
                Inquiry(purpose=questions[at].purpose, prompt=questions[at].source, request=requests[at])
                for at in open_ones
            ]
            failed: list[int] = []
            for at, reply in zip(open_ones, self.ledger.answers(inquiries, heard), strict=True):
                if isinstance(reply, LlmError):
                    found[at] = reply
                    continue
                try:
                    found[at] = read(at, reply)
                except (ValueError, RecursionError) as error:
                    found[at] = LlmUnusable(f"the LLM's answer cannot be used: {_reason(error)}")
                    again = _repaired(requests[at], reply, _reason(error))
                    if again is not None:
                        requests[at] = again
                        failed.append(at)
            open_ones = failed
            if last or not open_ones:
                break
        return found


def _chosen(reply: Reply) -> tuple[str, dict[str, Any]]:
    """Return the name and the raw arguments of the action that a reply takes."""
    if reply.tool_uses:
        use = reply.tool_uses[0]
        arguments = find_json(use.arguments)
        name = use.name
    else:
        arguments = find_json(reply.text)
        if not isinstance(arguments, dict):
            raise ValueError("the answer is no JSON object")
        name = str(arguments.pop("action", arguments.pop("name", "")))
        arguments = arguments.pop("arguments", arguments)
    if not isinstance(arguments, dict):
        raise ValueError("the arguments are no JSON object")
    return name, arguments


def _checked(text: str, model: type[A]) -> A:
    return model.model_validate(clean(find_json(text)))


def _fits(text: str) -> bool:
    try:
        _checked(text, Ready)
    except (ValueError, RecursionError):
        return False
    return True


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part)[:MOST_NAMED] for part in first["loc"]) or "the answer"
        return f"{where}: {first['msg']}"
    return str(error)


def _repaired(request: Request, reply: Reply, reason: str) -> Request | None:
    """Return the request that sends an answer back with the reason; one that was cut off gets more room instead.

    None where there is no answer to send back: it was cut off in the thinking, with all the room there is. An answer
    that only went on repeating itself would fill any room; it goes back as far as it said something.
    """
    said = reply.text or json.dumps([use.model_dump() for use in reply.tool_uses])
    if reply.finish == "length" and (end := _end_of_first_round(said)):
        said, reason = said[:end], "from here on it repeated itself without an end"
    elif reply.finish == "length":
        if request.max_tokens < MOST_TOKENS:
            return request.model_copy(update={"max_tokens": MOST_TOKENS})
        if is_thinking(reply.text) or (reply.thinks and not reply.text.strip() and not reply.tool_uses):
            return None
    more = (
        ChatMessage(role="assistant", content=said[:4000]),
        ChatMessage(role="user", content=f"This cannot be used: {reason}. Answer again, in the form asked for."),
    )
    return request.model_copy(update={"messages": (*request.messages, *more)})


def _end_of_first_round(text: str) -> int:
    """Return where `text` begins to repeat what it ends in, ROUNDS times at least; 0 where it does not."""
    tail = text[-ROUND:]
    return text.index(tail) + len(tail) if text.count(tail) >= ROUNDS else 0


def _without(dialect: Dialect, refusal: str) -> Dialect:
    """Return the dialect without what a refusal names."""
    if "temperature" in refusal and dialect.temperature:
        return dialect.model_copy(update={"temperature": False})
    named = "max_completion_tokens" in refusal or "support" in refusal.lower()
    if "max_tokens" in refusal and named and dialect.limit_name == "max_tokens":
        return dialect.model_copy(update={"limit_name": "max_completion_tokens"})
    if dialect.bounds and any(bound in refusal for bound in BOUNDS if not bound.islower()):
        return dialect.model_copy(update={"bounds": False})
    return dialect
