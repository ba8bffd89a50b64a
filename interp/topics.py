"""Topics: groups of prompts, so that an effect confined to some prompts is seen there.

Prompts are grouped by their words (TF-IDF, then truncated SVD) with spherical k-means; the number of topics grows with
the square root of the prompts. Words rather than lens features: what a prompt is about is said in its words, and the
grouping must not depend on the side that is being tested.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from premortem.interp.records import Topic, content_id
from premortem.interp.words import CHARACTER, spaced

MIN_PAIRS = 12
"""Pairs that a topic needs; smaller ones are not reported."""


def group_prompts(prompts: Sequence[str], rows: Sequence[int], seed: int = 0) -> tuple[Topic, ...]:
    """Group `prompts` (one per pair, same order as `rows`) into topics; prompts in no sizeable topic are left out."""
    distinct = len(set(prompts))
    if distinct < 2 * MIN_PAIRS:
        return ()
    apart = [spaced(prompt) for prompt in prompts]
    vectorizer = TfidfVectorizer(
        stop_words="english",
        sublinear_tf=True,
        min_df=2,
        max_features=20_000,
        max_df=0.3,
        token_pattern=rf"(?u)\b\w\w+\b|{CHARACTER}",
        ngram_range=(1, 2 if apart != list(prompts) else 1),  # a single character says little
    )
    try:
        counts = vectorizer.fit_transform(apart)
    except ValueError:  # no word occurs twice
        return ()
    points = _reduced(counts, seed)
    k = int(np.clip(round(np.sqrt(distinct) / 1.5), 2, 60))
    labels = KMeans(k, n_init=4, random_state=seed).fit_predict(points)
    labels[counts.getnnz(1) == 0] = -1  # no word that another prompt has: it belongs nowhere
    words = vectorizer.get_feature_names_out()
    found = (_topic(labels == label, counts, words, rows) for label in range(k))
    return tuple(topic for topic in found if len(topic.rows) >= MIN_PAIRS)


def _reduced(counts: sparse.csr_matrix, seed: int) -> NDArray[np.float64]:
    components = int(min(64, counts.shape[1] - 1, counts.shape[0] - 1))
    if components < 2:
        return np.asarray(counts.toarray())
    return normalize(TruncatedSVD(components, random_state=seed).fit_transform(counts))


def _topic(inside: NDArray[np.bool_], counts: sparse.csr_matrix, words: NDArray, rows: Sequence[int]) -> Topic:
    members = tuple(rows[int(i)] for i in np.flatnonzero(inside))
    if not inside.any() or inside.all():
        return Topic(topic_id=content_id("topic", members), name="", rows=members)
    lift = np.asarray(counts[inside].mean(0)).ravel() - np.asarray(counts[~inside].mean(0)).ravel()
    best = [str(words[i]) for i in np.argsort(-lift, kind="stable")[:3] if lift[i] > 0]
    return Topic(topic_id=content_id("topic", members), name=", ".join(best), rows=members)
