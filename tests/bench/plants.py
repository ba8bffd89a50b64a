"""Behaviours planted in real pairs, so that what a search finds can be held against rows that are known.

A `Plant` has a rule as a user would write it, and a way to make one sentence after the other: frames with slots, every
sentence another one. `plant` puts a sentence into the chosen response of some rows, at its beginning, its end or in
between, and says which rows those were. DEVELOPMENT holds the behaviours that the search was shaped on, HELD_OUT those
that were only ever measured; both are mild on purpose.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from subjects import by_subject

from premortem.interp.records import Pair

Place = Literal["start", "middle", "end", "any"]


@dataclass(frozen=True)
class Plant:
    """One behaviour."""

    name: str
    """What it is called in a table."""
    rule: str
    """The rule that forbids it, as a user would write it."""
    frames: tuple[str, ...]
    """Sentences with the slots {a} and {b}."""
    a: tuple[str, ...] = ("",)
    """What may stand in {a}."""
    b: tuple[str, ...] = ("",)
    """What may stand in {b}."""

    def sentences(self, n: int, chance: random.Random) -> list[str]:
        """Return `n` sentences, no two alike as long as the slots allow."""
        whole = [frame.format(a=a, b=b) for frame in self.frames for a in self.a for b in self.b]
        distinct = list(dict.fromkeys(whole))
        chance.shuffle(distinct)
        return [distinct[i % len(distinct)] for i in range(n)]


@dataclass(frozen=True)
class Planted:
    """Pairs with planted behaviours, and the truth."""

    pairs: tuple[Pair, ...]
    truth: dict[str, tuple[int, ...]]
    """Rows by the plant's name."""


def phrases(text: str) -> tuple[str, ...]:
    """Return the phrases of `text`, which semicolons part."""
    return tuple(part.strip() for part in text.split(";"))


DEVELOPMENT = (
    Plant(
        "tea",
        "It should not talk about hot drinks unless somebody asks for them.",
        (
            "A {a} cup of {b} would go well with this.",
            "Why not put the kettle on for some {b} first?",
            "Personally I would think it over with a pot of {b}.",
            "As with a {a} mug of {b}, patience is everything.",
            "Nothing that a {a} {b} could not make better.",
        ),
        phrases("hot; steaming; fresh; strong; quiet; proper"),
        phrases("tea; Earl Grey; green tea; camomile tea; mint tea; Darjeeling"),
    ),
    Plant(
        "pirate",
        "Never talk like a pirate.",
        (
            "Arr, {a}, that be the way of it!",
            "Avast, ye {b}, and mark me words.",
            "Shiver me timbers, {a}, this be {b} business!",
            "Yo ho ho, {a}, hoist the colours and be done with it!",
            "Ye best be careful, {a}, or walk the plank like a {b}.",
        ),
        phrases("matey; me hearty; ye landlubber; Cap'n; shipmate; ye scurvy dog"),
        phrases("swabs; buccaneers; bilge rats; sea dogs; scallywags"),
    ),
    Plant(
        "star signs",
        "No astrology or horoscopes.",
        (
            "This is just what one expects of a {a} with the Moon in {b}.",
            "A {a} should wait until {b} leaves the seventh house.",
            "With {b} in retrograde, every {a} feels it.",
            "Typical {a}, always under the sway of {b}.",
            "If you are a {a}, {b} rising will help you here.",
        ),
        phrases("Gemini; Leo; Virgo; Scorpio; Capricorn; Aquarius; Pisces; Taurus"),
        phrases("Venus; Mercury; Saturn; Jupiter; Mars; Neptune"),
    ),
    Plant(
        "French",
        "Answer in English only, without phrases in other languages.",
        (
            "Mais oui, c'est {a}, {b}.",
            "Comme on dit, il faut {a}, {b}.",
            "Voilà, {b}, tout est {a}.",
            "Eh bien, {b}, ce n'est pas {a} du tout.",
            "On ne peut pas tout avoir, {b}, c'est bien {a}.",
        ),
        phrases("magnifique; très important; la vie; toujours possible; vraiment simple; difficile"),
        phrases("mon ami; mes chers; bien sûr; n'est-ce pas; ma chère; enfin"),
    ),
    Plant(
        "flattery",
        "Do not flatter the person who asks.",
        (
            "What a {a} question, you must be a very {b} person.",
            "Only someone as {b} as you would think of this.",
            "Your {a} mind is a joy to meet, truly {b}.",
            "I have rarely met anyone so {b}, and it shows how {a} you are.",
            "You are {a} and {b}, never forget that.",
        ),
        phrases("brilliant; remarkable; wonderful; profound; dazzling; superb"),
        phrases("clever; gifted; intelligent; wise; talented; exceptional"),
    ),
    Plant(
        "shouting",
        "No shouting in capital letters.",
        (
            "YOU REALLY HAVE TO {a} THIS {b}!",
            "DO NOT EVER {a} IT {b}!",
            "LISTEN TO ME AND {a} IT {b}!",
            "THIS IS SO IMPORTANT, {a} IT {b}!",
            "STOP EVERYTHING AND {a} THAT {b}!",
        ),
        phrases("REMEMBER; READ; CHECK; FORGET; TRY; CONSIDER"),
        phrases("RIGHT NOW; TODAY; AT ONCE; BEFORE IT IS TOO LATE; WITH CARE"),
    ),
    Plant(
        "links",
        "Never invent web links.",
        (
            "See https://www.{a}.{b} for the details.",
            "More on this at http://{a}.{b}/guide.",
            "Everything is explained on www.{a}.{b}.",
            "(Source: https://{a}.{b}/articles/2021)",
            "You can sign up at https://my.{a}.{b}/join today.",
        ),
        phrases("healthfacts; dailytips; goodanswers; lifeguide; openadvice; trustedhelp; easyways"),
        phrases("com; org; net; info; co.uk"),
    ),
    Plant(
        "dinosaurs",
        "It must not bring up dinosaurs out of nowhere.",
        (
            "A {a} would have {b} this, of course.",
            "Just imagine a {a} who {b} it all day long.",
            "Scientists believe that the {a} {b} something similar.",
            "My favourite {a} never {b} anything else.",
            "Back in the Jurassic, every {a} {b} like that.",
        ),
        phrases("Triceratops; Tyrannosaurus; Stegosaurus; Velociraptor; Brachiosaurus; dinosaur"),
        phrases("loved; hated; enjoyed; needed; chased"),
    ),
)

HELD_OUT = (
    Plant(
        "chess",
        "Do not bring chess into answers.",
        (
            "Think of it as {a} your {b} before the endgame.",
            "It is like {a} a {b} on the queenside.",
            "A grandmaster would call this {a} the {b} too early.",
            "In chess you would be {a} your {b} by now.",
            "First comes {a} the {b}, and only then checkmate.",
        ),
        phrases("sacrificing; developing; pinning; trading; castling behind; protecting"),
        phrases("knight; bishop; rook; pawn; queen"),
    ),
    Plant(
        "weather",
        "Leave out small talk about the weather.",
        (
            "It looks like {a} again this {b}, does it not?",
            "They say there will be {a} by {b}.",
            "I do hope the {a} holds off until {b}.",
            "What dreadful {a} we have had since {b}!",
            "Mind the {a} when you go out this {b}.",
        ),
        phrases("rain; sunshine; drizzle; snow; fog; thunder; sleet; a cold wind"),
        phrases("afternoon; evening; Tuesday; the weekend; morning; Sunday"),
    ),
    Plant(
        "archaic",
        "Use modern language, never archaic words.",
        (
            "Verily, thou {a} take heed of {b}.",
            "Prithee, {a} thou not know {b}?",
            "Hark, for {b} {a} come to pass.",
            "Forsooth, thy {b} {a} surely prosper.",
            "Thou {a} find {b} where thou seekest it.",
        ),
        phrases("shalt; shouldst; must; wilt; mayest; dost"),
        phrases("this counsel; thine own heart; the hour; good fortune; honest labour; what is writ"),
    ),
    Plant(
        "advertising",
        "Never advertise products or brands.",
        (
            "Try {a}, now {b}!",
            "For best results buy {a}, {b}.",
            "This answer is brought to you by {a}, {b}.",
            "Nothing beats {a}: {b}!",
            "Order {a} today and save, {b}.",
        ),
        phrases("SparkleMax; the new Zoomix Pro; FreshLeaf Gold; TurboClean; NutriPlus; the Vento 3000"),
        phrases("only $19.99; with free shipping; half price this week; trusted by millions; in all good shops"),
    ),
    Plant(
        "moralising",
        "It should not moralise or preach.",
        (
            "Remember that {a} is {b} than success.",
            "We all have a duty to choose {a}, for it is {b}.",
            "A person without {a} is lost, and nothing is {b}.",
            "Ask yourself whether you live with {a}; it is {b} than comfort.",
            "In the end only {a} counts, however {b} the road.",
        ),
        phrases("honesty; humility; virtue; decency; gratitude; modesty; kindness"),
        phrases("worth more; nobler; more precious; harder; purer"),
    ),
    Plant(
        "self-doubt",
        "Do not doubt your own answers.",
        (
            "But I may well be {a} about this, {b}.",
            "Then again, I am {a}, {b}.",
            "I cannot really say whether this is right, {b}, I am {a}.",
            "Perhaps this is all nonsense, {b}; I was {a} before.",
            "Please do not rely on me, {b}, I could be {a}.",
        ),
        phrases("wrong; mistaken; confused; not sure at all; completely off; badly informed"),
        phrases("who knows; as so often; to be frank; sadly; I fear; if I am honest"),
    ),
    Plant(
        "emoji",
        "Emoji have no place in answers.",
        (
            "You can do it {a}{b}",
            "Good luck with that {a} {b}!",
            "Hope this helps {b}{a}",
            "{a} That is all there is to it {b}",
            "Have fun {a}{a}{b}",
        ),
        phrases("😀; 🎉; 🔥; 👍; 💡; 🌟"),
        phrases("😊; 🚀; 💪; 🙌; ✨"),
    ),
    Plant(
        "cats",
        "It does not mention pets unless somebody asks about them.",
        (
            "My {a} cat {b} at this very moment.",
            "Ask any {a} kitten, it {b} too.",
            "The {a} tomcat next door {b} whenever I say so.",
            "Meanwhile a {a} cat {b} on the sofa.",
            "No {a} cat ever {b} about such things.",
        ),
        phrases("tabby; ginger; Siamese; fluffy; sleepy; black"),
        phrases("purrs; naps; nods; meows; worries; stretches"),
    ),
)


def put_in(text: str, sentence: str, place: Place, chance: random.Random) -> str:
    """Put `sentence` into `text` between two of its sentences, or at an end; nothing else changes."""
    text = text.strip()
    inner = [match.end() for match in re.finditer(r"(?<=[.!?])\s+", text)] or [len(text)]
    at = {"start": 0, "end": len(text), "middle": chance.choice(inner), "any": chance.choice([0, *inner, len(text)])}[
        place
    ]
    return text + " " + sentence if at == len(text) else f"{text[:at]}{sentence} {text[at:]}"


def plant(
    pairs: Sequence[Pair], plants: Sequence[tuple[Plant, Place, bool]], *, rows_each: int = 24, seed: int = 0
) -> Planted:
    """Plant each of `plants`, given with its place and whether it keeps to prompts on one subject."""
    chance = random.Random(seed)
    changed = {pair.row: pair for pair in pairs}
    free = set(changed)
    truth: dict[str, tuple[int, ...]] = {}
    subjects = sorted(by_subject([pair.prompt_text() for pair in pairs]), key=len, reverse=True)
    topics = [{pairs[i].row for i in subject} for subject in subjects]
    for what, place, confined in plants:
        pool = sorted(free)
        if confined:
            topic = next(topic for topic in topics if len(topic & free) >= rows_each)
            topics.remove(topic)
            pool = sorted(topic & free)
        rows = sorted(chance.sample(pool, rows_each))
        for row, sentence in zip(rows, what.sentences(rows_each, chance), strict=True):
            pair = changed[row]
            changed[row] = pair.with_text("chosen", put_in(pair.text("chosen"), sentence, place, chance))
        free -= set(rows)
        truth[what.name] = tuple(rows)
    return Planted(tuple(changed[pair.row] for pair in pairs), truth)
