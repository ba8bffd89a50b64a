"""What an LLM adds to a run: it reads the spec, names what was found, plans, and writes.

Everything it says is asked through one ledger, so a resumed run hears the same again without paying. What it says is
used like a careful colleague's word: the forecast, the choice of pairs and every verdict stay with the tools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from premortem.agent.asking import Asker
from premortem.agent.llm_author import LlmAuthor
from premortem.agent.llm_planner import LlmPlanner
from premortem.agent.planner import BuiltinPlanner
from premortem.agent.spec import Spec
from premortem.agent.understanding import (
    Reading,
    describe_clusters,
    link_rules,
    name_concepts,
    read_rules,
    shown_by,
    write_contrasts,
)
from premortem.interp.errors import SpecError
from premortem.interp.progress import Progress
from premortem.interp.records import Clause, Cluster, Finding

CLUSTER_PROMPTS = 4
"""Prompts of a cluster that describe it."""
MOST_DESCRIBED = 6
"""Clusters of a finding that are described; the smaller ones keep their words."""
BEFOREHAND = 0.2
"""Share of the budget's requests that examples may use up, as much again that links may, and once more for names,
before any edit."""
CALLS_A_NAME = 5
"""Requests for one name: one to find it, four to test it."""
CALLS_A_LINK = 5
"""Requests that say which rule a surprise belongs to: one to find it, four to test it."""
CALLS_KEPT = 4
"""Requests per open finding that writing may not use up, so that planning goes on."""


class Engineer:
    """The LLM's part in one run."""

    def __init__(self, asker: Asker, spec: Spec, rules: BuiltinPlanner, progress: Progress) -> None:
        """Work through `asker` on `spec`; `rules` decide where the LLM does not."""
        self.asker, self.spec, self.progress = asker, spec, progress
        self.planner = LlmPlanner(asker, rules)
        self.author = LlmAuthor(asker, progress)

    def understand(self, bench: Any) -> Reading:
        """Read the spec, have examples written for its rules, and put both on the bench.

        Where the budget allows only some, rules that the library does not know come first.

        Raises SpecError when not even the LLM finds a rule.
        """
        reading = read_rules(self.asker, self.spec)
        if not reading.clauses:
            raise SpecError("no rule found; say what answers should or should not do, one sentence per rule")
        sure = {clause.clause_id for clause in self.spec.clauses}
        shown = [clause for clause in reading.clauses if shown_by(clause) and _worth_examples(clause, sure)]
        named = sorted(shown, key=bench.knows)
        contrasts = write_contrasts(self.asker, named[: self._share_of_calls(1)])
        clauses = [clause if bench.knows(clause) else _with_words(clause, contrasts) for clause in reading.clauses]
        bench.set_clauses(clauses)
        bench.contrasts = dict(contrasts)
        bench.author = self.author
        return reading.model_copy(update={"clauses": tuple(clauses)})

    def link(self, findings: Sequence[Finding], clauses: Sequence[Clause], passages: Callable[[str], Any]) -> Any:
        """Return which surprises among `findings` are about which of the `clauses`: arguments of `link_surprises`."""
        surprises = [finding for finding in findings if finding.kind == "surprise"]
        found = {f.finding_id: passages(f.finding_id) for f in surprises[: self._share_of_calls(CALLS_A_LINK)]}
        linked = link_rules(self.asker, clauses, {key: (each.showing, each.lacking) for key, each in found.items()})
        return [{"finding_id": finding_id, "clause_id": clause_id} for finding_id, clause_id in linked.items()]

    def name(self, bench: Any, findings: Sequence[Finding], passages: Callable[[str], Any]) -> None:
        """Give the concepts of `findings` the names that hold on passages that took no part in finding them.

        Where the LLM's name fails, the built-in one stays, with its own test's figure. Broken rules are named first.
        """
        in_order = sorted(findings, key=lambda finding: finding.kind == "surprise")[
            : self._share_of_calls(CALLS_A_NAME)
        ]
        found = {finding.concept_id: passages(finding.finding_id) for finding in in_order}
        named = name_concepts(self.asker, {key: (each.showing, each.lacking) for key, each in found.items()})
        bench.rename({key: (each.name, True, each.score) for key, each in named.items() if each.tested})

    def describe(self, bench: Any, clusters: Sequence[Cluster]) -> tuple[Cluster, ...]:
        """Return `clusters`, the largest with a phrase that says what their prompts have in common."""
        shown = list(clusters[:MOST_DESCRIBED])
        prompts = [[pair.prompt_text() for pair in _plain(bench, cluster)[:CLUSTER_PROMPTS]] for cluster in shown]
        if not all(prompts):
            return tuple(clusters)
        phrases = describe_clusters(self.asker, prompts)
        told = [c.model_copy(update={"name": name}) if name else c for c, name in zip(shown, phrases, strict=False)]
        return (*told, *clusters[len(told) :])

    def _share_of_calls(self, each: int) -> int:
        """Return how many things that take `each` requests may be asked for before any work on a finding begins."""
        most = self.asker.ledger.budget.calls
        return 10_000 if most is None else max(1, int(BEFOREHAND * most) // each)

    def room(self, calls_made: int, open_findings: int) -> int:
        """Return how many texts may be asked for, so that every open finding gets its share of the budget.

        `calls_made` is the count when the finding's turn began, so that a turn which is taken again after a kill asks
        for the same texts.
        """
        most = self.asker.ledger.budget.calls
        if most is None:
            return 10_000
        return max(0, (most - calls_made) // max(open_findings, 1) - CALLS_KEPT)


def _worth_examples(clause: Clause, sure: Set[str]) -> bool:
    """Whether a clause gets examples: those of what an LLM alone takes for a wish would become pairs."""
    return clause.direction != "encourage" or clause.clause_id in sure


def _with_words(clause: Clause, contrasts: Mapping[str, Any]) -> Clause:
    """Return the clause with the words that give its behaviour away."""
    if clause.clause_id not in contrasts:
        return clause
    return clause.model_copy(
        update={"words": tuple(dict.fromkeys((*clause.words, *contrasts[clause.clause_id].synonyms)))}
    )


def _plain(bench: Any, cluster: Cluster) -> list[Any]:
    """Return the cluster's pairs without those that address their reader."""
    pairs = [bench.pair(row) for row in cluster.rows[: 3 * CLUSTER_PROMPTS]]
    return [pair for pair in pairs if not bench.addressed(pair)]
