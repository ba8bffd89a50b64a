"""Tracing: where in a response a concept fires.

A response shows a concept because of what its tokens reach. Its sentences are taken away one after the other, each
time the one whose absence lowers the score most, until the concept no longer fires: those sentences are its spans. The
activations are those of the whole response, so this is an estimate of what a rewrite would do; the re-encoding of the
edited text decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from premortem.interp.pooling import TokenRows
from premortem.interp.readout import Bag, Readout, units_of
from premortem.interp.records import Span


def spans(
    readout: Readout,
    tokens: TokenRows,
    d_sae: int,
    offsets: Sequence[tuple[int, int]],
    pieces: Sequence[tuple[int, int]],
) -> tuple[Span, ...]:
    """Return the pieces of a response that make `readout` fire, in order of the text.

    Args:
        readout: the concept.
        tokens: the activations of the response's tokens.
        d_sae: features of the lens.
        offsets: character span of each token in the response's text; empty spans are tokens outside it.
        pieces: character span of each sentence or clause.

    Returns:
        Spans whose `activation` is the drop of the score without the piece, in units of the whole response's margin.
    """
    home = _home(offsets, pieces)
    left = sorted(int(i) for i in np.unique(home) if i >= 0)
    kept = np.ones(len(home), dtype=bool)
    full = now = _score(readout, tokens, d_sae, kept)
    taken: list[tuple[int, float]] = []
    while left and now > readout.threshold:
        without = [_score(readout, tokens, d_sae, kept & (home != i)) for i in left]
        best = int(np.argmin(without))
        if without[best] >= now and taken:
            break
        taken.append((left[best], now - without[best]))
        kept &= home != left.pop(best)
        now = without[best]
    margin = max(full - readout.threshold, 1e-6)
    found = [Span(start=pieces[i][0], end=pieces[i][1], activation=round(drop / margin, 4)) for i, drop in taken]
    return tuple(sorted(found, key=lambda span: span.start))


def _home(offsets: Sequence[tuple[int, int]], pieces: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return the piece of each token, -1 for tokens outside the text; shape (n_tokens,).

    A token belongs where its last character lies: most tokenizers give a word the space before it, which ends the piece
    before.
    """
    starts = np.asarray([start for start, _ in pieces], dtype=np.int64)
    home = [int(np.searchsorted(starts, end - 1, side="right")) - 1 if end > start else -1 for start, end in offsets]
    return np.asarray(home, dtype=np.int64)


def _score(readout: Readout, tokens: TokenRows, d_sae: int, kept: NDArray[np.bool_]) -> float:
    left = tokens.take(np.flatnonzero(kept))
    most = left.matrix(d_sae).max(0) if len(left) else sparse.csr_matrix((1, d_sae), dtype=np.float32)
    bag = Bag(sparse.csr_matrix(most).log1p(), units_of(left), np.asarray([0, len(left)]))
    return float(readout.score(bag)[0])
