"""Sentences tile their text, and no boundary falls inside something unbreakable."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from premortem.interp.sentences import split, unbreakable, whole_sentences
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


def test_a_sentence_that_breaks_off_is_dropped() -> None:
    assert whole_sentences("One ends. Two ends. Three breaks of") == "One ends. Two ends."
    assert whole_sentences("One ends. Then, ") == "One ends."
    assert whole_sentences("One ends. Nice 😀") == "One ends. Nice 😀"
    assert whole_sentences("One only without an end") == "One only without an end"
    assert whole_sentences("It says:\n- a\n- b") == "It says:\n- a\n- b"


def test_words_are_lower_case() -> None:
    assert words("Don't  STOP, é1!") == ["don't", "stop", "é1"]
