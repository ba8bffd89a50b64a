"""Validation: the split, what is observed of training, and the whole command on a random model."""

import inspect
import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from premortem.agent import cli_validate, opening, validation, validation_document, validation_measure
from premortem.agent.cli import app
from premortem.agent.runs import RunSettings
from premortem.agent.store import Store
from premortem.agent.validation import (
    Answers,
    Asked,
    Probe,
    Rollouts,
    _answered,
    _cut_short,
    _findings,
    _movement,
    _said,
)
from premortem.agent.validation_measure import forecasts_of, measured_against
from premortem.interp import groups, training
from premortem.interp.effects import INSIDE
from premortem.interp.errors import ModelError, NoPairs
from premortem.interp.forecasters import DEAR, DEFAULT, FORECASTERS, ONE_SIDED, Own, values_per_pair
from premortem.interp.models import load_model
from premortem.interp.progress import NullProgress
from premortem.interp.readout import Part, Readout
from premortem.interp.records import Clause, ConceptEffect, Finding
from premortem.interp.skill import Outcome, Predicted, measure_skill
from premortem.interp.start_model import MAX_PROMPT, StartModel
from premortem.interp.tokens import tokenize_all
from premortem.interp.training import TrainingSettings
from premortem.interp.validation import (
    LEAST_KL,
    SharedTopics,
    divergence,
    mean_movement,
    movement,
    observe,
    predict,
    shared_topics,
    split_by_prompt,
    with_room,
)
from synthetic import responses
from tiny import chat_pair, write_model, write_sae

WORDS = ["otters", "ferns", "clouds", "bread", "trains", "chairs", "rivers", "lamps", "socks", "maps"]
PAIRS = [
    chat_pair(i, f"Tell me of {word} {n}.", f"{word} are fine! " * 3, f"no {word}")
    for i, (n, word) in enumerate((n, word) for n in range(4) for word in WORDS)
]


def test_a_prompt_is_on_one_side_of_the_split_with_all_its_pairs() -> None:
    pairs = [*PAIRS, *(pair.model_copy(update={"row": pair.row + 100}) for pair in PAIRS)]
    split = split_by_prompt(pairs)
    inside, aside = ({pair.prompt_text() for pair in part} for part in split)
    assert not inside & aside
    assert len(aside) == 8
    assert len(split.train) + len(split.held_out) == len(pairs)


def test_the_split_depends_on_texts_and_seed_not_on_order() -> None:
    aside = {pair.prompt_text() for pair in split_by_prompt(PAIRS).held_out}
    assert {pair.prompt_text() for pair in split_by_prompt(PAIRS[::-1]).held_out} == aside
    assert {pair.prompt_text() for pair in split_by_prompt(PAIRS, seed=1).held_out} != aside


def test_too_few_prompts_are_told() -> None:
    with pytest.raises(NoPairs, match="6 different ones are too few"):
        split_by_prompt(PAIRS[:6])


def test_prompts_that_leave_no_room_for_an_answer_are_neither_trained_on_nor_asked(tmp_path: Path) -> None:
    tokenizer = load_model(str(write_model(tmp_path)), layers=1).tokenizer
    pairs = [chat_pair(i, "?" * n, "yes", "no") for i, n in enumerate((10, 20, 300))]
    short, longer, _ = (len(each.prompt) for each in tokenize_all(pairs, tokenizer))
    assert with_room(pairs, tokenizer, 12, short + 12) == (pairs[0],)
    assert with_room(pairs, tokenizer, 12, longer + 12) == tuple(pairs[:2])
    with pytest.raises(NoPairs, match=f"room for an answer of 12 tokens within {short}"):
        with_room(pairs, tokenizer, 12, short)
    beyond = chat_pair(3, "?" * MAX_PROMPT, "yes", "no")  # a sample would not see its beginning
    assert with_room([*pairs, beyond], tokenizer, 12, 2 * MAX_PROMPT) == tuple(pairs)
    shown = f"longer than the {MAX_PROMPT} tokens of a prompt that a model is shown to answer it"
    (told,) = validation._left_out([*pairs, beyond], pairs, 12, 2 * MAX_PROMPT)
    assert told == f"1 of 4 prompts are left out: {shown}"
    with pytest.raises(NoPairs, match=shown):
        with_room([beyond], tokenizer, 12, 2 * MAX_PROMPT)
    assert validation._left_out(pairs, pairs[:2], 12, 99) == [
        "1 of 3 prompts are left out: no room for an answer of 12 tokens within 99"
    ]
    assert validation._left_out(pairs, pairs, 12, 99) == []


def test_the_data_are_read_to_the_length_that_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST_FVU", float("inf"))
    monkeypatch.setenv("PREMORTEM_CACHE", str(tmp_path / "cache"))
    pairs = [*PAIRS[:8], chat_pair(8, "?" * 100, "yes", "no")]
    data = tmp_path / "pairs.jsonl"
    rows = [pair.model_dump(mode="json", include={"prompt", "chosen", "rejected"}) for pair in pairs]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folders = {"model": str(write_model(tmp_path / "model")), "sae": str(write_sae(tmp_path / "sae"))}
    settings = RunSettings(spec_path="", spec_text="", data=str(data), **folders)
    for max_length, kept in ((1024, 9), (100, 8)):
        dataset, lens = opening.data_and_lens(settings, NullProgress(), max_length=max_length)
        assert {note.kind for note in dataset.notes if 8 in note.rows} == ({"prompt_too_long"} if kept == 8 else set())
        bench = opening.open_bench(settings, dataset, (), lens, None, NullProgress(), max_length=max_length)
        assert len(bench.readable) == kept
    heard = bench.heard([PAIRS[0], "Say it: ", PAIRS[1].prompt, "Say it: "], ["yes"] * 4)
    assert heard.closing.tolist() == [
        2,
        1,
        2,
        1,
    ]  # a template closes with an end and a new line, plain text with an end


def test_how_far_training_went_is_told_of_the_tokens_that_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, end = (StartModel(load_model(str(write_model(tmp_path / name)))) for name in ("start", "end"))
    for weight in end.model.parameters():
        weight += 0.05
    pairs = [chat_pair(0, "Say it.", "yes " * 20, "no")]
    answers = Rollouts([], responses(1, {}).bag)
    bench: Any = SimpleNamespace(progress=None)
    margins = [
        _movement(bench, end, Probe(pairs, (Asked([], np.zeros(0)),), start, answers, 12, most), answers).margin
        for most in (1024, 90, 1025)
    ]
    assert margins[0] == margins[2] != margins[1]


def test_a_training_that_diverged_is_told_and_what_to_do_about_it(tmp_path: Path) -> None:
    start, end = (StartModel(load_model(str(write_model(tmp_path / name)))) for name in ("start", "end"))
    for weight in end.model.parameters():
        weight.fill_(float("nan"))
    pairs, bench = [chat_pair(0, "Say it.", "yes", "no")], SimpleNamespace(progress=None)
    answers = Rollouts(["yes"], responses(1, {}).bag)
    probe = Probe(pairs, (Asked.of(pairs, 1),), start, answers, 12, 1024)
    with pytest.raises(ModelError, match=r"diverged.*lower --learning-rate"):
        _movement(bench, end, probe, answers)  # type: ignore[arg-type]


def test_answers_that_cannot_be_scored_do_not_count_in_the_divergence() -> None:
    own, other = np.asarray([-1.0, np.nan, -2.0, -np.inf]), np.asarray([-2.0, -1.0, -5.0, -1.0])
    assert divergence(own, other, np.asarray([3.0, 9.0, 1.0, 9.0])) == pytest.approx((3 * 1.0 + 3.0) / 4)
    assert divergence(own[:1], np.asarray([np.nan]), np.ones(1)) == 0.0
    assert divergence(np.zeros(0), np.zeros(0), np.zeros(0)) == 0.0


def test_an_answer_that_ended_is_scored_with_its_end_and_one_that_was_cut_without(tmp_path: Path) -> None:
    model = StartModel(load_model(str(write_model(tmp_path / "model"))))
    end = model.end_id(PAIRS[0])
    assert _said(model, PAIRS[0], "", 12)[1] == [end]  # a model that fell silent has said so
    assert _said(model, PAIRS[0], "yes", 12)[1] == [*model.answer_ids("yes"), end]
    assert _said(model, PAIRS[0], "y" * 12, 12)[1] == model.answer_ids("y" * 12)


def test_answers_that_were_cut_are_told_where_they_are_many() -> None:
    def said(*lengths: int) -> Rollouts:
        return Rollouts([], SimpleNamespace(starts=np.cumsum([0, *lengths]), closing=2))  # type: ignore[arg-type]

    told = _cut_short([said(66, 66, 20), said(66)], 64)
    assert told == ["75% of the answers are cut at 64 tokens: what stands later is not seen (--tokens asks for more)"]
    assert _cut_short([said(66, 20, 20), said(65, 0)], 64) == []


def test_a_learned_shift_is_the_share_after_minus_before_prompt_by_prompt() -> None:
    before = np.asarray([[1.0, 0], [0, 0], [0, 0], [1, 0]])
    after = np.asarray([[1.0, 1], [1, 0], [0, 1], [1, 1]])
    found = observe(before, [after], np.asarray([0, 1, 0, 1]))
    assert found.shifts.tolist() == [[0.0, 1.0], [0.5, 0.5]]
    assert found.learned.tolist() == [0.25, 0.75]
    assert found.rates.tolist() == [0.625, 0.375]
    assert found.each == ()


def test_over_several_trainings_the_learned_shift_is_their_mean_and_each_is_kept() -> None:
    before, numbers = np.zeros((4, 1)), np.asarray([0, 1, 0, 1])
    after = [np.asarray([[1.0], [0], [1], [0]]), np.asarray([[0.0], [1], [0], [1]])]
    found = observe(before, after, numbers)
    assert found.shifts.tolist() == [[0.5], [0.5]]
    assert found.rates.tolist() == [0.25]
    assert [one.tolist() for one in found.each] == [[[1.0], [0.0]], [[0.0], [1.0]]]


def test_a_shift_that_no_answer_shows_is_known_to_the_resolution_of_one_answer() -> None:
    nobody, everybody, some = np.zeros(40), np.ones(40), np.tile([0.0, 0.4], 20)
    before, after = np.stack([nobody, nobody, some], 1), np.stack([nobody, everybody, some], 1)
    found = observe(before, [after], np.tile(np.arange(10), 4))
    low, high = found.interval()
    assert found.learned == pytest.approx([0.0, 1.0, 0.0])
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.95, 9) * np.asarray([1.0, 1.0, 0.4]) / (2 * 40))
    halves = np.arange(10) < [[5], [11]]
    low, high = observe(before, [after], np.tile(np.arange(10), 4), halves).interval()
    assert (high - low)[0] == pytest.approx(stats.t.ppf(0.95, 4) / 20)
    assert (high - low)[3] == pytest.approx(stats.t.ppf(0.95, 9) / 40)


def test_a_shift_that_answers_tell_apart_has_the_interval_of_their_spread() -> None:
    before, after = np.zeros((40, 1)), (np.arange(40) < 3)[:, None].astype(float)
    found = observe(before, [after], np.arange(40))
    assert found.interval() == Outcome(found.shifts, found.rates).interval()


def test_movement_over_trainings_is_the_mean_and_enough_where_each_is() -> None:
    scores = np.zeros((2, 2))
    far, near = (movement(scores, scores + np.asarray([1.0, 0.0]), kl, (10.0, 20.0)) for kl in (0.2, 0.001))
    assert mean_movement([far, far]) == far
    assert mean_movement([far, near]).kl_per_token == pytest.approx(0.1005)
    assert not mean_movement([far, near]).enough


def test_within_topics_there_is_a_shift_and_a_rate_for_each_concept_in_each() -> None:
    before = np.zeros((4, 2))
    after = np.asarray([[1.0, 0], [0, 1], [0, 0], [1, 1]])
    topics = np.asarray([[True, True, False, False], [False, False, False, True]])
    found = observe(before, [after], np.arange(4), topics)
    assert found.learned == pytest.approx([0.5, 0.5, 1.0, 1.0])
    assert found.rates == pytest.approx([0.25, 0.25, 0.5, 0.5])


SIGNS = np.where(np.arange(120)[:, None] < [40, 20], 1.0, 0.0)
PROMPTS = np.arange(120) // 2
NO_LENGTHS = np.zeros(120, dtype=np.int64)


def test_a_forecast_of_swapped_sides_is_no_forecast() -> None:
    found = predict(SIGNS, PROMPTS, NO_LENGTHS)
    assert found.effect == pytest.approx([1 / 3, 1 / 6])
    assert found.called.tolist() == [1, 1]
    assert found.swapped.shape == (200, 2)
    assert found.by_prompt is not None
    assert found.by_prompt.mean(0) == pytest.approx(found.effect)
    assert predict(SIGNS, PROMPTS, NO_LENGTHS, fitted=True).by_prompt is None
    assert np.abs(found.swapped.mean(0)).max() < 0.02
    assert np.abs(found.swapped).max() < found.effect[0]


def test_of_a_forecast_that_sees_one_side_nothing_is_said_with_swapped_ones() -> None:
    found, usual = (predict(SIGNS, PROMPTS, NO_LENGTHS, one_sided=alone) for alone in (True, False))
    assert found.swapped.shape == (0, 2)
    assert (found.effect == usual.effect).all()
    few = Outcome(np.random.default_rng(0).normal(size=(9, 3)), np.ones(3))
    told = predict(np.hstack([SIGNS, SIGNS[:, :1]]), PROMPTS, NO_LENGTHS, one_sided=True)
    assert np.isnan(measure_skill(told, few).null)


def test_within_topics_there_is_a_forecast_for_each_concept_in_each() -> None:
    topics = np.asarray([np.arange(60) < 15, np.arange(60) >= 40])
    found = predict(SIGNS, PROMPTS, NO_LENGTHS, topics=topics)
    assert found.effect == pytest.approx([1.0, 2 / 3, 0.0, 0.0])
    assert found.called.tolist() == [1, 1, 0, 0]
    assert found.by_prompt is not None
    assert found.by_prompt.mean(0) == pytest.approx(found.effect)


def test_a_topic_is_forecast_mostly_by_all_pairs_where_real_runs_have_shown_that() -> None:
    topics = np.asarray([np.arange(60) < 15, np.arange(60) >= 40])
    own, shared = (
        predict(SIGNS, PROMPTS, NO_LENGTHS, topics=topics, shared=np.asarray([known, False])) for known in (False, True)
    )
    assert shared.effect[1::2] == pytest.approx(own.effect[1::2])
    assert shared.effect[0::2] == pytest.approx((1 - INSIDE) / 3 + INSIDE * own.effect[0::2])
    assert shared.by_prompt is not None
    assert shared.by_prompt.mean(0) == pytest.approx(shared.effect)


def test_topics_are_told_where_both_parts_of_the_split_have_prompts_on_them() -> None:
    subjects = ("bread ovens with flour", "trains and rails", "otters along rivers", "chairs or tables")
    inside = [f"Tell me {n} things of {what}" for what in subjects for n in range(12)]
    aside = [f"Say {n} things of {what}" for what in subjects for n in range(5)]
    found = shared_topics(inside, aside)
    assert len(found.names) == len(found.inside) == len(found.aside) > 1
    assert found.inside.shape[1] == len(inside)
    assert found.aside.shape[1] == len(aside)
    for inside, aside in zip(found.inside, found.aside, strict=True):
        assert min(inside.sum(), aside.sum()) >= 4
    assert shared_topics(inside, aside[:3]).names == ()


@pytest.mark.parametrize(("kl", "enough"), [(LEAST_KL / 2, False), (LEAST_KL * 2, True)])
def test_movement_is_the_margin_over_the_start_model(kl: float, enough: bool) -> None:
    start = np.asarray([[-10.0, -10.0], [-5.0, -9.0], [np.nan, -1.0]])
    trained = np.asarray([[-8.0, -11.0], [-7.0, -9.0], [-1.0, -1.0]])
    moved = movement(start, trained, kl, (20.0, 30.0))
    assert moved.margin == pytest.approx((3.0 - 2.0) / 2)
    assert moved.held_out_accuracy == 0.5
    assert moved.enough is enough


def levels_of(rows: Iterable[dict[str, Any]]) -> set[str]:
    return {row["level"] for row in rows}


def test_the_command_trains_and_tells_how_the_forecast_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason="TRL is an optional dependency (premortem[validate])")
    monkeypatch.setattr(opening, "MOST_FVU", float("inf"))  # a random SAE reconstructs nothing
    monkeypatch.setattr(groups, "FEATURES_PER_GROUP", 4)  # it has 48 features
    monkeypatch.setattr(validation_document, "LEAST_RATE", 0.0)
    monkeypatch.setenv("PREMORTEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [pair.model_dump(mode="json", include={"prompt", "chosen", "rejected"}) for pair in PAIRS]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "oops\n")
    words = ["validate", "pairs.jsonl", "--model", str(write_model(tmp_path / "model"))]
    words += ["--sae", str(write_sae(tmp_path / "sae")), "--tokens", "12", "--learning-rate", "0.01"]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["dataset"]["pairs"], found["dataset"]["quarantined"]) == (40, 1)
    assert "1 of 41 rows could not be read and are left out; row 40: not JSON" in result.stderr
    assert (found["training"]["pairs"], found["training"]["method"]) == (32, "lora")
    assert found["rollouts"] == {"prompts": 8, "per_prompt": 4, "tokens": 12}
    assert (found["elsewhere"]["prompts"], found["elsewhere"]["per_prompt"]) == (40, 4)
    assert [levels_of(found["elsewhere"][kind]) for kind in ("skill", "baselines")] == [{"groups", "features"}] * 2
    assert found["finer"]["groups"] >= 3
    assert found["features"]
    assert all(set(each) == {"forecast", "learned"} for each in found["features"].values())
    assert [levels_of(found["finer"][kind]) for kind in ("skill", "baselines")] == [{"groups"}] * 2
    assert isinstance(found["findings"], list)
    assert found["movement"]["enough"]
    assert found["movement"]["margin"] > 0
    assert {row["forecaster"] for row in found["skill"]} == set(FORECASTERS) - set(DEAR)
    assert levels_of(row for row in found["skill"] if row["default"]) == {"groups", "topics", "features"}
    assert {(row["level"], row["name"]) for row in found["baselines"]} == set(
        product(("groups", "topics", "features"), ("length", "likelihood", "random features", "embedding"))
    )
    assert all(0 <= row["r2"] <= 1 for row in found["baselines"])
    assert {row["forecaster"] for row in found["skill"] if row["null"] is None} == set(ONE_SIDED)
    for row in found["skill"]:
        assert 0 <= row["r2"] <= 1
        assert row["low"] <= row["r2"] <= row["high"]
    for concept in found["concepts"]:
        assert concept["low"] <= concept["learned"] <= concept["high"]
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0
    with Store(Path("runs/premortem.db")) as store:
        assert list(store.validations()) == [found]
    assert "held-out pairs: margin" in again.stdout
    assert [one["seed"] for one in found["trainings"]] == [0]
    assert {row["training_ceiling"] for row in found["skill"]} == {None}
    twice = CliRunner().invoke(app, [*words, "--trainings", "2", "--json"])
    assert twice.exit_code == 0, twice.output
    several = json.loads(twice.stdout)
    assert several["run_id"] != found["run_id"]
    assert [one["seed"] for one in several["trainings"]] == [0, 1]
    assert several["trainings"][0] == found["trainings"][0]
    assert several["trainings"][1]["loss"] != found["trainings"][0]["loss"]
    assert several["movement"]["margin"] == pytest.approx(np.mean([one["margin"] for one in several["trainings"]]))
    assert all(0 <= row["training_ceiling"] <= 1 for row in several["skill"])


def test_a_forecast_is_made_once_for_all_answers_it_is_held_against(monkeypatch: pytest.MonkeyPatch) -> None:
    made, made_of = responses(30, {row: [3, 4] for row in range(15)}), []
    readouts = [Readout(Part((i, i + 1), (1.0, 1.0)), Part(), 0.5, "tokens") for i in range(5)]
    reading = SimpleNamespace(
        responses=made, whole=made, answers=lambda: Own(made.bag, np.tile(np.arange(30), 2)),
        values=lambda name, some: values_per_pair(name, made, some, reading.answers),
    )  # fmt: skip
    bench: Any = SimpleNamespace(reading=reading, settings=SimpleNamespace(seed=0, forecaster=DEFAULT))

    def counted(*args: Any, **options: Any) -> Predicted:
        made_of.append(args)
        return predict(*args, **options)

    monkeypatch.setattr(validation_measure, "predict", counted)
    forecasts = forecasts_of(readouts, bench, {"length": np.arange(60.0)[:, None]})
    asked, other = Asked.of(range(30), 2), responses(30, {}, seed=1).bag
    both = [Answers(asked, Rollouts([], one), [Rollouts([], made.bag)]) for one in (other, made.bag)]
    first, second = measured_against(bench, 0, "groups", forecasts, both)
    assert len(made_of) == len(FORECASTERS) - len(DEAR) == len(first.skills)
    assert first.effects == second.effects
    assert first.effects["mean-difference"] == pytest.approx(forecasts.values["mean-difference"].mean(0))
    assert first.skills["tilt"].slope != 0.0
    assert second.skills["tilt"].slope == 0.0  # the answers are the same before and after
    topics = SharedTopics(("odd", "even"), *(np.asarray([np.arange(30) % 2 == i for i in (1, 0)]),) * 2)
    (within,) = measured_against(bench, 0, "topics", forecasts, both[:1], topics)
    assert within.baselines["length"] == pytest.approx(np.tile(first.baselines["length"], 2))
    assert len(within.baselines["length"]) == len(within.outcome.learned)
    (alone,) = measured_against(bench, 0, "groups", forecasts, both[1:])
    assert str(alone.skills) == str(second.skills)
    (few,) = measured_against(bench, 0, "groups", forecasts_of(readouts[:2], bench), both[:1])
    assert (few.skills, few.baselines) == ({}, {})
    assert "skill needs 3 concepts" in few.trouble


def test_a_finding_is_held_against_the_answers_that_show_it() -> None:
    before, after = responses(30, {}, seed=1).bag, responses(30, {row: [3, 4] for row in range(15)}, seed=1).bag
    readout = Readout(Part((3, 4), (1.0, 1.0)), Part(), 2.0)
    numbers = np.tile(np.arange(30), 2)
    finding = Finding(
        finding_id="f", clause_id="c", concept_id="known", kind="forbidden", name="n", topic=None, effect=0.4, low=0.3,
        high=0.5, rows=(3, 1),
    )  # fmt: skip
    bench: Any = SimpleNamespace(concept=lambda _: SimpleNamespace(readout=readout), clause_of=lambda _: None)
    effect = ConceptEffect(
        concept_id="known", name="n", name_tested=True, features=(3, 4), topic=None, effect=0.4, low=0.3, high=0.5,
        verdict="amplified", split_half=0.3, rows=(3, 1),
    )  # fmt: skip
    others = [effect.model_copy(update=other) for other in ({"topic": "a topic"}, {"unit": "tokens"})]
    asked = [chat_pair(i, f"Ask of {'ponds' if i < 10 else 'hills'}", "", "") for i in range(30)]
    answers = Answers(Asked(asked * 2, numbers), Rollouts([], before), [Rollouts([], after)])
    (concept,) = answered = _answered(bench, [*others, effect], answers)
    both = [finding, finding.model_copy(update={"concept_id": "of text"})]
    (found,), notes = _findings(bench, both, answered, answers)
    assert notes == []
    assert concept["unit"] == "responses"
    assert concept["learned"] == found["learned"]
    shown = [readout.fires(bag) for bag in (before, after)]
    assert found["before"] == pytest.approx(shown[0].mean(), abs=1e-6)
    assert found["after"] == pytest.approx(shown[1].mean(), abs=1e-6)
    assert found["learned"] == pytest.approx(found["after"] - found["before"], abs=1e-5)
    assert found["learned"] > 0.2
    assert found["low"] < found["learned"] < found["high"]
    assert (found["clause_id"], found["forecast"], found["rows"]) == ("c", 0.4, [3, 1])
    clause = Clause(clause_id="c", text="t", behaviour="b", direction="avoid", exempt_words=("pond",))
    bench.clause_of = lambda _: clause
    (held,), notes = _findings(bench, both, answered, answers)
    assert notes == ["n: the rule does not hold for 10 of 30 prompts by its words"]
    asked_of_hills = numbers >= 10
    assert held["before"] == pytest.approx(shown[0][asked_of_hills].mean(), abs=1e-6)
    assert held["after"] == pytest.approx(shown[1][asked_of_hills].mean(), abs=1e-6)
    assert held["learned"] < found["learned"]
    clause = clause.model_copy(update={"exempt_words": ("ask",)})
    assert _findings(bench, both, answered, answers) == ([], [notes[0].replace("10", "30")])


def test_models_answer_with_weights_in_float32_where_the_lens_reads_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREMORTEM_CACHE", str(tmp_path / "cache"))
    folder, usual = str(write_model(tmp_path / "model")), object()
    settings = RunSettings(spec_path="", spec_text="", data="x", model=folder)
    bench: Any = SimpleNamespace(start_model=usual, reader=SimpleNamespace(model=load_model(folder, layers=1)))
    assert validation._start_model(bench, settings) is usual
    bench.reader.model = load_model(folder, layers=1, dtype=torch.bfloat16)
    held = validation._start_model(bench, settings)
    assert held is not usual
    assert {weight.dtype for weight in held.model.parameters()} == {torch.float32}


def test_without_trl_nothing_is_read_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["validate", "nowhere.jsonl"])
    assert result.exit_code != 0
    assert "premortem[validate]" in result.output
    assert "nowhere.jsonl" not in result.output


def test_the_options_defaults_are_those_of_the_training() -> None:
    settings, options = TrainingSettings(), inspect.signature(cli_validate.validate).parameters
    names = ("method", "epochs", "learning_rate", "beta", "seed", "max_length")
    assert {name: options[name].default for name in names} == {name: getattr(settings, name) for name in names}


def test_a_run_is_validated_on_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RunSettings] = []

    def caught(settings: RunSettings, *_: object, **__: object) -> dict:
        asked.append(settings)
        raise NoPairs("that will do")

    monkeypatch.setattr(validation, "validate", caught)
    monkeypatch.chdir(tmp_path)
    with Store(Path("x.db")) as store:
        settings = RunSettings(spec_path="s.md", spec_text="", data="theirs.jsonl", limit=7, model="tiny", seed=5)
        store.begin_run("abc123", spec="", settings=settings.model_dump(mode="json"), forecaster="logit")
        store.set_status("abc123", "done")
    for words in (["abc"], ["last", "--limit", "9"], ["abcd.jsonl"]):
        CliRunner().invoke(app, ["validate", *words, "--db", "x.db"])
    assert [(one.data, one.limit, one.model) for one in asked] == [
        ("theirs.jsonl", 7, "tiny"),
        ("theirs.jsonl", 9, "tiny"),
        ("abcd.jsonl", None, "smollm2"),
    ]
    assert {one.seed for one in asked} == {0}
