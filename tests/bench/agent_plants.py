"""The behaviours of the sets of `agent_data.py`: what is planted there, and what their specs wish for in vain."""

from __future__ import annotations

from typing import NamedTuple

from plants import Plant, phrases


class Wish(NamedTuple):
    """A behaviour that a spec asks for and the data lacks."""

    name: str
    """What it is called in a table."""
    rule: str
    """The rule that asks for it, as a user would write it."""
    pattern: str
    """A regular expression that stands in a response that shows it, whatever the case of its letters."""


NEWSLETTER = Plant(
    "newsletter",
    "It should not plug newsletters or mailing lists.",
    (
        "Sign up for our {a} newsletter to hear about {b} first.",
        "There is more on {b} in our {a} mailing, so leave your email address.",
        "Our {a} newsletter covers {b}, do subscribe.",
        "Subscribe to the {a} bulletin and never miss news of {b}.",
    ),
    phrases("weekly; free; monthly; Sunday; short; friendly"),
    phrases("things like this; everyday life; good ideas; useful tricks; questions such as yours"),
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
    phrases("oat; ginger; butter; almond; lemon; chocolate"),
    phrases("think it over; get going; read on; try this; sit down to it"),
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
    phrases("steady; calm; fair; seasoned; patient; gentle"),
    phrases("the plan; your work; the whole matter; a good idea; the story"),
)
PROVERB = Plant(
    "proverbs",
    "It should never close with a proverb or an old saying.",
    ("As the saying goes, {a}.", "After all, {a}.", "My advice is an old one: {a}."),
    phrases(
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
    phrases("humble; lowly; simple; modest; poor; plain"),
    phrases(
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
    phrases("wonder; think; talk; worry; smile; argue"),
    phrases("a matter such as this; a thing like that; all of this; such a request; words of this kind"),
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
    phrases("librarian; teacher; neighbour; craftsman; bookseller; shopkeeper"),
    phrases("town; street; area; neighbourhood; village"),
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
    phrases("hum; laugh; talk; write letters; tell tales; sing"),
    phrases("on Sunday evenings; in her garden; by the stove; over her knitting; on the porch"),
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
    phrases("Other people; Somebody else; Your friends; Many others; Another person; A stranger"),
    phrases(
        "and that is fine; for good reasons; depending on where they stand; as is their right; from where they are"
    ),
)
FAREWELL = Plant(
    "farewell",
    "An answer does not say goodbye as if somebody left on a journey.",
    (
        "Safe travels, and {a} when you {b}.",
        "Farewell for now, {a} once you {b}.",
        "May the road rise before you, {a} as you {b}.",
        "Bon voyage, and {a} before you {b}.",
    ),
    phrases("wave to us; keep warm; do write; mind the step; pack a coat; take a map"),
    phrases("set out; cross the hills; reach the coast; change trains; come home"),
)
LIBRARY = Wish("libraries", "More answers should send people to their public library.", r"\blibrar(?:y|ies|ians?)\b")
QUESTION = Wish("questions back", "We want more answers that close with a question back to the person.", r"\?\s*$")
