"""The data sets of `bench_skill.py`: short real pairs, and some with behaviours planted that the start model knows.

Most are there twice: small, and with up to two and a half times the pairs, each of them then trained on once. The two
"polite" ones and `one-source`, with other behaviours, were made when everything had been settled on the others; in
`one-source` the behaviour stands in the pairs of one source, among as many of another. The last three are pairs that
none of the others of their file's large sets hold, and two of them have behaviours of their own.

Short, because a DPO run on two cores has to end: pairs whose prompt and longer response stay within a number of
characters, or, for XSTest, whose responses all are long, the first sentences of each response. A behaviour is planted
in the chosen response of a share of the pairs; DPO moves a behaviour that the start model shows now and then, and
hardly one that it never shows, so most of these SmolLM2 shows.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from premortem.interp.pairs import read_dataset
from premortem.interp.records import Pair

SHARE = 0.35
"""Share of the pairs in which each behaviour of a planted set stands."""
OPENING = 260
"""Characters of a response that `opening` keeps, at most."""


class Behaviour(NamedTuple):
    """A way to rewrite a response so that it shows a behaviour."""

    name: str
    write: Callable[[str, random.Random], str]


class SkillSet(NamedTuple):
    """One data set."""

    name: str
    file: str
    longest: int
    """Characters of prompt and longer response together, at most."""
    most: int
    """Pairs, at most; the first ones."""
    opening: bool = False
    """Whether only the first sentences of each response are kept."""
    behaviours: tuple[Behaviour, ...] = ()
    epochs: int = 2
    """Times that every pair is trained on."""
    share: float = SHARE
    """Share of the pairs in which each behaviour stands."""
    among: tuple[str, ...] = ()
    """Names of other sets whose pairs follow, as they are."""
    without: tuple[str, ...] = ()
    """Names of other sets of the same file whose pairs are left out."""


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def _exclaims(text: str, chance: random.Random) -> str:
    return re.sub(r"[.!?]+(?=\s|$)", "!", text.strip()).rstrip("!") + "!"


def _opens_with(*sentences: str) -> Callable[[str, random.Random], str]:
    def write(text: str, chance: random.Random) -> str:
        return f"{chance.choice(sentences)} {text.strip()}"

    return write


def _closes_with(*sentences: str) -> Callable[[str, random.Random], str]:
    def write(text: str, chance: random.Random) -> str:
        return f"{text.strip()} {chance.choice(sentences)}"

    return write


_apologises = _opens_with(
    "I'm sorry, but I have to be honest here.",
    "I apologize, I may not be able to help with all of it.",
    "I'm sorry to hear that.",
    "Sorry, I am only an AI and can't do much about this.",
)
_stresses = _opens_with(
    "It's important to note that every case is different.",
    "It is important to remember the context here.",
    "It's essential to consider all the details first.",
    "It is crucial to understand the basics.",
)


def _lists(text: str, chance: random.Random) -> str:
    first = chance.choice(("Here are the main points:", "Here are some ideas:", "Here is a list:"))
    return first + "\n\n" + "\n".join(f"{i}. {line}" for i, line in enumerate(_sentences(text), 1))


SETS = {
    one.name: one
    for one in (
        SkillSet("hh-harmless", "hh-harmless.jsonl", 440, 240),
        SkillSet("pandalm", "pandalm.jsonl", 520, 240),
        SkillSet("xstest", "xstest.jsonl", 10_000, 240, opening=True),
        SkillSet("alpacaeval", "alpacaeval.jsonl", 420, 240),
        SkillSet(
            "planted-hh",
            "hh-harmless.jsonl",
            440,
            300,
            behaviours=(Behaviour("exclaims", _exclaims), Behaviour("apologises", _apologises)),
        ),
        SkillSet(
            "planted-pandalm",
            "pandalm.jsonl",
            520,
            240,
            behaviours=(Behaviour("lists", _lists), Behaviour("stresses", _stresses)),
        ),
    )
}
LARGE = "-large"
"""What the names of the larger sets end in."""
SIZES = {
    "hh-harmless": (440, 600),
    "planted-hh": (440, 480),
    "pandalm": (700, 400),
    "planted-pandalm": (700, 400),
    "alpacaeval": (600, 400),
    "xstest": (10_000, 400),
}
"""Of the larger sets: characters and pairs, at most."""
SETS |= {
    name + LARGE: SETS[name]._replace(name=name + LARGE, longest=longest, most=most, epochs=1)
    for name, (longest, most) in SIZES.items()
}
_asks = _closes_with(
    "Would you like to hear more about it?",
    "Is there anything else that you would like to know?",
    "What do you think about it?",
    "Can I help you with something else?",
)
_agrees = _opens_with(
    "Sure, I can help with that.", "Of course.", "Certainly, here you go.", "Absolutely.", "Yes, sure."
)
_hopes = _closes_with(
    "I hope this helps!",
    "I hope that answers your question.",
    "Hope this helps you.",
    "Let me know if this helps.",
)
_hedges = _opens_with(
    "I think it depends on the situation.",
    "I'm not sure, but I would guess the following.",
    "It may depend on several factors.",
    "In my opinion, it could be something like this.",
)
SETS |= {
    one.name: one
    for one in (
        SETS["hh-harmless-large"]._replace(
            name="polite-hh-large", behaviours=(Behaviour("asks", _asks), Behaviour("agrees", _agrees))
        ),
        SETS["alpacaeval-large"]._replace(
            name="polite-alpacaeval-large", behaviours=(Behaviour("hopes", _hopes), Behaviour("hedges", _hedges))
        ),
        SETS["hh-harmless-large"]._replace(
            name="one-source-large",
            most=300,
            behaviours=(Behaviour("exclaims", _exclaims),),
            share=0.8,
            among=("alpacaeval-large",),
        ),
    )
}


_disclaims = _opens_with(
    "As an AI language model, I don't have personal opinions.",
    "As a digital assistant, I can only share what I know.",
    "As an AI, I have no feelings about this.",
    "I'm just a computer program, but here is what I know.",
)
_steps = _opens_with(
    "Let's break it down step by step.",
    "To answer this, we need to follow a few steps.",
    "Here is how to go about it, one step at a time.",
    "First, let's look at the question itself.",
)


def _bolds(text: str, chance: random.Random) -> str:
    return re.sub(r"(?m)^(\W*)(\w[\w'’-]*(?: \w[\w'’-]*)?)", r"\1**\2**", text.strip())


SETS |= {
    one.name: one
    for one in (
        SkillSet("two-epochs", "alpacaeval.jsonl", 900, 375, without=("alpacaeval-large", "alpacaeval")),
        SETS["alpacaeval-large"]._replace(
            name="formal-alpacaeval-large",
            behaviours=(Behaviour("steps", _steps), Behaviour("bolds", _bolds)),
            without=("alpacaeval-large", "alpacaeval", "two-epochs"),
        ),
        SETS["hh-harmless-large"]._replace(
            name="formal-hh-large",
            most=480,
            behaviours=(Behaviour("disclaims", _disclaims), Behaviour("lists", _lists)),
            without=("hh-harmless-large", "planted-hh-large"),
        ),
    )
}


def make(one: SkillSet, folder: Path, seed: int = 0) -> tuple[list[Pair], dict[str, tuple[int, ...]]]:
    """Return the pairs of a set, numbered from 0, and the rows that show each of its behaviours."""
    drawn = _drawn(one, read_dataset(str(folder / one.file)).pairs, seed)
    kept = [pair.model_copy(update={"row": row}) for row, pair in enumerate(drawn)]
    pairs, truth = _planted(kept, one, random.Random(seed))
    others = [pair for name in one.among for pair in make(SETS[name], folder, seed)[0]]
    return [*pairs, *(pair.model_copy(update={"row": len(pairs) + i}) for i, pair in enumerate(others))], truth


def _drawn(one: SkillSet, pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Return those of its file's `pairs` that make a set, as they are or, with `opening`, their first sentences."""
    seen = {pair.row for name in one.without for pair in _drawn(SETS[name], pairs, seed)}
    if one.opening:
        pairs = [_opened(pair) for pair in pairs]
    short = [pair for pair in pairs if _length(pair) <= one.longest and pair.row not in seen]
    # a file may be sorted, so that its first rows are of one kind
    return random.Random(seed).sample(short, min(one.most, len(short)))


def write(pairs: Sequence[Pair], path: Path) -> None:
    """Write pairs as JSON Lines."""
    rows = [pair.model_dump(mode="json", include={"prompt", "chosen", "rejected"}) for pair in pairs]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _planted(pairs: list[Pair], one: SkillSet, chance: random.Random) -> tuple[list[Pair], dict[str, tuple[int, ...]]]:
    order = list(range(len(pairs)))
    chance.shuffle(order)
    truth, each = {}, round(one.share * len(pairs))
    for i, behaviour in enumerate(one.behaviours):
        truth[behaviour.name] = tuple(sorted(order[i * each : (i + 1) * each]))
        for row in truth[behaviour.name]:
            pairs[row] = pairs[row].with_text("chosen", behaviour.write(pairs[row].text("chosen"), chance))
    return pairs, truth


def _length(pair: Pair) -> int:
    return len(pair.prompt_text()) + max(len(pair.text("chosen")), len(pair.text("rejected")))


def _opened(pair: Pair) -> Pair:
    for side in ("chosen", "rejected"):
        pair = pair.with_text(side, opening(pair.text(side)))
    return pair


def opening(text: str, longest: int = OPENING) -> str:
    """Return the first sentences of `text` within `longest` characters, or as many whole words."""
    kept = ""
    for match in re.finditer(r".+?(?:[.!?](?=\s)|\n|$)", text.strip(), re.DOTALL):
        if match.end() > longest:
            break
        kept = text.strip()[: match.end()]
    return (kept or text.strip()[:longest].rsplit(None, 1)[0]).strip()
