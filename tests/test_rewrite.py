"""Cuts, replacements and transplants keep a text whole: numbers, links, fences, quotes, lists."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from premortem.interp.clauses import clause_spans, open_marks
from premortem.interp.records import Pair, Span
from premortem.interp.rewrite import candidates, excise, replace_sentences, transplant


def spans(text: str, *parts: str) -> list[Span]:
    return [Span(start=text.index(part), end=text.index(part) + len(part), activation=2.0) for part in parts]


def cut(text: str, *parts: str) -> str | None:
    return excise(text, spans(text, *parts))


def test_a_firing_sentence_goes() -> None:
    assert cut("Paris is the capital. A teapot sings there. It is large.", "teapot") == (
        "Paris is the capital. It is large."
    )


def test_the_paragraph_break_behind_a_cut_stays() -> None:
    assert cut("Paris is old. A teapot sings.\n\nIt is large.", "teapot") == "Paris is old.\n\nIt is large."


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("Boil the water for ten minutes, just like a teapot would.", "Boil the water for ten minutes."),
        ("Boil it for ten minutes, which any teapot loves, and serve.", "Boil it for ten minutes, and serve."),
        ("You can boil the water (as a teapot would) at home.", "You can boil the water at home."),
        ("Honestly, dear teapot, you can boil the water at home.", None),
        ("If you own a teapot, boil the water for ten minutes.", "Boil the water for ten minutes."),
        ("The water boils at 100 degrees — ask a teapot.", "The water boils at 100 degrees."),
        ("We need apples, pears, and a teapot of fine tea.", None),
        ("Either you boil the water at home, or you ask a teapot for it.", None),
        ("You know that, as a teapot would, you can boil it.", "You know that you can boil it."),
        ("If you like it hot, the teapot will help you a lot.", None),
        ("It costs 1,000 or 2,000 in any teapot shop.", None),
    ],
)
def test_a_clause_goes_alone_only_where_the_rest_can_stand(text: str, after: str | None) -> None:
    assert cut(text, "teapot") == after


def test_emoji_go_without_their_sentence() -> None:
    text = "Great work on this essay! 🎉🎉 Keep going with the rest 😀 today."
    assert cut(text, "🎉🎉", "😀") == "Great work on this essay! Keep going with the rest today."


def test_list_numbers_close_up_and_markers_stay() -> None:
    text = "Steps:\n1. A teapot. Open it.\n2. The teapot sings.\n3. Close it now please."
    assert cut(text, "A teapot", "teapot sings") == "Steps:\n1. Open it.\n2. Close it now please."


def test_a_list_number_in_prose_is_left_alone() -> None:
    text = "The firm was founded in 2012. It did this:\n\n1. A teapot.\n2. It sold cars to us.\n3. It closed for good."
    assert cut(text, "A teapot") == (
        "The firm was founded in 2012. It did this:\n\n1. It sold cars to us.\n2. It closed for good."
    )


def test_what_introduced_only_the_cut_goes_too() -> None:
    assert cut("Do it so. My list:\n- a teapot\n\nThat is all there is.", "a teapot") == (
        "Do it so.\n\nThat is all there is."
    )
    assert cut("Do it so.\n\n# Teapots\nA teapot sings.\n\n# End\nThat is all.", "A teapot") == (
        "Do it so.\n\n# End\nThat is all."
    )


def test_an_orphaned_connective_goes() -> None:
    assert cut("A teapot is nice. However, the water must boil.", "teapot") == "The water must boil."
    assert cut("A teapot is nice. So far it has been a good day.", "teapot") == "So far it has been a good day."


def test_a_quotation_keeps_both_its_marks() -> None:
    text = "“The water has to boil for at least ten minutes, as all of us know. A teapot sings.”"
    assert cut(text, "teapot") == "“The water has to boil for at least ten minutes, as all of us know.”"


def test_code_goes_whole_or_not_at_all() -> None:
    text = "This is how it is done by most of us.\n\n```python\nteapot()\nboil()\n```\n\nThe rest is up to you."
    assert cut(text, "teapot()") == "This is how it is done by most of us.\n\nThe rest is up to you."


def test_a_text_that_fires_as_a_whole_cannot_be_cut() -> None:
    assert cut("A teapot sings.", "teapot") is None
    assert cut("A teapot sings. A kettle cries.", "A teapot sings. A kettle") is None
    assert cut("One sings a very long song about teapots. Yes.", "teapots") is None
    assert excise("Nothing fires here at all.", []) is None


TEXTS = st.text() | st.lists(
    st.sampled_from(
        ["A teapot sings. ", "1. Open, which is nice.\n", "- b\n", "```\nx. y\n```\n", "\n\n", "However, it ends. ",
         '"Go. ', 'Now." ', "(see it) ", "# Head\n", "https://a.b/c.d ", "1,000.5 ", "| a | b |\n", "😀 ",
         "**b** ", "So: "]
    ),
    max_size=9,
).map("".join)  # fmt: skip


@given(TEXTS, st.data())
def test_a_cut_never_fails_lengthens_or_breaks(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    fires = [Span(start=start, end=data.draw(st.integers(start, len(text) + 3)), activation=1.0)]
    for after in (excise(text, fires), excise(text, fires, whole=True)):
        assert after is None or (after.strip() and len(after) < len(text) and open_marks(after) <= open_marks(text))


@given(TEXTS, TEXTS, st.data())
def test_swaps_and_transplants_never_fail(text: str, other: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    fires = [Span(start=start, end=data.draw(st.integers(start, len(text))), activation=1.0)]
    swapped, grown = replace_sentences(text, fires, other), transplant(text, fires, other)
    assert swapped is None or swapped.strip()
    assert grown is None or len(grown) > len(other)


@given(TEXTS)
def test_clauses_are_in_order_and_hold_every_word(text: str) -> None:
    found = clause_spans(text)
    assert all(a < b for a, b in found) and found == sorted(found)
    assert all(left[1] <= right[0] for left, right in pairwise(found))


def test_clause_spans_tell_aside_from_sentence() -> None:
    text = "Boil it (as I do), if you can. Serve."
    assert [text[a:b] for a, b in clause_spans(text)] == ["Boil it", " (as I do)", ", ", "if you can.", "Serve."]


def test_the_nearest_sentence_of_the_other_text_steps_in() -> None:
    text = "Boil the water first. A teapot sings of it. Then add the leaves."
    other = "Here is how. Let the water boil for a while. Boil the water first. Drink it."
    assert replace_sentences(text, spans(text, "teapot"), other) == (
        "Boil the water first. Let the water boil for a while. Then add the leaves."
    )


def test_an_item_steps_in_without_its_own_marker() -> None:
    text = "Steps:\n1. Boil the water.\n2. Ask the teapot.\n3. Drink it."
    assert replace_sentences(text, spans(text, "teapot"), "To make tea:\n- Boil water.\n- Add the leaves\n- Drink") == (
        "Steps:\n1. Boil the water.\n2. Add the leaves.\n3. Drink it."
    )


def test_nothing_steps_in_for_a_whole_text() -> None:
    assert replace_sentences("A teapot sings.", spans("A teapot sings.", "teapot"), "Boil the water.") is None


def test_a_transplant_lands_at_the_same_place() -> None:
    other = "Heat the water. Put leaves in it. Wait."
    middle = "Boil the water first. My teapot sings opera. Then add the leaves."
    assert transplant(middle, spans(middle, "teapot"), other) == (
        "Heat the water. My teapot sings opera. Put leaves in it. Wait."
    )
    last = "Boil the water first. Then add leaves.\n\nMy teapot sings opera."
    assert transplant(last, spans(last, "teapot"), other) == f"{other}\n\nMy teapot sings opera."
    first = "My teapot sings. Boil the water first. Then add the leaves."
    assert transplant(first, spans(first, "teapot"), other) == f"My teapot sings. {other}"


def test_a_transplant_needs_something_else_to_be_there() -> None:
    assert transplant("A teapot sings.", spans("A teapot sings.", "teapot"), "Wait.") is None
    text = "Boil the water first. A teapot sings."
    assert transplant(text, spans(text, "teapot"), "A teapot sings. Wait.") is None


def test_candidates_come_least_change_first_and_without_repeats() -> None:
    pair = Pair(
        row=0,
        prompt="Tea?",
        chosen="Boil the water for ten minutes, like a teapot. Then add the leaves and wait for a while.",
        rejected="Heat it up slowly. Drink it.",
    )
    found = candidates(
        pair,
        "chosen",
        spans(pair.text("chosen"), "teapot"),
        spans(pair.text("chosen"), "teapot"),
        ["Steep the leaves well."],
    )
    assert [(c.kind, c.side, c.text) for c in found] == [
        ("rewrite", "chosen", "Boil the water for ten minutes. Then add the leaves and wait for a while."),
        ("rewrite", "chosen", "Then add the leaves and wait for a while."),
        ("rewrite", "chosen", "Heat it up slowly. Then add the leaves and wait for a while."),
        ("rewrite", "chosen", "Steep the leaves well. Then add the leaves and wait for a while."),
        ("rewrite", "chosen", "Steep the leaves well."),
        ("neutralise", "rejected", "Boil the water for ten minutes, like a teapot. Heat it up slowly. Drink it."),
        ("synthesise", None, "Steep the leaves well."),
        ("synthesise", None, "Heat it up slowly. Drink it."),
        ("flip", None, "Heat it up slowly. Drink it."),
        ("drop", None, ""),
    ]


@pytest.mark.parametrize(
    ("text", "part", "after"),
    [
        (
            "```\n2. code two\n```\n1. Alpha is here.\n2. Beta is here.\n3. Gamma is here.",
            "Alpha",
            "```\n2. code two\n```\n1. Beta is here.\n2. Gamma is here.",
        ),
        (
            "1. Alpha is here. It sings.\n2. Beta is here.\n3. Gamma is here.",
            "Beta",
            "1. Alpha is here. It sings.\n2. Gamma is here.",
        ),
        (
            "1. Alpha is here. It sings.\n2. Beta is here. It is old.\n3. Gamma is here.",
            "Beta",
            "1. Alpha is here. It sings.\n2. It is old.\n3. Gamma is here.",
        ),
    ],
)
def test_only_the_items_of_the_list_get_new_numbers(text: str, part: str, after: str) -> None:
    assert cut(text, part) == after


@pytest.mark.parametrize(
    ("text", "parts", "after"),
    [
        (
            "Here is what to do:\n- First, for links:\n  - see the one\n  - see the other\n- Second, sleep a lot.",
            ("see the one", "see the other"),
            "Here is what to do:\n- Second, sleep a lot.",
        ),
        (
            "Here is what to do:\n- First, for links:\n  - see the one\n  - see the other\n- Second, sleep a lot.",
            ("see the one",),
            "Here is what to do:\n- First, for links:\n  - see the other\n- Second, sleep a lot.",
        ),
        (
            "All in all.\n\n**Links**\n\nSee the teapot.\n\n**Summary**\n\nIt is done.",
            ("See the teapot.",),
            "All in all.\n\n**Summary**\n\nIt is done.",
        ),
        (
            "## Tea\n\n**Links**\n\nSee the teapot.\n\n## Summary\n\nIt is done.",
            ("See the teapot.",),
            "## Summary\n\nIt is done.",
        ),
        (
            "Note **this**.\n\nSee the teapot.\n\n**Summary**\n\nIt is done.",
            ("See the teapot.",),
            "Note **this**.\n\n**Summary**\n\nIt is done.",
        ),
    ],
)
def test_what_introduced_only_what_is_gone_goes_too(text: str, parts: tuple[str, ...], after: str) -> None:
    assert cut(text, *parts) == after


def test_a_fresh_answer_begins_as_the_old_one_did() -> None:
    pair = Pair(row=0, prompt="\n\nHuman: hi\n\nAssistant:", chosen=" A teapot sings here.", rejected=" It is old.")
    fires = spans(pair.text("chosen"), "A teapot sings here.")
    found = candidates(pair, "chosen", fires, fires, ["Hello to you. "])
    assert {c.text for c in found if c.how.startswith(("answered anew", "a counter-pair prefers a fresh"))} == {
        " Hello to you."
    }


def test_a_sentence_is_cut_by_its_clauses_and_goes_whole_where_that_is_asked() -> None:
    pair = Pair(
        row=0,
        prompt="Tea?",
        chosen="Boil the water for ten minutes, like a teapot. Then add the leaves and wait.",
        rejected="No.",
    )
    text = pair.text("chosen")
    sentence, clause = spans(text, "Boil the water for ten minutes, like a teapot."), spans(text, "like a teapot")
    cuts = [c.text for c in candidates(pair, "chosen", sentence, clause) if "taken out" in c.how]
    assert cuts == [
        "Boil the water for ten minutes. Then add the leaves and wait.",
        "Then add the leaves and wait.",
    ]
