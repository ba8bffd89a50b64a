"""Asks the LLM each thing once: remembers answers, keeps to budgets, records and replays.

Every answer is written to the run database as soon as it is there, together with what it cost. A request that any run
has made before is answered from there, so a killed run pays nothing twice: only a request whose answer had not arrived
is sent again, under the same `Idempotency-Key`. Requests of one batch go out side by side; the database is touched by
the caller's thread alone.

A refusal is an answer too, but only for the run that got it: another one asks again. So is a request at which an
endpoint fails that answers others (see `pulse`). And so is a probe: another run may speak to another endpoint. What
fails so that the run ends is answered by nothing and sent again later. It was a call all the same, and what was paid
for it is written down.

Budgets are compared with what the database says was spent, so resuming does not reset them. What is on its way counts
too: as a call, and as the largest answer so far until its own is there. Where that might reach a bound of tokens,
seconds or dollars, nothing more is sent before the next answer tells. So a bound is passed by the answer that reaches
it, and by more only where several at once are larger than all before.

A recording is a file with one call a line. With one in place of the endpoint a run can be repeated byte for byte,
offline; what that run remembered costs the repeated one nothing either. Which request found a bound of tokens, seconds
or dollars reached depended on when answers came, so whatever is recorded is answered, and what is not was refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from math import inf
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from premortem.agent.chat import Carrier, Reply, Request
from premortem.agent.cli_options import say
from premortem.agent.journal import LlmCall
from premortem.agent.outfile import NewFile
from premortem.agent.pulse import Pulse, paid_before
from premortem.agent.signals import mortal
from premortem.agent.store import Store
from premortem.interp.errors import LlmError, LlmMisconfigured, LlmStopped, LlmUnusable
from premortem.interp.records import Cost, Record

PROBE = "probe"
"""Purpose of a request that asks what an endpoint understands."""
SIDE_BY_SIDE = 4
"""Requests on their way at the same time, at most."""


_REFUSALS: dict[str, type[LlmError]] = {"declined": LlmUnusable, "stopped": LlmStopped, "unavailable": LlmStopped}


class Budget(Record):
    """What one run may use of an LLM; null: no bound."""

    calls: int | None = Field(1000, ge=0)
    """Requests sent."""
    tokens: int | None = Field(2_000_000, ge=0)
    """Tokens, of requests and answers together."""
    seconds: float | None = Field(None, ge=0)
    """Time until the answers were there, added up."""
    usd: float | None = Field(None, ge=0)
    """Price in US dollars; models without a listed price cost nothing here."""

    def spent(self, cost: Cost, on_their_way: int = 0) -> str:
        """Return which bound `cost` has reached, in words; empty: none."""
        reached = [
            (self.calls, cost.llm_calls + on_their_way, "calls"),
            (self.tokens, cost.llm_tokens, "tokens"),
            (self.seconds, cost.llm_seconds, "seconds"),
            (self.usd, cost.llm_usd, "US dollars"),
        ]
        return next((f"{most:g} {name}" for most, used, name in reached if most is not None and used >= most), "")


class Largest(NamedTuple):
    """The most that single answers of a run have cost so far, each figure by itself."""

    tokens: float = 0
    """Tokens of request and answer."""
    seconds: float = 0.0
    """Time until the answer was there."""
    usd: float = 0.0
    """US dollars."""

    def and_of(self, reply: Reply) -> Largest:
        """Return the figures with those of one more answer."""
        tokens = reply.prompt_tokens + reply.completion_tokens
        return Largest(max(self.tokens, tokens), max(self.seconds, reply.seconds), max(self.usd, reply.usd or 0.0))

    def added(self, cost: Cost, times: int) -> Cost:
        """Return `cost` after so many more answers that cost as much."""
        more = {
            "llm_tokens": cost.llm_tokens + times * self.tokens,
            "llm_seconds": cost.llm_seconds + times * self.seconds,
            "llm_usd": cost.llm_usd + times * self.usd,
        }
        return cost.model_copy(update=more)


class Inquiry(Record):
    """A request with what the log should say about it."""

    purpose: str
    """See `LlmCall.purpose`."""
    prompt: str
    """See `LlmCall.prompt`."""
    request: Request
    """What is asked."""


class Ledger:
    """The LLM as one run sees it."""

    def __init__(self, store: Store, run_id: str, carrier: Carrier, budget: Budget | None = None) -> None:
        """Ask `carrier` what `store` does not remember, within `budget`."""
        self._store, self._run_id, self._pulse = store, run_id, Pulse(carrier)
        self._recording = carrier if isinstance(carrier, Recording) else None
        self.budget = budget or Budget()
        self.address = carrier.address
        self._largest: Largest | None = None

    def calls_made(self) -> int:
        """Return how many requests the run has sent."""
        return self._store.load_cost(self._run_id).llm_calls

    def used_up(self) -> bool:
        """Whether a bound of the budget has been reached."""
        return bool(self.budget.spent(self._store.load_cost(self._run_id)))

    def answer(self, inquiry: Inquiry) -> Reply:
        """Return the answer; raises one of the leaves of LlmError."""
        (found,) = self.answers([inquiry])
        if isinstance(found, LlmError):
            raise found
        return found

    def answers(
        self, inquiries: Sequence[Inquiry], heard: Callable[[], object] = lambda: None
    ) -> list[Reply | LlmError]:
        """Return the answer to each inquiry, or why there is none (`LlmUnusable`, `LlmStopped`).

        `heard` is called whenever one more is there. Raises LlmUnavailable or LlmMisconfigured, after everything that
        was on its way has been written down, because then nothing else can be asked either.
        """
        known: dict[str, Reply | LlmError] = {}
        missing: dict[str, Inquiry] = {}
        for inquiry in inquiries:
            reply = self._remembered(inquiry)
            if reply is None:
                missing.setdefault(inquiry.request.request_id, inquiry)
            else:
                known[inquiry.request.request_id] = _said(reply)
                heard()
        self._send(missing, known, heard)
        return [known[inquiry.request.request_id] for inquiry in inquiries]

    def _remembered(self, inquiry: Inquiry) -> Reply | None:
        request_id = inquiry.request.request_id
        only_own = inquiry.purpose == PROBE or self._recording is not None
        reply = self._store.find_reply(request_id, self._run_id, only_own=only_own)
        if reply is None and self._recording is not None and request_id in self._recording.remembered:
            reply = self._recording.send(inquiry.request)
        if reply is not None:
            self._write(inquiry, reply, remembered=True)
        return reply

    def _send(
        self, missing: dict[str, Inquiry], known: dict[str, Reply | LlmError], heard: Callable[[], object]
    ) -> None:
        waiting = list(missing.items())
        fatal: BaseException | None = None
        on_their_way: dict[Future[Reply], str] = {}
        with ThreadPoolExecutor(SIDE_BY_SIDE, "llm") as pool:
            while on_their_way or (waiting and fatal is None):
                try:
                    if fatal is None:
                        self._ask(pool, waiting, known, on_their_way)
                    done = _next_done(on_their_way)
                except KeyboardInterrupt as interruption:
                    fatal, done = interruption, _all_done(on_their_way)
                for future in done:
                    request_id = on_their_way.pop(future)
                    try:
                        known[request_id] = _said(future.result())
                        self._write(missing[request_id], future.result(), remembered=False)
                        self._note(missing[request_id], known[request_id])
                    except LlmError as error:
                        self._count(error)
                        fatal = fatal or error
                    except KeyboardInterrupt as error:
                        fatal = error
                    heard()
        if fatal is not None:
            raise fatal

    def _ask(
        self,
        pool: ThreadPoolExecutor,
        waiting: list[tuple[str, Inquiry]],
        known: dict[str, Reply | LlmError],
        on_their_way: dict[Future[Reply], str],
    ) -> None:
        """Send what is `waiting`, as long as there is room and no bound is near."""
        while waiting and len(on_their_way) < SIDE_BY_SIDE:
            spent = self._spent(waiting[0][0], len(on_their_way))
            if spent is None:
                return
            request_id, inquiry = waiting.pop(0)
            if spent:
                stopped = LlmStopped(f"the run's budget of {spent} for the LLM is used up")
                known[request_id] = stopped
                self._note(inquiry, stopped)
            else:
                on_their_way[pool.submit(self._pulse.ask, inquiry.request)] = request_id

    def _spent(self, request_id: str, on_their_way: int) -> str | None:
        """Return which bound keeps a request from being sent, in words; empty: none; None: the next answer tells."""
        cost = self._store.load_cost(self._run_id)
        if self._recording is None:
            if spent := self.budget.spent(cost, on_their_way):
                return spent
            expected = self._largest_so_far().added(cost, on_their_way) if on_their_way else cost
            return None if self.budget.spent(expected) else ""
        calls = Budget(calls=self.budget.calls, tokens=None).spent(cost, on_their_way)
        if calls or self._recording.holds(request_id):
            return calls
        return None if on_their_way else self.budget.spent(cost)

    def _largest_so_far(self) -> Largest:
        """Return the most that answers of the run have cost; before the first, more than any bound."""
        if self._largest is None:
            for call in self._store.load_llm_calls(self._run_id):
                self._largest = (self._largest or Largest()).and_of(call.reply)
        return self._largest or Largest(inf, inf, inf)

    def _note(self, inquiry: Inquiry, error: Reply | LlmError) -> None:
        """Write down the first reason why a question got no answer; a probe may be refused."""
        if isinstance(error, LlmStopped) and inquiry.purpose != PROBE:
            self._store.note_llm_stopped(self._run_id, str(error))

    def _count(self, error: LlmError) -> None:
        """Count a request whose failure ends the run, with what was paid for answers that could not be used."""
        if self._recording is not None:
            return
        paid = paid_before(error)
        tokens = paid.prompt_tokens + paid.completion_tokens
        cost = Cost(seconds=0.0, tokens_encoded=0, llm_calls=1, llm_tokens=tokens, llm_usd=paid.usd or 0.0)
        self._store.spend(self._run_id, cost)

    def _write(self, inquiry: Inquiry, reply: Reply, remembered: bool) -> None:
        call = LlmCall(
            purpose=inquiry.purpose,
            prompt=inquiry.prompt,
            request=inquiry.request,
            reply=reply,
            remembered=remembered,
        )
        self._store.save_llm_call(self._run_id, call)
        if self._largest is not None:
            self._largest = self._largest.and_of(reply)


class Recorded(Record):
    """One line of a recording: which request, and what was answered; what was asked stays in the run's database."""

    request_id: str
    """See `Request.request_id`."""
    model: str
    """The model that was asked."""
    purpose: str
    """See `LlmCall.purpose`."""
    prompt: str
    """See `LlmCall.prompt`."""
    reply: Reply
    """What was answered."""
    remembered: bool = False
    """See `LlmCall.remembered`."""


class Recording:
    """Answers from a file, in place of an endpoint."""

    def __init__(self, path: Path) -> None:
        """Read the recording at `path`; raises LlmMisconfigured when it is none."""
        self.address = f"recording {path.name}"
        self.model = ""
        self.remembered: set[str] = set()
        """Requests that the recorded run had not to send."""
        self._replies: dict[str, Reply] = {}
        number = 0
        try:
            text = path.read_text(encoding="utf-8").removesuffix("\n")
            for line in text.split("\n") if text else ():  # an answer may hold other line breaks
                number += 1
                call = Recorded.model_validate_json(line)
                if call.remembered and call.request_id not in self._replies:
                    self.remembered.add(call.request_id)
                self._replies.setdefault(call.request_id, call.reply)
                self.model = call.model
        except OSError as error:
            raise LlmMisconfigured(f"recording {path}: {error.strerror or error}") from None
        except ValueError:
            raise LlmMisconfigured(f"recording {path}, line {number}: this is no recorded call") from None
        if not self._replies:
            raise LlmMisconfigured(f"recording {path} is empty; `agent recording RUN -o FILE` writes one")

    def holds(self, request_id: str) -> bool:
        """Whether the request was recorded."""
        return request_id in self._replies

    def send(self, request: Request) -> Reply:
        """Return the recorded answer; raises LlmMisconfigured for a request that was never recorded."""
        try:
            return self._replies[request.request_id]
        except KeyError:
            raise LlmMisconfigured(
                f"the {self.address} holds no answer to request {request.request_id}: data, spec, settings or prompts "
                "have changed since it was made; record it again"
            ) from None


def write_recording(path: Path, calls: Iterable[LlmCall]) -> int:
    """Write `calls` to the new file `path`, one a line, and return how many; ExportError where it exists already."""
    lines = [
        Recorded(
            request_id=call.request.request_id,
            model=call.request.model,
            purpose=call.purpose,
            prompt=call.prompt,
            reply=call.reply,
            remembered=call.remembered,
        ).model_dump_json()
        for call in calls
    ]
    with NewFile(path) as new:
        new.file.write("".join(f"{line}\n" for line in lines).encode())
        new.commit()
    return len(lines)


def _said(reply: Reply) -> Reply | LlmError:
    return _REFUSALS[reply.refused](reply.text) if reply.refused else reply


def _next_done(on_their_way: Mapping[Future[Reply], str]) -> Sequence[Future[Reply]]:
    """Wait for the next answers."""
    if not on_their_way:
        return ()
    return sorted(wait(on_their_way, return_when=FIRST_COMPLETED).done, key=on_their_way.__getitem__)


def _all_done(on_their_way: Mapping[Future[Reply], str]) -> Sequence[Future[Reply]]:
    """Wait for all answers after an interruption, because they are paid for; a second one ends the process."""
    if on_their_way:
        with mortal():
            say(f"interrupted; waiting for answers that are on their way and will be paid for: {len(on_their_way)}")
            say("a second interruption leaves without them; the same command goes on in either case", "dim")
            wait(on_their_way)
    return list(on_their_way)
