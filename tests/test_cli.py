"""Facts about the command line: what every command promises, and what becomes of an error."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner, Result

from fake_bench import TOOLS, FakeBench, VerifyArgs
from premortem.agent import opening
from premortem.agent.cli import app
from premortem.agent.progress import TerminalProgress
from premortem.agent.runs import RunInputs, identify
from premortem.agent.store import Store
from premortem.agent.summary import finding_views
from premortem.agent.toolbox import LazyTools
from premortem.interp import pairs
from premortem.interp.errors import DataError
from premortem.interp.pairs import read_dataset
from premortem.interp.records import LensSummary
from scripted_llm import CANARY

HEAVY = ("torch", "transformers", "sae_lens", "langgraph", "pyarrow", "datasets", "sqlite_utils", "numpy", "openai")

Agent = Callable[..., Result]


def commands() -> Iterator[tuple[list[str], Any]]:
    """Return every command with its words."""

    def walk(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, [*words, name])
        if not hasattr(command, "commands"):
            yield words, command

    return walk(get_command(app), [])


COMMANDS = list(commands())
WORDS = [" ".join(words) for words, _ in COMMANDS]


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """Return a function that runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("PREMORTEM_DEBUG", raising=False)
    return lambda *words, **options: CliRunner().invoke(app, list(words), **options)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBench:
    """Write a spec and pairs to the folder, and let `agent run` work on them without a model."""
    made = FakeBench()
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in made.dataset.pairs]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "spec.md").write_text("---\ndata: pairs.jsonl\n---\n- Never say ahoy.\n")

    def open_run(settings: Any, clauses: Any, runs_dir: Path, progress: Any, *, layer: int | None = None) -> Any:
        made.dataset = read_dataset(settings.data, limit=settings.limit)
        inputs = RunInputs(dataset_sha256=made.dataset.sha256, model_digest="m", lens_ids=("l1", "l2"))
        return opening.Opened(identify(settings, inputs), inputs, lambda _: made, runs_dir / opening.QUARANTINE, ())

    monkeypatch.setattr(opening, "open_run", open_run)
    monkeypatch.setattr(LazyTools, "__getitem__", lambda self, name: TOOLS[name])
    return made


def run_id_of(result: Result) -> str:
    return str(json.loads(result.stdout)["run_id"])


def test_help_loads_nothing_heavy():
    program = "import sys, premortem.agent.cli; print(*[name for name in sys.argv[1:] if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_commands_are_those_of_the_design():
    one_word = ["run", "forecast", "validate", "review", "export", "recording", "report", "runs", "show"]
    assert sorted(WORDS) == sorted([*one_word, "models fetch", "lens train", "lens check"])


@pytest.mark.parametrize("words", WORDS)
def test_every_command_has_json_and_help_with_an_example(words: str, agent: Agent):
    result = agent(*words.split(), "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert f"Example: agent {words}" in " ".join(result.stdout.split())


@pytest.mark.parametrize("words", WORDS)
def test_every_option_says_what_it_does(words: str):
    command = next(command for found, command in COMMANDS if " ".join(found) == words)
    assert command.help
    assert [param.name for param in command.params if not getattr(param, "help", None)] == []


@pytest.mark.parametrize("words", [w for w in WORDS if not w.startswith(("models", "lens"))])
def test_every_command_says_where_things_go(words: str):
    command = next(command for found, command in COMMANDS if " ".join(found) == words)
    options = {option for param in command.params for option in param.opts}
    assert "--runs-dir" in options
    assert "--db" in options or words in ("forecast", "validate")


def test_a_run_prints_its_findings_and_what_comes_next(agent: Agent, bench: FakeBench):
    result = agent("run", "--spec", "spec.md")
    assert result.exit_code == 0, result.output
    for part in ("rule 0", "+10.0", "forbidden", "agent review", "agent report", "agent export"):
        assert part in result.stdout


def test_a_run_begins_by_telling_how_it_understood_the_spec(agent: Agent, bench: FakeBench, tmp_path: Path):
    bullets = ("Never swear.", "Keep declining requests to cheat.", "Every answer names its source.")
    bullets += ("We are a small team in Leeds.",)
    front = "---\nlimits: {swear: 1%, flattery: 5%}\n---\n"
    (tmp_path / "rules.md").write_text(front + "".join(f"- {bullet}\n" for bullet in bullets))
    result = agent("run", "--spec", "rules.md", "--data", "pairs.jsonl")
    assert result.stderr.splitlines()[:5] == [
        "rule read (avoid, limit 0.01): Never swear.",
        "rule read (keep, limit 0.01): Keep declining requests to cheat.",
        "rule read (encourage, limit 0.01): Every answer names its source.",
        "note: no rule was read from “We are a small team in Leeds.”; a rule says what answers should or should not do",
        "note: no rule holds “flattery”, so what the front matter sets for it applies to none",
    ]


def test_a_run_as_json_is_one_document_and_show_prints_the_same(agent: Agent, bench: FakeBench):
    result = agent("run", "--spec", "spec.md", "--json")
    document = json.loads(result.stdout)
    assert document["status"] == "done"
    assert {"run_id", "dataset", "lens", "clauses", "forecast", "findings", "edits", "cost"} <= document.keys()
    for name in ("last", document["run_id"], document["run_id"][:6]):
        assert json.loads(agent("show", name, "--json").stdout) == document


def test_last_is_the_run_that_was_asked_for_last(agent: Agent, bench: FakeBench, tmp_path: Path):
    (tmp_path / "other.md").write_text("- Never swear.\n")
    asked = ("run", "--data", "pairs.jsonl", "--json", "--spec")
    first, second = (json.loads(agent(*asked, spec).stdout)["run_id"] for spec in ("spec.md", "other.md"))
    assert json.loads(agent("show", "--json").stdout)["run_id"] == second != first
    agent(*asked, "spec.md")
    assert json.loads(agent("show", "--json").stdout)["run_id"] == first


def test_a_run_keeps_to_its_own_data_where_another_file_has_the_same_name(
    agent: Agent, bench: FakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    agent("run", "--spec", "spec.md")
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "pairs.jsonl").write_text('{"prompt": "Why?", "chosen": "So.", "rejected": "Thus."}\n')
    monkeypatch.chdir(tmp_path / "next")
    result = agent("export", "-o", "out.jsonl", "--runs-dir", "../runs")
    assert result.exit_code == 0, result.output
    assert len(Path("out.jsonl").read_text().splitlines()) > 1


def test_options_beat_the_spec(agent: Agent, bench: FakeBench, tmp_path: Path):
    (tmp_path / "pairs.jsonl").rename(tmp_path / "other.jsonl")
    document = json.loads(agent("run", "--spec", "spec.md", "--data", "other.jsonl", "--json").stdout)
    assert document["dataset"]["path"] == "other.jsonl"


def test_fail_on_asks_about_the_data_as_it_is_or_with_the_edits(agent: Agent, bench: FakeBench):
    assert agent("run", "--spec", "spec.md").exit_code == 0
    assert agent("run", "--spec", "spec.md", "--fail-on", "finding").exit_code == 3
    left = json.loads(agent("show", "--json").stdout)["forecast_after"]["findings"]
    broken = any(finding["kind"] != "surprise" for finding in left)
    assert agent("run", "--spec", "spec.md", "--fail-on", "violation").exit_code == (3 if broken else 0)


def test_an_interruption_exits_with_130_and_the_same_command_goes_on(
    agent: Agent, bench: FakeBench, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(bench: FakeBench, args: VerifyArgs) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(TOOLS, "verify_edits", interrupted)
        result = agent("run", "--spec", "spec.md", "--json")
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    assert json.loads(result.stdout)["status"] == "interrupted"
    assert json.loads(agent("run", "--spec", "spec.md", "--json").stdout)["status"] == "done"


def test_an_expected_error_is_one_line(agent: Agent):
    result = agent("run", "--spec", "missing.md")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: missing.md: no such file")
    assert result.stderr.count("\n") == 1


def test_an_unexpected_error_is_one_line_and_the_traceback_is_in_the_log(
    agent: Agent, bench: FakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(opening, "open_run", broken)
    result = agent("run", "--spec", "spec.md", "--runs-dir", "elsewhere")
    assert result.exit_code == 1
    assert "error: ZeroDivisionError: first line (details in elsewhere/premortem.log)" in result.stderr
    assert "Traceback" not in result.output
    assert "Traceback" in (tmp_path / "elsewhere" / "premortem.log").read_text()
    monkeypatch.setenv("PREMORTEM_DEBUG", "1")
    assert isinstance(agent("run", "--spec", "spec.md").exception, ZeroDivisionError)


def test_the_key_is_neither_in_the_line_nor_in_the_log_of_an_unexpected_error(
    agent: Agent, bench: FakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any, **__: Any) -> Any:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise ZeroDivisionError(f"the key {CANARY} divides nothing") from error

    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setattr(sys, "argv", ["agent", "--header", CANARY])
    monkeypatch.setattr(opening, "open_run", broken)
    result = agent("run", "--spec", "spec.md", "--runs-dir", "elsewhere")
    log = (tmp_path / "elsewhere" / "premortem.log").read_text()
    assert "error: ZeroDivisionError: the key [redacted] divides nothing" in result.stderr
    assert "$ agent --header [redacted]\nTraceback" in log
    assert "KeyError: '[redacted]'" in log
    assert CANARY not in result.output + log


def test_control_characters_in_an_error_are_shown(agent: Agent, bench: FakeBench, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise DataError("bad\x1b[2Jname")

    monkeypatch.setattr(opening, "open_run", broken)
    assert "\x1b" not in agent("run", "--spec", "spec.md").stderr


@pytest.mark.parametrize(
    "words",
    [("bogus",), ("run",), ("run", "--spec", "s.md", "--forecaster", "tarot"), ("run", "--spec", "s.md", "--map", "x")],
)
def test_usage_errors_exit_with_2(agent: Agent, words: tuple[str, ...]):
    assert agent(*words).exit_code == 2


def test_nothing_to_show_is_said_in_one_line(agent: Agent):
    assert "holds no run yet" in agent("show").stderr
    assert json.loads(agent("runs", "--json").stdout) == []
    assert "No runs yet" in agent("runs").stdout


READING = [["runs"], ["show"], ["report"], ["recording", "-o", "f"], ["export", "-o", "f"], ["review"]]


@pytest.mark.parametrize("words", [*READING, ["validate", "last"]])
def test_a_command_that_only_looks_at_runs_creates_nothing(words: list[str], agent: Agent, tmp_path: Path):
    told = agent(*words, "--runs-dir", "elsewhere")
    assert "elsewhere/premortem.db" in told.output and "--runs-dir" in told.output
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_run_is_an_error_that_says_where_to_look_else(agent: Agent, bench: FakeBench):
    agent("run", "--spec", "spec.md")
    result = agent("show", "zzz")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "--runs-dir" in result.stderr


@pytest.mark.parametrize("words", [["run", "--spec", "spec.md"], ["show"], ["review"]])
@pytest.mark.parametrize("place", [[], ["--runs-dir", "my runs"], ["--runs-dir", "there", "--db", "x.db"]])
def test_the_next_commands_lead_to_the_same_runs(words: list[str], place: list[str], agent: Agent, bench: FakeBench):
    agent("run", "--spec", "spec.md", *place)
    said = [line.rstrip() for line in agent(*words, *place, input="q").output.splitlines()]
    following = [
        line.partition("agent ")[2].partition("   ")[0] for line in said if "  agent " in line or "go on" in line
    ]
    assert following
    for command in following:
        assert shlex.split(command)[-len(place) :] == place if place else "--" not in command
        typed = shlex.split(command.replace("FILE", "out.jsonl"))
        assert agent(*typed, input="q").exit_code == 0


def test_runs_lists_what_was_run(agent: Agent, bench: FakeBench):
    run_id = run_id_of(agent("run", "--spec", "spec.md", "--json"))
    assert run_id in agent("runs").stdout
    assert [row["run_id"] for row in json.loads(agent("runs", "--json").stdout)] == [run_id]


def test_a_report_goes_to_the_runs_folder_or_where_asked(agent: Agent, bench: FakeBench, tmp_path: Path):
    run_id = run_id_of(agent("run", "--spec", "spec.md", "--json"))
    assert agent("report").stdout.strip() == f"runs/{run_id}/report.html"
    assert "rule 0" in (tmp_path / "runs" / run_id / "report.html").read_text()
    for _ in range(2):
        assert json.loads(agent("report", "last", "-o", "r.html", "--json").stdout)["path"] == "r.html"


def test_a_report_never_takes_the_place_of_another_file(agent: Agent, bench: FakeBench, tmp_path: Path):
    agent("run", "--spec", "spec.md")
    before = (tmp_path / "spec.md").read_text()
    refused = agent("report", "last", "-o", "spec.md")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "spec.md: exists already and is not overwritten" in refused.stderr
    assert (tmp_path / "spec.md").read_text() == before


def test_reviews_by_option_are_listed_and_checked(agent: Agent, bench: FakeBench):
    agent("run", "--spec", "spec.md")
    edits = json.loads(agent("review", "--json").stdout)["edits"]
    passed = [edit["edit_id"] for edit in edits if edit["verdict"]["passed"]]
    assert agent("review", "--accept", passed[0], "--reject", "nonsense").exit_code == 1
    assert not any(edit["review"] for edit in json.loads(agent("review", "--json").stdout)["edits"])
    agent("review", "--reject", passed[0], "--reviewer", "ana")
    after = json.loads(agent("review", "--accept-passed", "--json").stdout)["edits"]
    decisions = {edit["edit_id"]: edit["review"]["decision"] for edit in after if edit["review"]}
    assert decisions == {passed[0]: "reject", **dict.fromkeys(passed[1:], "accept")}


def test_edits_of_an_unfinished_run_are_not_accepted_by_the_dozen(agent: Agent, bench: FakeBench, tmp_path: Path):
    run_id = json.loads(agent("run", "--spec", "spec.md", "--json").stdout)["run_id"]
    with Store(tmp_path / "runs" / "premortem.db") as store:
        store.set_status(run_id, "interrupted")
    refused = agent("review", "--accept-passed")
    assert refused.exit_code == 1
    assert "have not been judged together yet" in refused.stderr
    assert not any(edit["review"] for edit in json.loads(agent("review", "--json").stdout)["edits"])


def test_what_a_person_rejects_is_broken_again(agent: Agent, bench: FakeBench):
    command = ("run", "--spec", "spec.md", "--fail-on", "violation")
    before = agent(*command)
    edits = json.loads(agent("review", "--json").stdout)["edits"]
    passed = [edit for edit in edits if edit["verdict"]["passed"]]
    agent("review", "--reject", passed[0]["edit_id"])
    after = agent(*command)
    assert after.exit_code == 3
    assert after.stderr.count("the forecast breaks") == before.stderr.count("the forecast breaks") + 1
    views = finding_views(json.loads(agent("show", "--json").stdout))
    undone = next(view for view in views if "1 of its edits were rejected since" in view.outcome_reason)
    assert (undone.finding_id, undone.outcome) == (passed[0]["finding_id"], "unfixed")
    exported = agent("export", "-o", "out.jsonl")
    assert "1 edits that passed are not in it, and 0 in it did not pass" in exported.stderr
    assert not json.loads(Path("out.jsonl.manifest.json").read_text())["as_forecast"]


def test_a_row_takes_one_accepted_edit(agent: Agent, bench: FakeBench):
    agent("run", "--spec", "spec.md")
    edits = json.loads(agent("review", "--json").stdout)["edits"]
    passed = {edit["row"]: edit["edit_id"] for edit in edits if edit["verdict"]["passed"]}
    refused = next(edit for edit in edits if not edit["verdict"]["passed"] and edit["row"] in passed)
    rival = passed[refused["row"]]
    assert agent("review", "--accept", refused["edit_id"]).exit_code == 0
    second = agent("review", "--accept", rival)
    assert second.exit_code == 1
    assert all(word in second.stderr for word in (f"row {refused['row']}", rival, refused["edit_id"], "reject one"))
    after = json.loads(agent("review", "--accept-passed", "--json").stdout)["edits"]
    assert {edit["edit_id"] for edit in after if edit["review"]} == {refused["edit_id"], *passed.values()} - {rival}
    written = json.loads(agent("export", "-o", "out.jsonl", "--json").stdout)["edits"]
    assert [edit["edit_id"] for edit in written if edit["row"] == refused["row"]] == [refused["edit_id"]]
    assert agent("review", "--accept", rival, "--reject", refused["edit_id"]).exit_code == 0


def test_a_review_in_the_terminal_is_saved_key_by_key(agent: Agent, bench: FakeBench):
    agent("run", "--spec", "spec.md")
    result = agent("review", "--reviewer", "ana", input="a\nr\nq\n")
    assert "1 accept, 0 modify, 1 reject" in result.stderr
    made = [edit["review"] for edit in json.loads(agent("review", "--json").stdout)["edits"] if edit["review"]]
    assert [(review["decision"], review["reviewer"]) for review in made] == [("accept", "ana"), ("reject", "ana")]


def test_an_export_applies_what_passed_and_nobody_rejected(agent: Agent, bench: FakeBench, tmp_path: Path):
    agent("run", "--spec", "spec.md")
    edits = json.loads(agent("review", "--json").stdout)["edits"]
    passed = [edit for edit in edits if edit["verdict"]["passed"]]
    agent("review", "--reject", passed[0]["edit_id"])
    document = json.loads(agent("export", "-o", "out.jsonl", "--json").stdout)
    assert len(document["edits"]) == len(passed) - 1
    assert passed[0]["edit_id"] not in [edit["edit_id"] for edit in document["edits"]]
    assert (tmp_path / "out.jsonl").exists()
    assert agent("export", "last", "-o", "out.jsonl").exit_code == 1


def test_reviewed_only_exports_only_what_a_person_accepted(agent: Agent, bench: FakeBench):
    agent("run", "--spec", "spec.md")
    nothing = json.loads(agent("export", "-o", "a.jsonl", "--reviewed-only", "--json").stdout)
    assert nothing["edits"] == []
    edits = json.loads(agent("review", "--json").stdout)["edits"]
    one = next(edit["edit_id"] for edit in edits if edit["verdict"]["passed"])
    agent("review", "--accept", one)
    document = json.loads(agent("export", "-o", "b.jsonl", "--reviewed-only", "--json").stdout)
    assert [edit["edit_id"] for edit in document["edits"]] == [one]


def test_an_export_says_how_many_rows_the_limit_of_the_run_left_out(agent: Agent, bench: FakeBench, tmp_path: Path):
    count = len((tmp_path / "pairs.jsonl").read_text().splitlines())
    agent("run", "--spec", "spec.md", "--limit", str(count))
    assert "--limit" not in agent("export", "-o", "whole.jsonl").stderr
    with (tmp_path / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "new", "chosen": "c", "rejected": "r"}\n' * 3)
    agent("run", "--spec", "spec.md", "--limit", str(count))
    assert "3 rows beyond the run's --limit are NOT in this file" in agent("export", "-o", "out.jsonl").stderr


@pytest.mark.parametrize("limit", [None, 8, 9])
def test_an_export_from_the_hub_says_that_the_limit_left_rows_out(
    limit: int | None, agent: Agent, bench: FakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A hub dataset is not counted beyond the limit; where it ended before, nothing was left out."""
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()[:8]]
    monkeypatch.setattr(pairs, "read_hub", lambda *names: iter(rows))
    bench.findings, bench.clauses = (), ()
    agent("run", "--spec", "spec.md", "--data", "some/pairs", *(["--limit", str(limit)] if limit else []))
    result = agent("export", "-o", "out.jsonl")
    assert result.exit_code == 0, result.stderr
    assert ("rows beyond the run's --limit of 8 are NOT in this file" in result.stderr) == (limit == 8)


def test_an_export_of_changed_data_is_refused(agent: Agent, bench: FakeBench, tmp_path: Path):
    agent("run", "--spec", "spec.md")
    with (tmp_path / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "new", "chosen": "c", "rejected": "r"}\n')
    result = agent("export", "-o", "out.jsonl")
    assert result.exit_code == 1 and "has changed since" in result.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_forecast_prints_the_three_parts(agent: Agent, monkeypatch: pytest.MonkeyPatch):
    bench = FakeBench()
    document = {
        "dataset": {"path": "p.jsonl", "pairs": 40, "quarantined": 0, "sha256": "0", "notes": []},
        "lens": LensSummary(model="tiny", hook="h", sae="s", fvu=0.1, l0=20.0).model_dump(),
        "forecast": TOOLS["forecast_concepts"](bench, type("Args", (), {"edits": (), "forecaster": None})()).forecast,
    }
    document["forecast"] = document["forecast"].model_dump(mode="json")

    def chatty(*_: Any, **__: Any) -> Any:
        print("a library that prints")
        return document

    monkeypatch.setattr(opening, "forecast_only", chatty)
    assert json.loads(agent("forecast", "p.jsonl", "--json").stdout).keys() == {"dataset", "lens", "forecast"}
    assert "concept 0" in agent("forecast", "p.jsonl").stdout


def test_progress_writes_one_line_per_outer_stage_elsewhere_than_a_terminal():
    console = Console(file=(out := io.StringIO()), force_terminal=False)
    progress = TerminalProgress(console)
    with progress.stage("outer [x]", total=2) as stage, progress.stage("inner"):
        stage.advance(2)
    lines = out.getvalue().splitlines()
    assert len(lines) == 1 and lines[0].startswith("outer [x] (") and "2 steps" in lines[0]


def test_progress_on_a_terminal_leaves_one_line_too():
    console = Console(file=(out := io.StringIO()), force_terminal=True, width=100)
    with TerminalProgress(console).stage("outer [x]", total=2) as stage:
        stage.advance(1)
    assert "outer [x]" in out.getvalue()


def test_the_help_of_lens_train_tells_the_recipe_s_own_defaults():
    from premortem.interp.lens_train import Recipe

    command = next(command for found, command in COMMANDS if found == ["lens", "train"])
    defaults = {param.name: param.default for param in command.params}
    recipe = Recipe()
    assert (defaults["active"], defaults["epochs"], defaults["seed"]) == (recipe.k, recipe.epochs, recipe.seed)
    assert str(recipe.d_sae) in next(param.help for param in command.params if param.name == "features")
