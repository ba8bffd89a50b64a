"""How the graph calls tools: by name, with checked arguments, every call written down.

A tool is a plain function `tool(bench, args)` in `premortem.tools`, and its `args` annotation is the pydantic model
that its arguments must fit. The toolbox builds that model, calls the function, writes one row to `tool_calls` and adds
the time and the tokens to what the run has spent. A step that is run again after an interruption keeps its number, so
the row is written in place of the old one.

Tools are imported on first use, because they bring torch with them.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, get_type_hints

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from premortem.agent.cells import clean
from premortem.agent.journal import ToolCall
from premortem.agent.store import Store
from premortem.interp.errors import ToolError
from premortem.interp.records import Clause, Cost, Dataset, Edit, LensSummary

Tool = Callable[..., Any]

TOOL_NAMES = (
    "forecast_concepts",
    "fetch_clusters",
    "read_pairs",
    "find_passages",
    "link_surprises",
    "score_rule",
    "propose_edits",
    "synthesise_pairs",
    "verify_edits",
)


class Workbench(Protocol):
    """What the tools work on: dataset, model and lenses. It is never saved; a resumed run builds it again."""

    @property
    def dataset(self) -> Dataset:
        """The pairs."""
        ...

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """The rules of the spec."""
        ...

    @property
    def author(self) -> Any:
        """Who writes texts for the tools; None: nobody."""
        ...

    def lens_summary(self) -> LensSummary:
        """Return the main lens with its fit on the data."""
        ...

    def tokens_encoded(self) -> int:
        """Return how many tokens went through the model since the bench was built."""
        ...

    def remember(self, edits: Sequence[Edit]) -> None:
        """Take back edits that were proposed before the bench was built again; known ones change nothing."""
        ...


class LazyTools(Mapping[str, Tool]):
    """The tools of `premortem.tools` by name, each imported when it is asked for."""

    def __getitem__(self, name: str) -> Tool:
        """Return the tool; raise KeyError when there is none of that name."""
        if name not in TOOL_NAMES:
            raise KeyError(name)
        tool: Tool = getattr(importlib.import_module(f"premortem.tools.{name}"), name)
        return tool

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(TOOL_NAMES)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(TOOL_NAMES)


class Meter:
    """Adds to the run's spending what was used since the last reading, so that a kill loses one step at most."""

    def __init__(self, store: Store, run_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock."""
        self._store, self._run_id, self._clock = store, run_id, clock
        self._seconds, self._tokens = clock(), 0
        self.bench: Workbench | None = None

    def read(self) -> None:
        """Write the seconds and the encoded tokens since the last reading."""
        now, tokens = self._clock(), self.bench.tokens_encoded() if self.bench else 0
        used = Cost(seconds=now - self._seconds, tokens_encoded=tokens - self._tokens, llm_calls=0, llm_tokens=0)
        self._store.spend(self._run_id, used)
        self._seconds, self._tokens = now, tokens


class Toolbox:
    """Calls tools on one bench for one run."""

    def __init__(self, bench: Workbench, tools: Mapping[str, Tool], store: Store, run_id: str, meter: Meter) -> None:
        """Call `tools` on `bench`, writing each call to `store`."""
        self._bench, self._tools, self._store, self._run_id, self._meter = bench, tools, store, run_id, meter

    def call(self, step: int, name: str, **arguments: Any) -> Any:
        """Call a tool as the run's step number `step` and write the call down.

        Raises ToolError, with a hint for the next try, when there is no such tool, the arguments do not fit its model,
        or the tool cannot serve them.
        """
        started = time.monotonic()
        try:
            result = self.ask(name, **arguments)
        except ToolError as error:
            self._write_down(step, name, arguments, {"error": str(error)}, started)
            raise
        self._write_down(step, name, arguments, result, started)
        return result

    def ask(self, name: str, **arguments: Any) -> Any:
        """Call a tool without writing the call down; raises ToolError like `call`."""
        try:
            tool = self._tools[name]
        except KeyError:
            raise ToolError(f"there is no tool {name!r}; there are {', '.join(self._tools)}") from None
        return tool(self._bench, _checked(tool, name, arguments))

    def _write_down(self, step: int, name: str, arguments: object, result: object, started: float) -> None:
        seconds = time.monotonic() - started
        call = ToolCall(step=step, tool=name, arguments=_json(arguments), result=_json(result), seconds=seconds)
        self._store.save_tool_call(self._run_id, call)
        self._meter.read()


def _checked(tool: Tool, name: str, arguments: Mapping[str, Any]) -> Any:
    model = get_type_hints(tool)["args"]
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the arguments"
        raise ToolError(f"{name}: {place}: {first['msg']}") from error


def _json(value: object) -> Any:
    """Return `value` with records as plain JSON values."""
    return to_jsonable_python(clean(_dumped(value)), fallback=str)


def _dumped(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, list | tuple):
        return [_dumped(item) for item in value]
    return value
