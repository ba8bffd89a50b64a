"""Trains SAEs on a model's own residual stream, with sae-lens's trainer, on a laptop.

First the texts go through the model once and the activations of every wanted layer are kept on disk as float16; an
interrupted harvest goes on where it stopped. Then each layer gets a TopK SAE from shuffled activations. The opening of
the chat template, or the first token of a plain text, is left out: it is the same everywhere, and the first position of
many models is an outlier that no other token resembles.

A saved lens is a folder in sae-lens's format with float16 weights, metadata that names the place in both languages,
and a `card.json` with data, recipe and figures on activations that the training never saw. The card is written last:
where one is, the SAE is finished, and it is kept and never replaced.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from premortem.interp.encode import request_key
from premortem.interp.errors import LensError
from premortem.interp.features import FeatureReader
from premortem.interp.forward import Forward
from premortem.interp.models import LoadedModel, usual_device
from premortem.interp.packing import Ids, Request, batches
from premortem.interp.pooling import OUTLIER, FitSums
from premortem.interp.progress import NullProgress, Progress
from premortem.interp.records import Pair
from premortem.interp.sae_files import find_sae
from premortem.interp.tokens import MAX_LENGTH, tokenize_all

if TYPE_CHECKING:
    from sae_lens import TopKTrainingSAE

_BATCH_TOKENS = 1024
_NOTE_EVERY = 32
_HELD_OUT = 20_000
LARGEST = float(np.finfo(np.float16).max)
"""Activations are kept up to this size; some models' residual stream goes beyond it on a few tokens."""
_FEATURES_A_DIMENSION = 4
_NOTHING = (0, 0)
_NO_RESERVING = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class Text(NamedTuple):
    """Token ids of one text."""

    skipped: Ids
    """Its first tokens, which are read and not trained on."""
    kept: Ids
    """The rest."""


@dataclass(frozen=True)
class Recipe:
    """How an SAE is trained."""

    d_sae: int = 3072
    """Features."""
    k: int = 56
    """Features that fire on a token."""
    epochs: float = 2.0
    """How often each activation is seen."""
    batch_size: int = 2048
    """Activations per step."""
    learning_rate: float = 3e-3
    """Adam's, until the last third of the steps, over which it falls to a tenth."""
    decoder_norm: float = 0.4
    """Length of the first decoder rows; sae-lens's 0.1 starts from a reconstruction near zero."""
    dead_after: int = 40
    """Steps without firing after which a feature is trained on what the others miss."""
    seed: int = 0
    """Order of the activations and first weights."""


def usual_features(width: int) -> int:
    """Return how many features suit a model whose residual stream is so wide: four times that, 3072 at least."""
    return max(Recipe.d_sae, _FEATURES_A_DIMENSION * width)


@dataclass(frozen=True)
class Place:
    """Where the activations come from."""

    model_name: str
    """The model, as its users name it."""
    layer: int
    """0-based decoder layer whose output they are."""
    data: str
    """What the texts are, in a sentence."""
    context_size: int = MAX_LENGTH
    """Longest text, in tokens."""
    harvest: str = ""
    """Which model read which texts, see `harvest_id`; empty where nobody says."""


def texts_of(pairs: Sequence[Pair], model: LoadedModel, max_length: int = MAX_LENGTH) -> list[Text]:
    """Return both conversations of each pair, from behind the template's opening; each prompt counts once."""
    opening = len(Forward(model, tree=True).opening)
    texts, seen = [], set[tuple[int, ...]]()
    for tokens in tokenize_all(pairs, model.tokenizer):
        for response in (tokens.chosen, tokens.rejected):
            ids, prompt = np.array([*tokens.prompt, *response][:max_length], np.int32), tuple(tokens.prompt)
            skipped = len(prompt) if prompt in seen else min(opening, len(prompt))
            seen.add(prompt)
            texts.append(Text(ids[: skipped or 1], ids[skipped or 1 :]))
    return [text for text in texts if len(text.kept)]


def train_lenses(
    model: LoadedModel,
    texts: Sequence[Text],
    layers: Sequence[int],
    out: Path,
    *,
    recipe: Recipe | None = None,
    data: str = "texts of the user's choice",
    progress: Progress | None = None,
) -> dict[int, Path]:
    """Harvest and train one SAE per layer; return the folder of each, `out/layer-L`.

    Without a `recipe` an SAE has as many features as `usual_features` says. A finished SAE of the same recipe and
    activations is kept. Raises LensError where one of others is in the way, before anything is read, where the disk
    does not hold the activations, and when there are fewer of them than one batch.
    """
    recipe, progress = recipe or Recipe(d_sae=usual_features(model.hidden_size)), progress or NullProgress()
    folders, read = {layer: out / f"layer-{layer}" for layer in layers}, harvest_id(model, texts)
    kept = {layer for layer, folder in folders.items() if _is_finished(folder, recipe, read)}
    for layer in sorted(kept):
        with progress.stage(f"Keeping the finished SAE of layer {layer}"):
            pass
    missing = [layer for layer in folders if layer not in kept]
    activations = harvest(model, texts, missing, out / "activations", progress) if missing else {}
    for layer, path in activations.items():
        place = Place(model.ref, layer, data, max(len(text.skipped) + len(text.kept) for text in texts), read)
        train_sae(np.load(path, mmap_mode="r"), recipe, place, folders[layer], progress)
    return folders


def harvest_id(model: LoadedModel, texts: Sequence[Text]) -> str:
    """Return a 16-digit hash of what decides the activations of a layer: the model, and its texts in any order."""
    keys = {_request(text).key for text in texts if len(text.kept)}
    return hashlib.sha256(b"".join([model.digest.encode(), *sorted(keys)])).hexdigest()[:16]


def harvest(
    model: LoadedModel, texts: Sequence[Text], layers: Sequence[int], folder: Path, progress: Progress | None = None
) -> dict[int, Path]:
    """Keep the activations of all kept tokens behind each of `layers`, as float16 `(n_tokens, hidden_size)` files.

    Files that are there already, whole or begun, are completed. Raises LensError where they come from other texts or
    another model, where the disk has no room for new ones, and where there is nothing to read.
    """
    requests = {request.key: request for request in (_request(text) for text in texts if len(text.kept))}
    if not (total := sum(len(request.response) for request in requests.values())):
        raise LensError("there is no token to train on: add texts.")
    paths = {layer: folder / f"layer-{layer}.npy" for layer in layers}
    read = harvest_id(model, texts)
    reached = _reached(folder, read)
    missing = {layer: path for layer, path in paths.items() if reached.get(layer, _NOTHING)[1] < total}
    if not missing:
        return paths
    if fresh := [path for layer, path in missing.items() if layer not in reached]:
        _begin(folder, fresh, (total, model.hidden_size), {"harvest": read, "done": reached})
    done, row = min(reached.get(layer, _NOTHING) for layer in missing)
    files = {layer: open_memmap(path, "r+") for layer, path in missing.items()}
    forward = Forward(model)
    planned = batches(requests.values(), forward.opening, _BATCH_TOKENS)
    with (progress or NullProgress()).stage("Harvesting activations", total=total) as stage:
        stage.advance(row)
        for batch in islice(planned, done, None):
            states, owner, _ = forward.read(batch, list(missing))
            for layer, file in files.items():
                file[row : row + len(owner)] = states[layer].float().clamp(-LARGEST, LARGEST).half().cpu().numpy()
            done, row = done + 1, row + len(owner)
            if done % _NOTE_EVERY == 0 or row == total:
                reached |= dict.fromkeys(missing, (done, row))
                _note(folder, {"harvest": read, "done": reached}, files.values())
            stage.advance(len(owner))
    return paths


def train_sae(
    activations: NDArray[np.float16],
    recipe: Recipe,
    place: Place,
    out: Path,
    progress: Progress | None = None,
) -> Path:
    """Train a TopK SAE on `(n_tokens, d_in)` float16 activations, memory-mapped ones included; save it in `out`.

    The last 20,000 activations, or a tenth of fewer, are held out for the figures of `card.json`. Raises LensError when
    there are fewer than one batch.
    """
    held_out = min(_HELD_OUT, len(activations) // 10)
    used = len(activations) - held_out
    if used < recipe.batch_size:
        raise LensError(f"{used} activations to train on are fewer than one batch of {recipe.batch_size}: add texts.")
    started = time.monotonic()
    sae = _fit(activations[:used], recipe, progress or NullProgress())
    _save(sae, place, out)
    figures = measure(out, activations[used:])
    card = {
        **asdict(place),
        "hook": f"model.layers.{place.layer}",
        "recipe": {**asdict(recipe), "activations": used, "trainer": "sae-lens SAETrainer, TopK"},
        "figures": {**figures, "training_seconds": round(time.monotonic() - started)},
    }
    _write(out / "card.json", json.dumps(card, indent=1) + "\n")
    return out


def measure(folder: Path, activations: NDArray[np.float16]) -> dict[str, float]:
    """Return FVU, L0 and the share of features that never fire of a saved SAE on `(n_tokens, d_in)` activations."""
    facts = find_sae(str(folder))
    reader = FeatureReader(facts.load(), torch.device(usual_device()))
    fired = np.zeros(facts.d_sae, bool)
    sums = FitSums(0.0, 0.0, 0.0, 0.0, np.zeros(facts.d_in))
    for start in range(0, len(activations), 4096):
        x = np.asarray(activations[start : start + 4096], np.float32)
        features = reader.read(torch.from_numpy(x))
        fired[features.feature] = True
        sums = sums + FitSums.of(features, x)
    return {
        "fvu": round(sums.fvu, 4),
        "l0": round(sums.l0, 2),
        "dead_share": round(float(1 - fired.mean()), 4),
        "held_out_tokens": len(activations),
    }


def _fit(activations: NDArray[np.float16], recipe: Recipe, progress: Progress) -> TopKTrainingSAE:
    from sae_lens import TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    from premortem.interp.quick_topk import QuickTopK

    torch.manual_seed(recipe.seed)
    device = usual_device()
    steps = max(1, int(len(activations) * recipe.epochs) // recipe.batch_size)
    sample = np.asarray(activations[:: max(1, len(activations) // 50_000)], np.float32)
    norms = np.linalg.norm(sample, axis=1)
    longest = OUTLIER * float(np.median(norms))
    scale = activations.shape[1] ** 0.5 / float(norms[norms < longest].mean())
    sae = QuickTopK(
        TopKTrainingSAEConfig(
            d_in=activations.shape[1],
            d_sae=recipe.d_sae,
            k=recipe.k,
            decoder_init_norm=recipe.decoder_norm,
            device=device,
        )
    )
    sae.b_dec.data = torch.from_numpy(sample[norms < longest].mean(axis=0) * scale).to(device)
    config = SAETrainerConfig(
        total_training_samples=steps * recipe.batch_size,
        train_batch_size_samples=recipe.batch_size,
        lr=recipe.learning_rate,
        lr_end=recipe.learning_rate / 10,
        lr_decay_steps=steps // 3,
        dead_feature_window=recipe.dead_after,
        device=device,
        logger=LoggingConfig(log_to_wandb=False),
    )
    provider = _shuffled(activations, recipe, scale, longest, device)
    trainer: Any = SAETrainer(cfg=config, sae=sae, data_provider=provider)
    with progress.stage("Training the SAE", total=steps) as stage:
        for _ in range(steps):  # the trainer's own loop also draws a bar and logs to wandb
            trainer.step(next(provider))
            trainer.n_training_steps += 1
            stage.advance()
    sae.fold_activation_norm_scaling_factor(scale)
    return sae


def _shuffled(
    activations: NDArray[np.float16], recipe: Recipe, scale: float, longest: float, device: str
) -> Iterator[torch.Tensor]:
    """Yield scaled batches in random order, without outliers, for ever."""
    rng = np.random.default_rng(recipe.seed)
    while True:
        order = rng.permutation(len(activations))
        for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
            rows = np.sort(order[start : start + recipe.batch_size])
            x = torch.from_numpy(np.asarray(activations[rows], np.float32)).to(device)
            usual = x[x.norm(dim=1) < longest]
            yield usual[torch.arange(recipe.batch_size, device=device) % len(usual)] * scale


def _save(sae: TopKTrainingSAE, place: Place, out: Path) -> None:
    """Save for inference with decoder rows of norm 1 and float16 weights; readers convert to the dtype in cfg.json."""
    from safetensors.torch import load_file, save_file

    described = {
        "model_name": place.model_name,
        "hook_name": f"blocks.{place.layer}.hook_resid_post",
        "hf_hook_name": f"model.layers.{place.layer}",
        "prepend_bos": False,
        "context_size": place.context_size,
        "dataset_path": place.data,
    }
    for name, value in described.items():
        setattr(sae.cfg.metadata, name, value)
    weights_path, config_path = sae.save_inference_model(out)
    config = json.loads(config_path.read_text("utf-8"))
    config["rescale_acts_by_decoder_norm"] = False  # saving has made every norm 1
    config_path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", "utf-8")
    save_file({name: _halved(tensor) for name, tensor in load_file(weights_path).items()}, weights_path)


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as float16, or as it is where that cannot hold it."""
    half = tensor.half()
    return half if bool(half.isfinite().all()) else tensor


def _request(text: Text) -> Request:
    return Request(request_key(text.skipped, text.kept), text.skipped, text.kept)


def _is_finished(folder: Path, recipe: Recipe, read: str) -> bool:
    """Whether `folder` holds an SAE of this recipe and harvest; raises LensError where it holds one of another."""
    path = folder / "card.json"
    if not path.exists():
        return False
    try:
        card = json.loads(path.read_text("utf-8"))
        same_recipe, same_harvest = asdict(recipe).items() <= card["recipe"].items(), card.get("harvest") == read
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise LensError(f"{path} is no card of an SAE trained here; name another folder with -o.") from error
    if not (same_recipe and same_harvest):
        other = "other texts or of another model" if same_recipe else "another recipe"
        raise LensError(f"{folder} holds an SAE of {other}; name another folder with -o.")
    return True


def _reached(folder: Path, read: str) -> dict[int, tuple[int, int]]:
    """Return how many batches and rows an earlier harvest has written of each layer, where the file is still there."""
    state = folder / "state.json"
    told = json.loads(state.read_text("ascii")) if state.exists() else {}
    done = {int(layer): (int(batches), int(rows)) for layer, (batches, rows) in told.get("done", {}).items()}
    reached = {layer: at for layer, at in done.items() if (folder / f"layer-{layer}.npy").exists()}
    if reached and told["harvest"] != read:
        raise LensError(f"{folder} holds activations of other texts, or of another model; name another folder with -o.")
    return reached


def _begin(folder: Path, fresh: Sequence[Path], shape: tuple[int, int], told: Mapping[str, Any]) -> None:
    """Make new files of activations with all their space, once the state tells of none of them; or raise LensError.

    Whoever writes into the map of a file that the disk has no room for is ended by a signal.
    """
    needed = len(fresh) * math.prod(shape) * np.dtype(np.float16).itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "state.json", json.dumps(told))
        for path in fresh:
            open_memmap(path, "w+", np.float16, shape=shape)
        _reserve(fresh, needed)
    except OSError as error:
        for path in fresh:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        seen = f"{folder} cannot take {needed / 1e6:,.1f} MB of activations ({error.strerror or error})"
        raise LensError(f"{seen}; name another folder with -o.") from error


def _reserve(paths: Sequence[Path], needed: int) -> None:
    """Give sparse files their space on the disk; where the system cannot, see at least that `needed` bytes are free."""
    if hasattr(os, "posix_fallocate"):
        try:
            for path in paths:
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            return
        except OSError as error:
            if error.errno not in _NO_RESERVING:
                raise
    if shutil.disk_usage(paths[0].parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _note(folder: Path, told: Mapping[str, Any], files: Iterable[Any]) -> None:
    """Write down how far the files are complete, after they are."""
    for file in files:
        file.flush()
    _write(folder / "state.json", json.dumps(told))


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text, "utf-8")
    scratch.replace(path)
