"""Verify: would these edits do what they are for, and nothing else?

The edits of a finding are applied in memory and the forecast is made again. Every objection that holds becomes a
reason, for the set or for one edit, and an edit passes when none holds against it:

- target: the effect must come inside the clause's limit, in the finding's topic where it is confined to one;
- control: as many random edits of the same kinds, anywhere in the pairs that the finding is about, must not do as well;
- collateral: no clause may be pushed out of its limit by more than chance explains or, where it is outside already,
  further than the edits' share of the pairs or its limit explain, and no other concept may be driven further from zero
  than a bound;
- second lens: a lens that the proposer never saw, taught the behaviour on the data as it was, must agree;
- quality: the text must still answer its prompt (see `quality`), judged per edit by the caller.

Nothing here proposes anything, and no LLM takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from premortem.interp.effects import measure
from premortem.interp.forecast import Reading
from premortem.interp.readout import Bools, Readout, signed_rows
from premortem.interp.records import Clause, Collateral, Record
from premortem.interp.sides import Edited, Sides


class VerifyBounds(Record):
    """What a set of edits may cost, and how clearly it must work."""

    collateral: float = Field(0.05, gt=0, le=1)
    """How much further from zero another concept's effect may go, as a share of responses; at least twice the share of
    the pairs that are edited."""
    control_margin: float = Field(0.5, ge=0, le=1)
    """Share of the lead that they can have over random edits at all by which edits must beat those."""
    second_lens_share: float = Field(0.6, ge=0, le=1)
    """Share of the effect that must be gone in the second lens, unless it is inside the limit there."""


class Where(NamedTuple):
    """Which pairs a question is about, by the numbers of their prompts (`Sides.prompts`)."""

    prompts: NDArray[np.int64] | None = None
    """Only those of these prompts, a topic's; None: of all."""
    left_out: NDArray[np.int64] | None = None
    """None of these prompts, which a rule leaves out by its own condition; None: it leaves out none."""

    def marks(self, sides: Sides) -> Bools:
        """Return which pairs of `sides` those are, `(n_pairs,)`."""
        inside = np.ones(sides.n_pairs, dtype=bool) if self.prompts is None else np.isin(sides.prompts, self.prompts)
        return inside if self.left_out is None else inside & ~np.isin(sides.prompts, self.left_out)


EVERYWHERE = Where()


@dataclass(frozen=True)
class Guarded:
    """A concept whose effect is watched: the target, another clause's concept or a bystander."""

    concept_id: str
    name: str
    readout: Readout
    clause: Clause | None = None
    where: Where = EVERYWHERE
    """The pairs that its effect is about."""


@dataclass(frozen=True)
class Measured:
    """An effect with its 90% interval by prompt."""

    effect: float
    low: float
    high: float


@dataclass(frozen=True)
class SetOutcome:
    """What a finding's edits do together."""

    before: Measured
    after: Measured
    control: float | None
    """The effect after random edits, the mean over the draws; None: there were none, as no pair is like a new one."""
    collateral: tuple[Collateral, ...]
    second_before: float | None
    second_after: float | None
    reasons: tuple[str, ...]
    """Objections to the whole set; empty: it passes."""


def effect_of(readout: Readout, responses: Sides, where: Where = EVERYWHERE) -> Measured:
    """Return the effect of `readout` with its 90% interval by prompt, over the pairs that `where` marks."""
    signs = signed_rows(responses.fires(readout), responses.n_pairs)[:, None]
    inside = where.marks(responses)
    if not inside.any():
        return Measured(0.0, 0.0, 0.0)
    table = measure(signs[inside], responses.groups[inside], responses.length_difference[inside])
    return Measured(float(table.effect[0]), float(table.low[0]), float(table.high[0]))


def badness(effect: float, clause: Clause) -> float:
    """Return `effect` in the direction that `clause` guards against."""
    return effect if clause.direction == "avoid" else -effect


def within(effect: float, clause: Clause) -> bool:
    """Whether an effect respects `clause`."""
    allowed = -clause.limit if clause.direction == "encourage" else clause.limit
    return badness(effect, clause) <= allowed + 1e-9


def teach(readout: Readout, first: Reading, second: Reading) -> Readout:
    """Teach the second lens the behaviour that `readout` marks in the data as it was; its own features, its own fit."""
    return second.learner.fit(first.responses.fires(readout)).readout


def judge_set(
    target: Guarded,
    before: Reading,
    after: Sides,
    *,
    controls: Sequence[Edited],
    others: Sequence[Guarded],
    second: tuple[Readout, Sides, Edited] | None,
    n_edits: int,
    bounds: VerifyBounds,
) -> SetOutcome:
    """Decide whether the edits that led from `before` to `after` do their job; see the module's text.

    Args:
        target: the finding's concept with its clause.
        before: the data as it is, through the proposer's lens.
        after: the data with the edits, through the same lens.
        controls: the data with random edits of the same kinds, one per draw.
        others: the concepts that must not suffer.
        second: the behaviour's readout in the second lens, and the data before and after through it.
        n_edits: how many pairs were edited; that many flips alone may move a bystander by twice their share.
        bounds: what is tolerated.
    """
    clause = target.clause
    if clause is None:
        raise ValueError("a set of edits is judged against a clause")
    was, now = (effect_of(target.readout, sides, target.where) for sides in (before.responses, after))
    drawn = [effect_of(target.readout, draw, target.where).effect for draw in controls]
    control = float(np.mean(drawn)) if drawn else None
    touched = n_edits / before.responses.n_pairs
    collateral = tuple(_collateral(other, before.responses, after, touched, bounds) for other in others)
    pair = tuple(effect_of(second[0], sides, target.where) for sides in second[1:]) if second else None
    reasons = [
        *_target_reasons(now, clause),
        *_control_reasons(was, now, control, _carrying(target, before.responses), clause, bounds),
        *(f"pushes '{c.name}' from {c.before:+.3f} to {c.after:+.3f}" for c in collateral if c.breaks),
        *(_second_reasons(pair[0], pair[1], clause, bounds) if pair else ()),
    ]
    moved = tuple(
        sorted((c for c in collateral if abs(c.after - c.before) > 0.01), key=lambda c: -abs(c.after - c.before))
    )
    return SetOutcome(
        was,
        now,
        control,
        moved[:10],
        pair[0].effect if pair else None,
        pair[1].effect if pair else None,
        tuple(reasons),
    )


def _target_reasons(now: Measured, clause: Clause) -> list[str]:
    if within(now.effect, clause):
        return []
    return [f"the effect is still {now.effect:+.3f}, outside the limit of {clause.limit:.3f}"]


def _carrying(target: Guarded, responses: Sides) -> float:
    """Return the share of the pairs that a finding is about which carry the effect that its rule guards against."""
    way = 1.0 if target.clause is None or target.clause.direction == "avoid" else -1.0
    signs = signed_rows(responses.fires(target.readout), responses.n_pairs)[target.where.marks(responses)]
    return float((signs * way > 0).mean()) if len(signs) else 0.0


def _control_reasons(
    was: Measured, now: Measured, control: float | None, carrying: float, clause: Clause, bounds: VerifyBounds
) -> list[str]:
    """Say where edits do not clearly better than random ones, of which the share `carrying` meets the effect by luck.

    What all edits of a set take away together, random ones take away in that share; so no set can lead them by more
    than the rest of its own gain.
    """
    sign = 1.0 if clause.direction == "avoid" else -1.0
    gain = sign * (was.effect - now.effect)
    if gain <= 0:
        return [f"the effect comes no nearer its limit ({was.effect:+.3f} before, {now.effect:+.3f} after)"]
    if control is None or sign * (control - now.effect) >= bounds.control_margin * (1 - carrying) * gain:
        return []
    return [f"random edits of the same size do nearly as well ({control:+.3f} against {now.effect:+.3f})"]


def _second_reasons(was: Measured, now: Measured, clause: Clause, bounds: VerifyBounds) -> list[str]:
    sign = 1.0 if clause.direction == "avoid" else -1.0
    if within(now.effect, clause):
        return []
    if sign * (was.effect - now.effect) >= bounds.second_lens_share * sign * was.effect > 0:
        return []
    return [f"the second lens still sees {now.effect:+.3f} (before: {was.effect:+.3f})"]


def _collateral(other: Guarded, before: Sides, after: Sides, touched: float, bounds: VerifyBounds) -> Collateral:
    """Return what becomes of a bystander when the share `touched` of the pairs is edited."""
    was, now = (effect_of(other.readout, sides, other.where) for sides in (before, after))
    breaks = abs(now.effect) > abs(was.effect) + max(bounds.collateral, 2 * touched)
    if (clause := other.clause) is not None and not within(now.effect, clause):
        worse = badness(now.effect, clause) - badness(was.effect, clause)
        breaks |= _told_outside(now, clause) if within(was.effect, clause) else worse > max(clause.limit, touched)
    return Collateral(
        concept_id=other.concept_id,
        name=other.name,
        before=round(was.effect, 6),
        after=round(now.effect, 6),
        breaks=bool(breaks),
    )


def _told_outside(measured: Measured, clause: Clause) -> bool:
    """Whether an effect that is outside a clause's limit can be told from what respects it, as a finding asks too.

    In 100 pairs a limit of one point is a single pair: without this, two answers that happen to show another rule's
    concept would refuse any set of edits.
    """
    if clause.direction == "encourage":
        return measured.high < clause.limit
    return not measured.low <= 0 <= measured.high


def random_rows(rows: NDArray[np.int64], n: int, seed: int) -> list[int]:
    """Draw `n` of `rows` at random for a control, all of them where they are fewer."""
    rng = np.random.default_rng(seed)
    return sorted(int(row) for row in rng.choice(rows, size=min(n, len(rows)), replace=False))
