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
from premortem.interp.baselines import baselines
from premortem.interp.errors import DataError
from premortem.interp.forecasters import FORECASTERS
from premortem.interp.groups import feature_readouts
from premortem.interp.models import cache_home, load_model
from premortem.interp.progress import Progress
from premortem.interp.readout import Bag, Readout, bag_of
from premortem.interp.records import Pair, content_id
from premortem.interp.skill import Outcome, Predicted, explained, measure_skill
from premortem.interp.start_model import StartModel, Tokens
from premortem.interp.tokens import tokenize
from premortem.interp.training import Trained, TrainingSettings, require_trl, train_dpo
from premortem.interp.validation import Movement, movement, observe, predict, split_by_prompt
from premortem.tools.workbench import Workbench

LEAST_RATE = 0.02
"""Share of answers from which a concept is counted."""

LEAST_RELIABLE = 0.5
"""Reliability of a forecast below which a note says that it is mostly chance."""


KL_ANSWERS = 160
"""Answers from which the divergence of the trained model is estimated, at most: reading them costs two passes."""


class Level(NamedTuple):
    """Concepts of one kind, and what is forecast of them."""

    name: str
    readouts: Sequence[Readout]
    predicted: dict[str, Predicted]
    """By forecaster."""
    baselines: dict[str, NDArray[np.float64]]
    """Effects, `(n_concepts,)`, by baseline."""


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
    require_trl()
    dataset, main = data_and_lens(settings, progress, layer)
    split = split_by_prompt(dataset.pairs, training.seed)
    bench = open_bench(settings, dataset.model_copy(update={"pairs": split.train}), (), main, None, progress)
    with progress.stage("Forecasting"):
        groups, whole = bench.groups, bench.reading.whole
        levels = [
            _level("groups", [group.readout for group in groups], bench, training.seed),
            _level("features", feature_readouts(whole), bench, training.seed),
        ]
    trained = train_dpo(settings.model, split.train, cache_home() / "trained", training, progress)
    after_model = StartModel(load_model(str(trained.folder)), training.seed, cache_home() / "start_model")
    asked = _prompts(split.held_out) * per_prompt
    before = _rollouts(bench, bench.start_model, asked, tokens, progress)
    after = _rollouts(bench, after_model, asked, tokens, progress)
    numbers = np.tile(np.arange(len(asked) // per_prompt), per_prompt)
    outcomes = [observe(level.readouts, before.bag, after.bag, numbers) for level in levels]
    outcome, predicted = outcomes[0], levels[0].predicted
    moved = _movement(bench, after_model, split.held_out, asked, before, after)
    low, high = outcome.interval()
    default = bench.settings.forecaster
    skills, beside, notes = [], [], []
    for level, seen in zip(levels, outcomes, strict=True):
        try:
            skills += [
                _skill(level.name, name, each, seen, moved, name == default, training.seed)
                for name, each in level.predicted.items()
            ]
        except DataError as error:
            notes.append(f"{level.name}: {error}")
            continue
        for name, effect in level.baselines.items():
            r2 = explained(effect, seen, LEAST_RATE) if moved.enough else None
            beside.append({"level": level.name, "name": name, "r2": r2})
    notes += [
        f"{row['level']}: forecasts from two halves of these pairs hardly agree ({row['reliability']:.2f} of 1 when "
        "stepped up to all pairs), so most of what differs between its concepts is chance"
        for row in skills
        if row["default"] and row["reliability"] is not None and row["reliability"] < LEAST_RELIABLE
    ]
    return {
        "run_id": content_id("validation", dataset.sha256, trained.folder.name, per_prompt, tokens, main.lens_id),
        "dataset": {"path": dataset.path, "pairs": len(dataset.pairs), "sha256": dataset.sha256},
        "lens": bench.lens_summary().model_dump(mode="json"),
        "training": _training(training, trained, len(split.train)),
        "rollouts": {"prompts": len(asked) // per_prompt, "per_prompt": per_prompt, "tokens": tokens},
        "movement": moved.model_dump(mode="json"),
        "skill": skills,
        "notes": notes,
        "baselines": beside,
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


def _level(name: str, readouts: Sequence[Readout], bench: Workbench, seed: int) -> Level:
    """Forecast `readouts`, and what each baseline says of them."""
    whole = bench.reading.whole
    predicted = {forecaster: predict(forecaster, whole, readouts, seed) for forecaster in FORECASTERS}
    fires = np.stack([whole.fires(readout) for readout in readouts], 1)
    return Level(name, readouts, predicted, baselines(whole, bench.texts.responses, fires, seed))


def _skill(
    level: str, name: str, predicted: Predicted, outcome: Outcome, moved: Movement, default: bool, seed: int
) -> dict[str, Any]:
    """Return one forecaster's skill; without an R2 where the model has hardly moved."""
    skill = measure_skill(predicted, outcome, least_rate=LEAST_RATE, seed=seed)
    figures = {key: None if value != value else value for key, value in asdict(skill).items()}
    hidden = {} if moved.enough else {"r2": None, "low": None, "high": None}
    return {"level": level, "forecaster": name, "default": default, **figures, **hidden}


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
        (trained.prompt_ids(prompt), trained.answer_ids(text))
        for prompt, text in list(zip(asked, after.texts, strict=True))[:KL_ANSWERS]
    ]
    said = [(prompt, answer) for prompt, answer in answers if answer]
    weights = np.asarray([len(answer) for _, answer in said], dtype=np.float64)
    own, other = (model.log_likelihood(said, bench.progress) for model in (trained, bench.start_model))
    kl = float(np.average(own - other, weights=weights)) if len(said) else 0.0
    start, end = (each.reshape(-1, 2) for each in likelihood)
    return movement(start, end, kl, (float(before.lengths.mean()), float(after.lengths.mean())))
