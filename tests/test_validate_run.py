"""What `agent validate` takes over of a run: its data where it lies, unchanged, its rules, and what it had found."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from premortem.agent import validation
from premortem.agent.cli import app
from premortem.agent.runs import RunSettings
from premortem.agent.store import Store
from premortem.agent.validation import OfRun, _made_anew
from premortem.interp.errors import DataError, NoPairs
from premortem.interp.progress import NullProgress
from premortem.interp.records import Dataset, Finding
from premortem.interp.training import TrainingSettings
from tiny import chat_pair

Asked = list[tuple[RunSettings, OfRun | None]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Return what the command asks for; nothing is validated."""
    seen: Asked = []

    def caught(settings: RunSettings, *_: object, run: OfRun | None = None, **__: object) -> dict:
        seen.append((settings, run))
        raise NoPairs("that will do")

    monkeypatch.setattr(validation, "validate", caught)
    return seen


def begin(cwd: Path, **settings: Any) -> None:
    """Write the row of a run that was started in `cwd` and has read its data."""
    named = RunSettings(spec_path="s.md", spec_text="", **settings).model_dump(mode="json") | {"cwd": str(cwd)}
    pair = chat_pair(0, "a", "b", "c")
    dataset = Dataset(path=settings["data"], sha256="0" * 64, form="conversational", pairs=(pair,))
    with Store(Path("x.db")) as store:
        store.begin_run("abc123", spec="", settings=named, forecaster="logit")
        store.save_dataset("abc123", dataset)
        store.set_status("abc123", "done")


def validate(*words: str) -> None:
    CliRunner().invoke(app, ["validate", "abc", "--db", "x.db", *words])


def test_what_a_run_names_is_looked_for_where_the_run_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        (folder / "model").mkdir(parents=True)
        (folder / "pairs.jsonl").touch()
    monkeypatch.chdir(here)
    begin(there, data="pairs.jsonl", model="model", sae="release:id", second_sae=str(here / "model"))
    validate()
    settings, run = asked[0]
    assert (settings.data, settings.model) == (str(there / "pairs.jsonl"), str(there / "model"))
    assert (settings.sae, settings.second_sae) == ("release:id", str(here / "model"))
    assert run is not None and (run.run_id, run.dataset_sha256) == ("abc123", "0" * 64)
    begin(here, data="pairs.jsonl", model="model")
    validate()
    assert (asked[1][0].data, asked[1][0].model) == ("pairs.jsonl", "model")


def test_the_embedded_model_is_no_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    (tmp_path / "there" / "smollm2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    begin(tmp_path / "there", data="org/name")
    validate()
    assert (asked[0][0].data, asked[0][0].model) == ("org/name", "smollm2")


def test_only_another_part_of_the_data_may_be_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    monkeypatch.chdir(tmp_path)
    for data in ("pairs.jsonl", "org/name"):
        begin(tmp_path, data=data)
        Path("pairs.jsonl").touch()
        for words in ((), ("--split", "train"), ("--split", "test"), ("--limit", "9")):
            validate(*words)
    held = [run is not None and run.dataset_sha256 is not None for _, run in asked]
    assert held == [True, True, False, True, True, True, False, False]  # of a file the hash is that of all its lines


def test_data_that_has_changed_since_the_run_read_it_is_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = SimpleNamespace(path="pairs.jsonl", sha256="new")
    monkeypatch.setattr(validation, "require_trl", lambda: None)
    monkeypatch.setattr(validation, "data_and_lens", lambda *_, **__: (dataset, None))
    settings = RunSettings(spec_path="", spec_text="", data="pairs.jsonl")
    with pytest.raises(DataError, match=r"pairs.jsonl has changed since run abc123 read it"):
        validation.validate(settings, TrainingSettings(), NullProgress(), run=OfRun("abc123", "old", (), ()))


def finding(clause_id: str | None, rows: tuple[int, ...], kind: Any = "forbidden") -> Finding:
    return Finding(
        finding_id=f"{clause_id} {rows}", clause_id=clause_id, concept_id="c", kind=kind, name="n", topic=None,
        effect=0.4, low=0.3, high=0.5, rows=rows,
    )  # fmt: skip


def test_findings_of_the_run_that_are_not_held_against_training_are_counted() -> None:
    told = [{"clause_id": "a", "rows": [1, 2, 3, 4]}, {"clause_id": None, "rows": [7, 8]}]
    same, elsewhere, narrow = finding("a", (1, 2, 90, 91, 92)), finding("b", (1, 2, 3, 4)), finding("a", (1,))
    surprise, injection = finding(None, (7, 8, 9), "surprise"), finding(None, (5,), "injection")
    (note,) = _made_anew([same, elsewhere, narrow, surprise, injection], told, set(range(20)))
    assert note.endswith("make of the pairs trained on; 2 of the run's 4 findings are not among them")
    assert "; 0 of the run's 2 findings" in _made_anew([same, surprise], told, set(range(20)))[0]
    assert _made_anew([injection], told, set(range(20))) == _made_anew([], told, set()) == []
