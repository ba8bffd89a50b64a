"""What an LLM finds wrong with a spec: rules that clash, that no answer shows, or that mean several things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from premortem.agent.asking import Asker, Question
from premortem.interp.errors import LlmError
from premortem.interp.records import Record
from premortem.prompts.rendering import load_prompt

MOST_PROBLEMS = 6
"""Problems of a spec that are told."""
SOUND = {
    "contradiction": "one answer can follow all of these rules",
    "unmeasurable": "whoever reads an answer can see whether it follows this rule",
    "vague": "this rule means one thing and nothing else",
}
"""What is true of rules that lack a problem of a kind."""


class SpecProblem(Record):
    """What stops rules from being checked."""

    rules: list[int]
    """Numbers of the rules, from 1."""
    kind: Literal["contradiction", "unmeasurable", "vague"]
    """What is the matter."""
    what: str
    """The problem in one sentence."""
    suggestion: str
    """What to write instead."""


class ProblemsRead(Record):
    """Answer to the prompt `find_problems`."""

    problems: list[SpecProblem]
    """What cannot be checked."""


class ProblemChecked(Record):
    """Answer to the prompt `check_problem`."""

    real: Literal["yes", "no"]
    """Whether it is true."""


def find_problems(asker: Asker, rules: Sequence[str]) -> tuple[str, ...]:
    """Return what the LLM finds wrong with the rules, as sentences.

    Each is checked by a question that says nothing of the problem: whether the rules concerned are sound. Asked whether
    its own words are true, a small model agrees with the wrong ones and disowns the right ones.
    """
    if not rules:
        return ()
    question = Question.of("find_problems", load_prompt("find_problems").render(rules=list(rules)), 1500)
    (found,) = asker.ask_all([question], ProblemsRead)
    if isinstance(found, LlmError):
        return ()
    claims = [
        (problem, [rules[n - 1] for n in dict.fromkeys(problem.rules) if 1 <= n <= len(rules)])
        for problem in found.problems
    ]
    claims = [(p, about) for p, about in claims if len(about) >= (2 if p.kind == "contradiction" else 1)][
        :MOST_PROBLEMS
    ]
    prompt = load_prompt("check_problem")
    questions = [
        Question.of("check_problem", prompt.render(rules=about, claim=SOUND[problem.kind]), 200)
        for problem, about in claims
    ]
    answers = asker.ask_all(questions, ProblemChecked)
    return tuple(
        f"{problem.kind}: {problem.what} ({' / '.join(about)}) Suggestion: {problem.suggestion}"
        for (problem, about), answer in zip(claims, answers, strict=True)
        if not isinstance(answer, LlmError) and answer.real == "no"
    )
