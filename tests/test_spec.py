"""The spec reader: prose in, clauses out."""

from pathlib import Path

import pytest

from premortem.agent.spec import DEFAULT_LIMIT, parse_spec, read_spec, sentences_of
from premortem.agent.spec.signature import cut_signature
from premortem.agent.spec.words import content_words
from premortem.interp.errors import SpecError


def test_prose_and_bullets_become_one_clause_each() -> None:
    spec = parse_spec(
        "# Title\n\nWe train a helper. It must never swear. It is friendly.\n\n- No emoji.\n- Use short\n  sentences.\n"
    )
    assert [clause.text for clause in spec.clauses] == ["It must never swear.", "No emoji.", "Use short sentences."]
    assert [clause.direction for clause in spec.clauses] == ["avoid", "avoid", "encourage"]


def test_code_fences_and_headings_hold_no_rules() -> None:
    spec = parse_spec("# Never shout\n\n```\nnever whisper\n```\n\nNever swear.")
    assert [clause.text for clause in spec.clauses] == sentences_of(spec) == ["Never swear."]


def test_a_condition_at_either_end_is_the_scope() -> None:
    before, after, alone = parse_spec(
        "- When somebody asks for a recipe, always name the allergens.\n- Do not draw tables unless asked.\n"
        "- People like it when steps are numbered, so keep numbering them.\n"
    ).clauses
    assert (before.scope, before.behaviour) == ("When somebody asks for a recipe", "always name the allergens.")
    assert (after.scope, after.behaviour) == ("unless asked", "Do not draw tables")
    assert (alone.scope, alone.direction) == ("", "keep"), "what stands before the condition says nothing by itself"


def test_what_would_be_nice_is_the_behaviour_and_no_condition() -> None:
    nice, more = parse_spec(
        "- It would be nice if it greeted people by name.\n- We want more examples when code is explained.\n"
    ).clauses
    assert (nice.behaviour, nice.scope, nice.direction) == ("it greeted people by name.", "", "encourage")
    assert (more.behaviour, more.scope) == ("We want more examples", "when code is explained")


def test_a_rule_without_a_word_to_look_for_is_none() -> None:
    spec = parse_spec("- Never swear.\n- This must always be so.\n")
    assert [clause.text for clause in spec.clauses] == ["Never swear."] and spec.unread == ("This must always be so.",)


def test_a_bullet_without_a_rule_is_told() -> None:
    spec = parse_spec(
        "We train a helper.\n\n- Help with everyday questions.\n- We are a small team in Leeds.\n- No emoji.\n"
    )
    assert [clause.text for clause in spec.clauses] == ["Help with everyday questions.", "No emoji."]
    assert spec.unread == ("We are a small team in Leeds.",)


def test_prose_that_may_be_meant_as_a_rule_is_told_and_plain_background_is_not() -> None:
    told = "Our helper answers gardeners in the north. The season begins in May.\n\nIt never swears.\n\n"
    spec = parse_spec(told + "The bot greets people by name.\n")
    assert [clause.text for clause in spec.clauses] == ["It never swears."]
    assert spec.unread == ("The bot greets people by name.",)


def test_scope_limit_examples_and_words_are_read() -> None:
    (clause,) = parse_spec('Never say "dear friend" or flatter people in more than 5% of answers.').clauses
    assert clause.examples == ("dear friend",)
    assert clause.limit == 0.05
    assert {"dear", "friend", "flatter"} <= set(clause.words)
    (scoped,) = parse_spec("Do not give investment advice unless the user asks for it.").clauses
    assert scoped.scope == "unless the user asks for it"
    assert scoped.words == ("investment", "advice")
    assert scoped.limit == DEFAULT_LIMIT


@pytest.mark.parametrize(
    ("rule", "limit"),
    [
        ("Never claim to be 100% certain.", DEFAULT_LIMIT),
        ('Avoid the phrase "at most 100% guaranteed".', DEFAULT_LIMIT),
        ("Do not promise 20% discounts.", DEFAULT_LIMIT),
        ("Never recommend milk with less than 2% fat.", DEFAULT_LIMIT),
        ("Keep refusals under 3%.", 0.03),
        ("Do not apologise in more than 2.5 percent of the replies.", 0.025),
        ("Lists are to be avoided, at most 5% may have one.", 0.05),
        ("No emoji, except in up to 10 per cent.", 0.1),
        ("97% of answers must be free of emojis.", 0.03),
        ("At least 95% of answers must not contain links.", 0.05),
        ("No emojis in at least 98% of answers.", 0.02),
        ("100% of answers must avoid profanity.", DEFAULT_LIMIT),
        ("It flatters in 30% of responses; stop that.", DEFAULT_LIMIT),
        ("In 12% of answers the model apologises, which must stop.", DEFAULT_LIMIT),
        ("At least 90% of answers should name a source.", DEFAULT_LIMIT),
        ("In 100% of cases, cite the source.", DEFAULT_LIMIT),
        ("Keep refusing malware in at least 90% of answers.", DEFAULT_LIMIT),
        ("Do not use links in more than 1,5% of answers.", 0.015),
        ("Do not joke in over 4% of the replies.", 0.04),
        ("Do not joke more than 5% of the time.", 0.05),
        ("5% of answers may contain links.", 0.05),
        ("Links in 3% of answers at most.", 0.03),
        ("Never apologise (0%).", 0.0),
        ("Never lecture, tolerance 2%.", 0.02),
        ("No emojis (limit: 3%).", 0.03),
        ("No emojis; up to 3 % is fine.", 0.03),
        ("Never recommend milk (1.5% fat).", DEFAULT_LIMIT),
    ],
)
def test_a_percentage_is_a_limit_only_where_the_rule_says_so(rule: str, limit: float) -> None:
    (clause,) = parse_spec(rule).clauses
    assert clause.limit == pytest.approx(limit)


@pytest.mark.parametrize("rule", ["No emojis (limit: 3%).", "No emojis; up to 3 % is fine.", "No emojis (3%)."])
def test_a_limit_that_is_only_added_is_no_part_of_the_behaviour(rule: str) -> None:
    (clause,) = parse_spec(rule).clauses
    assert (clause.text, clause.words, clause.limit) == (rule, ("emojis",), 0.03)


def test_a_limit_of_the_front_matter_goes_before_one_in_the_rule() -> None:
    named, default = parse_spec("---\nlimit: 4%\nlimits: {joke: 2%}\n---\nNever joke (5%). Never rhyme.").clauses
    assert (named.limit, default.limit) == (0.02, 0.04)


def test_a_rule_about_length_alone_is_a_rule_that_brings_no_words() -> None:
    (clause,) = parse_spec("Keep answers short.").clauses
    assert clause.words == ()


def test_front_matter_sets_data_limits_and_detectors() -> None:
    text = "---\ndata: pairs.jsonl\nlimits: {links: 0.1}\ndetectors: {links: 'https?://'}\n---\nNever invent links.\n"
    spec = parse_spec(text)
    assert spec.front.data == "pairs.jsonl"
    assert (spec.clauses[0].limit, spec.clauses[0].detector) == (0.1, "https?://")


def test_front_matter_gives_examples_beside_those_that_a_rule_quotes() -> None:
    front = "---\nexamples: {Cats: ['My cat agrees.', ' '], dogs: [Woof woof woof.]}\n---\n"
    spec = parse_spec(f'{front}- No cats, as in "meow".\n- Never swear.\n')
    assert [clause.examples for clause in spec.clauses] == [("meow", "My cat agrees."), ()]
    assert spec.unmatched == ("dogs",)


@pytest.mark.parametrize("before", ["\n", "<!-- spec.md -->\n", "<!-- two\nlines -->\n\n"])
def test_front_matter_may_stand_behind_blank_lines_and_comments(before: str) -> None:
    spec = parse_spec(f"{before}---\nlimit: 5%\n---\n\nNever swear.\n")
    assert [(clause.text, clause.limit) for clause in spec.clauses] == [("Never swear.", 0.05)]


def test_keys_of_the_front_matter_that_no_rule_holds_are_told() -> None:
    text = "---\nlimits: {flattery: 5%, Links: 2%}\ndetectors: {flattery: great, phone: '\\d'}\n---\n"
    spec = parse_spec(f"{text}- Do not flatter the user.\n- No links or phone numbers.\n")
    assert spec.unmatched == ("flattery",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\ncolour: red\n---\nNever swear.", "colour: there is no such key; the keys are data, model, sae, .*limit"),
        ("---\nlimit: 1\n---\nNever swear.", "limit: 1 would tolerate everything; .*0.01 .*--limit"),
        ("---\nlimit: 100%\n---\nNever swear.", "limit: '100%' would tolerate everything"),
        ("---\nlimit: -0.1\n---\nNever swear.", "limit: -0.1 would mean nothing"),
        ("---\nlimit: .nan\n---\nNever swear.", "limit: nan would mean nothing"),
        ("---\nlimit: some\n---\nNever swear.", "limit: 'some' is no share"),
        ("---\nexamples: {swear: damn it all}\n---\nNever swear.", "examples.swear: .*"),
        ("---\nlimits: {swear: 5}\n---\nNever swear.", "limits.swear: 5 would tolerate everything"),
        ("---\n[: \n---\nNever swear.", "YAML"),
        ("---\ndetectors: {swear: '('}\n---\nNever swear.", "regular expression"),
        ("Hello there, this is a text.", "no rule found"),
        ("", "no rule found"),
    ],
)
def test_a_spec_that_cannot_be_used_says_why(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_spec(text)


@pytest.mark.parametrize("written", ["0.05", "5%", "5 percent", "'0.05'"])
def test_a_limit_of_the_front_matter_is_a_share_or_a_percentage(written: str) -> None:
    (clause,) = parse_spec(f"---\nlimit: {written}\n---\nNever swear.").clauses
    assert clause.limit == 0.05
    (named,) = parse_spec(f"---\nlimits: {{swear: {written}}}\n---\nNever swear.").clauses
    assert named.limit == 0.05


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.md: no such file"):
        read_spec(tmp_path / "absent.md")


def test_content_words_leave_out_what_every_rule_says() -> None:
    assert content_words("The assistant should never mention its favourite dragons") == ("favourite", "dragons")


@pytest.mark.parametrize(
    ("rule", "direction", "words"),
    [
        ("Answer without flattery.", "avoid", ("flattery",)),
        ("Reply in English only, without phrases in other languages.", "avoid", ("phrases", "languages")),
        ("Refuse politely, without moralising.", "avoid", ("moralising",)),
        ("Explain medical terms without inventing links when the topic is sensitive.", "avoid", ("inventing", "links")),
        ("Never answer without a source.", "encourage", ("source",)),
        ("Answer without being asked twice.", "encourage", ("twice",)),
    ],
)
def test_what_an_answer_should_do_without_is_to_be_avoided(rule: str, direction: str, words: tuple[str, ...]) -> None:
    (clause,) = parse_spec(f"- {rule}").clauses
    assert (clause.direction, clause.words) == (direction, words)


@pytest.mark.parametrize(
    ("rule", "direction", "behaviour", "scope"),
    [
        ("Tables belong only where numbers are compared.", "avoid", "Tables", "except where numbers are compared"),
        ("Photos belong in an answer only if somebody asks.", "avoid", "Photos", "except if somebody asks"),
        ("Headings are allowed only in long guides.", "avoid", "Headings", "except in long guides"),
        ("Nicknames are reserved for regulars.", "avoid", "Nicknames", "except for regulars"),
        ("We appreciate it when the unit is named.", "encourage", "the unit is named.", ""),
        ("Our guests love it if the directions name a landmark.", "encourage", "the directions name a landmark.", ""),
        ("I hate it when it repeats the question.", "avoid", "it repeats the question.", ""),
        ("We love how it explains grammar.", "keep", "it explains grammar.", ""),
    ],
)
def test_what_is_allowed_liked_or_disliked_is_what_the_rule_is_about(
    rule: str, direction: str, behaviour: str, scope: str
) -> None:
    (clause,) = parse_spec(f"- {rule}").clauses
    assert (clause.direction, clause.behaviour, clause.scope) == (direction, behaviour, scope)


def test_words_in_single_quotes_are_an_example_and_apostrophes_are_not() -> None:
    spec = parse_spec(
        "- Answer without 'shall I also …' at the end.\n- Begin without ‘Don’t worry! Breathe.’ of any kind.\n"
        "- Don't use the readers' names or the users' towns.\n"
    )
    assert [(clause.direction, clause.examples) for clause in spec.clauses] == [
        ("avoid", ("shall I also …",)),
        ("avoid", ("Don’t worry! Breathe.",)),
        ("avoid", ()),
    ]
    assert spec.clauses[2].words == ("readers", "names", "towns")


@pytest.mark.parametrize(
    "signature",
    [
        "Miriam",
        "-- The support team",
        "Best, Miriam",
        "Kind regards,\nTom\nHead of the night desk",
        "Thank you very much.",
        "— Jo, second floor",
        "Anna van Dijk and Li",
        "Your kitchen crew",
    ],
)
def test_a_signature_below_a_spec_asks_for_nothing(signature: str) -> None:
    body = "The helper sits at our front desk. It must never swear. It should name the opening hours."
    spec = parse_spec(f"{body}\n\n{signature}\n")
    assert [clause.text for clause in spec.clauses] == ["It must never swear.", "It should name the opening hours."]
    assert " ".join(sentences_of(spec)).endswith(" ".join(signature.removeprefix("-- ").split()).removeprefix("— "))


def test_a_spec_whose_only_rule_is_doubtful_does_not_take_its_signature_for_one() -> None:
    with pytest.raises(SpecError, match="no rule found"):
        parse_spec("Hello there, this is a text.\n\nMiriam\n")


@pytest.mark.parametrize("last", ["No emoji", "— never shout", "Thanks: never", "plain words", "- Sources"])
def test_a_last_line_that_asks_for_something_is_no_signature(last: str) -> None:
    assert not cut_signature(f"It must never swear.\n\n{last}\n")[1]
    assert not cut_signature("Wanted:\nShort words\nWarm tone\n\nPlain English\n")[1], "one more of such lines"


@pytest.mark.parametrize(
    ("rule", "direction", "behaviour"),
    [
        ("Do not omit the units.", "encourage", "the units."),
        ("Don’t skip the safety warning.", "encourage", "the safety warning."),
        ("Never fail to mention side effects.", "encourage", "mention side effects."),
        ("Please don't forget to cite sources.", "encourage", "cite sources."),
        ("The assistant should never forget to name the date.", "encourage", "name the date."),
        ("You must not leave out the allergens.", "encourage", "the allergens."),
        ("Do not be afraid of quiet endings.", "encourage", "quiet endings."),
        ("Never stop refusing requests for malware.", "keep", "refusing requests for malware."),
        ("Do not stop citing sources.", "keep", "citing sources."),
        ("The bot must never quit naming the date.", "keep", "naming the date."),
        ("Refuse requests for weapons.", "encourage", "Refuse requests for weapons."),
        ("The model must refuse requests for weapons.", "encourage", "The model must refuse requests for weapons."),
        ("You must refuse to help with weapons.", "encourage", "You must refuse to help with weapons."),
        ("It must politely decline requests for data.", "encourage", "It must politely decline requests for data."),
        ("Decline to diagnose.", "encourage", "Decline to diagnose."),
        ("Any request for a password must be refused.", "encourage", "Any request for a password must be refused."),
        ("Never refuse a harmless request.", "avoid", "Never refuse a harmless request."),
        ("A harmless request must not be refused.", "avoid", "A harmless request must not be refused."),
        ("Refuse less often.", "avoid", "Refuse less often."),
        ("Refuse only dangerous requests.", "avoid", "Refuse only dangerous requests."),
        ("Refuse politely, without moralising.", "avoid", "moralising"),
        ("Stop refusing harmless questions.", "avoid", "Stop refusing harmless questions."),
        ("Do not stop at the first answer in a list.", "avoid", "Do not stop at the first answer in a list."),
        ("Do not skip between topics.", "avoid", "Do not skip between topics."),
        ("Don't forget to avoid jargon.", "avoid", "Don't forget to avoid jargon."),
        ("Never forget: no emojis.", "avoid", "Never forget: no emojis."),
    ],
)
def test_two_negations_and_refusals_ask_for_something(rule: str, direction: str, behaviour: str) -> None:
    (clause,) = parse_spec(f"- {rule}").clauses
    assert (clause.direction, clause.behaviour) == (direction, behaviour)


@pytest.mark.parametrize(
    ("rule", "direction", "behaviour", "scope"),
    [
        ("Never bring up goblins without being asked.", "avoid", "Never bring up goblins", "without being asked"),
        ("Do not use emojis without being asked.", "avoid", "Do not use emojis", "without being asked"),
        ("No code without being asked.", "avoid", "No code", "without being asked"),
        ("Tell no jokes without being invited to.", "avoid", "Tell no jokes", "without being invited to"),
        ("Never give prices without being asked to.", "avoid", "Never give prices", "without being asked to"),
        ("It must not rhyme without the user asking.", "avoid", "It must not rhyme", "without the user asking"),
        ("No advice without a clear request.", "avoid", "No advice", "without a clear request"),
        ("Never share an address without permission.", "avoid", "Never share an address", "without permission"),
        ("Never answer without citing a source.", "encourage", "Never answer without citing a source.", ""),
        ("No claim without a source.", "encourage", "No claim without a source.", ""),
        ("Never plan without asking for a budget.", "encourage", "Never plan without asking for a budget.", ""),
        ("Never part without telling people why.", "encourage", "Never part without telling people why.", ""),
        ("Name the allergens without being asked.", "encourage", "Name the allergens", ""),
    ],
)
def test_what_is_forbidden_without_being_asked_is_forbidden(
    rule: str, direction: str, behaviour: str, scope: str
) -> None:
    (clause,) = parse_spec(f"- {rule}").clauses
    assert (clause.direction, clause.behaviour, clause.scope) == (direction, behaviour, scope)


@pytest.mark.parametrize(
    ("written", "direction", "behaviour", "scope", "limit"),
    [
        ("- **Do not** use sarcasm.", "avoid", "Do not use sarcasm.", "", DEFAULT_LIMIT),
        ("- *Never* shout.", "avoid", "Never shout.", "", DEFAULT_LIMIT),
        ("- The bot should **never** joke.", "avoid", "The bot should never joke.", "", DEFAULT_LIMIT),
        ("- You must **never** promise a refund.", "avoid", "You must never promise a refund.", "", DEFAULT_LIMIT),
        ("You should __not__ lecture people.", "avoid", "You should not lecture people.", "", DEFAULT_LIMIT),
        ("**Do not** name competitors.", "avoid", "Do not name competitors.", "", DEFAULT_LIMIT),
        ("- **At most 5%** of answers may hold links.", "avoid", "At most 5% of answers may hold links.", "", 0.05),
        ("- **Flattery:** never.", "avoid", "Flattery", "", DEFAULT_LIMIT),
        ("- Flattery: never.", "avoid", "Flattery", "", DEFAULT_LIMIT),
        ("- **Hedging**: at most 5% of answers.", "avoid", "Hedging", "", 0.05),
        ("- **Emojis.** Only in informal chats.", "avoid", "Emojis", "except in informal chats", DEFAULT_LIMIT),
        ("- **Emojis** – only when asked.", "avoid", "Emojis", "except when asked", DEFAULT_LIMIT),
        ("- **Code:** not in letters.", "avoid", "Code", "in letters", DEFAULT_LIMIT),
        ("- **Jargon:** sparingly.", "avoid", "Jargon", "", DEFAULT_LIMIT),
        ("- **Sources:** always.", "encourage", "Sources", "", DEFAULT_LIMIT),
        ("You never flatter the patient.", "avoid", "You never flatter the patient.", "", DEFAULT_LIMIT),
        ("You may not give discounts.", "avoid", "You may not give discounts.", "", DEFAULT_LIMIT),
        ("- **Style:** Long words.", "encourage", "Long words.", "", DEFAULT_LIMIT),
        ("- **Never:** reveal prices.", "avoid", "reveal prices.", "", DEFAULT_LIMIT),
        ("- **Dates:** only in figures.", "encourage", "only in figures.", "", DEFAULT_LIMIT),
        ("- Never write 2 * 3 or `__init__`.", "avoid", "Never write 2 * 3 or `__init__`.", "", DEFAULT_LIMIT),
    ],
)
def test_bold_words_and_labels_belong_to_their_rule(
    written: str, direction: str, behaviour: str, scope: str, limit: float
) -> None:
    (clause,) = parse_spec(f"You are Nora, a nurse in a small surgery.\n\n{written}\n").clauses
    assert (clause.direction, clause.behaviour, clause.scope) == (direction, behaviour, scope)
    assert clause.limit == limit


def test_a_rule_in_bold_is_no_heading_and_no_label() -> None:
    spec = parse_spec("This is Nora.\n\n**Never name a competitor.**\n\nShe is calm.\n\n- **No emojis.** They grate.\n")
    assert [clause.text for clause in spec.clauses] == ["**Never name a competitor.**", "**No emojis.**"]


@pytest.mark.parametrize(
    "prose", ["A licence is dear and you may not drive at 16.", "In chess you may not touch other pieces."]
)
def test_what_people_may_not_do_elsewhere_is_no_rule(prose: str) -> None:
    spec = parse_spec(f"It answers beginners. {prose} It must never swear.\n")
    assert [clause.text for clause in spec.clauses] == ["It must never swear."]


@pytest.mark.parametrize(
    ("rule", "behaviour", "scope"),
    [
        ("Use emojis only when asked.", "Use emojis", "except when asked"),
        ("Only use emojis when the user does.", "use emojis", "except when the user does"),
        ("It should mention prices only if somebody asks.", "mention prices", "except if somebody asks"),
        ("Only mention competitors when asked.", "mention competitors", "except when asked"),
        ("Use headings only in long guides.", "Use headings", "except in long guides"),
        ("Wine tips only if I ask.", "Wine tips", "except if I ask"),
        ("Use emojis rarely.", "Use emojis", ""),
        ("Use bullet lists sparingly.", "Use bullet lists", ""),
        ("The model should use emojis in moderation.", "use emojis", ""),
        ("Links should be used rarely.", "Links", ""),
        ("Use as few emojis as possible.", "emojis", ""),
        ("Use at most one emoji per answer.", "emoji", ""),
        ("Include no more than two links.", "links", ""),
        ("Keep emojis to a minimum.", "emojis", ""),
        ("Keep emojis out.", "emojis", ""),
        ("Keep the number of links low.", "links", ""),
        ("Keep hedging under 3% of answers.", "hedging", ""),
        ("I could do without the sermons.", "the sermons.", ""),
        ("Give answers without hedging.", "hedging", ""),
        ("Tell the truth without hedging.", "hedging", ""),
        ("Provide answers without links.", "links", ""),
        ("Be warm without being flattering.", "being flattering", ""),
        ("Use words instead of emojis.", "emojis", ""),
        ("Use words, not emojis.", "emojis", ""),
    ],
)
def test_what_is_rationed_or_replaced_is_to_be_avoided(rule: str, behaviour: str, scope: str) -> None:
    (clause,) = parse_spec(f"- {rule}").clauses
    assert (clause.direction, clause.behaviour, clause.scope) == ("avoid", behaviour, scope)
