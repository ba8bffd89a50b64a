"""Prompts by subject, for placing behaviours: the sets must stay as they are when the topics of a forecast change.

Words (TF-IDF, truncated SVD) and k-means, every prompt in one group; frozen on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

LEAST = 12
"""Prompts of a group."""


def by_subject(prompts: Sequence[str]) -> list[list[int]]:
    """Return the places in `prompts` of those on each subject, groups of LEAST or more."""
    words = TfidfVectorizer(stop_words="english", sublinear_tf=True, min_df=2, max_features=20_000, max_df=0.3)
    counts = words.fit_transform(prompts)
    k = int(np.clip(round(np.sqrt(len(set(prompts))) / 1.5), 2, 60))
    points = normalize(TruncatedSVD(min(64, *(n - 1 for n in counts.shape)), random_state=0).fit_transform(counts))
    labels = KMeans(k, n_init=4, random_state=0).fit_predict(points)
    groups = [np.flatnonzero(labels == label).tolist() for label in range(k)]
    return [group for group in groups if len(group) >= LEAST]
