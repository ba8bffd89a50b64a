"""What a validation found, as the document that the command prints, the database keeps and the report reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from premortem.agent.summary import LEAST_RELIABLE, doubts, unreliable
from premortem.interp.errors import DataError
from premortem.interp.forecast import NamedReadout
from premortem.interp.records import Dataset, Forecast, LensSummary
from premortem.interp.skill import Floats, Outcome, Skill, Yardstick, explained
from premortem.interp.training import Trained, TrainingSettings
from premortem.interp.validation import Movement

HIDDEN = ("r2", "low", "high", "slope", "sign_accuracy", "coverage", "null")
"""What is not told of a forecast where the model has hardly moved."""
LEAST_RATE = 0.02
"""Share of answers from which a concept is counted."""


class Measured(NamedTuple):
    """Forecasts of one level, and what training did."""

    level: str
    outcome: Outcome
    effects: dict[str, Floats]
    """What was forecast, `(n_concepts,)`, by forecaster."""
    skills: dict[str, Skill]
    """How well that did, by forecaster; none where there is `trouble`."""
    trouble: str
    """Why no skill can be told; empty: it can."""
    baselines: dict[str, Floats]
    """Effects, `(n_concepts,)`, by baseline."""


class Ran(NamedTuple):
    """How a validation was run, and how far training went."""

    run_id: str
    dataset: Dataset
    lens: LensSummary
    training: TrainingSettings
    trained: Sequence[Trained]
    """One for each training."""
    n_pairs: int
    """Pairs trained on."""
    rollouts: dict[str, int]
    movements: Sequence[Movement]
    """How far each training went."""
    movement: Movement
    """How far they went on the average."""
    forecaster: str
    """The default one."""


def document_of(
    ran: Ran,
    measured: Sequence[Measured],
    groups: Sequence[NamedReadout],
    topics: Sequence[str],
    rows: Sequence[tuple[int, ...]],
    forecast: Forecast,
) -> dict[str, Any]:
    """Return the document.

    `forecast` is that of the pairs trained on, `groups` are the concepts of the levels `groups` and, within each of
    `topics`, `topics`; `rows` those that carry each group's effect everywhere.
    """
    skills, notes = skill_rows(ran, measured)
    consistency = forecast.model_dump(include={"told_apart", "parts_agree"})
    notes += [
        f"{row['level']}: {unreliable(row['reliability'])}"
        for row in skills
        if row["default"] and row["reliability"] is not None and row["reliability"] < LEAST_RELIABLE
    ]
    notes += doubts(consistency)
    names: dict[str, list[str | None]] = {"groups": [None], "topics": list(topics)}
    return {
        "run_id": ran.run_id,
        "dataset": {
            "path": ran.dataset.path,
            "pairs": len(ran.dataset.pairs),
            "quarantined": len(ran.dataset.quarantined),
            "sha256": ran.dataset.sha256,
        },
        "lens": ran.lens.model_dump(mode="json"),
        "training": _training(ran),
        "trainings": [
            {"seed": ran.training.seed + i, "seconds": trained.seconds, "loss": trained.loss, **moved.model_dump()}
            for i, (trained, moved) in enumerate(zip(ran.trained, ran.movements, strict=True))
        ],
        "rollouts": ran.rollouts,
        "movement": ran.movement.model_dump(mode="json"),
        "skill": skills,
        "notes": notes,
        **consistency,
        "baselines": baseline_rows(ran, measured),
        "concepts": [
            concept
            for each in measured
            if each.level in names
            for concept in _concepts(each, groups, names[each.level], ran.forecaster, rows)
        ],
    }


def skill_rows(ran: Ran, measured: Sequence[Measured]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return each forecaster's skill on each level, and a note on each level where none can be told."""
    rows = [_skill_row(each, name, skill, ran) for each in measured for name, skill in each.skills.items()]
    return rows, [f"{each.level}: {each.trouble}" for each in measured if each.trouble]


def baseline_rows(ran: Ran, measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return what each baseline reaches on each level on which skill can be told."""
    return [row for each in measured if each.skills for row in _baselines(each, ran)]


def held_against(ran: Ran, measured: Sequence[Measured]) -> dict[str, list[dict[str, Any]]]:
    """Return skill and baselines beside each other."""
    return {"skill": skill_rows(ran, measured)[0], "baselines": baseline_rows(ran, measured)}


def yardstick(outcome: Outcome, seed: int) -> Yardstick | str:
    """Return what forecasts are held against, or why there is nothing to hold them against."""
    try:
        return Yardstick(outcome, least_rate=LEAST_RATE, seed=seed)
    except DataError as error:
        return str(error)


def _skill_row(measured: Measured, name: str, skill: Skill, ran: Ran) -> dict[str, Any]:
    """Return one forecaster's skill; only how far that can be told where the model has hardly moved.

    Wide intervals about zero hold all shifts of a model that stays where it is.
    """
    figures = {key: None if value != value else value for key, value in asdict(skill).items()}
    hidden = {} if ran.movement.enough else dict.fromkeys(HIDDEN)
    return {"level": measured.level, "forecaster": name, "default": name == ran.forecaster, **figures, **hidden}


def _baselines(measured: Measured, ran: Ran) -> list[dict[str, Any]]:
    enough, outcome = ran.movement.enough, measured.outcome
    return [
        {"level": measured.level, "name": name, "r2": explained(effect, outcome, LEAST_RATE) if enough else None}
        for name, effect in measured.baselines.items()
    ]


def _training(ran: Ran) -> dict[str, Any]:
    """Return how was trained; `seconds` over all trainings, the rest of the first."""
    done = ran.trained[0].model_dump(mode="json") | {"seconds": round(sum(one.seconds for one in ran.trained), 1)}
    settings = ran.training.model_dump(mode="json")
    return {**settings, **done, "folder": Path(done["folder"]).name, "pairs": ran.n_pairs}


def _concepts(
    measured: Measured,
    groups: Sequence[NamedReadout],
    topics: Sequence[str | None],
    default: str,
    rows: Sequence[tuple[int, ...]],
) -> list[dict[str, Any]]:
    """Return each concept within each of `topics`, None for everywhere, as forecast and as learned."""
    outcome, low_high = measured.outcome, measured.outcome.interval()
    of = [(group.concept, topic) for topic in topics for group in groups]
    return [
        {
            "concept_id": concept.concept_id,
            "name": concept.name,
            "topic": topic,
            "unit": "tokens",
            "forecast": round(float(measured.effects[default][i]), 6),
            "forecasts": {name: round(float(each[i]), 6) for name, each in measured.effects.items()},
            "learned": round(float(outcome.learned[i]), 6),
            "low": round(float(low_high[0][i]), 6),
            "high": round(float(low_high[1][i]), 6),
            "rate": round(float(outcome.rates[i]), 6),
            "rows": list(rows[i]) if topic is None else [],
            "features": groups[i].readout.speaking(len(groups[i].readout.whole.features)) if topic is None else [],
        }
        for i, (concept, topic) in enumerate(of)
    ]
