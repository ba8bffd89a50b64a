"""The command `agent`: a thin layer of typer over the files that do the work.

    run, forecast                            here
    runs, show, review, export, report,
    recording                                cli_runs
    models fetch, lens train, lens check     cli_lens

Imports that bring torch, langgraph or transformers stand inside the commands, so that `agent --help` answers at once.
Options, JSON output and exit codes are in `cli_options`.
"""

from __future__ import annotations

import os
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from premortem.agent import cli_lens, cli_runs, cli_validate
from premortem.agent.cli_options import (
    AsJson,
    Config,
    Db,
    Forecasters,
    HouseGroup,
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
    emit,
    only_our_stdout,
    parse_mapping,
    place_options,
    say,
)

MOST_UNREAD = 5
"""Sentences of a spec without a rule that a run quotes at its start."""
HELP = """Reads a preference dataset through the model about to be trained on it, before training: what DPO would
teach, which pairs are responsible, and which edits would change it."""

app = typer.Typer(
    name="agent", cls=HouseGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
models = typer.Typer(help="The default model.", no_args_is_help=True)
lens = typer.Typer(help="SAEs: train one, or check that one fits.", no_args_is_help=True)


class FailOn(StrEnum):
    """What makes `agent run` exit with code 3."""

    VIOLATION = "violation"
    FINDING = "finding"


Spec = Annotated[Path, typer.Option("--spec", help="The model spec: your rules in plain language, a Markdown file.")]
Data = Annotated[
    str | None, typer.Option("--data", help="JSON Lines, Parquet or a hub id. Default: what the spec names.")
]
SecondSae = Annotated[str | None, typer.Option("--second-sae", help="An SAE that only judges the edits.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("premortem"))
        raise typer.Exit


@app.callback(help=HELP)
def root(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Set what every command needs."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def run(
    spec: Spec,
    data: Data = None,
    mapping: Map = None,
    split: Split = None,
    config: Config = None,
    revision: Revision = None,
    limit: Limit = None,
    model: Model = None,
    sae: Sae = None,
    second_sae: SecondSae = None,
    layer: Layer = None,
    forecaster: Forecasters = None,
    fix_surprises: Annotated[
        bool, typer.Option("--fix-surprises", help="Propose edits for what no rule mentions, too.")
    ] = False,
    llm: Annotated[
        str | None,
        typer.Option(
            "--llm",
            help="The LLM that plans and writes, by its name at OPENAI_BASE_URL; `built-in` for none where the spec "
            "names one.",
        ),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", help="Answer the LLM's part from a recording, without an endpoint.")
    ] = None,
    max_llm_calls: Annotated[int, typer.Option("--max-llm-calls", min=0, help="Requests to the LLM, at most.")] = 1000,
    max_llm_tokens: Annotated[
        int, typer.Option("--max-llm-tokens", min=0, help="Tokens of those requests and answers, at most.")
    ] = 2_000_000,
    max_llm_seconds: Annotated[
        float | None, typer.Option("--max-llm-seconds", min=0, help="Seconds spent on the LLM's answers, at most.")
    ] = None,
    max_llm_usd: Annotated[
        float | None, typer.Option("--max-llm-usd", min=0, help="US dollars, at most, for models with a listed price.")
    ] = None,
    llm_timeout: Annotated[
        float, typer.Option("--llm-timeout", min=1, help="Seconds that one answer may take.")
    ] = 180.0,
    max_touched: Annotated[
        float, typer.Option("--max-touched", min=0.001, max=1, help="Share of the pairs that edits may touch.")
    ] = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="Seed of samples and random controls.")] = 0,
    offline: Offline = False,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            "--fail-on",
            help="Exit with code 3 on a `finding` (the data as it is breaks a rule) or a `violation` (it still does "
            "with the edits that passed).",
        ),
    ] = None,
    db: Db = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Do the whole job: forecast, find what breaks the spec, propose edits, prove each by forecasting again.

    An interrupted run goes on when the same command is given again.
    """
    from premortem.agent.diff import excerpt
    from premortem.agent.ledger import Recording
    from premortem.agent.llm import Endpoint, price
    from premortem.agent.opening import open_run, settings_for
    from premortem.agent.progress import TerminalProgress
    from premortem.agent.runs import is_done, recover_runs, start_run, unfinished_like
    from premortem.agent.store import Store

    asked: dict[str, Any] = {"data": data, "model": model, "sae": sae, "second_sae": second_sae}
    asked |= {"mapping": parse_mapping(mapping), "split": split, "config": config, "revision": revision}
    asked |= {"limit": limit, "forecaster": forecaster and forecaster.value, "seed": seed, "offline": offline}
    budget = {"calls": max_llm_calls, "tokens": max_llm_tokens, "seconds": max_llm_seconds, "usd": max_llm_usd}
    asked |= {"fix_surprises": fix_surprises, "budget": budget, "max_touched": max_touched}
    recording = Recording(replay) if replay is not None else None
    asked |= {"llm": llm or (recording.model if recording is not None else None)}
    settings, read = settings_for(spec, asked)
    carrier = recording or (Endpoint(timeout=llm_timeout) if settings.llm else None)
    for clause in read.clauses if settings.llm is None else ():
        say(f"rule read ({clause.direction}, limit {clause.limit:.3g}): {excerpt(clause.text, 100)}", "dim")
    if read.unread and settings.llm is None:
        shown = ", ".join(f"“{excerpt(text, 80)}”" for text in read.unread[:MOST_UNREAD])
        more = f" and {len(read.unread) - MOST_UNREAD} more" if len(read.unread) > MOST_UNREAD else ""
        say(f"note: no rule was read from {shown}{more}; a rule says what answers should or should not do", "yellow")
    for key in read.unmatched if settings.llm is None else ():
        say(f"note: no rule holds “{excerpt(key, 80)}”, so what the front matter sets for it applies to none", "yellow")
    progress = TerminalProgress()
    with only_our_stdout(), Store(database(db, runs_dir)) as store:
        opened = open_run(settings, read.clauses, runs_dir, progress, layer=layer)
        for warning in opened.warnings:
            say(f"note: {warning}", "yellow")
        recover_runs(store, runs_dir)
        if (other := unfinished_like(store, settings, opened.inputs)) is not None:
            differs = f"with other settings ({', '.join(other.differs)})" if other.differs else "by another version"
            own = ", with a budget of its own" if settings.llm else ""
            say(f"note: run {other.run_id} of these rules and data was left unfinished {differs}", "yellow")
            say(f"this is a new run{own}; that one goes on with the command that began it", "yellow")
        if settings.llm and isinstance(carrier, Endpoint) and not is_done(store, settings, opened.inputs):
            say(f"note: excerpts of the data and the spec go to {settings.llm} at {carrier.address}", "yellow")
            if max_llm_usd is not None and price(settings.llm, 1, 1, carrier.address) is None:
                told = f"nobody lists a price for {settings.llm} at {carrier.address}"
                say(f"note: {told}, so --max-llm-usd bounds nothing; --max-llm-tokens does", "yellow")
        run_id = start_run(
            settings, opened.inputs, store, runs_dir, opened.make_workbench, progress=progress, carrier=carrier
        )
        document = store.document(run_id)
    if document["dataset"]["quarantined"]:
        say(f"{document['dataset']['quarantined']} lines could not be read: {opened.quarantine}", "yellow")
    _finish(document, as_json, fail_on, place_options(db, runs_dir))


def _finish(document: dict[str, Any], as_json: bool, fail_on: FailOn | None, place: str) -> None:
    """Print a run's outcome and leave with its exit code; `place` as in `run_summary`."""
    from premortem.agent.diff import excerpt
    from premortem.agent.show import print_view, run_summary
    from premortem.agent.summary import broken_rules

    if as_json:
        emit(document)
    else:
        print_view(run_summary(document, place))
    if document["status"] == "interrupted":
        say(f"run {document['run_id']} interrupted; the same command goes on with it", "yellow")
        raise typer.Exit(130)
    broken = broken_rules(document, after=fail_on is FailOn.VIOLATION) if fail_on is not None else []
    for rule in broken:
        say(f"the forecast breaks: {excerpt(rule, 100)}", "red")
    if broken:
        raise typer.Exit(3)


def forecast(
    data: Annotated[str, typer.Argument(metavar="DATA", help="JSON Lines, Parquet or a hub id.")],
    mapping: Map = None,
    split: Split = None,
    config: Config = None,
    revision: Revision = None,
    limit: Limit = None,
    model: Model = None,
    sae: Sae = None,
    layer: Layer = None,
    forecaster: Forecasters = None,
    offline: Offline = False,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Forecast what DPO on DATA would teach. Nothing is stored and no spec is needed."""
    from premortem.agent.opening import forecast_only, settings_without_spec
    from premortem.agent.progress import TerminalProgress
    from premortem.agent.show import forecast_view, print_view

    asked: dict[str, Any] = {"data": data, "mapping": parse_mapping(mapping), "split": split, "config": config}
    asked |= {"revision": revision, "limit": limit, "model": model, "sae": sae, "offline": offline}
    settings = settings_without_spec(asked | {"forecaster": forecaster and forecaster.value})
    with only_our_stdout():
        document = forecast_only(settings, TerminalProgress(), layer=layer)
    if as_json:
        emit(document)
    else:
        print_view(forecast_view(document))


def _add(group: typer.Typer, command: Any, example: str, name: str | None = None) -> None:
    group.command(name=name, epilog=f"Example: {example}")(command)


_add(app, run, "agent run --spec spec.md --data pairs.jsonl")
_add(app, forecast, "agent forecast pairs.jsonl --json")
_add(app, cli_validate.validate, "agent validate pairs.jsonl --limit 300")
_add(app, cli_runs.review, "agent review last")
_add(app, cli_runs.export, "agent export last -o pairs.debugged.jsonl")
_add(app, cli_runs.recording, "agent recording last -o run.llm.jsonl")
_add(app, cli_runs.report, "agent report last -o report.html")
_add(app, cli_runs.runs, "agent runs")
_add(app, cli_runs.show, "agent show last --json")
_add(models, cli_lens.fetch, "agent models fetch")
_add(lens, cli_lens.train, "agent lens train pairs.jsonl --layer 12 -o my-sae")
_add(lens, cli_lens.check, "agent lens check pairs.jsonl --sae my-sae/layer-12")
app.add_typer(models, name="models")
app.add_typer(lens, name="lens")


def main() -> None:
    """Run the command line."""
    app()
