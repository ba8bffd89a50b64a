"""Clusters: the pairs that carry a finding, sorted into groups that a person can read at once.

Rows are grouped by the topic of their prompts; what belongs to no topic, or to one with few of the rows, stays
together. Each cluster is named by the words that tell its text from the rest of the data, and each row carries its
share of the effect, so the contributions of a finding's clusters sum to the effect of its rows.
"""

from __future__ import annotations

import numpy as np

from premortem.interp.forecast import Reading
from premortem.interp.records import Cluster, Finding, content_id

MIN_ROWS = 4
"""Fewer rows of a topic than this do not make a cluster of their own."""


def cluster_rows(reading: Reading, finding: Finding, n_pairs: int | None = None) -> tuple[Cluster, ...]:
    """Return the clusters of `finding`'s rows, the largest first.

    `n_pairs`: how many pairs its effect is a share of; None: all of `reading`.
    """
    left = list(finding.rows)
    parts: list[tuple[str, list[int]]] = []
    held = set(left)
    shared = [(topic.name, held.intersection(topic.rows)) for topic in reading.topics]
    for name, inside in sorted(shared, key=lambda each: -len(each[1])):
        members = [row for row in left if row in inside]
        if len(members) >= MIN_ROWS:
            parts.append((name, members))
            left = [row for row in left if row not in inside]
    if left:
        parts.append(("other prompts", left))
    weight = 1.0 / (n_pairs or len(reading.pairs))
    return tuple(sorted((_cluster(reading, finding, weight, *part) for part in parts), key=lambda c: -len(c.rows)))


def _cluster(reading: Reading, finding: Finding, weight: float, topic: str, rows: list[int]) -> Cluster:
    inside = np.isin(reading.rows, rows)
    sign = 1.0 if finding.effect >= 0 else -1.0
    sides = [inside, np.zeros_like(inside)]  # the responses that show what is lost are the rejected ones
    name = reading.vocabulary.name(np.concatenate(sides if sign > 0 else sides[::-1])).text
    return Cluster(
        cluster_id=content_id("cluster", finding.finding_id, rows),
        concept_id=finding.concept_id,
        name=f"{topic}: {name}",
        rows=tuple(rows),
        contribution=tuple(sign * weight for _ in rows),
    )
