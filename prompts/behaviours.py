"""The everyday behaviours that people write rules about, each shown by contrastive pairs.

The problem: a spec says "never flatter" or "no links", and a lens knows nothing of such words; it knows features that
fire on text. The mechanism: `behaviours.yaml` answers the same prompts with a behaviour and without it, nothing else
changed, so whatever differs between the two through any lens is the behaviour. Synonyms lead from the words of a spec
to the behaviour, and where a regular expression recognises it in any text, that is there as well.

Nothing here knows about models, lenses or specs: it reads a file and matches words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class _Entry(BaseModel):
    """Base of what the file holds: frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Contrast(_Entry):
    """One prompt answered twice; the two answers differ in the behaviour alone."""

    prompt: str = Field(min_length=1)
    """What both answers reply to."""
    shown: str = Field(min_length=1, alias="with")
    """The answer with the behaviour; `with` in the file."""
    absent: str = Field(min_length=1, alias="without")
    """The answer without it; `without` in the file."""

    @model_validator(mode="after")
    def _differ(self) -> Contrast:
        if self.shown == self.absent:
            raise ValueError(f"both answers to {self.prompt!r} are the same")
        return self


class Behaviour(_Entry):
    """Something an assistant may do in any answer, whatever the question."""

    id: str = Field(pattern=r"^[a-z_]+$")
    """Its name in code."""
    description: str
    """One sentence that says what an answer with the behaviour does."""
    synonyms: tuple[str, ...] = Field(min_length=1)
    """Words and phrases by which a spec names it, in lower case, never empty."""
    pattern: str | None = None
    """A regular expression that finds it in any text, or None where words alone cannot tell."""
    pairs: tuple[Contrast, ...]
    """The contrastive pairs, at least 24 in the file of this package."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        re.compile(pattern or "")
        return pattern

    def mentions(self, text: str) -> tuple[str, ...]:
        """Return the synonyms that stand in `text` as whole words, longest first; case does not matter."""
        found = (word for word in self.synonyms if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))
        return tuple(sorted(found, key=lambda word: (-len(word), word)))

    def seen_in(self, text: str) -> bool | None:
        """Say whether the pattern finds the behaviour in `text`; None if there is no pattern."""
        return None if self.pattern is None else re.search(self.pattern, text) is not None


@lru_cache(maxsize=1)
def load_behaviours() -> tuple[Behaviour, ...]:
    """Return all behaviours in the file's order.

    Raises pydantic's ValidationError if the file breaks its own rules, which a test of this package would have seen.
    """
    text = files("premortem.prompts").joinpath("behaviours.yaml").read_text(encoding="utf-8")
    return tuple(Behaviour.model_validate(entry) for entry in yaml.load(text, Loader=_LOADER))


def behaviour(name: str) -> Behaviour:
    """Return the behaviour whose id is `name`; KeyError names those that exist."""
    known = {entry.id: entry for entry in load_behaviours()}
    if name not in known:
        raise KeyError(f"no behaviour {name!r}; there are {', '.join(known)}")
    return known[name]


def named_in(text: str, among: Sequence[Behaviour] | None = None) -> tuple[Behaviour, ...]:
    """Return the behaviours that `text` names by a synonym, those with the most words of it first.

    The count is of characters covered, so that "bullet points" outweighs "list"; equal ones keep the file's order.
    """
    scored = [(sum(map(len, entry.mentions(text))), entry) for entry in among or load_behaviours()]
    return tuple(entry for score, entry in sorted(scored, key=lambda item: -item[0]) if score)


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's safe loader where PyYAML has it; it reads the file in a tenth of the time."""
