"""How much of a finding's behaviour the start model shows already.

Where it is much, the pairs are not where the behaviour comes from, and editing them will not remove it: dropping the
pairs that a cluster points at left hallucinated links almost where they were (arXiv 2606.12360, fine-grained table).
"""

from __future__ import annotations

import numpy as np

from premortem.interp.records import Finding
from premortem.tools.workbench import Workbench

PROMPTS = 16
"""Prompts of the finding's rows that the start model answers."""
MAX_NEW_TOKENS = 48
ALREADY = 0.2
"""Share of its own answers from which the user is warned."""


def with_start_rate(bench: Workbench, finding: Finding) -> Finding:
    """Return `finding` with the share of own answers that show the concept, and a note if it is high.

    Only what is forbidden and rises is measured; another finding comes back as it is.
    """
    if finding.kind != "forbidden" or finding.effect <= 0:
        return finding
    rate = start_rate(bench, finding)
    note = ""
    if rate >= ALREADY:
        note = (
            f"the start model shows this in {rate:.0%} of its own answers to these prompts: editing pairs will not be "
            "enough to remove it"
        )
    return finding.model_copy(update={"start_rate": round(rate, 4), "note": note})


def start_rate(bench: Workbench, finding: Finding) -> float:
    """Return the share of the start model's answers to the finding's prompts in which its concept fires, 0 to 1."""
    prompts = [bench.pair(row) for row in finding.rows[:PROMPTS]]
    answers = bench.start_model.sample(prompts, max_new_tokens=MAX_NEW_TOKENS, seed=bench.settings.seed)
    return float(np.mean(bench.concept(finding.concept_id).readout.fires(bench.heard(prompts, answers))))
