"""The author behind the tools that asks an LLM: tasks become prompts, answers become text.

All tasks of a call go out side by side. What comes back is only looked at for its form here; whether the text does what
it is for is found out by the lens and by `verify_edits`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import Field

from premortem.agent.asking import MAX_TOKENS, MOST_TOKENS, Asker, Question
from premortem.agent.redact import REDACTED
from premortem.interp.errors import LlmError
from premortem.interp.progress import Progress
from premortem.interp.records import Record
from premortem.prompts.rendering import Rendered, load_prompt
from premortem.tools.author import A_REQUEST, Invented, NewPairs, Task, Written

LONGEST = 24_000
"""Characters of an answer whose sentences the LLM is asked to replace, at most; longer ones are left to the lens."""
GAP = "(this sentence is missing)"
"""Stands for a marked sentence that the LLM is not shown."""


class Replacement(Record):
    """One sentence in place of another."""

    sentence: int
    """Number of the sentence that goes, from 1."""
    text: str
    """What stands there instead; empty: nothing."""


class Mended(Record):
    """Answer to the prompt `rewrite`."""

    replacements: list[Replacement] = Field(min_length=1)
    """One for each marked sentence."""


class WholeText(Record):
    """Answer to the prompts `rewrite_whole` and `add_behaviour`."""

    text: str = Field(min_length=1)
    """The new answer."""


class InventedPairs(Record):
    """Answer to the prompt `synthesise`."""

    pairs: list[Invented] = Field(min_length=1, json_schema_extra={"maxItems": A_REQUEST})
    """The new pairs."""


class LlmAuthor:
    """Writes by asking an LLM."""

    def __init__(self, asker: Asker, progress: Progress) -> None:
        """Ask through `asker`; `progress` hears of every text that is there."""
        self._asker, self._progress = asker, progress

    @property
    def name(self) -> str:
        """The model's name."""
        return self._asker.model

    def write(self, tasks: Sequence[Task]) -> list[Written | None]:
        """Return what the LLM makes of each task; see `Author.write`."""
        mending = [task for task in tasks if task.kind == "mend" and len(task.answer) <= LONGEST]
        whole = [task for task in tasks if task.kind != "mend"]
        with self._progress.stage(f"{self.name} is writing", len(mending) + len(whole)) as stage:
            mended = self._mend(mending, stage.advance)
            written = self._whole(whole, stage.advance)
        found = {id(task): text for task, text in zip([*mending, *whole], [*mended, *written], strict=True)}
        return [found.get(id(task)) for task in tasks]

    def invent(self, wanted: Sequence[NewPairs]) -> list[Invented]:
        """Return the pairs that the LLM invents; see `Author.invent`."""
        prompt = load_prompt("synthesise")
        asked = [
            prompt.render(
                rule=one.rule, behaviour=one.behaviour, prompts=list(one.prompts), count=one.count, advice=one.advice
            )
            for one in wanted
        ]
        with self._progress.stage(f"{self.name} is writing", len(asked)) as stage:
            questions = [Question.of("synthesise", rendered) for rendered in asked]
            found = self._asker.ask_all(questions, InventedPairs, heard=stage.advance)
        pairs = [pair for answer in found if not isinstance(answer, LlmError) for pair in answer.pairs]
        return [pair for pair in pairs if REDACTED not in pair.model_dump_json()]

    def _mend(self, tasks: Sequence[Task], heard: Callable[[], object]) -> list[Written | None]:
        marked = [sum(len(task.sentences[i]) for i in task.marked) for task in tasks]
        questions = [
            Question.of("rewrite", _mending(task), _room(length)) for task, length in zip(tasks, marked, strict=True)
        ]
        checks = [_about_marked(task) for task in tasks]
        found = self._asker.ask_all(questions, Mended, checks, heard)
        return [
            None if isinstance(answer, LlmError) else _sentences(answer, task)
            for answer, task in zip(found, tasks, strict=True)
        ]

    def _whole(self, tasks: Sequence[Task], heard: Callable[[], object]) -> list[Written | None]:
        questions = [Question.of("rewrite", _anew(task), _room(len(task.answer))) for task in tasks]
        found = self._asker.ask_all(questions, WholeText, heard=heard)
        return [
            None if isinstance(answer, LlmError) or REDACTED in answer.text else Written(text=answer.text)
            for answer in found
        ]


def _room(length: int) -> int:
    """Return the bound on an answer that writes `length` characters anew, a token for every two of them."""
    return min(max(MAX_TOKENS, length // 2 + MAX_TOKENS // 4), MOST_TOKENS)


def _mending(task: Task) -> Rendered:
    sentences = [
        {"text": GAP if task.hidden and i in task.marked else text, "marked": i in task.marked}
        for i, text in enumerate(task.sentences)
    ]
    return load_prompt("rewrite").render(
        rule=task.rule,
        behaviour=task.behaviour,
        question=task.question,
        sentences=sentences,
        **task.hint.model_dump(),
    )


def _anew(task: Task) -> Rendered:
    answer = "" if task.hidden else task.answer
    known = {"rule": task.rule, "behaviour": task.behaviour, "question": task.question, "answer": answer}
    known |= task.hint.model_dump()
    if task.kind == "add":
        return load_prompt("add_behaviour").render(**known, model_answer=task.model_answer)
    return load_prompt("rewrite_whole").render(**known)


def _about_marked(task: Task) -> Callable[[Mended], None]:
    def check(answer: Mended) -> None:
        numbers = ", ".join(str(i + 1) for i in task.marked)
        if not {each.sentence - 1 for each in answer.replacements} & set(task.marked):
            raise ValueError(f"no replacement is for a marked sentence; marked are {numbers}")

    return check


def _sentences(answer: Mended, task: Task) -> Written:
    """Return the replacements by index; what stands for a block of lines, as code, keeps its own lines."""
    lines = {i for i, sentence in enumerate(task.sentences) if "\n" in sentence}
    kept = [(each.sentence - 1, each.text.strip()) for each in answer.replacements if REDACTED not in each.text]
    return Written(sentences={i: text if i in lines else " ".join(text.split()) for i, text in kept})
