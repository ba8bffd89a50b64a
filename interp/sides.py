"""Sides: what the lens has read of both responses of each pair, as the data has them or as edits make them.

Nothing here knows what a concept is or how it was found; whoever asks brings readouts.

How hard DPO pulls at a token is told from the start model's probability p of it. The gradient of the token's
log-probability by its logit is 1 - p: what is certain already teaches nothing. What the model would hardly say does
not come of raising it a little either, so the pull is sqrt(p) (1 - p); what real runs say of it stands in
`tests/bench/skill.md`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from premortem.interp.errors import DataError
from premortem.interp.pooling import EncodedPairs, ranges
from premortem.interp.readout import Bag, Bools, Floats, Readout, amounts, bag_of


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

    @property
    @abstractmethod
    def pulls(self) -> Floats:
        """`(2 * n_pairs,)`: how hard DPO pulls at each response's tokens together.

        Raises DataError where nobody knows how likely the start model finds them.
        """

    @property
    @abstractmethod
    def pulled(self) -> sparse.csr_matrix:
        """`(2 * n_pairs, d_sae)`: how hard it pulls at those tokens together on which each feature fires."""

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

    def __init__(self, bag: Bag, groups: NDArray[np.int64], likelihoods: Callable[[], Floats] | None = None) -> None:
        """Hold `2 * n_pairs` responses.

        `likelihoods` tells how likely the start model finds each of their tokens, `(n_tokens,)`, in nats, NaN where
        nothing precedes one; None: nobody knows.
        """
        self.bag, self.groups, self._likelihoods = bag, groups, likelihoods
        self._fires: dict[int, tuple[Readout, Bools]] = {}

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

    @property
    def pulls(self) -> Floats:
        """`(2 * n_pairs,)`: how hard DPO pulls at each response's tokens together."""
        return np.asarray(self._pull.sum(1)).ravel()

    @cached_property
    def pulled(self) -> sparse.csr_matrix:
        """`(2 * n_pairs, d_sae)`: how hard it pulls at those tokens together on which each feature fires."""
        d_sae = self.bag.x.shape[1]
        total = sparse.csr_matrix((len(self.bag), d_sae))
        for begin, end in self.bag.units.blocks():
            fires = self.bag.units.between(begin, end).matrix(d_sae)
            fires.data = (fires.data > 0).astype(np.float64)
            total = total + self._pull[:, begin:end] @ fires
        return total.tocsr()

    @cached_property
    def _pull(self) -> sparse.csr_matrix:
        """`(2 * n_pairs, n_tokens)`: how hard DPO pulls at each token; not at all at those that only end a response."""
        if self._likelihoods is None:
            raise DataError("this forecaster asks how likely the start model finds each token, and nobody knows")
        log, starts = self._likelihoods(), self.bag.starts
        pull = np.nan_to_num(np.exp(log / 2) * -np.expm1(log))
        closing = np.minimum(self.bag.closing, np.diff(starts)).astype(np.int64)
        pull[ranges(starts[1:] - closing, closing)] = 0.0
        return sparse.csr_matrix((pull, np.arange(len(pull)), starts), (len(self.bag), len(pull)))

    def scores(self, readout: Readout) -> Floats:
        """Return each response's score, shape (2 * n_pairs,)."""
        return readout.score(self.bag)

    def fires(self, readout: Readout) -> Bools:
        """Return which responses show `readout`'s concept, shape (2 * n_pairs,); worked out once for each readout."""
        if id(readout) not in self._fires:
            self._fires[id(readout)] = readout, readout.fires(self.bag)
        return self._fires[id(readout)][1]

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
        both = own if changed is None else np.concatenate([own, changed.groups])
        self.groups = np.unique(both, return_inverse=True)[1]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`(2 * n_pairs,)`: response tokens."""
        return self._joined(self.before.lengths, None if self.changed is None else self.changed.lengths)

    @property
    def shares(self) -> sparse.csr_matrix:
        """`(2 * n_pairs, d_sae)`: share of tokens on which each feature fires."""
        return self._stacked(self.before.shares, None if self.changed is None else self.changed.shares)

    @property
    def pulls(self) -> Floats:
        """`(2 * n_pairs,)`: how hard DPO pulls at each response's tokens together."""
        return self._joined(self.before.pulls, None if self.changed is None else self.changed.pulls)

    @property
    def pulled(self) -> sparse.csr_matrix:
        """`(2 * n_pairs, d_sae)`: how hard it pulls at those tokens together on which each feature fires."""
        return self._stacked(self.before.pulled, None if self.changed is None else self.changed.pulled)

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


def responses_of(
    encoded: EncodedPairs,
    groups: NDArray[np.int64],
    closing: NDArray[np.int64] | int = 0,
    likelihoods: Callable[[], Floats] | None = None,
) -> Responses:
    """Stack both sides of `encoded`; `closing` (n_pairs,) tokens at the end of each side only end it.

    `likelihoods` is that of `Responses`.
    """
    return Responses(bag_of(encoded.chosen, encoded.rejected, closing=closing), groups, likelihoods)
