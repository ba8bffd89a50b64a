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
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from premortem.interp.effects import adjusted, expected_inside, measure_inside, verdict
from premortem.interp.errors import ModelError, NoPairs
from premortem.interp.records import Pair, Record
from premortem.interp.skill import LEAST_PROMPTS, Outcome, Predicted, by_prompt
from premortem.interp.start_model import MAX_PROMPT
from premortem.interp.tokens import tokenize_all
from premortem.interp.topics import group_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Floats = NDArray[np.float64]

HELD_OUT = 0.2
"""Share of the prompts that are put aside."""
ENOUGH_TEXTS = 50
"""Distinct last messages from which on prompts that end in the same one stay on one side, whatever stands before."""
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


class SharedTopics(NamedTuple):
    """Topics that hold prompts of both parts of a split."""

    names: tuple[str, ...]
    inside: NDArray[np.bool_]
    """`(n_topics, n_prompts)`: which of the prompts trained on, in order of appearance, belong to each."""
    aside: NDArray[np.bool_]
    """`(n_topics, n_prompts)`: which of those put aside."""


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

    Counted are distinct prompts, each with all that stands before its last message. From ENOUGH_TEXTS distinct last
    messages on, the prompts that end in one go together: it is passed over where they are more than are still to be put
    aside, and never is more than HELD_OUT of the last messages, so that a message that ends most of the prompts is not
    left to train on alone. Raises NoPairs where that leaves fewer than LEAST_PROMPTS prompts on either side.
    """
    prompts = {pair.prompt_key(): pair for pair in pairs}
    texts = {pair.prompt_text() for pair in prompts.values()}
    key = Pair.prompt_text if len(texts) >= ENOUGH_TEXTS else Pair.prompt_key
    sizes = Counter(map(key, prompts.values()))
    ordered = sorted(sizes, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "replace")).digest())
    aside = _filled(ordered, sizes)
    held = sum(sizes[text] for text in aside)
    if min(held, len(prompts) - held) < LEAST_PROMPTS:
        ends = f" with {len(sizes)} last messages" if len(sizes) < len(prompts) else ""
        raise NoPairs(f"validation puts aside a fifth of the prompts; {len(prompts)} different ones{ends} are too few.")
    inside = tuple(pair for pair in pairs if key(pair) not in aside)
    return Split(inside, tuple(pair for pair in pairs if key(pair) in aside))


def _filled(ordered: Iterable[str], sizes: Mapping[str, int]) -> set[str]:
    """Return the first texts that fit into what is put aside; `sizes` tells how many prompts belong to each."""
    room, aside = min(MOST_HELD_OUT, round(HELD_OUT * sum(sizes.values()))), set[str]()
    for text in ordered:
        if sizes[text] <= room and len(aside) < round(HELD_OUT * len(sizes)):
            aside.add(text)
            room -= sizes[text]
    return aside


def with_room(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, tokens: int, max_length: int
) -> tuple[Pair, ...]:
    """Return the pairs whose prompt can be asked and its answer of so many `tokens` read within `max_length` tokens.

    Of any other prompt nothing or less would be read, which looks like a shift of 0; see `why_left_out`. Raises NoPairs
    where none is left.
    """
    longest = min(max_length - tokens, MAX_PROMPT)
    read = tokenize_all(pairs, tokenizer)
    kept = tuple(pair for pair, each in zip(pairs, read, strict=True) if len(each.prompt) <= longest)
    if not kept:
        raise NoPairs(f"all prompts are left out: {why_left_out(tokens, max_length)}.")
    return kept


def why_left_out(tokens: int, max_length: int) -> str:
    """Return what is wrong with the prompts that `with_room` leaves out."""
    if max_length - tokens < MAX_PROMPT:
        return f"no room for an answer of {tokens} tokens within {max_length}"
    return f"longer than the {MAX_PROMPT} tokens of a prompt that a model is shown to answer it"


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


def divergence(own: Floats, other: Floats, lengths: Floats) -> float:
    """Return how far the trained model is from the start model on its own answers, in nats per token.

    `own` and `other` (n_answers,) are the log-probabilities of those answers under the trained model and the start
    model, means over `lengths` tokens; NaN where an answer cannot be scored, which does not count. 0 where none does.
    Raises ModelError where the trained model scores none of its answers: it has no finite probabilities left.
    """
    if len(own) and not np.isfinite(own).any():
        raise ModelError("training has diverged: the trained model gives no token a probability; lower --learning-rate")
    scored = np.isfinite(own) & np.isfinite(other)
    return float(np.average((own - other)[scored], weights=lengths[scored])) if scored.any() else 0.0


def mean_movement(movements: Sequence[Movement]) -> Movement:
    """Return how far some trainings went on the average; enough where each of them did."""
    figures = ("margin", "held_out_accuracy", "kl_per_token", "length_before", "length_after")
    means = {name: float(np.mean([getattr(one, name) for one in movements])) for name in figures}
    return Movement(**means, enough=all(one.enough for one in movements))


def shared_topics(trained_on: Sequence[str], aside: Sequence[str]) -> SharedTopics:
    """Group the distinct prompts `trained_on` and those put `aside`, each in order of appearance, together.

    Only topics with MIN_PAIRS prompts in all and LEAST_PROMPTS on either side are kept; there may be none.
    """
    inside, prompts = list(trained_on), [*trained_on, *aside]
    found = group_prompts(prompts, range(len(prompts)))
    members = [np.isin(np.arange(len(prompts)), topic.rows) for topic in found]
    apart = [(member[: len(inside)], member[len(inside) :]) for member in members]
    kept = [i for i, sides in enumerate(apart) if min(side.sum() for side in sides) >= LEAST_PROMPTS]
    names = tuple(found[i].name for i in kept)
    return SharedTopics(names, *(np.asarray([apart[i][side] for i in kept], dtype=bool) for side in (0, 1)))


def observe(
    before: Floats, after: Sequence[Floats], prompts: NDArray[np.int64], topics: NDArray[np.bool_] | None = None
) -> Outcome:
    """Return what answers show of some concepts, the amounts `before` and `after` each training, on the average.

    Amounts are `(n_answers, n_concepts)`. `prompts` (n_answers,) numbers the prompt of each answer, the same in all,
    without gaps, and as often each. With `topics` (n_topics, n_prompts) the outcome has a column for each concept
    within each topic, topic after topic. The resolution of an answer is the least that any shows; 1 where none does.
    """
    each = [by_prompt(one - before, prompts) for one in after]
    seen = np.mean([one > 0 for one in after], 0)
    shown = by_prompt(((before > 0) + seen) / 2, prompts)
    if topics is not None:
        each, shown = [_within(one, topics) for one in each], _within(shown, topics)
    inside = _columns(topics, before.shape[1])
    steps = np.min([np.where(one > 0, one, np.inf).min(0) for one in (before, *after)], 0)
    places = np.ones((1, len(shown))) if topics is None else topics
    answers = places.sum(1) * (len(prompts) / len(shown))
    resolution = (np.where(np.isfinite(steps), steps, 1.0) / answers[:, None]).ravel()
    return Outcome(np.mean(each, 0), shown.mean(0), tuple(each) if len(each) > 1 else (), inside, resolution)


def predict(
    values: Floats,
    prompts: NDArray[np.int64],
    length_difference: NDArray[np.int64],
    *,
    topics: NDArray[np.bool_] | None = None,
    error: Callable[[Floats], Floats] | None = None,
    shared: NDArray[np.bool_] | None = None,
    fitted: bool = False,
    one_sided: bool = False,
    seed: int = 0,
) -> Predicted:
    """Return what a forecaster says of some concepts, and what it would say if the sides were swapped at random.

    `values` (n_pairs, n_concepts) is what each pair adds, `fitted` whether that depends on the other pairs, `one_sided`
    whether it does not turn its sign with the sides, so that swapped ones say nothing; `prompts` (n_pairs,) numbers the
    pairs' prompts without gaps. `error` tells from values how far training strays from their
    means, `(2, n_concepts)`. With `topics` (n_topics, n_prompts) there is a column for each concept within each topic,
    topic after topic; `shared` (n_concepts,) marks the concepts of which a topic learns most from all pairs.
    """
    places = np.ones((1, int(prompts.max()) + 1), dtype=bool) if topics is None else topics
    taught = np.zeros(values.shape[1], dtype=bool) if shared is None else shared
    stray = error or (lambda some: np.zeros((2, some.shape[1])))
    tables = [
        measure_inside(values, prompts, length_difference, topic[prompts], model_error=stray, shared=taught)
        for topic in places
    ]
    effect, low, high, p, split_half, controlled = (
        np.concatenate([getattr(table, name) for table in tables])
        for name in ("effect", "low", "high", "p", "split_half", "length_controlled")
    )
    columns = zip(effect, low, high, adjusted(p), split_half, controlled, strict=True)
    called = [CALLED[verdict(*map(float, column))] for column in columns]
    apart = np.hstack([by_prompt(expected_inside(values, topic[prompts], taught), prompts) for topic in places])
    swaps = 0 if one_sided else SWAPS
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(swaps, len(apart)))
    return Predicted(
        effect,
        low,
        high,
        np.asarray(called, dtype=np.int64),
        swapped=signs @ apart / len(apart),
        by_prompt=None if fitted else apart,
        inside=_columns(topics, values.shape[1]),
    )


def _within(values: Floats, topics: NDArray[np.bool_]) -> Floats:
    """Return `values` (n_prompts, k) once for each topic, so scaled that the mean over all prompts is the topic's."""
    alone = np.zeros(values.shape[1], dtype=bool)
    return np.hstack([expected_inside(values, topic, alone) for topic in topics])


def _columns(topics: NDArray[np.bool_] | None, k: int) -> NDArray[np.bool_] | None:
    """Return which prompts belong to the topic of each of `k` columns a topic, `(n_prompts, n_topics * k)`."""
    return None if topics is None else np.repeat(topics, k, axis=0).T
