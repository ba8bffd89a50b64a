"""TRL's trainer, as a validation needs it: on rows that are ready, and without work that nobody needs on a CPU.

TRL's loss stands as it is; what changes is where its tokens come from and what goes through the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from premortem.interp.forward import Forward, attending
from premortem.interp.models import LoadedModel, text_config
from premortem.interp.packing import ATTENTION, Ids, Request, Tree, lay_out

IGNORED = -100
"""Label of a token that is not scored."""
Call = Callable[..., Any]
"""Calls a model on a batch, as TRL's loss does."""


def dpo_trainer(calls: Callable[[Any], Call] | None = None) -> Any:
    """Return TRL's trainer, with tokens and reference log-probabilities taken from the dataset as they are.

    TRL would render the rows itself, out of a table whose columns have one form: `{"city": …}` and `{"x": …}` become
    `{"city": …, "x": None}` there, and a template writes what no pair says. `calls` makes of a model what calls it;
    None: it is called on batches as they are.
    """
    from trl import DPOTrainer

    class Trainer(DPOTrainer):
        """Trains on rows that hold their tokens and reference log-probabilities."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            return dataset

        def _compute_loss(self, model: Any, *inputs: Any, **options: Any) -> Any:
            return super()._compute_loss(calls(model) if calls else model, *inputs, **options)

    return Trainer


def adapters(rank: int) -> Any:
    """Return peft's settings of the adapters that are trained: on all linear layers, with a scale of 2."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")


def unpadded(loaded: LoadedModel) -> Callable[[Any], Call]:
    """Return what calls a model that is, or wraps, `loaded` without padding: in one row where it can be laid out so."""
    forward = Forward(loaded)
    if forward.tree and not getattr(text_config(loaded.model), "attention_dropout", 0):
        return partial(in_one_row, opening=forward.opening)
    return each_row


def each_row(model: Any) -> Call:
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


def in_one_row(model: Any, opening: Ids) -> Call:
    """Return what calls `model` on a batch in one flat row: each pair's prompt once, their `opening` once, no padding.

    A CPU works through each of these tokens like any other. What is told of a token comes back at its place.
    """

    def told(**batch: Any) -> Any:
        if batch.get("output_router_logits") or not {"input_ids", "attention_mask", "labels"} <= set(batch):
            return each_row(model)(**batch)  # how evenly experts are asked is told of all tokens, as they come
        ids, labels = batch.pop("input_ids"), batch.pop("labels")
        lengths, n_pairs = batch.pop("attention_mask").sum(1).tolist(), len(ids) // 2
        pairs = [_sides(ids[at::n_pairs], labels[at::n_pairs], lengths[at::n_pairs]) for at in range(n_pairs)]
        row = lay_out(pairs, opening, filled=False)
        places: list[int] = []
        owners: list[int] = []
        columns: list[int] = []
        for number, at in enumerate(row.at):
            segment, side = row.segments[at], number // 2 + number % 2 * n_pairs
            predict = max(segment.end - segment.start - 1, 0)
            places += range(segment.start, segment.start + predict)
            owners += [side] * predict
            columns += range(lengths[side] - 1 - predict, lengths[side] - 1)
        found = (torch.tensor(owners, dtype=torch.long), torch.tensor(columns, dtype=torch.long))
        shifted = torch.full((1, len(row.ids)), IGNORED)
        shifted[0, places] = labels[:, 1:][found]
        with attending(model, ATTENTION):
            one = model(
                input_ids=row.ids[None],
                position_ids=row.positions[None],
                shift_labels=shifted,
                tree=Tree(row, ids.device, torch.float32),
                **batch,
            )

        def back(value: Tensor) -> Tensor:
            return value.new_zeros(len(ids), ids.shape[1] - 1).index_put(found, value[0, places])

        return type(one)(
            **{name: back(value) if value.dim() else value for name, value in one.items() if isinstance(value, Tensor)}
        )

    return told


def _sides(ids: Tensor, labels: Tensor, lengths: list[int]) -> list[Request]:
    """Return the chosen and the rejected side of a pair to be laid out, from `ids` and `labels` (2, n_tokens).

    The last prompt token tells the first of either response, so each has its own.
    """
    scored = (labels != IGNORED).any(0).nonzero()
    shared = max(int(scored[0]) - 1, 0) if len(scored) else 0
    tokens = [row[:length].numpy().astype(np.int32) for row, length in zip(ids, lengths, strict=True)]
    return [Request(b"", side[:shared], side[shared:]) for side in tokens]


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
