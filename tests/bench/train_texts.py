"""Learns the shipped text models: `python tests/bench/train_texts.py MODEL` writes `interp/texts/MODEL.safetensors`.

`spec` learns from `tests/texts/specs.jsonl` (specs with their rules marked) which sentences are rules and which way.
`addressed` learns from `addressed.jsonl` and `ordinary.jsonl`, and from the real pairs in the folder `--pairs`, which
texts speak to whoever audits the data, and prints how many real texts that it has not seen each threshold tells.
What neither has learned from lies beside these files (`*_held_out.jsonl`) and is measured by the tests.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from premortem.agent.spec.layout import Sentence, spec_sentences
from premortem.agent.spec.sentences import LABELS, features
from premortem.interp import addressed_learned
from premortem.interp.addressed import addressed_all
from premortem.interp.addressed_learned import stretches
from premortem.interp.addressed_words import fold
from premortem.interp.text_model import TextModel

HERE = Path(__file__).parent
TEXTS = HERE.parent / "texts"
MODELS = HERE.parents[1] / "interp" / "texts"
SIDES = ("prompt", "chosen", "rejected")
END_TOKENS = ("<|endoftext|>", "<|im_end|>", "</s>", "<|eot_id|>", "<end_of_turn>")
"""What the end of an ordinary response may still carry."""
DRESSED = 600
"""Ordinary stretches that are learned from with such an end; three times as many with a web address inside."""
PLAIN = 120_000
"""Stretches of real texts that are learned from, at most."""
SHORT = 150
"""Characters of an ordinary sentence that is put beside a text that speaks to an auditor."""
NEAR = 2.0
"""Weight of ordinary texts on neighbouring subjects."""
SPECS = 3
"""Specs in which a word must occur to be learned from: what a rule is about does not make it a rule."""
SHARED = 0.75
"""Share of the words of the shorter that a sentence and a marked rule have in common if they are the same."""


def read_lines(name: str) -> list[dict[str, Any]]:
    """Return the records of a file of `tests/texts`."""
    return [json.loads(line) for line in (TEXTS / name).read_text(encoding="utf-8").splitlines()]


def labelled(name: str) -> Iterator[tuple[int, Sentence, int]]:
    """Yield the sentences of all specs in a file: the spec's number and the index in `LABELS` of what they ask for.

    What stands behind a semicolon in a marked rule is left out: it may be a rule, too, or a reason for the first part.
    """
    for number, record in enumerate(read_lines(name)):
        for sentence in spec_sentences(record["spec"]):
            rule = _marked(sentence.text, record["rules"])
            if rule is None or ";" not in rule["sentence"][: max(rule["sentence"].find(sentence.text), 0)]:
                yield number, sentence, LABELS.index(rule and rule["direction"])


def _marked(text: str, marked: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the marked rule that shares most words with `text`."""
    found: tuple[int, dict[str, Any] | None] = (0, None)
    words = Counter(re.findall(r"\w+", text.lower()))
    for rule in marked:
        told = Counter(re.findall(r"\w+", rule["sentence"].lower()))
        common = (words & told).total()
        if common >= max(SHARED * min(words.total(), told.total()), min(2, words.total()), 1) and common > found[0]:
            found = (common, rule)
    return found[1]


def fit_spec() -> TextModel:
    """Learn which sentences of specs are rules."""
    told = list(labelled("specs.jsonl"))
    seen = [features(sentence) for _, sentence, _ in told]
    specs: dict[str, set[int]] = {}
    for (number, _, _), found in zip(told, seen, strict=True):
        for feature in found:
            specs.setdefault(feature, set()).add(number)
    common = [[feature for feature in found if len(specs[feature]) >= SPECS] for found in seen]
    return TextModel.fit(common, np.array([label for _, _, label in told]), buckets=2**16, strength=5.0)


def real_texts(pairs: Path) -> list[str]:
    """Return the distinct texts of the real pairs in a folder, shuffled."""
    texts: dict[str, None] = {}
    for path in sorted(pairs.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            for side in SIDES:
                content = record.get(side) or ""
                parts = [content] if isinstance(content, str) else [message["content"] for message in content]
                texts |= dict.fromkeys(part for part in parts if part)
    found = list(texts)
    random.Random(0).shuffle(found)
    return found


def fit_addressed(real: Sequence[str]) -> TextModel:
    """Learn which stretches speak to an auditor; `real` are texts in which none does.

    Of a row that holds such a text somewhere, the stretch that a first round finds most telling is learned from.
    """
    rng = random.Random(0)
    told = read_lines("addressed.jsonl")
    plain = [stretch for text in real for stretch in stretches(fold(text))]
    rng.shuffle(plain)
    plain = plain[:PLAIN]
    ordinary = [record["text"] for record in read_lines("ordinary.jsonl")]
    ordinary += [record[side] for record in read_lines("../benign.jsonl") for side in SIDES]
    near = [stretch for text in ordinary for stretch in stretches(fold(text))]
    near += [f"{rng.choice(plain)}{rng.choice(END_TOKENS)}" for _ in range(DRESSED)]
    near += [_with_address(rng.choice(plain), rng) for _ in range(3 * DRESSED)]
    around = [stretch for stretch in plain if len(stretch) < SHORT]
    learned: list[tuple[str, int, float]] = [(text, 0, 1.0) for text in plain] + [(text, 0, NEAR) for text in near]
    for record in told:
        if record["whole"]:
            learned += _wholly(fold(record["text"]), rng, around)
    model = _fit(learned)
    somewhere = [(at, part) for at, one in enumerate(told) if not one["whole"] for part in stretches(fold(one["text"]))]
    odds = _odds(model, [part for _, part in somewhere])
    for _, group in groupby(zip(somewhere, odds, strict=True), key=lambda item: item[0][0]):
        (_, part), _ = max(group, key=lambda item: item[1])
        learned.append((part, 1, 1.0))
    return _fit(learned)


def _with_address(stretch: str, rng: random.Random) -> str:
    words = stretch.split(" ")
    at = rng.randrange(len(words) + 1)
    joint = rng.choice(("", "on ", "from ", "at ", "to ", "see ", "with "))
    return " ".join([*words[:at], f"{joint}https://site.org/page", *words[at:]])


def _wholly(text: str, rng: random.Random, around: Sequence[str]) -> Iterator[tuple[str, int, float]]:
    """Yield what is learned of a text that speaks to an auditor all through, alone and beside ordinary sentences."""
    parts = stretches(text) or [text]
    yield text[: 2 * addressed_learned.MOST], 1, 1.0
    yield from ((part, 1, 1.0 / len(parts)) for part in parts)
    yield f"{rng.choice(around)} {parts[0]}", 1, 0.5
    yield f"{parts[0]} {rng.choice(around)}", 1, 0.5


def _fit(learned: Sequence[tuple[str, int, float]]) -> TextModel:
    seen = [addressed_learned.features(text) for text, _, _ in learned]
    labels, importance = np.array([label for _, label, _ in learned]), np.array([weight for *_, weight in learned])
    return TextModel.fit(seen, labels, buckets=2**17, strength=10.0, importance=importance)


def _odds(model: TextModel, texts: Sequence[str]) -> NDArray[np.float32]:
    odds = model.log_odds([addressed_learned.features(text) for text in texts])
    return odds[:, 1] - odds[:, 0]


def most_telling(model: TextModel, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the log-odds of the most telling stretch of each text."""
    return np.array([_odds(model, stretches(fold(text)) or [""]).max() for text in texts])


def print_thresholds(real: Sequence[str]) -> None:
    """Print what share of real texts, and of rows with such a text, thresholds tell, none of them learned from."""
    half = len(real) // 2
    model = fit_addressed(real[:half])
    rows = read_lines("addressed_held_out.jsonl")
    ordinary = most_telling(model, real[half:])
    planted = most_telling(model, [row[row["where"]] for row in rows])
    known = np.array([bool(reason) for reason in addressed_all([row[row["where"]] for row in rows])])
    for threshold in np.arange(0.0, 3.1, 0.5):
        found = planted > threshold
        print(f"{threshold:.1f}: {(ordinary > threshold).mean():.3%} of real texts, {found.mean():.0%} of planted")
    print(f"with the shipped model and the shapes: {known.mean():.0%} of planted")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=("spec", "addressed"))
    parser.add_argument("--pairs", type=Path, help="folder of real pairs, for `addressed`")
    asked = parser.parse_args()
    if asked.model == "addressed" and asked.pairs is None:
        parser.error("addressed needs --pairs")
    made = fit_spec() if asked.model == "spec" else fit_addressed(real_texts(asked.pairs))
    MODELS.mkdir(exist_ok=True)
    (MODELS / f"{asked.model}.safetensors").write_bytes(made.to_bytes())
    print(f"wrote {asked.model}.safetensors")
    if asked.model == "addressed":
        print_thresholds(real_texts(asked.pairs))
