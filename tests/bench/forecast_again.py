"""What today's forecaster says of the trainings that were made: `make bench-forecast PAIRS=FOLDER`

The documents of `bench_skill.py` hold each group of features with the shift that training brought. Their forecasts are
of the day when they were made; here the same pairs are read and the same groups forecast anew, with the code as it is,
and held against those shifts (topics have come to be drawn otherwise, so that groups within them cannot be). Nothing
is trained and no trained model is asked, so it takes a minute or two a run on two cores. What is told goes to
`results/forecast-again.json`, run by run; what is there is not measured again. `read_skill.py` reads it out.

FOLDER holds hh-harmless.jsonl, pandalm.jsonl, xstest.jsonl and alpacaeval.jsonl.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_skill import EVERY_RUN, LATER_RUNS, MAX_LENGTH, UNSEEN_RUNS, Run
from measured import stamped
from read_skill import AGAIN, explained, groups_seen
from skill_data import SETS, make, write

from premortem.agent.opening import data_and_lens, open_bench
from premortem.agent.runs import RunSettings
from premortem.agent.summary import groups_learned
from premortem.interp.forecasters import CALIBRATED, DEFAULT, FORECASTERS, model_error, tested
from premortem.interp.groups import group_readout
from premortem.interp.models import load_tokenizer, resolve_model
from premortem.interp.progress import NullProgress
from premortem.interp.validation import predict, split_by_prompt, with_room
from premortem.tools.workbench import Workbench

ASKED = (DEFAULT, *CALIBRATED)
"""The default and its parts."""
Document = dict[str, Any]


def tells_features(path: Path) -> bool:
    """Whether a document is there and tells of which features its groups are; the first eight do not."""
    return path.exists() and "features" in groups_learned(json.loads(path.read_text("utf-8")))[0]


def trained_on(run: Run, document: Document, data_folder: Path, work: Path) -> Workbench:
    """Return the pairs that a run trained on, read through the lens."""
    data = work / f"{run.label}.jsonl"
    write(make(SETS[run.name], data_folder)[0], data)
    settings = RunSettings(spec_path="", spec_text="", data=str(data), seed=run.seed)
    dataset, lens = data_and_lens(settings, NullProgress(), None, max_length=MAX_LENGTH)
    if dataset.sha256 != document["dataset"]["sha256"]:
        raise SystemExit(f"{run.label} was trained on other pairs than {data_folder} makes today")
    tokens = document["rollouts"]["tokens"]
    kept = with_room(dataset.pairs, load_tokenizer(resolve_model(settings.model)), tokens, MAX_LENGTH)
    split = split_by_prompt(kept, run.seed)
    train = dataset.model_copy(update={"pairs": split.train})
    return open_bench(settings, train, (), lens, None, NullProgress(), max_length=MAX_LENGTH)


def again(run: Run, data_folder: Path, asked: Sequence[str]) -> Document:
    """Return how today's forecasts of a run's groups by those `asked` do, over all prompts."""
    started, document = time.perf_counter(), json.loads(run.document.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as work:
        bench = trained_on(run, document, data_folder, Path(work))
    groups = groups_seen(document)
    readouts = [group_readout(bench.reading.whole, np.asarray(group["features"])) for group in groups]
    learned = np.asarray([group["learned"] for group in groups])
    responses = bench.reading.responses
    error, shared = model_error(DEFAULT, readouts, bench.reading.answers), tested(DEFAULT, readouts)
    told = {}
    for name in asked:  # training strays from each of them alike
        predicted = predict(
            bench.reading.values(name, readouts),
            responses.groups,
            responses.length_difference,
            error=error,
            shared=shared,
            seed=run.seed,
        )
        told[name] = {
            "r2": round(explained(predicted.effect, learned), 4),
            "slope": round(float(np.polyfit(predicted.effect, learned, 1)[0]), 3),
            "n_called": int((predicted.called != 0).sum()),
            "n_right": int((predicted.called * np.sign(learned) > 0).sum()),
            "coverage": round(float(((predicted.low <= learned) & (learned <= predicted.high)).mean()), 3),
            "effects": [float(f"{one:.4g}") for one in predicted.effect],
        }
    return {
        "n_concepts": len(groups),
        "ceiling": next(row["ceiling"] for row in document["skill"] if row["level"] == "groups"),
        "forecasters": told,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Forecast all runs that have documents anew, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the four files of pairs")
    latest_first = sorted(EVERY_RUN, key=lambda run: (run not in UNSEEN_RUNS, run not in LATER_RUNS))
    made = [run for run in latest_first if tells_features(run.document)]
    parser.add_argument(
        "--only", action="append", choices=[run.label for run in made], help="only this run; may repeat"
    )
    others = [name for name in FORECASTERS if name not in ASKED]
    parser.add_argument("--also", action="append", choices=others, default=[], help="another forecaster; may repeat")
    parser.add_argument("--json", type=Path, default=AGAIN, help="where the figures go")
    arguments = parser.parse_args()
    results = json.loads(arguments.json.read_text("utf-8")) if arguments.json.exists() else {}
    asked = (*ASKED, *arguments.also)
    for run in made:
        known = results.get(run.label, {}).get("forecasters", {})
        if set(asked) <= set(known) or (arguments.only and run.label not in arguments.only):
            continue
        results[run.label] = told = stamped(again(run, arguments.pairs, asked))
        arguments.json.write_text(json.dumps(results) + "\n", "utf-8")
        cells = [f"{name} {one['r2']:.2f}" for name, one in told["forecasters"].items()]
        default = told["forecasters"][DEFAULT]
        called = f"signs {default['n_right']} of {default['n_called']}, coverage {default['coverage']:.0%}"
        print(f"{run.label}: {', '.join(cells)}; ceiling {told['ceiling']:.2f}, {called}", flush=True)


if __name__ == "__main__":
    main()
