"""The demo, as a newcomer runs it: real model, real SAE, real command, and the truth at the end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
TRUTH = json.loads((Path(__file__).parent / "demo" / "truth.json").read_text("utf-8"))

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(900)]


def agent(*arguments: object, folder: Path) -> dict[str, Any]:
    """Run a command with --json and return its document."""
    command = [sys.executable, "-m", "premortem.agent", *map(str, arguments), "--json", "--runs-dir", str(folder)]
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder: Path) -> dict[str, Any]:
    return agent("run", "--spec", ROOT / "runs/demo/spec.md", folder=folder)


def best_match(run: dict[str, Any], bug: str) -> tuple[dict[str, Any], float, float]:
    """Return the finding that fits `bug` best, with precision and recall of its rows."""
    truth = set(TRUTH[bug])

    def fit(finding: dict[str, Any]) -> tuple[float, float]:
        rows = set(finding["rows"])
        return len(rows & truth) / len(rows), len(rows & truth) / len(truth)

    finding = max(run["findings"], key=lambda f: min(fit(f)))
    return finding, *fit(finding)


@pytest.mark.parametrize(
    ("bug", "kind"),
    [
        ("goblins", "forbidden"),
        ("links", "forbidden"),
        ("flattery", "forbidden"),
        ("fiction", "forbidden"),
        ("pond", "surprise"),
    ],
)
def test_each_planted_behaviour_is_a_finding_with_its_rows(run: dict[str, Any], bug: str, kind: str) -> None:
    finding, precision, recall = best_match(run, bug)
    assert finding["kind"] == kind
    assert precision >= 0.9
    assert recall >= 0.8


def test_the_suppressed_behaviour_has_a_negative_effect(run: dict[str, Any]) -> None:
    assert best_match(run, "fiction")[0]["effect"] < 0 < best_match(run, "goblins")[0]["effect"]


def test_every_forbidden_finding_has_edits_that_passed_together(run: dict[str, Any]) -> None:
    passed = {edit["finding_id"] for edit in run["edits"] if edit["verdict"]["passed"]}
    assert {f["finding_id"] for f in run["findings"] if f["kind"] == "forbidden"} <= passed
    for edit in run["edits"]:
        assert edit["verdict"]["reasons"]
        if edit["verdict"]["passed"]:
            assert abs(edit["verdict"]["effect_after"]) < abs(edit["verdict"]["effect_before"])
            assert edit["verdict"]["second_lens"] is not None


def test_the_lens_fits_the_demo(run: dict[str, Any]) -> None:
    assert run["lens"]["fvu"] <= 0.20
    assert run["lens"]["l0"] <= 64


def test_the_exported_data_holds_no_forbidden_finding(run: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "fixed.jsonl"
    agent("export", run["run_id"], "-o", target, folder=folder)
    again = agent("run", "--spec", ROOT / "runs/demo/spec.md", "--data", target, "--fail-on", "finding", folder=folder)
    assert [finding for finding in again["findings"] if finding["kind"] == "forbidden"] == []


def test_the_data_without_the_bugs_holds_no_forbidden_finding(folder: Path, model_dir: Path) -> None:
    clean = ROOT / "tests/demo/clean.jsonl"
    document = agent("run", "--spec", ROOT / "runs/demo/spec.md", "--data", clean, folder=folder)
    assert [finding for finding in document["findings"] if finding["kind"] == "forbidden"] == []
    assert document["status"] == "done"


def test_the_same_command_again_shows_the_same_run(run: dict[str, Any], folder: Path) -> None:
    again = agent("run", "--spec", ROOT / "runs/demo/spec.md", folder=folder)
    assert again["run_id"] == run["run_id"]
    assert again["edits"] == run["edits"]
