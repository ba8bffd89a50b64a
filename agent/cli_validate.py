"""`agent validate`: real DPO, and what it says of the forecast."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

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

OF_RUN = ("data", "mapping", "split", "config", "revision", "limit", "model", "sae", "second_sae", "forecaster")
"""Settings of a run that its validation takes over."""


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

    On a run's own data as it was read, whose findings are held against what was learned too, or on pairs of your
    choice. A fifth of the prompts is put aside; both models answer them. Some 30 minutes for 300 pairs on two cores.
    What is done is kept, so the same command goes on where it was interrupted. One training is a draw that no forecast
    can know: `--trainings 3` holds the forecast against the mean of three, and tells how much they have in common. The
    outcome is added to the database, and every report tells it from then on. Needs the extra `validate` (TRL and peft).
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
        named, clauses = _of_run(store, data)
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
            clauses=clauses,
        )
        store.save_validation(document)
    if as_json:
        emit(document)
    else:
        print_view(validation_view(document))


def _of_run(store: Any, name: str) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Return the data, model and lens of the run called `name`, and its clauses.

    Where no run is called so, it is the data, and there are no clauses.
    """
    called = name == "last" or any(info.run_id.startswith(name) for info in store.runs())
    if Path(name).exists() or not called:
        return {"data": name}, ()
    run_id = find_run(store, name)
    settings = {key: value for key, value in store.run(run_id).settings.items() if key in OF_RUN}
    return settings, store.load_clauses(run_id)
