"""Facts about the data and the model that a command names, before any weights are loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fake_bench import FakeBench
from premortem.agent import validation
from premortem.agent.opening import data_and_model, settings_without_spec
from premortem.interp.errors import DataError, NoPairs
from premortem.interp.progress import NullProgress
from test_cli import COMMANDS, Agent, agent, bench
from tiny import write_model

__all__ = ["agent", "bench"]

ROW = {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."}
READERS = [" ".join(words) for words, _ in COMMANDS if " ".join(words) in ("run", "forecast", "validate")]
READERS += ["lens train", "lens check"]


@pytest.fixture
def asked_of_hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for the hub, which has nothing; return what it was asked for."""
    datasets = pytest.importorskip("datasets")
    asked: list[dict[str, Any]] = []

    def load(path: str, **options: Any) -> None:
        asked.append({"path": path, **options})
        raise ConnectionError("no such split")

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model whose tokenizer has no chat template."""
    folder = write_model(tmp_path_factory.mktemp("base") / "model")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("words", READERS)
def test_every_command_that_takes_a_hub_id_takes_its_part_and_its_error_names_the_options(
    words: str, agent: Agent, asked_of_hub: list[dict[str, Any]]
):
    Path("spec.md").write_text("- Never say ahoy.\n")
    more = {"run": ["--spec", "spec.md", "--data"], "lens train": ["--layer", "1", "-o", "sae"]}
    part = ["--split", "test", "--config", "en", "--revision", "abc"]
    result = agent(*words.split(), *more.get(words, []), "org/name", *part)
    assert result.exit_code == 1
    (asked,) = asked_of_hub
    assert {"path": "org/name", "split": "test", "name": "en", "revision": "abc"}.items() <= asked.items()
    assert re.search(r"no such split.*--split test; --split, --config and --revision", " ".join(result.stderr.split()))


@pytest.mark.parametrize(("options", "split"), [([], "dev"), (["--split", "test"], "test")])
def test_a_validation_takes_a_run_s_own_split_unless_another_is_given(
    options: list[str], split: str, agent: Agent, bench: FakeBench, monkeypatch: pytest.MonkeyPatch
):
    seen: list[str] = []

    def stop(settings: Any, *_: Any, **__: Any) -> None:
        seen.append(settings.split)
        raise DataError("far enough")

    monkeypatch.setattr(validation, "validate", stop)
    assert agent("run", "--spec", "spec.md", "--split", "dev").exit_code == 0
    assert "far enough" in agent("validate", "last", *options).stderr
    assert seen == [split]


def test_an_error_of_a_local_file_does_not_speak_of_the_hub(agent: Agent):
    result = agent("forecast", "pairs.jsonl")
    assert result.exit_code == 1 and "no such file" in result.stderr and "--split" not in result.stderr


def test_messages_without_a_chat_template_ask_for_an_instruct_model_or_plain_strings(base_model: Path, tmp_path: Path):
    messages = {side: [{"role": "assistant", "content": ROW[side]}] for side in ("chosen", "rejected")}
    talk = {"prompt": [{"role": "user", "content": "Hi?"}], **messages}
    for name, row in (("talk", talk), ("plain", ROW)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    settings = settings_without_spec({"data": str(tmp_path / "talk.jsonl"), "model": str(base_model)})
    with pytest.raises(NoPairs, match=r"no chat template.*instruct model.*plain strings"):
        data_and_model(settings, NullProgress())
    plain = settings_without_spec({"data": str(tmp_path / "plain.jsonl"), "model": str(base_model)})
    assert len(data_and_model(plain, NullProgress())[0].pairs) == 1
