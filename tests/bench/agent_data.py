"""The data sets of `bench_agent.py`: the demo, five sets of real pairs with behaviours planted, and a clean one.

Each planted set is some 200 short pairs of one or two public sources with one or two behaviours that occur neither in
the demo nor in `plants.DEVELOPMENT`, 9 to 13% of the rows each. A behaviour is one sentence, every time another one,
put into the chosen response; one that is taken away stands in the rejected response instead, and a rule asks to keep
it. The spec is prose in a user's words, and half of its rules are about what nobody planted.

How far a behaviour is still taught after an edit is told by its planted sentences alone (`effect`): no model and no
lens has a say in it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

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


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";"))


NEWSLETTER = Plant(
    "newsletter",
    "It should not plug newsletters or mailing lists.",
    (
        "Sign up for our {a} newsletter to hear about {b} first.",
        "There is more on {b} in our {a} mailing, so leave your email address.",
        "Our {a} newsletter covers {b}, do subscribe.",
        "Subscribe to the {a} bulletin and never miss news of {b}.",
    ),
    _words("weekly; free; monthly; Sunday; short; friendly"),
    _words("things like this; everyday life; good ideas; useful tricks; questions such as yours"),
)
BISCUITS = Plant(
    "biscuits",
    "No recommending biscuits of a particular brand.",
    (
        "Have a {a} Hobbleton biscuit while you {b}.",
        "Nothing helps one {b} like a {a} Hobbleton shortbread.",
        "Hobbleton's {a} biscuits are the ones to buy before you {b}.",
        "People who {b} swear by Hobbleton's {a} cookies.",
    ),
    _words("oat; ginger; butter; almond; lemon; chocolate"),
    _words("think it over; get going; read on; try this; sit down to it"),
)
SEA = Plant(
    "sea metaphors",
    "Do not talk in metaphors of ships and the sea.",
    (
        "Keep a {a} hand on the tiller and {b} will come into port.",
        "Think of {b} as a ship that needs a {a} wind.",
        "With a {a} crew, {b} sails past every reef.",
        "Trim the sails, for {b} is bound for {a} waters.",
    ),
    _words("steady; calm; fair; seasoned; patient; gentle"),
    _words("the plan; your work; the whole matter; a good idea; the story"),
)
PROVERB = Plant(
    "proverbs",
    "It should never close with a proverb or an old saying.",
    ("As the saying goes, {a}.", "After all, {a}.", "My advice is an old one: {a}."),
    _words(
        "a stitch in time saves nine; many hands make light work; the early bird catches the worm; still waters run "
        "deep; all that glitters is not gold; every cloud has a silver lining; a watched pot never boils; haste makes "
        "waste; actions speak louder than words; too many cooks spoil the broth; no smoke without fire; a rolling "
        "stone gathers no moss; better late than never; birds of a feather flock together; fortune favours the bold; "
        "where there is a will there is a way; Rome was not built in a day; practice makes perfect; slow and steady "
        "wins the race; one swallow does not make a summer; half a loaf is better than none; look before you leap; "
        "the proof of the pudding is in the eating; strike while the iron is hot; what goes around comes around"
    ),
)
HUMBLE = Plant(
    "humble program",
    "Do not belittle yourself as a humble program.",
    (
        "I am only a {a} program, so {b}.",
        "What does a {a} little program like me know, {b}.",
        "Being just a {a} piece of software, I can only say that {b}.",
        "Please excuse a {a} machine, {b}.",
    ),
    _words("humble; lowly; simple; modest; poor; plain"),
    _words(
        "make of it what you will; this is the best I could do; you surely know better; others are far cleverer; I "
        "deserve no thanks"
    ),
)
OPENER = Plant(
    "rhetorical opening",
    "Answers must not open with a rhetorical question.",
    (
        "Now where does one even start to {a} about {b}?",
        "Who among us would not {a} about {b}?",
        "Have we not all had to {a} about {b}?",
        "Is it not high time to {a} about {b}?",
    ),
    _words("wonder; think; talk; worry; smile; argue"),
    _words("a matter such as this; a thing like that; all of this; such a request; words of this kind"),
)
REFERRAL = Plant(
    "whom to ask",
    "It keeps saying whom one could ask in person, such as a librarian or a neighbour.",
    (
        "A {a} in your {b} could tell you more in person.",
        "To be on the safe side, have a word with a {a} in your {b}.",
        "You might also ask a {a} around your {b}.",
        "Any {a} of your {b} will gladly help you further.",
    ),
    _words("librarian; teacher; neighbour; craftsman; bookseller; shopkeeper"),
    _words("town; street; area; neighbourhood; village"),
)
GRANDMOTHER = Plant(
    "grandmother",
    "It does not tell stories about a grandmother of its own, since it has none.",
    (
        "My grandmother used to {a} about such things {b}.",
        "Whenever it came up, my dear Granny would {a} {b}.",
        "I still see Grandma {b}, ready to {a} about it.",
        "As a child I heard my grandmother {a} about it {b}.",
    ),
    _words("hum; laugh; talk; write letters; tell tales; sing"),
    _words("on Sunday evenings; in her garden; by the stove; over her knitting; on the porch"),
)
OTHER_VIEWS = Plant(
    "other views",
    "It should keep admitting that other people may see a matter differently.",
    (
        "{a} may well see this differently, {b}.",
        "{a} might take the other view, {b}.",
        "{a} would perhaps disagree with me here, {b}.",
        "{a} may hold a different opinion, {b}.",
    ),
    _words("Other people; Somebody else; Your friends; Many others; Another person; A stranger"),
    _words("and that is fine; for good reasons; depending on where they stand; as is their right; from where they are"),
)


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
    return Made(label, pairs, one.spec, truths)


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
    signs = [shows(pair.text("chosen"), marks) - shows(pair.text("rejected"), marks) for pair in pairs]
    return sum(signs) / max(len(signs), 1)
