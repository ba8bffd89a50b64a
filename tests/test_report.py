"""Facts about the report: complete, self-contained, private, and safe against the text it shows."""

from __future__ import annotations

import io
import os
import re
import stat
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from premortem.agent.chart import LEFT, RIGHT, Mark, Range, draw, nice_step, scale
from premortem.agent.report import _alike, marked, refuse_other_file, render_report, write_report
from premortem.agent.scatter import scatter
from premortem.agent.show import run_summary
from premortem.agent.spec import parse_spec
from premortem.interp.errors import ExportError, PremortemError
from premortem.interp.records import Span
from run_document import HOSTILE, document, pairs

SPANS = {("f000000000000001", row, "chosen"): [Span(start=18, end=39, activation=1.0)] for row in range(4)}


class Tags(HTMLParser):
    """Collects every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def test_the_report_tells_findings_rules_rows_and_edits():
    html = render_report(document(), pairs(), SPANS)
    assert "Never talk like a sailor." in html
    assert "+50.0" in html
    assert "<mark>Ahoy, my dear sailor!</mark>" in html
    assert "<del>" in html
    assert "2 edits passed together" in html
    assert "no concept covers it" in html
    assert "Two pairs say the same." in html
    assert "0.183" in html


def test_each_finding_tells_how_its_name_did_on_held_out_passages():
    run = document()
    run["forecast"]["concepts"][1]["name_score"] = 0.5
    rule, surprise = render_report(run, pairs(), SPANS).split("<h3>")[1:]
    title, told = rule.split("The lens sees it as the concept “ahoy, sailor ”. ")[:2]
    assert "in 88% of comparisons it tells one that shows the concept from one that does not" in told
    assert "in 50% of comparisons" in surprise and "comparisons" not in title
    for effect in run["forecast"]["concepts"]:
        effect.pop("name_score")
    assert "comparisons" not in render_report(run, pairs(), SPANS)


def test_hostile_text_adds_no_tag_and_no_attribute():
    plain = parsed(render_report(document(), pairs(), SPANS))
    page = render_report(document(HOSTILE), pairs(HOSTILE), SPANS)
    hostile = parsed(page)
    assert set(hostile.tags) <= {*plain.tags, "ins", "del"}
    assert "script" not in hostile.tags and "img" not in hostile.tags
    assert not [name for name, _ in hostile.attributes if name.startswith("on") or name == "style"]
    assert "<script" not in page and "</script" not in page


def test_hidden_characters_are_shown_by_code_point():
    page = render_report(document(HOSTILE), pairs(HOSTILE), SPANS)
    assert "\u202e" not in page and "\u2066" not in page and "\x1b" not in page
    assert "⟨U+202E⟩" in page


def test_nothing_is_loaded_from_anywhere():
    tags = parsed(render_report(document(), pairs(), SPANS))
    assert not [value for name, value in tags.attributes if name in ("src", "href", "srcset", "action")]
    policy = dict(
        tags.attributes[i : i + 2] for i, (n, v) in enumerate(tags.attributes) if v == "Content-Security-Policy"
    )
    assert "default-src 'none'" in str(policy)


def test_pairs_that_are_gone_leave_a_report_without_excerpts():
    html = render_report(document(), {}, {})
    assert "Rows, most responsible first: 2, 0, 1" in html


def test_sentences_of_a_surprise_are_given_as_examples_that_a_spec_takes():
    run = document()
    run["findings"][1] |= {"effect": 0.3, "rows": [0, 1, 2, 3]}
    said = [
        f"Plant peas. My dear \u201csailor\u201d: <b>{name}</b> says 'ahoy'! Then rest." for name in ("Ann", "Bo", "Cy")
    ]
    own = {
        row: pair.model_copy(update={"chosen": text}) for (row, pair), text in zip(pairs().items(), said, strict=False)
    }
    fires = {("f000000000000002", row, "chosen"): [Span(start=20, end=30, activation=1.0)] for row in own}
    page = render_report(run, own, fires)
    shown = unescape(re.search(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)[1])  # type: ignore[index]
    spec = parse_spec(f"{shown}\n- Nobody is A WORD OF YOUR RULE.\n")
    assert spec.clauses[0].examples == tuple(text[12:-11] for text in said)
    assert "<pre" not in render_report(run, own, dict(list(fires.items())[:2]))  # two are too few
    listed = {
        row: pair.model_copy(update={"chosen": f"- Dig it up, {row} times.\n- Rest."}) for row, pair in own.items()
    }
    items = {place: [Span(start=0, end=9, activation=1.0)] for place in fires}
    assert "Dig it up, 2 times." in render_report(run, listed, items).split("<pre")[1]
    run["findings"][1] |= {"kind": "forbidden"}
    assert "<pre" not in render_report(run, own, fires)


def test_a_run_without_findings_says_so():
    empty = {**document(), "findings": [], "edits": [], "clusters": []}
    assert "Nothing in these 4 pairs would teach what the spec forbids" in render_report(empty, pairs())


def test_a_run_that_stopped_early_still_has_a_report():
    stopped = document() | {"status": "interrupted", "findings": [], "edits": [], "clusters": [], "clauses": []}
    stopped["forecast"] = {"forecaster": "disparity", "n_pairs": None, "concepts": []}
    stopped["dataset"] = dict.fromkeys(("path", "pairs", "quarantined", "sha256", "form"), None) | {"notes": []}
    stopped["lens"] = dict.fromkeys(("model", "hook", "sae", "fvu", "l0"), None)
    page = render_report(stopped, {})
    assert "No forecast yet" in page and "The run has not read its data yet." in page
    assert "None" not in page and "Nothing unusual" not in page and "No rule was read" not in page
    console = Console(file=io.StringIO(), width=120)
    console.print(run_summary(stopped))
    assert "No edits" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_only_the_owner_may_read_the_file(tmp_path: Path):
    former = os.umask(0)
    try:
        write_report("<p>x</p>", tmp_path / "new" / "report.html")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "new" / "report.html").stat().st_mode) == 0o600


def test_a_report_replaces_an_earlier_one_and_nothing_else(tmp_path: Path):
    report, spec, page, nowhere = (tmp_path / name for name in ("report.html", "spec.md", "page.html", "nowhere"))
    refuse_other_file(report)
    write_report(render_report(document(), pairs()), report)
    refuse_other_file(report)
    spec.write_text("- No flattery.\n")
    page.write_text("<!doctype html>\n<title>Mine</title>\n")
    nowhere.symlink_to(tmp_path / "gone")
    for other in (spec, page, nowhere, tmp_path):
        with pytest.raises(ExportError, match="exists already and is not overwritten"):
            refuse_other_file(other)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PremortemError, match="No space left"):
        write_report("new", target)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text() == "old"


def test_lone_surrogates_do_not_stop_the_report(tmp_path: Path):
    broken = document()
    broken["findings"][0]["name"] = "a\ud800b"
    write_report(render_report(broken, pairs()), tmp_path / "r.html")
    assert "⟨U+D800⟩" in (tmp_path / "r.html").read_text()


def test_spans_cut_a_text_into_marked_and_plain_pieces():
    assert marked("abcdef", [Span(start=2, end=4, activation=1.0)]) == [(False, "ab"), (True, "cd"), (False, "ef")]


def test_a_long_text_keeps_what_surrounds_its_spans():
    text = "x" * 2000 + "HERE" + "y" * 2000
    pieces = marked(text, [Span(start=2000, end=2004, activation=1.0)])
    assert (True, "HERE") in pieces
    assert sum(len(part) for _, part in pieces) < 600


def test_a_chart_holds_every_whisker_and_zero():
    chart = draw([Mark("a", 0.5, 0.4, 0.6), Mark("b", -0.1, -0.2, 0.0)], tolerated=(-0.02, 0.02))
    places = [bar.low_x for bar in chart.bars] + [bar.high_x for bar in chart.bars] + [chart.zero]
    assert all(chart.left <= place <= chart.right for place in places if place is not None)
    assert chart.bars[0].x == chart.zero
    assert chart.bars[1].x + chart.bars[1].width == pytest.approx(chart.zero, abs=0.02)


@pytest.mark.parametrize(
    "tolerated, left, right", [((None, 0.01), LEFT, None), ((-0.01, None), None, RIGHT), ((-0.01, 0.01), None, None)]
)
def test_the_band_ends_where_the_rule_does(tolerated: Range, left: float | None, right: float | None):
    chart = draw([Mark("with these edits", -0.12), Mark("the data as it is", 0.3)], tolerated)
    assert chart.band is not None
    begin, end = chart.band[0], chart.band[0] + chart.band[1]
    assert begin == left if left is not None else LEFT < begin < chart.zero
    assert end == pytest.approx(right) if right is not None else chart.zero < end < RIGHT


def test_a_chart_of_nothing_but_zero_can_be_drawn():
    low, high, step = scale([Mark("a", 0.0)])
    assert low <= 0 < high and step > 0


@pytest.mark.parametrize(("raw", "step"), [(0.013, 0.02), (0.1, 0.1), (0.3, 0.5), (0.07, 0.1)])
def test_grid_steps_are_round(raw: float, step: float):
    assert nice_step(raw) == pytest.approx(step)


def validation(sha256: str, enough: bool = True) -> dict:
    """Return the document of a validation of three concepts, one of them named with hostile text."""
    skill = {"level": "groups", "forecaster": "mean-difference", "default": True, "ceiling": 0.84, "slope": 0.5}
    skill |= {"r2": 0.61 if enough else None, "sign_accuracy": 0.9, "coverage": None}
    forecasts = (0.1, -0.05, 0.0)
    concepts = [
        {"name": HOSTILE, "forecast": value, "learned": value / 2, "low": value / 2 - 0.02, "high": value / 2 + 0.02}
        | {"topic": topic}
        for topic in (None, "trains")
        for value in forecasts
    ]
    return {
        "dataset": {"path": f"{sha256}.jsonl", "sha256": sha256},
        "movement": {"kl_per_token": 0.123, "enough": enough},
        "skill": [skill, {**skill, "level": "features", "r2": 0.77}],
        "concepts": concepts,
    }


def test_a_report_tells_how_forecasts_have_done():
    own = document()["dataset"]["sha256"]
    html = render_report(document(), pairs(), validations=[validation(own), validation("other")])
    assert "Real DPO on these pairs" in html
    assert html.count("<circle") == 3
    assert "0.61" in html and "0.84" in html and "0.77" not in html
    assert "other.jsonl" in html
    assert "<script>" not in html


def of_lens(one: dict, model: str, sae: str, n_pairs: int) -> dict:
    """Return a validation with the model and SAE that it was of, and the pairs that it was trained on."""
    skill = [{**row, "n_called": 12} for row in one["skill"]]
    return one | {"lens": {"model": model, "sae": sae}, "training": {"pairs": n_pairs}, "skill": skill}


def test_a_report_shows_the_validation_of_its_own_model_and_tells_all_apart():
    run = document()
    run["lens"] |= {"model": "models/mine", "sae": "/a/lenses/mine-12"}
    own = of_lens(validation(run["dataset"]["sha256"]), "/elsewhere/models/mine", "/b/lenses/mine-12", 240)
    other = of_lens(validation(run["dataset"]["sha256"]), "org/theirs", "theirs:layer_12", 300)
    html = render_report(run, pairs(), validations=[own, other])
    assert "Real DPO on 240 of these pairs, <code>" in html
    assert "<code>mine</code> read through <code>mine-12</code>" in html
    assert ", mine, 240 pairs</td>" in html and ", org/theirs, 300 pairs</td>" in html
    assert ">0.90 of 12</td>" in html
    html = render_report(run, pairs(), validations=[other])
    assert "Real DPO on 300 of these pairs, with another model or SAE, <code>" in html
    assert "<code>org/theirs</code> read through <code>theirs:layer_12</code>" in html
    html = render_report(run, pairs(), validations=[of_lens(validation("other"), "models/mine", "mine-12", 9)])
    assert "Real DPO on 9 other pairs, <code>other.jsonl</code>" in html


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("smollm2", "smollm2", True),
        ("mine", "/home/me/mine", True),
        ("/a/lenses/main", "/b/lenses/main", True),
        ("/a/lenses/main", "/a/lenses/second", False),
        ("org/name", "/home/me/name", False),
        ("release:layer_12/width_16k/canonical", "release:layer_20/width_16k/canonical", False),
        (None, "smollm2", True),
    ],
)
def test_a_folder_is_known_by_the_end_of_its_path_and_a_hub_id_by_the_whole(one: str, other: str, alike: bool):
    assert _alike(one, other) == _alike(other, one) == alike


def test_a_report_tells_what_became_of_the_findings():
    learned = {"name": HOSTILE, "topic": None, "forecast": 0.4, "before": 0.011, "after": 0.262, "learned": 0.251}
    learned |= {"low": 0.2, "high": 0.302}
    html = render_report(document(), pairs(), validations=[validation("other") | {"findings": [learned]}])
    assert "What became of the findings" in html
    for figure in ("+40.0", "1.1", "26.2", "+25.1", "+20.0 +30.2"):
        assert f">{figure}<" in html
    assert "<script>" not in html
    assert "What became" not in render_report(document(), pairs(), validations=[validation("other")])


def test_what_hardly_moved_is_not_held_against_the_forecast():
    html = render_report(document(), pairs(), validations=[validation("other", enough=False)])
    assert "Real DPO on other pairs" in html
    assert "hardly moved the model, so this says nothing" in html
    assert "0.61" not in html


def test_without_a_validation_a_report_does_not_speak_of_any():
    assert "How forecasts have done" not in render_report(document(), pairs())


def test_a_scatter_plot_holds_every_dot_and_both_zeros():
    plot = scatter([(0.3, Mark("a", 0.2, 0.1, 0.3)), (-0.1, Mark("b", -0.05, -0.1, 0.0))])
    inside = (plot.margin, plot.side - plot.margin)
    for dot in plot.dots:
        assert all(inside[0] <= place <= inside[1] for place in (dot.x, dot.y, dot.low_y, dot.high_y))
        assert dot.high_y < dot.y < dot.low_y
    right, left = plot.dots
    assert left.x < plot.zero_x < right.x
    assert right.y < plot.zero_y < left.y
