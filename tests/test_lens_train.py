"""Facts about training and checking lenses: an SAE learns what it is shown, and a lens that does not fit is refused."""

import dataclasses
import errno
import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from heard import Heard
from premortem.interp import lens_check, lens_train
from premortem.interp.encode import Reader
from premortem.interp.errors import LensError, LensMisfit, NoPairs
from premortem.interp.forward import Forward
from premortem.interp.lens import Lens, load_lens
from premortem.interp.lens_check import check_lens
from premortem.interp.lens_train import Place, Recipe, Text, harvest, texts_of, train_lenses, train_sae, usual_features
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.packing import Batch, Request
from premortem.interp.quick_topk import QuickTopK
from premortem.interp.records import Pair
from tiny import HIDDEN, chat_pair, some_pairs, write_model, write_sae

RECIPE = Recipe(d_sae=64, k=4, epochs=8, batch_size=256, learning_rate=5e-3)
PLACE = Place("tiny", 1, "made-up directions")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(write_model(tmp_path_factory.mktemp("tiny"))))


def sparse_directions(n: int, seed: int = 0) -> np.ndarray:
    """Return sums of three of forty random directions: what an SAE is made to find."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(9).normal(size=(40, HIDDEN))
    picked = np.stack([rng.choice(40, 3, replace=False) for _ in range(n)])
    return (directions[picked] * rng.uniform(1, 3, (n, 3, 1))).sum(axis=1).astype(np.float16)


def perfect(folder: Path, **settings: object) -> Path:
    """Write an SAE that reconstructs anything: each axis up and down."""
    write_sae(folder, architecture="standard", d_sae=2 * HIDDEN, **settings)
    axes = torch.cat([torch.eye(HIDDEN), -torch.eye(HIDDEN)])
    return replace_weights(folder, axes, torch.zeros(HIDDEN))


def replace_weights(folder: Path, directions: torch.Tensor, centre: torch.Tensor) -> Path:
    """Let the SAE read and write `directions` around `centre`."""
    weights = {"W_enc": directions.T.contiguous(), "W_dec": directions, "b_dec": centre}
    weights["b_enc"] = torch.zeros(len(directions))
    save_file(weights, folder / "sae_weights.safetensors")
    return folder


def test_training_finds_the_directions(tmp_path: Path) -> None:
    folder = train_sae(sparse_directions(12_000), RECIPE, PLACE, tmp_path / "sae")
    card = json.loads((folder / "card.json").read_text())
    assert card["figures"]["fvu"] < 0.25
    assert card["figures"]["l0"] <= 4
    assert card["figures"]["dead_share"] < 0.2
    assert card["figures"]["held_out_tokens"] == 1200
    assert card["data"] == PLACE.data


def test_a_trained_lens_is_a_lens_in_float16(tmp_path: Path, model: LoadedModel) -> None:
    folder = train_sae(sparse_directions(3_000), RECIPE, PLACE, tmp_path / "sae")
    assert {tensor.dtype for tensor in load_file(folder / "sae_weights.safetensors").values()} == {torch.float16}
    lens = load_lens(model, str(folder))
    assert (lens.layer, lens.d_sae, lens.facts.prepend_bos) == (1, 64, False)
    assert lens.sae.W_enc.dtype == torch.float32
    assert lens.sae.cfg.metadata.hf_hook_name == "model.layers.1"


def test_the_same_seed_trains_the_same_lens(tmp_path: Path) -> None:
    rows = sparse_directions(2_000)
    one, two, other = (
        train_sae(rows, dataclasses.replace(RECIPE, epochs=1, seed=seed), PLACE, tmp_path / name)
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    weights = [load_file(folder / "sae_weights.safetensors")["W_enc"] for folder in (one, two, other)]
    torch.testing.assert_close(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_quick_products_are_sae_lens_s_own() -> None:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    gradients = []
    x = torch.from_numpy(sparse_directions(64).astype(np.float32))
    dead = torch.arange(48) > 30
    for kind in (QuickTopK, TopKTrainingSAE):
        torch.manual_seed(0)
        sae = kind(TopKTrainingSAEConfig(d_in=HIDDEN, d_sae=48, k=4))
        step = TrainStepInput(x, coefficients={}, dead_neuron_mask=dead, n_training_steps=0, is_logging_step=False)
        sae.training_forward_pass(step).loss.backward()
        gradients.append([parameter.grad for parameter in sae.parameters()])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_too_few_activations_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(LensError, match="fewer than one batch"):
        train_sae(sparse_directions(200), RECIPE, PLACE, tmp_path / "sae")


def test_harvested_rows_are_the_model_s_own(model: LoadedModel, tmp_path: Path) -> None:
    texts = texts_of(some_pairs(), model)
    paths = harvest(model, texts, [0, 2], tmp_path)
    rows = np.load(paths[2])
    unique = {text.skipped.tobytes() + b"|" + text.kept.tobytes(): text for text in texts}
    assert rows.shape == (sum(len(text.kept) for text in unique.values()), HIDDEN)
    assert rows.dtype == np.float16
    text = next(iter(unique.values()))
    ids = torch.from_numpy(np.concatenate([text.skipped, text.kept]).astype(np.int64))[None]
    hidden = model.model(ids, output_hidden_states=True).hidden_states[3][0, len(text.skipped) :]
    distance = np.abs(rows[:, None].astype(np.float32) - hidden[None, :3].numpy()).max(-1).min(0)
    assert distance.max() < 0.02


def test_the_opening_is_never_trained_on(model: LoadedModel) -> None:
    texts = texts_of([chat_pair(0, "hi", "a", "b"), Pair(row=1, prompt="x: ", chosen="y", rejected="z")], model)
    assert model.tokenizer.decode(texts[0].skipped).endswith("user\n")
    assert model.tokenizer.decode(texts[2].kept).endswith("y<|im_end|>")
    assert model.tokenizer.decode(texts[3].kept) == "z<|im_end|>"


def test_a_prompt_is_trained_on_once(model: LoadedModel) -> None:
    texts = texts_of([chat_pair(0, "hi", "a", "b"), chat_pair(1, "hi", "c", "b"), chat_pair(2, "ho", "a", "b")], model)
    told = [model.tokenizer.decode(text.kept) for text in texts]
    assert [text.startswith(("hi<", "ho<")) for text in told] == [True, False, False, False, True, False]
    assert told[1:4] == ["b<|im_end|>\n", "c<|im_end|>\n", "b<|im_end|>\n"]


def test_a_killed_harvest_goes_on(model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_train, "_BATCH_TOKENS", 40)
    texts = texts_of(some_pairs(), model)
    whole = np.load(harvest(model, texts, [1], tmp_path / "whole")[1])
    note, calls = lens_train._note, []

    def dies(*args: object) -> None:
        calls.append(args)
        note(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(lens_train, "_NOTE_EVERY", 2)
    monkeypatch.setattr(lens_train, "_note", dies)
    with pytest.raises(KeyboardInterrupt):
        harvest(model, texts, [1], tmp_path / "broken")
    monkeypatch.setattr(lens_train, "_note", note)
    again = np.load(harvest(model, texts, [1], tmp_path / "broken")[1])
    np.testing.assert_array_equal(again, whole)
    with pytest.raises(LensError, match="other texts"):
        harvest(model, texts[:-2], [1], tmp_path / "broken")


def dies(*_: object, **__: object) -> Any:
    """Stand in for whatever Ctrl-C falls into."""
    raise KeyboardInterrupt


def test_files_that_were_overwritten_are_not_taken_for_whole(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = texts_of(some_pairs(), model)
    whole = np.load(harvest(model, texts, [1], tmp_path)[1]).copy()
    (tmp_path / "layer-1.npy").unlink()
    with monkeypatch.context() as killed:
        killed.setattr(lens_train, "islice", dies)
        with pytest.raises(KeyboardInterrupt):
            harvest(model, texts, [1, 2], tmp_path)
    np.testing.assert_array_equal(np.load(harvest(model, texts, [1, 2], tmp_path)[1]), whole)


def test_a_layer_that_comes_later_is_harvested_alone(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, asked = texts_of(some_pairs(), model), list[list[int]]()
    both = harvest(model, texts, [1, 2], tmp_path / "both")
    read = Forward.read

    def listens(self: Forward, batch: Batch, layers: list[int]) -> Any:
        asked.append(layers)
        return read(self, batch, layers)

    monkeypatch.setattr(Forward, "read", listens)
    for layers in ([1], [1, 2], [1], [2, 1]):
        paths = harvest(model, texts, layers, tmp_path / "later")
        for layer in layers:
            np.testing.assert_array_equal(np.load(paths[layer]), np.load(both[layer]))
    assert {tuple(layers) for layers in asked} == {(1,), (2,)}


def test_a_layer_joins_one_that_was_begun(model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_train, "_BATCH_TOKENS", 40)
    monkeypatch.setattr(lens_train, "_NOTE_EVERY", 1)
    texts = texts_of(some_pairs(), model)
    whole = {layer: np.load(path) for layer, path in harvest(model, texts, [1, 2], tmp_path / "whole").items()}

    def two_batches(planned: Iterator[Batch], *_: object) -> Iterator[Batch]:
        yield from islice(planned, 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(lens_train, "islice", two_batches)
        with pytest.raises(KeyboardInterrupt):
            harvest(model, texts, [1], tmp_path / "begun")
    for layer, path in harvest(model, texts, [1, 2], tmp_path / "begun").items():
        np.testing.assert_array_equal(np.load(path), whole[layer])


@pytest.mark.parametrize("reserving", [True, False])
def test_a_disk_without_room_for_the_activations_is_one_clear_line(
    reserving: bool, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC if reserving else errno.EOPNOTSUPP, "No space left on device")

    monkeypatch.setattr(lens_train.os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(lens_train.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(LensError) as caught:
        harvest(model, texts_of(some_pairs(), model), [0, 2], tmp_path / "acts")
    told = str(caught.value)
    assert str(tmp_path / "acts") in told and " MB of activations (No space left on device)" in told
    assert "\n" not in told and "-o" in told
    assert [path.name for path in (tmp_path / "acts").iterdir()] == ["state.json"]


def test_the_space_of_activations_is_taken_before_the_first_is_read(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [Text(np.array([1], np.int32), np.arange(3, 100, dtype=np.int32) + shift) for shift in range(20)]
    monkeypatch.setattr(lens_train, "islice", dies)
    with pytest.raises(KeyboardInterrupt):
        harvest(model, texts, [1], tmp_path)
    stat = (tmp_path / "layer-1.npy").stat()
    assert stat.st_blocks * 512 >= stat.st_size > 97 * 20 * HIDDEN * 2


def test_a_folder_that_cannot_be_made_is_one_clear_line(model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "sae").write_text("a file")
    with pytest.raises(LensError, match=r"sae.activations cannot take .* MB of activations \(Not a directory\)"):
        train_lenses(model, texts_of(some_pairs(), model), [1], tmp_path / "sae")


def test_nothing_to_read_is_an_error(model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(LensError, match="no token"):
        train_lenses(model, [], [1], tmp_path)


def test_as_many_tokens_of_other_texts_are_other_activations(model: LoadedModel, tmp_path: Path) -> None:
    texts = texts_of(some_pairs(), model)
    harvest(model, texts, [1], tmp_path)
    with pytest.raises(LensError, match="other texts"):
        harvest(model, [Text(text.skipped, text.kept[::-1]) for text in texts], [1], tmp_path)


def test_activations_beyond_float16_leave_a_lens_that_fits(tmp_path: Path) -> None:
    rows = sparse_directions(6000)
    rows[::500] = 60_000.0
    folder = train_sae(rows, RECIPE, PLACE, tmp_path)
    figures = json.loads((folder / "card.json").read_text())["figures"]
    assert figures["fvu"] < 0.5
    half = torch.tensor([1.0, 2.0])
    assert lens_train._halved(half).dtype == torch.float16
    assert lens_train._halved(half * 1e5).dtype == torch.float32


SMALL = Recipe(d_sae=48, k=4, epochs=1, batch_size=64)


def random_texts(seed: int = 0) -> list[Text]:
    """Return nine texts of sixty tokens, enough for `SMALL`."""
    rng, first = np.random.default_rng(seed), np.array([1], np.int32)
    return [Text(first, rng.integers(3, 100, 60).astype(np.int32)) for _ in range(9)]


def test_one_lens_per_layer(model: LoadedModel, tmp_path: Path) -> None:
    folders = train_lenses(model, random_texts(), [0, 2], tmp_path, recipe=SMALL)
    assert {load_lens(model, str(folder)).layer for folder in folders.values()} == {0, 2}


def test_the_same_command_keeps_the_layers_that_are_finished(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = lens_train.train_sae
    with monkeypatch.context() as killed:
        killed.setattr(lens_train, "train_sae", lambda *args: dies() if args[2].layer == 2 else train(*args))
        with pytest.raises(KeyboardInterrupt):
            train_lenses(model, random_texts(), [0, 2], tmp_path, recipe=SMALL)
    first, heard = (tmp_path / "layer-0" / "sae_weights.safetensors").stat().st_mtime_ns, Heard()
    folders = train_lenses(model, random_texts(), [0, 2], tmp_path, recipe=SMALL, progress=heard)
    assert list(folders) == [0, 2] and all((folder / "card.json").exists() for folder in folders.values())
    assert (tmp_path / "layer-0" / "sae_weights.safetensors").stat().st_mtime_ns == first
    assert heard.stages == ["Keeping the finished SAE of layer 0", "Training the SAE"]


def test_a_finished_sae_is_kept_without_its_activations(model: LoadedModel, tmp_path: Path) -> None:
    train_lenses(model, random_texts(), [0], tmp_path, recipe=SMALL)
    shutil.rmtree(tmp_path / "activations")
    heard = Heard()
    train_lenses(model, random_texts(), [0, 2], tmp_path, recipe=SMALL, progress=heard)
    assert [path.name for path in (tmp_path / "activations").glob("*.npy")] == ["layer-2.npy"]
    assert heard.stages == ["Keeping the finished SAE of layer 0", "Harvesting activations", "Training the SAE"]


@pytest.mark.parametrize(
    ("recipe", "seed", "told"),
    [(dataclasses.replace(SMALL, k=5), 0, "another recipe"), (SMALL, 1, "other texts or of another model")],
)
def test_a_finished_sae_of_another_kind_is_never_replaced(
    recipe: Recipe, seed: int, told: str, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train_lenses(model, random_texts(), [0], tmp_path, recipe=SMALL)[0]
    shutil.rmtree(tmp_path / "activations")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(lens_train, "harvest", dies)
    with pytest.raises(LensError, match=rf"layer-0 holds an SAE of {told}; name another folder with -o\.$"):
        train_lenses(model, random_texts(seed), [2, 0], tmp_path, recipe=recipe)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "card.json").write_text("{")
    with pytest.raises(LensError, match=r"card\.json is no card"):
        train_lenses(model, random_texts(), [0], tmp_path, recipe=SMALL)


def test_a_perfect_lens_fits(model: LoadedModel, tmp_path: Path) -> None:
    lens = load_lens(model, str(perfect(tmp_path / "sae")))
    fit = check_lens(Reader(model, [lens]), some_pairs(), whole=model)
    assert fit.fvu == pytest.approx(0, abs=1e-3)
    assert fit.ce_recovered == pytest.approx(1, abs=1e-3)
    assert fit.l0 == pytest.approx(HIDDEN, rel=0.01)
    assert fit.dead_share == 0
    assert fit.n_pairs == len(some_pairs())
    assert fit.n_tokens > 50


def test_a_topk_configuration_over_relu_weights_is_named(model: LoadedModel, tmp_path: Path) -> None:
    folder = perfect(tmp_path / "sae")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, "architecture": "topk", "k": 2}))
    lens = load_lens(model, str(folder))
    with pytest.raises(LensMisfit, match=r"read as ReLU: there it is 0\.00"):
        check_lens(Reader(model, [lens]), some_pairs(), whole=model)


def of_layer(model: LoadedModel, layer: int, folder: Path) -> Path:
    """Write an SAE that says it reads layer 0 and reconstructs the third of the axes that matter most at `layer`."""
    rows = np.load(harvest(model, texts_of(some_pairs(), model), [layer], folder / "acts")[layer]).astype(np.float32)
    sae = write_sae(folder / "sae", layer=0, architecture="standard", d_sae=2 * HIDDEN)
    axes = torch.from_numpy(np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2][: HIDDEN // 3])
    nothing = torch.zeros(2 * HIDDEN - 2 * len(axes), HIDDEN)
    return replace_weights(sae, torch.cat([axes, -axes, nothing]), torch.from_numpy(rows.mean(axis=0)))


def test_a_lens_on_the_wrong_layer_is_named(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = of_layer(model, 2, tmp_path)
    right, wrong = load_lens(model, str(folder), layer=2), load_lens(model, str(folder))
    assert check_lens(Reader(model, [right]), some_pairs(), whole=model).fvu < 0.3
    with pytest.raises(LensMisfit, match="layer 2 rather than 0"):
        check_lens(Reader(model, [wrong]), some_pairs(), whole=model)
    monkeypatch.setattr(lens_check, "MOST_FVU", 100.0)
    with pytest.raises(LensMisfit, match="give --layer 2"):
        check_lens(Reader(model, [wrong]), some_pairs(), whole=model)


def test_a_lens_of_a_layer_far_away_is_named(model: LoadedModel, tmp_path: Path) -> None:
    folder = of_layer(model, 3, tmp_path)
    with pytest.raises(LensMisfit, match="layer 3 rather than 0"):
        check_lens(Reader(model, [load_lens(model, str(folder))]), some_pairs(), whole=model)


@pytest.mark.parametrize(
    ("opening", "told"),
    [("~", "texts that begin with the BOS token"), (None, "plain text rather than the chat template")],
)
def test_a_lens_of_texts_that_begin_otherwise_is_named(
    opening: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SAE is made to fit where every prompt begins with `opening`, or, for None, has no sign of the template."""
    model = load_model(str(write_model(tmp_path / "tiny")))
    model.tokenizer.bos_token = "~"

    def fits(_: object, requests: list[Request], layers: list[int], __: object) -> dict[int, float]:
        prompts = [model.tokenizer.decode(request.prompt) for request in requests]
        own = all(p.startswith(opening) if opening else "<|im_start|>" not in p for p in prompts)
        return dict.fromkeys(layers, 0.1 if own else 0.9)

    monkeypatch.setattr(lens_check, "_fvu_at", fits)
    lens = load_lens(model, str(write_sae(tmp_path / "sae")))
    with pytest.raises(LensMisfit, match=rf"The SAE fits {told}: there it is 0\.10"):
        check_lens(Reader(model, [lens]), some_pairs(), whole=model)


def test_noise_fits_nothing_and_no_cause_is_made_up(model: LoadedModel, tmp_path: Path) -> None:
    lens: Lens = load_lens(model, str(write_sae(tmp_path / "sae")))
    with pytest.raises(LensMisfit, match="No usual mistake"):
        check_lens(Reader(model, [lens]), some_pairs(), whole=model)


def test_no_response_tokens_cannot_be_checked(model: LoadedModel, tmp_path: Path) -> None:
    lens = load_lens(model, str(perfect(tmp_path / "sae")))
    with pytest.raises(NoPairs):
        check_lens(Reader(model, [lens]), [], whole=model)


@pytest.mark.parametrize(("width", "features"), [(32, 3072), (576, 3072), (4096, 16384)])
def test_an_sae_has_more_features_than_its_model_is_wide(width: int, features: int) -> None:
    assert usual_features(width) == features
