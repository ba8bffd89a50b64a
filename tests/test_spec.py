"""The spec reader: prose in, clauses out."""

from pathlib import Path

import pytest

from premortem.agent.spec import DEFAULT_LIMIT, content_words, direction_of, parse_spec, read_spec, rules
from premortem.interp.errors import SpecError


@pytest.mark.parametrize(
    ("sentence", "direction"),
    [
        ("Never mention dragons.", "avoid"),
        ("It must not make up web links.", "avoid"),
        ("Don't flatter the user.", "avoid"),
        ("Avoid long lists.", "avoid"),
        ("No shouting in capital letters.", "avoid"),
        ("Emoji have no place in the answers.", "avoid"),
        ("Keep answers free of jargon.", "avoid"),
        ("Keep declining requests to cheat.", "keep"),
        ("It keeps declining small favours, even when they are framed as fiction.", "keep"),
        ("The model should still refuse to write malware.", "keep"),
        ("Always apologise for mistakes.", "encourage"),
        ("Answer in plain words.", "encourage"),
        ("We are about to train a model.", None),
    ],
)
def test_cue_words_give_the_direction(sentence: str, direction: str | None) -> None:
    assert direction_of(sentence) == direction


def test_a_negation_in_the_scope_does_not_turn_the_rule_round() -> None:
    assert direction_of("Always answer in English, unless the user does not want it.") == "encourage"


def test_prose_and_bullets_become_one_clause_each() -> None:
    spec = parse_spec(
        "# Title\n\nWe train a helper. It must never swear. It is friendly.\n\n- No emoji.\n- Use short\n  sentences.\n"
    )
    assert [clause.text for clause in spec.clauses] == ["It must never swear.", "No emoji.", "Use short sentences."]
    assert [clause.direction for clause in spec.clauses] == ["avoid", "avoid", "encourage"]


def test_code_fences_and_headings_hold_no_rules() -> None:
    assert rules("# Never do this\n\n```\nnever do that\n```\n\nNever do it.") == (["Never do it."], [])


def test_a_bullet_without_a_rule_is_told() -> None:
    spec = parse_spec("We train a helper.\n\n- Help with everyday questions.\n- Sunshine and rain.\n- No emoji.\n")
    assert [clause.text for clause in spec.clauses] == ["Help with everyday questions.", "No emoji."]
    assert spec.unread == ("Sunshine and rain.",)


def test_scope_limit_examples_and_words_are_read() -> None:
    (clause,) = parse_spec('Never say "dear friend" or flatter people in more than 5% of answers.').clauses
    assert clause.examples == ("dear friend",)
    assert clause.limit == 0.05
    assert {"dear", "friend", "flatter"} <= set(clause.words)
    (scoped,) = parse_spec("Do not give investment advice unless the user asks for it.").clauses
    assert scoped.scope == "unless the user asks for it"
    assert scoped.words == ("investment", "advice")
    assert scoped.limit == DEFAULT_LIMIT


def test_front_matter_sets_data_limits_and_detectors() -> None:
    text = "---\ndata: pairs.jsonl\nlimits: {links: 0.1}\ndetectors: {links: 'https?://'}\n---\nNever invent links.\n"
    spec = parse_spec(text)
    assert spec.front.data == "pairs.jsonl"
    assert (spec.clauses[0].limit, spec.clauses[0].detector) == (0.1, "https?://")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\ncolour: red\n---\nNever swear.", "colour"),
        ("---\n[: \n---\nNever swear.", "YAML"),
        ("---\ndetectors: {swear: '('}\n---\nNever swear.", "regular expression"),
        ("Hello there, this is a text.", "no rule found"),
        ("", "no rule found"),
    ],
)
def test_a_spec_that_cannot_be_used_says_why(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_spec(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.md: no such file"):
        read_spec(tmp_path / "absent.md")


def test_content_words_leave_out_what_every_rule_says() -> None:
    assert content_words("The assistant should never mention its favourite dragons") == ("favourite", "dragons")
