"""How many responses go through the model at once, none of it wasted.

A chat template opens most prompts with the same words, a prompt is answered by two responses or more, and an edit asks
again about a prompt that was read before. So the tokens to read form a tree: the opening, then each prompt's own part,
then its responses. A batch lays the nodes of such a tree in one flat row, without padding; position ids continue from
the parent, and a token attends to its ancestors and to earlier tokens of its own node, never to a sibling. Every token
is computed once per batch, and each response comes out as if it had been read alone after its prompt.

Batches are cut greedily from one fixed order of requests. Whoever finishes some batches and starts again with the
requests that are left gets the same remaining batches, so an interrupted reading goes on to the same bits.

Nothing here knows about models or SAEs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from premortem.interp.fast_linear import ROWS

Ids = NDArray[np.int32]

ATTENTION = "premortem_tree"
"""Name under which `tree_attention` is registered with transformers."""

WHOLE_ROW = -1
"""Stands for all segments at once where masks are kept by segment."""

_NOBODY: tuple[int, ...] = ()

GROUP_TOKENS = 1024
"""Responses of one prompt that share a reading of it, in tokens; a larger family is read in parts."""


class Request(NamedTuple):
    """One response to read after its prompt."""

    key: bytes
    """Content hash of both, see `request_key`."""
    prompt: Ids
    """Token ids of the prompt."""
    response: Ids
    """Token ids of the response, at least one."""


class Segment(NamedTuple):
    """One node of the tree in the flat row."""

    start: int
    """First token."""
    end: int
    """One past the last token."""
    ancestors: tuple[int, ...]
    """Indices of the segments it follows, outermost first."""
    first_position: int
    """Position id of its first token."""


@dataclass(frozen=True)
class Batch:
    """A flat row of tokens, with the tree that they form."""

    ids: torch.Tensor
    """`(n_tokens,)` token ids."""
    positions: torch.Tensor
    """`(n_tokens,)` position ids."""
    segments: tuple[Segment, ...]
    """The nodes, in order of the row."""
    requests: tuple[Request, ...]
    """What is read here."""
    at: tuple[int, ...]
    """For each request, the segment of its response."""
    n_tokens: int
    """Tokens that are read, without those that fill the row up."""

    def response_tokens(self) -> tuple[torch.Tensor, NDArray[np.int64]]:
        """Return the row indices of all response tokens, and for each the index of its request."""
        spans = [self.segments[at] for at in self.at]
        index = torch.cat([torch.arange(span.start, span.end) for span in spans])
        owner = np.repeat(np.arange(len(spans)), [span.end - span.start for span in spans])
        return index, owner

    def attention_operations(self) -> int:
        """Return how many (query, key) products the tree needs, causal ones only."""
        total = 0
        for segment in self.segments:
            if segment.start >= self.n_tokens:
                break
            length = segment.end - segment.start
            total += length * segment.first_position + length * (length + 1) // 2
        return total


class Tree:
    """The segments of a batch with their attention masks, made once for all layers."""

    def __init__(self, batch: Batch, device: torch.device, dtype: torch.dtype) -> None:
        self.segments = batch.segments
        self._device, self._dtype = device, dtype
        self._masks: dict[tuple[int, int | None], torch.Tensor] = {}

    @property
    def whole(self) -> bool:
        """Whether the row attends in one piece: a GPU waits longer for many small products than for a wasted one."""
        return self._device.type != "cpu"

    def row_mask(self, window: int | None) -> torch.Tensor:
        """Return 0 where a token of the row may attend, -inf elsewhere: (n_tokens, n_tokens)."""
        key = (WHOLE_ROW, window)
        if key not in self._masks:
            spans = [segment.end - segment.start for segment in self.segments]
            owner = torch.repeat_interleave(torch.tensor(spans)).to(self._device)
            follows = torch.zeros(len(spans), len(spans), dtype=torch.bool)
            for index, segment in enumerate(self.segments):
                follows[index, list(segment.ancestors)] = True
            place = torch.arange(len(owner), device=self._device)
            own = (owner[:, None] == owner[None, :]) & (place[:, None] >= place[None, :])
            allowed = own | follows.to(self._device)[owner[:, None], owner[None, :]]
            if window is not None:
                first = torch.tensor([segment.first_position - segment.start for segment in self.segments])
                position = place + first.to(self._device)[owner]
                allowed &= position[:, None] - position[None, :] < window
            mask = torch.zeros(allowed.shape, dtype=self._dtype, device=self._device)
            self._masks[key] = mask.masked_fill_(~allowed, float("-inf"))
        return self._masks[key]

    def mask(self, index: int, window: int | None) -> torch.Tensor:
        """Return 0 where segment `index` may attend, -inf elsewhere: (n_queries, n_ancestor_tokens + n_queries)."""
        key = (index, window)
        if key not in self._masks:
            segment = self.segments[index]
            query = torch.arange(segment.first_position, segment.first_position + segment.end - segment.start)
            distance = query[:, None] - torch.arange(int(query[-1]) + 1)[None, :]
            allowed = distance >= 0 if window is None else (distance >= 0) & (distance < window)
            mask = torch.zeros(allowed.shape, dtype=self._dtype).masked_fill_(~allowed, float("-inf"))
            self._masks[key] = mask.to(self._device)
        return self._masks[key]


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    tree: Tree | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend along the tree; transformers calls it for each layer with heads of shape (1, n_heads, n_tokens, d_head).

    Returns (1, n_tokens, n_heads, d_head). Raises NotImplementedError for kinds of attention that it does not know.
    """
    if tree is None or options.get("softcap") is not None or options.get("s_aux") is not None:
        raise NotImplementedError("this model's attention cannot be laid out as a tree")
    if tree.whole:
        key, value = (side.repeat_interleave(query.shape[1] // side.shape[1], dim=1) for side in (key, value))
        allowed = tree.row_mask(sliding_window)
        attended = functional.scaled_dot_product_attention(query, key, value, allowed, scale=scaling)
        return attended.transpose(1, 2).contiguous(), None
    grouped = query.shape[1] != key.shape[1]
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for index, segment in enumerate(tree.segments):
        if segment.start == segment.end:
            continue
        own = slice(segment.start, segment.end)
        spans = [tree.segments[at] for at in segment.ancestors]
        keys, values = key[:, :, own], value[:, :, own]
        if spans:
            keys = torch.cat([*(key[:, :, span.start : span.end] for span in spans), keys], dim=2)
            values = torch.cat([*(value[:, :, span.start : span.end] for span in spans), values], dim=2)
        plain = not spans and sliding_window is None
        mask = None if plain else tree.mask(index, sliding_window)
        attended = functional.scaled_dot_product_attention(
            query[:, :, own], keys, values, mask, is_causal=plain, scale=scaling, enable_gqa=grouped
        )
        out[:, own] = attended.transpose(1, 2)
    return out, None


def batches(requests: Iterable[Request], opening: Ids, batch_tokens: int) -> Iterator[Batch]:
    """Cut the requests into batches of about `batch_tokens` tokens; prompts that begin with `opening` share it.

    The order is that of the prompts' and requests' content, so it depends on nothing else.
    """
    waiting: list[list[Request]] = []
    total = 0
    for family in _families(requests, opening):
        cost = len(family[0].prompt) + sum(len(request.response) for request in family)
        cost -= len(opening) if waiting and _begins(family[0].prompt, opening) else 0
        if waiting and total + cost > batch_tokens:
            yield lay_out(waiting, opening)
            waiting, total = [], 0
        waiting.append(family)
        total += cost
    if waiting:
        yield lay_out(waiting, opening)


def lay_out(families: Sequence[Sequence[Request]], opening: Ids, *, filled: bool = True) -> Batch:
    """Lay families of requests, each with one prompt, in a flat row; `filled` up to a usual length."""
    row = _Row()
    shared = None
    for family in families:
        prompt, ancestors = family[0].prompt, _NOBODY
        if len(opening) and _begins(prompt, opening):
            shared = row.add(opening, ()) if shared is None else shared
            prompt, ancestors = prompt[len(opening) :], (shared,)
        if len(prompt):
            ancestors = (*ancestors, row.add(prompt, ancestors))
        for request in family:
            row.answer(request, ancestors)
    return row.batch(filled=filled)


class _Row:
    """A flat row under construction."""

    def __init__(self) -> None:
        self.ids: list[Ids] = []
        self.segments: list[Segment] = []
        self.requests: list[Request] = []
        self.at: list[int] = []

    def add(self, ids: Ids, ancestors: tuple[int, ...]) -> int:
        start = self.segments[-1].end if self.segments else 0
        position = sum(self.segments[at].end - self.segments[at].start for at in ancestors)
        self.ids.append(ids)
        self.segments.append(Segment(start, start + len(ids), ancestors, position))
        return len(self.segments) - 1

    def answer(self, request: Request, ancestors: tuple[int, ...]) -> None:
        self.requests.append(request)
        self.at.append(self.add(request.response, ancestors))

    def batch(self, *, filled: bool) -> Batch:
        """Return the row, `filled` up to a length that linear layers have seen before (see `fast_linear`)."""
        read = self.segments[-1].end
        if missing := -read % ROWS if filled and read > ROWS else 0:
            self.add(np.zeros(missing, np.int32), ())
        positions = [torch.arange(s.first_position, s.first_position + s.end - s.start) for s in self.segments]
        ids = torch.from_numpy(np.concatenate(self.ids).astype(np.int64))
        return Batch(ids, torch.cat(positions), tuple(self.segments), tuple(self.requests), tuple(self.at), read)


def _families(requests: Iterable[Request], opening: Ids) -> Iterator[list[Request]]:
    """Group requests by prompt, those that share the opening first; a family too long for one reading is cut."""

    def order(request: Request) -> tuple[bool, int, bytes]:
        prompt = request.prompt
        return not _begins(prompt, opening), len(prompt), prompt.tobytes()

    for _, same in groupby(sorted(requests, key=lambda request: (order(request), request.key)), key=order):
        family: list[Request] = []
        length = 0
        for request in same:
            if family and length + len(request.response) > GROUP_TOKENS:
                yield family
                family, length = [], 0
            family.append(request)
            length += len(request.response)
        yield family


def _begins(prompt: Ids, opening: Ids) -> bool:
    return len(prompt) >= len(opening) and bool(np.array_equal(prompt[: len(opening)], opening))
