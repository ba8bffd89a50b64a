"""TRL's trainer, as a validation needs it: on rows that are ready, and without work that nobody needs on a CPU.

TRL's loss stands as it is; what changes is where its tokens come from and what goes through the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def dpo_trainer(*, sides_apart: bool) -> Any:
    """Return TRL's trainer, with tokens and reference log-probabilities taken from the dataset as they are.

    TRL would render the rows itself, out of a table whose columns have one form: `{"city": …}` and `{"x": …}` become
    `{"city": …, "x": None}` there, and a template writes what no pair says. With `sides_apart` each side of a pair goes
    through the model by itself (see `each_row`).
    """
    from trl import DPOTrainer

    class Trainer(DPOTrainer):
        """Trains on rows that hold their tokens and reference log-probabilities."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            return dataset

        def _compute_loss(self, model: Any, *inputs: Any, **options: Any) -> Any:
            return super()._compute_loss(each_row(model) if sides_apart else model, *inputs, **options)

    return Trainer


def each_row(model: Any) -> Callable[..., Any]:
    """Return what calls `model` on each row of a batch by itself, without its padding, and pads what is told of tokens.

    The shorter side of a pair is padded to the longer one: a tenth to a quarter of all tokens, which a CPU works
    through like any other. Of what is told of a whole batch the mean over rows is told.
    """

    def told(**batch: Any) -> Any:
        if not {"input_ids", "attention_mask", "labels"} <= set(batch):  # another version of TRL
            return model(**batch)
        widths = batch["attention_mask"].sum(1).tolist()
        rows = [
            model(
                **{
                    name: value[i : i + 1, :width] if isinstance(value, Tensor) else value
                    for name, value in batch.items()
                }
            )
            for i, width in enumerate(widths)
        ]
        parts = {name: [row[name] for row in rows] for name, value in rows[0].items() if isinstance(value, Tensor)}
        return type(rows[0])(**{name: _together(values) for name, values in parts.items()})

    return told


def _together(values: list[Tensor]) -> Tensor:
    """Return what was told of each row's tokens, `(1, n)`, as `(n_rows, longest)`, or the mean of single figures."""
    return pad_sequence([value[0] for value in values], True) if values[0].dim() else torch.stack(values).mean()


@contextmanager
def responses_alone() -> Iterator[None]:
    """Let TRL's LM head score the tokens of responses alone, on a CPU too.

    Where there is no Triton it scores every place of a batch, prompts and padding included, so that a compiler meets
    few shapes. Nothing is compiled here, and the vocabulary is the largest matrix of a small model: what nobody needs
    of it was a quarter of a training.
    """
    from trl.trainer import utils

    name = "_use_triton"
    usual = getattr(utils, name, None)
    if usual is None:  # another version of TRL
        yield
        return
    setattr(utils, name, lambda device: True)  # asked there only for which places to score
    try:
        yield
    finally:
        setattr(utils, name, usual)
