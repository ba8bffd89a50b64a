"""Scatter plots, as coordinates: what was forecast against what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from premortem.agent.chart import Mark, Tick, scale, ticks
from premortem.agent.summary import points

SIDE = 480.0
"""Width and height of a scatter plot."""
MARGIN = 46.0


@dataclass(frozen=True)
class Dot:
    """One concept in a scatter plot."""

    label: str
    x: float
    y: float
    low_y: float
    high_y: float
    number: str
    """Forecast and outcome in percentage points."""


@dataclass(frozen=True)
class Scatter:
    """Forecast to the right, outcome upwards; each axis has its own scale."""

    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    """`x` is the height at which the tick stands."""
    zero_x: float
    zero_y: float
    side: float = SIDE
    margin: float = MARGIN


def scatter(marks: Sequence[tuple[float, Mark]]) -> Scatter:
    """Lay out what was forecast, the number, against what came of it, the mark with its interval."""
    x_low, x_high, x_step = scale([Mark("", forecast) for forecast, _ in marks])
    y_low, y_high, y_step = scale([mark for _, mark in marks])

    def across(value: float) -> float:
        return round(MARGIN + (value - x_low) / (x_high - x_low) * (SIDE - 2 * MARGIN), 2)

    def up(value: float) -> float:
        return round(SIDE - MARGIN - (value - y_low) / (y_high - y_low) * (SIDE - 2 * MARGIN), 2)

    return Scatter(
        dots=tuple(
            Dot(
                label=mark.label,
                x=across(forecast),
                y=up(mark.value),
                low_y=up(mark.value if mark.low is None else mark.low),
                high_y=up(mark.value if mark.high is None else mark.high),
                number=f"forecast {points(forecast, 'tokens')}, learned {points(mark.value, 'tokens')}",
            )
            for forecast, mark in marks
        ),
        x_ticks=ticks(x_low, x_high, x_step, across),
        y_ticks=ticks(y_low, y_high, y_step, up),
        zero_x=across(0.0),
        zero_y=up(0.0),
    )
