"""The prompts: Markdown files beside this one, rendered with checked inputs and known by their hash.

A file has a front matter that names its `inputs` and holds `examples` (inputs and the answer one hopes for), then a
heading `# System` and a heading `# User`. The examples are shown to the LLM as turns of the conversation before the
real question: a small model follows them better than any instruction, and because they stand before everything that
changes, an endpoint that remembers prefixes reads them once. Text of the dataset goes in through the filters
`excerpt`, `numbered` and `inline` alone (see `excerpts`); a test looks for inputs that slip past them. Rendering with
an input too few or too many is an error.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from premortem.prompts.excerpts import excerpt, inline, numbered

PROMPT_NAMES = (
    "read_rule",
    "check_direction",
    "find_problems",
    "check_problem",
    "contrast",
    "name_concept",
    "test_name",
    "link_rule",
    "describe_clusters",
    "plan",
    "rewrite",
    "rewrite_whole",
    "add_behaviour",
    "synthesise",
)


@dataclass(frozen=True)
class Rendered:
    """A prompt ready to be sent."""

    source: str
    """Name and hash of its file, as `rewrite@3f2a9c01`."""
    system: str
    """The system message."""
    turns: tuple[tuple[str, str], ...]
    """Examples: what is asked, and the answer as JSON."""
    user: str
    """The user message."""


@dataclass(frozen=True)
class Prompt:
    """One prompt file."""

    name: str
    """The file's name without its ending."""
    digest: str
    """Hash of the file."""
    inputs: dict[str, str]
    """What each input is, by name."""
    examples: list[dict[str, Any]] = field(hash=False)
    """Each with `inputs` to render it with and the `answer` one hopes for."""
    system: str
    """The system message."""
    user: str
    """Template of the user message."""

    def render(self, **inputs: Any) -> Rendered:
        """Return the prompt with `inputs`; raises ValueError when they are not those that the file names."""
        if set(inputs) != set(self.inputs):
            raise ValueError(f"prompt {self.name} takes {sorted(self.inputs)}, not {sorted(inputs)}")
        return Rendered(f"{self.name}@{self.digest}", self.system.strip(), self.turns, self._said(inputs))

    @cached_property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """The examples as turns of a conversation: what is asked, and the answer as JSON."""
        return tuple(
            (self._said(example["inputs"]), json.dumps(example["answer"], ensure_ascii=False))
            for example in self.examples
        )

    @cached_property
    def _template(self) -> Template:
        return _environment().from_string(self.user)

    def _said(self, inputs: dict[str, Any]) -> str:
        return self._template.render(inputs).strip()


@cache
def load_prompt(name: str) -> Prompt:
    """Return the prompt of that name; raises FileNotFoundError when there is none."""
    text = files("premortem.prompts").joinpath(f"{name}.md").read_text(encoding="utf-8")
    found = re.fullmatch(r"---\n(.*?)\n---\n\s*# System\n(.*?)\n# User\n(.*)", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{name}.md: a front matter, then `# System`, then `# User` is what a prompt is made of")
    front = yaml.safe_load(found[1])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Prompt(name, digest, front["inputs"], front["examples"], found[2], found[3])


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"excerpt": excerpt, "inline": inline, "numbered": numbered}
    return environment
