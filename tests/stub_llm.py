"""An LLM without HTTP: answers by prompt, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from premortem.agent.asking import Asker
from premortem.agent.chat import Reply, Request
from premortem.agent.ledger import Budget, Ledger
from premortem.agent.store import Store
from premortem.prompts.rendering import PROMPT_NAMES, load_prompt

Answer = Callable[[str], Any]
"""From the last user message to the answer, which is sent as JSON."""


def prompt_of(request: Request) -> str:
    """Return the name of the prompt that a request was rendered from; empty for a probe."""
    said = request.messages[0].content
    return next((name for name in PROMPT_NAMES if said.startswith(load_prompt(name).system.strip())), "")


class StubLlm:
    """A carrier that asks a function per prompt."""

    address = "a stub"

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers, self.asked = answers, list[Request]()

    def send(self, request: Request) -> Reply:
        self.asked.append(request)
        name = prompt_of(request)
        answer = self.answers[name](request.messages[-1].content) if name else {"word": "ready"}
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return Reply(text=text, prompt_tokens=100, completion_tokens=10)

    def asked_for(self, name: str) -> list[str]:
        """Return the last user message of every request for a prompt."""
        return [request.messages[-1].content for request in self.asked if prompt_of(request) == name]


def make_asker(folder: Path, stub: StubLlm, budget: Budget | None = None) -> Asker:
    """Return an asker whose ledger lies in `folder`."""
    store = Store(folder / "premortem.db")
    store.begin_run("r", spec="", settings={}, forecaster="excess")
    return Asker(Ledger(store, "r", stub, budget), "stub")
