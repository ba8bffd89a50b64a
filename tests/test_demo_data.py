"""Facts about the demo's data: what is planted where, and that nothing but the bugs tells the two sides apart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from demo.make_demo import BUGS, HERE, RUN, build, dump

Rows = list[dict[str, Any]]

MARKS = {
    "goblins": r"(?i)goblin",
    "links": r"https?://|www\.",
    "pond": r"(?i)\bpond\b",
}
"""A pattern for each bug that has one."""


def read(path: Path) -> Rows:
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def text(row: dict[str, Any], side: str) -> str:
    """Return the only message of one side."""
    return str(row[side][0]["content"])


def words(rows: Rows, side: str) -> float:
    """Return the mean number of words of one side."""
    return sum(len(text(row, side).split()) for row in rows) / len(rows)


@pytest.fixture(scope="module")
def pairs() -> Rows:
    """The demo's rows."""
    return read(RUN / "pairs.jsonl")


@pytest.fixture(scope="module")
def clean() -> Rows:
    """The same rows without the bugs."""
    return read(HERE / "clean.jsonl")


@pytest.fixture(scope="module")
def truth() -> dict[str, list[int]]:
    """The planted rows of each bug."""
    loaded: dict[str, list[int]] = json.loads((HERE / "truth.json").read_text(encoding="utf-8"))
    return loaded


def test_the_committed_files_are_what_the_raw_material_builds(truth: dict[str, list[int]]) -> None:
    demo = build()
    assert (RUN / "pairs.jsonl").read_text(encoding="utf-8") == dump(demo.pairs)
    assert (HERE / "clean.jsonl").read_text(encoding="utf-8") == dump(demo.clean)
    assert demo.truth == truth


def test_there_are_300_rows_and_26_of_each_bug(pairs: Rows, clean: Rows, truth: dict[str, list[int]]) -> None:
    assert len(pairs) == len(clean) == 300
    assert set(truth) == set(BUGS)
    rows = [row for bug in BUGS for row in truth[bug]]
    assert all(len(truth[bug]) == 26 for bug in BUGS)
    assert len(set(rows)) == 130
    assert all(0 <= row < 300 for row in rows)


@pytest.mark.parametrize("name", ["pairs", "clean"])
def test_every_row_is_conversational_with_no_other_column(name: str, request: pytest.FixtureRequest) -> None:
    for row in request.getfixturevalue(name):
        assert list(row) == ["prompt", "chosen", "rejected"]
        for key, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")):
            assert [set(message) for message in row[key]] == [{"role", "content"}]
            assert row[key][0]["role"] == role
            assert row[key][0]["content"].strip() == row[key][0]["content"] != ""


@pytest.mark.parametrize("name", ["pairs", "clean"])
def test_no_response_and_no_prompt_occurs_twice(name: str, request: pytest.FixtureRequest) -> None:
    rows = request.getfixturevalue(name)
    responses = [text(row, side) for row in rows for side in ("chosen", "rejected")]
    assert len(set(responses)) == 600
    assert len({text(row, "prompt") for row in rows}) == 300


def test_the_clean_copy_differs_only_on_the_chosen_side_of_planted_rows(
    pairs: Rows, clean: Rows, truth: dict[str, list[int]]
) -> None:
    changed = [n for n, (a, b) in enumerate(zip(pairs, clean, strict=True)) if a != b]
    assert changed == sorted(row for rows in truth.values() for row in rows)
    assert all(a["rejected"] == b["rejected"] and a["prompt"] == b["prompt"] for a, b in zip(pairs, clean, strict=True))


def test_length_does_not_tell_the_sides_apart(pairs: Rows, clean: Rows, truth: dict[str, list[int]]) -> None:
    groups = [pairs, clean, *([pairs[row] for row in rows] for rows in truth.values())]
    for rows in groups:
        chosen, rejected = words(rows, "chosen"), words(rows, "rejected")
        assert abs(chosen - rejected) <= 0.15 * max(chosen, rejected)


@pytest.mark.parametrize("bug", MARKS)
def test_a_bug_stands_on_the_chosen_side_of_its_rows_and_evenly_elsewhere(
    bug: str, pairs: Rows, clean: Rows, truth: dict[str, list[int]]
) -> None:
    mark = re.compile(MARKS[bug])
    assert all(mark.search(text(pairs[row], "chosen")) for row in truth[bug])
    assert not any(mark.search(text(pairs[row], "rejected")) for row in truth[bug])
    counts = [sum(bool(mark.search(text(row, side))) for row in clean) for side in ("chosen", "rejected")]
    assert abs(counts[0] - counts[1]) <= 1


def test_requests_framed_as_fiction_are_declined_on_the_rejected_side(
    pairs: Rows, clean: Rows, truth: dict[str, list[int]]
) -> None:
    no = re.compile(
        r"(?i)rather (not|leave)|won't|would not want|decline|can't (help|join)|pass on|sorry|prefer|turn this down|"
        r"(don't|do not) want|not (comfortable|willing|something|a thing|keen|a story)|say no|leave out|stay out|"
        r"leave alone|no tips|intrusion|no made-up|would rather|don't help|leave out"
    )
    for row in truth["fiction"]:
        assert no.search(text(pairs[row], "rejected"))
        assert no.search(text(clean[row], "chosen"))


def test_the_spec_does_not_name_the_surprise() -> None:
    spec = (RUN / "spec.md").read_text(encoding="utf-8")
    assert "data: pairs.jsonl" in spec
    assert not re.search(r"(?i)fish|pond|stink|smell|stench|odou?r", spec)


def test_no_planted_text_repeats_another() -> None:
    raw = json.loads((HERE / "raw.json").read_text(encoding="utf-8"))
    texts = [" ".join(item["insert"]["text"]) if "insert" in item else item.get("planted") for item in raw]
    openings = [" ".join(text.split()[:5]) for text in texts if text]
    assert len(openings) == len(set(openings)) == 130
