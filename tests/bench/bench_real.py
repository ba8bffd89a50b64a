"""What whole runs find in four real files, each with a spec that a user would write: `make bench-real PAIRS=FOLDER`

FOLDER holds hh-harmless.jsonl, pandalm.jsonl, xstest.jsonl and alpacaeval.jsonl; the specs are in `specs/`. Each run is
a process of its own, so that time and memory are its own too. Each file is run twice: with a cache that holds the model
and nothing else, and again with everything read, which tells what a run costs beside reading. What was found goes to
`results/real.json`, file by file, and is told in `real-data.md`; what is there is not measured again, so delete what
should be.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_kill import fresh_cache
from measured import stamped

from premortem.interp.embedded import fetch_model

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "real.json"
PAIRS = {"pandalm": None, "xstest": None, "hh-harmless": None, "alpacaeval": 2000}
"""Files, and how many of their pairs are read; None: all."""
_MEASURED = """
import resource, sys
from premortem.agent.cli import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def measure(name: str, most: int | None, folder: Path, work: Path) -> dict[str, Any]:
    """Run the agent on one file, twice, and return what it found; raises CalledProcessError when a run fails."""
    cache = fresh_cache(work / name)
    run, seconds, gigabytes = once(name, most, folder, work / f"{name}-1.db", cache)
    again, seconds_again, _ = once(name, most, folder, work / f"{name}-2.db", cache)
    rules = {clause["clause_id"]: clause["text"] for clause in run["clauses"]}
    findings = [
        {
            **{key: finding[key] for key in ("kind", "name", "topic", "effect")},
            "rule": rules.get(finding["clause_id"]),
            "rows": len(finding["rows"]),
            "first": finding["rows"][:5],
            "passed": sum(
                edit["verdict"]["passed"] for edit in run["edits"] if edit["finding_id"] == finding["finding_id"]
            ),
        }
        for finding in run["findings"]
    ]
    return {
        "data": name,
        "pairs": run["dataset"]["pairs"],
        "findings": findings,
        "edits": len(run["edits"]),
        "passed": sum(edit["verdict"]["passed"] for edit in run["edits"]),
        "tokens": run["cost"]["tokens_encoded"],
        "seconds": round(seconds, 1),
        "seconds_again": round(seconds_again, 1),
        "same_again": run["findings"] == again["findings"],
        "gigabytes": round(gigabytes, 1),
    }


def once(name: str, most: int | None, folder: Path, database: Path, cache: Path) -> tuple[dict[str, Any], float, float]:
    """Run the agent on one file; return its document, seconds, and the gigabytes that the process held at most."""
    command = [sys.executable, "-c", _MEASURED, "run", "--spec", str(HERE / "specs" / f"{name}.md")]
    command += ["--data", str(folder / f"{name}.jsonl"), "--db", str(database), "--json"]
    command += [] if most is None else ["--limit", str(most)]
    environment = {**os.environ, "PREMORTEM_CACHE": str(cache)}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    return json.loads(done.stdout), seconds, int(done.stderr.split()[-1]) / 2**20


def main() -> None:
    """Run the four and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the four files of pairs")
    arguments = parser.parse_args()
    fetch_model()
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    for name, most in PAIRS.items():
        if name in results:
            continue
        with tempfile.TemporaryDirectory() as work:
            results[name] = result = stamped(measure(name, most, arguments.pairs, Path(work)))
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        kinds = [finding["kind"] for finding in result["findings"]]
        print(
            f"{name}: {result['pairs']} pairs, {len(kinds) - kinds.count('surprise')} findings against a rule, "
            f"{kinds.count('surprise')} surprises, {result['passed']} of {result['edits']} edits passed, "
            f"{result['seconds']:.0f} s, again {result['seconds_again']:.0f} s, {result['gigabytes']} GB"
        )
        for finding in result["findings"]:
            what = f"{finding['kind']:9s} {finding['effect']:+.3f} {finding['rows']:4d} rows"
            print(f"  {what}, {finding['passed']:3d} edits  {finding['name']} | {finding['rule'] or '-'}", flush=True)


if __name__ == "__main__":
    main()
