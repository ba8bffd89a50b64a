"""The tool `synthesise_pairs`: new pairs that teach what the data lacks.

An author (an LLM), where one stands behind the bench, invents prompts like the dataset's own with both responses. Where
too few of them show the concept, it is shown responses of the dataset and adds what is asked for. Then each sentence
that was given as an example goes into a response of the dataset, and at last the start model answers prompts of the
dataset with the rule as its system message. Answers in which the concept fires become chosen responses; the dataset's
own response to that prompt, in which it does not fire, becomes the rejected one. A pair near an existing row, or near
another new one, is left out. Prompts are compared by the last thing a person says in them, because an author may write
a question bare that stands in a transcript in the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field
from rapidfuzz import fuzz, process

from premortem.interp.addressed import addressed
from premortem.interp.errors import ToolError
from premortem.interp.messages import holds_turn, is_transcript, read_transcript
from premortem.interp.readout import bag_of
from premortem.interp.records import Clause, Edit, Finding, Pair, Record, content_id
from premortem.interp.rewrite import framed
from premortem.interp.sentences import put_into
from premortem.interp.verify import within
from premortem.interp.words import words
from premortem.prompts.excerpts import restored
from premortem.tools.asked_for import example_sentences
from premortem.tools.author import A_REQUEST, MOST_NEW, WHOLE, Hint, Invented, NewPairs, Task
from premortem.tools.authored import rewritten
from premortem.tools.findings import effect_and_rows, missing_still
from premortem.tools.verify_edits import implied_clause, own_objections
from premortem.tools.workbench import Workbench

TRIES = 3
"""Prompts asked per pair wanted; many answers will not show the behaviour."""
MOST_ASKED = 120
"""Prompts asked in one call, at most: a small model on two cores answers about one a second."""
MAX_NEW_TOKENS = 80
USES = 4
"""New pairs that one example may stand in."""
TIMES = 8
"""How many times as long as an example a response may be that it is put behind: both sides must differ visibly."""
SHOWN = 4
"""Prompts of the dataset that each request shows it."""
NEAR_DUPLICATE = 90.0
"""rapidfuzz ratio from which two prompts or two responses count as the same."""


class SynthesiseArgs(Record):
    """Arguments of `synthesise_pairs`."""

    finding_id: str
    """A finding of kind `missing`."""
    count: int = Field(ge=1, le=MOST_NEW)
    """Pairs of the whole set at most, those of earlier attempts included."""
    kept: tuple[str, ...] = ()
    """Edits (edit_id) of this finding that passed and stay; they are not returned."""
    refused: tuple[str, ...] = ()
    """Edits (edit_id) of this finding that a verdict refused."""
    earlier: tuple[int, ...] = ()
    """What `count` was in each call before for this finding."""
    room: int | None = Field(None, ge=0)
    """Edits to return at most; null: no bound but `count`."""
    advice: str = Field("", max_length=400)
    """A hint for whoever writes the pairs; it is data and changes no rule."""
    authored: int = Field(0, ge=0)
    """How many requests the author may be sent, at most."""


class Lacking(NamedTuple):
    """What is still wanted of the next way to draft pairs."""

    pairs: int
    """How many."""
    authored: int
    """Requests that the author may still be sent."""
    asked: Set[str] = frozenset()
    """Prompts (`Pair.prompt_key`) that new pairs have already."""

    @property
    def requests(self) -> int:
        """Requests that the author is sent for so many invented pairs."""
        return min(self.authored, ceil(self.pairs / A_REQUEST))


def synthesise_pairs(bench: Workbench, args: SynthesiseArgs) -> tuple[Edit, ...]:
    """Return pairs whose chosen response shows what the finding misses; `verify_edits` decides on them.

    Refused ones come first that are good by themselves, then new ones; none where those that are kept do. Raises
    ToolError where no new one comes about.
    """
    finding = bench.finding(args.finding_id)
    clause = bench.clause_of(finding) or implied_clause(finding)
    if args.kept and _enough(bench, finding, clause, args.kept):
        return ()
    refused = [bench.edits[edit_id] for edit_id in args.refused]
    objections = own_objections(bench, finding, refused) if refused else {}
    most = args.count - len(args.kept) if args.room is None else min(args.room, args.count - len(args.kept))
    again = [edit for edit in refused if not objections[edit.edit_id]][: max(most, 0)]
    wanted = most - len(again)
    if wanted <= 0:
        return tuple(again)
    pairs, by_author = _drafted(bench, finding, clause, args, wanted)
    if not pairs:
        raise ToolError(f"neither an author nor the start model showed '{finding.name}' when told to: {clause.text}")
    first = bench.next_row
    author = bench.author.name if bench.author is not None else ""
    new = [
        _edit(finding, pair.model_copy(update={"row": first + i}), author if i < by_author else "built-in")
        for i, pair in enumerate(pairs)
    ]
    bench.remember(new)
    return (*again, *new)


def _drafted(
    bench: Workbench, finding: Finding, clause: Clause, args: SynthesiseArgs, wanted: int
) -> tuple[list[Pair], int]:
    """Return `wanted` new pairs or fewer that show the concept, and how many of them, the first, the author wrote."""
    known = [bench.edits[edit_id] for edit_id in (*args.refused, *args.kept)]
    before = [edit.after for edit in known]
    asked = frozenset(edit.pair.prompt_key() for edit in known if edit.pair is not None)
    pairs: list[Pair] = []
    by_author, authored = 0, args.authored
    for draft in (_invented, _added, _by_example, _answered):
        if len(pairs) >= wanted:
            break
        lacking = Lacking(wanted - len(pairs), authored, asked | {pair.prompt_key() for pair in pairs})
        shown = _showing(bench, finding, draft(bench, finding, clause, args, lacking))
        pairs = _distinct(bench, [*pairs, *shown], before)[:wanted]
        if draft is _invented:
            authored -= lacking.requests
        if draft in (_invented, _added):
            by_author = len(pairs)
    return pairs, by_author


def _enough(bench: Workbench, finding: Finding, clause: Clause, kept: Sequence[str]) -> bool:
    """Whether the `kept` edits alone make the data teach what is asked for."""
    after = bench.reading_after(bench.edits_of(kept))
    effect, _ = effect_and_rows(bench.concept(finding.concept_id), after, bench.settings.forecaster)
    return within(effect.effect, clause) and missing_still(bench, after, finding) is None


def _used(args: SynthesiseArgs) -> int:
    """Return how many prompts earlier calls may have drawn."""
    return sum(min(count * TRIES, MOST_ASKED) for count in args.earlier)


def _invented(bench: Workbench, finding: Finding, clause: Clause, args: SynthesiseArgs, lacking: Lacking) -> list[Pair]:
    """Return the pairs that the author invents, in the dataset's own form."""
    if bench.author is None or not lacking.authored:
        return []
    like = [pair for pair in _sources(bench, finding, args) if not bench.addressed(pair)]
    wanted = [
        NewPairs(
            rule=clause.text,
            behaviour=clause.about or clause.behaviour,
            prompts=tuple(pair.prompt_text() for pair in like[n * SHOWN : (n + 1) * SHOWN]),
            count=min(A_REQUEST, lacking.pairs - n * A_REQUEST),
            advice=args.advice,
        )
        for n in range(lacking.requests)
    ]
    model = like[0] if like else bench.readable[0]
    shown = [text for one in wanted for text in one.prompts]
    made = (_as_shown(item, shown) for item in bench.author.invent(wanted))
    whole = (item for item in made if item is not None and item.prompt and item.chosen and item.rejected)
    harmless = (item for item in whole if not any(map(addressed, (item.prompt, item.chosen, item.rejected))))
    fitting = (item for item in harmless if not (model.conversational and _holds_turn(item)))
    return [_in_form(model, item) for item in _fresh(fitting, bench.texts.prompts)]


def _fresh(items: Iterable[Invented], prompts: Sequence[str]) -> Iterator[Invented]:
    """Yield the pairs that ask nothing near what `prompts` ask, or what a pair before them asks."""
    known = [_question(prompt) for prompt in prompts]
    for item in items:
        question = _question(item.prompt)
        if not _near(question, known):
            known.append(question)
            yield item


def _question(prompt: str) -> str:
    """Return what a prompt asks, in the form that all are compared in: of a transcript, what a person says last."""
    said = [m["content"] for m in read_transcript(prompt) if m["role"] == "user"] if is_transcript(prompt) else []
    return (said[-1] if said else prompt).strip()


def _holds_turn(item: Invented) -> bool:
    """Whether an invented text would be several messages in a dataset of transcripts."""
    return any(map(holds_turn, (item.prompt, item.chosen, item.rejected)))


def _as_shown(item: Invented, shown: Sequence[str]) -> Invented | None:
    """Return an invented pair without the marks that excerpts of `shown` bear; None where that cannot be told."""
    texts = {name: restored(text, shown) for name, text in item.model_dump().items()}
    return None if None in texts.values() else Invented.model_validate(texts)


def _near(text: str, known: Sequence[str]) -> bool:
    return process.extractOne(text, known, scorer=fuzz.ratio, score_cutoff=NEAR_DUPLICATE) is not None


def _in_form(model: Pair, item: Invented) -> Pair:
    """Return an invented pair in the form of `model`: plain text, or one turn of messages."""
    if isinstance(model.prompt, str):
        start, end = ("Human: ", "\n\nAssistant:") if model.prompt.lstrip().startswith("Human:") else ("", "")
        lead = "\n\n" if model.prompt.startswith("\n\nHuman:") else ""
        update: dict[str, Any] = {"prompt": f"{lead}{start}{item.prompt}{end}"}
        space = " " if isinstance(model.chosen, str) and model.chosen.startswith(" ") else ""
        update |= {"chosen": space + item.chosen, "rejected": space + item.rejected}
    else:
        system = [message for message in model.prompt if message.get("role") == "system"][:1]
        update = {"prompt": (*system, {"role": "user", "content": item.prompt})}
        update |= {"chosen": ({"role": "assistant", "content": item.chosen},)}
        update |= {"rejected": ({"role": "assistant", "content": item.rejected},)}
    return model.model_copy(update={**update, "extra": {}})


def _added(bench: Workbench, finding: Finding, clause: Clause, args: SynthesiseArgs, lacking: Lacking) -> list[Pair]:
    """Return responses of the dataset as the author changes them, each against itself as it was.

    The author sees what is asked for in another answer, where there are examples of it. So an author that copies
    questions and answers may still add what is wanted to one that stands there.
    """
    if bench.author is None or lacking.authored <= 0:
        return []
    sentences = example_sentences(bench, clause)
    sources = [
        pair
        for pair in _sources(bench, finding, args, lacking.asked)
        if 0 < len(pair.text("chosen").strip()) <= WHOLE and not bench.addressed(pair)
    ][: min(lacking.pairs, lacking.authored)]
    tasks = [
        Task(
            kind="add",
            rule=clause.text,
            behaviour=clause.about or clause.behaviour,
            question=source.prompt_text(),
            answer=source.text("chosen"),
            model_answer=sentences[at % len(sentences)] if sentences else "",
            hint=Hint(advice=args.advice),
        )
        for at, source in enumerate(sources)
    ]
    made = zip(sources, tasks, bench.author.write(tasks), strict=True)
    written = [(source, rewritten(source, task, text, bench.author.name)) for source, task, text in made]
    return [_against_itself(source, candidate.text) for source, candidate in written if candidate is not None]


def _against_itself(source: Pair, chosen: str) -> Pair:
    """Return a new pair that prefers `chosen` to the chosen response of `source`."""
    return source.with_text("chosen", chosen).model_copy(update={"rejected": source.chosen, "extra": {}})


def _by_example(
    bench: Workbench, finding: Finding, clause: Clause, args: SynthesiseArgs, lacking: Lacking
) -> list[Pair]:
    """Return responses of the dataset with an example of what is asked for behind them, each against itself without it.

    Every sentence is used at most USES times over all attempts, the least used first: what is learnt should be the
    behaviour, not a sentence.
    """
    before = [bench.edits[edit_id].after for edit_id in (*args.kept, *args.refused)]
    used = {one: sum(one in text for text in before) for one in example_sentences(bench, clause)}
    turns = sorted((n, at, one) for at, (one, times) in enumerate(used.items()) for n in range(times, USES))
    pool = _sources(bench, finding, args, lacking.asked) if turns else []
    made: list[Pair] = []
    for _, _, sentence in turns:
        if len(made) == lacking.pairs:
            break
        source = next((pair for pair in pool if _carries(pair, sentence) and not bench.addressed(pair)), None)
        if source is not None:
            pool.remove(source)
            own = source.text("chosen")
            made.append(_against_itself(source, framed(put_into(own, sentence, late=True), own)))
    return made


def _carries(pair: Pair, sentence: str) -> bool:
    """Whether the chosen response is long enough for `sentence` to be a part of it, and short enough to show it."""
    own = pair.text("chosen").strip()
    return len(words(sentence)) <= len(words(own)) and len(own) <= TIMES * len(sentence)


def _answered(bench: Workbench, finding: Finding, clause: Clause, args: SynthesiseArgs, lacking: Lacking) -> list[Pair]:
    """Return prompts of the dataset with the start model's answer under the rule against the dataset's own.

    Prompts that earlier attempts have drawn come last.
    """
    sources = _sources(bench, finding, args, lacking.asked)[: min(lacking.pairs * TRIES, MOST_ASKED)]
    answers = bench.start_model.sample(
        sources,
        max_new_tokens=MAX_NEW_TOKENS,
        seed=bench.settings.seed,
        system=clause.text,
        whole=True,
        progress=bench.progress,
    )
    return [
        _against_itself(source, framed(answer.strip(), source.text("chosen")))
        for source, answer in zip(sources, answers, strict=True)
        if answer.strip()
    ]


def _sources(bench: Workbench, finding: Finding, args: SynthesiseArgs, asked: Set[str] = frozenset()) -> list[Pair]:
    """Return pairs in which at least one response lacks the concept, in random order, those drawn before last.

    None whose prompt is among those `asked`, and none that carries another finding, whose behaviour would be preferred
    anew; where all pairs do, those are left in.
    """
    rng = np.random.default_rng(bench.settings.seed)
    held = set(finding.rows)
    pairs = [pair for pair in bench.readable if pair.row not in held]
    troubled = {row for one in bench.findings.values() if one.kind != "missing" for row in one.rows}
    pairs = [pair for pair in pairs if pair.row not in troubled] or pairs
    order = np.roll(rng.permutation(len(pairs)), -_used(args))
    return [pair for at in order if (pair := pairs[at]).prompt_key() not in asked]


def _showing(bench: Workbench, finding: Finding, drafts: list[Pair]) -> list[Pair]:
    """Return those drafts whose chosen response shows the concept and whose rejected one does not."""
    if not drafts:
        return []
    readout = bench.concept(finding.concept_id).readout
    numbered = [draft.model_copy(update={"row": i}) for i, draft in enumerate(drafts)]
    encoded = bench.reader.encode(numbered, bench.progress)[bench.main.lens_id]
    fires = [readout.fires(bag_of(pooled)) for pooled in (encoded.chosen, encoded.rejected)]
    good = {row for row, chosen, rejected in zip(encoded.rows, *fires, strict=True) if chosen and not rejected}
    return [draft for i, draft in enumerate(drafts) if i in good]


def _distinct(bench: Workbench, drafts: list[Pair], made: Sequence[str]) -> list[Pair]:
    """Return the drafts whose answer is near no response of the dataset, none `made` before and no draft before it.

    It may be near those to its own prompt, one of which it is preferred to: that is what tells the two apart. Of those
    with the same prompt only the first is kept.
    """
    kept: dict[str, Pair] = {}
    known = [*bench.texts.responses, *made]
    own: dict[str, set[str]] = {draft.prompt_key(): {draft.text("rejected")} for draft in drafts}
    for pair in bench.readable:
        if (texts := own.get(pair.prompt_key())) is not None:
            texts |= {pair.text("chosen"), pair.text("rejected")}
    for draft in drafts:
        key, answer = draft.prompt_key(), draft.text("chosen")
        if key not in kept and not _near(answer, [text for text in known if text not in own[key]]):
            kept[key] = draft
            known.append(answer)
    return list(kept.values())


def _edit(finding: Finding, pair: Pair, author: str) -> Edit:
    who = "the chosen answer" if author == "built-in" else f"the answer that {author} wrote"
    return Edit(
        edit_id=content_id("edit", finding.finding_id, "synthesise", pair.prompt, pair.chosen),
        finding_id=finding.finding_id,
        row=pair.row,
        kind="synthesise",
        side=None,
        before="",
        after=pair.text("chosen"),
        rationale=f"the data does not teach “{finding.name}”; {who} shows it",
        pair=pair,
        author=author,
    )
