"""Tells an endpoint that fails from one request at which it fails, so that a single text cannot end a run.

A filter that forbids one text, a body that crashes one server, a router without a route for one kind of request: all
look like an endpoint that is down or a key that is wrong. So where a request fails, the endpoint is asked something
else that is short and harmless. If it answers, the fault lies in the request: that is tried once more and then counts
as refused. If it does not, nothing else can be asked either. Such a question is part of trying, as another attempt
is: it is no call of its own, and what it cost is counted with the refusal, as is what was paid for answers that could
not be used. An error that ends a run says in its cause what was paid on the way there (`Wasted`).

What this does not know: a server so slow that only short questions are answered in time. Three requests in a row that
nothing came back for end a run, whatever else is answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from premortem.agent.chat import Carrier, ChatMessage, Reply, Request
from premortem.interp.errors import LlmError, LlmMisconfigured, LlmStopped, LlmUnavailable, LlmUnusable

SILENT_IN_A_ROW = 3
"""Requests one after the other without a sign of life that end a run."""


class Wasted(Exception):
    """The cause of an error before which answers were paid for that could not be used."""

    def __init__(self, paid: Reply) -> None:
        """Say what they cost, by a reply that says nothing else."""
        super().__init__(f"{paid.prompt_tokens + paid.completion_tokens} tokens went into answers that cannot be used")
        self.paid = paid


def with_cost(reply: Reply, more: Iterable[Reply]) -> Reply:
    """Return `reply` with what `more` cost on top; nobody knows a price where none is known of any."""
    paid = [reply, *more]
    prices = [each.usd for each in paid if each.usd is not None]
    return reply.model_copy(
        update={
            "prompt_tokens": sum(each.prompt_tokens for each in paid),
            "completion_tokens": sum(each.completion_tokens for each in paid),
            "usd": sum(prices) if prices else None,
        }
    )


def wasted(paid: Iterable[Reply]) -> Wasted | None:
    """Return what an error is raised from after answers that could not be used; None where they cost nothing."""
    whole = with_cost(Reply(text=""), paid)
    return Wasted(whole) if whole.prompt_tokens or whole.completion_tokens or whole.usd else None


def paid_before(error: LlmError) -> Reply:
    """Return what was paid before an error, as a reply that says nothing."""
    return error.__cause__.paid if isinstance(error.__cause__, Wasted) else Reply(text="")


class Pulse:
    """A carrier whose failures are told apart."""

    def __init__(self, carrier: Carrier) -> None:
        """Ask through `carrier`."""
        self._carrier = carrier
        self._silent, self._lock = 0, threading.Lock()

    def ask(self, request: Request) -> Reply:
        """Return the answer or the refusal (`Reply.refused`); raises what concerns more than this request.

        That is LlmUnavailable or LlmMisconfigured. May be called from several threads at once.
        """
        started = time.monotonic()
        try:
            reply = self._carrier.send(request)
        except (LlmUnusable, LlmStopped) as error:
            reply = _refusal(error)
        except (LlmUnavailable, LlmMisconfigured) as error:
            return self._doubt(request, error, started)
        self._heard()
        return reply

    def _doubt(self, request: Request, error: LlmError, started: float) -> Reply:
        """Return what becomes of a request that failed; raises `error` where others fail too."""
        silent = error.cause == "silence"
        if error.cause == "everywhere":
            raise error
        if silent and self._unheard() >= SILENT_IN_A_ROW:
            raise LlmUnavailable(f"{error}, for {SILENT_IN_A_ROW} requests in a row") from error.__cause__
        reply, paid = _refusal(error), [self._pulse(request, error)]
        if isinstance(error, LlmUnavailable) and not silent:
            paid.append(paid_before(error))
            try:
                reply = self._carrier.send(request)
            except LlmError as second:
                if second.cause == "everywhere":
                    raise second from wasted([*paid, paid_before(second)])
                reply = _refusal(second)
        if not silent:
            self._heard()
        return with_cost(reply, paid).model_copy(update={"seconds": time.monotonic() - started})

    def _pulse(self, request: Request, error: LlmError) -> Reply:
        """Return what a harmless question is answered; raises `error` where it is not.

        It keeps the bound on the answer, so that an account too empty for the one is too empty for the other.
        """
        question = f"Say that you are ready. (Check {request.request_id})"
        other = Request(
            model=request.model,
            messages=(ChatMessage(role="user", content=question),),
            max_tokens=request.max_tokens,
            dialect=request.dialect,
        )
        try:
            return self._carrier.send(other)
        except (LlmUnusable, LlmStopped) as refused:
            return _refusal(refused)
        except LlmError as other_error:
            raise error from wasted([paid_before(error), paid_before(other_error)])

    def _heard(self) -> None:
        with self._lock:
            self._silent = 0

    def _unheard(self) -> int:
        with self._lock:
            self._silent += 1
            return self._silent


def _refusal(error: LlmError) -> Reply:
    paid = paid_before(error)
    if isinstance(error, LlmUnusable):
        return paid.model_copy(update={"text": str(error), "refused": "declined"})
    if isinstance(error, LlmStopped):
        return paid.model_copy(update={"text": str(error), "refused": "stopped"})
    return paid.model_copy(update={"text": f"{error}; it answers other requests", "refused": "unavailable"})
