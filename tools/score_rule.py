"""The tool `score_rule`: what the model that will be trained makes of a rule, in its own words and without the SAE.

A rule in plain words can be scored on a pair by the model itself: how much likelier the rule makes the chosen response
than the rejected one, [log p(chosen | prompt, rule) - log p(chosen | prompt)] - [the same for rejected]. If the pairs
of a finding have other scores than the rest, the model sees in them what the rule is about. It is a second opinion
that needs no feature; a small model understands concrete rules and few abstract ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field
from sklearn.metrics import roc_auc_score

from premortem.interp.errors import ToolError
from premortem.interp.records import Pair, Record, Side
from premortem.interp.tokens import MAX_LENGTH
from premortem.tools.workbench import Workbench

PAIRS = 24
"""Pairs of the finding, and as many others, that are scored."""
SURE = 0.65
"""AUROC from which the model is said to see the rule in the pairs."""


class ScoreArgs(Record):
    """Arguments of `score_rule`."""

    finding_id: str
    """A finding that breaks a clause; its clause is the rule."""
    pairs: int = Field(PAIRS, ge=4, le=200)
    """Pairs of the finding to score, and as many others."""


class RuleScore(Record):
    """What `score_rule` returns."""

    rule: str
    """The rule that was put before the conversation."""
    auroc: float
    """How well the score tells the finding's pairs from others: 0.5 is chance, above it the rule makes what the pairs
    prefer likelier than elsewhere, below it less likely."""
    inside: float
    """Mean score of the finding's pairs, in nats per token."""
    outside: float
    """Mean score of the others."""
    agrees: bool
    """Whether the model sees the rule at work in these pairs."""


def score_rule(bench: Workbench, args: ScoreArgs) -> RuleScore:
    """Ask the model that will be trained how well its own reading of the rule agrees with the finding."""
    finding = bench.finding(args.finding_id)
    clause = bench.clause_of(finding)
    if clause is None:
        raise ToolError("no clause mentions this finding, so there is no rule to score")
    held = set(finding.rows)
    inside = [bench.pair(row) for row in finding.rows[: args.pairs]]
    rest = [pair for pair in bench.readable if pair.row not in held]
    chance = np.random.default_rng(bench.settings.seed)
    outside = [rest[i] for i in sorted(chance.permutation(len(rest))[: len(inside)])]
    if len(inside) < 2 or len(outside) < 2:
        raise ToolError("there are too few pairs to compare")
    scores = rule_scores(bench, clause.text, [*inside, *outside])
    truth = np.arange(len(scores)) < len(inside)
    known = ~np.isnan(scores)
    if not 0 < truth[known].sum() < known.sum():
        raise ToolError("in too many of these pairs one response is empty, so there is nothing to compare")
    auroc = float(roc_auc_score(truth[known], scores[known]))
    told = auroc if finding.effect * (-1.0 if clause.direction == "avoid" else 1.0) >= 0 else 1.0 - auroc
    return RuleScore(
        rule=clause.text,
        auroc=round(auroc, 3),
        inside=round(float(np.nanmean(scores[truth])), 4),
        outside=round(float(np.nanmean(scores[~truth])), 4),
        agrees=told >= SURE,
    )


def rule_scores(bench: Workbench, rule: str, pairs: Sequence[Pair]) -> np.ndarray:
    """Return (n_pairs,) scores in nats per token; NaN where a response is empty.

    Of a response its first `MAX_LENGTH` tokens count: no training reads more.
    """
    model = bench.start_model
    items = [
        (model.prompt_ids(pair.prompt, system), model.answer_ids(pair.text(side))[:MAX_LENGTH])
        for pair in pairs
        for side in _SIDES
        for system in (rule, None)
    ]
    likelihood = model.log_likelihood(items, bench.progress).reshape(len(pairs), 2, 2)
    gain = likelihood[:, :, 0] - likelihood[:, :, 1]
    scores: np.ndarray = gain[:, 0] - gain[:, 1]
    return scores


_SIDES: tuple[Side, Side] = ("chosen", "rejected")
