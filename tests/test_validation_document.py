"""The document of a validation: what it tells of a model that moved, and what it keeps back of one that did not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from premortem.agent.validation_document import HIDDEN, Measured, Ran, document_of, held_against
from premortem.interp.records import Dataset, Forecast, LensSummary
from premortem.interp.skill import Outcome, Predicted, Yardstick
from premortem.interp.training import Trained, TrainingSettings
from premortem.interp.validation import Movement

CONCEPTS = 12
FORECAST = Forecast(forecaster="calibrated", n_pairs=30, concepts=())


def ran(*, enough: bool) -> Ran:
    moved = Movement(
        margin=0.1, held_out_accuracy=0.6, kl_per_token=0.01, length_before=20.0, length_after=20.0, enough=enough
    )
    return Ran(
        run_id="r",
        dataset=Dataset(path="pairs.jsonl", sha256="d", form="standard", pairs=()),
        lens=LensSummary(model="m", hook="h", sae="s", fvu=0.1, l0=9.0),
        training=TrainingSettings(),
        trained=[Trained(folder=Path("trained/x"), steps=1, seconds=1.0, loss=0.6, versions={})],
        n_pairs=30,
        rollouts={},
        movements=[moved],
        movement=moved,
        forecaster="calibrated",
    )


def measured(level: str) -> Measured:
    """Return what a perfect forecast and a perfect baseline of CONCEPTS shifts are worth."""
    rng = np.random.default_rng(0)
    truth = rng.normal(scale=0.1, size=CONCEPTS)
    outcome = Outcome(truth + rng.normal(scale=0.01, size=(20, CONCEPTS)), np.full(CONCEPTS, 0.5))
    signs = np.sign(truth).astype(np.int64)
    skill = Yardstick(outcome).measure(Predicted(truth, truth - 0.1, truth + 0.1, signs, np.stack([-truth, truth])))
    return Measured(level, outcome, {"calibrated": truth}, {"calibrated": skill}, "", {"length": truth})


def document(*, enough: bool, forecast: Forecast = FORECAST) -> dict[str, Any]:
    return document_of(ran(enough=enough), [measured("features")], [], [], [], forecast)


def test_no_r2_is_told_of_a_model_that_did_not_move() -> None:
    found = document(enough=False)
    assert [row["r2"] for row in found["skill"] + found["baselines"]] == [None, None]
    assert {found["skill"][0][name] for name in HIDDEN} == {None}
    assert found["skill"][0]["ceiling"] > 0.9
    beside = held_against(ran(enough=False), [measured("groups"), measured("features")])
    assert [row["r2"] for rows in beside.values() for row in rows] == [None] * 4


def test_the_r2_of_a_model_that_moved_is_told() -> None:
    found = document(enough=True)
    assert [row["r2"] for row in found["skill"] + found["baselines"]] == pytest.approx([1.0, 1.0], abs=0.01)
    assert None not in {found["skill"][0][name] for name in HIDDEN}


def test_baselines_stand_on_the_levels_on_which_skill_can_be_told() -> None:
    without = measured("features")._replace(skills={}, trouble="too few")
    beside = held_against(ran(enough=True), [measured("groups"), without])
    assert {name: [row["level"] for row in rows] for name, rows in beside.items()} == {
        "skill": ["groups"],
        "baselines": ["groups"],
    }


def test_the_doubts_of_the_forecast_are_notes_of_its_validation() -> None:
    doubtful = FORECAST.model_copy(update={"told_apart": 0.99, "parts_agree": -0.64})
    found = document(enough=True, forecast=doubtful)
    assert (found["told_apart"], found["parts_agree"]) == (0.99, -0.64)
    assert ["99%" in found["notes"][-2], "-0.64" in found["notes"][-1]] == [True, True]
    assert document(enough=True)["notes"] == []
