"""Forecast: from encoded pairs to concepts and their effects, everywhere and within topics.

The concepts of a forecast come from three sources: groups of features that fire together, concepts that discovery
found on one side of the pairs, and the readouts that stand for clauses. Effects are measured for all of them by the
same forecaster, false discoveries are controlled over everything that was looked at, and a concept within a topic is
reported where its effect there differs from its effect elsewhere (inside against outside, as in the published method).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from premortem.interp.directions import Directions
from premortem.interp.discover import Discovery, discover
from premortem.interp.effects import EffectTable, adjusted, measure_inside, prompt_error, verdict
from premortem.interp.forecasters import FITTED, Answers, model_error, tested, values_per_pair
from premortem.interp.groups import group_features, group_readout
from premortem.interp.learner import Learner
from premortem.interp.names import Name, Vocabulary
from premortem.interp.pooling import EncodedPairs
from premortem.interp.progress import NullProgress, Progress
from premortem.interp.readout import Readout, prompt_groups, signed_rows
from premortem.interp.records import ROWS_TOLD, Concept, ConceptEffect, Forecast, Pair, Topic, content_id
from premortem.interp.sides import Edited, Responses, Sides, TokenFacts, Within, responses_of
from premortem.interp.skill import LEAST_CONCEPTS, LEAST_PROMPTS, by_prompt, ceiling
from premortem.interp.topics import group_prompts

FEATURES_SHOWN = 32
"""Features listed with a concept, those with the largest weights."""


@dataclass(frozen=True)
class Reading:
    """A dataset as one lens reads it, with all that the forecast and the tracing share."""

    lens_id: str
    pairs: tuple[Pair, ...]
    responses: Sides
    """What the lens has read of them, or of what edits make of them."""
    vocabulary: Vocabulary
    topics: tuple[Topic, ...]
    directions: Directions | None = None
    """What tells which words a concept makes likelier; None: nothing does."""
    answers: Answers | None = None
    """Lets the start model answer prompts of the data, as this lens reads it; None: nobody can."""

    def values(self, forecaster: str, readouts: Sequence[Readout]) -> NDArray[np.float64]:
        """Return what each pair adds to each concept's effect, `(n_pairs, n_concepts)`; see `values_per_pair`."""
        return values_per_pair(forecaster, self.responses, readouts, self.answers)

    @cached_property
    def learner(self) -> Learner:
        """What learns readouts from the responses, which must be those of the data as it is."""
        return Learner(self.whole)

    def forget_learner(self) -> None:
        """Let go of what learning needs, when all readouts are learnt; asked for again, it is made again."""
        self.__dict__.pop("learner", None)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """`(n_pairs,)`: the row of each pair."""
        return np.asarray([pair.row for pair in self.pairs], dtype=np.int64)

    @property
    def whole(self) -> Responses:
        """The responses, held by themselves; raises TypeError where edits are told as a difference."""
        if not isinstance(self.responses, Responses):
            raise TypeError("this reading tells what edits make of another one")
        return self.responses


@dataclass(frozen=True)
class NamedReadout:
    """A readout as a concept with a tested name."""

    concept: Concept
    readout: Readout


def read(
    pairs: Sequence[Pair],
    encoded: EncodedPairs,
    lens_id: str,
    directions: Directions | None = None,
    closing: NDArray[np.int64] | int = 0,
    facts: TokenFacts | None = None,
) -> Reading:
    """Prepare `pairs`, encoded through the lens `lens_id`, for a forecast; see `responses_of` for the last two."""
    prompts = [pair.prompt_text() for pair in pairs]
    groups = prompt_groups([pair.prompt_key() for pair in pairs])
    texts = [pair.text("chosen") for pair in pairs] + [pair.text("rejected") for pair in pairs]
    vocabulary = Vocabulary(texts, np.concatenate([groups, groups]))
    topics = group_prompts(prompts, [pair.row for pair in pairs])
    responses = responses_of(encoded, groups, closing, facts)
    return Reading(lens_id, tuple(pairs), responses, vocabulary, topics, directions)


def reread(reading: Reading, encoded: EncodedPairs, lens_id: str) -> Reading:
    """Return the same pairs, encoded through another lens; their words and topics are shared."""
    return replace(reading, lens_id=lens_id, responses=responses_of(encoded, reading.responses.groups), answers=None)


def after_edits(reading: Reading, pairs: Sequence[Pair], edited: Edited) -> Reading:
    """Return `reading` as `edited` changes it; `pairs` are those after the edits, in the order of `edited`.

    A new pair belongs to the topics that its prompt belonged to.
    """
    before = set(reading.rows.tolist())
    added = [(pair.row, prompt) for pair, prompt in zip(pairs, edited.prompts, strict=True) if pair.row not in before]
    topics = tuple(_with_rows(topic, added, prompts_of(reading, topic.rows)) for topic in reading.topics)
    return replace(reading, pairs=tuple(pairs), responses=edited, topics=topics)


def without_prompts(reading: Reading, prompts: NDArray[np.int64]) -> Reading:
    """Return `reading` without the pairs of `prompts`, by their numbers (`Sides.prompts`)."""
    return _without(reading, np.isin(reading.responses.prompts, prompts))


def without_rows(reading: Reading, rows: Sequence[int]) -> Reading:
    """Return `reading` without the pairs of some rows."""
    return _without(reading, np.isin(reading.rows, rows))


def _without(reading: Reading, left_out: NDArray[np.bool_]) -> Reading:
    kept = np.flatnonzero(~left_out)
    if len(kept) == len(reading.pairs):
        return reading
    return replace(reading, pairs=tuple(reading.pairs[i] for i in kept), responses=Within(reading.responses, kept))


def topic_named(reading: Reading, name: str | None) -> Topic | None:
    """Return the topic of that name; None where there is none."""
    return next((topic for topic in reading.topics if topic.name == name), None)


def prompts_of(reading: Reading, rows: Sequence[int]) -> NDArray[np.int64]:
    """Return the numbers of the prompts of some rows, as in `Sides.prompts`."""
    return np.unique(reading.responses.prompts[np.isin(reading.rows, rows)])


def _with_rows(topic: Topic, added: Sequence[tuple[int, int]], prompts: NDArray[np.int64]) -> Topic:
    own = set(prompts.tolist())
    return topic.model_copy(update={"rows": (*topic.rows, *(row for row, prompt in added if prompt in own))})


def name_readout(reading: Reading, readout: Readout, origin: str) -> NamedReadout:
    """Name `readout` in the words of the data."""
    shown = reading.responses.fires(readout)
    name = reading.vocabulary.name(shown, reading.directions.promotes(readout) if reading.directions else ())
    return as_concept(reading.lens_id, readout, name, origin, np.packbits(shown).tobytes().hex())


def as_concept(lens_id: str, readout: Readout, name: Name, origin: str, told: str) -> NamedReadout:
    """Return `readout` as the concept of that name; `origin` and `told` tell it from others with the same features."""
    strongest = sorted(readout.strongest(FEATURES_SHOWN))
    concept = Concept(
        concept_id=content_id("concept", lens_id, origin, [feature for feature, _ in strongest], told),
        name=name.text,
        name_tested=name.tested,
        name_score=round(name.score, 4),
        features=tuple(feature for feature, _ in strongest),
        weights=tuple(round(weight, 4) for _, weight in strongest),
        threshold=round(readout.threshold, 4),
        promotes=name.promoted,
    )
    return NamedReadout(concept, readout)


def group_concepts(reading: Reading, n: int | None = None) -> list[NamedReadout]:
    """Return the groups of co-firing features as named concepts; see `group_features` for `n`."""
    groups = group_features(reading.whole, n)
    return [name_readout(reading, group_readout(reading.whole, features), "group") for features in groups]


def discovered(reading: Reading, progress: Progress | None = None) -> tuple[Discovery, ...]:
    """Return what discovery finds blind in `reading`."""
    with (progress or NullProgress()).stage("searching for one-sided concepts", None):
        return discover(reading.learner)


def forecast(reading: Reading, concepts: Sequence[NamedReadout], forecaster: str) -> Forecast:
    """Measure the effect of every concept, everywhere and within topics; strongest first.

    Shares of responses come before shares of tokens: the two cannot be compared.
    """
    values = reading.values(forecaster, [c.readout for c in concepts])
    tables: list[tuple[Topic | None, NDArray[np.bool_]]] = [(None, np.ones(len(reading.pairs), dtype=bool))]
    rows = reading.rows
    tables += [(topic, inside) for topic in reading.topics if (inside := np.isin(rows, topic.rows)).any()]
    readouts = [named.readout for named in concepts]
    shared, error = tested(forecaster, readouts), model_error(forecaster, readouts, reading.answers)
    groups, difference = reading.responses.groups, reading.responses.length_difference
    tabled = [
        (topic, inside, measure_inside(values, groups, difference, inside, model_error=error, shared=shared))
        for topic, inside in tables
    ]
    q = adjusted(np.concatenate([table.p for _, _, table in tabled])) if concepts else np.zeros(0)
    effects: list[ConceptEffect] = []
    for number, (topic, inside, table) in enumerate(tabled):
        own_q = q[number * len(concepts) : (number + 1) * len(concepts)]
        keep = np.ones(len(concepts), dtype=bool) if topic is None else _stands_out(values, groups, inside, own_q)
        effects += [
            _effect(reading, concepts[i], table, i, own_q[i], topic, values, inside)
            for i in map(int, np.flatnonzero(keep))
        ]
    effects.sort(key=lambda e: (e.unit, -abs(e.split_half), -abs(e.effect), e.concept_id))
    by_token = np.asarray([named.readout.unit == "tokens" for named in concepts], dtype=bool)
    return Forecast(
        forecaster=forecaster,
        n_pairs=len(reading.pairs),
        concepts=tuple(effects),
        reliability=None if forecaster in FITTED else reliability(values[:, by_token], groups),
    )


def reliability(values: NDArray[np.float64], prompts: NDArray[np.int64]) -> float | None:
    """Return how far the column means of `values` (n_pairs, n_concepts) from halves of the prompts agree, 0 to 1.

    `prompts` (n_pairs,) numbers the pairs' prompts without gaps. None where there is too little to halve.
    """
    if values.shape[1] < LEAST_CONCEPTS or len(np.unique(prompts)) < LEAST_PROMPTS:
        return None
    return round(ceiling(by_prompt(values, prompts), np.random.default_rng(0)), 4)


def _stands_out(
    values: NDArray[np.float64], groups: NDArray[np.int64], inside: NDArray[np.bool_], q: NDArray
) -> NDArray[np.bool_]:
    """Whether each effect inside a topic is certain and differs from the effect outside by more than chance.

    Pairs of one prompt, by their number in `groups` (n_pairs,), are not independent: Welch's statistic with standard
    errors by prompt, where there are LEAST_PROMPTS of them.
    """
    parts = [(values[some], *np.unique(groups[some], return_inverse=True)) for some in (inside, ~inside)]
    if min(len(prompts) for _, prompts, _ in parts) < LEAST_PROMPTS:
        return np.zeros(values.shape[1], dtype=bool)
    within, outside = (part.mean(0) for part, _, _ in parts)
    here, there = (prompt_error(part - part.mean(0), numbers) for part, _, numbers in parts)
    welch = (within - outside) / (np.hypot(here, there) + 1e-9)
    return np.asarray((q < 0.05) & (np.abs(welch) > 3) & (np.abs(within) > np.abs(outside)))


def _effect(
    reading: Reading,
    named: NamedReadout,
    table: EffectTable,
    i: int,
    q: float,
    topic: Topic | None,
    values: NDArray,
    inside: NDArray[np.bool_],
) -> ConceptEffect:
    effect, low, high = float(table.effect[i]), float(table.low[i]), float(table.high[i])
    split_half, at_equal_length = float(table.split_half[i]), float(table.length_controlled[i])
    return ConceptEffect(
        concept_id=named.concept.concept_id,
        name=named.concept.name,
        name_tested=named.concept.name_tested,
        features=named.concept.features,
        topic=topic.name if topic else None,
        effect=round(effect, 6),
        low=round(low, 6),
        high=round(high, 6),
        verdict=verdict(effect, low, high, float(q), split_half, at_equal_length),
        split_half=round(split_half, 6),
        rows=responsible(reading, named.readout, values[:, i] * inside, float(np.sign(effect)))[:ROWS_TOLD],
        q=round(float(q), 6),
        promotes=named.concept.promotes,
        length_controlled=round(at_equal_length, 6),
        unit=named.readout.unit,
    )


def responsible(reading: Reading, readout: Readout, values: NDArray, direction: float) -> tuple[int, ...]:
    """Return the rows whose value has the sign `direction`, the widest gap between the sides' scores first.

    Of a concept that responses show or do not, only pairs that differ in it, that way: a fitted forecaster gives
    others a value too.
    """
    chosen, rejected = reading.responses.both(reading.responses.scores(readout))
    gap = direction * (chosen - rejected)
    carries = values * direction > 0
    if readout.unit == "responses":
        carries &= signed_rows(reading.responses.fires(readout), reading.responses.n_pairs) * direction > 0
    carriers = np.flatnonzero(carries)
    return tuple(reading.rows[carriers[np.argsort(-gap[carriers], kind="stable")]].tolist())
