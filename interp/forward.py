"""Runs a model only as far as its deepest hook, and catches the residual stream of response tokens on the way.

Two ways give the same numbers. The tree way computes a flat batch (`packing`) in one row, every shared prompt once; it
needs a model that lets its attention be replaced and takes position ids. Whether it does is tried once, on a few
tokens. Otherwise the plain way reads each response as one padded sequence after its own copy of the prompt.

Nothing here knows about SAEs or caches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface

from premortem.interp.models import LoadedModel
from premortem.interp.packing import ATTENTION, Batch, Ids, Request, Tree, lay_out, tree_attention

Residuals = dict[int, torch.Tensor]
"""By layer: `(n_response_tokens, hidden_size)`, the output of that decoder layer."""

_SHORTEST_OPENING = 4
_TOLERANCE = 1e-3

AttentionInterface.register(ATTENTION, tree_attention)


class Forward:
    """Reads batches through one model."""

    def __init__(self, model: LoadedModel, *, tree: bool | None = None) -> None:
        """`tree` chooses the way; None tries whether the tree way works for this model."""
        self._model = model
        self.opening = template_opening(model.tokenizer)
        """Token ids that open every prompt without a system message of its own; may be empty."""
        self.tree = self._tree_works() if tree is None else tree
        """Whether batches are read as trees."""

    def read(self, batch: Batch, layers: Sequence[int]) -> tuple[Residuals, NDArray[np.int64], int]:
        """Return the residual stream after each of `layers` at the response tokens, whose token each is, and the
        number of tokens that went through the model."""
        if self.tree:
            return self._read_tree(batch, layers)
        return self._read_plain(batch.requests, layers)

    def _read_tree(self, batch: Batch, layers: Sequence[int]) -> tuple[Residuals, NDArray[np.int64], int]:
        device = self._model.device
        index, owner = batch.response_tokens()
        index = index.to(device)
        with attending(self._model.model, ATTENTION):
            caught = self._run(
                layers,
                lambda residual: residual[0, index],
                input_ids=batch.ids[None].to(device),
                position_ids=batch.positions[None].to(device),
                tree=Tree(batch, device, self._model.dtype),
            )
        return caught, owner, batch.n_tokens

    def _read_plain(
        self, requests: Sequence[Request], layers: Sequence[int]
    ) -> tuple[Residuals, NDArray[np.int64], int]:
        """Read each request as a sequence of its own, similar lengths together."""
        order = sorted(range(len(requests)), key=lambda at: (_length(requests[at]), requests[at].key))
        read: dict[int, Residuals] = {}
        for at in range(0, len(order), 8):
            some = order[at : at + 8]
            for which, residual in zip(some, self._read_padded([requests[i] for i in some], layers), strict=True):
                read[which] = residual
        parts = [read[at] for at in range(len(requests))]
        owner = np.repeat(np.arange(len(requests)), [len(request.response) for request in requests])
        computed = sum(_length(request) for request in requests)
        return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}, owner, computed

    def _read_padded(self, requests: Sequence[Request], layers: Sequence[int]) -> list[Residuals]:
        device, longest = self._model.device, max(map(_length, requests))
        ids, mask = torch.zeros(2, len(requests), longest, dtype=torch.long)
        for row, request in enumerate(requests):
            full = np.concatenate([request.prompt, request.response]).astype(np.int64)
            ids[row, : len(full)], mask[row, : len(full)] = torch.from_numpy(full), 1
        caught = self._run(layers, lambda residual: residual, input_ids=ids.to(device), attention_mask=mask.to(device))
        return [
            {layer: caught[layer][row, len(request.prompt) : _length(request)] for layer in layers}
            for row, request in enumerate(requests)
        ]

    @torch.inference_mode()
    def _run(self, layers: Sequence[int], keep: Callable[[torch.Tensor], torch.Tensor], **inputs: Any) -> Residuals:
        """Call the model, keep what leaves each of `layers`, and stop after the deepest."""
        caught: Residuals = {}
        deepest = max(layers)

        def catch(layer: int) -> Callable[..., None]:
            def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
                caught[layer] = keep(output[0] if isinstance(output, tuple) else output)
                if layer == deepest:
                    raise _EnoughError

            return hook

        handles = [self._model.layers[layer].register_forward_hook(catch(layer)) for layer in layers]
        try:
            with contextlib.suppress(_EnoughError):
                self._model.model(**inputs, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return caught

    def _tree_works(self) -> bool:
        """Read a tiny tree both ways and compare the deepest layer that was kept."""
        words = int(self._model.model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        prompt, one, other = ((np.arange(*span) % words).astype(np.int32) for span in ((5, 12), (20, 24), (30, 35)))
        requests = [Request(b"1", prompt, one), Request(b"2", prompt, other)]
        batch, layer = lay_out([requests], prompt[:3]), len(self._model.layers) - 1
        expected = self._read_plain(requests, [layer])[0][layer].float()
        try:
            seen = self._read_tree(batch, [layer])[0][layer].float()
        except (NotImplementedError, RuntimeError, TypeError, ValueError, KeyError, AttributeError):
            return False
        slack = _TOLERANCE if self._model.dtype == torch.float32 else 0.05
        return bool((seen - expected).abs().max() <= slack * expected.abs().max())


def template_opening(tokenizer: Any) -> Ids:
    """Return the tokens with which the chat template opens a conversation, before the user's first word."""
    none = np.zeros(0, np.int32)
    if not getattr(tokenizer, "chat_template", None):
        return none
    try:
        one, other = (
            tokenizer(
                tokenizer.apply_chat_template([{"role": "user", "content": word}], tokenize=False),
                add_special_tokens=False,
            )["input_ids"]
            for word in ("apple", "47")
        )
    except Exception:  # a chat template is a program of the model's author: it may raise anything
        return none
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    return np.array(one[:shared], np.int32) if shared >= _SHORTEST_OPENING else none


class _EnoughError(Exception):
    """Leaves the model after the deepest hook."""


@contextlib.contextmanager
def attending(model: Any, name: str) -> Iterator[None]:
    """Let `model` attend by the function `name` for a while; layers that it shares with another have a config apart."""
    parts: list[Any] = [getattr(part, "config", None) for part in model.modules()]
    configs = {id(config): config for config in parts if hasattr(config, "_attn_implementation")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation = name
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


def _length(request: Request) -> int:
    return len(request.prompt) + len(request.response)
