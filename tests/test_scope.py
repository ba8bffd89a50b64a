"""Which prompts a rule leaves out by its own condition, and what becomes of their pairs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from premortem.agent.spec import parse_spec
from premortem.interp.forecast import name_readout, without_prompts
from premortem.interp.readout import Part, Readout
from premortem.interp.records import Clause
from premortem.interp.scope import exempt, exempting_words
from premortem.interp.sides import Edited
from premortem.interp.verify import Where, effect_of
from premortem.tools.findings import measured
from premortem.tools.workbench import Workbench
from test_forecast import LIKED, N, reading

PROMPTS = [
    "Write me a poem about the sea.",
    "Which trains go to Kiel?",
    "I like poetry and sonnets, tell me of one.",
    "How much sugar is in a lemon?",
    "Count the calories of a lemon for me.",
    *(f"What is the capital of country {n}?" for n in range(15)),
]


def only_clause(rule: str) -> Clause:
    (clause,) = parse_spec(f"- {rule}\n").clauses
    return clause


@pytest.mark.parametrize(
    ("rule", "words", "rows"),
    [
        ("Never bring up calories when nobody asked about them.", ("calories",), {4}),
        ("Do not mention calories unless the user asks.", ("calories",), {4}),
        ("Do not bring up calories out of nowhere.", ("calories",), {4}),
        ("Never answer in rhyme, except in poems or sonnets.", ("poems", "sonnets"), {0, 2}),
        ("Never bring up calories without being asked.", ("calories",), {4}),
        ("No calories without an explicit request.", ("calories",), {4}),
        ("Do not name calories without somebody asking for them.", ("calories",), {4}),
        ("Do not name calories without permission.", (), set()),
        ("Never name calories without asking what for.", (), set()),
        ("Do not bring up news unless the user asks about it.", (), set()),
        (
            "Never rhyme, except in answers on trains, poems or sonnets, it grates.",
            ("trains", "poems", "sonnets"),
            {0, 1, 2},
        ),
        ("No rhymes unless the person asks for a poem.", ("poem",), {0}),
        ("No rhymes unless a poem is asked for.", ("poem",), {0}),
        ("Do not name a lemon in answers.", (), set()),
        ("Avoid warnings when the question is about lemons.", (), set()),
        ("No rhymes unless the editor has approved of a poem.", (), set()),
        ("Always name the calories without being asked.", (), set()),
    ],
)
def test_a_prompt_that_asks_for_it_is_left_out(rule: str, words: tuple[str, ...], rows: set[int]) -> None:
    found = exempting_words(only_clause(rule), PROMPTS)
    assert (found, set(np.flatnonzero(exempt(found, PROMPTS)))) == (words, rows)


def test_a_word_that_stands_in_many_prompts_tells_nothing_and_neither_does_one_in_none() -> None:
    assert exempting_words(only_clause("No capitals unless the user asks for them."), PROMPTS) == ()
    assert exempting_words(only_clause("No rhymes unless the person asks for a ballad."), PROMPTS) == ()


def test_a_word_is_found_in_its_other_forms_and_not_inside_others() -> None:
    told = exempt(["poems", "story"], ["two poems", "the Poem?", "my stories", "storyboard", "poematic"])
    assert told.tolist() == [True, True, True, False, False]
    assert (
        exempt(["news", "showers"], ["Is it new?", "Show me", "the news", "a shower"]).tolist()
        == [False] * 2 + [True] * 2
    )
    assert exempt(["hot drinks"], ["hot weather", "drinks", "a drink that is hot"]).tolist() == [False, False, True]


def test_what_is_named_in_two_words_is_looked_for_as_both() -> None:
    prompts = ["Write code for me.", "Explain comments in code.", *PROMPTS]
    assert exempting_words(only_clause("No code comments unless requested."), prompts) == ("code comments",)


def bench(exempt_rows: tuple[int, ...]) -> tuple[Any, Clause]:
    """Return a bench whose pairs show one concept in every second of the first 40 rows, and a rule against it."""
    read = reading()
    named = name_readout(read, Readout(Part(tuple(LIKED), (1.0,) * 3), Part(), 3.0), "group")
    clause = only_clause("Never talk of lemons.").model_copy(update={"exempt_rows": exempt_rows})
    made: Any = SimpleNamespace(by_example={}, reading=read, concept=lambda _: named)
    for name in ("asked_for", "held_to"):
        setattr(made, name, getattr(Workbench, name).__get__(made))
    return made, clause


def test_left_out_pairs_are_neither_rows_nor_part_of_the_share() -> None:
    everything, rule = bench(())
    whole = measured(everything, everything.reading, "c", "mean-difference", rule)
    some, rule = bench(tuple(range(10)))
    held = measured(some, some.reading, "c", "mean-difference", rule)
    assert whole is not None and set(whole.rows) >= set(range(0, 40, 2))
    assert held is not None and set(held.rows) == set(whole.rows) - set(range(10))
    readout = some.concept("c").readout
    fires = some.reading.responses.fires(readout).astype(int)
    assert held.effect == pytest.approx((fires[:N] - fires[N:])[10:].mean(), abs=1e-6)


def test_a_rule_that_leaves_out_all_that_shows_it_is_kept() -> None:
    some, rule = bench(tuple(range(40)))
    assert measured(some, some.reading, "c", "mean-difference", rule) is None
    none_left, rule = bench(tuple(range(N)))
    assert measured(none_left, none_left.reading, "c", "mean-difference", rule) is None


def test_edited_data_are_read_without_the_same_prompts() -> None:
    some, rule = bench(tuple(range(20)))
    kept = np.arange(10, N)
    after = without_prompts(
        some.reading.__class__(
            "lens", some.reading.pairs[10:], Edited(some.reading.whole, kept, None), some.reading.vocabulary, ()
        ),
        some.asked_for(rule),
    )
    assert [pair.row for pair in after.pairs] == list(range(20, N))
    assert np.array_equal(after.responses.prompts, np.arange(20, N))
    readout = some.concept("c").readout
    for same in (lambda s: s.fires(readout), lambda s: s.amounts([readout])[:, 0], lambda s: s.lengths):
        chosen, rejected = some.reading.responses.both(same(some.reading.responses))
        assert np.array_equal(same(after.responses), np.concatenate([chosen[20:], rejected[20:]]))


def test_edits_are_judged_on_the_pairs_that_the_rule_is_about() -> None:
    some, rule = bench(tuple(range(20)))
    readout, sides = some.concept("c").readout, some.reading.responses
    left = Where(left_out=some.asked_for(rule))
    assert left.marks(sides).tolist() == [row >= 20 for row in range(N)]
    assert effect_of(readout, sides, left).effect < effect_of(readout, sides).effect
    both = Where(np.arange(30), some.asked_for(rule))
    assert np.flatnonzero(both.marks(sides)).tolist() == list(range(20, 30))
