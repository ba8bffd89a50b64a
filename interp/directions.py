"""Which words a concept's direction makes likelier: the second source of its name.

The decoder rows of a concept's features, added up by their weights, are a direction in the residual stream. Read
through the model's final norm and its unembedding, as if no layer followed, it says which tokens the model leans to
when the concept is there (the "logit lens", nostalgebraist 2020), compared with what other directions do to the same
tokens. In the middle of a model that is a hint and no more: `names` keeps what the data confirms.

Nothing here knows about pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from premortem.interp.lens import Lens
from premortem.interp.models import LoadedModel
from premortem.interp.readout import Readout

FEATURES = 16
"""Features that speak for a concept, at most."""
TOKENS = 300
"""Tokens looked at, those that gain most."""
SAMPLED = 256
"""Features whose directions tell what is usual for a token."""


class Directions:
    """The decoder of a lens against the unembedding of its model."""

    def __init__(self, model: LoadedModel, lens: Lens) -> None:
        """Prepare the vocabulary; a model whose unembedding is not at hand promotes nothing."""
        self._tokenizer = model.tokenizer
        self._head = unembedding(model)
        self._decoder: NDArray[np.float32] = lens.sae.W_dec.detach().float().cpu().numpy()
        if self._head is not None:
            some = np.random.default_rng(0).permutation(len(self._decoder))[:SAMPLED]
            usual = self._logits(self._decoder[some])
            self._mean, self._spread = usual.mean(1), usual.std(1) + 1e-6

    def _logits(self, directions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what each of `directions` (n, d_in), scaled to length 1, adds to each token, (n_vocabulary, n)."""
        assert self._head is not None
        weight, norm = self._head
        unit = directions / (np.linalg.norm(directions, axis=1, keepdims=True) + 1e-9)
        with torch.inference_mode():
            scaled = norm(torch.from_numpy(unit).to(weight.device, weight.dtype))
            return np.asarray((weight @ scaled.T).float().cpu().numpy())

    def promotes(self, readout: Readout) -> tuple[str, ...]:
        """Return the words that the direction of `readout` makes likelier than other directions do, strongest first."""
        weights = [(feature, weight) for feature, weight in readout.strongest(FEATURES) if weight > 0]
        if self._head is None or not weights:
            return ()
        features, strength = zip(*weights, strict=True)
        direction = np.asarray(strength, dtype=np.float32) @ self._decoder[list(features)]
        lift = (self._logits(direction[None])[:, 0] - self._mean) / self._spread
        found: dict[str, str] = {}
        for token in np.argsort(-lift, kind="stable")[:TOKENS]:
            word = str(self._tokenizer.decode([int(token)])).strip()
            if len(word) > 1 and word.isprintable() and any(char.isalnum() for char in word):
                found.setdefault(word.lower(), word)
        return tuple(found.values())


def unembedding(model: LoadedModel) -> tuple[torch.Tensor, torch.nn.Module] | None:
    """Return the output weights `(n_vocabulary, hidden_size)` and the final norm; None if unknown.

    A model loaded for reading has no LM head, so only tied weights are at hand. The norm is asked itself: some multiply
    by their weights, Gemma's by one plus them.
    """
    base: Any = model.model
    norm = getattr(base, "norm", None) or getattr(getattr(base, "model", None), "norm", None)
    if norm is None or not getattr(base.config.get_text_config(), "tie_word_embeddings", False):
        return None
    return base.get_input_embeddings().weight, norm
