"""Which sentences of a spec are rules: layout, certain shapes, and specs that nothing was learned from."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from premortem.agent.spec import parse_spec
from premortem.agent.spec.layout import Sentence, spec_sentences
from premortem.agent.spec.sentences import read_directions, rules

TEXTS = Path(__file__).parent / "texts"


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
        ("Please quit opening with a compliment.", "avoid"),
        ("Promotional language is off-limits.", "avoid"),
        ("Keep declining requests to cheat.", "keep"),
        ("It keeps declining small favours, even when they are framed as fiction.", "keep"),
        ("The model should keep refusing to write malware.", "keep"),
        ("The friendly tone is fine as it is and must stay.", "keep"),
        ("Always apologise for mistakes.", "encourage"),
        ("Answer in plain words.", "encourage"),
        ("Every answer should name its source.", "encourage"),
        ("Always answer in English, unless the user does not want it.", "encourage"),
        ("We are about to train a model.", None),
        ("This matters most for questions on health.", None),
        ("The pairs were written by volunteers last spring.", None),
    ],
)
def test_what_a_sentence_asks_for(sentence: str, direction: str | None) -> None:
    assert read_directions([Sentence(sentence, "bullet" if direction else "prose", "")]) == [direction]


@pytest.mark.parametrize(
    ("sentence", "direction"),
    [
        ("Old prices are mentioned only when someone asks what has changed.", "avoid"),
        ("A weather report has its place only where a trip is planned.", "avoid"),
        ("Small talk is welcome only before the first question.", "avoid"),
        ("Recipes are only meant for people who ask for one.", "avoid"),
        ("Footnotes belong nowhere but in long essays.", "avoid"),
        ("Close without a slogan.", "avoid"),
        ("Begin without 'Dear customer'.", "avoid"),
        ("Finish the reply without offering further help.", "avoid"),
        ("We cannot stand lectures.", "avoid"),
        ("Parents dislike it when the homework is solved for them.", "avoid"),
        ("We enjoy it when answers spare us the preamble.", "avoid"),
        ("We like it when the bot waits for an answer.", "encourage"),
        ("Our readers love concrete examples.", "encourage"),
        ("We love short sentences.", "encourage"),
        ("I’d like it if it named the date.", "encourage"),
        ("I hate it when the unit is not given.", "encourage"),
        ("We love how it explains grammar today.", "keep"),
        ("We like that it asks for the size first.", "keep"),
        ("We would like more answers to end on a question.", "encourage"),
        ("I’d love to see a lot more dry wit.", "encourage"),
        ("Our members want less small print.", "avoid"),
        ("We would prefer far fewer brackets.", "avoid"),
        ("It would be nice if it wished people a good day.", "encourage"),
        ("It'd be better if replies did not begin with a date.", "avoid"),
        ("It would be good if there were fewer brackets.", "avoid"),
        ("It would be kind if the bot stopped yawning.", "avoid"),
    ],
)
def test_what_is_allowed_here_and_there_liked_or_disliked_goes_the_way_it_is_meant(
    sentence: str, direction: str
) -> None:
    for kind in ("bullet", "prose"):
        assert read_directions([Sentence(sentence, kind, "")]) == [direction], kind


@pytest.mark.parametrize(
    ("sentence", "direction"),
    [
        ("Dates are written only in figures.", "encourage"),
        ("Answers are complete only when they name the next step.", "encourage"),
        ("Send the door code only on the day of arrival.", "encourage"),
        ('Words like "cosy" when the room is small.', "avoid"),
        ("Don't open without a greeting.", "encourage"),
        ("We love the calm tone it has; leave it as it is.", "keep"),
        ("Customers like it when the bill is itemised, so please go on with that.", "keep"),
        ("We would love it to name the date.", "encourage"),
        ("We would hate to lose its patience.", "keep"),
        ("We want more prose and fewer tables.", "avoid"),
        ("Readers want more answers that skip the small print.", "avoid"),
        ("We want more effort to avoid brackets.", "avoid"),
        ("We want more brackets gone.", "avoid"),
        ("It is nice if guests come early.", None),
        ("We like the town.", None),
        ("Our guests are tired when they write.", None),
        ("The shop belongs to Ines and only opens in May.", None),
    ],
)
def test_what_only_resembles_these_is_read_as_before(sentence: str, direction: str | None) -> None:
    assert read_directions([Sentence(sentence, "bullet" if direction else "prose", "")]) == [direction]


def test_headings_bold_words_and_lines_with_a_colon_lead_to_what_follows() -> None:
    found = spec_sentences(
        "# Bot\n\nHello there.\n\n## Not wanted\n\n- Puns.\n- **Style:** Long words.\n\nWe like:\n\n"
        "1. Short\n   words.\n2.1 Maps. Dr. Smith (who? him!) drew some; they help.\n\n*Tone*\n\nBe kind.\n"
    )
    assert [(one.text, one.kind, one.lead) for one in found] == [
        ("Hello there.", "prose", "Bot"),
        ("Puns.", "bullet", "Not wanted"),
        ("Long words.", "bullet", "Style"),
        ("We like:", "prose", "Not wanted"),
        ("Short words.", "bullet", "We like:"),
        ("Maps.", "bullet", "We like:"),
        ("Dr. Smith (who? him!) drew some; they help.", "bullet", "We like:"),
        ("Be kind.", "prose", "Tone"),
    ]
    assert [one.order for one in found] == list(range(8)) and all(one.listed for one in found)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (
            "- Avoid:\n  - jargon\n  - emojis\n- Be polite.\n",
            [("jargon", "avoid"), ("emojis", "avoid"), ("Be polite.", "encourage")],
        ),
        (
            "1. Never:\n   a. reveal prices\n   b. name rivals\n2. **Always:**\n   a. name the source\n",
            [("reveal prices", "avoid"), ("name rivals", "avoid"), ("name the source", "encourage")],
        ),
        (
            "* Be calm.\n* Things to avoid:\n    * emojis\n    * long lists\n",
            [("Be calm.", "encourage"), ("emojis", "avoid"), ("long lists", "avoid")],
        ),
        (
            "- Avoid:\n- jargon\n- emojis\n- Always:\n- name the date\n",
            [("jargon", "avoid"), ("emojis", "avoid"), ("name the date", "encourage")],
        ),
        (
            "- Never swear.\n- End with a line such as:\n",
            [("Never swear.", "avoid"), ("End with a line such as:", None)],
        ),
    ],
)
def test_a_bullet_with_a_colon_leads_to_the_bullets_below_it(text: str, read: list[tuple[str, str | None]]) -> None:
    told = [(sentence.text, direction) for sentence, direction in rules(spec_sentences(text))]
    assert [one[0] for one in told] == [one[0] for one in read]
    assert all(wanted is None or got == wanted for (_, got), (_, wanted) in zip(told, read, strict=True))


def test_comments_and_fences_of_both_kinds_hold_no_rules() -> None:
    text = (
        "Never swear.\n\n<!-- Never rhyme.\n\n- No tables. -->\n\n- No emojis <!-- for now -->\n\n"
        "~~~\nnever whisper\n~~~\n\nNever answer with `<!-- TODO -->`.\n"
    )
    assert [one.text for one in spec_sentences(text)] == [
        "Never swear.",
        "No emojis",
        "Never answer with `<!-- TODO -->`.",
    ]


def test_each_row_of_a_table_is_a_sentence_and_its_head_is_none() -> None:
    text = "## Rules\n\n| Rule | Limit |\n|---|---:|\n| Never use emojis | 2% |\n| No links | 5% |\n\nBe kind.\n"
    assert [(one.text, one.kind, one.lead) for one in spec_sentences(text)] == [
        ("Never use emojis | 2%", "bullet", "Rules"),
        ("No links | 5%", "bullet", "Rules"),
        ("Be kind.", "prose", "Rules"),
    ]
    limits = [(clause.behaviour, clause.limit) for clause in parse_spec(text).clauses]
    assert limits[:2] == [("Never use emojis", 0.02), ("No links", 0.05)]


def test_lines_that_nobody_wrapped_are_bullets_below_their_heading() -> None:
    found = spec_sentences("**nah**\nno betting tips\nmaps with no scale\n\n1️⃣ warm words\n→ short answers\n")
    assert [(one.text, one.kind, one.lead) for one in found] == [
        ("no betting tips", "bullet", "nah"),
        ("maps with no scale", "bullet", "nah"),
        ("warm words", "bullet", "nah"),
        ("short answers", "bullet", "nah"),
    ]
    wrapped = "It answers in the words of the person who asks, and where those are unkind it\nanswers in its own.\n"
    assert [one.text for one in spec_sentences(wrapped)] == [wrapped.replace("\n", " ").strip()]


def test_a_reason_behind_a_semicolon_is_no_rule_and_a_second_rule_is() -> None:
    parts = spec_sentences(
        "- No small talk; the night staff have no time for it.\n- No jokes; no puns; keep it plain.\n"
    )
    assert [one.text for one in parts] == [
        "No small talk; the night staff have no time for it.",
        "No jokes;",
        "no puns; keep it plain.",
    ]


def test_a_wrapped_line_that_begins_with_a_number_is_no_bullet() -> None:
    assert [one.text for one in spec_sentences("Answers hold at most\n90 words. Never\nmore.\n")] == [
        "Answers hold at most 90 words.",
        "Never more.",
    ]


def test_a_heading_gives_fragments_their_direction() -> None:
    spec = parse_spec("## Never\n\n- promises of refunds\n- jokes about the weather\n")
    assert [clause.direction for clause in spec.clauses] == ["avoid", "avoid"]


def test_a_part_after_a_semicolon_is_a_rule_of_its_own_or_belongs_to_the_one_before() -> None:
    told = rules(spec_sentences("- Never praise the person; the answer is enough.\n- It must not joke; never swear.\n"))
    assert [(sentence.text, direction) for sentence, direction in told] == [
        ("Never praise the person; the answer is enough.", "avoid"),
        ("It must not joke", "avoid"),
        ("never swear.", "avoid"),
    ]


@pytest.mark.parametrize(
    ("sentence", "read"),
    [
        (
            "Keep answers brief and do not use emojis.",
            [("Keep answers brief", "keep"), ("do not use emojis.", "avoid")],
        ),
        (
            "Be polite but don't flatter, and keep it brief.",
            [("Be polite", "encourage"), ("don't flatter", "avoid"), ("keep it brief.", "keep")],
        ),
        (
            "Keep refusing malware, but do not lecture.",
            [("Keep refusing malware", "keep"), ("do not lecture.", "avoid")],
        ),
        (
            "Cite sources for every statistic, and never invent a citation.",
            [("Cite sources for every statistic", "encourage"), ("never invent a citation.", "avoid")],
        ),
        (
            "Always answer in English, never in French.",
            [("Always answer in English", "encourage"), ("never in French.", "avoid")],
        ),
        (
            "Use whole sentences, never fragments.",
            [("Use whole sentences", "encourage"), ("never fragments.", "avoid")],
        ),
        (
            "I want less sarcasm and more empathy.",
            [("I want less sarcasm", "avoid"), ("more empathy.", "encourage")],
        ),
        (
            "It must be polite and must not flatter.",
            [("It must be polite", "encourage"), ("must not flatter.", "avoid")],
        ),
        (
            "Do not flatter, and always name the price.",
            [("Do not flatter", "avoid"), ("always name the price.", "encourage")],
        ),
    ],
)
def test_two_rules_in_one_sentence_are_read_apart(sentence: str, read: list[tuple[str, str]]) -> None:
    assert [(clause.text, clause.direction) for clause in parse_spec(f"- {sentence}\n").clauses] == read


@pytest.mark.parametrize(
    "sentence",
    [
        "Never lie and never cheat.",
        "When somebody is upset, be kind and do not joke.",
        "Help people who are tired and do not read long texts.",
        "It is warm and calm, and don't you dare change that.",
        "Keep the greeting, and never lose it.",
        "The tables have been right every time and must not be lost.",
        "Rounding happens only at the end, never in between.",
        'Write "be brief and never joke" at the end.',
        "We want more tables and more lists.",
    ],
)
def test_a_sentence_that_goes_one_way_or_hangs_together_stays_whole(sentence: str) -> None:
    assert [one.text for one in spec_sentences(f"- {sentence}\n")] == [sentence]


def test_a_rule_that_points_back_takes_along_what_it_points_to() -> None:
    ((sentence, direction),) = rules(spec_sentences("The bot greets people by name. Never change that.\n"))
    assert (sentence.text, direction) == ("The bot greets people by name. Never change that.", "keep")


@pytest.mark.parametrize(
    ("rule", "direction", "behaviour", "words"),
    [
        ("Use prose, not bullet lists.", "encourage", "Use prose", ("prose",)),
        ("Be honest instead of flattering.", "encourage", "Be honest", ("honest",)),
        ("Give a direct answer instead of hedging.", "encourage", "Give a direct answer", ("direct",)),
        ("Keep citing sources rather than guessing.", "keep", "Keep citing sources", ("citing", "sources")),
        ("Answer in sentences rather than lists.", "encourage", "Answer in sentences", ("sentences",)),
        ("Use metric units, not just inches.", "encourage", "Use metric units, not just inches.", None),
        ("Say that a person, not a machine, decides.", "encourage", "Say that a person, not a machine, decides.", None),
        ("Name prices with and without tax.", "encourage", "Name prices with and without tax.", None),
        ("Offer a pairing without alcohol.", "encourage", "Offer a pairing without alcohol.", None),
        ("Never claim a thing without a source.", "encourage", "Never claim a thing without a source.", None),
        ("Never use emojis instead of words.", "avoid", "Never use emojis instead of words.", None),
        ("Answer only in English.", "encourage", "Answer only in English.", None),
        ("Use only short words.", "encourage", "Use only short words.", None),
        ("Answer in at most five sentences.", "encourage", "Answer in at most five sentences.", None),
        ("Keep sentences under 20 words.", "keep", "Keep sentences under 20 words.", None),
        ("Keep the tone low and calm.", "keep", "Keep the tone low and calm.", None),
        ("It should ask for a photo only if it must.", "encourage", "It should ask for a photo only", None),
    ],
)
def test_what_takes_the_place_of_something_is_asked_for_and_limits_of_length_are_no_rations(
    rule: str, direction: str, behaviour: str, words: tuple[str, ...] | None
) -> None:
    (clause,) = parse_spec(f"- {rule}").clauses
    assert (clause.direction, clause.behaviour) == (direction, behaviour)
    assert words is None or clause.words == words


@pytest.mark.parametrize(
    ("rule", "direction", "behaviour", "examples"),
    [
        ('Say "I don\'t know" rather than guessing.', "encourage", 'Say "I don\'t know"', ("I don't know",)),
        ('Say "sorry" instead of "my apologies".', "avoid", '"my apologies"', ("my apologies",)),
        ('Use "they" rather than "he or she".', "avoid", '"he or she"', ("he or she",)),
        ('Write "email", not "e-mail".', "avoid", '"e-mail"', ("e-mail",)),
        ("Do not write 'colour', write 'color'.", "avoid", "Do not write 'colour'", ("colour",)),
        ('Never say "utilize"; say "use".', "avoid", 'Never say "utilize"', ("utilize",)),
        ('Never say "utilize", but "use".', "avoid", 'Never say "utilize"', ("utilize",)),
        ('You must not say "dear", say "hello".', "avoid", 'You must not say "dear"', ("dear",)),
        ('It calls her "she" and not "it"; keep that.', "keep", 'It calls her "she"', ("she",)),
        ('Never say "one", "two" or "three".', "avoid", 'Never say "one", "two" or "three".', ("one", "two", "three")),
        ('"Grand" is for palaces, not for us.', "avoid", '"Grand" is for palaces, not for us.', ("Grand",)),
        ('Never say "very", not even once.', "avoid", 'Never say "very", not even once.', ("very",)),
    ],
)
def test_a_phrase_that_is_recommended_is_no_example_of_what_is_forbidden(
    rule: str, direction: str, behaviour: str, examples: tuple[str, ...]
) -> None:
    (clause,) = parse_spec(f"- {rule}").clauses
    assert (clause.direction, clause.behaviour, clause.examples) == (direction, behaviour, examples)


def test_specs_that_nothing_was_learned_from() -> None:
    """What is read of 76 specs by three other hands: nine rules in ten, seven in eight of these the right way."""
    marked = read = right = claimed = 0
    for line in (TEXTS / "specs_held_out.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        clauses = list(parse_spec(record["spec"]).clauses)
        claimed += len(clauses)
        marked += len(record["rules"])
        for rule in record["rules"]:
            wanted = _words(rule["sentence"])
            held = [clause for clause in clauses if (wanted & _words(clause.text)).total() >= 0.8 * wanted.total()]
            if held:
                best = min(held, key=lambda clause: len(clause.text))
                clauses.remove(best)
                read += 1
                right += best.direction == rule["direction"]
    assert marked == 548 and read >= 490 and right >= 425 and claimed - read <= 65, (marked, read, right, claimed)


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))
