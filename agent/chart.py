"""Bars with intervals, as coordinates: what the report's SVG is drawn from.

A chart of bars is a column of labels, a plot around a zero line, and a column of numbers. Everything is worked out here
in the units of the SVG's view box, so that the template only places shapes and Jinja2 escapes every label. Nothing here
knows about HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from premortem.agent.diff import excerpt
from premortem.agent.summary import points

WIDTH = 920.0
LEFT, RIGHT = 330.0, 730.0
"""The plot's horizontal borders; labels stand left of it, numbers right of it."""
ROW = 28.0
TOP = 8.0
AXIS = 30.0


Range = tuple[float | None, float | None]
"""Effects from one end to the other; None: without end."""


@dataclass(frozen=True)
class Mark:
    """One row to draw."""

    label: str
    """What it says on the left."""
    value: float
    """The effect, -1 to 1."""
    low: float | None = None
    """Lower end of the interval; None: no whisker."""
    high: float | None = None
    """Upper end of the interval; None: no whisker."""
    style: str = "cannot_tell"
    """CSS class that colours it."""
    note: str = ""
    """What stands after the number."""


@dataclass(frozen=True)
class Bar:
    """A `Mark` with its place in the picture."""

    mark: Mark
    y: float
    """Middle of the row."""
    x: float
    """Left end of the bar."""
    width: float
    """Length of the bar."""
    low_x: float | None
    """Left whisker."""
    high_x: float | None
    """Right whisker."""
    label: str
    """The label, cut to fit."""
    number: str
    """The value in percentage points."""


@dataclass(frozen=True)
class Tick:
    """One line of the grid."""

    x: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Everything the template needs to draw."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    zero: float
    """Where zero stands."""
    height: float
    bottom: float
    """Where the plot ends and the axis begins."""
    band: tuple[float, float] | None = None
    """Left end and width of the tolerated band, when there is one."""
    width: float = WIDTH
    left: float = LEFT
    right: float = RIGHT


def draw(marks: Sequence[Mark], tolerated: Range | None = None, unit: str = "responses") -> Chart:
    """Lay out `marks` from top to bottom; `tolerated` draws the band of tolerated effects.

    `unit` is what the values are shares of.
    """
    low, high, step = scale(marks, tolerated)

    def place(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (RIGHT - LEFT), 2)

    bottom = TOP + ROW * len(marks)
    return Chart(
        bars=tuple(_bar(mark, TOP + ROW * (i + 0.5), place, unit) for i, mark in enumerate(marks)),
        ticks=ticks(low, high, step, place),
        zero=place(0.0),
        height=bottom + AXIS,
        band=None if tolerated is None else _band(tolerated, place),
        bottom=bottom,
    )


def _band(tolerated: Range, place: Callable[[float], float]) -> tuple[float, float]:
    """Return left end and width of a band, which goes to the plot's border where it has no end."""
    low, high = tolerated
    left, right = LEFT if low is None else place(low), RIGHT if high is None else place(high)
    return left, round(right - left, 2)


def ticks(low: float, high: float, step: float, place: Callable[[float], float]) -> tuple[Tick, ...]:
    """Return the lines of a grid from `low` to `high`."""
    values = [low + i * step for i in range(round((high - low) / step) + 1)]
    return tuple(Tick(place(value), f"{100 * value:+.3g}".replace("+0", "0")) for value in values)


def _bar(mark: Mark, y: float, place: Callable[[float], float], unit: str) -> Bar:
    ends = sorted((place(0.0), place(mark.value)))
    return Bar(
        mark=mark,
        y=y,
        x=ends[0],
        width=round(max(ends[1] - ends[0], 1.0), 2),
        low_x=None if mark.low is None else place(mark.low),
        high_x=None if mark.high is None else place(mark.high),
        label=excerpt(mark.label, 46),
        number=points(mark.value, unit),
    )


def scale(marks: Sequence[Mark], tolerated: Range | None = None) -> tuple[float, float, float]:
    """Return lower end, upper end and grid step that hold every mark, whisker and the band; zero is always inside."""
    ends = [0.0, *(end for mark in marks for end in (mark.value, mark.low, mark.high) if end is not None)]
    ends += [end for end in tolerated or () if end is not None]
    low, high = min(ends), max(ends)
    step = nice_step((high - low) / 5 or 0.02)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return low, high if high > low else low + step, step


def nice_step(raw: float) -> float:
    """Return the smallest of 1, 2 or 5 times a power of ten that is at least `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999))
