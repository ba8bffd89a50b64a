"""What the lens learns of a wish from six sentences: `make bench-wishes PAIRS=FOLDER`

FOLDER holds pandalm.jsonl and alpacaeval.jsonl. A rule that asks for what no answer of the data shows can only be
learnt from examples (`premortem.tools.asked_for`). Ten such wishes have six sentences each, as a user might give, and
six answers to everyday questions that show the wish in other words (`wishes.yaml`). Told for each wish and each stretch
of data: the share of the data's responses that look as much like it as half of the held-out sentences do (above 2% the
tool says that it cannot tell), how many of its own six answers fire, how many of the sixty others, and whether a plain
answer does. Nothing is trained and nothing asks an LLM; some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from agent_data import Source, draw
from measured import stamped

from premortem.interp.by_example import SEEN
from premortem.interp.encode import Reader
from premortem.interp.lens import default_lenses
from premortem.interp.models import DEFAULT_MODEL, load_model
from premortem.interp.readout import Bag, bag_of
from premortem.interp.records import Clause, Content, Dataset
from premortem.tools.asked_for import examples_of, learnt_from
from premortem.tools.workbench import Workbench

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "wishes.json"
DATA = {
    "PandaLM": (Source("pandalm.jsonl", slice(200)),),
    "AlpacaEval": (Source("alpacaeval.jsonl", slice(600, 1000)),),
}
"""Stretches of short pairs."""


def load_wishes() -> dict[str, Any]:
    """Return the `questions`, and by name the wishes: their `rule`, `sentences` and `answers`; `plain` is none."""
    found: dict[str, Any] = yaml.safe_load((HERE / "wishes.yaml").read_text("utf-8"))
    return found


def heard(bench: Workbench, questions: Sequence[str], answers: Sequence[str]) -> Bag:
    """Return answers, each behind its question, through the main lens."""
    asked: list[tuple[Content, str]] = [
        (({"role": "user", "content": question},), answer) for question, answer in zip(questions, answers, strict=True)
    ]
    return bag_of(bench.reader.encode_texts(asked)[bench.main.lens_id])


def measure(bench: Workbench, told: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each wish."""
    wishes = {name: wish for name, wish in told.items() if name != "questions"}
    bags = {name: heard(bench, told["questions"], wish["answers"]) for name, wish in wishes.items()}
    rows = []
    for name, wish in wishes.items():
        if name == "plain":
            continue
        clause = Clause(
            clause_id=name, text=wish["rule"], behaviour=wish["rule"], direction="encourage", limit=0.01,
            examples=tuple(wish["sentences"]),
        )  # fmt: skip
        learnt = learnt_from(bench, examples_of(bench, clause))
        assert learnt is not None
        fired = {other: int(learnt.readout.fires(bag).sum()) for other, bag in bags.items()}
        others = sum(n for other, n in fired.items() if other not in (name, "plain"))
        rows.append(
            {
                "wish": name,
                "seen": round(learnt.seen, 4),
                "told": learnt.seen <= SEEN,
                "own_answers": fired[name],
                "other_answers": others,
                "plain_answers": fired["plain"],
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure on each stretch and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the files of pairs")
    arguments = parser.parse_args()
    wishes, lens = load_wishes(), default_lenses(DEFAULT_MODEL)[0]
    reader = Reader(load_model(DEFAULT_MODEL, lens.layer + 1), [lens])
    found = {}
    for name, sources in DATA.items():
        pairs = tuple(draw(sources, arguments.pairs))
        data = Dataset(path=name, sha256=name, form="conversational", pairs=pairs)
        found[name] = measure(Workbench(data, (), reader, lens, None, no_start_model), wishes)
    RESULTS.write_text(json.dumps(stamped({"data": found}), indent=1) + "\n", "utf-8")


def no_start_model() -> Any:
    """Fail: nothing here needs one."""
    raise AssertionError("no start model is needed to learn from examples")


if __name__ == "__main__":
    main()
