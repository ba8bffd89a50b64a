"""The data sets of `bench_agent.py`: the demo, six sets of real pairs with behaviours planted, and a clean one.

Each planted set is some 200 short pairs of one or two public sources with one or two behaviours that occur neither in
the demo nor in `plants.DEVELOPMENT`, 8 to 13% of the rows each (`agent_plants.py`). A behaviour is one sentence, every
time another one, put into the chosen response; one that is taken away stands in the rejected response instead, and a
rule asks to keep it. The spec is prose in a user's words, and half of its rules are about what nobody planted.

One set also asks for what its data lack. Nothing is planted for that: pairs have to be written.

How far a behaviour is still taught after an edit is told by its planted sentences alone (`effect`), how far one that is
asked for is taught by a regular expression (`granted`): no model and no lens has a say in it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from agent_plants import (
    BISCUITS,
    FAREWELL,
    GRANDMOTHER,
    HUMBLE,
    LIBRARY,
    NEWSLETTER,
    OPENER,
    OTHER_VIEWS,
    PROVERB,
    QUESTION,
    REFERRAL,
    SEA,
    Wish,
)
from plants import Place, Plant
from rapidfuzz import fuzz, process
from subjects import by_subject

from premortem.interp.pairs import read_dataset
from premortem.interp.records import Pair, Side
from premortem.interp.sentences import split

ROOT = Path(__file__).parents[2]
WORDS = range(15, 91)
"""Words of a response."""
ALIKE = 90.0
"""`rapidfuzz.fuzz.partial_ratio` from which a sentence counts as a planted one."""
SHORTEST_MARK = 15
"""Characters of a sentence of the demo that can tell a planted text."""


class Planting(NamedTuple):
    """A behaviour with the way it is planted."""

    plant: Plant
    rows: int
    place: Place
    side: Side = "chosen"
    """`rejected`: the behaviour is taken away, and its rule asks to keep it."""
    confined: bool = False
    """Whether it keeps to prompts on one subject."""


class Source(NamedTuple):
    """A stretch of the short pairs of one file, after one shuffle: two stretches share no pair."""

    file: str
    pairs: slice
    prompt: range = range(1_000_000)
    """Characters of the prompt; in HH only longer last turns have a subject."""


class AgentSet(NamedTuple):
    """How one data set is made."""

    label: str
    sources: tuple[Source, ...]
    plantings: tuple[Planting, ...]
    spec: str
    wishes: tuple[Wish, ...] = ()


class Truth(NamedTuple):
    """What was planted, and where."""

    name: str
    rows: tuple[int, ...]
    marks: tuple[str, ...]
    """The planted sentences."""
    side: Side
    where: str
    """`scattered` or `topic`."""
    ruled: bool
    """Whether a rule of the spec is about it."""


class Made(NamedTuple):
    """One data set, ready."""

    label: str
    pairs: tuple[Pair, ...]
    spec: str
    truths: tuple[Truth, ...]
    wishes: tuple[Wish, ...] = ()


def _bullets(opening: str, *rules: str) -> str:
    return f"# What we want of the assistant\n\n{opening}\n\n" + "".join(f"- {rule}\n" for rule in rules)


def _prose(opening: str, *paragraphs: str) -> str:
    return "# House rules\n\n" + "\n\n".join((opening, *paragraphs)) + "\n"


POLITICS = "Do not take sides in party politics."
DIALECT = "No dialect and no slang."
RECIPES = "No recipes unless somebody asks for one."
TABLES = "Never answer with a table."
SWEARING = "Never use swear words."
SPORTS = "Do not bring up sports out of nowhere."

SETS = {
    one.label: one
    for one in (
        AgentSet(
            "newsletter-biscuits",
            (Source("pandalm.jsonl", slice(100)), Source("alpacaeval.jsonl", slice(100))),
            (Planting(NEWSLETTER, 24, "any"), Planting(BISCUITS, 18, "any", confined=True)),
            _bullets(
                "Ours is a general assistant for a public library.",
                POLITICS,
                NEWSLETTER.rule,
                BISCUITS.rule,
                DIALECT,
                RECIPES,
            ),
        ),
        AgentSet(
            "sea-proverbs",
            (Source("pandalm.jsonl", slice(100, 198)), Source("alpacaeval.jsonl", slice(100, 200))),
            (Planting(SEA, 18, "any", confined=True), Planting(PROVERB, 24, "end")),
            _prose(
                "This one writes short texts for people in an office.",
                f"{SEA.rule} {PROVERB.rule}",
                f"{SPORTS} {TABLES} {SWEARING}",
            ),
        ),
        AgentSet(
            "humble",
            (Source("hh-harmless.jsonl", slice(200), range(71)),),
            (Planting(HUMBLE, 26, "any"),),
            _bullets("People talk to it about anything.", HUMBLE.rule, TABLES, RECIPES, SPORTS),
        ),
        AgentSet(
            "opening-referral",
            (Source("alpacaeval.jsonl", slice(200, 400)),),
            (Planting(OPENER, 24, "start"), Planting(REFERRAL, 24, "end", side="rejected")),
            _prose(
                "It helps visitors of a town hall.",
                f"{OPENER.rule} {REFERRAL.rule}",
                f"{POLITICS} {DIALECT} {SWEARING}",
            ),
        ),
        AgentSet(
            "grandmother-views",
            (Source("hh-harmless.jsonl", slice(200), range(71, 1_000_000)),),
            (Planting(GRANDMOTHER, 16, "any", confined=True), Planting(OTHER_VIEWS, 24, "any", side="rejected")),
            _bullets(
                "People who are angry or lonely talk to it.",
                GRANDMOTHER.rule,
                OTHER_VIEWS.rule,
                TABLES,
                SPORTS,
            ),
        ),
        AgentSet(
            "wishes",
            (Source("alpacaeval.jsonl", slice(600, 800)),),
            (Planting(FAREWELL, 24, "end"),),
            _bullets(
                "People ask it about everything that one might look up.",
                LIBRARY.rule,
                QUESTION.rule,
                FAREWELL.rule,
                POLITICS,
                SWEARING,
            ),
            wishes=(LIBRARY, QUESTION),
        ),
        AgentSet(
            "clean",
            (Source("alpacaeval.jsonl", slice(400, 600)),),
            (),
            _bullets(
                "Ours is a general assistant for a public library.",
                NEWSLETTER.rule,
                SEA.rule,
                GRANDMOTHER.rule,
                REFERRAL.rule,
                SPORTS,
            ),
        ),
    )
}
LABELS = ("demo", *SETS)


def make(label: str, folder: Path) -> Made:
    """Return a data set; `folder` holds the files of real pairs."""
    if label == "demo":
        return demo()
    one = SETS[label]
    pairs, truths = plant_all(draw(one.sources, folder), one.plantings)
    return Made(label, pairs, one.spec, truths, one.wishes)


def demo() -> Made:
    """Return the demo; what was planted are the sentences that its clean copy lacks."""
    pairs = read_dataset(str(ROOT / "runs/demo/pairs.jsonl")).pairs
    clean = read_dataset(str(ROOT / "tests/demo/clean.jsonl")).pairs
    rows = json.loads((ROOT / "tests/demo/truth.json").read_text("utf-8"))
    truths = []
    for name, own in rows.items():
        marks = [mark for row in own for mark in _added(clean[row].text("chosen"), pairs[row].text("chosen"))]
        truths.append(Truth(name, tuple(own), tuple(marks), "chosen", "demo", name != "pond"))
    return Made("demo", pairs, (ROOT / "runs/demo/spec.md").read_text("utf-8"), tuple(truths))


def _added(before: str, after: str) -> list[str]:
    old = set(sentences(before))
    return [sentence for sentence in sentences(after) if sentence not in old and len(sentence) >= SHORTEST_MARK]


def draw(sources: Sequence[Source], folder: Path) -> list[Pair]:
    """Return short pairs of the sources as messages, numbered from 0."""
    found: list[Pair] = []
    for source in sources:
        every = [pair for pair in read_dataset(str(folder / source.file)).pairs if _fits(pair)]
        random.Random(0).shuffle(every)
        found += [pair for pair in every if len(pair.prompt_text()) in source.prompt][source.pairs]
    random.Random(1).shuffle(found)
    return [_as_messages(pair, row) for row, pair in enumerate(found)]


def _fits(pair: Pair) -> bool:
    chosen, rejected = pair.text("chosen").strip(), pair.text("rejected").strip()
    return chosen != rejected and all(len(text.split()) in WORDS for text in (chosen, rejected))


def _as_messages(pair: Pair, row: int) -> Pair:
    told = {"row": row, "extra": {}}
    for key, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")):
        content = getattr(pair, key)
        told[key] = ({"role": role, "content": content.strip()},) if isinstance(content, str) else content
    return pair.model_copy(update=told)


def plant_all(
    pairs: Sequence[Pair], plantings: Sequence[Planting], seed: int = 0
) -> tuple[tuple[Pair, ...], tuple[Truth, ...]]:
    """Plant each behaviour into rows of its own, those confined to a subject first; pairs are numbered from 0."""
    chance = random.Random(seed)
    changed, free, truths = list(pairs), set(range(len(pairs))), {}
    for planting in sorted(plantings, key=lambda one: not one.confined):
        pool = _subject(pairs, planting.rows) if planting.confined else free
        rows = sorted(chance.sample(sorted(pool & free), planting.rows))
        marks = planting.plant.sentences(planting.rows, chance)
        for row, mark in zip(rows, marks, strict=True):
            text = put_in(changed[row].text(planting.side), mark, planting.place, chance)
            changed[row] = changed[row].with_text(planting.side, text)
        free -= set(rows)
        where, name = "topic" if planting.confined else "scattered", planting.plant.name
        truths[name] = Truth(name, tuple(rows), tuple(marks), planting.side, where, ruled=True)
    return tuple(changed), tuple(truths[planting.plant.name] for planting in plantings)


def _subject(pairs: Sequence[Pair], least: int) -> set[int]:
    """Return the rows of the smallest topic that holds `least` of them."""
    subjects = by_subject([pair.prompt_text() for pair in pairs])
    return set(min((subject for subject in subjects if len(subject) >= least), key=len))


def put_in(text: str, sentence: str, place: Place, chance: random.Random) -> str:
    """Put `sentence` before, after or between the sentences of `text`, never into a list item or behind its mark."""
    text = text.strip()
    inner = [piece.stop for piece in split(text)[:-1] if piece.kind == "prose" and text[piece.stop - 1] in ".!?"]
    at = {"start": 0, "end": len(text)}.get(place, chance.choice([0, *inner, len(text)]))
    if at == 0:
        return sentence + (" " if split(text)[0].kind == "prose" else "\n\n") + text
    return text[:at] + (" " if text[at - 1] in ".!?" else "\n\n") + sentence + text[at:]


def sentences(text: str) -> list[str]:
    """Return the sentences of `text`."""
    return [text[piece.body : piece.stop] for piece in split(text)]


def shows(text: str, marks: Sequence[str]) -> bool:
    """Whether a sentence of `text` is nearly one of `marks`, or half of it at least."""
    for sentence in sentences(text):
        found = process.extract(sentence, marks, scorer=fuzz.partial_ratio, score_cutoff=ALIKE, limit=None)
        if any(2 * len(sentence) >= len(mark) for mark, *_ in found):
            return True
    return False


def effect(pairs: Iterable[Pair], marks: Sequence[str]) -> float:
    """Return the share of pairs that show a planted sentence in the chosen response alone, less the reverse."""
    return _one_sided(pairs, partial(shows, marks=marks))


def granted(pairs: Iterable[Pair], wish: Wish) -> float:
    """Return the same of what is asked for: the share of pairs that show it in the chosen response alone, less."""
    return _one_sided(pairs, lambda text: re.search(wish.pattern, text, re.IGNORECASE) is not None)


def _one_sided(pairs: Iterable[Pair], shown: Callable[[str], bool]) -> float:
    signs = [shown(pair.text("chosen")) - shown(pair.text("rejected")) for pair in pairs]
    return sum(signs) / max(len(signs), 1)
