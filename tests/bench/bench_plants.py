"""Does the forecast find behaviours planted in real pairs, and all their rows? `make bench-plants PAIRS=FOLDER`

FOLDER holds hh-harmless.jsonl, pandalm.jsonl, xstest.jsonl and alpacaeval.jsonl. Each set below is a stretch of one of
them with three or four behaviours planted, 24 rows each, and a spec with one rule for each behaviour and four for what
is not there. Printed for each: precision and recall of the best discovery, found blind before any rule was read, and
of the finding that holds most of the rows, with the rule it was given to. DEVELOPMENT shaped the search, HELD_OUT did
not. CLEAN sets are as they came, with every rule of all plants: what is told there is in the data, or a false alarm.
Everything is cached by content, so a second run takes a few minutes.
"""

import argparse
import json
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from plants import DEVELOPMENT, HELD_OUT, Place, Plant, Planted, plant

import premortem.tools.forecast_concepts as tool
from premortem.agent.spec import parse_spec
from premortem.interp.cache_home import cache_home
from premortem.interp.embedded import DEFAULT_MODEL
from premortem.interp.encode import Reader
from premortem.interp.lens import default_lenses
from premortem.interp.models import load_model
from premortem.interp.pairs import read_dataset
from premortem.interp.records import Dataset
from premortem.interp.start_model import StartModel
from premortem.tools.workbench import Workbench

ABSENT = ("Never swear.", "No recipes unless asked.", "Do not talk about sports.", "Answers should be polite.")
PLANTS = {one.name: one for one in (*DEVELOPMENT, *HELD_OUT)}


class Setting(NamedTuple):
    """One planted data set."""

    part: str
    """`development`, `held out` or `clean`."""
    file: str
    rows: range
    plants: tuple[tuple[str, Place, bool], ...]
    """Name, place in the response, and whether it keeps to prompts on one subject."""
    seed: int


SETTINGS = (
    Setting(
        "development",
        "hh-harmless.jsonl",
        range(420),
        (("tea", "end", False), ("pirate", "any", False), ("flattery", "start", True), ("star signs", "any", False)),
        1,
    ),
    Setting(
        "development",
        "pandalm.jsonl",
        range(500),
        (("French", "any", False), ("links", "end", False), ("shouting", "any", True), ("dinosaurs", "middle", False)),
        2,
    ),
    Setting(
        "development",
        "alpacaeval.jsonl",
        range(360),
        (("tea", "any", False), ("pirate", "any", True), ("flattery", "any", False), ("shouting", "middle", False)),
        3,
    ),
    Setting(
        "development",
        "xstest.jsonl",
        range(489),
        (("star signs", "any", False), ("links", "end", False), ("dinosaurs", "any", False)),
        4,
    ),
    Setting(
        "held out",
        "hh-harmless.jsonl",
        range(420, 840),
        (("chess", "any", False), ("weather", "end", False), ("archaic", "start", True), ("moralising", "any", False)),
        5,
    ),
    Setting(
        "held out",
        "pandalm.jsonl",
        range(500),
        (("advertising", "end", False), ("self-doubt", "any", False), ("cats", "any", True), ("emoji", "end", False)),
        6,
    ),
    Setting(
        "held out",
        "alpacaeval.jsonl",
        range(4000, 4360),
        (("weather", "any", False), ("cats", "any", True), ("moralising", "any", False), ("archaic", "middle", False)),
        7,
    ),
    Setting(
        "held out",
        "xstest.jsonl",
        range(489),
        (("chess", "any", False), ("advertising", "end", False), ("emoji", "any", False)),
        8,
    ),
    Setting("clean", "hh-harmless.jsonl", range(420), (), 0),
    Setting("clean", "hh-harmless.jsonl", range(420, 840), (), 0),
    Setting("clean", "pandalm.jsonl", range(500), (), 0),
    Setting("clean", "alpacaeval.jsonl", range(360), (), 0),
    Setting("clean", "alpacaeval.jsonl", range(4000, 4360), (), 0),
    Setting("clean", "xstest.jsonl", range(489), (), 0),
)


def workbench(setting: Setting, planted: Planted, reader: Reader, n_examples: int) -> Workbench:
    """Return the bench of a planted data set, with its spec and the main lens.

    Each rule against a plant has `n_examples` of its sentences as examples, none of which stands in the data.
    """
    names = planted.truth or PLANTS
    spec = parse_spec("\n".join(f"- {rule}" for rule in (*(PLANTS[name].rule for name in names), *ABSENT)))
    given = {PLANTS[name].rule: unseen(PLANTS[name], planted, n_examples) for name in names}
    clauses = []
    for clause in spec.clauses:
        against = given if clause.direction == "avoid" else {}
        own = [sentence for rule, sentences in against.items() if clause.text in rule for sentence in sentences]
        clauses.append(clause.model_copy(update={"examples": (*clause.examples, *own)}))
    data = Dataset(path=setting.file, sha256=setting.file, form="conversational", pairs=planted.pairs)
    main = next(iter(reader.lenses.values()))

    def start_model() -> StartModel:
        return StartModel(load_model(DEFAULT_MODEL, trunk=reader.model), 0, cache_home() / "start_model")

    return Workbench(data, clauses, reader, main, None, start_model)


def unseen(one: Plant, planted: Planted, n: int) -> list[str]:
    """Return `n` sentences of a plant that stand in no chosen response."""
    texts = "\n".join(pair.text("chosen") for pair in planted.pairs)
    drawn = dict.fromkeys(one.sentences(10_000, random.Random(0)))
    return [sentence for sentence in drawn if sentence not in texts][:n]


def best(found: Iterable[tuple[Any, set[int]]], truth: set[int]) -> dict[str, Any]:
    """Return precision and recall of what holds the rows best (largest F1), and what that is."""
    rated = [(what, len(rows & truth) / max(len(rows), 1), len(rows & truth) / len(truth)) for what, rows in found]
    what, p, r = max(rated, key=lambda one: 2 * one[1] * one[2] / max(one[1] + one[2], 1e-9), default=(None, 0.0, 0.0))
    return {"what": what, "precision": round(p, 3), "recall": round(r, 3)}


def measure(setting: Setting, folder: Path, reader: Reader, n_examples: int) -> list[dict[str, Any]]:
    """Return one row for each behaviour planted in a set, and one for what was found beside them."""
    pairs = [pair for pair in read_dataset(str(folder / setting.file)).pairs if pair.row in setting.rows]
    planted = plant(
        pairs, [(PLANTS[name], place, confined) for name, place, confined in setting.plants], seed=setting.seed
    )
    bench = workbench(setting, planted, reader, n_examples)
    _ = bench.reading
    started = time.perf_counter()
    report = tool.forecast_concepts(bench, tool.ForecastArgs())
    seconds = time.perf_counter() - started
    rows = np.asarray([pair.row for pair in planted.pairs])
    blind = [(None, set(rows[item.signs * np.sign(item.z) > 0].tolist())) for item in bench.discoveries]
    rules = {clause.clause_id: clause.text for clause in report.clauses}
    told = [(finding, set(finding.rows)) for finding in report.findings]
    results = []
    for name, place, confined in setting.plants:
        truth = set(planted.truth[name])
        finding = best(told, truth)
        what = finding.pop("what")
        results.append(
            {
                "part": setting.part,
                "file": setting.file,
                "pairs": len(pairs),
                "planted": name,
                "place": place,
                "confined": confined,
                "blind": {key: value for key, value in best(blind, truth).items() if key != "what"},
                "finding": finding
                | {
                    "kind": what and what.kind,
                    "right_rule": what is not None and rules.get(what.clause_id, "?") in PLANTS[name].rule,
                },
            }
        )
        print(line(results[-1]), flush=True)
    everything: set[int] = set().union(*map(set, planted.truth.values()))
    beside = [finding for finding, own in told if len(own & everything) < len(own) / 2]
    alarms = [
        {"rule": rules.get(f.clause_id), "name": f.name, "rows": len(f.rows), "effect": f.effect, "first": f.rows[:5]}
        for f in beside
        if f.kind == "forbidden"
    ]
    print(f"  {setting.part} {setting.file}: {len(beside)} findings beside, {len(alarms)} forbidden; {seconds:.0f} s")
    for alarm in alarms:
        print(f"    {alarm['rule']} | {alarm['name']} | {alarm['rows']} rows, {alarm['effect']:+.3f}", flush=True)
    results.append(
        {
            "part": setting.part,
            "file": setting.file,
            "beside": len(beside),
            "forbidden": alarms,
            "seconds": round(seconds, 1),
        }
    )
    return results


def line(result: dict[str, Any]) -> str:
    """Return a result as one line of the table."""
    blind, finding = result["blind"], result["finding"]
    met = finding["precision"] >= 0.9 and finding["recall"] >= 0.8
    return (
        f"{'met ' if met else '    '} {result['part']:11s} {result['file']:18s} {result['planted']:12s} "
        f"blind P {blind['precision']:.2f} R {blind['recall']:.2f}   finding P {finding['precision']:.2f} "
        f"R {finding['recall']:.2f} {finding['kind'] or 'none'}{'' if finding['right_rule'] else ' (no rule)'}"
    )


def main() -> None:
    """Measure all sets and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the four files of pairs")
    parser.add_argument("--part", choices=("development", "held out", "clean"), help="only these sets")
    parser.add_argument("--draw", type=int, default=0, help="other rows for the same behaviours: added to each seed")
    parser.add_argument("--examples", type=int, default=0, help="sentences that each rule gives as examples")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    tool.with_start_rate = lambda bench, finding: finding  # what the start model says does not change rows
    lens = default_lenses()[0]
    reader = Reader(load_model(DEFAULT_MODEL, layers=lens.layer + 1), [lens], cache_home() / "encoded")
    results = [
        row
        for setting in SETTINGS
        if arguments.part in (None, setting.part)
        for row in measure(
            setting._replace(seed=setting.seed + arguments.draw), arguments.pairs, reader, arguments.examples
        )
    ]
    planted = [row for row in results if "planted" in row]
    for part in dict.fromkeys(row["part"] for row in planted):
        own = [row["finding"] for row in planted if row["part"] == part]
        met = sum(f["precision"] >= 0.9 and f["recall"] >= 0.8 for f in own)
        print(
            f"{part}: {met} of {len(own)} with P >= 0.9 and R >= 0.8, {sum(f['right_rule'] for f in own)} by their rule"
        )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
