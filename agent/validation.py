"""`agent validate`: forecast, train for real, sample both models, and hold the forecast against what was learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from premortem.agent.opening import data_and_lens, open_bench
from premortem.agent.runs import RunSettings
from premortem.interp.errors import DataError
from premortem.interp.forecasters import FORECASTERS
from premortem.interp.models import cache_home, load_model
from premortem.interp.progress import Progress
from premortem.interp.readout import Bag, bag_of
from premortem.interp.records import Pair, content_id
from premortem.interp.skill import Outcome, Predicted, measure_skill
from premortem.interp.start_model import StartModel, Tokens
from premortem.interp.tokens import tokenize
from premortem.interp.training import Trained, TrainingSettings, train_dpo
from premortem.interp.validation import Movement, movement, observe, predict, split_by_prompt
from premortem.tools.workbench import Workbench

LEAST_RATE = 0.02
"""Share of answers from which a concept is counted."""


class Rollouts(NamedTuple):
    """Answers of one model to the held-out prompts."""

    texts: list[str]
    bag: Bag
    """As the start model's lens reads them."""
    lengths: NDArray[np.int64]
    """Tokens of each."""


def validate(
    settings: RunSettings,
    training: TrainingSettings,
    progress: Progress,
    *,
    per_prompt: int = 4,
    tokens: int = 64,
    layer: int | None = None,
) -> dict[str, Any]:
    """Return the document of a validation. Each step is kept, so an interrupted validation goes on.

    Raises NoPairs where the prompts are too few to put some aside, ModelError without TRL.
    """
    dataset, main = data_and_lens(settings, progress, layer)
    split = split_by_prompt(dataset.pairs, training.seed)
    bench = open_bench(settings, dataset.model_copy(update={"pairs": split.train}), (), main, None, progress)
    with progress.stage("Forecasting"):
        groups = bench.groups
        readouts = [group.readout for group in groups]
        predicted = {name: predict(name, bench.reading.whole, readouts, training.seed) for name in FORECASTERS}
    trained = train_dpo(settings.model, split.train, cache_home() / "trained", training, progress)
    after_model = StartModel(load_model(str(trained.folder)), training.seed, cache_home() / "start_model")
    asked = _prompts(split.held_out) * per_prompt
    before = _rollouts(bench, bench.start_model, asked, tokens, progress)
    after = _rollouts(bench, after_model, asked, tokens, progress)
    numbers = np.tile(np.arange(len(asked) // per_prompt), per_prompt)
    outcome = observe(readouts, before.bag, after.bag, numbers)
    moved = _movement(bench, after_model, split.held_out, asked, before, after)
    low, high = outcome.interval()
    default, seed = bench.settings.forecaster, training.seed
    skills, notes = [], []
    try:
        skills = [_skill(name, each, outcome, moved, name == default, seed) for name, each in predicted.items()]
    except DataError as error:
        notes.append(str(error))
    return {
        "run_id": content_id("validation", dataset.sha256, trained.folder.name, per_prompt, tokens, main.lens_id),
        "dataset": {"path": dataset.path, "pairs": len(dataset.pairs), "sha256": dataset.sha256},
        "lens": bench.lens_summary().model_dump(mode="json"),
        "training": _training(training, trained, len(split.train)),
        "rollouts": {"prompts": len(asked) // per_prompt, "per_prompt": per_prompt, "tokens": tokens},
        "movement": moved.model_dump(mode="json"),
        "skill": skills,
        "notes": notes,
        "baselines": [],
        "concepts": [
            {
                "concept_id": group.concept.concept_id,
                "name": group.concept.name,
                "topic": None,
                "forecast": round(float(predicted[default].effect[i]), 6),
                "forecasts": {name: round(float(each.effect[i]), 6) for name, each in predicted.items()},
                "learned": round(float(outcome.learned[i]), 6),
                "low": round(float(low[i]), 6),
                "high": round(float(high[i]), 6),
                "rate": round(float(outcome.rates[i]), 6),
            }
            for i, group in enumerate(groups)
        ],
    }


def _skill(
    name: str, predicted: Predicted, outcome: Outcome, moved: Movement, default: bool, seed: int
) -> dict[str, Any]:
    """Return one forecaster's skill; without an R2 where the model has hardly moved."""
    skill = measure_skill(predicted, outcome, least_rate=LEAST_RATE, seed=seed)
    figures = {key: None if value != value else value for key, value in asdict(skill).items()}
    hidden = {} if moved.enough else {"r2": None, "low": None, "high": None}
    return {"level": "groups", "forecaster": name, "default": default, **figures, **hidden}


def _training(settings: TrainingSettings, trained: Trained, n_pairs: int) -> dict[str, Any]:
    done = trained.model_dump(mode="json")
    return {**settings.model_dump(mode="json"), **done, "folder": Path(done["folder"]).name, "pairs": n_pairs}


def _prompts(pairs: Sequence[Pair]) -> list[Any]:
    """Return each prompt once."""
    return list({pair.prompt_text(): pair.prompt for pair in pairs}.values())


def _rollouts(bench: Workbench, model: StartModel, asked: list[Any], tokens: int, progress: Progress) -> Rollouts:
    texts = model.sample(asked, max_new_tokens=tokens, progress=progress)
    pooled = bench.reader.encode_texts(list(zip(asked, texts, strict=True)), progress)[bench.main.lens_id]
    return Rollouts(texts, bag_of(pooled), np.asarray(pooled.n_tokens))


def _movement(
    bench: Workbench,
    trained: StartModel,
    held_out: Sequence[Pair],
    asked: list[Any],
    before: Rollouts,
    after: Rollouts,
) -> Movement:
    found = [tokenize(pair, trained.tokenizer) for pair in held_out]
    kept = [pair for pair in found if pair is not None]
    sides: list[Tokens] = [(pair.prompt, side) for pair in kept for side in (pair.chosen, pair.rejected)]
    counts = np.asarray([len(side) for _, side in sides])
    likelihood = [model.log_likelihood(sides, bench.progress) * counts for model in (bench.start_model, trained)]
    answers: list[Tokens] = [
        (trained.prompt_ids(prompt), trained.answer_ids(text)) for prompt, text in zip(asked, after.texts, strict=True)
    ]
    said = [(prompt, answer) for prompt, answer in answers if answer]
    weights = np.asarray([len(answer) for _, answer in said], dtype=np.float64)
    own, other = (model.log_likelihood(said, bench.progress) for model in (trained, bench.start_model))
    kl = float(np.average(own - other, weights=weights)) if len(said) else 0.0
    start, end = (each.reshape(-1, 2) for each in likelihood)
    return movement(start, end, kl, (float(before.lengths.mean()), float(after.lengths.mean())))
