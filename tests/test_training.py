"""Real DPO with TRL on a random model of four layers: what it learns, and that it can be interrupted."""

from pathlib import Path

import pytest

from premortem.interp.errors import ModelError, NoPairs
from premortem.interp.models import load_model
from premortem.interp.records import Pair
from premortem.interp.start_model import StartModel
from premortem.interp.tokens import tokenize
from premortem.interp.training import TrainingSettings, train_dpo
from tiny import chat_pair, write_model

pytest.importorskip("trl", reason="TRL is an optional dependency (premortem[validate])")

SETTINGS = TrainingSettings(epochs=4, learning_rate=1e-2, batch_pairs=2, rank=4, max_length=128)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return [chat_pair(i, f"Say {word}.", "aaaa", "zzzz") for i, word in enumerate(["one", "two", "three", "four"])]


def margin(folder: Path, pair: Pair) -> float:
    """Return how much likelier the chosen response is than the rejected one, in nats a token."""
    loaded = load_model(str(folder))
    tokens = tokenize(pair, loaded.tokenizer)
    assert tokens is not None
    chosen, rejected = StartModel(loaded).log_likelihood(
        [(tokens.prompt, tokens.chosen), (tokens.prompt, tokens.rejected)]
    )
    return float(chosen - rejected)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_makes_the_chosen_side_likelier(method: str, model: Path, pairs: list[Pair], tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"method": method})
    trained = train_dpo(str(model), pairs, tmp_path, settings)
    assert margin(trained.folder, pairs[0]) > margin(model, pairs[0]) + 0.05
    assert trained.steps == 8
    assert trained.loss < 0.69
    assert set(trained.versions) == {"torch", "transformers", "trl", "peft"}
    assert [folder.name for folder in tmp_path.iterdir()] == [trained.folder.name]


def test_what_is_trained_is_not_trained_again(model: Path, pairs: list[Pair], tmp_path: Path) -> None:
    first = train_dpo(str(model), pairs, tmp_path, SETTINGS)
    written = (first.folder / "model.safetensors").stat().st_mtime_ns
    assert train_dpo(str(model), pairs, tmp_path, SETTINGS) == first
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == written
    other = train_dpo(str(model), pairs, tmp_path, SETTINGS.model_copy(update={"seed": 1}))
    assert other.folder != first.folder


def test_an_interrupted_training_goes_on_and_ends_with_the_same_weights(
    model: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    class Interrupted(Exception):
        pass

    class Stage:
        count = 0

        def advance(self, n: int = 1) -> None:
            self.count += n
            if self.count == 6:
                raise Interrupted

    class Breaks:
        def stage(self, name: str, total: int | None = None) -> object:
            from contextlib import nullcontext

            return nullcontext(Stage())

    whole = train_dpo(str(model), pairs, tmp_path / "whole", SETTINGS)
    with pytest.raises(Interrupted):
        train_dpo(str(model), pairs, tmp_path / "broken", SETTINGS, Breaks())  # type: ignore[arg-type]
    left = next((tmp_path / "broken").iterdir())
    assert left.name.endswith(".partial")
    assert list(left.glob("checkpoint-*"))
    resumed = train_dpo(str(model), pairs, tmp_path / "broken", SETTINGS)
    assert margin(resumed.folder, pairs[0]) == pytest.approx(margin(whole.folder, pairs[0]), abs=1e-4)
    assert [folder.name for folder in (tmp_path / "broken").iterdir()] == [resumed.folder.name]


def test_no_pairs_and_no_trl_are_told(model: Path, pairs: list[Pair], tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NoPairs):
        train_dpo(str(model), [], tmp_path)
    import premortem.interp.training as module

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"premortem\[validate\]"):
        train_dpo(str(model), pairs, tmp_path)
