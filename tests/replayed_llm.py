"""An LLM endpoint that gives the answers of a recording over HTTP, each to the request that it was recorded for."""

from __future__ import annotations

import json
from pathlib import Path

from scripted_llm import Asked, Response, ScriptedLlm, completion, refused


class ReplayedLlm(ScriptedLlm):
    """The server; requests are known by their Idempotency-Key, which is their request id."""

    def __init__(self, recording: Path, *, delay: float = 0.0) -> None:
        super().__init__(delay=delay)
        calls = [json.loads(line) for line in recording.read_text("utf-8").splitlines()]
        self.model: str = calls[0]["model"]
        self._replies = {call["request_id"]: call["reply"] for call in calls}

    def reply(self, number: int, asked: Asked) -> Response:
        """Return what was recorded; refuse what never was."""
        reply = self._replies.get(asked.key)
        if reply is None:
            return refused(404, f"request {asked.key} was never recorded")
        usage = {name: reply[name] for name in ("prompt_tokens", "completion_tokens")}
        calls = [(use["name"], use["arguments"]) for use in reply["tool_uses"]]
        return completion(reply["text"], calls, finish=reply["finish"], usage=usage)
