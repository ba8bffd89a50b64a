"""Where a planner looks things up before it acts: reading tools for one finding, every call written down.

The results are told as text for an LLM: rounded, so that the same data gives the same text on every machine, and
bounded. They go into a prompt as an excerpt, because they hold text of the dataset.
"""

from __future__ import annotations

from typing import Any

from premortem.agent.toolbox import Toolbox
from premortem.prompts.excerpts import ends

EXCERPT = 280
"""Characters of each text of a pair."""


class Desk:
    """The reading tools, bound to one finding and counting the run's steps."""

    def __init__(self, toolbox: Toolbox, step: int, finding_id: str) -> None:
        """Call `toolbox` about `finding_id`, the first call as step number `step`."""
        self._toolbox, self.step, self._finding_id = toolbox, step, finding_id

    def look(self, name: str, **arguments: Any) -> str:
        """Call a reading tool and return what it says; raises ToolError where it cannot be served."""
        try:
            result = self._toolbox.call(self.step, name, finding_id=self._finding_id, **arguments)
        finally:
            self.step += 1
        if name == "score_rule":
            if result.agrees:
                return "The model that will be trained sees the rule at work in these pairs."
            return "The model that will be trained does not tell these pairs from others by the rule; few models can."
        return "\n\n".join(_told(item) for item in result)


def _told(item: Any) -> str:
    if getattr(item, "addressed", ""):
        return f"Row {item.row} is not shown: its text addresses whoever reads it."
    return "\n".join(
        (
            f"Row {item.row}, prompt: {ends(item.prompt, EXCERPT)}",
            f"chosen: {_around(item.chosen, item, 'chosen')}",
            f"rejected: {_around(item.rejected, item, 'rejected')}",
        )
    )


def _around(text: str, item: Any, side: str) -> str:
    """Return the stretch of a text in which the finding's concept fires first, else its beginning."""
    fires = item.spans if item.side == side else ()
    first = min((span.start for span in fires), default=0)
    start = max(0, min(first, len(text) - EXCERPT))
    return ("… " if start else "") + text[start : start + EXCERPT]
