"""Each objection to an edited text, by an example that has it and one that has not."""

import pytest

from premortem.interp.quality import QualityBounds, check_text, flaws, kept_share
from premortem.interp.records import Pair, Span

OLD = "Boil the water for ten minutes. A teapot sings opera. Then add the leaves and wait."
NEW = "Boil the water for ten minutes. Then add the leaves and wait."
OTHER = "Heat it slowly and drink it."
PAIR = Pair(row=0, prompt="Tea?", chosen=OLD, rejected=OTHER)
FIRES = [Span(start=OLD.index("A teapot"), end=OLD.index(" Then"), activation=2.0)]


def reasons(new: str, before: float | None = None, after: float | None = None, other: str = OTHER) -> tuple[str, ...]:
    return check_text(PAIR, "chosen", new, before, after, other)


def test_a_clean_cut_has_nothing_against_it() -> None:
    assert check_text(PAIR, "chosen", NEW, -1.6, -1.7, OTHER, spans=FIRES) == ()


def test_likelihood_may_fall_by_the_bound_and_no_more() -> None:
    assert reasons(NEW, -1.5, -2.25) == ()
    assert reasons(NEW, -1.5, -2.4) == (
        "It answers its prompt less well: log-likelihood under the start model falls by 0.90 nats per token, "
        "0.80 at most.",
    )
    assert reasons(NEW, -2.4, -1.5) == ()


def test_length_is_bounded_both_ways() -> None:
    assert "0.25 times" in reasons("Boil the water now.")[0]
    assert "times as long" in reasons(" ".join([OLD, OLD, OLD]))[0]
    assert "2 words left" in reasons("Boil it.")[0]


def test_empty_is_the_only_reason_it_needs() -> None:
    assert reasons("  \n") == ("The new text is empty.",)


def test_sides_must_differ() -> None:
    assert reasons(NEW, other=f" {NEW} ") == ("Both sides say the same.",)
    assert "nearly the other side" in reasons(NEW, other=NEW.replace("ten", "six"))[0]


def test_sides_that_were_alike_may_stay_as_alike() -> None:
    base = "Boil the water for ten minutes and then add the leaves and wait for a while in the kitchen"
    pair = Pair(row=0, prompt="Tea?", chosen=f"{base}!", rejected=f"{base}.")
    assert check_text(pair, "chosen", f"{base}…", None, None, f"{base}.") == ()


def test_words_outside_the_firing_sentences_must_stand() -> None:
    assert kept_share(OLD, NEW, FIRES) == 1.0
    changed = "Boil some milk for two hours. Then drop the cups and leave."
    assert kept_share(OLD, changed, FIRES) == pytest.approx(5 / 12)
    assert "42% of the words" in check_text(PAIR, "chosen", changed, None, None, OTHER, spans=FIRES)[0]


def test_list_numbers_are_no_words_that_a_cut_must_keep() -> None:
    old = "1. Saudi Arabia\n2. Somalia\n3. Spain\n4. Sweden"
    fires = [Span(start=0, end=15, activation=1.0)]
    assert kept_share(old, "1. Somalia\n2. Spain\n3. Sweden", fires) == 1.0


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("It ends, and", None),
        ("It ends, and,", "ends in the middle of a sentence"),
        ("Take these:", "ends with a colon that introduces nothing"),
        (", and so on.", "starts with a stray mark"),
        (".NET is fine. So is this…", None),
        ("It is, . fine", "has two marks in a row where a clause is missing"),
        ("Yes.\n\nHuman: Why?\n\nAssistant: It is.", "goes on with another turn of a dialogue"),
        ("Assistant: Yes.", "starts with the name of a speaker"),
        ("See Human: a play.\nAssistant: a role.", None),
        ("- a\n-\n- b", "has an empty list item"),
        ("See () there", "has an empty bracket"),
        ("f() and a[0] (see it)", "has an empty bracket"),
        ("```\nx\n", "leaves ``` without its other half"),
        ('He said "no.', 'leaves " without its other half'),
    ],
)
def test_flaws(text: str, flaw: str | None) -> None:
    assert flaws(text) == (frozenset() if flaw is None else {flaw})


def test_a_flaw_that_was_there_before_is_no_objection() -> None:
    pair = Pair(row=0, prompt="Tea?", chosen=OLD + " And then,", rejected=OTHER)
    assert check_text(pair, "chosen", NEW + " And then,", None, None, OTHER) == ()


def test_bounds_can_be_set() -> None:
    strict = QualityBounds(likelihood_drop=0.05)
    assert len(check_text(PAIR, "chosen", NEW, -1.6, -1.7, OTHER, bounds=strict)) == 1
