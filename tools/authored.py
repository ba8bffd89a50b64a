"""Edits that an author writes: what is asked of it, and what becomes of its text.

The lens says which sentences make a concept fire, and only those are put before the author as changeable. Its
sentences are set into the response where the old ones stood, so everything else stays word for word. Where the concept
fires nearly everywhere in a short answer, or the answer must show something that it lacks, the whole answer is written
anew. Nothing that the author was not shown is replaced: a long answer is mended sentence by sentence, or left to the
built-in rewriter. A text in which the concept still fires (or still does not) goes back once: a sentence is then
written into a gap, and a short answer that should show something without the old one before it, since an author that
repeats what it was shown goes on doing so. A text that addresses its reader is thrown away: an author that obeyed its
excerpts must not pass them on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

from premortem.interp.addressed import addressed
from premortem.interp.records import Clause, Finding, Pair, Side, Span
from premortem.interp.rewrite import MOST, Candidate, firing_sentences, framed, put_sentences
from premortem.prompts.excerpts import joined, restored, set_out
from premortem.tools.author import LONGEST_ADDED, LONGEST_MARKED, SHOWN, WHOLE, Author, Hint, Task, Written
from premortem.tools.tracing import finding_spans
from premortem.tools.workbench import Workbench

STILL = "the behaviour is still there"
LACKING = "the behaviour is still missing"
LEAD = 240
"""Characters before a passage that stay with it."""


def authored(
    bench: Workbench,
    author: Author,
    finding: Finding,
    clause: Clause,
    rows: Sequence[int],
    hints: Mapping[int, Hint],
    again: bool = False,
) -> dict[int, Candidate]:
    """Return what the author makes of each of `rows`; rows without a usable text are left out.

    `hints`: what earlier tries have taught, by row. `again`: a sentence that was repeated is not shown. A pair that
    addresses its reader is never shown to an author, nor is one too long to be shown whole.
    """
    pairs = [pair for row in rows if not bench.addressed(pair := bench.pair(row))]
    known = [(pair, _task(finding, clause, pair, *finding_spans(bench, finding, pair))) for pair in pairs]
    asked = [(pair, _told(task, hints.get(pair.row, Hint()), again)) for pair, task in known if task is not None]
    made: dict[int, Candidate] = {}
    for (pair, task), written in zip(asked, author.write([task for _, task in asked]), strict=True):
        candidate = rewritten(pair, task, written, author.name)
        if candidate is not None:
            made[pair.row] = candidate
    return made


def hint_after(hint: Hint, finding: Finding, old: str, new: str) -> Hint:
    """Return what to tell after the lens has refused `new` in place of `old`; the advice stays."""
    why = STILL if finding.effect >= 0 else LACKING
    return Hint(advice=hint.advice, tried=changed_part(old, new)[:SHOWN], why=why)


def changed_part(old: str, new: str) -> str:
    """Return `new` without what it shares with the beginning and the end of `old`, in whole words."""
    before, after = re.findall(r"\s*\S+", old), re.findall(r"\s*\S+", new)
    same = _shared(before, after)
    before, after = before[same:], after[same:]
    return "".join(after[: len(after) - _shared(before[::-1], after[::-1])]).strip()


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many items the two begin with alike."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))


def _told(task: Task, hint: Hint, again: bool) -> Task:
    """Return the task with the hint; a second try that hides what was there is not told what came of the first."""
    if again and (task.kind == "mend" or (task.kind == "add" and len(task.answer) <= WHOLE)):
        return task.model_copy(update={"hidden": True, "hint": Hint(advice=hint.advice)})
    return task.model_copy(update={"hint": hint})


def _task(finding: Finding, clause: Clause, pair: Pair, carrying: Side, spans: Sequence[Span]) -> Task | None:
    """Return what to ask for; None where the author could not be shown all that it would replace."""
    known = {
        "rule": clause.text or f"Answers should not change in how much they show: {finding.name}",
        "behaviour": clause.about or (clause.behaviour if clause.text else finding.name),
        "question": pair.prompt_text(),
    }
    answer = pair.text("chosen")
    if carrying == "rejected":
        if len(answer) > LONGEST_ADDED:
            return None
        return Task(kind="add", answer=answer, model_answer=_from_first(pair.text("rejected"), spans), **known)
    sentences, marked = firing_sentences(answer, spans)
    covered = sum(len(sentences[i]) for i in marked) / max(sum(map(len, sentences)), 1)
    if not marked or (covered > MOST and len(answer) <= WHOLE):
        return Task(kind="anew", answer=answer, **known) if len(answer) <= LONGEST_ADDED else None
    if max(len(sentences[i]) for i in marked) > LONGEST_MARKED:
        return None
    return Task(kind="mend", answer=answer, sentences=sentences, marked=marked, **known)


def _from_first(text: str, spans: Sequence[Span]) -> str:
    """Return `text` from a little before the first of `spans`, so that what is cut off behind does not hold it."""
    first = max(0, min((span.start for span in spans), default=0) - LEAD)
    return f"[…] {text[first:].lstrip()}" if first else text


_ENDED = re.compile(r"[.!?:。！？：…][\"'”’)*」』）]*$")
"""How a whole sentence ends."""


def whole(new: str, old: str) -> bool:
    """Whether `new` is as much of a sentence as `old`: it begins and ends like one where the old one did."""
    ends = _ENDED.search(old.strip()) is None or _ENDED.search(new.strip())
    return bool(ends) and not (old[:1].isupper() and new[:1].islower())


def rewritten(pair: Pair, task: Task, written: Written | None, name: str) -> Candidate | None:
    """Return the chosen response of `pair` as the author of that `name` has written it; None: it cannot be used."""
    written = None if written is None else _as_shown(task, written)
    if written is None:
        return None
    text: str | None = framed(written.text.strip(), task.answer)
    how = f"answered anew by {name}"
    if task.kind == "mend":
        known = {i: written.sentences[i].strip() for i in task.marked if i in written.sentences}
        new = {i: set_out(text, task.sentences[i].strip()) or None for i, text in known.items()}
        if any(text is not None and not whole(text, task.sentences[i]) for i, text in new.items()):
            return None
        text, how = put_sentences(task.answer, new), f"{name} wrote other sentences where it fires"
    if not text or text == task.answer or text == pair.text("rejected") or addressed(text):
        return None
    return Candidate("rewrite", "chosen", text, how)


def _as_shown(task: Task, written: Written) -> Written | None:
    """Return what was written without the marks that excerpts bear (see `restored`); None where that cannot be told.

    None too where a whole answer has lost the joiners that its script lives by.
    """
    shown = (task.answer, task.question, task.model_answer)
    text = restored(written.text, shown)
    sentences = {i: restored(one, shown) for i, one in written.sentences.items()}
    known = {i: one for i, one in sentences.items() if one is not None}
    lost = task.kind != "mend" and joined(task.answer) and not joined(text or "")
    if text is None or lost or not known.keys() >= sentences.keys() & set(task.marked):
        return None
    return Written(text=text, sentences=known)
