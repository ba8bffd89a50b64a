"""Learning readouts from a few marked responses, in closed form.

What fires in passages and in whole responses of a dataset is projected onto its main directions, and a readout is the
direction that leads from the usual passage to those of the marked responses, with the spread of the data divided out:
Fisher's linear discriminant (Fisher 1936) with a ridge. A marked response need show the concept in one passage only, so
its best passage is taken, by the scores of the round before (multiple-instance learning). Leaving one response out
changes nothing but a mean, so every score that marks are judged by is a leave-one-out score, at no cost.

The two parts are added up in proportion to how well each tells the marked responses from the others when they are left
out. All of this takes milliseconds, so a search may try hundreds of beginnings and keep what agrees with itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD

from premortem.interp.readout import Bag, Bools, Floats, Part, Passages, Readout, best_agreement
from premortem.interp.sides import Responses

PASSAGE_DIMENSIONS = 256
WHOLE_DIMENSIONS = 128
PASSAGE_RIDGE = 0.1
"""Ridge of the passages' covariance, in units of its mean variance."""
WHOLE_RIDGE = 0.3
"""Ridge of the responses' covariance; there are fewer of them."""
SAMPLED = 40_000
"""Passages that the main directions are found on, at most."""
ROUNDS = 3
"""Rounds of picking the best passages where nothing says where to look first."""


@dataclass(frozen=True)
class Plane:
    """The main directions of some rows, with the rows' mean and covariance along them."""

    basis: NDArray[np.float32]
    """`(d_sae, k)`."""
    mean: Floats
    """`(k,)`."""
    inverse: Floats
    """`(k, k)`: inverse of the covariance with its ridge."""

    @classmethod
    def of(cls, rows: sparse.csr_matrix, weights: Floats, dimensions: int, ridge: float) -> Plane:
        """Find the main directions of `rows` (n, d_sae) with features weighted by `weights` (d_sae,)."""
        weighted = (rows @ sparse.diags(weights.astype(np.float32))).tocsr()
        k = max(1, min(dimensions, weighted.shape[0] - 1, weighted.shape[1] - 1))
        svd = TruncatedSVD(k, n_iter=3, random_state=0).fit(weighted)
        basis = (weights[:, None] * svd.components_.T).astype(np.float32)
        points = np.asarray(rows @ basis, dtype=np.float64)
        covariance = np.cov(points.T).reshape(k, k)
        inverse = np.linalg.inv(covariance + (ridge * np.trace(covariance) / k + 1e-9) * np.eye(k))
        return cls(basis, points.mean(0), inverse)

    def features(self, direction: Floats) -> Floats:
        """Return the weights on features, `(d_sae,)`, that score along a whitened `direction` (k,)."""
        return np.asarray(self.basis @ direction, dtype=np.float64)


class Points(NamedTuple):
    """Some responses in the planes."""

    passages: NDArray[np.float32]
    """`(n_passages, k)`."""
    layout: Passages
    """Which passages are whose."""
    wholes: NDArray[np.float32]
    """`(n, k)`."""


class Learnt(NamedTuple):
    """What marks have taught."""

    scores: Floats
    """`(n,)`: each response's score; those of marked responses by what the other marked ones taught."""
    passages: Floats
    """`(n_passages,)`: the score of each passage, unscaled."""
    heading: Floats
    """`(k,)`: the direction in the plane of passages that these scores go by."""
    readout: Readout
    """The readout; its threshold is where the scores agree best with the marks."""


def averages(bag: Bag, some: NDArray[np.int64]) -> sparse.csr_matrix:
    """Return the mean of each of the passages `some` (n,), ascending, in `bag`, as `(n, d_sae)`."""
    layout, d_sae = bag.passages, bag.x.shape[1]
    parts = [sparse.csr_matrix((0, d_sae), dtype=np.float32)]
    for i, starts, units in bag.runs():
        first, last = layout.starts[[i, i + len(starts) - 1]]
        mine = some[np.searchsorted(some, first) : np.searchsorted(some, last)] - first
        if len(mine):
            parts.append(Passages.of(starts).means()[mine] @ units.matrix(d_sae))
    return sparse.vstack(parts, format="csr")


class Learner:
    """The planes of a dataset, and its responses in them."""

    def __init__(self, responses: Responses) -> None:
        """Find the planes of `responses`."""
        self.responses = responses
        bag, layout = responses.bag, responses.bag.passages
        n = len(layout.begin)
        some = np.sort(np.random.default_rng(0).permutation(n)[:SAMPLED])
        rows = averages(bag, some)
        share = np.asarray((rows > 0).mean(0)).ravel()
        rarity = np.sqrt(np.log(1 / np.clip(share, 1e-4, 1.0)) + 1e-3)  # square root of the inverse document frequency
        self.passage_plane = Plane.of(rows, rarity, PASSAGE_DIMENSIONS, PASSAGE_RIDGE)
        wholes = min(WHOLE_DIMENSIONS, len(bag) // 3)
        self.whole_plane = Plane.of(bag.x, np.ones(bag.x.shape[1]), wholes, WHOLE_RIDGE)

    @cached_property
    def points(self) -> Points:
        """The dataset's own responses in the planes."""
        return self.project(self.responses.bag)

    def project(self, bag: Bag) -> Points:
        """Return the responses of `bag` in the planes."""
        basis = self.passage_plane.basis
        parts = [np.zeros((0, basis.shape[1]), np.float32)]
        for _, starts, units in bag.runs():
            parts.append(Passages.of(starts).means() @ (units @ basis))
        wholes = np.asarray(bag.x @ self.whole_plane.basis, dtype=np.float32)
        return Points(np.concatenate(parts), bag.passages, wholes)

    def along(self, heading: Floats) -> Floats:
        """Return the scores of the dataset's passages, (n_passages,), by a direction in their plane, (k,)."""
        return np.asarray(self.points.passages @ heading.astype(np.float32), dtype=np.float64)

    def fit(self, y: Bools, first: Floats | None = None) -> Learnt:
        """Learn from the marks `y` (2 * n_pairs,) on the dataset's responses, against all of them.

        `first` (n_passages,) scores the passages to begin with; without it the marked responses' mean passage does.
        """
        means = self.passage_plane.mean, self.whole_plane.mean
        return self._fit(self.points, y, means, first)

    def fit_pairs(self, bag: Bag) -> Readout:
        """Learn from minimal pairs: what tells the first half of `bag` from the second, the data's spread divided out.

        The readout's scale and threshold are those of the pairs, and do not carry over to the dataset.
        """
        points = self.project(bag)
        y = np.arange(len(bag)) < len(bag) // 2
        others = np.repeat(~y, np.diff(points.layout.starts))
        means = points.passages[others].mean(0, dtype=np.float64), points.wholes[~y].mean(0, dtype=np.float64)
        return self._fit(points, y, means, None).readout

    def _fit(self, points: Points, y: Bools, usual: tuple[Floats, Floats], first: Floats | None) -> Learnt:
        passages, local, left_out = self._local(points, y, usual[0], first)
        whole = self.whole_plane.inverse @ (points.wholes[y].mean(0, dtype=np.float64) - usual[1])
        raw_whole = points.wholes @ whole.astype(np.float32)
        parts = [
            (raw_whole, self._whole_left_out(points, y, usual[1]), self.whole_plane.features(whole)),
            (points.layout.best(passages), left_out, self.passage_plane.features(local)),
        ]
        scores = np.zeros(len(y))
        learnt: list[Part] = []
        for raw, out, weights in parts:
            mean, spread = float(raw[~y].mean()), float(raw[~y].std()) + 1e-9
            z = (np.where(y, out, raw) - mean) / spread
            trust = max(float(z[y].mean()), 0.0) / (1.0 + float(z[y].var()))
            scores += trust * z
            learnt.append(Part.of(weights, mean, spread / trust) if trust > 0 else Part())
        readout = Readout(learnt[0], learnt[1], best_agreement(scores, y))
        return Learnt(scores, passages, local, readout)

    def _local(self, points: Points, y: Bools, usual: Floats, first: Floats | None) -> tuple[Floats, Floats, Floats]:
        """Return passage scores, the direction they come from, and each marked response's best without itself."""
        layout, plane = points.layout, self.passage_plane
        members = np.flatnonzero(y & (np.diff(layout.starts) > 0))
        left_out = layout.best(np.zeros(len(layout.begin)))
        if not len(members):
            return np.zeros(len(layout.begin)), np.zeros_like(usual), left_out
        if first is None:
            mine = np.repeat(y, np.diff(layout.starts))
            first = points.passages @ (plane.inverse @ (points.passages[mine].mean(0) - usual)).astype(np.float32)
            rounds = ROUNDS
        else:
            rounds = 1
        for _ in range(rounds):
            chosen = points.passages[layout.best_of(members, first)].astype(np.float64)
            direction = plane.inverse @ (chosen.mean(0) - usual)
            first = points.passages @ direction.astype(np.float32)
        without = (chosen.sum(0) - chosen) / max(len(members) - 1, 1) - usual
        directions = without @ plane.inverse
        for member, own in zip(members, directions, strict=True):
            a, b = layout.starts[member], layout.starts[member + 1]
            left_out[member] = float((points.passages[a:b] @ own).max())
        return first, direction, left_out

    def _whole_left_out(self, points: Points, y: Bools, usual: Floats) -> Floats:
        """Return the whole score of each marked response by the direction that the other marked ones give."""
        out = np.zeros(len(y))
        chosen = points.wholes[y].astype(np.float64)
        without = (chosen.sum(0) - chosen) / max(len(chosen) - 1, 1) - usual
        out[y] = ((without @ self.whole_plane.inverse) * chosen).sum(1)
        return out
