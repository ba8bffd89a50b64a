"""The commands around a real model, on a handful of pairs: each must load what it names and say what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from test_cli import Agent, agent

pytestmark = [pytest.mark.model, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
PAIRS = str(ROOT / "runs" / "demo" / "pairs.jsonl")
SAE = str(ROOT / "interp" / "lenses" / "smollm2-main")

__all__ = ["agent"]


@pytest.fixture
def lens(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the options that name the embedded model and SAE by their folders; caches go to the test's folder."""
    monkeypatch.setenv("PREMORTEM_CACHE", str(tmp_path / "cache"))
    return ["--model", str(model_dir), "--sae", SAE]


def test_lens_check_measures_the_embedded_lens(agent: Agent, lens: list[str]):
    result = agent("lens", "check", PAIRS, *lens, "--limit", "4", "--json")
    fit = json.loads(result.stdout)
    assert fit["fvu"] <= 0.2 and fit["ce_recovered"] >= 0.9, fit
    assert fit["n_pairs"] == 4


def test_lens_check_refuses_a_lens_at_the_wrong_layer(agent: Agent, lens: list[str]):
    result = agent("lens", "check", PAIRS, *lens, "--layer", "29", "--limit", "4")
    assert result.exit_code == 1 and result.stdout == ""
    assert "error:" in result.stderr and "unexplained" in result.stderr
    assert "The SAE fits the output of layer 15 rather than 29" in " ".join(result.stderr.split())


def test_another_model_needs_an_sae(agent: Agent, model_dir: Path):
    result = agent("forecast", PAIRS, "--model", str(model_dir), "--limit", "4")
    assert result.exit_code == 1 and "needs an SAE: give --sae" in result.stderr


def test_forecast_prints_dataset_lens_and_forecast(agent: Agent, lens: list[str]):
    result = agent("forecast", PAIRS, *lens, "--limit", "24", "--json")
    document = json.loads(result.stdout)
    assert document.keys() == {"dataset", "lens", "forecast"}
    assert document["dataset"]["pairs"] == 24
    assert all(-1 <= concept["low"] <= concept["high"] <= 1 for concept in document["forecast"]["concepts"])


def test_lens_train_leaves_a_folder_that_lens_check_reads(agent: Agent, lens: list[str], tmp_path: Path):
    small = ["--layer", "2", "--features", "256", "--active", "16", "--limit", "40", "--epochs", "1"]
    result = agent("lens", "train", PAIRS, *lens[:2], *small, "-o", str(tmp_path / "sae"), "--json")
    (trained,) = json.loads(result.stdout)["lenses"]
    assert trained["layer"] == 2 and trained["recipe"]["d_sae"] == 256
    checked = agent("lens", "check", PAIRS, *lens[:2], "--sae", trained["path"], "--limit", "2")
    assert checked.exit_code in (0, 1) and "Traceback" not in checked.output
