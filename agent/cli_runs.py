"""The commands on a finished run: runs, show, review, export, report. Each is a thin call of the file of its name."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from premortem.agent.cli_options import AsJson, Db, RunArg, RunsDir, database_path, emit, place_options, say
from premortem.interp.errors import DataError, ExportError, PremortemError, StoreError
from premortem.interp.records import Decision, Review


@contextmanager
def open_store(db: Path | None, runs_dir: Path) -> Iterator[Any]:
    """Open the run database for a command, with runs that were killed marked as interrupted.

    Raises StoreError where there is none: none is created, as these commands only look at runs.
    """
    from premortem.agent.store import Store

    path = database_path(db, runs_dir)
    if not path.exists():
        raise no_run_yet(path)
    with Store(path) as store:
        if any(info.status == "running" for info in store.runs()):
            from premortem.agent.runs import recover_runs  # brings langgraph, which takes seconds

            recover_runs(store, runs_dir)
        yield store


def no_run_yet(path: Path) -> StoreError:
    """Return the error for a database without runs."""
    return StoreError(
        f"database {path} holds no run yet; start one with `agent run --spec spec.md`, or say with --runs-dir or --db "
        "where the runs are"
    )


def find_run(store: Any, name: str) -> str:
    """Return the run id that `name` means: `last`, an id, or the beginning of one."""
    if name != "last":
        return str(store.find_run(name))
    runs = store.runs()
    if not runs:
        raise no_run_yet(store.path)
    return str(max(runs, key=lambda info: (info.updated_at, info.created_at)).run_id)


def runs(db: Db = None, runs_dir: RunsDir = Path("runs"), as_json: AsJson = False) -> None:
    """List the runs, the newest first."""
    from premortem.agent.diff import visible
    from premortem.agent.show import print_view, table_of

    path, rows = database_path(db, runs_dir), []
    if path.exists():
        with open_store(db, runs_dir) as store:
            rows = [info.model_dump(mode="json", exclude={"spec", "settings", "notes"}) for info in store.runs()]
    if as_json:
        emit(rows)
        return
    rows = [{**row, "updated_at": str(row["updated_at"])[:16].replace("T", " ")} for row in rows]
    columns = {"run_id": "run", "status": "status", "dataset_path": "data", "pairs": "pairs", "updated_at": "UTC"}
    elsewhere = "Start one: agent run --spec spec.md; or say with --runs-dir or --db where they are"
    print_view(table_of(rows, columns, empty=f"No runs yet in {visible(str(path))}. {elsewhere}."))


def show(run: RunArg = "last", db: Db = None, runs_dir: RunsDir = Path("runs"), as_json: AsJson = False) -> None:
    """Show one run: what was found, what the edits do, what comes next."""
    from premortem.agent.show import print_view, run_summary

    with open_store(db, runs_dir) as store:
        document = store.document(find_run(store, run))
    if as_json:
        emit(document)
    else:
        print_view(run_summary(document, place_options(db, runs_dir)))


AcceptIds = Annotated[list[str] | None, typer.Option("--accept", metavar="EDIT", help="Accept this edit; repeatable.")]
RejectIds = Annotated[list[str] | None, typer.Option("--reject", metavar="EDIT", help="Reject this edit; repeatable.")]


def review(
    run: RunArg = "last",
    accept_passed: Annotated[bool, typer.Option("--accept-passed", help="Accept every open edit that passed.")] = False,
    accept: AcceptIds = None,
    reject: RejectIds = None,
    reviewer: Annotated[str | None, typer.Option("--reviewer", help="Who decides. Default: your user name.")] = None,
    db: Db = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Decide on a run's edits, one by one in the terminal, or by option."""
    with open_store(db, runs_dir) as store:
        run_id = find_run(store, run)
        name = reviewer or _user()
        if accept_passed or accept or reject:
            made = _decide(store, run_id, name, accept_passed, accept or [], reject or [])
            say(f"{made} decisions written for run {run_id}")
        elif not as_json:
            _review_in_terminal(store, run_id, name, place_options(db, runs_dir))
        if as_json:
            emit(_listed(store, run_id))


def _decide(store: Any, run_id: str, reviewer: str, passed: bool, accept: list[str], reject: list[str]) -> int:
    """Write the decisions that the options ask for; every id is checked before the first is written.

    `passed` leaves open what stands on a row with an accepted edit; raises PremortemError where `accept` would put a
    second accepted edit on a row, and ExportError for `passed` while the run may still refuse what has passed.
    """
    from premortem.agent.review import accepted_by_row
    from premortem.agent.summary import edit_decision, edit_passed

    if passed:
        _finished(store, run_id)
    edits = store.document(run_id)["edits"]
    ids = [str(edit["edit_id"]) for edit in edits]
    wanted: dict[str, Decision] = {_edit_id(ids, start): "accept" for start in accept}
    wanted |= {_edit_id(ids, start): "reject" for start in reject}
    made = {str(edit["edit_id"]): decision for edit in edits if (decision := edit_decision(edit))} | wanted
    for row, accepted in accepted_by_row(edits, made).items():
        if len(accepted) > 1 and any(edit_id in wanted for edit_id in accepted):
            raise PremortemError(
                f"row {row} would have two accepted edits, {accepted[0]} and {accepted[1]}, each written for the row "
                "as it came; reject one"
            )
    for edit in edits if passed else ():
        edit_id = str(edit["edit_id"])
        if edit_passed(edit) and edit_id not in made:
            if edit["kind"] != "synthesise" and int(edit["row"]) in accepted_by_row(edits, made):
                continue
            wanted[edit_id] = made[edit_id] = "accept"
    for edit_id, decision in wanted.items():
        store.save_review(run_id, _review(edit_id, decision, None, reviewer))
    return len(wanted)


def _finished(store: Any, run_id: str) -> None:
    """Raise ExportError where a run is not done: what has passed beside refused edits may still be refused."""
    if (status := store.run(run_id).status) != "done":
        raise ExportError(
            f"run {run_id} is not finished ({status}): its edits have not been judged together yet; the same "
            "`agent run` goes on with it"
        )


def _edit_id(ids: list[str], start: str) -> str:
    found = [edit_id for edit_id in ids if start and edit_id.startswith(start)]
    if len(found) != 1:
        raise PremortemError(
            f"{'no edit' if not found else f'{len(found)} edits'} with an id that begins with {start!r}"
        )
    return found[0]


def _review(edit_id: str, decision: Decision, text: str | None, reviewer: str) -> Review:
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    return Review(edit_id=edit_id, decision=decision, text=text, reviewer=reviewer, at=at)


def _pairs_at_hand(store: Any, run_id: str) -> dict[int, Any]:
    """Return the run's pairs by row; none, and a line that says so, where its data is gone or has changed."""
    from premortem.agent.evidence import load_dataset

    try:
        return {pair.row: pair for pair in load_dataset(store, run_id).pairs}
    except DataError as error:
        say(f"note: the pairs themselves cannot be shown: {error}", "yellow")
        return {}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _review_in_terminal(store: Any, run_id: str, reviewer: str, place: str) -> None:
    from rich.console import Console

    from premortem.agent.review import Session, open_editor

    def save(edit_id: str, decision: Decision, text: str | None) -> None:
        store.save_review(run_id, _review(edit_id, decision, text, reviewer))

    session = Session(
        store.document(run_id),
        _pairs_at_hand(store, run_id),
        save,
        console=Console(highlight=False),
        read_key=_read_key,
        edit_text=open_editor,
    )
    counts = session.run()
    say(", ".join(f"{number} {name}" for name, number in counts.items()))
    if counts["open"]:
        say(f"go on with: agent review {run_id}{place}", "dim")
    elif store.run(run_id).status == "done":
        say(f"next: agent export {run_id} -o FILE{place}", "dim")


def _read_key() -> str:
    """Return one key from a terminal, or the first character of a line from anything else; empty at its end."""
    try:
        return str(typer.getchar()) if sys.stdin.isatty() else sys.stdin.readline()[:1]
    except (EOFError, KeyboardInterrupt):
        return ""


def _listed(store: Any, run_id: str) -> dict[str, Any]:
    """Return the edits with their verdicts and reviews, as `agent review --json` prints them."""
    return {"run_id": run_id, "edits": store.document(run_id)["edits"]}


def report(
    run: RunArg = "last",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The file; of files that exist only a report is replaced. Default: report.html in the run's folder.",
        ),
    ] = None,
    db: Db = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML file about a run."""
    from premortem.agent.evidence import load_spans
    from premortem.agent.report import refuse_other_file, render_report, write_report

    if output is not None:
        refuse_other_file(output)
    with open_store(db, runs_dir) as store:
        run_id = find_run(store, run)
        pairs, spans = _pairs_at_hand(store, run_id), load_spans(store, run_id)
        place = place_options(db, runs_dir)
        html = render_report(store.document(run_id), pairs, spans, store.validations(), place)
    path = output or runs_dir / run_id / "report.html"
    write_report(html, path)
    if as_json:
        emit({"run_id": run_id, "path": str(path)})
    else:
        typer.echo(str(path))


def recording(
    output: Annotated[Path, typer.Option("-o", "--output", help="The new file; it must not exist yet.")],
    run: RunArg = "last",
    db: Db = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write what a run's LLM answered; `agent run --replay FILE` repeats the run from it, without an endpoint.

    Requests are known by their hash; the answers may quote the data.
    """
    from premortem.agent.ledger import write_recording

    with open_store(db, runs_dir) as store:
        run_id = find_run(store, run)
        calls = write_recording(output, store.load_llm_calls(run_id))
    if as_json:
        emit({"path": str(output), "run_id": run_id, "calls": calls})
        return
    say(f"{calls} calls of run {run_id}")
    typer.echo(str(output))


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="The new file; it must not exist yet.")],
    run: RunArg = "last",
    reviewed_only: Annotated[
        bool, typer.Option("--reviewed-only", help="Apply only edits that a person accepted or modified.")
    ] = False,
    explicit: Annotated[
        bool, typer.Option("--explicit", help="Write every row with its own prompt column, whatever its form was.")
    ] = False,
    db: Db = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write the debugged dataset: every edit that passed and that nobody rejected, all other rows as they came."""
    from premortem.agent.evidence import load_dataset, source_of
    from premortem.agent.export import decided, export_dataset, unlike_forecast

    with open_store(db, runs_dir) as store:
        run_id = find_run(store, run)
        _finished(store, run_id)
        dataset, reviews = load_dataset(store, run_id), store.load_reviews(run_id)
        passed = {edit.edit_id: edit for edit in store.passed_edits(run_id)}
        edits = [edit for edit in store.load_edits(run_id) if edit.edit_id in passed or edit.edit_id in reviews]
        asked = store.run(run_id).settings
    source = source_of(dataset)
    applied = decided(edits, reviews, unreviewed=not reviewed_only)
    left_out, unjudged = unlike_forecast(applied, passed)
    manifest = export_dataset(
        dataset,
        applied,
        source,
        output,
        run_id,
        mapping=asked.get("mapping"),
        split=asked.get("split", "train"),
        layout="explicit" if explicit else "same",
        as_forecast=not left_out and not unjudged,
    )
    if as_json:
        emit({"path": str(output), **manifest.model_dump(mode="json")})
        return
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(manifest.by_kind.items())) or "no edits"
    say(f"{manifest.rows} rows: {manifest.untouched} untouched, {manifest.changed} changed, {manifest.added} added")
    say(f"{manifest.dropped} dropped, {manifest.quarantined} unreadable left out; {kinds}", "dim")
    if not manifest.as_forecast:
        say(
            f"the forecast with edits is not of this file: {left_out} edits that passed are not in it, and {unjudged} "
            "in it did not pass as they are now; `agent run` on this file tells what it teaches",
            "yellow",
        )
    if manifest.not_read:
        say(f"{manifest.not_read} rows beyond the run's --limit are NOT in this file", "yellow")
    elif source is None and (limit := asked.get("limit")) and len(dataset.pairs) + manifest.quarantined >= limit:
        say(f"rows beyond the run's --limit of {limit} are NOT in this file", "yellow")
    if manifest.otherwise_to_trl:
        advice = "text and messages are mixed, and TRL judges a file by its first row: split it"
        if not explicit:
            into = " into a .jsonl file" if output.suffix == ".parquet" else ""
            advice = f"a transcript is plain text to it; --explicit writes every row as it was read{into}"
        say(
            f"{manifest.otherwise_to_trl} rows have a form that TRL takes otherwise than this run did, or not at all; "
            f"{advice}",
            "yellow",
        )
    typer.echo(str(output))
