"""Who writes text for the tools: the seam behind which an LLM stands.

A tool describes what it needs as plain records, and an `Author` returns text or nothing. The author sees a rule, a
question and an answer; it gets no tools, no ids and no numbers, and nothing it writes counts before the lens has read
it and `verify_edits` has passed it. Without an author the built-in rewriter does the work alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import Field

from premortem.interp.records import Record

A_REQUEST = 4
"""New pairs that an author is asked for at a time."""
MOST_NEW = 2000
"""New pairs that may be asked for at a time."""
WHOLE = 1600
"""Characters of an answer that may be written anew as one; of a longer one, marked sentences are mended, even
where the concept fires nearly everywhere in it."""
LONGEST_ADDED = 6000
"""Characters of an answer that an author is shown whole where there is nothing to mark in it; longer ones it is not
asked about."""
LONGEST_MARKED = 1600
"""Characters of a marked sentence (it may be a block of code) that an author is shown; an answer with a longer one it
is not asked about."""
SHOWN = 160
"""Characters of a refused text that the next try is shown."""


class Hint(Record):
    """What whoever writes a text is told beforehand."""

    advice: str = ""
    """In the planner's words; empty: nothing."""
    tried: str = ""
    """What an earlier try put there, at most `SHOWN` characters; empty: there was none. It may quote the dataset."""
    why: str = ""
    """Why that was refused. It may quote the dataset."""


class Task(Record):
    """One answer that is to be changed."""

    kind: Literal["mend", "anew", "add"]
    """`mend`: other sentences in place of the marked ones; `anew`: another answer without the behaviour; `add`: the
    answer corrected so that it shows the behaviour."""
    rule: str
    """The clause in the user's words, or the behaviour where no clause mentions it."""
    behaviour: str
    """What the concept is called."""
    question: str
    """What the answer replies to."""
    answer: str
    """The answer as it is."""
    sentences: tuple[str, ...] = ()
    """The answer's sentences, for `mend`."""
    marked: tuple[int, ...] = ()
    """Indices of those in which the concept fires."""
    hidden: bool = False
    """Whether the author is not shown the marked sentences (`mend`) or the answer (`add`): one that keeps repeating
    what it is shown writes into the gap."""
    model_answer: str = ""
    """The other side's answer, for `add`."""
    hint: Hint = Hint()
    """What the planner advises and earlier tries have taught."""


class Written(Record):
    """What an author made of a task."""

    text: str = ""
    """The whole new answer, for `anew` and `add`."""
    sentences: dict[int, str] = Field(default_factory=dict)
    """New sentences by index, for `mend`; an empty one means that the sentence goes."""


class NewPairs(Record):
    """Pairs that are to be invented."""

    rule: str
    """The clause in the user's words."""
    behaviour: str
    """What the chosen response should show and the rejected one should not."""
    prompts: tuple[str, ...]
    """Prompts of the dataset, for their style."""
    count: int
    """How many pairs."""
    advice: str = ""
    """In the planner's words; empty: nothing."""


class Invented(Record):
    """One invented pair."""

    prompt: str
    """A question."""
    chosen: str
    """The answer that shows the behaviour."""
    rejected: str
    """The answer that does not."""


class Author(Protocol):
    """Writes what a tool asks for."""

    @property
    def name(self) -> str:
        """What an edit's `author` says, as the LLM's model name."""
        ...

    def write(self, tasks: Sequence[Task]) -> list[Written | None]:
        """Return what was made of each task; None where nothing usable came back or the budget is used up."""
        ...

    def invent(self, wanted: Sequence[NewPairs]) -> list[Invented]:
        """Return invented pairs, perhaps fewer than were wanted."""
        ...
