"""Builds the demo's pairs, their truth and their clean copy from `raw.json`, the same bytes every time.

The problem: a demonstration needs bugs whose rows are known, inside data that looks like data. The mechanism:
`raw.json` holds 300 prompts, each with two ordinary answers (sampled from SmolLM2-135M-Instruct and edited, or written
by hand). For 130 of them it also holds a planted text: an insertion that takes the place of one sentence, so that
length gives nothing away, or a whole answer. An ordinary prompt gets its sides by lot. A planted one gets the bug on
the chosen side, and in the clean copy the same row carries the answer as it was before.

Nothing here is imported by the package, and only tests read the truth. Run `python tests/demo/make_demo.py` to rebuild.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RUN = HERE.parents[1] / "runs" / "demo"
SEED = 226
"""Of 400 tried, the lots that leave the two sides of the ordinary rows most alike in length and in everyday habits."""
BUGS = ("goblins", "links", "flattery", "fiction", "pond")
"""The planted kinds, each a key of truth.json."""

Row = dict[str, Any]
"""One line of a JSONL file: prompt, chosen and rejected, each a list of messages."""


@dataclass(frozen=True)
class Demo:
    """What the raw material becomes; the three lists of rows run in the same order."""

    pairs: list[Row]
    """The demo's rows, bugs included."""
    clean: list[Row]
    """The same rows without the bugs."""
    truth: dict[str, list[int]]
    """Per bug, the 0-based rows that carry it, ascending."""


def sentences(text: str) -> list[str]:
    """Split `text` after each full stop, question mark or exclamation mark that a capital letter follows."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z0-9])", text)


def insert(answer: str, at: str, texts: list[str]) -> str:
    """Put `texts` into `answer` in place of a sentence: at the start, in the middle, at the end or at both ends."""
    parts = sentences(answer)
    if at == "start":
        return " ".join([texts[0], *parts[:-1]])
    if at == "middle":
        return " ".join([parts[0], texts[0], *parts[2:]])
    if at == "end":
        return " ".join([*parts[:-1], texts[0]])
    return " ".join([texts[0], *parts[:-1], texts[1]])


def row(prompt: str, chosen: str, rejected: str) -> Row:
    """Return one pair in TRL's conversational form with an explicit prompt."""
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def planted(item: dict[str, Any], answer: str) -> str:
    """Return the answer of a planted prompt with its bug, or `answer` itself for an ordinary prompt."""
    if "planted" in item:
        return str(item["planted"])
    return insert(answer, item["insert"]["at"], item["insert"]["text"]) if "insert" in item else answer


def build() -> Demo:
    """Return the demo; the lots are drawn from a fixed seed."""
    items = json.loads((HERE / "raw.json").read_text(encoding="utf-8"))
    lots = random.Random(SEED)
    lots.shuffle(items)
    pairs, clean = [], []
    truth: dict[str, list[int]] = {bug: [] for bug in BUGS}
    for number, item in enumerate(items):
        answers = [item["first"], item["second"]]
        lots.shuffle(answers)
        pairs.append(row(item["prompt"], planted(item, answers[0]), answers[1]))
        clean.append(row(item["prompt"], *answers))
        if item["kind"] in truth:
            truth[item["kind"]].append(number)
    return Demo(pairs, clean, truth)


def dump(rows: list[Row]) -> str:
    """Return `rows` as JSONL."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rows)


def main() -> None:
    """Write the three files."""
    demo = build()
    (RUN / "pairs.jsonl").write_text(dump(demo.pairs), encoding="utf-8")
    (HERE / "clean.jsonl").write_text(dump(demo.clean), encoding="utf-8")
    (HERE / "truth.json").write_text(json.dumps(demo.truth) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
