"""Edits that an author writes: what is asked of it, and what becomes of its text.

The lens says which sentences make a concept fire, and only those are put before the author as changeable. Its
sentences are set into the response where the old ones stood, so everything else stays word for word. Where the concept
fires nearly everywhere, or the answer must show something that it lacks, the whole answer is written anew. A text in
which the concept still fires (or still does not) goes back once: a sentence is then written into a gap, and an answer
that should show something without the old one before it, since an author that repeats what it was shown goes on doing
so. A text that addresses its reader is thrown away: an author that obeyed its excerpts must not pass them on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from premortem.interp.addressed import addressed
from premortem.interp.records import Clause, Finding, Pair, Side, Span
from premortem.interp.rewrite import MOST, Candidate, firing_sentences, put_sentences
from premortem.tools.author import Author, Task, Written
from premortem.tools.tracing import finding_spans
from premortem.tools.workbench import Workbench

STILL = "it was rewritten as “{text}”, and the behaviour is still there"
SHOWN = 160
"""Characters of a refused text that its second try is shown."""


def authored(
    bench: Workbench,
    author: Author,
    finding: Finding,
    clause: Clause,
    rows: Sequence[int],
    advice: Mapping[int, str],
    again: bool = False,
) -> dict[int, Candidate]:
    """Return what the author makes of each of `rows`; rows without a usable text are left out.

    `advice`: what earlier tries have taught, by row. `again`: a sentence that was repeated is not shown. A pair that
    addresses its reader is never shown to an author.
    """
    pairs = [pair for row in rows if not bench.addressed(pair := bench.pair(row))]
    asked = [(pair, *finding_spans(bench, finding, pair)) for pair in pairs]
    tasks = [_task(finding, clause, pair, side, spans, advice.get(pair.row, "")) for pair, side, spans in asked]
    if again:
        gap = {"hidden": True, "advice": ""}
        tasks = [task if task.kind == "anew" else task.model_copy(update=gap) for task in tasks]
    made: dict[int, Candidate] = {}
    for (pair, _, _), task, written in zip(asked, tasks, author.write(tasks), strict=True):
        candidate = _candidate(pair, task, written, author.name)
        if candidate is not None:
            made[pair.row] = candidate
    return made


def advice_after(candidate: Candidate) -> str:
    """Return what a candidate that the lens refused teaches for the next try."""
    return STILL.format(text=candidate.text[:SHOWN])


def _task(finding: Finding, clause: Clause, pair: Pair, carrying: Side, spans: Sequence[Span], advice: str) -> Task:
    known = {
        "rule": clause.text or f"Answers should not change in how much they show: {finding.name}",
        "behaviour": clause.about or (clause.behaviour if clause.text else finding.name),
        "question": pair.prompt_text(),
        "advice": advice,
    }
    if carrying == "rejected":
        return Task(kind="add", answer=pair.text("chosen"), model_answer=pair.text("rejected"), **known)
    answer = pair.text("chosen")
    sentences, marked = firing_sentences(answer, spans)
    covered = sum(len(sentences[i]) for i in marked) / max(sum(map(len, sentences)), 1)
    if not marked or covered > MOST:
        return Task(kind="anew", answer=answer, **known)
    return Task(kind="mend", answer=answer, sentences=sentences, marked=marked, **known)


def whole(new: str, old: str) -> bool:
    """Whether `new` is as much of a sentence as `old`: it begins and ends like one where the old one did."""
    ends = re.search(r"[.!?:][\"'”’)*]*$", old.strip()) is None or re.search(r"[.!?:][\"'”’)*]*$", new.strip())
    return bool(ends) and not (old[:1].isupper() and new[:1].islower())


def framed(new: str, old: str) -> str:
    """Return `new` with the white space around `old`, which a template without messages may count on."""
    lead, tail = old[: len(old) - len(old.lstrip())], old[len(old.rstrip()) :]
    return f"{lead}{new}{tail}" if new and old.strip() else new


def _candidate(pair: Pair, task: Task, written: Written | None, name: str) -> Candidate | None:
    if written is None:
        return None
    text: str | None = framed(written.text.strip(), task.answer)
    how = f"answered anew by {name}"
    if task.kind == "mend":
        new = {i: written.sentences[i].strip() or None for i in task.marked if i in written.sentences}
        if any(text is not None and not whole(text, task.sentences[i]) for i, text in new.items()):
            return None
        text, how = put_sentences(task.answer, new), f"{name} wrote other sentences where it fires"
    if not text or text == task.answer or text == pair.text("rejected") or addressed(text):
        return None
    return Candidate("rewrite", "chosen", text, how)
