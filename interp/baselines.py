"""Baselines: what a forecast through the lens must beat to be worth it.

Each knows a response by something other than the concept in question, tells from the dataset's own responses how far
the concept goes with that, and says that DPO will move the concept as far as the chosen side has more of it. What a
forecaster reaches beyond them is what counting the concept itself adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from premortem.interp.readout import Floats
from premortem.interp.sides import Responses

RANDOM_FEATURES = 16
"""Features drawn for the baseline of random features."""
LEAST_SHARE = 0.05
"""Share of responses in which a feature fires to be drawn."""
EMBEDDING = 64
"""Dimensions of the texts' embedding."""
RIDGE = 1.0
"""Penalty on standardised covariates, in responses."""


def covariates_of(responses: Responses, texts: Sequence[str], likelihood: Floats, seed: int = 0) -> dict[str, NDArray]:
    """Return what each baseline knows of the responses, `(2 * n_pairs, k)`; the same for any concepts.

    `texts` are the responses' words, `likelihood` (2 * n_pairs,) their log-likelihoods under the start model, summed,
    in nats.

    - `length`: the logarithm of a response's tokens.
    - `likelihood`: the log-likelihood of a response, whole and per token.
    - `random features`: RANDOM_FEATURES features of the lens, whatever they are.
    - `embedding`: latent semantic analysis, EMBEDDING dimensions of TF-IDF (Deerwester et al. 1990).
    """
    return {
        "length": np.log1p(responses.lengths)[:, None],
        "likelihood": np.column_stack([likelihood, likelihood / np.maximum(responses.lengths, 1)]),
        "random features": _random_features(responses, seed),
        "embedding": _embedding(texts, seed),
    }


def baselines(covariates: Mapping[str, NDArray], amounts: Floats) -> dict[str, Floats]:
    """Return the effects, `(n_concepts,)`, that each baseline forecasts from its `covariates`.

    `amounts` (2 * n_pairs, n_concepts) says how much each response shows of each concept.
    """
    return {name: through(values, amounts, len(amounts) // 2) for name, values in covariates.items()}


def through(covariates: NDArray, amounts: NDArray, n_pairs: int) -> Floats:
    """Return how far each concept would move, `(n_concepts,)`, if it only moved with some `covariates`.

    That is a ridge regression of `amounts` (2 * n_pairs, n_concepts) on the standardised `covariates` (2 * n_pairs, k),
    times the mean difference of the covariates between chosen and rejected responses. The regression is within sides:
    what only tells the sides apart would otherwise stand for every concept that differs between them.
    """
    scaled = StandardScaler().fit_transform(covariates)
    means = [values.reshape(2, n_pairs, -1).mean(1, keepdims=True) for values in (scaled, amounts.astype(np.float64))]
    x = (scaled.reshape(2, n_pairs, -1) - means[0]).reshape(2 * n_pairs, -1)
    y = (amounts.reshape(2, n_pairs, -1) - means[1]).reshape(2 * n_pairs, -1)
    slopes = Ridge(RIDGE, fit_intercept=False).fit(x, y).coef_.reshape(amounts.shape[1], -1)
    return np.asarray(slopes @ (means[0][0] - means[0][1]).ravel())


def _random_features(responses: Responses, seed: int) -> NDArray:
    x = responses.bag.x
    often = np.flatnonzero(np.asarray((x > 0).mean(0)).ravel() >= LEAST_SHARE)
    drawn = np.random.default_rng(seed).permutation(often)[:RANDOM_FEATURES]
    return np.asarray(x[:, np.sort(drawn)].todense()) if len(drawn) else np.zeros((x.shape[0], 1))


def _embedding(texts: Sequence[str], seed: int) -> NDArray:
    try:
        words = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=20_000).fit_transform(texts)
    except ValueError:  # scikit-learn's word for texts without a word that occurs twice
        return np.zeros((len(texts), 1))
    k = min(EMBEDDING, min(words.shape) - 1)
    return TruncatedSVD(k, random_state=seed).fit_transform(words) if k > 0 else np.zeros((len(texts), 1))
