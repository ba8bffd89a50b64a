"""News: how much of a token the text around it does not already tell.

DPO pushes a token's logit by one minus its probability, and what both responses to a prompt repeat after each other is
pushed up by one and down by the other. So a token counts by what is left when one knows which token came before it: one
minus the chance that it follows, counted over the other responses to the same prompt and the rest of the same one,
smoothed by all responses, and these by how frequent the token is (interpolated bigrams; Jelinek and Mercer 1980). A
token never votes for itself. No model is asked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FAITH = 2.0
"""Tokens that the wider count weighs where a narrower one has seen none."""
UNSEEN = 0.5
"""Tokens added to the count of each."""


class Text(NamedTuple):
    """Some responses as tokens."""

    ids: Ints
    """`(n_tokens,)`: which token each is, response after response."""
    starts: Ints
    """`(n + 1,)`: where each response's tokens begin."""

    def before(self) -> Ints:
        """Return the token before each, `(n_tokens,)`; -1 for the first of a response."""
        previous = np.concatenate([[-1], self.ids[:-1]])[: len(self.ids)]
        previous[self.starts[:-1][np.diff(self.starts) > 0]] = -1
        return previous


def news(text: Text, groups: Ints, beside: Text | None = None) -> Floats:
    """Return how much of each token is news, `(n_tokens,)`, 0 to 1.

    `groups` (n,) is the same number for responses to the same prompt; `beside` are other responses, whatever their
    prompts.
    """
    n, parts = len(text.ids), [text] if beside is None else [text, beside]
    ids, previous = np.concatenate([each.ids for each in parts]), np.concatenate([each.before() for each in parts])
    both = (previous + 1) << 32 | ids
    prompts = np.repeat(groups, np.diff(text.starts)).astype(np.int64)
    frequent = (_others(ids) + UNSEEN) / (len(ids) - 1 + UNSEEN * len(np.unique(ids)))
    follows = (_others(both) + FAITH * frequent) / (_others(previous) + FAITH)
    here = _others(_together(both[:n], prompts)) + FAITH * follows[:n]
    return np.asarray(1 - here / (_others(_together(previous[:n], prompts)) + FAITH))


def _others(keys: Ints) -> Ints:
    """Return how many others share each key, `(n,)`."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse] - 1)


def _together(keys: Ints, prompts: Ints) -> Ints:
    """Return one key for each combination of a key and a prompt, `(n,)`."""
    return np.asarray(np.unique(keys, return_inverse=True)[1] * (int(prompts.max(initial=0)) + 1) + prompts)
