"""Pairs that address their reader, as findings of their own.

A pair that tells the agent to ignore its rules, or carries a turn that nobody wrote, is an attack on whoever reads the
data with an LLM, and a bad thing to train on. It is found by its words (`interp.addressed`), so it concerns no concept
of the lens: there is nothing to trace and nothing to rewrite. It is reported, and its text is shown to no LLM.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from premortem.interp.addressed import addressed_all
from premortem.interp.effects import Z90
from premortem.interp.records import Finding, Pair, content_id
from premortem.tools.workbench import Workbench


def injections(bench: Workbench) -> tuple[Finding, ...]:
    """Return one finding per shape of text that addresses its reader, the commonest first."""
    by_reason: dict[str, list[Pair]] = defaultdict(list)
    for pair in bench.dataset.pairs:
        if reason := bench.addressed(pair):
            by_reason[reason].append(pair)
    n_pairs = len(bench.dataset.pairs)
    found = [_finding(reason, pairs, n_pairs) for reason, pairs in by_reason.items()]
    return tuple(sorted(found, key=lambda finding: (-len(finding.rows), finding.name)))


def _finding(reason: str, pairs: list[Pair], n_pairs: int) -> Finding:
    signs = np.zeros(n_pairs)
    chosen, rejected = (addressed_all([pair.text(side) for pair in pairs]) for side in ("chosen", "rejected"))
    signs[: len(pairs)] = [bool(one) - int(bool(other)) for one, other in zip(chosen, rejected, strict=True)]
    effect, error = float(signs.mean()), float(Z90 * signs.std() / np.sqrt(n_pairs))
    return Finding(
        finding_id=content_id("finding", "injection", reason),
        clause_id=None,
        concept_id=content_id("addressed", reason),
        kind="injection",
        name=f"text that {reason}",
        topic=None,
        effect=effect,
        low=effect - error,
        high=effect + error,
        rows=tuple(pair.row for pair in pairs),
        note="these pairs address whoever reads the data; look at them, and drop them unless they belong there",
    )
