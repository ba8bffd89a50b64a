"""From what a user names to what the tools work on: spec and options become settings, settings become a workbench.

A run is identified by content before anything heavy is loaded: the dataset is read and hashed, the files of the model
and the lenses are hashed, and only a run with work left loads weights. Options beat the spec's front matter, and that
beats the defaults. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from premortem.agent.cli_options import say
from premortem.agent.journal import QUARANTINE
from premortem.agent.runs import RunInputs, RunSettings, identify
from premortem.agent.spec import Spec, read_spec
from premortem.interp.cache_home import cache_home
from premortem.interp.embedded import DEFAULT_MODEL, fetch_model
from premortem.interp.encode import Reader
from premortem.interp.errors import DataError, LensError, NoPairs, SpecError
from premortem.interp.hygiene import vetted
from premortem.interp.lens import Lens, default_lenses, load_lens
from premortem.interp.lens_check import MOST_FVU, check_lens
from premortem.interp.models import ModelIdentity, load_model, load_tokenizer, resolve_model
from premortem.interp.pairs import LINE_SUFFIXES, left_out, read_dataset, write_quarantine
from premortem.interp.progress import Progress
from premortem.interp.records import Clause, Dataset
from premortem.interp.start_model import StartModel
from premortem.interp.tokens import MAX_LENGTH
from premortem.tools.forecast_concepts import ForecastArgs, forecast_concepts
from premortem.tools.workbench import BenchSettings, Workbench

BUILT_IN = "built-in"
"""Word that `--llm` takes for no LLM, where the spec names one."""

_HUB = "Hugging Face hub"
"""How the error for data that the hub does not give names it."""


@dataclass(frozen=True)
class Opened:
    """A run that is identified and can be started."""

    run_id: str
    """Id of the run."""
    inputs: RunInputs
    """What identifies it beside the settings."""
    make_workbench: Callable[[RunSettings], Workbench]
    """Loads weights; called only when there is work left."""
    quarantine: Path
    """Where the lines went that could not be read, if there were any."""
    warnings: tuple[str, ...]
    """What looks wrong with a lens without being proof."""


def settings_for(spec_path: Path, asked: Mapping[str, Any]) -> tuple[RunSettings, Spec]:
    """Return the settings of a run on `spec_path`; options in `asked` that are None leave the spec or the default.

    Raises SpecError when the spec cannot be read or nobody names the data.
    """
    spec = read_spec(spec_path, rules_needed=False)
    named = {name: getattr(spec.front, name) for name in ("model", "sae", "second_sae", "llm")}
    named["data"] = _beside(spec_path, spec.front.data) if spec.front.data else None
    values = {**_given(named), **_given(asked)}
    if values.get("llm") == BUILT_IN:
        values["llm"] = None
    if not spec.clauses and not values.get("llm"):
        read_spec(spec_path)  # says what is wrong
    if "data" not in values:
        raise SpecError(f"{spec_path} names no data; give --data, or set data: in the spec's front matter")
    return RunSettings(spec_path=str(spec_path), spec_text=spec.text, **values), spec


def settings_without_spec(asked: Mapping[str, Any]) -> RunSettings:
    """Return the settings of a forecast that no spec is compared with."""
    return RunSettings(spec_path="", spec_text="", **_given(asked))


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _beside(spec_path: Path, data: str) -> str:
    """Return `data` as seen from the spec's folder, where a file of that name stands there; a hub id stays."""
    local = spec_path.parent / data
    return str(local) if local.exists() or Path(data).suffix in (*LINE_SUFFIXES, ".parquet") else data


def open_run(
    settings: RunSettings,
    clauses: Sequence[Clause],
    runs_dir: Path,
    progress: Progress,
    *,
    layer: int | None = None,
) -> Opened:
    """Read the data, find model and lenses, and identify the run; no weights are loaded yet."""
    with progress.stage("Reading the data"):
        dataset = _read(settings)
    model = _identity(settings, progress)
    main, second = lenses_for(model, settings.sae, settings.second_sae, layer)
    lenses = [lens for lens in (main, second) if lens is not None]
    inputs = RunInputs(
        dataset_sha256=dataset.sha256,
        model_digest=model.digest,
        lens_ids=tuple(lens.lens_id for lens in lenses),
    )
    run_id = identify(settings, inputs)

    folder = runs_dir / run_id
    _tell_left_out(dataset, folder / QUARANTINE)

    def make_workbench(asked: RunSettings) -> Workbench:
        taken = _as_taken(dataset, model)
        if taken.quarantined:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_quarantine(folder / QUARANTINE, taken.quarantined)
        return open_bench(asked, taken, clauses, main, second, progress)

    warnings = tuple(warning for lens in lenses for warning in lens.warnings)
    return Opened(run_id, inputs, make_workbench, folder / QUARANTINE, warnings)


def _read(settings: RunSettings) -> Dataset:
    """Read the data; where a hub's dataset cannot be had, the error names the options that choose a part of it."""
    try:
        return read_dataset(
            settings.data,
            mapping=settings.mapping,
            split=settings.split,
            config=settings.config,
            revision=settings.revision,
            limit=settings.limit,
        )
    except NoPairs:
        raise
    except DataError as error:
        if _HUB not in str(error):
            raise
        options = f"asked for was --split {settings.split}; --split, --config and --revision choose another part"
        raise DataError(f"{error} ({options})") from error


def _as_taken(dataset: Dataset, model: ModelIdentity, max_length: int = MAX_LENGTH) -> Dataset:
    """Return `dataset` without the pairs that the model's template refuses.

    Raises NoPairs where none is left, in words of its own where the model has no template at all.
    """
    tokenizer = load_tokenizer(model)
    if not getattr(tokenizer, "chat_template", None) and all(pair.conversational for pair in dataset.pairs):
        raise NoPairs(
            f"{model.ref} has no chat template, as base models have none, and the pairs are messages: name an instruct "
            "model, or give prompt, chosen and rejected as plain strings"
        )
    return vetted(dataset, tokenizer, max_length)


def _tell_left_out(dataset: Dataset, file: Path | None = None) -> None:
    if told := left_out(dataset, file):
        say(told, "yellow")


def _identity(settings: RunSettings, progress: Progress) -> ModelIdentity:
    if settings.model == DEFAULT_MODEL:
        fetch_model(offline=settings.offline, progress=progress)
    return resolve_model(settings.model, progress)


def lenses_for(
    model: ModelIdentity, sae: str | None, second_sae: str | None, layer: int | None = None
) -> tuple[Lens, Lens | None]:
    """Return the lens to read through and the one that judges edits; `layer` overrides the first one's own word.

    Raises LensError when another model than the embedded one comes without an SAE.
    """
    embedded = default_lenses(model) if model.ref == DEFAULT_MODEL else None
    if sae is None and embedded is None:
        raise LensError(f"{model.ref} needs an SAE: give --sae (a folder, or RELEASE:SAE_ID of sae-lens).")
    main = load_lens(model, sae, layer=layer) if sae is not None else embedded[0]  # type: ignore[index]
    if second_sae is not None:
        return main, load_lens(model, second_sae)
    return main, embedded[1] if embedded is not None else None


def open_bench(
    settings: RunSettings,
    dataset: Dataset,
    clauses: Sequence[Clause],
    main: Lens,
    second: Lens | None,
    progress: Progress,
    *,
    max_length: int = MAX_LENGTH,
) -> Workbench:
    """Load the layers that the lenses read, read the pairs, and return the workbench; the whole model waits.

    `max_length`: tokens of prompt and response together that are read; what is longer loses its end. Raises
    LensMisfit, with the likely cause, where a lens does not reconstruct the model on these pairs.
    """
    reader = _open_reader(settings, [lens for lens in (main, second) if lens is not None], progress, max_length)
    bench = Workbench(
        dataset,
        clauses,
        reader,
        main,
        second,
        lambda: StartModel(load_model(settings.model, trunk=reader.model), settings.seed, cache_home() / "start_model"),
        BenchSettings.model_validate({"forecaster": settings.forecaster, "seed": settings.seed}),
        progress,
    )
    with progress.stage("Reading the pairs through the lens"):
        pairs = bench.readable
    for lens_id in reader.lenses:
        if not reader.fit_on(lens_id, pairs).fvu <= MOST_FVU:  # not a number is no fit either
            check_lens(reader, dataset.pairs, lens_id)
    return bench


def _open_reader(
    settings: RunSettings, lenses: Sequence[Lens], progress: Progress, max_length: int = MAX_LENGTH
) -> Reader:
    with progress.stage("Loading the model"):
        model = load_model(settings.model, layers=max(lens.layer for lens in lenses) + 1)
    return Reader(model, lenses, cache_home() / "encoded", max_length=max_length)


def data_and_model(
    settings: RunSettings, progress: Progress, max_length: int = MAX_LENGTH
) -> tuple[Dataset, ModelIdentity]:
    """Return the data that `settings` name, as the model takes it, and the model's identity; no weights are loaded.

    What of the data could not be read is told on stderr; the data's notes tell what training at `max_length` tokens
    would drop or cut.
    """
    with progress.stage("Reading the data"):
        dataset = _read(settings)
    model = _identity(settings, progress)
    taken = _as_taken(dataset, model, max_length)
    _tell_left_out(taken)
    return taken, model


def data_and_lens(
    settings: RunSettings, progress: Progress, layer: int | None = None, *, max_length: int = MAX_LENGTH
) -> tuple[Dataset, Lens]:
    """Return the data, as `data_and_model` does, and the lens to read it through, for work that keeps no run."""
    dataset, model = data_and_model(settings, progress, max_length)
    main, _ = lenses_for(model, settings.sae, None, layer)
    return dataset, main


def forecast_only(settings: RunSettings, progress: Progress, *, layer: int | None = None) -> dict[str, Any]:
    """Return the `dataset`, `lens` and `forecast` parts of a run's document, for data without a spec."""
    dataset, main = data_and_lens(settings, progress, layer)
    bench = open_bench(settings, dataset, (), main, None, progress)
    with progress.stage("Forecasting"):
        report = forecast_concepts(bench, ForecastArgs(forecaster=bench.settings.forecaster))
    return {
        "dataset": {
            "path": dataset.path,
            "pairs": len(dataset.pairs),
            "quarantined": len(dataset.quarantined),
            "sha256": dataset.sha256,
            "form": dataset.form,
            "notes": [note.model_dump(mode="json") for note in dataset.notes],
        },
        "lens": bench.lens_summary().model_dump(mode="json"),
        "forecast": report.forecast.model_dump(mode="json"),
    }


def check_only(settings: RunSettings, progress: Progress, *, layer: int | None = None) -> dict[str, Any]:
    """Return how the lens of `settings` fits its data (see `LensFit`), and how many rows were `quarantined`.

    Raises LensMisfit, with the likely cause, where it does not fit.
    """
    dataset, main = data_and_lens(settings, progress, layer)
    reader = _open_reader(settings, [main], progress)
    with progress.stage("Reading the pairs through the lens"):
        reader.encode(dataset.pairs, progress)
    with progress.stage("Measuring the reconstruction"):
        fit = check_lens(reader, dataset.pairs, main.lens_id)
    return {**fit.model_dump(mode="json"), "quarantined": len(dataset.quarantined)}
