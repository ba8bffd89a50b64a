"""The tool `fetch_clusters`: the pairs responsible for a finding, grouped."""

from __future__ import annotations

from premortem.interp.clusters import cluster_rows
from premortem.interp.records import Cluster, Record
from premortem.tools.workbench import Workbench


class ClusterArgs(Record):
    """Arguments of `fetch_clusters`."""

    finding_id: str
    """The finding whose pairs are asked for."""


def fetch_clusters(bench: Workbench, args: ClusterArgs) -> tuple[Cluster, ...]:
    """Return the pairs that carry a finding, grouped by the topic of their prompts, each with its contribution.

    Use it to see where an effect comes from before proposing edits.
    """
    finding = bench.finding(args.finding_id)
    clause = bench.clause_of(finding)
    return cluster_rows(bench.reading, finding, len(bench.held_to(clause).pairs) if clause else None)
