"""How likely a model finds responses, token by token.

The vocabulary is the largest matrix of a small model, so no state of a prompt's token meets the head. On a CPU a batch
is one flat row (see `packing`): each prompt is read once for all its responses, their opening once, and nothing is
padded. Where a model cannot be laid out so, and on a GPU, a batch is padded responses of like length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from premortem.interp.forward import Forward, attending
from premortem.interp.models import LoadedModel, text_config
from premortem.interp.packing import ATTENTION, Ids, Request, Tree, lay_out

Tokens = tuple[list[int], list[int]]
"""Ids of a prompt and of one response to it."""

BATCH_TOKENS = 4096
"""Most tokens of a batch, padding included."""
BATCH_LOGITS = 2**25
"""Most logits held at a time, 128 MiB in float32; one response alone may exceed it."""
ON_GPU = 8
"""So many times as much of each at a time on a GPU, which a batch of a CPU's size leaves idle."""


class Scorer:
    """Scores responses through one model; gradients go through where its layers have some."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Score through `loaded`, its head included."""
        self._loaded = loaded
        self._model: Any = loaded.model
        self._on_cpu = loaded.device.type == "cpu"
        self._vocabulary = int(text_config(loaded.model).vocab_size)

    @cached_property
    def _opening(self) -> Ids | None:
        """What opens prompts in a flat row; None: batches are padded."""
        forward = Forward(self._loaded) if self._on_cpu else None
        return forward.opening if forward and forward.tree else None

    def batches(self, items: Mapping[str, Tokens]) -> Iterator[list[str]]:
        """Yield the keys of `items` in batches that `scores` takes, within the bounds on tokens and logits."""

        def by_length(key: str) -> Any:
            prompt, response = items[key]
            return len(prompt) + len(response), key

        def by_prompt(key: str) -> Any:
            prompt, response = items[key]
            return len(prompt), prompt, len(response), key

        padded, times = self._opening is None, 1 if self._on_cpu else ON_GPU
        batch: list[str] = []
        tokens = logits = 0
        for key in sorted(items, key=by_length if padded else by_prompt):
            prompt, response = items[key]
            told = len(response) * self._vocabulary
            known = not padded and bool(batch) and items[batch[-1]][0] == prompt
            length = len(response) + (0 if known else len(prompt))
            total = length * (len(batch) + 1) if padded else tokens + length
            if batch and (total > times * BATCH_TOKENS or logits + told > times * BATCH_LOGITS):
                yield batch
                batch, logits, total = [], 0, len(prompt) + len(response)
            batch.append(key)
            tokens, logits = total, logits + told
        if batch:
            yield batch

    def scores(self, items: Sequence[Tokens]) -> list[Tensor]:
        """Return the log-probability of each token of each response, `(n_tokens,)` an item, in nats.

        A token that nothing precedes is left out.
        """
        return self._padded(items) if self._opening is None else self._in_one_row(items, self._opening)

    def _in_one_row(self, items: Sequence[Tokens], opening: Ids) -> list[Tensor]:
        families: dict[bytes, list[int]] = {}
        for at, (prompt, response) in enumerate(items):
            if response:
                families.setdefault(np.asarray(prompt, np.int32).tobytes(), []).append(at)
        if not families:
            return self._nothing(len(items))
        row = lay_out([[_request(*items[at]) for at in family] for family in families.values()], opening)
        places: list[list[int]] = [[] for _ in items]
        for at, number in zip(chain.from_iterable(families.values()), row.at, strict=True):
            segment = row.segments[number]
            before = [row.segments[segment.ancestors[-1]].end - 1] if segment.ancestors else []
            places[at] = [*before, *range(segment.start, segment.end - 1)]
        asked = torch.tensor([place for each in places for place in each], dtype=torch.long)
        targets = [response[len(response) - len(each) :] for (_, response), each in zip(items, places, strict=True)]
        with attending(self._model, ATTENTION):
            return self._told(
                targets,
                lambda states: states[:, asked],
                input_ids=row.ids[None],
                position_ids=row.positions[None],
                tree=Tree(row, row.ids.device, self._loaded.dtype),
            )

    def _padded(self, items: Sequence[Tokens]) -> list[Tensor]:
        device = self._loaded.device
        rows = [torch.tensor(prompt + response, dtype=torch.long) for prompt, response in items]
        asked = pad_sequence([_predicts(*item) for item in items], batch_first=True).to(device)
        return self._told(
            [response if prompt else response[1:] for prompt, response in items],
            lambda states: states[asked][None],
            input_ids=pad_sequence(rows, batch_first=True).to(device),
            attention_mask=pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device),
        )

    def _told(self, targets: Sequence[list[int]], pick: Callable[[Tensor], Tensor], **inputs: Any) -> list[Tensor]:
        """Return the log-probabilities of `targets`, in the order in which `pick` takes the states before them."""
        wanted = torch.tensor([token for each in targets for token in each], dtype=torch.long).to(self._loaded.device)
        if not len(wanted):
            return self._nothing(len(targets))
        with _only_states(self._model.base_model, pick):
            logits = self._model(**inputs, use_cache=False).logits[0]
        return list((-cross_entropy(logits.float(), wanted, reduction="none")).split([len(each) for each in targets]))

    def _nothing(self, times: int) -> list[Tensor]:
        return [torch.zeros(0, device=self._loaded.device) for _ in range(times)]


@contextmanager
def _only_states(decoder: Any, pick: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let only what `pick` takes of the states (n_rows, n_tokens, d) out of the decoder, as (1, n_asked, d)."""

    def select(_module: Any, _args: Any, output: Any) -> Any:
        output.last_hidden_state = pick(output.last_hidden_state)
        return output

    handle = decoder.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _request(prompt: list[int], response: list[int]) -> Request:
    return Request(b"", np.asarray(prompt, np.int32), np.asarray(response, np.int32))


def _predicts(prompt: list[int], response: list[int]) -> Tensor:
    """Return (n_tokens,) True where the state predicts a response token."""
    places = torch.arange(len(prompt) + len(response))
    return (places >= len(prompt) - 1) & (places < len(prompt) + len(response) - 1)
