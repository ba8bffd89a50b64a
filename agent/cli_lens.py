"""The commands around the model and its lens: models fetch, lens train, lens check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from premortem.agent.cli_options import (
    AsJson,
    Config,
    Layer,
    Limit,
    Map,
    Model,
    Offline,
    Revision,
    RunsDir,
    Sae,
    Split,
    emit,
    only_our_stdout,
    parse_mapping,
    say,
)


def fetch(
    name: Annotated[str, typer.Argument(help="The default model.")] = "smollm2",
    offline: Annotated[bool, typer.Option("--offline", help="Only say where it is; fetch nothing.")] = False,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Fetch the default model once; after that everything works without a network.

    It is kept in your user's cache folder, or in the folder that the variable PREMORTEM_CACHE names.
    """
    from premortem.agent.progress import TerminalProgress
    from premortem.interp.embedded import fetch_model

    folder = fetch_model(name, offline=offline, progress=TerminalProgress())
    if as_json:
        emit({"model": name, "path": str(folder)})
    else:
        typer.echo(str(folder))


def train(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Pairs to train on: JSON Lines, Parquet or a hub id.")],
    layer: Annotated[
        list[int], typer.Option("--layer", min=0, help="Decoder layer to read, from 0. Repeatable: one SAE each.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the SAEs and the activations.")],
    model: Annotated[str, typer.Option("--model", help="smollm2, a folder or a hub id.")] = "smollm2",
    features: Annotated[
        int | None,
        typer.Option("--features", min=1, help="Features of the SAE. Default: four times the width, 3072 at least."),
    ] = None,
    active: Annotated[int, typer.Option("--active", min=1, help="Features that fire on a token.")] = 56,
    epochs: Annotated[float, typer.Option("--epochs", min=0.0, help="Times each token is seen.")] = 2.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first weights and the order.")] = 0,
    mapping: Map = None,
    split: Split = None,
    config: Config = None,
    revision: Revision = None,
    limit: Limit = None,
    offline: Offline = False,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Train an SAE on a model's activations on your pairs, in sae-lens's format, with a card of its figures."""
    from premortem.agent.opening import data_and_model, settings_without_spec
    from premortem.agent.progress import TerminalProgress
    from premortem.interp.lens_train import Recipe, texts_of, train_lenses, usual_features
    from premortem.interp.models import load_model

    progress = TerminalProgress()
    asked: dict[str, Any] = {"data": data, "model": model, "mapping": parse_mapping(mapping), "limit": limit}
    asked |= {"split": split, "config": config, "revision": revision, "offline": offline}
    with only_our_stdout():
        dataset, found = data_and_model(settings_without_spec(asked), progress)
        recipe = Recipe(d_sae=features or usual_features(found.hidden_size), k=active, epochs=epochs, seed=seed)
        loaded = load_model(model, layers=max(layer) + 1)
        texts = texts_of(dataset.pairs, loaded)
        folders = train_lenses(loaded, texts, layer, output, recipe=recipe, data=dataset.path, progress=progress)
    cards = {str(folder): json.loads((folder / "card.json").read_text("utf-8")) for folder in folders.values()}
    if as_json:
        lenses = [{"path": path, **card} for path, card in cards.items()]
        emit({"lenses": lenses, "quarantined": len(dataset.quarantined)})
        return
    for path, card in cards.items():
        say(", ".join(f"{name} {value}" for name, value in card["figures"].items()))
        typer.echo(path)


def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Your pairs: JSON Lines, Parquet or a hub id.")],
    model: Model = None,
    sae: Sae = None,
    layer: Layer = None,
    mapping: Map = None,
    split: Split = None,
    config: Config = None,
    revision: Revision = None,
    limit: Limit = None,
    offline: Offline = False,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure a lens on your pairs, and refuse one that does not fit, with the likely cause."""
    from premortem.agent.opening import check_only, settings_without_spec
    from premortem.agent.progress import TerminalProgress
    from premortem.agent.show import lens_fit, print_view

    asked: dict[str, Any] = {"data": data, "model": model, "sae": sae, "mapping": parse_mapping(mapping)}
    asked |= {"split": split, "config": config, "revision": revision, "limit": limit, "offline": offline}
    settings = settings_without_spec(asked)
    with only_our_stdout():
        fit = check_only(settings, TerminalProgress(), layer=layer)
    if as_json:
        emit(fit)
    else:
        print_view(lens_fit(fit))
