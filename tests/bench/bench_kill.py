"""Does a run that is killed at a random moment and given again export the same bytes? `make bench-kill`

The demo is run once to its end and exported. Then, TIMES over, it is run in a folder of its own, killed by SIGKILL at a
random moment, given again, and exported; every fourth time with nothing encoded, sampled or scored before. A run that
has ended before its moment was not killed: it is run in a new folder, and the moment drawn again. Prints the moment of
each kill, and whether the export's sha256 is the one of the first run.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measured import stamped

from premortem.interp.cache_home import cache_home
from premortem.interp.embedded import fetch_model

SPEC = Path(__file__).parents[2] / "runs" / "demo" / "spec.md"
AGENT = Path(sys.executable).with_name("agent")
TRIES = 10
"""Moments drawn for one kill at most."""


def agent(*arguments: str, cache: Path) -> subprocess.Popen[bytes]:
    """Start a command of the tool."""
    environment = {**os.environ, "PREMORTEM_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [str(AGENT), *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def run(folder: Path, cache: Path) -> subprocess.Popen[bytes]:
    """Start the demo, with its runs in `folder`."""
    return agent("run", "--spec", str(SPEC), "--runs-dir", str(folder), "--json", cache=cache)


def exported(folder: Path, cache: Path) -> str:
    """Export the last run of `folder` and return the sha256 of the file."""
    path = folder / "export.jsonl"
    if agent("export", "last", "-o", str(path), "--runs-dir", str(folder), cache=cache).wait() != 0:
        return "not exported"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fresh_cache(folder: Path) -> Path:
    """Return a cache that holds the model and nothing else."""
    cache = folder / "cache"
    cache.mkdir(parents=True)
    (cache / "models").symlink_to(cache_home() / "models")
    return cache


def killed(root: Path, warm: Path | None, longest: float, chance: random.Random) -> tuple[float, Path, Path]:
    """Kill a run while it is at work; return the second of the kill, the run's folder and its cache.

    `warm`: a cache that holds everything; None: each try has a fresh one. `longest`: the latest second to draw.
    """
    for number in range(TRIES):
        folder = root / f"try-{number}"
        cache = warm or fresh_cache(folder)
        process = run(folder, cache)
        moment = chance.uniform(1.0, longest)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            return moment, folder, cache
        print(f"the run had ended before second {moment:.1f}; drawn again", flush=True)
    raise SystemExit(f"{TRIES} runs in a row had ended before they could be killed")


def main() -> None:
    """Kill and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write what happened to this file")
    arguments = parser.parse_args()
    fetch_model()
    chance = random.Random(arguments.seed)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        warm = fresh_cache(root / "warm")
        started = time.monotonic()
        run(root / "first", warm).wait()
        cold_seconds = time.monotonic() - started
        expected = exported(root / "first", warm)
        started = time.monotonic()
        run(root / "second", warm).wait()
        warm_seconds = time.monotonic() - started
        print(
            f"{cold_seconds:.0f} s with nothing encoded, {warm_seconds:.0f} s with everything; {expected}", flush=True
        )
        for number in range(arguments.times):
            cold = number % 4 == 3
            longest = cold_seconds if cold else warm_seconds
            moment, folder, cache = killed(root / f"run-{number}", None if cold else warm, longest, chance)
            run(folder, cache).wait()
            rows.append({"second": round(moment, 1), "cold": cold, "same": exported(folder, cache) == expected})
            print(rows[-1], flush=True)
    print(f"{sum(row['same'] for row in rows)} of {len(rows)} exports are the same")
    if arguments.json:
        result = {"expected": expected, "seconds": [round(cold_seconds), round(warm_seconds)], "kills": rows}
        arguments.json.write_text(json.dumps(stamped(result), indent=1) + "\n", "utf-8")
    sys.exit(0 if all(row["same"] for row in rows) else 1)


if __name__ == "__main__":
    main()
