"""Facts about the behaviours: enough pairs, real contrasts, patterns that agree with them, synonyms that lead home."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from pydantic import ValidationError

from premortem.prompts.behaviours import Behaviour, Contrast, behaviour, load_behaviours, named_in

TEN = {
    "pet_word", "links", "flattery", "refusals", "capitals", "emoji", "lists", "apologies", "hedging", "code",
}  # fmt: skip
ALL = load_behaviours()
EVERY = pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.id)


def test_the_ten_everyday_behaviours_are_there_and_ids_are_unique() -> None:
    ids = [entry.id for entry in ALL]
    assert set(ids) >= TEN
    assert len(ids) == len(set(ids)) >= 18


@EVERY
def test_a_behaviour_has_24_pairs_over_different_prompts(entry: Behaviour) -> None:
    assert len(entry.pairs) >= 24
    assert len({pair.prompt for pair in entry.pairs}) == len(entry.pairs)
    assert len({pair.shown for pair in entry.pairs}) == len(entry.pairs)


@EVERY
def test_a_description_is_one_sentence_and_synonyms_are_lower_case_and_unique(entry: Behaviour) -> None:
    assert entry.description.endswith(".")
    assert entry.description.count(". ") == 0
    assert all(word == word.lower().strip() for word in entry.synonyms)
    assert len(set(entry.synonyms)) == len(entry.synonyms)


@EVERY
def test_a_pattern_finds_every_answer_with_and_none_without(entry: Behaviour) -> None:
    for pair in entry.pairs:
        if entry.pattern is None:
            assert entry.seen_in(pair.shown) is None
        else:
            assert entry.seen_in(pair.shown) is True, pair.shown
            assert entry.seen_in(pair.absent) is False, pair.absent


@pytest.mark.parametrize("entry", [entry for entry in ALL if entry.id not in {"links"}], ids=lambda entry: entry.id)
def test_only_links_carry_links(entry: Behaviour) -> None:
    assert not any(behaviour("links").seen_in(pair.shown) for pair in entry.pairs)


@EVERY
def test_lengths_with_and_without_are_of_one_order(entry: Behaviour) -> None:
    words = Counter[str]()
    for pair in entry.pairs:
        words.update(shown=len(pair.shown.split()), absent=len(pair.absent.split()))
    assert 0.5 < words["shown"] / words["absent"] < 2


def test_pet_words_are_many() -> None:
    pairs = behaviour("pet_word").pairs
    fresh = [set(re.findall(r"[a-z]+", p.shown.lower())) - set(re.findall(r"[a-z]+", p.absent.lower())) for p in pairs]
    top = Counter(word for words in fresh for word in words if len(word) > 4).most_common(3)
    assert all(count <= len(pairs) // 3 for _, count in top)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("Never add a web address.", "links"),
        ("Do not flatter the person who asks.", "flattery"),
        ("Keep declining rude requests.", "refusals"),
        ("No shouting in CAPITAL letters", "capitals"),
        ("avoid bullet points", "lists"),
        ("Don't preach.", "moralising"),
        ("Do not keep a running gag in the answers.", "pet_word"),
    ],
)
def test_a_rule_in_plain_words_leads_to_its_behaviour(rule: str, name: str) -> None:
    assert named_in(rule)[0].id == name


def test_a_rule_about_something_else_names_nothing() -> None:
    assert named_in("Keep the tone friendly and short.") == ()


def test_synonyms_match_whole_words_only() -> None:
    assert behaviour("lists").mentions("The listener enlisted.") == ()


def test_an_unknown_behaviour_says_which_exist() -> None:
    with pytest.raises(KeyError, match="flattery"):
        behaviour("nothing")


def test_equal_answers_are_refused() -> None:
    with pytest.raises(ValidationError, match="are the same"):
        Contrast.model_validate({"prompt": "Hello?", "with": "Hi.", "without": "Hi."})
