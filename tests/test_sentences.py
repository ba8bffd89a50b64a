"""Sentences tile their text, and no boundary falls inside something unbreakable."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from premortem.interp.sentences import split, unbreakable, without_broken_end
from premortem.interp.words import words


def pieces(text: str) -> list[str]:
    return [text[s.start : s.end] for s in split(text)]


def cores(text: str) -> list[str]:
    return [text[s.body : s.stop] for s in split(text)]


@given(st.text() | st.text(alphabet="aB. \n1-*|#`!?\"'()😀\ud800\r", max_size=60))
@example("\ud800. A")
@example("\n \n")
@example("```\nnever closed. A")
def test_pieces_join_to_the_text(text: str) -> None:
    found = split(text)
    assert "".join(pieces(text)) == text
    assert all(s.start <= s.body <= s.stop <= s.end for s in found)
    assert all(left.end == right.start for left, right in pairwise(found))
    assert not found or (found[0].start == 0 and found[-1].end == len(text))


def test_abbreviations_decimals_and_addresses_do_not_end_a_sentence() -> None:
    text = "Dr. Smith paid $3.50 to e.g. the U.S. army. See https://a.b.com/x.Html?q=1. Then go! Yes… ok? 😀 Good."
    assert pieces(text) == [
        "Dr. Smith paid $3.50 to e.g. the U.S. army. ",
        "See https://a.b.com/x.Html?q=1. ",
        "Then go! ",
        "Yes… ok? ",
        "😀 Good.",
    ]


def test_quotes_and_emphasis_stay_whole() -> None:
    assert pieces('"He said. Then left." Next.') == ['"He said. Then left." ', "Next."]
    assert pieces("Note **Stop. Now** please. Go.") == ["Note **Stop. Now** please. ", "Go."]


def test_list_items_keep_their_marker_outside_the_body() -> None:
    text = "Steps:\n1. Open it. Then wait.\n2. Close it\n- last"
    assert cores(text) == ["Steps:", "Open it.", "Then wait.", "Close it", "last"]
    assert [s.kind for s in split(text)] == ["prose", "item", "item", "item", "item"]


@pytest.mark.parametrize("initials", ["J. K. Rowling wrote it.", "A. Smith came."])
def test_initials_are_no_list_marker(initials: str) -> None:
    assert [s.kind for s in split(initials)] == ["prose"]


def test_a_fence_and_a_table_are_one_piece() -> None:
    text = "Look. Here:\n\n```python\nx = 1. \ny('A. B')\n```\nDone.\n\n| a | b |\n|---|---|\n| 1. X | 2 |\n\nEnd."
    assert [(s.kind, text[s.start : s.stop][:4]) for s in split(text)] == [
        ("prose", "Look"),
        ("prose", "Here"),
        ("code", "```p"),
        ("prose", "Done"),
        ("table", "| a "),
        ("prose", "End."),
    ]


def test_a_wrapped_line_goes_on() -> None:
    assert pieces("A line that\ngoes on. And more\nof it.\n\nNew.") == [
        "A line that\ngoes on. ",
        "And more\nof it.\n\n",
        "New.",
    ]


def test_unbreakable_finds_links_numbers_and_code() -> None:
    text = "See [it, now](http://x.io/a,b), 1,000 or `a, b`."
    found = {text[start:end] for start, end in unbreakable(text)}
    assert {"[it, now](http://x.io/a,b)", "1,000", "`a, b`"} <= found


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("One ends. Two ends. Three breaks of", "One ends. Two ends."),
        ("One ends. Then, ", "One ends."),
        ("One ends. (Two ends.)", "One ends. (Two ends.)"),
        ("One only without an end", ""),
        ("It says:\n- a\n- b", "It says:\n- a"),
        ("Do it.\n\n1. Walk.\n2. **Drink**: Plenty of water and", "Do it.\n\n1. Walk."),
        ("## Plan\nDo it.\n\n### The second par", "## Plan\nDo it."),
        ("Like so.\n```\nx = 1\ny", "Like so."),
        ("", ""),
    ],
)
def test_what_a_limit_cut_off_goes(cut: str, whole: str) -> None:
    assert without_broken_end(cut) == whole


@pytest.mark.parametrize("text", ["ha-" * 30_000, "a\n" * 20_000, "a.b-" * 20_000])
def test_text_that_repeats_itself_is_cut_in_time_that_grows_with_its_length(text: str) -> None:
    assert "".join(text[piece.start : piece.end] for piece in split(text)) == text


def test_words_are_lower_case() -> None:
    assert words("Don't  STOP, é1!") == ["don't", "stop", "é1"]
