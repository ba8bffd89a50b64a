"""What an endpoint understands, and answers that have to be asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from premortem.agent.asking import MAX_TOKENS, MOST_TOKENS, PROBE_TOKENS, Asker, Question
from premortem.agent.chat import Dialect, find_json
from premortem.agent.ledger import Budget, Ledger
from premortem.agent.llm import Endpoint
from premortem.agent.store import Store
from premortem.interp.errors import LlmMisconfigured, LlmStopped, LlmUnusable
from premortem.interp.records import Record
from scripted_llm import Response, ScriptedLlm, completion, fails, refused, said

pytestmark = pytest.mark.usefixtures("socket_enabled", "quiet")


class Colour(Record):
    """A colour."""

    name: str
    """Its name."""


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Callable[..., Asker]]:
    """Make an asker of the endpoint at an address."""
    with Store(tmp_path / "premortem.db") as store:
        store.begin_run("r", spec="", settings={}, forecaster="excess")

        def make(server: ScriptedLlm, budget: Budget | None = None, **options: Any) -> Asker:
            endpoint = Endpoint(server.address, timeout=2.0, **{"retries": 0, **options})
            return Asker(Ledger(store, "r", endpoint, budget), "m")

        yield make


QUESTION = Question(purpose="plan", system="You name colours.", user="A colour?", source="colour@1")
Make = Callable[..., Asker]


def only(texts: list[str | Response]) -> Callable[[int, dict[str, Any]], Response | None]:
    """Answer the questions after the probes with `texts` in turn, the last one for ever."""

    def answer(n: int, body: dict[str, Any]) -> Response | None:
        if "colours" not in body["messages"][0]["content"]:
            return None
        after = sum(m["role"] == "assistant" for m in body["messages"])
        at = after if body.get("max_tokens", 0) <= MAX_TOKENS else after + 1
        found = texts[min(at, len(texts) - 1)]
        return completion(found) if isinstance(found, str) else found

    return answer


GOOD = '{"name": "blue"}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Sure! Here you are:\n```\n{GOOD}\n```\nAnything else?",
        f"<think>Is it {{red}}? No. {{\"name\": \"red\"}}</think>\n{GOOD}",
        f"Let me think about the sky. It is clear. {GOOD}",
        f"\ufeff {GOOD}",
    ],
)  # fmt: skip
def test_an_answer_is_found_in_what_stands_around_it(text: str, asker: Make) -> None:
    with ScriptedLlm(misbehave=only([text])) as server:
        assert asker(server).ask(QUESTION, Colour) == Colour(name="blue")
        assert len(server.requests) == 3, "two probes and the question"


@pytest.mark.parametrize(
    "text",
    [
        "", "I would rather not.", "{", '{"colour": "blue"}', '{"name": 3}', '{"name": "blue", "shade": 1}', "[]",
        "null", "NaN", '{"\\ud800": 1}', "[" * 5000, '{"a":' * 5000, "9" * 5000,
        f'{{"name": "blue", "{"k" * 90_000}": 1}}', '{"name": "blue", "\\ud800": 1}',
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_an_answer_that_cannot_be_used_goes_back_with_the_reason(text: str, asker: Make) -> None:
    with ScriptedLlm(misbehave=only([text, GOOD])) as server:
        assert asker(server).ask(QUESTION, Colour) == Colour(name="blue")
        *_, answer, reason = server.requests[-1].body["messages"]
    assert answer["role"] == "assistant"
    assert reason["content"].startswith("This cannot be used: ")
    assert len(answer["content"]) + len(reason["content"]) < 6000


def test_half_a_character_in_an_answer_is_replaced_before_anything_is_made_of_it(asker: Make) -> None:
    with ScriptedLlm(misbehave=only(['{"name": "blue \\ud83d"}'])) as server:
        assert asker(server).ask(QUESTION, Colour) == Colour(name="blue \ufffd")


def test_an_answer_that_cannot_be_used_is_given_up_after_two_repairs(asker: Make) -> None:
    with ScriptedLlm(misbehave=only(["Never mind."])) as server:
        told = fails(LlmUnusable, lambda: asker(server).ask(QUESTION, Colour))
        assert len(server.requests) == 2 + 3
    assert "there is no JSON value in it" in told


def test_an_answer_that_was_cut_off_is_asked_for_again_with_more_room(asker: Make) -> None:
    with ScriptedLlm(misbehave=only([completion('{"name": "bl', finish="length"), GOOD])) as server:
        assert asker(server).ask(QUESTION, Colour) == Colour(name="blue")
        before, after = (asked.body for asked in server.requests[-2:])
    assert (before["max_tokens"], after["max_tokens"]) == (MAX_TOKENS, 4 * MAX_TOKENS)
    assert before["messages"] == after["messages"]


def test_an_answer_that_only_repeats_itself_gets_no_more_room(asker: Make) -> None:
    loop = '{"name": "a colour like the sky on a clear morning and ' + "like the sea in the evening and then again " * 9
    with ScriptedLlm(misbehave=only([completion(loop, finish="length"), GOOD])) as server:
        assert asker(server).ask(QUESTION, Colour) == Colour(name="blue")
        before, after = (asked.body for asked in server.requests[-2:])
    assert (before["max_tokens"], after["max_tokens"]) == (MAX_TOKENS, MAX_TOKENS)
    returned, why = after["messages"][-2:]
    assert loop.startswith(returned["content"]) and len(returned["content"]) < 160
    assert "repeated itself" in why["content"]


THOUGHTS: dict[str, Callable[[str | None], Response]] = {
    "in the text": lambda text: completion(f"<think>Is it {{}}?</think>{text}" if text else '<think>{"name": "red"}'),
    "beside it": lambda text: completion(text, reasoning_content="Is it?"),
    "beside it, elsewhere": lambda text: completion(text, reasoning="Is it?"),
    "as a part": lambda text: completion(
        [{"type": "thinking", "thinking": "Is it?"}, {"type": "text", "text": text or ""}]  # type: ignore[arg-type]
    ),
    "counted": lambda text: said({"content": text}, usage=HIDDEN),
}  # fmt: skip
"""How endpoints show that a model thinks; without a text the answer never came."""
HIDDEN: Any = {"prompt_tokens": 9, "completion_tokens": 99, "completion_tokens_details": {"reasoning_tokens": 90}}


def cut(response: Response) -> Response:
    """Return the completion as one that ended for want of room."""
    return Response(response.body.replace(b'"finish_reason": "stop"', b'"finish_reason": "length"'))


def thinker(shown: str, needs: int, final: str = GOOD) -> Callable[[int, dict[str, Any]], Response | None]:
    """Think for `needs` tokens before every answer."""

    def answer(n: int, body: dict[str, Any]) -> Response | None:
        if body["max_tokens"] < needs:
            return cut(THOUGHTS[shown](None))
        ready = "ready" in body["messages"][-1]["content"]
        return THOUGHTS[shown]('{"word": "ready"}' if ready else final)

    return answer


@pytest.mark.parametrize("shown", THOUGHTS)
def test_a_model_that_thinks_gets_more_room_from_the_first_question_on(shown: str, asker: Make) -> None:
    with ScriptedLlm(misbehave=thinker(shown, needs=0)) as server:
        assert asker(server).ask(QUESTION, Colour) == Colour(name="blue")
        assert [asked.body["max_tokens"] for asked in server.requests] == [PROBE_TOKENS, MOST_TOKENS, MOST_TOKENS]
        assert asker(server).ask(QUESTION, Colour) == Colour(name="blue")
        assert len(server.requests) == 3, "a resumed run knows it too"


def test_a_model_that_thinks_in_a_small_context_is_asked_with_the_room_that_it_has(asker: Make) -> None:
    usual = thinker(next(iter(THOUGHTS)), needs=0)

    def small(n: int, body: dict[str, Any]) -> Response | None:
        full = refused(400, "'max_tokens' is too large: this model's maximum context length is 4096 tokens")
        return full if body["max_tokens"] > 4096 else usual(n, body)

    with ScriptedLlm(misbehave=small) as server:
        made = asker(server)
        assert made.ask(QUESTION, Colour) == Colour(name="blue")
        assert made.dialect.limit_name == "max_tokens"
        assert max(asked.body["max_tokens"] for asked in server.requests[-1:]) <= 4096


def test_a_refusal_that_has_nothing_to_do_with_room_leaves_a_thinking_model_its_room(asker: Make) -> None:
    usual = thinker(next(iter(THOUGHTS)), needs=0)

    def schemaless(n: int, body: dict[str, Any]) -> Response | None:
        form = body.get("response_format", {}).get("type")
        return refused(400, "no schemas here") if form == "json_schema" else usual(n, body)

    with ScriptedLlm(misbehave=schemaless) as server:
        made = asker(server)
        assert made.ask(QUESTION, Colour) == Colour(name="blue")
        assert made.dialect.schema_mode == "json_object"
        assert server.requests[-1].body["max_tokens"] == MOST_TOKENS


@pytest.mark.parametrize("shown", THOUGHTS)
def test_a_probe_that_was_cut_off_in_the_thinking_is_repeated_with_more_room(shown: str, asker: Make) -> None:
    with ScriptedLlm(misbehave=thinker(shown, needs=MOST_TOKENS)) as server:
        made = asker(server)
        assert made.dialect.schema_mode == "json_schema"
        assert made.ask(QUESTION, Colour) == Colour(name="blue")
        assert [asked.body["max_tokens"] for asked in server.requests] == [PROBE_TOKENS, *[MOST_TOKENS] * 3]


@pytest.mark.parametrize("shown", THOUGHTS)
def test_thinking_without_end_is_given_up_and_not_sent_back(shown: str, asker: Make) -> None:
    def endless(n: int, body: dict[str, Any]) -> Response | None:
        ready = "ready" in body["messages"][-1]["content"]
        return THOUGHTS[shown]('{"word": "ready"}') if ready else cut(THOUGHTS[shown](None))

    with ScriptedLlm(misbehave=endless) as server:
        fails(LlmUnusable, lambda: asker(server).ask(QUESTION, Colour))
        assert len(server.requests) == 3, "two probes and the question"


@pytest.mark.parametrize(
    "text",
    ['<think>Perhaps {"name": "red"}', 'Well.\n<think>{"name": "red"}', "<think>No.</think><think>Or [1]", "<think>"],
)
def test_json_in_thinking_that_never_ends_is_no_answer(text: str) -> None:
    with pytest.raises(ValueError, match="behind the thinking"):
        find_json(text)


@pytest.mark.parametrize(
    "told", ["the tag <think>", "<think>2+2</think>The answer is 4.", "it ends with </think>", "</think> {"]
)
@pytest.mark.parametrize("around", ["%s", " \n%s\n", "```json\n%s\n```"])
def test_an_answer_may_speak_of_thinking(told: str, around: str) -> None:
    assert find_json(around % json.dumps({"name": told})) == {"name": told}


def test_json_that_is_thought_aloud_first_is_not_the_answer() -> None:
    assert find_json('{"name": "red"} or not?</think>{"name": "blue"}') == {"name": "blue"}
    assert find_json('{"name": "see <think> and </think>"}\nThat is all.') == {"name": "see <think> and </think>"}


def test_a_check_may_refuse_what_fits_the_schema(asker: Make) -> None:
    def no_red(colour: Colour) -> None:
        if colour.name == "red":
            raise ValueError("red is taken")

    with ScriptedLlm(misbehave=only(['{"name": "red"}', GOOD])) as server:
        assert asker(server).ask(QUESTION, Colour, no_red) == Colour(name="blue")
        assert "red is taken" in server.requests[-1].body["messages"][-1]["content"]


def test_a_good_endpoint_is_asked_for_native_calls_and_schemas(asker: Make) -> None:
    with ScriptedLlm() as server:
        assert asker(server).dialect == Dialect(tools=True, schema_mode="json_schema")
        assert len(server.requests) == 2


def test_an_endpoint_without_function_calls_writes_json(asker: Make) -> None:
    with ScriptedLlm(native_tools=False) as server:
        assert asker(server).dialect == Dialect(tools=False, schema_mode="json_schema")


@pytest.mark.parametrize(
    "calls",
    [
        [("report_ready", "{}")],
        [("report_ready", '{"word": 3}')],
        [("other", '{"word": "ready"}')],
        [("report_ready", "[")],
        [("report_ready", "[" * 5000)],
    ],
)
def test_function_calls_that_do_not_fit_count_as_none(calls: list[tuple[str, str]], asker: Make) -> None:
    with ScriptedLlm(misbehave=lambda n, body: completion(calls=calls) if "tools" in body else None) as server:
        assert not asker(server).dialect.tools


@pytest.mark.parametrize("native_tools", [True, False])
@pytest.mark.parametrize("refuses", [("temperature",), ("max_tokens",), ("temperature", "max_tokens")])
def test_an_endpoint_is_spoken_to_without_what_it_refuses(
    refuses: tuple[str, ...], native_tools: bool, asker: Make
) -> None:
    def strict(n: int, body: dict[str, Any]) -> Response | None:
        bad = next((name for name in refuses if name in body), None)
        return refused(400, f"Unsupported parameter: '{bad}' is not supported with this model.") if bad else None

    with ScriptedLlm(native_tools=native_tools, misbehave=strict) as server:
        dialect = asker(server).dialect
        assert dialect.temperature == ("temperature" not in refuses)
        assert (dialect.limit_name == "max_tokens") == ("max_tokens" not in refuses)
        assert (dialect.tools, dialect.schema_mode) == (native_tools, "json_schema")
        assert asker(server).ask(QUESTION, Colour) == Colour(name="as usual")


@pytest.mark.parametrize("native_tools", [True, False])
def test_an_endpoint_whose_strict_mode_refuses_bounds_gets_schemas_without(native_tools: bool, asker: Make) -> None:
    def strict(n: int, body: dict[str, Any]) -> Response | None:
        return refused(400, "In context=('properties', 'word'), 'minLength' is not permitted.") if (
            "minLength" in json.dumps(body)
        ) else None  # fmt: skip

    with ScriptedLlm(native_tools=native_tools, misbehave=strict) as server:
        made = asker(server)
        assert made.dialect == Dialect(tools=native_tools, schema_mode="json_schema", bounds=False)
        assert made.ask(QUESTION, Colour) == Colour(name="as usual")


def test_an_endpoint_that_takes_bounds_gets_them(asker: Make) -> None:
    with ScriptedLlm() as server:
        assert asker(server).dialect.bounds
        assert all("minLength" in json.dumps(asked.body) for asked in server.requests)


@pytest.mark.parametrize(
    ("refuses", "mode"), [(("json_schema",), "json_object"), (("json_schema", "json_object"), "none")]
)
def test_an_endpoint_that_takes_no_schema_is_told_it_in_words(refuses: tuple[str, ...], mode: str, asker: Make) -> None:
    def strict(n: int, body: dict[str, Any]) -> Response | None:
        form = body.get("response_format", {}).get("type")
        return refused(400, f"response_format {form} is not supported") if form in refuses else None

    with ScriptedLlm(misbehave=strict) as server:
        made = asker(server)
        assert made.dialect.schema_mode == mode
        assert made.ask(QUESTION, Colour) == Colour(name="as usual")
        assert '"properties": {"name"' in server.requests[-1].body["messages"][0]["content"]


def test_an_endpoint_that_refuses_functions_writes_json(asker: Make) -> None:
    with ScriptedLlm(misbehave=lambda n, body: refused(400, "tools? no") if "tools" in body else None) as server:
        assert asker(server).dialect == Dialect(tools=False, schema_mode="json_schema")


def test_the_probes_are_remembered(asker: Make) -> None:
    with ScriptedLlm() as server:
        assert asker(server).dialect == asker(server).dialect
        assert len(server.requests) == 2


class Paint(Record):
    """Paint it."""

    colour: str
    """Which."""


class Wash(Record):
    """Wash it."""

    hot: bool
    """Whether."""


class Flat(BaseModel):
    action: str
    colour: str
    hot: bool


def choose(made: Asker) -> tuple[str, Record]:
    return made.choose(QUESTION, {"paint": Paint, "wash": Wash}, Flat)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        completion(calls=[("burn", "{}")]),
        completion(calls=[("paint", "{colour: ")]),
        completion(calls=[("paint", "{}")]),
        completion(calls=[("paint", "")]),
        completion(calls=[("paint", "[1]")]),
        completion(calls=[("paint", "[" * 5000)]),
        completion(calls=[("wash", '{"hot": "perhaps"}')]),
        completion(calls=[("\ud800" * 500, "{}")]),
        completion('{"action": "burn"}'),
        completion('{"action": ["paint"]}'),
        completion('{"action": "paint", "arguments": 3}'),
        completion(None),
    ],
)
def test_an_action_that_does_not_exist_is_answered_with_what_there_is(bad: Response, asker: Make) -> None:
    good = completion(calls=[("paint", '{"colour": "blue", "hot": true}')])
    with ScriptedLlm(misbehave=only([bad, good])) as server:
        assert choose(asker(server)) == ("paint", Paint(colour="blue"))
        assert "This cannot be used" in server.requests[-1].body["messages"][-1]["content"]


@pytest.mark.parametrize(
    "text",
    [
        '{"action": "wash", "colour": "", "hot": true}',
        '{"action": "wash", "arguments": {"hot": true}}',
        '{"name": "wash", "arguments": {"hot": true}}',
        'I choose washing.\n```json\n{"action": "wash", "hot": true, "colour": "red"}\n```',
    ],
)
def test_an_action_in_json_is_understood(text: str, asker: Make) -> None:
    with ScriptedLlm(native_tools=False, misbehave=only([text])) as server:
        assert choose(asker(server)) == ("wash", Wash(hot=True))


@pytest.mark.parametrize("native_tools", [True, False])
def test_the_schema_of_actions_is_told_in_words_only_where_no_tools_are_called(native_tools: bool, asker: Make) -> None:
    def schemaless(n: int, body: dict[str, Any]) -> Response | None:
        if "response_format" in body:
            return refused(400, "no schemas")
        paint = completion(calls=[("paint", '{"colour": "blue"}')]) if native_tools else None
        return paint if "colours" in body["messages"][0]["content"] and native_tools else only([TOLD])(n, body)

    with ScriptedLlm(native_tools=native_tools, misbehave=schemaless) as server:
        assert choose(asker(server)) == ("paint", Paint(colour="blue"))
        body = server.requests[-1].body
        assert ("tools" in body) == native_tools
        assert ("this schema" in body["messages"][0]["content"]) != native_tools


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"text": "line one\nline\ttwo"}', {"text": "line one\nline\ttwo"}),
        ('I looked at rows [4, 17]. {"name": "red"}', {"name": "red"}),
        ('2 replacements: {"name": "red"}', {"name": "red"}),
        ('Note {x}: {"name": "red"} and {"name": "blue"}', {"name": "red"}),
        ('<thinking>maybe {"name": "red"} no</thinking>{"name": "blue"}', {"name": "blue"}),
        ('<reasoning>maybe {"name": "red"}</reasoning>\n{"name": "blue"}', {"name": "blue"}),
        ('Here: [{"name": "red"}, {"name": "blue"}]', [{"name": "red"}, {"name": "blue"}]),
        ("[4, 17]", [4, 17]),
        ("7", 7),
    ],
)
def test_find_json_takes_what_models_write(text: str, value: Any) -> None:
    assert find_json(text) == value


@pytest.mark.parametrize(
    "text", ['{"edits": [{"row": 1}, {"row": 2, "text": "and th', '{"edits": [{"row": 1}, ', "{" * 5000]
)
def test_find_json_takes_no_part_of_what_was_cut_off(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON value"):
        find_json(text)


TOLD = '{"action": "paint", "colour": "blue", "hot": true}'


def test_find_json_says_where_there_is_none() -> None:
    assert find_json('x [1, 2] {"a": 1}') in ({"a": 1}, [1, 2])
    for text in ("", "plain", "{,}"):
        with pytest.raises(ValueError, match="no JSON value"):
            find_json(text)


# The ledger


def test_what_is_on_its_way_is_written_down_before_the_ledger_gives_up(tmp_path: Path) -> None:
    """The key is refused for the first of four requests, and for whatever comes after it; the others come late."""

    def first_fails(n: int, body: dict[str, Any]) -> Response | None:
        late = body["messages"][-1]["content"] in ("1?", "2?", "3?")
        return Response(completion("x").body, wait=0.3) if late else refused(401, "no")

    with Store(tmp_path / "premortem.db") as store, ScriptedLlm(misbehave=first_fails) as server:
        store.begin_run("r", spec="", settings={}, forecaster="excess")
        made = Asker(Ledger(store, "r", Endpoint(server.address, retries=0), Budget(tokens=None)), "m")
        made.dialect = Dialect(schema_mode="json_schema")  # type: ignore[misc]
        questions = [QUESTION.model_copy(update={"user": f"{n}?"}) for n in range(9)]
        fails(LlmMisconfigured, lambda: made.ask_all(questions, Colour))
        assert len(store.load_llm_calls("r")) == 3
        assert len(server.requests) == 5, "and one more, to see whether it answers anything"


def test_a_refused_request_does_not_stop_the_others(asker: Make) -> None:
    def refuses_one(n: int, body: dict[str, Any]) -> Response | None:
        return refused(413, "too long") if body["messages"][-1]["content"] == "1?" else only([GOOD])(n, body)

    with ScriptedLlm(misbehave=refuses_one) as server:
        found = asker(server).ask_all([QUESTION.model_copy(update={"user": f"{n}?"}) for n in range(3)], Colour)
    assert [type(each) for each in found] == [Colour, LlmStopped, Colour]


def test_the_same_question_twice_in_a_batch_is_asked_once(asker: Make) -> None:
    with ScriptedLlm(misbehave=only([GOOD])) as server:
        assert asker(server).ask_all([QUESTION, QUESTION], Colour) == [Colour(name="blue")] * 2
        assert len(server.requests) == 3
