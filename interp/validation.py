"""Validation: what DPO did, in the terms of the forecast.

Some prompts are put aside before anything is forecast or trained. After training, the start model and the trained one
answer them; both models' answers are read through the start model's lens, and a concept's learned shift is the share of
answers that show it after minus before, prompt by prompt. How far training moved the model at all is told beside it,
because a forecast cannot be judged by a model that has not moved: the margin on held-out pairs, and the divergence of
the trained model from the start model per token of its own answers (a Monte Carlo estimate of KL).

Nothing here trains, samples or reads: it is given what came of that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from premortem.interp.effects import adjusted, measure, verdict
from premortem.interp.errors import NoPairs
from premortem.interp.forecasters import FITTED, values_per_pair
from premortem.interp.readout import Bag, Readout, Responses
from premortem.interp.records import Pair, Record
from premortem.interp.skill import LEAST_PROMPTS, Outcome, Predicted

HELD_OUT = 0.2
"""Share of the prompts that are put aside."""
MOST_HELD_OUT = 120
"""Prompts put aside, at most."""
LEAST_KL = 0.01
"""Nats per token by which the trained model must differ from the start model for an R2 to mean anything."""
SWAPS = 200
"""Forecasts from randomly swapped sides."""
CALLED = {"amplified": 1, "suppressed": -1, "cannot_tell": 0}


class Split(NamedTuple):
    """Pairs to train on, and pairs whose prompts are never trained on."""

    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]


class Movement(Record):
    """How far training moved the model."""

    margin: float
    """DPO's implicit reward of the chosen response minus that of the rejected one on held-out pairs, mean, in units of
    beta: positive where training carries over."""
    held_out_accuracy: float
    """Share of held-out pairs whose margin is positive, 0 to 1."""
    kl_per_token: float
    """Divergence of the trained model from the start model on its own answers, in nats per token."""
    length_before: float
    """Tokens of an answer of the start model, mean."""
    length_after: float
    """Tokens of an answer of the trained model, mean."""
    enough: bool
    """Whether that is enough to judge a forecast by."""


def split_by_prompt(pairs: Sequence[Pair], seed: int = 0) -> Split:
    """Put aside HELD_OUT of the prompts, MOST_HELD_OUT at most; which ones depends on their text and `seed` alone.

    Raises NoPairs where that leaves fewer than LEAST_PROMPTS prompts on either side.
    """
    prompts = {pair.prompt_text() for pair in pairs}
    ordered = sorted(prompts, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "replace")).digest())
    aside = set(ordered[: min(MOST_HELD_OUT, round(HELD_OUT * len(ordered)))])
    if min(len(aside), len(prompts) - len(aside)) < LEAST_PROMPTS:
        raise NoPairs(f"validation puts aside a fifth of the prompts; {len(prompts)} different ones are too few.")
    inside = tuple(pair for pair in pairs if pair.prompt_text() not in aside)
    return Split(inside, tuple(pair for pair in pairs if pair.prompt_text() in aside))


def movement(
    start: NDArray[np.float64], trained: NDArray[np.float64], kl_per_token: float, lengths: tuple[float, float]
) -> Movement:
    """Return how far training went.

    `start` and `trained` (n_pairs, 2) are the log-likelihoods of the held-out pairs' chosen and rejected responses in
    nats, summed over tokens; `lengths` the mean tokens of an answer before and after.
    """
    ratio = trained - start
    margins = (ratio[:, 0] - ratio[:, 1])[np.isfinite(ratio).all(1)]
    return Movement(
        margin=float(margins.mean()) if len(margins) else 0.0,
        held_out_accuracy=float((margins > 0).mean()) if len(margins) else 0.0,
        kl_per_token=kl_per_token,
        length_before=lengths[0],
        length_after=lengths[1],
        enough=kl_per_token >= LEAST_KL,
    )


def observe(readouts: Sequence[Readout], before: Bag, after: Bag, prompts: NDArray[np.int64]) -> Outcome:
    """Return what the answers `before` and `after` training show of some concepts.

    `prompts` (n_answers,) numbers the prompt of each answer, the same in both, without gaps.
    """
    shown = [np.stack([readout.fires(bag) for readout in readouts], 1).astype(float) for bag in (before, after)]
    counts = np.bincount(prompts)[:, None]
    shares = [np.stack([np.bincount(prompts, column) for column in each.T], 1) / counts for each in shown]
    return Outcome(shares[1] - shares[0], (shown[0].mean(0) + shown[1].mean(0)) / 2)


def predict(forecaster: str, responses: Responses, readouts: Sequence[Readout], seed: int = 0) -> Predicted:
    """Return what `forecaster` says of some concepts, and what it would say if the sides were swapped at random."""
    values = values_per_pair(forecaster, responses, readouts)
    table = measure(values, responses.groups, responses.length_difference)
    columns = zip(
        table.effect,
        table.low,
        table.high,
        adjusted(table.p),
        table.split_half,
        table.length_controlled,
        strict=True,
    )
    called = [CALLED[verdict(*map(float, column))] for column in columns]
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], size=(SWAPS, int(responses.groups.max()) + 1))[:, responses.groups]
    swapped = signs @ values / len(values)
    apart = None if forecaster in FITTED else _by_prompt(values, responses.groups)
    return Predicted(table.effect, table.low, table.high, np.asarray(called, dtype=np.int64), swapped, apart)


def _by_prompt(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = np.stack([np.bincount(groups, column) for column in values.T], 1)
    return np.asarray(sums / np.bincount(groups)[:, None])
