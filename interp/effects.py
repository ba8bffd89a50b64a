"""Effects: from signs per pair to an effect with an interval, its controls and a verdict.

The unit is a share, of responses where a concept fires or of tokens, chosen minus rejected. Pairs that share a prompt
are not independent, so intervals and tests treat the prompt as the unit (cluster-robust standard errors; Liang and
Zeger 1986), with Student's t for one prompt less than there are. The verdict is `cannot_tell` unless three independent
objections fail: chance (Benjamini-Hochberg over all that was looked at), instability (both halves of the prompts agree
in sign) and length (the effect survives at equal length).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from premortem.interp.records import EffectVerdict

Z90 = 1.6448536269514722
"""Half-width of a 90% normal interval in standard errors."""
FALSE_DISCOVERY_RATE = 0.05
CLEAR = 2.0
"""Standard errors from which an effect's slope on length counts."""
INSIDE = 0.1
"""Weight of a topic's own pairs in what training is expected to do inside it; the rest has the effect of all pairs.
What a model learns from some prompts it does on others too: see `tests/bench/skill.md`, from whose runs this is."""


@dataclass(frozen=True)
class EffectTable:
    """The statistics of many concepts over the same pairs; every array is `(n_concepts,)`."""

    effect: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]
    split_half: NDArray[np.float64]
    length_controlled: NDArray[np.float64]


def measure(
    signs: NDArray,
    groups: NDArray[np.int64],
    length_difference: NDArray,
    model_error: NDArray[np.float64] | float = 0.0,
) -> EffectTable:
    """Measure the effect of each column of `signs` (n_pairs, n_concepts), values -1 to 1.

    `groups` (n_pairs,) numbers the prompts, gaps do not matter; `length_difference` (n_pairs,) is chosen minus
    rejected, in tokens; `model_error` (2, n_concepts) is how far training strays from a forecast that knew all pairs
    there are, towards zero and away from it: standard deviations that widen the intervals.
    """
    values = np.asarray(signs, dtype=np.float64)
    groups = np.unique(groups, return_inverse=True)[1]
    effect = values.mean(0)
    freedom = int(groups.max())
    # a concept that never varies still has the resolution of one prompt
    error = np.maximum(prompt_error(values - effect, groups), np.abs(values).max(0, initial=0.0) / (2 * (freedom + 1)))
    z = effect / np.maximum(error, 1e-12)
    if not freedom:  # one prompt: nothing says how much another would differ
        p, towards, away = np.ones_like(z), np.full_like(z, np.inf), np.full_like(z, np.inf)
    else:
        p = 2 * stats.t.sf(np.abs(z), freedom)
        half = stats.t.ppf(0.95, freedom)
        towards, away = half * np.hypot(error, np.broadcast_to(model_error, (2, len(error))))
    return EffectTable(
        effect=effect,
        low=np.maximum(effect - np.where(effect > 0, towards, away), -1.0),
        high=np.minimum(effect + np.where(effect > 0, away, towards), 1.0),
        p=p,
        split_half=_split_half(values, groups),
        length_controlled=_at_equal_length(values, length_difference, groups),
    )


def measure_inside(
    values: NDArray[np.float64],
    groups: NDArray[np.int64],
    length_difference: NDArray,
    inside: NDArray[np.bool_],
    *,
    model_error: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    shared: NDArray[np.bool_],
) -> EffectTable:
    """Measure effects as `measure` does, for the pairs marked in `inside` (n_pairs,).

    Those of the concepts marked in `shared` (n_concepts,) are what to expect inside, most of it taught by all pairs;
    the others are what the pairs inside show themselves. `model_error` tells that of `measure` from values.
    """

    def own() -> EffectTable:
        there = values[inside]
        return measure(there, groups[inside], length_difference[inside], model_error(there))

    if inside.all() or not shared.any():
        return own()
    expected = expected_inside(values, inside, shared)
    taught = measure(expected, groups, length_difference, model_error(expected))
    if shared.all():
        return taught
    local, names = own(), [field.name for field in fields(EffectTable)]
    return EffectTable(*(np.where(shared, getattr(taught, name), getattr(local, name)) for name in names))


def expected_inside(
    values: NDArray[np.float64], inside: NDArray[np.bool_], shared: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return `values` (n, k) so weighted that their means are those expected inside, where `inside` (n,) marks pairs.

    That is the mean of the marked, at least one, and for the columns `shared` (k,) INSIDE of it and the rest of all.
    """
    if inside.all():
        return values
    own = np.where(shared, INSIDE, 1.0)
    return np.asarray(values * (1 - own + np.outer(inside * len(inside) / inside.sum(), own)))


def prompt_error(centred: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the standard error of the mean of each column of `centred` (n, k) with prompts as clusters, `(k,)`.

    `groups` (n,) numbers the prompts without gaps.
    """
    sums = prompt_sums(centred, groups)
    correction = len(sums) / max(len(sums) - 1, 1)
    return np.asarray(np.sqrt(correction * (sums**2).sum(0)) / len(centred))


def prompt_sums(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sums of `values` (n, k) over the rows of each prompt, `(n_prompts, k)`; `groups` (n,) numbers them."""
    n = len(values)
    member = sparse.csr_matrix((np.ones(n), (groups, np.arange(n))), shape=(int(groups.max()) + 1, n))
    return np.asarray(member @ values)


def first_half(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows belong to the first half of the data, by their prompt's number in `groups` (n,), `(n,)`.

    Of every two prompts in a row one is drawn: data that alternates between sources has all of them in both halves.
    """
    drawn = np.random.default_rng(0).integers(0, 2, size=int(groups.max(initial=0)) // 2 + 1)
    return np.asarray(groups % 2 == drawn[groups // 2])


def _split_half(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """The smaller of the two halves' means by magnitude, halves by prompt; 0 where their signs differ."""
    first = first_half(groups)
    if first.all() or not first.any():
        return np.zeros(values.shape[1])
    a, b = values[first].mean(0), values[~first].mean(0)
    smaller = np.where(np.abs(a) < np.abs(b), a, b)
    return np.where(a * b > 0, smaller, 0.0)


def _at_equal_length(
    values: NDArray[np.float64], length_difference: NDArray, groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Intercept of each column's least-squares line on the signed log length difference.

    Where the line's slope cannot be told from none (CLEAR standard errors, prompts as clusters) it is the mean: where
    one side is always the longer one, the intercept lies far from the data, and a slope of chance would decide it.
    """
    x = np.sign(length_difference) * np.log1p(np.abs(length_difference))
    centred = x - x.mean()
    variance, mean = float((centred**2).mean()), values.mean(0)
    if variance == 0:
        return mean
    slope = (centred[:, None] * values).mean(0) / variance
    left = values - mean - centred[:, None] * slope
    error = prompt_error(centred[:, None] * left, groups) / variance
    return np.asarray(np.where(np.abs(slope) < CLEAR * error, mean, mean - slope * x.mean()))


def adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Benjamini-Hochberg adjusted p-values."""
    return stats.false_discovery_control(np.clip(p, 0, 1)) if len(p) else p


def verdict(
    effect: float, low: float, high: float, q: float, split_half: float, at_equal_length: float
) -> EffectVerdict:
    """Decide from the statistics of one effect; see the module's text for the three objections."""
    doubtful = q > FALSE_DISCOVERY_RATE or low <= 0 <= high or split_half == 0 or effect * at_equal_length <= 0
    if doubtful or abs(at_equal_length) < 0.25 * abs(effect):
        return "cannot_tell"
    return "amplified" if effect > 0 else "suppressed"
