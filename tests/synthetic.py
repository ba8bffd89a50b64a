"""Made-up responses whose concepts are known: sparse random features, and some that are planted together."""

import numpy as np
from scipy import sparse

from premortem.interp.pooling import TokenRows
from premortem.interp.readout import Bag, units_of
from premortem.interp.sides import Responses, TokenFacts

D_SAE = 120
TOKENS = 12
PLANTED_TOKENS = 4


def token_rows(activations: np.ndarray) -> TokenRows:
    """Return dense `activations` (n_tokens, d_sae) as the lens keeps them."""
    rows = sparse.csr_matrix(activations)
    return TokenRows(rows.indptr.astype(np.int64), rows.indices.astype(np.uint16), rows.data.astype(np.float16))


def responses(n_pairs: int, planted: dict[int, list[int]], *, side: int = 0, seed: int = 0) -> Responses:
    """Return `n_pairs` pairs of random responses; response `row` of `side` also has the features of `planted[row]`.

    The planted features fire together on a few tokens in a row; side 0 is the chosen one.
    """
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.01, 0.15, D_SAE)
    tokens = (rng.random((2 * n_pairs * TOKENS, D_SAE)) < rate / 2) * rng.exponential(
        1.0, (2 * n_pairs * TOKENS, D_SAE)
    )
    for row, features in planted.items():
        first = (row + side * n_pairs) * TOKENS + int(rng.integers(TOKENS - PLANTED_TOKENS))
        for at in range(first, first + PLANTED_TOKENS):
            tokens[at, features] = rng.uniform(2.0, 4.0, len(features))
    starts = np.arange(0, (2 * n_pairs + 1) * TOKENS, TOKENS)
    maxima = sparse.csr_matrix(np.log1p(tokens.reshape(2 * n_pairs, TOKENS, D_SAE).max(1)).astype(np.float32))
    shares = sparse.csr_matrix((tokens.reshape(2 * n_pairs, TOKENS, D_SAE) > 0).mean(1))
    return Responses(
        Bag(maxima, units_of(token_rows(tokens)), starts, shares), np.arange(n_pairs), facts(2 * n_pairs * TOKENS)
    )


def facts(n_tokens: int, log_likelihood: float | np.ndarray = -1.0) -> TokenFacts:
    """Return tokens of which none is like another, found so likely by the start model."""
    logs = np.broadcast_to(log_likelihood, n_tokens).astype(float)
    return TokenFacts(lambda: np.arange(n_tokens), lambda: logs)
