"""Facts about rows that cannot be read: every command tells of them as soon as it has read the data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from premortem.agent.cli import app
from premortem.agent.opening import QUARANTINE, open_run, settings_without_spec
from premortem.interp import lens_check
from premortem.interp.pairs import left_out, read_dataset
from premortem.interp.progress import NullProgress
from tiny import chat_pair, write_model, write_sae

TOLD = "2 of 42 rows could not be read and are left out; row 1: not JSON"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write forty pairs and two lines that are none; caches go to the test's folder."""
    monkeypatch.setenv("PREMORTEM_CACHE", str(tmp_path / "cache"))
    pairs = [chat_pair(n, f"Tell me of otters {n}.", "Otters are fine! " * 3, "No otters.") for n in range(40)]
    lines = [pair.model_dump_json(include={"prompt", "chosen", "rejected"}) for pair in pairs]
    lines[1:1] = ["oops"]
    (tmp_path / "pairs.jsonl").write_text("".join(line + "\n" for line in [*lines, "{}"]))
    return str(tmp_path / "pairs.jsonl")


def test_the_line_names_count_reason_and_file(data: str) -> None:
    read = read_dataset(data)
    assert left_out(read).startswith(TOLD)
    assert left_out(read, Path("there.jsonl")).endswith("there.jsonl")
    assert left_out(read.model_copy(update={"quarantined": ()})) == ""


def test_a_run_tells_before_any_weights_are_loaded(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, sae = write_model(tmp_path / "model"), write_sae(tmp_path / "sae")
    settings = settings_without_spec({"data": data, "model": str(model), "sae": str(sae)})
    opened = open_run(settings, (), tmp_path / "runs", NullProgress())
    told = capsys.readouterr().err
    assert TOLD in told and str(opened.quarantine) in told
    assert opened.quarantine.name == QUARANTINE


def test_lens_check_and_lens_train_tell(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_check, "MOST_FVU", float("inf"))  # a random SAE reconstructs nothing
    model = ["--model", str(write_model(tmp_path / "model"))]
    check = ["lens", "check", data, *model, "--sae", str(write_sae(tmp_path / "sae"))]
    train = ["lens", "train", data, *model, "--layer", "1", "--features", "16", "--active", "4", "--epochs", "1"]
    for words in (check, [*train, "-o", str(tmp_path / "trained")]):
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exit_code == 0, result.output
        assert TOLD in result.stderr
        assert json.loads(result.stdout)["quarantined"] == 2
