"""Real DPO, to hold a forecast against.

TRL's `DPOTrainer` trains, on the tokens that the forecast has read; nothing of it is written again here. What this
module adds is what a measurement needs: everything that determines the result is in the name of its folder, an
interrupted training goes on from its last checkpoint, and a trained model appears only when it is complete. The
reference log-probabilities come from `StartModel`, which computes logits of response tokens alone and keeps what it has
computed. LoRA is merged into the weights, so what comes out is read like any other model. Weights are held in float32
on every device: bfloat16 has 8 bits for a weight and rounds away most of what a small learning rate adds to it.

TRL and peft are the extra `validate`. Nothing here knows about concepts.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from premortem.interp.cache_home import cache_home
from premortem.interp.errors import ModelError, NoPairs
from premortem.interp.models import load_model, resolve_model, text_config
from premortem.interp.progress import NullProgress, Progress, Stage
from premortem.interp.quiet import quiet
from premortem.interp.records import Pair, Record, content_id
from premortem.interp.scores import Tokens
from premortem.interp.start_model import StartModel
from premortem.interp.tokens import MAX_LENGTH, tokenize, tokenize_all
from premortem.interp.trl_trainer import adapters, dpo_trainer, responses_alone, unpadded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HELD = torch.float32
"""How weights are held to train them, and to answer after training."""
ON_GPU = "held in float32"
"""Part of the name of what a GPU has trained: what was trained on bfloat16 weights is another model."""
RENDERED = "rendered pair by pair"
"""The same for pairs that TRL read out of a table before, with what other pairs have filled in as None."""
LOGITS = 2**29
"""Logits of one step on a GPU at a time, at most: 2 GiB in float32, of which a loss holds several copies."""
STATES = 9 * 2**22
"""Numbers of the residual stream, in all layers, of one step on a CPU at a time, at most: some 2,000 tokens of a model
of 135M parameters, which holds 20 times as many until the gradient is known, 3 GiB."""
CHECKPOINTS = 8
"""Checkpoints over a training: at most so much of it is done again after an interruption."""


class TrainingSettings(Record):
    """How to train."""

    method: Literal["lora", "full"] = "lora"
    """Low-rank adapters on all linear layers, or all weights."""
    seed: int = 0
    """Of the adapters' weights and the order of the pairs."""
    epochs: int = 2
    """Times that every pair is seen."""
    learning_rate: float = 3e-4
    """Highest rate; it rises over the first tenth of the steps and falls to zero along a cosine. High, because a
    validation has few steps: at 1e-4 some 40 of them hardly moved a model of 135M parameters."""
    beta: float = 0.1
    """Strength of the pull towards the start model."""
    batch_pairs: int = 8
    """Pairs per step."""
    rank: int = 16
    """Rank of the adapters; their scale is 2."""
    max_length: int = MAX_LENGTH
    """Tokens of prompt and response together; what is longer loses its end."""


class Trained(Record):
    """A model after DPO."""

    folder: Path
    """Its weights and tokenizer, as transformers reads them."""
    steps: int
    """Optimiser steps."""
    seconds: float
    """Time spent training, interruptions not counted."""
    loss: float
    """Mean DPO loss over the last epoch, in nats; log 2 is no preference."""
    versions: dict[str, str]
    """Versions of torch, transformers, trl and peft, and the GPU where there is one."""


def require_trl() -> None:
    """Raise ModelError where what trains is not installed."""
    missing = [name for name in ("trl", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(f"training needs {' and '.join(missing)}: pip install 'premortem[validate]'")


def train_dpo(
    model_ref: str,
    pairs: Sequence[Pair],
    folder: Path,
    settings: TrainingSettings | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train `model_ref` on `pairs` with DPO and return the result, kept in a folder of its own under `folder`.

    The same model, pairs, settings and versions give the same folder; what is there is not trained again. Raises
    ModelError where TRL or peft are missing, NoPairs where there is nothing to train on.
    """
    if not pairs:
        raise NoPairs("there are no pairs to train on.")
    require_trl()
    settings = settings or TrainingSettings()
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    versions |= {"device": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    name = _name(resolve_model(model_ref).digest, pairs, settings, versions)
    target, work = folder / name, folder / f"{name}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        if not (target / "trained.json").exists():
            for torn in set(work.glob("checkpoint-*")) - {state.parent for state in work.glob("*/trainer_state.json")}:
                shutil.rmtree(torn)
            _train(model_ref, pairs, work, settings, versions, progress or NullProgress())
            os.replace(work / "model", target)
            shutil.rmtree(work, ignore_errors=True)
    return Trained.model_validate_json((target / "trained.json").read_text("utf-8")).model_copy(
        update={"folder": target}
    )


def _name(digest: str, pairs: Sequence[Pair], settings: TrainingSettings, versions: dict[str, str]) -> str:
    """Return the name of the folder of a training: a hash of all that determines its result.

    Other columns of the data are no part of that, and may hold what JSON does not.
    """
    rows = [{**pair.model_dump(mode="json", exclude={"row", "extra"}), "extra": {}} for pair in pairs]
    how = [*([ON_GPU] if torch.cuda.is_available() else []), *([] if all(map(_plain, pairs)) else [RENDERED])]
    return content_id(digest, settings.model_dump(), versions, rows, *how)


def _plain(pair: Pair) -> bool:
    """Whether a table of pairs holds this one as it is: strings, or messages of a role and a string alone."""
    messages = [
        one for content in (pair.prompt, pair.chosen, pair.rejected) if not isinstance(content, str) for one in content
    ]
    named = all(set(one) == {"role", "content"} and isinstance(one["content"], str) for one in messages)
    return named and not pair.tools and not pair.template_kwargs


def _train(
    model_ref: str,
    pairs: Sequence[Pair],
    work: Path,
    settings: TrainingSettings,
    versions: dict[str, str],
    progress: Progress,
) -> None:
    """Train in `work`, from its last checkpoint if it has one, and leave the merged model in `work/model`."""
    from transformers import PrinterCallback
    from trl import DPOConfig

    full = settings.method == "full"
    loaded = load_model(model_ref, packed=False, dtype=HELD)
    model: Any = loaded.model.requires_grad_(full)
    on_cpu, config = loaded.device.type == "cpu", text_config(model)
    start = StartModel(loaded, cache_dir=cache_home() / "start_model")
    reference = reference_log_likelihood(start, pairs, settings.max_length, progress)
    with ExitStack() as open_stages:
        open_stages.enter_context(_silent())
        open_stages.enter_context(responses_alone())
        rows = _dataset(pairs, loaded.tokenizer, reference, settings.max_length)
        steps = -(-len(rows) // settings.batch_pairs) * settings.epochs
        most = STATES // (config.hidden_size * config.num_hidden_layers) if on_cpu else LOGITS // config.vocab_size
        together = pairs_at_once(_longest(rows), most, settings.batch_pairs)
        arguments = DPOConfig(
            str(work),
            seed=settings.seed,
            data_seed=settings.seed,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, steps // 10),
            beta=settings.beta,
            per_device_train_batch_size=together,
            gradient_accumulation_steps=settings.batch_pairs // together,
            max_length=settings.max_length,
            precompute_ref_log_probs=True,
            save_strategy="steps",
            save_steps=max(1, steps // CHECKPOINTS),
            save_total_limit=1,
            logging_steps=1,
            use_cpu=on_cpu,
            bf16=not on_cpu and torch.cuda.is_bf16_supported(),
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # on one of several GPUs, as the model is: TRL refuses DataParallel
        trainer = dpo_trainer(unpadded(loaded) if on_cpu else None)(
            model=model,
            args=arguments,
            train_dataset=rows,
            processing_class=loaded.tokenizer,
            peft_config=None if full else adapters(settings.rank),
        )
        clock = _clock(open_stages.enter_context(progress.stage("Training", steps)), work)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")))
        trained: Any = trainer.accelerator.unwrap_model(trainer.model)
        merged = trained if full else trained.merge_and_unload()
        shutil.rmtree(work / "model", ignore_errors=True)
        merged.save_pretrained(work / "model", safe_serialization=True)
        loaded.tokenizer.save_pretrained(work / "model")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last = losses[-max(1, len(losses) // settings.epochs) :]
    result = Trained(
        folder=work / "model",
        steps=trainer.state.global_step,
        seconds=round(clock.seconds(), 1),
        loss=sum(last) / len(last),
        versions=versions,
    )
    (work / "model" / "trained.json").write_text(result.model_dump_json(indent=1) + "\n", "utf-8")


def reference_log_likelihood(
    start: StartModel, pairs: Sequence[Pair], max_length: int, progress: Progress
) -> NDArray[np.float64]:
    """Return the start model's log-likelihood of each side, `(n_pairs, 2)`, in nats summed over the tokens trained on.

    0 where nothing is trained on.
    """
    return np.nan_to_num(pair_log_likelihood(start, pairs, max_length, progress))


def pair_log_likelihood(
    model: StartModel, pairs: Sequence[Pair], max_length: int, progress: Progress
) -> NDArray[np.float64]:
    """Return the log-likelihood of each side of `pairs` under `model`, `(n_pairs, 2)`, in nats summed over tokens.

    NaN where there is nothing to score, as in a pair whose prompt alone has `max_length` tokens.
    """
    tokens = [tokenize(pair, model.tokenizer, max_length) for pair in pairs]
    sides: list[Tokens] = [(each.prompt, side) for each in tokens if each for side in (each.chosen, each.rejected)]
    counts = np.asarray([len(side) for _, side in sides])
    found = np.full((len(pairs), 2), np.nan)
    scored = np.asarray([each is not None for each in tokens])
    found[scored] = (model.log_likelihood(sides, progress) * counts).reshape(-1, 2)
    return found


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the progress bars and warnings of transformers, datasets and TRL off the user's terminal."""
    import datasets

    bars, trl = datasets.is_progress_bar_enabled(), logging.getLogger("trl")
    level = trl.level
    datasets.disable_progress_bars()
    trl.setLevel(logging.ERROR)
    try:
        with quiet():
            yield
    finally:
        trl.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def _dataset(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, reference: NDArray[np.float64], max_length: int
) -> Any:
    """Return the rows that TRL trains on, tokenised, with their reference log-probabilities (n_pairs, 2).

    Left out are pairs whose prompt alone has `max_length` tokens. Raises NoPairs where none is left.
    """
    import datasets

    rows = [
        {
            "prompt_ids": tokens.prompt,
            "chosen_ids": tokens.chosen,
            "rejected_ids": tokens.rejected,
            "ref_chosen_logps": float(chosen),
            "ref_rejected_logps": float(rejected),
        }
        for tokens, (chosen, rejected) in zip(tokenize_all(pairs, tokenizer), reference, strict=True)
        if tokens.cut(max_length) is not None
    ]
    if not rows:
        raise NoPairs(f"there are no pairs to train on: every prompt alone has {max_length} tokens.")
    return datasets.Dataset.from_list(rows)


def _longest(rows: Any) -> int:
    """Return the tokens of the longest prompt and response in `rows`."""
    return max(len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows)


def pairs_at_once(longest: int, tokens: int, batch_pairs: int) -> int:
    """Return how many of the `batch_pairs` of a step go through the model together, a divisor of it.

    So many that both sides of each, if all were as long as the `longest`, stay within so many `tokens`; one in any
    case.
    """
    fit = tokens // max(2 * longest, 1)
    return max(n for n in range(1, batch_pairs + 1) if batch_pairs % n == 0 and n <= max(fit, 1))


def _clock(stage: Stage, work: Path) -> Any:
    """Return a callback that advances `stage` and keeps the time spent, checkpoint by checkpoint, in `work`."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Counts steps and seconds."""

        def __init__(self) -> None:
            self.file = work / "seconds.json"
            self.before = float(json.loads(self.file.read_text("utf-8"))) if self.file.exists() else 0.0
            self.started = time.monotonic()

        def seconds(self) -> float:
            return self.before + time.monotonic() - self.started

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started = time.monotonic()
            stage.advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            stage.advance()

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.file.write_text(json.dumps(self.seconds()), "utf-8")

    return Clock()
