"""From the activations of tokens to one row per response: how often, how much and how strongly each feature fires.

For a response of n tokens and each feature: `share`, the part of its tokens where the feature fires; `mean`, its
activation averaged over all n tokens; `max`, its largest activation. All three have the same sparsity and share their
index arrays.

Nothing here knows where activations come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

OUTLIER = 6.0
"""A token whose activation is so many times as long as the median of those read with it tells nothing of a lens; the
paper's recipe leaves such tokens out too (arXiv 2606.12360, appendix B)."""
_BLOCK = 16_384
"""Tokens of which a wide copy is made at a time."""


@dataclass(frozen=True)
class TokenFeatures:
    """The features that fire on a run of tokens, as coordinates."""

    token: NDArray[np.int64]
    """`(n_firing,)` index of the token, ascending."""
    feature: NDArray[np.int32]
    """`(n_firing,)` index into the SAE."""
    activation: NDArray[np.float32]
    """`(n_firing,)` above 0."""
    n_tokens: int
    """Tokens in the run, those without a firing feature included."""
    squared_error: NDArray[np.float64]
    """`(n_tokens,)` squared distance of the SAE's reconstruction from the activation it was given."""

    def only(self, tokens: NDArray[np.bool_]) -> TokenFeatures:
        """Return the part on the tokens marked in `tokens`, `(n_tokens,)`, numbered anew."""
        place = np.cumsum(tokens) - 1
        kept = tokens[self.token]
        return TokenFeatures(
            place[self.token[kept]],
            self.feature[kept],
            self.activation[kept],
            int(tokens.sum()),
            self.squared_error[tokens],
        )


@dataclass(frozen=True)
class TokenRows:
    """The firing features of many tokens in compact form, some 4 bytes per firing feature."""

    indptr: NDArray[np.int64]
    """`(n_tokens + 1,)` where each token's features begin."""
    indices: NDArray[Any]
    """`(n_firing,)` index into the SAE; 2 bytes where the SAE is narrow enough."""
    values: NDArray[np.float16]
    """`(n_firing,)` activation, or what has been made of it."""

    @classmethod
    def of(cls, features: TokenFeatures, order: NDArray[np.int64], d_sae: int) -> TokenRows:
        """Keep `features` with their tokens in the order `order`, `(n_tokens,)`."""
        counts = np.bincount(features.token, minlength=features.n_tokens)
        starts = np.concatenate([[0], np.cumsum(counts)])
        at = np.argsort(features.token, kind="stable")
        whole = cls(starts, features.feature[at].astype(_index_type(d_sae)), _half(features.activation[at]))
        return whole.take(order)

    @classmethod
    def joined(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """Return the tokens of all `parts`, one part after the other."""
        offsets = np.concatenate([[0], np.cumsum([part.indptr[-1] for part in parts])])
        indptr = [part.indptr[:-1] + offset for part, offset in zip(parts, offsets[:-1], strict=True)]
        return cls(
            np.concatenate([*indptr, [offsets[-1]]]).astype(np.int64),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.values for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def take(self, tokens: NDArray[np.int64]) -> TokenRows:
        """Return the tokens `tokens`, in that order.

        The places of the features take several times the room of the features, so they are made of one run at a time.
        """
        counts = np.diff(self.indptr)[tokens]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        indices = np.empty(indptr[-1], self.indices.dtype)
        values = np.empty(indptr[-1], self.values.dtype)
        for begin in range(0, len(counts), _BLOCK):
            run = slice(begin, begin + _BLOCK)
            at = ranges(self.indptr[:-1][tokens[run]], counts[run])
            filled = slice(indptr[begin], indptr[begin] + len(at))
            indices[filled], values[filled] = self.indices[at], self.values[at]
        return TokenRows(indptr, indices, values)

    def between(self, begin: int, end: int) -> TokenRows:
        """Return the tokens from `begin` up to `end`, without a copy of their features."""
        a, b = self.indptr[begin], self.indptr[end]
        return TokenRows(self.indptr[begin : end + 1] - a, self.indices[a:b], self.values[a:b])

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield where runs of some thousand tokens begin and end; wide copies are made of one run at a time."""
        for begin in range(0, len(self), _BLOCK):
            yield begin, min(begin + _BLOCK, len(self))

    def matrix(self, d_sae: int) -> sparse.csr_matrix:
        """Return the activations as a matrix, `(n_tokens, d_sae)` float32."""
        shape = (len(self), d_sae)
        return sparse.csr_matrix((self.values.astype(np.float32), self.indices.astype(np.int32), self.indptr), shape)

    def __matmul__(self, dense: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the product with `dense`, `(d_sae,)` or `(d_sae, k)`, of shape (n_tokens,) or (n_tokens, k)."""
        out = np.zeros((len(self), *dense.shape[1:]), dtype=np.float32)
        for begin, end in self.blocks():
            out[begin:end] = self.between(begin, end).matrix(len(dense)) @ dense
        return out


def _index_type(d_sae: int) -> type[np.uint16] | type[np.int32]:
    return np.uint16 if d_sae <= np.iinfo(np.uint16).max else np.int32


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    return np.minimum(values, np.finfo(np.float16).max).astype(np.float16)


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the concatenated index ranges that begin at `starts` with these `lengths`."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


@dataclass(frozen=True)
class Pooled:
    """Features of n responses, pooled over each one's tokens."""

    n_tokens: NDArray[np.int32]
    """`(n,)` response tokens; 0 where there was nothing to read."""
    share: sparse.csr_matrix
    """`(n, d_sae)` share of tokens on which the feature fires, 0 to 1."""
    mean: sparse.csr_matrix
    """`(n, d_sae)` mean activation over all tokens."""
    max: sparse.csr_matrix
    """`(n, d_sae)` largest activation."""
    tokens: TokenRows
    """The tokens behind the rows, response after response."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """`(n + 1,)` where each response's tokens begin in `tokens`."""
        return np.concatenate([[0], np.cumsum(self.n_tokens, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self.n_tokens)

    def without_tokens(self) -> Pooled:
        """Return the rows alone, once nobody asks for their tokens any more: those are the larger part."""
        none = np.zeros(0, dtype=np.float16)
        return replace(self, tokens=TokenRows(np.zeros(1, dtype=np.int64), none.astype(np.uint16), none))

    def take(self, index: NDArray[np.int64] | Sequence[int]) -> Pooled:
        """Return the rows `index`, in that order."""
        share = self.share[index]
        mean, most = (self._on_the_cells_of(share, matrix[index]) for matrix in (self.mean, self.max))
        at = np.asarray(index, dtype=np.int64)
        tokens = self.tokens.take(ranges(self.starts[:-1][at], self.n_tokens[at].astype(np.int64)))
        return Pooled(self.n_tokens[at], share, mean, most, tokens)

    @staticmethod
    def _on_the_cells_of(share: sparse.csr_matrix, other: sparse.csr_matrix) -> sparse.csr_matrix:
        """Let `other` use the index arrays of `share`, so that its own can go before the next is made."""
        other.indices, other.indptr = share.indices, share.indptr
        return other


@dataclass(frozen=True)
class EncodedPairs:
    """Both sides of n pairs through one lens."""

    rows: tuple[int, ...]
    """`Pair.row` of each pair, in the order given. A pair that DPO would drop has 0 tokens on both sides."""
    chosen: Pooled
    """Features of the chosen responses."""
    rejected: Pooled
    """Features of the rejected ones."""


@dataclass(frozen=True)
class FitSums:
    """What adds up over tokens to tell how well a lens reconstructs them."""

    n_tokens: float
    """Tokens."""
    firing: float
    """Features that fired, summed over tokens."""
    squared_error: float
    """Squared distance of the reconstruction, summed over tokens."""
    squared_norm: float
    """Squared norm of the activation, summed over tokens."""
    total: NDArray[np.float64]
    """`(d_in,)` activations summed over tokens."""

    def __add__(self, other: FitSums) -> FitSums:
        return FitSums(
            self.n_tokens + other.n_tokens,
            self.firing + other.firing,
            self.squared_error + other.squared_error,
            self.squared_norm + other.squared_norm,
            self.total + other.total,
        )

    @classmethod
    def of(cls, features: TokenFeatures, activations: NDArray[np.float32]) -> FitSums:
        """Sum over the tokens whose activations, `(n_tokens, d_in)`, gave these features; see `FitRows.of`."""
        owner = np.zeros(len(activations), dtype=np.int64)
        return FitRows.of(features, activations, owner, 1).sum(owner[:1])

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: squared error over squared distance from the mean activation."""
        if not self.n_tokens:
            return float("nan")
        variance = self.squared_norm - float(self.total @ self.total) / self.n_tokens
        return self.squared_error / max(variance, 1e-12)

    @property
    def l0(self) -> float:
        """Mean number of features that fire on a token."""
        return self.firing / self.n_tokens if self.n_tokens else float("nan")


@dataclass(frozen=True)
class FitRows:
    """`FitSums` of n responses, one by one, so that any set of them can be summed."""

    sums: NDArray[np.float64]
    """`(n, 4)` tokens, firing features, squared error and squared norm."""
    total: NDArray[np.float32]
    """`(n, d_in)` activations summed over each response's tokens."""

    @classmethod
    def of(cls, features: TokenFeatures, activations: NDArray[np.float32], owner: NDArray[np.int64], n: int) -> FitRows:
        """Sum over the tokens of each of `n` responses; `owner` (n_tokens,) says whose a token is.

        Outliers are left out: a token that the model parks its attention on may be a hundred times as long as the
        others, and is then all that a sum of squares sees.
        """
        norms = np.einsum("ij,ij->i", activations, activations, dtype=np.float64)
        usual = (norms <= OUTLIER**2 * np.median(norms)).astype(np.float64) if len(norms) else norms
        firing = np.bincount(features.token, minlength=features.n_tokens)
        columns = (usual, firing * usual, features.squared_error * usual, norms * usual)
        sums = np.stack([np.bincount(owner, column, n) for column in columns], axis=1).astype(np.float64)
        member = sparse.csr_matrix((usual, (owner, np.arange(len(owner)))), shape=(n, len(owner)))
        return cls(sums, np.asarray(member @ activations, dtype=np.float32))

    @classmethod
    def joined(cls, parts: Sequence[FitRows]) -> FitRows:
        """Return the responses of all `parts`, one part after the other."""
        return cls(np.concatenate([part.sums for part in parts]), np.concatenate([part.total for part in parts]))

    def sum(self, rows: NDArray[np.int64]) -> FitSums:
        """Return the sums over the responses `rows`."""
        count, firing, error, norm = map(float, self.sums[rows].sum(axis=0))
        return FitSums(count, firing, error, norm, self.total[rows].sum(axis=0, dtype=np.float64))


def pool(features: TokenFeatures, owner: NDArray[np.int64], n_responses: int, d_sae: int) -> Pooled:
    """Pool tokens into responses; `owner`, `(n_tokens,)`, says which response each token belongs to."""
    n_tokens = np.bincount(owner, minlength=n_responses).astype(np.int32)
    cell = owner[features.token] * d_sae + features.feature
    order = np.argsort(cell, kind="stable")
    cells, starts = np.unique(cell[order], return_index=True)
    values = features.activation[order]
    responses, columns = cells // d_sae, (cells % d_sae).astype(np.int32)
    counts = np.diff(np.append(starts, len(values))).astype(np.float32)
    sums = np.add.reduceat(values, starts) if len(starts) else values
    most = np.maximum.reduceat(values, starts) if len(starts) else values
    lengths = n_tokens[responses].astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(responses, minlength=n_responses))])
    tokens = TokenRows.of(features, np.argsort(owner, kind="stable"), d_sae)
    return from_arrays(n_tokens, indptr, columns, counts / lengths, sums / lengths, most, tokens, d_sae)


def from_arrays(
    n_tokens: NDArray[np.int32],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    share: NDArray[np.float32],
    mean: NDArray[np.float32],
    most: NDArray[np.float32],
    tokens: TokenRows,
    d_sae: int,
) -> Pooled:
    """Build the three matrices on one pair of index arrays."""
    shape = (len(n_tokens), d_sae)
    wide = np.int32 if len(indices) < 2**31 else np.int64
    indptr, indices = indptr.astype(wide, copy=False), indices.astype(wide, copy=False)
    matrices = []
    for data in (share, mean, most):
        matrix = sparse.csr_matrix(shape, dtype=np.float32)
        matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
        matrices.append(matrix)
    share_matrix, mean_matrix, max_matrix = matrices
    return Pooled(n_tokens, share_matrix, mean_matrix, max_matrix, tokens)


def no_tokens(d_sae: int) -> TokenRows:
    """Return the token rows of nothing."""
    return TokenRows(np.zeros(1, np.int64), np.zeros(0, _index_type(d_sae)), np.zeros(0, np.float16))


def empty(n: int, d_sae: int) -> Pooled:
    """Return `n` responses without a token."""
    none, indices = np.zeros(0, np.float32), np.zeros(0, np.int32)
    indptr = np.zeros(n + 1, np.int64)
    return from_arrays(np.zeros(n, np.int32), indptr, indices, none, none, none, no_tokens(d_sae), d_sae)


def concatenate(parts: Sequence[Pooled], d_sae: int) -> Pooled:
    """Stack responses; no parts make an empty one."""
    if not parts:
        return empty(0, d_sae)
    offsets = np.concatenate([[0], np.cumsum([part.share.nnz for part in parts])])
    indptr = [part.share.indptr[:-1] + offset for part, offset in zip(parts, offsets[:-1], strict=True)]
    return from_arrays(
        np.concatenate([part.n_tokens for part in parts]),
        np.concatenate([*indptr, [offsets[-1]]]),
        np.concatenate([part.share.indices for part in parts]),
        np.concatenate([part.share.data for part in parts]),
        np.concatenate([part.mean.data for part in parts]),
        np.concatenate([part.max.data for part in parts]),
        TokenRows.joined([part.tokens for part in parts]),
        d_sae,
    )


def content_shares(pooled: Pooled, closing: NDArray[np.int64] | int) -> sparse.csr_matrix:
    """Return the share of tokens on which each feature fires, `(n, d_sae)`, without the last `closing` (n,) tokens.

    Dozens of features fire on the token that ends a response. It is nothing that a response says, and an empty one has
    no other, so that a model which says less would seem to shift all of them by a multiple of everything else.
    """
    cut = np.minimum(closing, pooled.n_tokens).astype(np.int64)
    if not cut.any():
        return pooled.share
    fires = pooled.tokens.take(ranges(pooled.starts[1:] - cut, cut)).matrix(pooled.share.shape[1])
    fires.data[:] = 1.0
    owner = np.repeat(np.arange(len(pooled)), cut)
    ends = sparse.csr_matrix((np.ones(len(owner)), (owner, np.arange(len(owner)))), (len(pooled), len(owner))) @ fires
    counts = (sparse.diags(pooled.n_tokens.astype(np.float64)) @ pooled.share - ends).tocsr()
    counts.data = np.rint(counts.data)
    counts.eliminate_zeros()
    return (sparse.diags(1 / np.maximum(pooled.n_tokens - cut, 1).astype(np.float64)) @ counts).tocsr()
