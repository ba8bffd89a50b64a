"""What an LLM makes of a spec and of concepts, and what is not taken from it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from premortem.agent.engineer import Engineer
from premortem.agent.ledger import Budget
from premortem.agent.planner import BuiltinPlanner
from premortem.agent.spec import parse_spec, sentences_of
from premortem.agent.spec.problems import SOUND
from premortem.agent.understanding import (
    describe_clusters,
    link_rules,
    name_concepts,
    read_rules,
    write_contrasts,
)
from premortem.interp.progress import NullProgress
from premortem.interp.records import Clause
from premortem.prompts.rendering import load_prompt
from stub_llm import StubLlm, make_asker

SPEC = """We train a helper.

- It never brings up the weather when nobody asked.
- Slang confuses people. Answers should be rid of jargon.
- Keep answering in one paragraph.
"""


def rule(behaviour: str, direction: str, scope: str = "", limit: float | None = None, is_rule: bool = True) -> Any:
    return {
        "is_rule": is_rule, "behaviour": behaviour, "direction": direction, "scope": scope, "limit_percent": limit,
    }  # fmt: skip


def reader(**by_word: Any) -> Any:
    """Answer `read_rule` by a word of the sentence."""

    def answer(asked: str) -> Any:
        sentence = asked.split("Sentence: ")[1]
        return next(
            (said for word, said in by_word.items() if word in sentence), rule("nothing", "keep", is_rule=False)
        )

    return answer


def answers(**changes: Any) -> dict[str, Any]:
    usual = {
        "read_rule": reader(
            weather=rule("bringing up the weather", "avoid", "when nobody asked"),
            Slang=rule("using slang", "avoid"),
            jargon=rule("using jargon", "avoid"),
            paragraph=rule("answering in one paragraph", "keep"),
        ),
        "check_direction": lambda asked: {"wanted": "no"},
        "find_problems": lambda asked: {"problems": []},
        "check_problem": lambda asked: {"real": "no" if SOUND["contradiction"] in asked else "yes"},
    }
    return {**usual, **changes}


def read(folder: Path, **changes: Any) -> tuple[dict[str, Clause], tuple[str, ...], StubLlm]:
    stub = StubLlm(answers(**changes))
    reading = read_rules(make_asker(folder, stub), parse_spec(SPEC))
    return {clause.text: clause for clause in reading.clauses}, reading.problems, stub


def test_every_sentence_is_put_to_the_llm_with_the_one_before(tmp_path: Path) -> None:
    _, _, stub = read(tmp_path)
    asked = stub.asked_for("read_rule")
    assert [one.split("Sentence: ")[1] for one in asked] == sentences_of(parse_spec(SPEC))
    assert "The sentence before: We train a helper." in asked[1]


def test_a_clause_keeps_its_sentence_and_learns_what_it_is_about(tmp_path: Path) -> None:
    clauses, _, _ = read(tmp_path)
    weather = clauses["It never brings up the weather when nobody asked."]
    assert (weather.direction, weather.about) == ("avoid", "bringing up the weather")
    assert weather.scope == "when nobody asked"


def test_a_condition_that_the_llm_overlooks_stays(tmp_path: Path) -> None:
    sentence = "It never brings up the weather when nobody asked."

    def without(asked: str) -> Any:
        known = answers()["read_rule"](asked)
        return {**known, "scope": ""}

    clauses, _, _ = read(tmp_path, read_rule=without)
    assert clauses[sentence].scope == next(c for c in parse_spec(SPEC).clauses if c.text == sentence).scope != ""


def test_a_rule_without_cue_words_is_found_by_the_llm_alone(tmp_path: Path) -> None:
    clauses, _, _ = read(tmp_path)
    assert clauses["Slang confuses people."].direction == "avoid"


def test_a_should_that_forbids_is_turned_round_when_the_llm_says_so_twice(tmp_path: Path) -> None:
    assert parse_spec("Answers should be rid of jargon.").clauses[0].direction == "encourage"
    clauses, _, _ = read(tmp_path)
    jargon = clauses["Answers should be rid of jargon."]
    assert (jargon.direction, jargon.behaviour) == ("avoid", "using jargon")


def test_a_second_answer_to_the_contrary_leaves_the_built_in_reading(tmp_path: Path) -> None:
    clauses, _, _ = read(tmp_path, check_direction=lambda asked: {"wanted": "yes"})
    assert clauses["Answers should be rid of jargon."].direction == "encourage"
    assert "Slang confuses people." not in clauses


def test_never_and_keep_are_not_argued_with(tmp_path: Path) -> None:
    wrong = reader(weather=rule("the weather", "encourage"), paragraph=rule("long answers", "avoid"))
    clauses, _, _ = read(tmp_path, read_rule=wrong)
    assert clauses["It never brings up the weather when nobody asked."].direction == "avoid"
    paragraph = clauses["Keep answering in one paragraph."]
    assert (paragraph.direction, paragraph.about) == ("keep", ""), "what the LLM said is about the opposite"


def test_a_description_does_not_become_a_rule_to_keep(tmp_path: Path) -> None:
    clauses, _, _ = read(tmp_path, read_rule=reader(helper=rule("helping", "keep")))
    assert "We train a helper." not in clauses


@pytest.mark.parametrize("direction", ["avoid", "keep", "encourage"])
def test_a_negation_is_cut_from_what_a_clause_is_about_and_turns_it_round(tmp_path: Path, direction: str) -> None:
    clauses, _, _ = read(tmp_path, read_rule=reader(weather=rule("not bringing up the weather", direction)))
    weather = clauses["It never brings up the weather when nobody asked."]
    assert (weather.about, weather.direction) == ("bringing up the weather", "avoid")


def test_answers_that_cannot_be_used_leave_the_built_in_reading(tmp_path: Path) -> None:
    clauses, problems, stub = read(tmp_path, read_rule=lambda asked: "I would rather talk", find_problems=lambda a: "")
    built_in = {clause.text: clause for clause in parse_spec(SPEC).clauses}
    assert clauses == built_in
    assert problems == ()
    assert len(stub.asked_for("read_rule")) == 3 * len(sentences_of(parse_spec(SPEC))), "asked, and repaired twice"


def test_without_budget_the_built_in_reading_stands(tmp_path: Path) -> None:
    stub = StubLlm(answers())
    reading = read_rules(make_asker(tmp_path, stub, Budget(calls=2)), parse_spec(SPEC))
    assert {clause.text for clause in reading.clauses} == {clause.text for clause in parse_spec(SPEC).clauses}
    assert len(stub.asked) == 2


def problem(rules: list[int], kind: str = "contradiction") -> Any:
    return lambda asked: {"problems": [{"rules": rules, "kind": kind, "what": "they clash", "suggestion": "pick one"}]}


def test_a_problem_is_told_with_its_rules_and_a_suggestion(tmp_path: Path) -> None:
    _, problems, _ = read(tmp_path, find_problems=problem([1, 2]))
    assert re.match(r"contradiction: they clash \(It never .* / .*\) Suggestion: pick one", problems[0])


def test_a_problem_that_is_not_confirmed_is_not_told(tmp_path: Path) -> None:
    assert read(tmp_path, find_problems=problem([1, 2]), check_problem=lambda asked: {"real": "yes"})[1] == ()


def test_a_contradiction_needs_two_rules_of_this_spec(tmp_path: Path) -> None:
    assert read(tmp_path, find_problems=problem([1, 99]))[1] == ()


# Contrasts

ABOUT = Clause(
    clause_id="c", text="Never mention the weather.", behaviour="mention the weather", direction="avoid",
    about="mentioning the weather",
)  # fmt: skip


SENTENCES = ["What sunshine!", "The sunshine is back, look.", "Sunshine all day!", "What  sunshine!", "", "Rain." * 99]


def shown(asked: str) -> Any:
    return {"sentences": SENTENCES}


def with_sunshine(asked: str) -> Any:
    return {"which": "first" if "sunshine" in asked.split("Second:")[0] else "second"}


def test_contrasts_are_plain_answers_given_one_sentence(tmp_path: Path) -> None:
    behaviour = write_contrasts(make_asker(tmp_path, StubLlm({"contrast": shown})), [ABOUT])["c"]
    assert len(behaviour.pairs) == 3, "each sentence once, and none that is empty or too long"
    for pair, sentence in zip(behaviour.pairs, SENTENCES, strict=False):
        assert sentence in pair.shown
        assert pair.shown.replace(sentence, "").split() == pair.absent.split()
    assert behaviour.pairs[0].shown.endswith("What sunshine!")
    assert not behaviour.pairs[1].shown.endswith("look.")
    assert behaviour.synonyms == ("sunshine",), "the word that several examples gained and no plain answer holds"


def test_words_of_any_sentence_give_no_behaviour_away(tmp_path: Path) -> None:
    said = [f"I'm happy about {thing}, and it's sunshine." for thing in ("rice", "bread")]
    said += [f"I'm glad of {thing}." for thing in ("corn", "wheat")]
    stub = StubLlm({"contrast": lambda asked: {"sentences": said}})
    assert write_contrasts(make_asker(tmp_path, stub), [ABOUT])["c"].synonyms == ("happy", "sunshine", "glad")


def test_two_sentences_are_too_few_examples(tmp_path: Path) -> None:
    stub = StubLlm({"contrast": lambda asked: {"sentences": SENTENCES[:2] * 3}})
    assert write_contrasts(make_asker(tmp_path, stub), [ABOUT]) == {}


def test_an_llm_that_repeats_itself_is_asked_for_others(tmp_path: Path) -> None:
    rounds = iter((["Rain again.", "What fog!"] * 3, ["What fog!", "Such wind!", "Snow at last.", "Hail, too."]))
    stub = StubLlm({"contrast": lambda asked: {"sentences": next(rounds)}})
    behaviour = write_contrasts(make_asker(tmp_path, stub), [ABOUT])["c"]
    assert len(behaviour.pairs) == 5, "those of both rounds, each once"
    assert len(stub.asked_for("contrast")) == 2


def test_sentences_copied_from_the_prompt_are_no_examples(tmp_path: Path) -> None:
    copied = load_prompt("contrast").examples[1]["answer"]["sentences"]
    stub = StubLlm({"contrast": lambda asked: {"sentences": copied}})
    assert write_contrasts(make_asker(tmp_path, stub), [ABOUT]) == {}
    assert len(stub.asked_for("contrast")) == 3, "asked, and repaired twice"


def test_a_clause_that_nobody_could_name_gets_no_contrasts(tmp_path: Path) -> None:
    stub = StubLlm({"contrast": shown})
    assert write_contrasts(make_asker(tmp_path, stub), [ABOUT.model_copy(update={"about": ""})]) == {}
    assert stub.asked_for("contrast") == []


# Names

ON = [f"What sunshine, number {n}!" for n in range(8)]
OFF = [f"Cut the onions, number {n}." for n in range(8)]


def test_a_name_is_tested_on_passages_that_did_not_find_it(tmp_path: Path) -> None:
    stub = StubLlm({"name_concept": lambda asked: {"name": "weather"}, "test_name": with_sunshine})
    named = name_concepts(make_asker(tmp_path, stub), {"x": (ON, OFF)})["x"]
    assert (named.name, named.score, named.tested) == ("weather", 1.0, True)
    found, tested = stub.asked_for("name_concept")[0], "".join(stub.asked_for("test_name"))
    assert not [text for text in ON + OFF if text in found and text in tested]
    assert all(text in found or text in tested for text in ON + OFF)


def test_a_name_that_always_fits_the_first_passage_fails_its_test(tmp_path: Path) -> None:
    stub = StubLlm({"name_concept": lambda asked: {"name": "text"}, "test_name": lambda asked: {"which": "first"}})
    named = name_concepts(make_asker(tmp_path, stub), {"x": (ON, OFF)})["x"]
    assert named.score == 0.5
    assert not named.tested


def test_too_few_passages_give_no_name(tmp_path: Path) -> None:
    stub = StubLlm({})
    assert name_concepts(make_asker(tmp_path, stub), {"x": (ON[:3], OFF[:3])}) == {}


# Rules that surprises are about

RULES = [ABOUT.model_copy(update={"clause_id": f"c{n}", "text": f"Rule {n}.", "about": f"thing {n}"}) for n in (1, 2)]


def linked(folder: Path, rule: int, which: Any) -> tuple[dict[str, str], StubLlm]:
    stub = StubLlm({"link_rule": lambda asked: {"shared": "sunshine", "rule": rule}, "test_name": which})
    return link_rules(make_asker(folder, stub), RULES, {"x": (ON, OFF)}), stub


def test_a_surprise_is_linked_to_a_rule_whose_behaviour_tells_its_passages_apart(tmp_path: Path) -> None:
    links, stub = linked(tmp_path, 2, with_sunshine)
    assert links == {"x": "c2"}
    found, tested = stub.asked_for("link_rule")[0], "".join(stub.asked_for("test_name"))
    assert "1. Rule 1." in found and "2. Rule 2." in found
    assert "Description: thing 2" in tested and "thing 1" not in tested
    assert not [text for text in ON + OFF if text in found and text in tested]


def test_a_link_that_fails_its_test_is_not_used(tmp_path: Path) -> None:
    assert linked(tmp_path, 2, lambda asked: {"which": "first"})[0] == {}


def test_a_surprise_that_no_rule_is_about_is_not_tested(tmp_path: Path) -> None:
    links, stub = linked(tmp_path, 0, with_sunshine)
    assert (links, stub.asked_for("test_name")) == ({}, [])


def test_a_rule_that_does_not_exist_is_asked_for_again(tmp_path: Path) -> None:
    links, stub = linked(tmp_path, 7, with_sunshine)
    assert links == {}
    assert len(stub.asked_for("link_rule")) == 3


def test_clusters_are_described_one_by_one_or_not_at_all(tmp_path: Path) -> None:
    stub = StubLlm({"describe_clusters": lambda asked: {"descriptions": ["cooking", "grammar"]}})
    asker = make_asker(tmp_path, stub)
    assert describe_clusters(asker, [["How do I boil an egg?"], ["What is a noun?"]]) == ["cooking", "grammar"]
    assert describe_clusters(asker, [["One group."]]) == []


def test_no_examples_are_asked_for_of_what_the_llm_alone_takes_for_a_wish(tmp_path: Path) -> None:
    wish = reader(weather=rule("bringing up the weather", "avoid"), Slang=rule("speaking plainly", "encourage"))
    sentences = [f"The sky over town number {n} is grey." for n in range(4)]
    changed = {
        "read_rule": wish,
        "contrast": lambda asked: {"sentences": sentences},
        "check_direction": lambda asked: {"wanted": "yes" if "plainly" in asked else "no"},
    }
    stub = StubLlm(answers(**changed))
    spec = parse_spec(SPEC + "- More answers should name a bird.\n")
    bench: Any = SimpleNamespace(knows=lambda clause: False, set_clauses=lambda clauses: None)
    reading = Engineer(make_asker(tmp_path, stub), spec, BuiltinPlanner(), NullProgress()).understand(bench)
    wishes = {clause.text: clause.clause_id for clause in reading.clauses if clause.direction == "encourage"}
    assert {"Slang confuses people.", "More answers should name a bird."} <= set(wishes)
    assert wishes["Slang confuses people."] not in bench.contrasts
    assert wishes["More answers should name a bird."] in bench.contrasts
    assert not any("plainly" in asked for asked in stub.asked_for("contrast"))
