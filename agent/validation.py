"""`agent validate`: forecast, train for real, sample all models, and hold the forecast against what was learned.

Trainings differ in their seed alone. Each trained model is loaded once, asked all that it is asked, and let go of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from premortem.agent.evidence import check_unchanged
from premortem.agent.opening import data_and_lens, open_bench
from premortem.agent.runs import RunSettings
from premortem.agent.validation_document import Measured, Ran, document_of, held_against
from premortem.agent.validation_measure import Answers, Asked, Forecasts, Rollouts, forecasts_of, measured_against
from premortem.interp.baselines import covariates_of
from premortem.interp.cache_home import cache_home
from premortem.interp.forecast import group_concepts, responsible
from premortem.interp.groups import feature_readouts, group_features, group_readout
from premortem.interp.models import load_model, load_tokenizer, resolve_model
from premortem.interp.progress import Progress
from premortem.interp.readout import Bools, Readout, amounts
from premortem.interp.records import Clause, ConceptEffect, Finding, Pair, content_id
from premortem.interp.scope import exempt
from premortem.interp.scores import Tokens
from premortem.interp.skill import LEAST_PROMPTS
from premortem.interp.start_model import StartModel
from premortem.interp.training import (
    HELD,
    Trained,
    TrainingSettings,
    pair_log_likelihood,
    reference_log_likelihood,
    require_trl,
    train_dpo,
)
from premortem.interp.validation import (
    Movement,
    divergence,
    mean_movement,
    movement,
    observe,
    shared_topics,
    split_by_prompt,
    why_left_out,
    with_room,
)
from premortem.prompts.elsewhere import elsewhere_prompts
from premortem.tools.forecast_concepts import SAME_ROWS, ForecastArgs, forecast_concepts
from premortem.tools.workbench import Workbench

CUT = 0.25
"""Share of answers that are cut short, or more: then it is told."""
KL_ANSWERS = 160
"""Answers from which the divergence of the trained model is estimated, at most: reading them costs two passes."""

ELSEWHERE = 4
"""Answers to each prompt that belongs to no dataset, at most."""

ROWS = 50
"""Rows told with a group, at most."""
FINER = 300
"""Groups of the same features, when they are told apart more finely."""


class OfRun(NamedTuple):
    """What a validation takes over of a run, beside its settings."""

    run_id: str
    dataset_sha256: str | None
    """Of the data that the run has read; None: the data are others, or the run has not come so far."""
    clauses: tuple[Clause, ...]
    findings: tuple[Finding, ...]


class Probe(NamedTuple):
    """What each trained model is asked."""

    held_out: Sequence[Pair]
    asked: tuple[Asked, ...]
    start_model: StartModel
    start: Rollouts
    """What the start model says to the first of `asked`."""
    tokens: int
    """Tokens of an answer, at most."""
    max_length: int
    """Tokens of prompt and response together that are trained on."""


class Replicate(NamedTuple):
    """What came of one training."""

    answers: tuple[Rollouts, ...]
    """To each set of prompts that was asked."""
    movement: Movement


def validate(
    settings: RunSettings,
    training: TrainingSettings,
    progress: Progress,
    *,
    per_prompt: int = 4,
    tokens: int = 64,
    layer: int | None = None,
    n_groups: int | None = None,
    trainings: int = 1,
    run: OfRun | None = None,
) -> dict[str, Any]:
    """Return the document of a validation over `n_groups` groups of features, or as many as a forecast has.

    The forecast is held against the mean over `trainings`, which have the seeds from that of `training` on, and so is
    each finding: what breaks the clauses of `run`, and what none of them thought of. Each step is kept, so an
    interrupted validation goes on. Raises NoPairs where the prompts are too few to put some aside, ModelError without
    TRL or where training diverges, DataError where the lens sees nothing in the pairs that tells them apart, or where
    the data is not what `run` has read.
    """
    require_trl()
    dataset, main = data_and_lens(settings, progress, layer, max_length=training.max_length)
    if run and run.dataset_sha256:
        check_unchanged(dataset, run.dataset_sha256, run.run_id)
    pairs = with_room(dataset.pairs, load_tokenizer(resolve_model(settings.model)), tokens, training.max_length)
    split = split_by_prompt(pairs, training.seed)
    train = dataset.model_copy(update={"pairs": split.train})
    clauses = run.clauses if run else ()
    bench = open_bench(settings, train, clauses, main, None, progress, max_length=training.max_length)
    whole = bench.reading.whole
    likelihood = reference_log_likelihood(bench.start_model, bench.readable, training.max_length, progress)
    with progress.stage("Forecasting"):
        groups = bench.groups if n_groups is None else group_concepts(bench.reading, n_groups)
        finer = [group_readout(whole, features) for features in group_features(whole, FINER)]
        known = covariates_of(whole, bench.texts.responses, likelihood.T.ravel(), training.seed)
        of_groups = forecasts_of([group.readout for group in groups], bench, known)
        of_features, fine = forecasts_of(feature_readouts(whole), bench, known), forecasts_of(finer, bench, known)
        report = forecast_concepts(bench, ForecastArgs())
    distinct = {pair.prompt_key(): pair for pair in split.held_out}
    elsewhere_asked = Asked.of(_elsewhere(split.held_out[0]), min(per_prompt, ELSEWHERE))
    asked = (Asked.of(list(distinct.values()), per_prompt), elsewhere_asked)
    start_model = _start_model(bench, settings)
    start = [_rollouts(bench, start_model, each, tokens) for each in asked]
    probe = Probe(split.held_out, asked, start_model, start[0], tokens, training.max_length)
    each_training = [training.model_copy(update={"seed": training.seed + i}) for i in range(trainings)]
    trained = [train_dpo(settings.model, split.train, cache_home() / "trained", one, progress) for one in each_training]
    replicates = [_replicate(bench, one, training.seed + i, probe) for i, one in enumerate(trained)]
    aside, elsewhere = (Answers(each, start[i], [one.answers[i] for one in replicates]) for i, each in enumerate(asked))
    topics = shared_topics(*(_prompts(some) for some in (bench.readable, split.held_out)))
    hold = partial(measured_against, bench, training.seed)
    by_group, groups_elsewhere = hold("groups", of_groups, [aside, elsewhere])
    by_feature, features_elsewhere = hold("features", of_features, [aside, elsewhere])
    within = hold("topics", of_groups, [aside], topics) if topics.names else []
    measured = [by_group, *within, by_feature]
    folders, forecaster = [one.folder.name for one in trained], bench.settings.forecaster
    ran = Ran(
        run_id=content_id(
            "validation", dataset.sha256, *folders, per_prompt, tokens, main.lens_id, n_groups, forecaster
        ),
        dataset=dataset,
        lens=bench.lens_summary(),
        training=training,
        trained=trained,
        n_pairs=len(bench.readable),
        rollouts={**asked[0].size, "tokens": tokens},
        movements=[one.movement for one in replicates],
        movement=mean_movement([one.movement for one in replicates]),
        forecaster=forecaster,
    )
    answered = _answered(bench, report.forecast.concepts, aside)
    findings, exemptions = _findings(bench, report.findings, answered, aside)
    made_anew = _made_anew(run.findings if run else (), findings, {pair.row for pair in bench.readable})
    left_out = _left_out(dataset.pairs, pairs, tokens, training.max_length)
    cut_short = _cut_short([start[0], *(one.answers[0] for one in replicates)], tokens)
    document = document_of(ran, measured, groups, topics.names, _rows(bench, of_groups), report.forecast)
    return {
        **document,
        "notes": [*document["notes"], *made_anew, *left_out, *cut_short, *exemptions],
        "concepts": [*answered, *document["concepts"]],
        "findings": findings,
        "features": _features(of_features, by_feature, forecaster),
        "elsewhere": {**elsewhere_asked.size, **held_against(ran, [groups_elsewhere, features_elsewhere])},
        "finer": {"groups": len(finer), **held_against(ran, hold("groups", fine, [aside]))},
    }


def _features(forecasts: Forecasts, measured: Measured, default: str) -> dict[str, dict[str, float]]:
    """Return the forecast and the learned shift of each single feature."""
    effects, learned = measured.effects[default], measured.outcome.learned
    numbers = [int(readout.whole.features[0]) for readout in forecasts.readouts]
    return {
        str(number): {"forecast": round(float(effect), 5), "learned": round(float(shift), 5)}
        for number, effect, shift in zip(numbers, effects, learned, strict=True)
    }


def _answered(bench: Workbench, effects: Sequence[ConceptEffect], answers: Answers) -> list[dict[str, Any]]:
    """Return the concepts that answers show or do not, as forecast and as learned: shares of answers, everywhere."""
    told = [effect for effect in effects if effect.unit == "responses" and effect.topic is None]
    if not told:
        return []
    shown = _shown([bench.concept(effect.concept_id).readout for effect in told], answers)
    return [
        {
            **effect.model_dump(mode="json", include={"concept_id", "name", "topic", "unit"}),
            "forecast": effect.effect,
            **figures,
            "rows": list(effect.rows),
        }
        for effect, figures in zip(told, shown, strict=True)
    ]


def _shown(readouts: Sequence[Readout], answers: Answers, free: Bools | None = None) -> list[dict[str, float]]:
    """Return how much of each concept answers show, as shares; the prompts marked `free` (n_prompts,) are left out."""
    asked = answers.asked.numbers
    kept = np.ones(len(asked), dtype=bool) if free is None else ~free[asked]
    before, *after = (amounts(each.bag, readouts)[kept] for each in (answers.before, *answers.after))
    outcome = observe(before, after, np.unique(asked[kept], return_inverse=True)[1])
    low, high = outcome.interval()
    found = {"before": before.mean(0), "after": np.mean(after, (0, 1)), "learned": outcome.learned}
    columns = {name: np.round(each, 6).tolist() for name, each in (found | {"low": low, "high": high}).items()}
    return [{name: each[i] for name, each in columns.items()} for i in range(len(readouts))]


def _findings(
    bench: Workbench, findings: Sequence[Finding], answered: Sequence[dict[str, Any]], answers: Answers
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return each finding that the lens tells, as forecast and as its concept was learned, whatever its topic.

    Prompts that its clause does not hold for are left out, and the notes returned beside tell of that.
    """
    learned, told, notes = {concept["concept_id"]: concept for concept in answered}, [], []
    kept = {"finding_id", "clause_id", "concept_id", "kind", "name", "topic"}
    for finding in findings:
        if finding.concept_id not in learned:
            continue
        free, figures = _free(bench.clause_of(finding), answers.asked), learned[finding.concept_id]
        if free.any():
            notes.append(f"{finding.name}: the rule does not hold for {free.sum()} of {len(free)} prompts by its words")
            if (~free).sum() < LEAST_PROMPTS:
                continue
            figures = figures | _shown([bench.concept(finding.concept_id).readout], answers, free)[0]
        told.append(
            {
                **{key: value for key, value in figures.items() if key != "unit"},
                **finding.model_dump(mode="json", include=kept),
                "forecast": finding.everywhere,
                "rows": list(finding.rows),
            }
        )
    return told, notes


def _made_anew(findings: Sequence[Finding], told: Sequence[dict[str, Any]], trained_on: set[int]) -> list[str]:
    """Return a note on how many of a run's `findings` are not among those `told`; none where there were none.

    One is where a finding told breaks the same clause and they share SAME_ROWS of their rows `trained_on` (Jaccard).
    Texts that address whoever audits the data are no behaviour to learn and not counted.
    """
    behaviours = [finding for finding in findings if finding.kind != "injection"]
    others = [(one["clause_id"], set(one["rows"]) & trained_on) for one in told]
    missed = 0
    for finding in behaviours:
        rows = set(finding.rows) & trained_on
        same = [other for clause_id, other in others if clause_id == finding.clause_id]
        missed += not any(len(rows & other) >= SAME_ROWS * len(rows | other) for other in same)
    if not behaviours:
        return []
    made = "the findings held against training are those that the built-in rules make of the pairs trained on"
    return [f"{made}; {missed} of the run's {len(behaviours)} findings are not among them"]


def _free(clause: Clause | None, asked: Asked) -> Bools:
    """Return which of the prompts asked are free of `clause` by its own condition, `(n_prompts,)`."""
    texts = [pair.prompt_text() for pair in asked.prompts[: asked.size["prompts"]]]
    return exempt(clause.exempt_words if clause else (), texts)


def _rows(bench: Workbench, forecasts: Forecasts) -> list[tuple[int, ...]]:
    """Return the rows that carry each concept's effect, most responsible first."""
    columns = forecasts.values[bench.settings.forecaster].T
    return [
        responsible(bench.reading, readout, column, float(np.sign(column.mean())))[:ROWS]
        for readout, column in zip(forecasts.readouts, columns, strict=True)
    ]


def _prompts(pairs: Sequence[Pair]) -> list[str]:
    """Return the text of each distinct prompt, in order of appearance."""
    return list({pair.prompt_key(): pair.prompt_text() for pair in pairs}.values())


def _left_out(pairs: Sequence[Pair], kept: Sequence[Pair], tokens: int, max_length: int) -> list[str]:
    """Return a note on the prompts that are neither trained on nor asked, if there are any."""
    prompts, left = (len(_prompts(some)) for some in (pairs, kept))
    why = why_left_out(tokens, max_length)
    return [f"{prompts - left} of {prompts} prompts are left out: {why}"] if left < prompts else []


def _cut_short(rollouts: Sequence[Rollouts], tokens: int) -> list[str]:
    """Return a note where many answers were cut: what stands later is not seen."""
    lengths = np.concatenate([_lengths(each) for each in rollouts])
    cut = float((lengths >= tokens).mean()) if len(lengths) else 0.0
    told = (
        f"{cut:.0%} of the answers are cut at {tokens} tokens: what stands later is not seen (--tokens asks for more)"
    )
    return [told] if cut >= CUT else []


def _lengths(rollouts: Rollouts) -> NDArray[np.int64]:
    """Return the tokens of each answer, without those that end it."""
    return np.maximum(np.diff(rollouts.bag.starts) - rollouts.bag.closing, 0)


def _elsewhere(example: Pair) -> list[Any]:
    """Return prompts that belong to no dataset, in the form of `example`."""
    if isinstance(example.prompt, str):
        return list(elsewhere_prompts())
    return [[{"role": "user", "content": prompt}] for prompt in elsewhere_prompts()]


def _start_model(bench: Workbench, settings: RunSettings) -> StartModel:
    """Return the start model with its weights held as those of a trained one, so that both round alike."""
    if bench.reader.model.dtype == HELD:
        return bench.start_model
    return _answering(settings.model, settings.seed)


def _answering(ref: str, seed: int) -> StartModel:
    return StartModel(load_model(ref, dtype=HELD), seed, cache_home() / "start_model")


def _replicate(bench: Workbench, trained: Trained, seed: int, probe: Probe) -> Replicate:
    """Ask a trained model what it is asked; `seed` is that of its samples."""
    model = _answering(str(trained.folder), seed)
    answers = tuple(_rollouts(bench, model, each, probe.tokens) for each in probe.asked)
    return Replicate(answers, _movement(bench, model, probe, answers[0]))


def _rollouts(bench: Workbench, model: StartModel, asked: Asked, tokens: int) -> Rollouts:
    texts = model.sample(asked.prompts, max_new_tokens=tokens, progress=bench.progress)
    return Rollouts(texts, bench.heard(asked.prompts, texts, bench.progress))


def _movement(bench: Workbench, trained: StartModel, probe: Probe, after: Rollouts) -> Movement:
    """Return how far training went, on the pairs held out and in the trained model's own answers.

    Raises ModelError where training diverged.
    """
    start, end = (
        pair_log_likelihood(model, probe.held_out, probe.max_length, bench.progress)
        for model in (probe.start_model, trained)
    )
    said = [
        _said(trained, prompt, text, probe.tokens)
        for prompt, text in list(zip(probe.asked[0].prompts, after.texts, strict=True))[:KL_ANSWERS]
    ]
    weights = np.asarray([len(answer) for _, answer in said], dtype=np.float64)
    own, other = (model.log_likelihood(said, bench.progress) for model in (trained, probe.start_model))
    lengths = [float(_lengths(each).mean()) for each in (probe.start, after)]
    return movement(start, end, divergence(own, other, weights), (lengths[0], lengths[1]))


def _said(model: StartModel, prompt: Pair, text: str, tokens: int) -> Tokens:
    """Return a prompt and what the model said, with its end where it ended within so many `tokens`.

    To end sooner is what many trainings teach: without the end, a model that falls silent would seem not to have moved.
    """
    answer = model.answer_ids(text)
    return model.prompt_ids(prompt), answer if len(answer) >= tokens else [*answer, model.end_id(prompt)]
