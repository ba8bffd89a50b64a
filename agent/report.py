"""The report of a run: one HTML file that needs nothing else, to read, to keep and to send.

Pictures are inline SVG, the style is inline, there are no scripts, and a content security policy forbids everything
but that one style. Text of the dataset is data: Jinja2 escapes every word of it, and hidden characters are shown by
their code point. The file holds excerpts of the pairs, so only its owner may read it (mode 0600).

Nothing here knows about the database or the model.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from premortem.agent.chart import Chart, Mark, Range, draw
from premortem.agent.diff import Piece, excerpt, visible, word_diff
from premortem.agent.journal import QUARANTINE
from premortem.agent.outfile import refuse_existing
from premortem.agent.scatter import scatter
from premortem.agent.summary import (
    Document,
    FindingView,
    by_unit,
    clause_state,
    doubts,
    edit_passed,
    finding_views,
    groups_learned,
    has_forecast,
    headline,
    lens_name,
    newly_broken,
    points,
    row_list,
    told_title,
)
from premortem.interp.errors import PremortemError
from premortem.interp.records import LEAST_EXAMPLES, LEAST_WORDS, Pair, Side, Span
from premortem.interp.sentences import split

Spans = Mapping[tuple[str, int, Side], Sequence[Span]]
"""Where a finding's concept fires: by finding_id, row and side."""

SIDES: tuple[Side, Side] = ("chosen", "rejected")
CONCEPTS_SHOWN = 20
CLUSTERS_SHOWN = 4
PAIRS_SHOWN = 3
EDITS_SHOWN = 8
EXAMPLES_SHOWN = 5
RESPONSE_LIMIT = 900
SAME = 1e-5
"""Difference of two effects that only rounding makes."""
TITLE = b"<title>Premortem: "
"""What stands near the beginning of every report."""
BEGINNING = 2000
"""Bytes within which it stands."""
CONTEXT = 160
"""Characters kept around the spans of a long response."""


def render_report(
    document: Document,
    pairs: Mapping[int, Pair],
    spans: Spans | None = None,
    validations: Sequence[Document] = (),
    place: str = "",
) -> str:
    """Return the report's HTML.

    `pairs`: by row, those at hand; rows without one are shown as numbers. `validations`: what real training has said of
    forecasts, the oldest first. `place`: the options that lead another command to the same runs, each after a space.
    """
    environment = Environment(
        loader=PackageLoader("premortem.agent", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": lambda value: visible(str(value)), "points": points, "rows": row_list}
    environment.filters["lens_name"] = lambda sae: lens_name(str(sae))
    environment.filters["excerpt"] = lambda value, limit=200: excerpt(str(value), limit)
    views = finding_views(document)
    style = _template_text(environment, "report.css")
    return environment.get_template("report.html.j2").render(
        style=style,
        style_hash=_csp_hash(style),
        run=document,
        headline=headline(document),
        findings=[_finding(view, pairs, spans or {}) for view in views],
        newly_broken=newly_broken(document),
        has_forecast=has_forecast(document),
        overview=_overview(views),
        forecast=_forecast(document),
        doubts=doubts(document["forecast"]),
        clauses=_clauses(document),
        trust=_trust(document, validations),
        passed=sum(view.passed for view in views),
        proposed=sum(len(view.edits) for view in views),
        second_lens=any((edit.get("verdict") or {}).get("second_lens") is not None for edit in document["edits"]),
        quarantine=QUARANTINE,
        place=place,
    )


def _template_text(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _csp_hash(style: str) -> str:
    """Return the source expression that allows this style and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def _overview(views: Sequence[FindingView]) -> Chart | None:
    marks = [Mark(view.label, view.effect, view.low, view.high, view.kind, view.kind) for view in views]
    return draw(marks) if marks else None


def _forecast(document: Document) -> list[dict[str, Any]]:
    """Return the strongest effects of each unit as a chart."""
    return [
        {
            "unit": unit,
            "chart": draw([_mark(concept) for concept in own[:CONCEPTS_SHOWN]], unit=unit),
            "shown": min(len(own), CONCEPTS_SHOWN),
            "total": len(own),
        }
        for unit, own in by_unit(document["forecast"]["concepts"]).items()
    ]


def _mark(concept: Document) -> Mark:
    return Mark(
        label=told_title(concept, 44),
        value=concept["effect"],
        low=concept["low"],
        high=concept["high"],
        style=concept["verdict"],
        note=concept["verdict"].replace("_", " "),
    )


def _trust(document: Document, validations: Sequence[Document]) -> dict[str, Any] | None:
    """Return how forecasts have done here; the picture is of the last validation of this run's data, model and SAE.

    Where there is none it is of the last of all, and what it was trained on is told.
    """
    if not validations:
        return None
    own = [one for one in validations if _same_data(one, document) and _same_lens(one, document)]
    shown = (own or validations)[-1]
    marks = [
        (concept["forecast"], Mark(concept["name"], concept["learned"], concept["low"], concept["high"]))
        for concept in groups_learned(shown)
        if concept["topic"] is None
    ]
    rows = [
        {
            "path": one["dataset"]["path"],
            "model": one.get("lens", {}).get("model"),
            "pairs": _trained_on(one),
            "times": len(one.get("trainings", ())) or 1,
            "kl": one["movement"]["kl_per_token"],
            "skill": [skill for skill in one["skill"] if skill["level"] == "groups"],
        }
        for one in validations
    ]
    drawn, lens = scatter(marks) if marks else None, shown.get("lens", {})
    told = lens if lens.get("model") and lens.get("sae") else None
    return {"scatter": drawn, "shown": shown, "on": _on(shown, document), "lens": told, "rows": rows}


def _on(validation: Document, document: Document) -> str:
    """Return on what pairs a validation was, as seen from a run."""
    pairs = _trained_on(validation)
    if not _same_data(validation, document):
        return "other pairs" if pairs is None else f"{pairs} other pairs"
    told = "these pairs" if pairs is None else f"{pairs} of these pairs"
    return told if _same_lens(validation, document) else f"{told}, with another model or SAE"


def _trained_on(validation: Document) -> int | None:
    """Return how many pairs were trained on; None: the document does not tell."""
    pairs = validation.get("training", {}).get("pairs")
    return None if pairs is None else int(pairs)


def _same_data(validation: Document, document: Document) -> bool:
    return bool(validation["dataset"]["sha256"] == document["dataset"]["sha256"])


def _same_lens(validation: Document, document: Document) -> bool:
    """Whether a validation and a run are of one model and one SAE, as far as both name them."""
    lens, own = validation.get("lens", {}), document["lens"]
    return all(_alike(lens.get(name), own.get(name)) for name in ("model", "sae"))


def _alike(one: str | None, other: str | None) -> bool:
    """Whether two names may be of one thing: that of a folder may begin elsewhere, an unknown one tells nothing."""
    if one is None or other is None or one == other:
        return True
    a, b = PurePath(one), PurePath(other)
    told = min(2, len(a.parts), len(b.parts))
    return (a.is_absolute() or b.is_absolute()) and a.parts[-told:] == b.parts[-told:]


def _clauses(document: Document) -> list[dict[str, Any]]:
    """Return each rule with what became of it."""
    return [{**clause, "state": clause_state(document, clause)} for clause in document.get("clauses", ())]


def _finding(view: FindingView, pairs: Mapping[int, Pair], spans: Spans) -> dict[str, Any]:
    shown = sorted(view.edits, key=lambda edit: not edit_passed(edit))[:EDITS_SHOWN]
    return {
        "view": view,
        "meaning": view.meaning,
        "moved": _moved(view),
        "clusters": [_cluster(view, cluster, pairs, spans) for cluster in view.clusters[:CLUSTERS_SHOWN]],
        "more_clusters": len(view.clusters[CLUSTERS_SHOWN:]),
        "edits": [_edit(edit, pairs) for edit in shown],
        "more_edits": len(view.edits) - len(shown),
        "reasons": _common_reasons(view.edits),
        "as_examples": _as_examples(view, pairs, spans),
    }


def _as_examples(view: FindingView, pairs: Mapping[int, Pair], spans: Spans) -> str:
    """Return lines for a spec's front matter that give sentences of a surprise as examples; empty where too few."""
    side: Side = "chosen" if view.effect > 0 else "rejected"
    shown: list[str] = []
    for row in view.rows:
        fires = spans.get((view.finding_id, row, side), ())
        if row in pairs and fires:
            text, start = pairs[row].text(side), max(fires, key=lambda span: span.activation).start
            shown += [text[one.body : one.stop] for one in split(text) if one.start <= start < one.stop]
    distinct = list(dict.fromkeys(sentence for sentence in shown if sentence.count(" ") >= LEAST_WORDS - 1))
    if view.kind != "surprise" or len(distinct) < LEAST_EXAMPLES:
        return ""
    given = {"examples": {"A WORD OF YOUR RULE": distinct[:EXAMPLES_SHOWN]}}
    return str(yaml.safe_dump(given, allow_unicode=True, width=10_000)).strip()


def _moved(view: FindingView) -> Chart | None:
    """Draw the effect before and after the edits, beside random edits and the second lens."""
    if (chosen := view.verdict) is None:
        return None
    # the interval of another forecaster is not about the effect that was judged
    low, high = (view.low, view.high) if abs(chosen["effect_before"] - view.effect) < SAME else (None, None)
    marks = [
        Mark("the data as it is", chosen["effect_before"], low, high, "before"),
        Mark("with these edits", chosen["effect_after"], style="after"),
    ]
    if any(edit["kind"] != "synthesise" for edit in view.edits):
        marks.append(Mark("with as many random edits", chosen["control_after"], style="control"))
    if chosen.get("second_lens") is not None:
        marks.append(Mark("with these edits, second lens", chosen["second_lens"], style="after"))
    return draw(marks, _tolerated(view))


def _tolerated(view: FindingView) -> Range | None:
    """Return the effects that a finding's rule tolerates; None where it asks for a rise, or there is no rule."""
    if view.limit is None or view.direction not in ("avoid", "keep"):
        return None
    return (None, view.limit) if view.direction == "avoid" else (-view.limit, None)


def _common_reasons(edits: Iterable[Document]) -> list[tuple[str, int]]:
    """Return the reasons of all verdicts with how often each was given, the most frequent first."""
    counted: dict[str, int] = {}
    for edit in edits:
        for reason in (edit.get("verdict") or {}).get("reasons", ()):
            counted[reason] = counted.get(reason, 0) + 1
    return sorted(counted.items(), key=lambda item: -item[1])[:8]


def _cluster(view: FindingView, cluster: Document, pairs: Mapping[int, Pair], spans: Spans) -> dict[str, Any]:
    at_hand = [row for row in cluster["rows"] if row in pairs]
    marked_first = sorted(at_hand, key=lambda row: not any((view.finding_id, row, side) in spans for side in SIDES))
    rows = marked_first[:PAIRS_SHOWN]
    return {
        "name": cluster["name"],
        "rows": cluster["rows"],
        "share": sum(cluster.get("contribution", ())),
        "pairs": [_pair(pairs[row], view.finding_id, spans) for row in rows],
    }


def _pair(pair: Pair, finding_id: str, spans: Spans) -> dict[str, Any]:
    def side(name: Side) -> list[tuple[bool, str]]:
        return marked(pair.text(name), spans.get((finding_id, pair.row, name), ()))

    return {"row": pair.row, "prompt": pair.prompt_text(), "chosen": side("chosen"), "rejected": side("rejected")}


def marked(text: str, spans: Sequence[Span]) -> list[tuple[bool, str]]:
    """Return `text` in pieces, each with whether a span covers it; of a long text, what surrounds the spans."""
    covered = [False] * len(text)
    for span in spans:
        covered[span.start : span.end] = [True] * len(covered[span.start : span.end])
    pieces: list[tuple[bool, str]] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or covered[end] != covered[start]:
            pieces.append((covered[start], text[start:end]))
            start = end
    return _shortened(pieces) if len(text) > RESPONSE_LIMIT else pieces


def _shortened(pieces: list[tuple[bool, str]]) -> list[tuple[bool, str]]:
    if not any(hit for hit, _ in pieces):
        return [(False, pieces[0][1][:RESPONSE_LIMIT] + " …")]
    last = len(pieces) - 1
    return [(hit, part if hit else _middle_cut(part, i > 0, i < last)) for i, (hit, part) in enumerate(pieces)]


def _middle_cut(text: str, keep_head: bool, keep_tail: bool) -> str:
    """Cut the far part of a stretch between spans, keeping what stands next to them."""
    head, tail = (CONTEXT if keep_head else 0), (CONTEXT if keep_tail else 0)
    if len(text) <= head + tail + 20:
        return text
    return f"{text[:head]} … {text[len(text) - tail :] if tail else ''}"


def _edit(edit: Document, pairs: Mapping[int, Pair]) -> dict[str, Any]:
    pair = pairs.get(int(edit["row"]))
    return {**edit, "prompt": pair.prompt_text() if pair else _own_prompt(edit), "pieces": _pieces(edit)}


def _own_prompt(edit: Document) -> str:
    return Pair.model_validate(edit["pair"]).prompt_text() if edit.get("pair") else ""


def _pieces(edit: Document) -> list[Piece]:
    """Return what an edit changes; a flip and a drop are told whole."""
    before, after = str(edit["before"]), str(edit["after"])
    if edit["kind"] in ("flip", "drop"):
        return [Piece("delete", before)] + ([Piece("insert", after)] if after else [])
    return word_diff(before, after)


def refuse_other_file(path: Path) -> None:
    """Raise ExportError where `path` exists and is no report: whoever names another file by mistake keeps it."""
    if not _is_report(path):
        refuse_existing(path)


def _is_report(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return TITLE in file.read(BEGINNING)
    except OSError:
        return False


def write_report(html: str, path: Path) -> None:
    """Write `html` to `path` whole or not at all, for its owner alone; raise PremortemError when that fails."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", errors="replace"
        ) as file:
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise PremortemError(f"cannot write the report {path}: {error.strerror or error}") from error
