"""What one small step of DPO on each pair would do to the start model's own answers.

DPO's loss at the start has the gradient -beta / 2 (grad log p(chosen) - grad log p(rejected)) for every pair, so a
small step raises the log-probability of another answer by the inner product of that with the answer's own gradient
(arXiv 2407.10490), and what the model shows of a concept by the mean over answers of that times what the answer shows
above the mean: the gradient of an expectation, by its score. Only the training's own parameters count: low-rank
adapters on all linear layers, at whose start one of the two matrices is zero, so that the other one has no gradient.
Their rank is RANK instead of a training's, so that all answers' gradients can be held: the matrix that stands still is
random, and of a larger one it keeps as much as a random projection does.

Two passes backward a pair, some as much as an epoch of training; what is known is kept on disk, pair by pair. Needs
peft, which is part of the extra `validate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from premortem.interp.errors import ModelError
from premortem.interp.line_cache import LineCache
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.progress import NullProgress, Progress
from premortem.interp.records import content_id
from premortem.interp.scores import Scorer, Tokens
from premortem.interp.trl_trainer import adapters

RANK = 4
"""Rank of the adapters."""
DIGITS = 6
"""Digits that are kept of each figure."""


class FirstOrder:
    """The start model with adapters that have learnt nothing yet."""

    def __init__(self, ref: str, cache_dir: Path | None = None) -> None:
        """Load model `ref` when it is first needed, once more: layers for reading have no gradient."""
        self._ref = ref
        self._known = LineCache(cache_dir / "first_order.jsonl" if cache_dir else None)
        self._adapted: tuple[Scorer, list[Tensor]] | None = None
        self._held: dict[str, Tensor] = {}
        """Gradients of the answers asked about last, `(n_answers, n_parameters)`: each edit asks about the same."""

    def steps(
        self,
        digest: str,
        pairs: Sequence[tuple[Tokens, Tokens]],
        answers: Sequence[Tokens],
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """Return how much a step on each pair raises each answer's log-probability, `(n_pairs, n_answers)`.

        `pairs` are prompt and response of the chosen and of the rejected side. In nats, for a step of length 1 along
        the gradient of chosen minus rejected log-probability. `digest` identifies the model. Raises ModelError where
        peft is missing.
        """
        about = content_id("first order", digest, RANK, list(answers))
        keys = [content_id(about, *pair) for pair in pairs]
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._known}
        if missing:
            asked = [] if about in self._held else list(answers)
            with (progress or NullProgress()).stage("Gradients", len(asked) + len(missing)) as stage:

                def gradient(sides: Sequence[Tokens]) -> Tensor:
                    stage.advance()
                    return self._gradient(sides)

                if asked:
                    self._held = {about: torch.stack([gradient([answer]) for answer in asked])}
                for key, sides in missing.items():
                    raised = (self._held[about] @ gradient(sides)).double().cpu().tolist()
                    self._known.add({key: [float(f"{x:.{DIGITS}g}") for x in raised]})
        return np.asarray([self._known[key] for key in keys], dtype=np.float64).reshape(len(pairs), len(answers))

    def _gradient(self, sides: Sequence[Tokens]) -> Tensor:
        """Return the gradient of a response's log-probability, less that of the second, `(n_parameters,)`.

        In nats, summed over a response's tokens.
        """
        if self._adapted is None:
            loaded = load_model(self._ref, packed=False, dtype=torch.float32)
            self._adapted = Scorer(loaded), adapted(loaded)
        scorer, parameters = self._adapted
        first, *others = (each.sum() for each in scorer.scores(sides))
        total = first - sum(others)
        if not total.requires_grad:  # nothing is said
            return torch.cat([torch.zeros_like(each).flatten() for each in parameters])
        return torch.cat([each.flatten() for each in torch.autograd.grad(total, parameters)])


def adapted(loaded: LoadedModel) -> list[Tensor]:
    """Put adapters into a model, in place, and return those of their matrices that are zero and learn first."""
    try:
        from peft import get_peft_model
    except ImportError as error:
        raise ModelError("the forecaster `first-order` needs peft: pip install 'premortem[validate]'") from error
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = get_peft_model(loaded.model.requires_grad_(False), adapters(RANK)).eval()
    learnt = {name: each.requires_grad_("lora_B" in name) for name, each in model.named_parameters()}
    return [each for name, each in learnt.items() if "lora_B" in name]
