"""What the terminal shows of a run: a summary, a forecast, the list of runs. Drawn with rich, from plain documents.

Names of concepts and topics are words of the dataset, so every cell is a `Text` (rich markup in the data stays text)
with hidden characters made visible. Nothing here reads files or decides anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from premortem.agent.diff import excerpt, visible
from premortem.agent.summary import (
    AT_WORK,
    Document,
    FindingView,
    by_unit,
    concept_title,
    doubts,
    edit_decision,
    finding_views,
    groups_learned,
    has_forecast,
    headline,
    lens_name,
    newly_broken,
    points,
    told_title,
    uncovered,
)
from premortem.interp.records import ROWS_TOLD

_KIND_STYLE = {
    "forbidden": "bold red",
    "missing": "bold magenta",
    "surprise": "bold yellow",
    "injection": "bold cyan",
}
FIRST_ROWS = 5
"""Rows told of a note on the data."""
NARROW = 72
"""Characters of a line from which on the findings are a table."""
_OUTCOME_STYLE = {"fixed": "green", "unfixed": "red", "reported": "dim"}
_VERDICT_STYLE = {"amplified": "red", "suppressed": "blue", "cannot_tell": "dim"}


_EXAMPLES_HELP = (
    "What a rule asks for can be measured from three sentences or more that show it, as `examples` in the front matter "
    "of the spec."
)
_TOKENS = "effect: forecast change in the share of tokens, mean over a group's features, in percentage points"


def safe(value: object, limit: int = 60, style: str = "") -> Text:
    """Return a cell that shows `value` as it is: one line, no markup, no control characters."""
    return Text(excerpt(str(value), limit), style=style)


def run_summary(document: Document, place: str = "") -> RenderableType:
    """Return a run's summary: what was read, what was found, what the edits do, what to type next.

    `place`: options that lead the next commands to this run, where it is not in the usual place.
    """
    views = finding_views(document)
    parts: list[RenderableType] = [Text(visible(headline(document)), style="bold"), *_unfinished(document), Text("")]
    parts.append(data_and_lens(document))
    if views:
        parts += [Text(""), FindingsTable(views), _units(), *_surprises(views)]
    parts += [_uncovered(document), *_left_out(document), _spec_problems(document), _edits_line(document, views)]
    parts += _newly_broken(document)
    parts += [_llm_line(document), _llm_stopped(document)]
    parts.append(next_commands(document, views, place))
    return Group(*parts)


def _unfinished(document: Document) -> list[Text]:
    """Return a line for a run that has findings and is not at its end."""
    status, error = document.get("status"), visible(str(document.get("error") or ""))
    if status in ("done", None) or not has_forecast(document):
        return []
    if status == "running":
        return [Text(f"{AT_WORK[0].upper()}{AT_WORK[1:]}.", style="yellow")]
    why = f": {error}" if error else ""
    return [Text(f"The run is not finished ({status}{why}); the same command goes on with it.", style="yellow")]


def data_and_lens(document: Document) -> RenderableType:
    """Return two lines: the dataset and the lens it was read through."""
    data, lens = document["dataset"], document["lens"]
    if data["pairs"] is None or lens["fvu"] is None:
        return Text("the run has not read its data yet", style="dim")
    quarantined = f", {data['quarantined']} quarantined" if data.get("quarantined") else ""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(Text("data", style="dim"), Text(f"{excerpt(data['path'], 70)}: {data['pairs']} pairs{quarantined}"))
    place = f"{excerpt(lens_name(lens['sae']), 50)} at {excerpt(lens['hook'], 40)}"
    fit = f"{place}, FVU {lens['fvu']:.2f}, L0 {lens['l0']:.0f}"
    grid.add_row(Text("lens", style="dim"), Text(f"{excerpt(lens['model'], 50)} · {fit}"))
    for note in data.get("notes") or ():
        rows = ", ".join(map(str, note["rows"][:FIRST_ROWS])) + (" …" if len(note["rows"]) > FIRST_ROWS else "")
        grid.add_row(Text("note", style="dim"), safe(f"{note['text']} Rows {rows}", 160, style="dim"))
    return grid


class FindingsTable:
    """The findings: one a line, or one a paragraph where a terminal is too narrow for the columns."""

    def __init__(self, views: Sequence[FindingView]) -> None:
        """Lay out `views`."""
        self.rows: list[tuple[str | Text, ...]] = [
            (
                Text(view.kind, style=_KIND_STYLE.get(view.kind, "")),
                safe(view.label, 60),
                Text(points(view.effect), style="bold"),
                f"{points(view.low)} {points(view.high)}",
                str(len(view.rows)),
                f"{view.passed}/{len(view.edits)}",
                points(view.verdict["effect_after"] if view.verdict else None),
                Text(view.outcome, style=_OUTCOME_STYLE.get(view.outcome, "")),
            )
            for view in views
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table, or the paragraphs."""
        heads = ("finding", "rule or concept", "effect", "90% interval", "rows", "passed", "after", "outcome")
        if options.max_width < NARROW:
            for kind, label, *figures in self.rows:
                yield Text.assemble(kind, " ", label)
                told = zip(heads[2:], figures, strict=True)
                yield Text("  ") + Text(", ").join(Text.assemble(f"{name} ", figure) for name, figure in told)
            return
        table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
        for name in heads:
            numeric = name not in ("finding", "rule or concept", "outcome")
            table.add_column(name, justify="right" if numeric else "left", no_wrap=name != "rule or concept")
        for row in self.rows:
            table.add_row(*row)
        yield table


def _units(unit: str = "responses") -> Text:
    told = "effect: change in the share of responses, chosen minus rejected, in percentage points"
    return Text(told if unit == "responses" else _TOKENS, style="dim")


def _surprises(views: Sequence[FindingView]) -> list[Text]:
    """Say what to do about a surprise that nobody edits unasked."""
    told = "a surprise that should not happen: write a rule against it; the report has sentences for its examples"
    return [Text(told, style="dim")] if any(view.kind == "surprise" and not view.edits for view in views) else []


def _uncovered(document: Document) -> RenderableType:
    rules = uncovered(document)
    lines = [f"not covered by any concept here: {excerpt(str(rule['text']), 80)}" for rule in rules]
    if any(rule["direction"] == "encourage" and not rule["scope"] for rule in rules):
        lines.append(_EXAMPLES_HELP)
    return Text("\n" + "\n".join(lines), style="yellow") if lines else Text("")


def _left_out(document: Document) -> list[Text]:
    """Say which prompts a rule is not about."""
    told = [
        f"{len(rows)} {'pair' if len(rows) == 1 else 'pairs'} left out, whose prompt says "
        f"{', '.join(clause['exempt_words'])}: {clause['text']}"
        for clause in document.get("clauses", ())
        if (rows := clause.get("exempt_rows"))
    ]
    return [Text(excerpt(line, 160), style="dim") for line in told]


def _edits_line(document: Document, views: Sequence[FindingView]) -> Text:
    if not has_forecast(document):
        return Text("", end="")
    passed, total = sum(view.passed for view in views), sum(len(view.edits) for view in views)
    if not total:
        return Text("No edits were needed." if not views else "No edits are proposed.")
    rejected = sum(edit_decision(edit) == "reject" for view in views for edit in view.edits)
    reviewed = f", {rejected} rejected by a reviewer" if rejected else ""
    return Text(f"{passed} of {total} edits passed their verdict{reviewed}.")


def _newly_broken(document: Document) -> list[Text]:
    """Say which rules the edits break that the data as it is keeps."""
    told = [f"with these edits the forecast breaks: {excerpt(rule, 160)}" for rule in newly_broken(document)]
    return [Text(line, style="bold red") for line in told]


def _spec_problems(document: Document) -> RenderableType:
    lines = [f"the spec, {excerpt(str(text), 300)}" for text in document.get("spec_problems", ())]
    return Text("\n".join(lines), style="yellow") if lines else Text("", end="")


def _llm_line(document: Document) -> Text:
    """Return what the LLM did and cost; nothing where none took part."""
    cost = document["cost"]
    if not cost.get("llm_calls"):
        return Text("", end="")
    written = [edit for edit in document["edits"] if edit.get("author", "built-in") != "built-in"]
    passed = sum(bool(edit["verdict"] and edit["verdict"]["passed"]) for edit in written)
    price = f", {cost['llm_usd']:.2f} US dollars" if cost.get("llm_usd") else ""
    told = f"The LLM wrote {len(written)} of the edits, {passed} of them passed; "
    return Text(f"{told}{cost['llm_calls']} calls, {cost['llm_tokens']:,} tokens{price}.", style="dim")


def _llm_stopped(document: Document) -> Text:
    """Return why the LLM was asked in vain; nothing where it was not."""
    reason = document.get("llm_stopped")
    if not reason:
        return Text("", end="")
    return Text(f"The LLM did not take part to the end: {excerpt(str(reason), 300)}.", style="yellow")


def next_commands(document: Document, views: Sequence[FindingView], place: str = "") -> RenderableType:
    """Return the commands that come next; `place` as in `run_summary`."""
    run = str(document["run_id"])
    steps = [("agent report " + run, "one HTML file to read and share")]
    if document.get("status") == "done" and any(view.edits for view in views):
        steps.insert(0, ("agent review " + run, "decide on the edits, one by one"))
        steps.append((f"agent export {run} -o FILE", "the debugged dataset, for TRL"))
    steps = [(f"{command}{visible(place)}", why) for command, why in steps]
    return Group(Text(""), Text("Next:", style="bold"), Commands(steps))


class Commands:
    """Commands to copy, each whole on a line of its own, with what it does beside it, or below where that is long."""

    def __init__(self, steps: Sequence[tuple[str, str]]) -> None:
        """Lay out `steps`: each a command and what it does."""
        self.steps = steps

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the commands; a line may be longer than the terminal is wide, and is not to be cut."""
        widest = max(cell_len(command) for command, _ in self.steps)
        beside = all(2 + widest + 3 + cell_len(why) <= options.max_width for _, why in self.steps)
        for command, why in self.steps:
            told = f"{set_cell_size(command, widest)}   " if beside else f"{command}\n    "
            yield Text.assemble("  ", (told, "cyan"), (why, "dim"), no_wrap=True, overflow="ignore")


def forecast_view(document: Document, limit: int = 12) -> RenderableType:
    """Return a forecast: the strongest effects of each unit, one a line."""
    concepts = document["forecast"]["concepts"]
    units = by_unit(concepts)
    parts: list[RenderableType] = [data_and_lens(document), Text("")]
    for unit, own in units.items():
        parts += [_effects(own[:limit], unit), _units(unit), Text("")]
    parts += [Text(f"note: {warning}", style="yellow") for warning in doubts(document["forecast"])]
    hidden = sum(max(len(own) - limit, 0) for own in units.values())
    parts.append(Text("? a name that did not hold on held-out texts: a hint and no more", style="dim"))
    if hidden:
        parts.append(Text(f"and {hidden} more: --json lists them all", style="dim"))
    return Group(*parts)


def _effects(concepts: Sequence[Document], unit: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    first = "concept" if unit == "responses" else "group of features"
    for name in (first, "effect", "90% interval", "rows", "verdict"):
        numeric = name in ("effect", "90% interval", "rows")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=name != first)
    for concept in concepts:
        verdict = concept["verdict"]
        table.add_row(
            Text(told_title(concept, 54)),
            Text(points(concept["effect"], unit), style="bold"),
            f"{points(concept['low'], unit)} {points(concept['high'], unit)}",
            f"{len(concept['rows'])}{'+' * (len(concept['rows']) >= ROWS_TOLD)}",
            Text(verdict.replace("_", " "), style=_VERDICT_STYLE.get(verdict, "")),
        )
    return table


def lens_fit(fit: Document) -> RenderableType:
    """Return how well a lens fits, as `agent lens check` prints it."""
    figures = {
        "variance unexplained (FVU)": f"{fit['fvu']:.3f}",
        "features per token (L0)": f"{fit['l0']:.1f}",
        "features that never fired": f"{100 * fit['dead_share']:.1f}%",
        "cross-entropy recovered": f"{fit['ce_recovered']:.3f}",
    }
    title = f"{lens_name(fit['sae'])} at {fit['hook']} of {fit['model']}: fits"
    grid = Table.grid(padding=(0, 2))
    for name, value in figures.items():
        grid.add_row(Text(name, style="dim"), Text(value, style="bold"))
    read = Text(f"on {fit['n_tokens']} response tokens of {fit['n_pairs']} pairs", style="dim")
    warnings = [Text(f"note: {excerpt(str(text), 200)}", style="yellow") for text in fit["warnings"]]
    return Group(safe(title, 120, "bold"), grid, read, *warnings)


def validation_view(document: Document, limit: int = 10) -> RenderableType:
    """Return what real training says of the forecast: how far it went, the skill, and what moved most."""
    moved, runs, training = document["movement"], document["rollouts"], document["training"]
    times = len(document.get("trainings", ())) or 1
    often = f", {times} times" if times > 1 else ""
    common = ["in common"] if times > 1 else []
    lines = [
        f"{training['pairs']} pairs trained on in {training['steps']} steps{often}; "
        f"{runs['prompts']} other prompts answered {runs['per_prompt']} times by both models",
        f"held-out pairs: margin {moved['margin']:+.2f}, right {moved['held_out_accuracy']:.0%}; "
        f"KL {moved['kl_per_token']:.3f} nats a token; "
        f"answers of {moved['length_before']:.0f} tokens before, {moved['length_after']:.0f} after",
    ]
    heads = ("of", "concepts", "R²", "90% interval", "ceiling", *common, "slope", "signs right", "covered", "swapped")
    skill = _figures_table("forecaster", *heads)
    for row in document["skill"]:
        skill.add_row(
            Text(row["forecaster"], style="bold" if row["default"] else ""),
            row["level"],
            str(row["n_concepts"]),
            _figure(row["r2"]),
            f"{_figure(row['low'])} {_figure(row['high'])}",
            _figure(row["ceiling"]),
            *(_figure(row["training_ceiling"]) for _ in common),
            _figure(row["slope"]),
            f"{_figure(row['sign_accuracy'])} of {row['n_called']}",
            _figure(row["coverage"]),
            _figure(row["null"]),
        )
    for row in document["baselines"]:
        skill.add_row(Text(row["name"], style="dim"), row["level"], "", _figure(row["r2"]))
    findings = _findings_learned(document.get("findings", ()))
    concepts = _figures_table("groups of features that moved most", "forecast", "learned", "90% interval")
    for concept in sorted(groups_learned(document), key=lambda one: -abs(one["learned"]))[:limit]:
        concepts.add_row(
            safe(concept_title(concept), 56),
            points(concept["forecast"], "tokens"),
            Text(points(concept["learned"], "tokens"), style="bold"),
            f"{points(concept['low'], 'tokens')} {points(concept['high'], 'tokens')}",
        )
    still = Text(
        "The model has hardly moved: that says nothing of a forecast. Train longer, or at a higher rate.",
        style="yellow",
    )
    notes = [] if moved["enough"] else [still, Text("")]
    notes += [Text(f"note: {excerpt(str(text), 200)}", style="yellow") for text in document["notes"]]
    why = "R² of 1 is out of reach: the ceiling is what a perfect forecast would reach on so few answers"
    told = Text(why + "; in common is what trainings with other seeds share" * bool(common), style="dim")
    return Group(*map(Text, lines), Text(""), *notes, skill, told, *findings, Text(""), concepts, _units("tokens"))


def _findings_learned(findings: Sequence[Document]) -> list[RenderableType]:
    """Return what became of each finding, strongest first; nothing where there are none."""
    table = _figures_table("findings", "forecast", "answers before", "after", "learned", "90% interval")
    for one in sorted(findings, key=lambda one: -abs(one["forecast"])):
        table.add_row(
            safe(concept_title(one), 56),
            points(one["forecast"], "responses"),
            f"{one['before']:.1%}",
            f"{one['after']:.1%}",
            Text(points(one["learned"], "responses"), style="bold"),
            f"{points(one['low'], 'responses')} {points(one['high'], 'responses')}",
        )
    return [Text(""), table, _units("responses")] if findings else []


def _figures_table(what: str, *figures: str) -> Table:
    """Return an empty table: what the figures are about on the left, the figures to the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(what)
    for name in figures:
        table.add_column(name, justify="right")
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def table_of(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], empty: str) -> RenderableType:
    """Return a plain table of `rows`; `columns` maps a key to its heading; `empty` is said when there are none."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(safe("" if row.get(key) is None else row[key], 200) for key in columns))
    return table if table.row_count else Text(empty)


def print_view(view: RenderableType, console: Console | None = None) -> None:
    """Print `view` on stdout; commands to copy may be longer than a line."""
    (console or Console(highlight=False, soft_wrap=False)).print(view, crop=False)
