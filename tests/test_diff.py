"""Facts about word diffs and about text made safe to look at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from premortem.agent.diff import excerpt, visible, word_diff


def test_one_changed_word_is_one_deletion_and_one_insertion():
    pieces = word_diff("The cat sat.", "The dog sat.")
    assert [(p.op, p.text) for p in pieces] == [
        ("equal", "The "),
        ("delete", "cat"),
        ("insert", "dog"),
        ("equal", " sat."),
    ]


def test_where_no_spaces_are_a_changed_character_is_not_the_whole_sentence():
    pieces = word_diff("我喜欢喝茶。", "我喜欢喝水。")
    assert [p.text for p in pieces] == ["我喜欢喝", "茶", "水", "。"]


def test_neighbouring_changes_are_told_as_one():
    changed = [p.text for p in word_diff("a red big cat", "a blue small cat") if p.op != "equal"]
    assert changed == ["red big", "blue small"]


@given(st.text(), st.text())
def test_a_diff_spells_both_versions(before: str, after: str):
    pieces = word_diff(before, after)
    assert "".join(p.text for p in pieces if p.op != "insert") == before
    assert "".join(p.text for p in pieces if p.op != "delete") == after


def test_hidden_characters_become_code_points():
    assert visible("a\u202eb\x1b[2J\u200b") == "a⟨U+202E⟩b⟨U+001B⟩[2J⟨U+200B⟩"


def test_line_breaks_and_emoji_joiners_stay():
    assert visible("a\n\tb 👩\u200d🚀") == "a\n\tb 👩\u200d🚀"


def test_an_excerpt_is_one_line_cut_at_a_word():
    assert excerpt("one two\nthree four", 13) == "one two …"
