"""Sides: what the lens has read of both responses of each pair, as the data has them or as edits make them.

Nothing here knows what a concept is or how it was found; whoever asks brings readouts.

Tokens may count by one of two weights: how much of them is `news`, or how hard DPO pulls at them, as the start model's
probability p of each tells. The gradient of a token's log-probability by its logit is 1 - p: what is certain already
teaches nothing. What the model would hardly say does not come of raising it a little either, so the pull is
sqrt(p) (1 - p). What real runs say of both stands in `tests/bench/skill.md`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from premortem.interp.errors import DataError
from premortem.interp.news import Text, news
from premortem.interp.pooling import EncodedPairs, ranges
from premortem.interp.readout import Bag, Bools, Floats, Readout, amounts, bag_of

Weight = Literal["news", "pull"]
"""What a token may count by."""


class Weighed(NamedTuple):
    """Tokens added up by what they count."""

    tokens: Floats
    """`(2 * n_pairs,)`: all tokens of each response."""
    firing: sparse.csr_matrix
    """`(2 * n_pairs, d_sae)`: those tokens on which each feature fires."""


@dataclass(frozen=True)
class TokenFacts:
    """What can be asked about some responses whose tokens are known, one response after the other."""

    ids: Callable[[], NDArray[np.int64]]
    """Tells which token each is, `(n_tokens,)`."""
    likelihoods: Callable[[], Floats]
    """Tells how likely the start model finds each, `(n_tokens,)`, in nats, NaN where nothing precedes one."""
    steps: Callable[[], Floats] | None = None
    """Tells what a step of DPO on each pair does to the start model's own answers, `(n_pairs, n_answers)`, see
    `first_order`; None: nobody can."""


class Sides(ABC):
    """What is told of the responses of a dataset, chosen first, rejected below, whoever holds them."""

    groups: NDArray[np.int64]
    """`(n_pairs,)`: pairs with the same number share a prompt; numbered without gaps."""

    @property
    def n_pairs(self) -> int:
        """Number of pairs."""
        return len(self.groups)

    def both(self, values: NDArray) -> tuple[NDArray, NDArray]:
        """Split values per response into those of the chosen and those of the rejected side."""
        return values[: self.n_pairs], values[self.n_pairs :]

    @property
    def prompts(self) -> NDArray[np.int64]:
        """`(n_pairs,)`: the number of each pair's prompt in the data as it was, before any edit."""
        return self.groups

    @property
    def length_difference(self) -> NDArray[np.int64]:
        """`(n_pairs,)`: chosen minus rejected response, in tokens."""
        chosen, rejected = self.both(self.lengths)
        return chosen - rejected

    @property
    @abstractmethod
    def lengths(self) -> NDArray[np.int64]:
        """`(2 * n_pairs,)`: response tokens."""

    @property
    @abstractmethod
    def shares(self) -> sparse.csr_matrix:
        """`(2 * n_pairs, d_sae)`: share of tokens on which each feature fires."""

    @abstractmethod
    def weighed(self, weight: Weight) -> Weighed:
        """Return each response's tokens by what they count; those that only end a response count nothing.

        Raises DataError where nobody knows the tokens.
        """

    @property
    @abstractmethod
    def steps(self) -> Floats:
        """`(n_pairs, n_answers)`: what a step of DPO on each pair does to the start model's own answers.

        See `first_order`. Raises DataError where nobody can tell.
        """

    @abstractmethod
    def scores(self, readout: Readout) -> Floats:
        """Return each response's score, shape (2 * n_pairs,)."""

    @abstractmethod
    def fires(self, readout: Readout) -> Bools:
        """Return which responses show `readout`'s concept, shape (2 * n_pairs,)."""

    @abstractmethod
    def amounts(self, readouts: Sequence[Readout]) -> Floats:
        """Return how much of each response shows each concept, in its unit, shape (2 * n_pairs, n_concepts)."""


class Responses(Sides):
    """All responses of a dataset as the lens has read them."""

    def __init__(
        self,
        bag: Bag,
        groups: NDArray[np.int64],
        facts: TokenFacts | None = None,
        beside: Responses | None = None,
    ) -> None:
        """Hold `2 * n_pairs` responses.

        `facts` knows their tokens; None: nobody does. `beside` are the other responses of the dataset, for what is news
        in these; None: there are none.
        """
        self.bag, self.groups, self.facts, self.beside = bag, groups, facts, beside
        self._scores: dict[int, tuple[Readout, Floats]] = {}
        self._weighed: dict[Weight, Weighed] = {}

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`(2 * n_pairs,)`: response tokens."""
        return np.diff(self.bag.starts)

    @property
    def shares(self) -> sparse.csr_matrix:
        """`(2 * n_pairs, d_sae)`: share of tokens on which each feature fires."""
        if self.bag.shares is None:
            raise ValueError("the shares of tokens were not kept")
        return self.bag.shares

    def weighed(self, weight: Weight) -> Weighed:
        """Return each response's tokens by what they count; worked out once for each weight."""
        if weight not in self._weighed:
            self._weighed[weight] = self._add_up(self._news() if weight == "news" else self._pull())
        return self._weighed[weight]

    @cached_property
    def steps(self) -> Floats:
        """`(n_pairs, n_answers)`: what a step of DPO on each pair does to the start model's own answers."""
        tell = self._known().steps
        if tell is None:
            raise DataError("this forecaster asks for gradients of the start model, and there is no model to ask")
        return tell()

    def _add_up(self, counts: Floats) -> Weighed:
        """Add up tokens that count so much, `(n_tokens,)`, but for those that only end a response."""
        starts, d_sae = self.bag.starts, self.bag.x.shape[1]
        closing = np.minimum(self.bag.closing, np.diff(starts)).astype(np.int64)
        counts[ranges(starts[1:] - closing, closing)] = 0.0
        parts = [sparse.csr_matrix((0, d_sae))]
        for i, some, units in self.bag.runs():
            fires = units.matrix(d_sae)
            fires.data = (fires.data > 0).astype(np.float64)
            own, n = counts[starts[i] :][: len(units)], len(units)
            parts.append(sparse.csr_matrix((own, np.arange(n), some), (len(some) - 1, n)) @ fires)
        tokens = np.add.reduceat(np.append(counts, 0.0), starts[:-1]) * (np.diff(starts) > 0)
        return Weighed(tokens, sparse.vstack(parts, format="csr"))

    @cached_property
    def text(self) -> Text:
        """The tokens; asked for once, since every set of edits is read beside the same data."""
        return Text(self._known().ids(), self.bag.starts)

    def _news(self) -> Floats:
        return news(self.text, np.concatenate([self.groups, self.groups]), self.beside.text if self.beside else None)

    def _pull(self) -> Floats:
        log = self._known().likelihoods()
        return np.asarray(np.nan_to_num(np.exp(log / 2) * -np.expm1(log)))

    def _known(self) -> TokenFacts:
        if self.facts is None:
            raise DataError("this forecaster asks about each token, and nobody knows the tokens")
        return self.facts

    def scores(self, readout: Readout) -> Floats:
        """Return each response's score, shape (2 * n_pairs,), read-only; worked out once for each readout."""
        if id(readout) not in self._scores:
            self._scores[id(readout)] = readout, readout.score(self.bag)
            self._scores[id(readout)][1].flags.writeable = False
        return self._scores[id(readout)][1]

    def fires(self, readout: Readout) -> Bools:
        """Return which responses show `readout`'s concept, shape (2 * n_pairs,)."""
        return np.asarray(self.scores(readout) > readout.threshold)

    def amounts(self, readouts: Sequence[Readout]) -> Floats:
        """Return how much of each response shows each concept, in its unit, shape (2 * n_pairs, n_concepts)."""
        return amounts(self.bag, readouts, self.fires)


class Edited(Sides):
    """Responses after some edits: what changed is held apart, and all else is taken over from the data as it was."""

    def __init__(self, before: Responses, kept: NDArray[np.int64], changed: Responses | None) -> None:
        """Hold the pairs `kept` (n_kept,) of `before`, which no edit touches, and then the edited and new ones.

        The groups of `changed` go on with the numbers of `before`; None: pairs were only dropped.
        """
        self.before, self.kept, self.changed = before, kept, changed
        own = before.groups[kept]
        self._prompts = own if changed is None else np.concatenate([own, changed.groups])
        self.groups = np.unique(self._prompts, return_inverse=True)[1]

    @property
    def prompts(self) -> NDArray[np.int64]:
        """`(n_pairs,)`: the number of each pair's prompt in `before`, larger ones for the prompts of new pairs."""
        return self._prompts

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`(2 * n_pairs,)`: response tokens."""
        return self._joined(self.before.lengths, None if self.changed is None else self.changed.lengths)

    @property
    def shares(self) -> sparse.csr_matrix:
        """`(2 * n_pairs, d_sae)`: share of tokens on which each feature fires."""
        return self._stacked(self.before.shares, None if self.changed is None else self.changed.shares)

    def weighed(self, weight: Weight) -> Weighed:
        """Return each response's tokens by what they count."""
        old, new = self.before.weighed(weight), self.changed.weighed(weight) if self.changed else None
        tokens = self._joined(old.tokens, None if new is None else new.tokens)
        return Weighed(tokens, self._stacked(old.firing, None if new is None else new.firing))

    @property
    def steps(self) -> Floats:
        """`(n_pairs, n_answers)`: what a step of DPO on each pair does to the start model's own answers."""
        kept = self.before.steps[self.kept]
        return kept if self.changed is None else np.concatenate([kept, self.changed.steps])

    def scores(self, readout: Readout) -> Floats:
        """Return each response's score, shape (2 * n_pairs,)."""
        return self._joined(self.before.scores(readout), None if self.changed is None else self.changed.scores(readout))

    def fires(self, readout: Readout) -> Bools:
        """Return which responses show `readout`'s concept, shape (2 * n_pairs,)."""
        return self._joined(self.before.fires(readout), None if self.changed is None else self.changed.fires(readout))

    def amounts(self, readouts: Sequence[Readout]) -> Floats:
        """Return how much of each response shows each concept, in its unit, shape (2 * n_pairs, n_concepts)."""
        return self._joined(
            self.before.amounts(readouts), None if self.changed is None else self.changed.amounts(readouts)
        )

    def _joined(self, old: NDArray, new: NDArray | None) -> NDArray:
        return np.concatenate(self._parts(old, new))

    def _stacked(self, old: sparse.csr_matrix, new: sparse.csr_matrix | None) -> sparse.csr_matrix:
        return sparse.vstack(self._parts(old, new), format="csr")

    def _parts(self, old: Any, new: Any) -> list[Any]:
        """Return what was kept and what is new of the chosen side, then of the rejected one."""
        chosen, rejected = (side[self.kept] for side in self.before.both(old))
        if new is None or self.changed is None:
            return [chosen, rejected]
        new_chosen, new_rejected = self.changed.both(new)
        return [chosen, new_chosen, rejected, new_rejected]


class Within(Sides):
    """Some pairs of other sides; nothing is held twice."""

    def __init__(self, whole: Sides, kept: NDArray[np.int64]) -> None:
        """Hold the pairs `kept` (n_kept,) of `whole`, counted from 0."""
        self.whole, self.kept = whole, kept
        self.groups = np.unique(whole.groups[kept], return_inverse=True)[1]
        self._of_both = np.concatenate([kept, kept + whole.n_pairs])

    @property
    def prompts(self) -> NDArray[np.int64]:
        """`(n_pairs,)`: as `whole` numbers them."""
        return self.whole.prompts[self.kept]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`(2 * n_pairs,)`: response tokens."""
        return self.whole.lengths[self._of_both]

    @property
    def shares(self) -> sparse.csr_matrix:
        """`(2 * n_pairs, d_sae)`: share of tokens on which each feature fires."""
        return self.whole.shares[self._of_both]

    def weighed(self, weight: Weight) -> Weighed:
        """Return each response's tokens by what they count."""
        tokens, firing = self.whole.weighed(weight)
        return Weighed(tokens[self._of_both], firing[self._of_both])

    @property
    def steps(self) -> Floats:
        """`(n_pairs, n_answers)`: what a step of DPO on each pair does to the start model's own answers."""
        return self.whole.steps[self.kept]

    def scores(self, readout: Readout) -> Floats:
        """Return each response's score, shape (2 * n_pairs,)."""
        return self.whole.scores(readout)[self._of_both]

    def fires(self, readout: Readout) -> Bools:
        """Return which responses show `readout`'s concept, shape (2 * n_pairs,)."""
        return self.whole.fires(readout)[self._of_both]

    def amounts(self, readouts: Sequence[Readout]) -> Floats:
        """Return how much of each response shows each concept, in its unit, shape (2 * n_pairs, n_concepts)."""
        return self.whole.amounts(readouts)[self._of_both]


def responses_of(
    encoded: EncodedPairs,
    groups: NDArray[np.int64],
    closing: NDArray[np.int64] | int = 0,
    facts: TokenFacts | None = None,
    beside: Responses | None = None,
) -> Responses:
    """Stack both sides of `encoded`; `closing` (n_pairs,) tokens at the end of each side only end it.

    `facts` and `beside` are those of `Responses`.
    """
    return Responses(bag_of(encoded.chosen, encoded.rejected, closing=closing), groups, facts, beside)
