"""Groups: features that fire in the same responses, read together as one concept.

A single feature is noisy and often one of several that split a meaning between them. Features are grouped by the
correlation of their firing over the responses of both sides (symmetric, so that the signed test that follows is not
circular), with k-means on the principal components of the standardised firing matrix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from premortem.interp.readout import Part, Readout
from premortem.interp.sides import Responses

TAU = 0.01
"""A feature fires in a response when it is active on more than this share of its tokens (arXiv 2606.12360, B.1)."""
BASE_RATE = (0.01, 0.9)
"""Between these shares of responses a feature tells something apart."""
COMPONENTS = 48
GROUPS = 100
"""Groups, at most."""
FEATURES_PER_GROUP = 20
"""Features that a group has at least, on average."""


def group_features(
    responses: Responses, n: int | None = None, *, base_rate: tuple[float, float] = BASE_RATE, seed: int = 0
) -> list[NDArray]:
    """Return groups of features (arrays of indices into the SAE), by co-firing.

    `n` of them where there are features enough for two in each; without a number, GROUPS at most, and fewer where they
    would be smaller than FEATURES_PER_GROUP.

    Only features that fire in a share of responses inside `base_rate` take part: rarer ones cannot be grouped, and
    those that fire nearly everywhere tell nothing apart.
    """
    fires = (responses.bag.x > 0).astype(np.float32).tocsc()
    rate, kept = _telling(fires, base_rate)
    if len(kept) < 2 * FEATURES_PER_GROUP:
        return [kept] if len(kept) else []
    scaled = fires[:, kept] @ sparse.diags(1 / np.sqrt(rate[kept] * (1 - rate[kept])))
    components = min(COMPONENTS, scaled.shape[0] - 1, scaled.shape[1] - 1)
    pca = PCA(components, svd_solver="arpack", random_state=seed).fit(scaled)  # centres without a dense copy
    points = normalize(pca.components_.T * pca.singular_values_)
    k = int(np.clip(len(kept) // (2 if n else FEATURES_PER_GROUP), 2, n or GROUPS))
    labels = KMeans(k, n_init=2, random_state=seed).fit_predict(points)
    return [kept[labels == label] for label in range(k) if (labels == label).sum() >= 2]


def group_readout(responses: Responses, features: NDArray) -> Readout:
    """Return the readout of a group: equal weights on standardised features, threshold at the upper quartile.

    Its amount is a share of tokens. What a group of features does to a response at large is seen in how often they
    fire; whether a response shows it at all depends first on how long the response is.
    """
    columns = responses.bag.x[:, features]
    mean = np.asarray(columns.mean(0)).ravel()
    deviation = np.sqrt(np.maximum(np.asarray(columns.multiply(columns).mean(0)).ravel() - mean**2, 1e-6))
    weights = 1.0 / (deviation * len(features))
    scores = np.asarray(columns @ weights).ravel()
    whole = Part(tuple(int(f) for f in features), tuple(float(w) for w in weights))
    return Readout(whole, Part(), float(np.quantile(scores, 0.75)), "tokens")


def feature_readouts(responses: Responses, base_rate: tuple[float, float] = BASE_RATE) -> list[Readout]:
    """Return a readout of each single feature that fires in a share of responses inside `base_rate`."""
    _, kept = _telling(responses.bag.x > 0, base_rate)
    return [Readout(Part((int(feature),), (1.0,)), Part(), 0.0, "tokens") for feature in kept]


def _telling(fires: sparse.spmatrix, base_rate: tuple[float, float]) -> tuple[NDArray, NDArray]:
    """Return each feature's share of the responses `fires` (n, d_sae), and which features' shares lie inside."""
    rate = np.asarray(fires.mean(0)).ravel()
    return rate, np.flatnonzero((rate > base_rate[0]) & (rate < base_rate[1]))
