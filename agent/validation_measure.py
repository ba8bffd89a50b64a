"""What is forecast before training, and how far it comes true in the answers of trained models.

A forecast does not depend on the answers, so each is made once and held against every set of answers in turn; then only
its effects and its skill are kept. What each pair and each prompt adds takes some 30 times as much room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from premortem.agent.validation_document import Measured, yardstick
from premortem.interp.baselines import baselines
from premortem.interp.errors import DataError
from premortem.interp.forecasters import DEAR, FITTED, FORECASTERS, ONE_SIDED, TESTED, model_error, tested
from premortem.interp.readout import Bag, Floats, Readout, amounts
from premortem.interp.skill import Outcome, Skill, Yardstick
from premortem.interp.validation import SharedTopics, observe, predict
from premortem.tools.workbench import Workbench


class Forecasts(NamedTuple):
    """What is said of some concepts before training."""

    readouts: Sequence[Readout]
    values: dict[str, Floats]
    """What each pair adds, `(n_pairs, n_concepts)`, by forecaster."""
    errors: dict[str, Callable[[Floats], Floats]]
    """What tells how far training strays from values, by forecaster; see `model_error`."""
    baselines: dict[str, Floats]
    """Effects, `(n_concepts,)`, by baseline."""


class Rollouts(NamedTuple):
    """Answers of one model."""

    texts: list[str]
    bag: Bag
    """As the start model's lens reads them."""


class Asked(NamedTuple):
    """Prompts that all models answer, each as often."""

    prompts: list[Any]
    """`(n_answers,)`, all of them once and then again."""
    numbers: NDArray[np.int64]
    """`(n_answers,)`: which prompt each is."""

    @classmethod
    def of(cls, prompts: Sequence[Any], times: int) -> Asked:
        """Ask each of `prompts` so many `times`."""
        return cls(list(prompts) * times, np.tile(np.arange(len(prompts)), times))

    @property
    def size(self) -> dict[str, int]:
        """How many prompts, and answers to each."""
        prompts = int(self.numbers.max()) + 1
        return {"prompts": prompts, "per_prompt": len(self.prompts) // prompts}


class Answers(NamedTuple):
    """What the start model and each trained one say to the same prompts."""

    asked: Asked
    before: Rollouts
    after: Sequence[Rollouts]


def forecasts_of(
    readouts: Sequence[Readout], bench: Workbench, covariates: Mapping[str, NDArray] | None = None
) -> Forecasts:
    """Ask all forecasters about `readouts`, and a baseline for each of `covariates`.

    Those that cost about as much as training does are asked where one of them is the bench's own.

    Raises DataError where there is nothing to ask about.
    """
    if not readouts:
        raise DataError("the lens sees nothing in these pairs that tells them apart; more pairs are needed")
    asked = [name for name in FORECASTERS if name not in DEAR or name == bench.settings.forecaster]
    values: dict[str, Floats] = {name: bench.reading.values(name, readouts) for name in asked}
    alike = model_error(TESTED[0], readouts, bench.reading.answers)
    errors: dict[str, Callable[[Floats], Floats]] = {
        name: alike if name in TESTED else model_error(name, readouts, None) for name in asked
    }
    shown = bench.reading.whole.amounts(readouts)
    return Forecasts(readouts, values, errors, baselines(covariates or {}, shown))


def measured_against(
    bench: Workbench,
    seed: int,
    level: str,
    forecasts: Forecasts,
    answers: Sequence[Answers],
    topics: SharedTopics | None = None,
) -> list[Measured]:
    """Return how forecasts did in each of `answers`, everywhere or within topics; `seed` is that of the resampling.

    A baseline says of a concept within each topic what it says of it everywhere.
    """
    responses = bench.reading.responses
    outcomes = [_outcome(forecasts.readouts, each, topics) for each in answers]
    sticks = [yardstick(outcome, seed) for outcome in outcomes]
    effects: dict[str, Floats] = {}
    skills: list[dict[str, Skill]] = [{} for _ in answers]
    for name, values in forecasts.values.items():
        predicted = predict(
            values,
            responses.groups,
            responses.length_difference,
            topics=topics.inside if topics else None,
            error=forecasts.errors[name],
            shared=tested(name, forecasts.readouts),
            fitted=name in FITTED,
            one_sided=name in ONE_SIDED,
            seed=bench.settings.seed,
        )
        effects[name] = predicted.effect
        for stick, found in zip(sticks, skills, strict=True):
            if isinstance(stick, Yardstick):
                found[name] = stick.measure(predicted)
    places = len(topics.names) if topics else 1
    known = {name: np.tile(effect, places) for name, effect in forecasts.baselines.items()}
    return [
        Measured(level, outcome, effects, found, stick if isinstance(stick, str) else "", known)
        for outcome, stick, found in zip(outcomes, sticks, skills, strict=True)
    ]


def _outcome(readouts: Sequence[Readout], answers: Answers, topics: SharedTopics | None) -> Outcome:
    before, *after = (amounts(each.bag, readouts) for each in (answers.before, *answers.after))
    return observe(before, after, answers.asked.numbers, topics.aside if topics else None)
