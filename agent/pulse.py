"""Tells an endpoint that fails from one request at which it fails, so that a single text cannot end a run.

A filter that forbids one text, a body that crashes one server, a router without a route for one kind of request: all
look like an endpoint that is down or a key that is wrong. So where a request fails, the endpoint is asked something
else that is short and harmless. If it answers, the fault lies in the request: that is tried once more and then counts
as refused. If it does not, nothing else can be asked either. Such a question is part of trying, as another attempt
is: it is no call of its own, and what it cost is counted with the refusal.

What this does not know: a server so slow that only short questions are answered in time. Three requests in a row that
nothing came back for end a run, whatever else is answered.
"""

from __future__ import annotations

import threading
import time

from premortem.agent.chat import Carrier, ChatMessage, Reply, Request
from premortem.interp.errors import LlmError, LlmMisconfigured, LlmStopped, LlmUnavailable, LlmUnusable

SILENT_IN_A_ROW = 3
"""Requests one after the other without a sign of life that end a run."""


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
            raise LlmUnavailable(f"{error}, for {SILENT_IN_A_ROW} requests in a row") from None
        pulse = self._pulse(request, error)
        reply = _refusal(error)
        if isinstance(error, LlmUnavailable) and not silent:
            try:
                reply = self._carrier.send(request)
            except LlmError as second:
                if second.cause == "everywhere":
                    raise
                reply = _refusal(second)
        if not silent:
            self._heard()
        return reply.model_copy(
            update={
                "prompt_tokens": reply.prompt_tokens + pulse.prompt_tokens,
                "completion_tokens": reply.completion_tokens + pulse.completion_tokens,
                "seconds": time.monotonic() - started,
                "usd": None if reply.usd is pulse.usd is None else (reply.usd or 0.0) + (pulse.usd or 0.0),
            }
        )

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
        except LlmError:
            raise error from None

    def _heard(self) -> None:
        with self._lock:
            self._silent = 0

    def _unheard(self) -> int:
        with self._lock:
            self._silent += 1
            return self._silent


def _refusal(error: LlmError) -> Reply:
    if isinstance(error, LlmUnusable):
        return Reply(text=str(error), refused="declined")
    if isinstance(error, LlmStopped):
        return Reply(text=str(error), refused="stopped")
    return Reply(text=f"{error}; it answers other requests", refused="unavailable")
