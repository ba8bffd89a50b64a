"""`agent validate`: real DPO, and what it says of the forecast."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from premortem.agent.cli_options import (
    AsJson,
    Config,
    Db,
    Forecasters,
    Layer,
    Limit,
    Map,
    Model,
    Offline,
    Revision,
    RunsDir,
    Sae,
    Split,
    database,
    database_path,
    emit,
    only_our_stdout,
    parse_mapping,
)
from premortem.agent.cli_runs import find_run, no_run_yet

if TYPE_CHECKING:
    from premortem.agent.validation import OfRun

OF_RUN = ("data", "mapping", "split", "config", "revision", "limit", "model", "sae", "second_sae", "forecaster")
"""Settings of a run that its validation takes over."""
PLACES = ("data", "model", "sae", "second_sae")
"""Those that may be paths, as seen from the folder that the run was started in."""


class Method(StrEnum):
    """How to train."""

    LORA = "lora"
    FULL = "full"


def validate(
    data: Annotated[
        str, typer.Argument(metavar="RUN|DATA", help="A run, `last`, or pairs: JSON Lines, Parquet or a hub id.")
    ],
    mapping: Map = None,
    split: Split = None,
    config: Config = None,
    revision: Revision = None,
    limit: Limit = None,
    model: Model = None,
    sae: Sae = None,
    layer: Layer = None,
    forecaster: Forecasters = None,
    method: Annotated[Method, typer.Option("--method", help="Adapters, or all weights.")] = Method.LORA,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Times each pair is trained on.")] = 2,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=0.0, help="Highest learning rate.")] = 3e-4,
    beta: Annotated[float, typer.Option("--beta", min=0.0, help="DPO's beta.")] = 0.1,
    max_length: Annotated[
        int, typer.Option("--max-length", min=2, help="Tokens of prompt and response together, as TRL counts them.")
    ] = 1024,
    per_prompt: Annotated[int, typer.Option("--per-prompt", min=1, help="Answers to each held-out prompt.")] = 4,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens of an answer, at most.")] = 64,
    groups: Annotated[
        int | None, typer.Option("--groups", min=3, help="Groups of features. Default: as a forecast has, 100 at most.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the split, the training and the samples.")] = 0,
    trainings: Annotated[
        int,
        typer.Option(
            "--trainings",
            min=1,
            help="How many trainings, each with its own seed; the forecast is held against their mean.",
        ),
    ] = 1,
    offline: Offline = False,
    db: Db = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Train for real with DPO, and hold the forecast against what was learned.

    On a run's own data as it was read, or on pairs of your choice. A fifth of the prompts is put aside; both models
    answer them. Findings are held against what was learned too; they are made anew from the run's rules, on the pairs
    trained on. Some 30 minutes for 300 pairs on two cores. What is done is kept, so the same command goes on where it
    was interrupted. One training is a draw that no forecast can know: `--trainings 3` holds the forecast against the
    mean of three, and tells how much they have in common. The outcome is added to the database, and every report tells
    it from then on. Needs the extra `validate` (TRL and peft).
    """
    from premortem.agent.opening import settings_without_spec
    from premortem.agent.progress import TerminalProgress
    from premortem.agent.show import print_view, validation_view
    from premortem.agent.store import Store
    from premortem.agent.validation import validate as run_validation
    from premortem.interp.training import TrainingSettings

    asked: dict[str, Any] = {"mapping": parse_mapping(mapping), "split": split, "config": config}
    asked |= {"revision": revision, "limit": limit, "model": model}
    asked |= {"sae": sae, "forecaster": forecaster and forecaster.value, "offline": offline, "seed": seed}
    training = TrainingSettings(
        method=method.value,
        epochs=epochs,
        learning_rate=learning_rate,
        beta=beta,
        seed=seed,
        max_length=max_length,
    )
    if data == "last" and not (Path(data).exists() or database_path(db, runs_dir).exists()):
        raise no_run_yet(database_path(db, runs_dir))
    with only_our_stdout(), Store(database(db, runs_dir)) as store:
        named, of_run = _of_run(store, data, asked)
        settings = settings_without_spec(named | {k: v for k, v in asked.items() if v is not None})
        document = run_validation(
            settings,
            training,
            TerminalProgress(),
            per_prompt=per_prompt,
            tokens=tokens,
            layer=layer,
            n_groups=groups,
            trainings=trainings,
            run=of_run,
        )
        store.save_validation(document)
    if as_json:
        emit(document)
    else:
        print_view(validation_view(document))


def _of_run(store: Any, name: str, asked: Mapping[str, Any]) -> tuple[dict[str, Any], OfRun | None]:
    """Return the data, model and lens of the run called `name`, and what else a validation takes over of it.

    Where no run is called so, it is the data, and there is nothing else. `asked` are the options given.
    """
    from premortem.agent.validation import OfRun

    called = name == "last" or any(info.run_id.startswith(name) for info in store.runs())
    if Path(name).exists() or not called:
        return {"data": name}, None
    run_id = find_run(store, name)
    info = store.run(run_id)
    settings = _from_here({key: value for key, value in info.settings.items() if key in OF_RUN}, info.settings)
    sha256 = None if _other_rows(settings, asked) else info.dataset_sha256
    return settings, OfRun(run_id, sha256, store.load_clauses(run_id), store.load_findings(run_id))


def _from_here(settings: dict[str, Any], of_run: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` with the places of a run that was started in another folder as they are seen from this one."""
    from premortem.agent.evidence import place
    from premortem.interp.embedded import DEFAULT_MODEL

    cwd = str(of_run.get("cwd") or "")
    if cwd == os.getcwd():
        return settings
    named = {key: settings[key] for key in PLACES if settings.get(key) not in (None, DEFAULT_MODEL)}
    return settings | {key: place(value, cwd) for key, value in named.items()}


def _other_rows(settings: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether the options choose another part of a run's data, which then has another hash; that of a file is whole."""
    parts = ["split", "config", "revision", *([] if Path(settings["data"]).exists() else ["limit"])]
    return any(asked[part] is not None and asked[part] != settings.get(part) for part in parts)
