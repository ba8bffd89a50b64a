"""Clears what an unfinished run has left in the database, where it must start again from its beginning.

A run whose checkpoints are lost knows nothing of the edits that it has proposed and judged. Verdicts of before would
count towards what edits may touch, and the last forecast would be asked for edits that no workbench knows. So they go,
and the run finds the same again. What a person decided stays, with the edit that it is about: it waits there without a
verdict, and is exported as decided, whether or not the run proposes it again. What the run has used, and what its LLM
answered, stays as well.
"""

from __future__ import annotations

from premortem.agent.store import Store


def clear_work(store: Store, run_id: str) -> None:
    """Remove the run's tool calls, verdicts, clusters, outcomes, edits without a review and findings without an edit.

    Raises StoreError.
    """
    with store.database.write():
        for table in ("tool_calls", "verdicts", "clusters"):
            store.database.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])
        reviewed = "SELECT edit_id FROM reviews WHERE run_id = ?"
        store.database.execute(f"DELETE FROM edits WHERE run_id = ? AND edit_id NOT IN ({reviewed})", [run_id, run_id])
        answered = "SELECT finding_id FROM edits WHERE run_id = ?"
        store.database.execute(
            f"DELETE FROM findings WHERE run_id = ? AND finding_id NOT IN ({answered})", [run_id, run_id]
        )
        store.database.execute("UPDATE findings SET outcome = NULL, outcome_reason = '' WHERE run_id = ?", [run_id])
