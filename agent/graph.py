"""The agent, on one screen.

    read ─► understand ─► forecast ─► judge ─► next_finding ─► propose ─► verify ─► decide
                                                │   ▲            │                    │
                                                │   └─ closed ───┘                    │
                                                │   └── closed, or its turn is over ──┘
                                                └─ none left ─► conclude

Between any two nodes the state is on disk (`durability="sync"`). A killed run starts again at the node it was in, from
that node's first line; so nodes write only upserts, and the state holds ids and counters, never text or tensors.
What the nodes do is in `nodes`; what to try next is decided by a `planner`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langsmith import tracing_context

from premortem.agent.database import clear_errors
from premortem.agent.nodes import Nodes
from premortem.agent.state import RunState, first_state


def build_graph(nodes: Nodes) -> StateGraph[RunState, None, RunState, RunState]:
    """Return the graph of one run."""
    graph = StateGraph(RunState)
    for name in ("read", "understand", "forecast", "judge", "next_finding", "propose", "verify", "decide", "conclude"):
        graph.add_node(name, getattr(nodes, name))
    graph.add_edge(START, "read")
    graph.add_edge("read", "understand")
    graph.add_edge("understand", "forecast")
    graph.add_edge("forecast", "judge")
    graph.add_edge("judge", "next_finding")
    graph.add_conditional_edges("next_finding", after_next_finding, ["propose", "conclude"])
    graph.add_conditional_edges("propose", after_propose, ["verify", "next_finding"])
    graph.add_edge("verify", "decide")
    graph.add_edge("decide", "next_finding")
    graph.add_edge("conclude", END)
    return graph


def after_next_finding(state: RunState) -> str:
    """Work on the finding whose turn it is, or conclude when none is left."""
    return "propose" if state["turn"] else "conclude"


def after_propose(state: RunState) -> str:
    """Verify what is to be tested; a finding with nothing to test is closed."""
    return "verify" if state["testing"] else "next_finding"


def run_graph(nodes: Nodes, run_id: str, checkpoints: Path, recursion_limit: int) -> None:
    """Run the graph to its end, from the last checkpoint if there is one.

    Nothing is traced to LangSmith, whatever the environment says; checkpoints may hold no type but plain values.
    Raises StoreError when the checkpoint file cannot be used, GraphRecursionError beyond `recursion_limit` nodes.
    """
    config: Any = {"configurable": {"thread_id": run_id}, "recursion_limit": recursion_limit}
    with clear_errors(checkpoints), closing(sqlite3.connect(checkpoints, check_same_thread=False)) as connection:
        saver = SqliteSaver(connection, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        graph = build_graph(nodes).compile(checkpointer=saver)
        begun = saver.get_tuple(config) is not None
        if begun and not graph.get_state(config).tasks:  # not `.next`: it leaves out a task whose writes are saved
            return
        with tracing_context(enabled=False):
            for _ in graph.stream(None if begun else first_state(), config, stream_mode="updates", durability="sync"):
                pass
