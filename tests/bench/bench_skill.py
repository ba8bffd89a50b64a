"""Does real DPO do what the forecast says? `make bench-skill PAIRS=FOLDER`

FOLDER holds hh-harmless.jsonl, pandalm.jsonl, xstest.jsonl and alpacaeval.jsonl. Each run below is one `agent validate`
on one of the sets of `skill_data.py`; its document goes to `results/skill/`, those of the small sets to `small/` there.
Some 12 minutes a run on two cores for a small set, 20 for a large one. What a run has trained and sampled is kept, so
the same command goes on where it was interrupted, and measures again within minutes after a change to a forecaster.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from read_skill import LATER, RESULTS, SMALL, UNSEEN
from skill_data import LARGE, SETS, make, write

from premortem.interp.validation import split_by_prompt

MAX_LENGTH = 512
"""Tokens of prompt and response; no pair is longer, and the trainings made so far are kept under this name."""


class Run(NamedTuple):
    """One training."""

    name: str
    seed: int
    per_prompt: int
    """Answers to each held-out prompt: 320 to 480 in all."""

    @property
    def label(self) -> str:
        """What its file is called."""
        return f"{self.name}-seed{self.seed}"

    @property
    def document(self) -> Path:
        """Where its document lies; it may not be there yet."""
        usual = RESULTS if self.name.endswith(LARGE) else SMALL
        folder = LATER if self in LATER_RUNS else UNSEEN if self in UNSEEN_RUNS else usual
        return folder / f"{self.label}.json"


RUNS = (
    Run("planted-hh", 0, 8),
    Run("hh-harmless", 0, 8),
    Run("planted-pandalm", 0, 14),
    Run("alpacaeval", 0, 10),
    Run("xstest", 0, 14),
    Run("pandalm", 0, 14),
    Run("hh-harmless", 1, 8),
    Run("alpacaeval", 1, 10),
    Run("pandalm", 2, 14),
    Run("alpacaeval", 2, 10),
    Run("hh-harmless", 2, 8),
    Run("planted-pandalm", 2, 14),
    Run("xstest", 2, 14),
    Run("hh-harmless-large", 3, 4),
    Run("planted-hh-large", 3, 4),
    Run("pandalm-large", 3, 14),
    Run("alpacaeval-large", 3, 5),
    Run("planted-pandalm-large", 3, 14),
    Run("xstest-large", 3, 14),
    Run("pandalm-large", 4, 14),
    Run("alpacaeval-large", 4, 5),
    Run("hh-harmless-large", 4, 4),
    Run("planted-hh-large", 4, 4),
    Run("xstest-large", 4, 14),
    Run("planted-pandalm-large", 4, 14),
)
LATER_RUNS = tuple(
    Run(name, seed, per_prompt)
    for seed in (5, 6)
    for name, per_prompt in (
        ("hh-harmless-large", 16),
        ("polite-hh-large", 16),
        ("pandalm-large", 56),
        ("polite-alpacaeval-large", 20),
        ("one-source-large", 12),
        ("alpacaeval-large", 20),
        ("planted-pandalm-large", 56),
        ("planted-hh-large", 16),
        ("xstest-large", 56),
    )
)
"""Made on a GPU once everything was settled, with four times the answers."""
UNSEEN_RUNS = (Run("two-epochs", 7, 10), Run("formal-alpacaeval-large", 7, 10), Run("formal-hh-large", 7, 4))
"""On pairs and planted behaviours that nothing was settled on, forecast with as many own answers as now."""
EVERY_RUN = (*RUNS, *LATER_RUNS, *UNSEEN_RUNS)


def measure(run: Run, data_folder: Path, work: Path) -> None:
    """Validate one set with one seed and keep the document, with the planted rows in it."""
    pairs, truth = make(SETS[run.name], data_folder)
    data = work / f"{run.name}.jsonl"
    write(pairs, data)
    command = [sys.executable, "-m", "premortem.agent", "validate", str(data), "--seed", str(run.seed)]
    command += ["--per-prompt", str(run.per_prompt), "--epochs", str(SETS[run.name].epochs)]
    command += ["--max-length", str(MAX_LENGTH)]
    command += ["--db", str(work / "skill.db"), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    document = json.loads(done.stdout)
    document["dataset"]["path"] = data.name
    document["lens"]["sae"] = Path(document["lens"]["sae"]).name
    trained_on = {pair.row for pair in split_by_prompt(pairs, run.seed).train}
    document["planted"] = {name: sorted(trained_on & set(rows)) for name, rows in truth.items()}
    run.document.write_text(json.dumps(document) + "\n", "utf-8")


def main() -> None:
    """Make all runs, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the four files of pairs")
    parser.add_argument("--work", type=Path, default=Path("build/skill"), help="folder for the sets and the database")
    labels = [run.label for run in EVERY_RUN]
    parser.add_argument("--only", action="append", choices=labels, help="only this run; may be repeated")
    arguments = parser.parse_args()
    for folder in (arguments.work, SMALL, LATER, UNSEEN):
        folder.mkdir(parents=True, exist_ok=True)
    for run in EVERY_RUN:
        if arguments.only and run.label not in arguments.only:
            continue
        started = time.perf_counter()
        measure(run, arguments.pairs, arguments.work)
        print(f"{run.label}: {(time.perf_counter() - started) / 60:.1f} min", flush=True)


if __name__ == "__main__":
    main()
