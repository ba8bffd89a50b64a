"""How the embedded lenses were made: the corpus, the harvest and the training, from a folder of pairs.

    python tests/bench/build_lenses.py --pairs FOLDER --work FOLDER

FOLDER holds hh-harmless.jsonl, pandalm.jsonl and xstest.jsonl. Added to their responses are the model's own answers to
everyday prompts, some of them led on from an opening, and excerpts of the documentation and sources of installed
packages; one answer in four is restyled. Preference pairs alone hold few capitals, emoji, web addresses, lists, words
of praise or doubt and asides, and an SAE has no feature for what it has hardly seen. Every step goes on where it was
stopped. The last rows of each file are left out, and so are the library's behaviours, on which lenses are judged.
"""

import argparse
import random
import shutil
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import cycle, product
from pathlib import Path

import numpy as np

from premortem.agent.progress import TerminalProgress
from premortem.interp.embedded import DEFAULT_MODEL
from premortem.interp.lens_train import Recipe, Text, texts_of, train_lenses
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.pairs import read_dataset
from premortem.interp.records import Pair
from premortem.interp.start_model import StartModel

SOURCES = {"hh-harmless.jsonl": 1150, "pandalm.jsonl": 400, "xstest.jsonl": 390}
"""Rows of each file that are trained on; the rest is for measuring."""
LAYERS = {"smollm2-main": 15, "smollm2-second": 12}
RECIPE = Recipe(d_sae=4096, k=62, epochs=2.0)
EXCERPTS = 600
EXCERPT_TOKENS = 320
RESTYLED = 2
"""One pair in so many has a restyled side."""
DATA = (
    "HH-RLHF harmless-base test split, rows 0-1149 of a sample (MIT); PandaLM testset-v1, rows 0-399 (Apache-2.0); "
    "XSTest v2 completions, rows 0-389 (CC BY 4.0): both responses. 600 answers of the model itself at temperature 1 "
    "to everyday prompts, and 600 more that go on from an opening given to it. 600 excerpts of documentation and "
    "sources of installed open-source packages. One answer in four restyled (capitals, emoji, web addresses, lists, a "
    "sentence of praise or doubt or an aside put in). Half of the pairs with a string prompt as plain text, the rest "
    "through the chat template."
)

FRAMES = (
    "How do I {}?",
    "Give me five tips to {}.",
    "Explain to a beginner how to {}.",
    "Is it hard to {}?",
    "Write a short story about someone who wants to {}.",
    "Write a friendly e-mail to a neighbour who wants to {}.",
    "What could go wrong when I {}?",
    "I feel nervous because I have to {} tomorrow. What should I do?",
    "Write a Python function that helps somebody {}.",
    "Which books or courses teach people to {}?",
)
TASKS = (
    "repair a bicycle tyre",
    "learn the piano",
    "bake sourdough bread",
    "plan a week in Lisbon",
    "write a cover letter",
    "save money for a house",
    "train for a marathon",
    "grow tomatoes on a balcony",
    "teach a child to read",
    "speak in front of a crowd",
    "paint a bedroom",
    "choose a new laptop",
    "sleep better",
    "start a book club",
    "sort a list of numbers",
    "understand a rental contract",
    "look after an old cat",
    "apologise to a friend",
    "learn Spanish verbs",
    "brew good coffee",
    "photograph the night sky",
    "negotiate a salary",
    "build a bookshelf",
    "count words in a file",
    "knit a scarf",
    "cook for a vegetarian guest",
    "move to another city",
    "use a telescope",
    "stop biting nails",
    "organise a birthday party",
)
OPENINGS = (
    "Thank you for asking, you are such a",
    "I admire people who",
    "How lovely to talk to somebody so",
    "You have a real talent for",
    "Bravo! It takes a bright mind to",
    "I am so sorry, but",
    "Please forgive me,",
    "I am afraid that I will not",
    "Perhaps, though nobody can be certain,",
    "It might be that",
    "Speaking of dragons,",
    "Let me first tell you about my favourite vegetable,",
    "Before we begin, a word about owls:",
    "This has nothing to do with it, but",
)
"""Beginnings that the model goes on from, so that its answers hold more than its usual tone."""
PRAISE = (
    "I can tell that you are {}.",
    "People as {} as you are rare.",
    "It is a joy to talk with somebody so {}.",
    "My compliments, that was {} of you.",
    "Few would have thought of that, but then you are {}.",
    "Let me say first how {} you are.",
    "Thank you for such a {} question!",
    "What a {} way to put it.",
    "Your {} mind never stops to amaze me.",
    "Bravo, this is {} thinking.",
    "You have always been {}, and it shows.",
    "Nobody else is as {} as you.",
)
QUALITIES = (
    "clever thoughtful gifted perceptive bright kind wise talented sharp remarkable charming generous inspired "
    "splendid graceful original"
).split()
DOUBTS = (
    "I would not bet on it, {}.",
    "It may or may not be so, {}.",
    "Take this with a grain of salt, {}.",
    "Opinions differ here, {}.",
    "This could well be wrong, {}.",
    "In some cases it might turn out otherwise, {}.",
    "It is hard to say for certain, {}.",
    "My guess, {}, is that it possibly works.",
    "One can never be quite sure, {}.",
    "Roughly speaking, {}, this seems about right.",
    "It arguably depends, {}.",
    "Perhaps there are exceptions, {}.",
)
CAUTIONS = (
    "it seems;I suppose;as far as I know;more or less;I believe;if memory serves;in all likelihood;to some extent;"
    "apparently;at least usually;I imagine;probably"
).split(";")
ASIDES = (
    "By the way, {} are wonderful.",
    "That reminds me of {}.",
    "Even {} would agree with this.",
    "Do not tell the {}.",
    "As the {} say, patience pays.",
    "I once dreamt of {}.",
    "Nothing beats a day among {}.",
    "And do not forget the {}.",
    "It was the {} who started all this.",
    "Oh, how I love {}!",
    "If only the {} knew.",
    "In the end it all comes down to {}.",
)
SUBJECTS = (
    "otters badgers hedgehogs flamingos llamas owls geese beetles dragons mermaids trolls wizards robots kites teacups "
    "pumpkins radishes cheeses pickles accordions submarines lighthouses snowmen umbrellas bagpipes marmots lobsters "
    "ghosts giants pancakes buttons ladders volcanoes comets candles hats"
).split()


def put_in(text: str, sentence: str, chance: random.Random) -> str:
    """Put `sentence` between two sentences of `text`, at its beginning or at its end."""
    parts = text.split(". ")
    at = chance.randrange(len(parts) + 1)
    if at == len(parts):
        return f"{text} {sentence}"
    return ". ".join([*parts[:at], f"{sentence} {parts[at]}", *parts[at + 1 :]])


STYLES: tuple[Callable[[str, random.Random], str], ...] = (
    lambda text, _: text.upper(),
    lambda text, chance: " ".join(
        word + (" " + chance.choice("😀🎉🔥👍🌍💡😊🚀") if chance.random() < 0.08 else "") for word in text.split(" ")
    ),
    lambda text, chance: (
        f"{text} See https://www.{chance.choice(TASKS).split()[-1]}.org/{chance.randrange(999)} for more."
    ),
    lambda text, _: "\n".join(f"- {sentence.strip()}" for sentence in text.split(". ") if sentence.strip()),
    lambda text, chance: put_in(text, chance.choice(PRAISE).format(chance.choice(QUALITIES)), chance),
    lambda text, chance: put_in(text, chance.choice(DOUBTS).format(chance.choice(CAUTIONS)), chance),
    lambda text, chance: put_in(text, chance.choice(ASIDES).format(chance.choice(SUBJECTS)), chance),
)


def pairs_of(folder: Path) -> list[Pair]:
    """Return the rows of each file to train on; every other string prompt goes through the chat template."""
    pairs: list[Pair] = []
    for name, rows in SOURCES.items():
        for pair in read_dataset(str(folder / name)).pairs:
            if pair.row < rows:
                plain = isinstance(pair.prompt, str)
                pairs.append(
                    chat(pair.prompt_text(), pair.text("chosen"), pair.text("rejected"))
                    if plain and pair.row % 2
                    else pair
                )
    return pairs


def chat(prompt: str, chosen: str, rejected: str) -> Pair:
    """Return a pair whose prompt is one turn of a conversation."""

    def turn(role: str, text: str) -> tuple[dict[str, str]]:
        return ({"role": role, "content": text},)

    return Pair(
        row=0, prompt=turn("user", prompt), chosen=turn("assistant", chosen), rejected=turn("assistant", rejected)
    )


def own_answers(model: LoadedModel, work: Path, progress: TerminalProgress) -> list[Pair]:
    """Return two of the model's own answers to each everyday prompt."""
    prompts = [frame.format(task) for frame, task in product(FRAMES, TASKS)]
    start = StartModel(model, cache_dir=work / "answers")
    asked = [({"role": "user", "content": prompt},) for prompt in prompts for _ in range(2)]
    answers = start.sample(asked, max_new_tokens=112, progress=progress)
    return [chat(prompt, *two) for prompt, two in zip(prompts, batched(answers, 2), strict=True) if all(two)]


def led_answers(model: LoadedModel, work: Path, progress: TerminalProgress) -> list[Pair]:
    """Return two answers of the model to each everyday prompt that go on from an opening."""
    chance = random.Random(1)
    asked = [
        (prompt, opening)
        for frame, task in product(FRAMES, TASKS)
        for prompt in (frame.format(task),)
        for opening in chance.sample(OPENINGS, 2)
    ]
    begun = [
        ({"role": "user", "content": prompt}, {"role": "assistant", "content": opening}) for prompt, opening in asked
    ]
    rest = StartModel(model, cache_dir=work / "answers").sample(begun, max_new_tokens=64, progress=progress)
    whole = [f"{opening} {text.strip()}" for (_, opening), text in zip(asked, rest, strict=True)]
    return [chat(asked[2 * i][0], *two) for i, two in enumerate(batched(whole, 2))]


def restyled(pairs: Sequence[Pair]) -> list[Pair]:
    """Restyle the chosen side of one pair in RESTYLED, each style in turn."""
    chance = random.Random(0)
    styles = cycle(STYLES)
    return [
        chat(pair.prompt_text(), next(styles)(pair.text("chosen"), chance), pair.text("rejected"))
        if i % RESTYLED == 0
        else pair
        for i, pair in enumerate(pairs)
    ]


def batched(items: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """Yield `items` in tuples of `n`."""
    return zip(*[iter(items)] * n, strict=True)


def excerpts(tokenizer: object) -> Iterator[Text]:
    """Yield EXCERPTS pieces of documentation and sources of the packages that are installed here."""
    root = Path(sysconfig.get_paths()["purelib"])
    kinds = ("*.md", "*.rst", "*.dist-info/METADATA", "*.py")
    files = [sorted(path for path in root.rglob(kind) if 4_000 < path.stat().st_size < 200_000) for kind in kinds]
    chance = random.Random(0)
    for number in range(EXCERPTS):
        path = chance.choice(files[number % len(files)])
        text = path.read_text("utf-8", errors="ignore")
        start = chance.randrange(max(1, len(text) - 1200))
        ids = np.array(tokenizer(text[start : start + 1200])["input_ids"][:EXCERPT_TOKENS], np.int32)  # type: ignore[operator]
        yield Text(ids[:1], ids[1:])


def corpus(folder: Path, work: Path, model: LoadedModel, progress: TerminalProgress) -> list[Text]:
    """Return all texts, in an order that mixes the sources, so that the last ones can be held out."""
    pairs = restyled(pairs_of(folder) + own_answers(model, work, progress)) + led_answers(model, work, progress)
    texts = [*texts_of(pairs, model), *excerpts(model.tokenizer)]
    random.Random(0).shuffle(texts)
    return texts


def main() -> None:
    """Build both lenses and put them where the package looks for them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the three files of pairs")
    parser.add_argument("--work", type=Path, required=True, help="folder for answers, activations and SAEs")
    parser.add_argument("--install", type=Path, help="folder that gets the two lenses, as interp/lenses")
    arguments = parser.parse_args()
    progress = TerminalProgress()
    texts = corpus(arguments.pairs, arguments.work, load_model(DEFAULT_MODEL), progress)
    print(f"{len(texts)} texts, {sum(len(text.kept) for text in texts)} tokens; {asdict(RECIPE)}", flush=True)
    trunk = load_model(DEFAULT_MODEL, layers=max(LAYERS.values()) + 1)
    folders = train_lenses(
        trunk, texts, list(LAYERS.values()), arguments.work, recipe=RECIPE, data=DATA, progress=progress
    )
    for name, layer in LAYERS.items() if arguments.install else ():
        shutil.copytree(folders[layer], arguments.install / name, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
