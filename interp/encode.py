"""Reads pairs through a model and its lenses: one pass over the layers up to the deepest hook, all lenses at once.

Each response is read after its prompt, as DPO would tokenise it, and pooled over its own tokens. A `Reader` plans flat
batches without padding (`packing`), catches the residual stream at each hook and stops the model there, turns it into
features (`features`), pools them (`pooling`) and keeps the result by content (`cache`). So a second reading costs
nothing, and an edit costs its own response and prompt. A model whose attention cannot be laid out as a tree is read one
full sequence per response, with padding: slower, same numbers.

Nothing here knows about concepts or effects.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from premortem.interp.cache import DamagedShardError, PooledStore
from premortem.interp.errors import LensError
from premortem.interp.features import FeatureReader
from premortem.interp.forward import Forward
from premortem.interp.lens import Lens
from premortem.interp.models import LoadedModel
from premortem.interp.packing import Batch, Ids, Request, batches
from premortem.interp.pooling import EncodedPairs, FitRows, Pooled, TokenFeatures, concatenate, pool
from premortem.interp.progress import NullProgress, Progress
from premortem.interp.records import Content, Pair, Prompt, Side
from premortem.interp.tokens import MAX_LENGTH, PairTokens, response_offsets, tokenize, tokenize_all

BATCH_TOKENS = 1024
"""Tokens in one flat batch; 512 to 4096 ran at the same rate on two cores."""
GPU_BATCH_TOKENS = 8192
"""The same on a GPU, which has to be kept busy."""
COMMIT_BATCHES = 8
"""Batches between two writes: what a kill can cost."""

REMEMBERED = 512
"""Responses whose token activations stay in memory, for one trace asks again where another asked before."""

T = TypeVar("T")
Keys = tuple[bytes | None, bytes | None]
"""Content keys of a pair's chosen and rejected response; None: nothing to read."""


class Fit(NamedTuple):
    """How well a lens reconstructs response tokens, to four digits."""

    fvu: float
    """Fraction of variance unexplained; 0 is perfect."""
    l0: float
    """Mean number of features that fire on a token."""


@dataclass(frozen=True)
class TokenActs:
    """Chosen features on the tokens of one response."""

    offsets: list[tuple[int, int]]
    """`(start, end)` of each token in the response's text; an empty span lies outside it."""
    acts: NDArray[np.float32]
    """`(n_tokens, n_features)` activations."""


@dataclass(frozen=True)
class _Part:
    """One batch, read through one lens and not yet written."""

    batch: Batch
    pooled: Pooled
    fit: FitRows


class Reader:
    """A model with its lenses and what they have read so far."""

    def __init__(
        self,
        model: LoadedModel,
        lenses: Sequence[Lens],
        cache_dir: Path | None = None,
        *,
        max_length: int = MAX_LENGTH,
        batch_tokens: int | None = None,
    ) -> None:
        """Open the stores of `lenses` below `cache_dir` (None: keep in memory).

        `batch_tokens`: tokens of a batch, by default what suits the device.

        Raises LensError when a lens is for another model or for a layer that `model` did not keep.
        """
        _check_lenses(model, lenses)
        self.model, self.lenses = model, {lens.lens_id: lens for lens in lenses}
        self.tokens_encoded = 0
        self.fit: dict[str, Fit] = {}
        usual = BATCH_TOKENS if model.device.type == "cpu" else GPU_BATCH_TOKENS
        self._max_length, self._batch_tokens = max_length, batch_tokens or usual
        suffix = "" if model.dtype == torch.float32 else f"-{str(model.dtype).removeprefix('torch.')}"
        self._stores = {
            lens.lens_id: PooledStore(
                None if cache_dir is None else cache_dir / f"{lens.lens_id}{suffix}", lens.d_sae, model.hidden_size
            )
            for lens in lenses
        }
        self._features: dict[str, FeatureReader] = {}
        self._recent: OrderedDict[tuple[str, bytes], TokenFeatures] = OrderedDict()
        self._largest = 0
        self._known: dict[bytes, Keys] = {}
        self._ends: dict[bool, int] = {}
        self._forward: Forward | None = None

    def encode(
        self, pairs: Sequence[Pair], progress: Progress | None = None, *, only: str | None = None
    ) -> dict[str, EncodedPairs]:
        """Return both sides of `pairs` through each lens, row for row; what was read before is not read again.

        All lenses read, and `only` names the one whose features are wanted in memory. `fit` tells of the largest set of
        pairs so far. Raises DataError when the chat template cannot render a pair, PremortemError when the cache cannot
        be written.
        """
        rows = tuple(pair.row for pair in pairs)
        wanted = self.lenses if only is None else (only,)

        def gathered() -> dict[str, EncodedPairs]:
            keys = self._read_missing(pairs, progress or NullProgress())
            return {lens_id: self._gather(lens_id, rows, keys) for lens_id in wanted}

        return _undamaged(gathered)

    def encode_texts(self, texts: Sequence[tuple[Prompt, str]], progress: Progress | None = None) -> dict[str, Pooled]:
        """Return each response, read after its prompt, through each lens: for texts that belong to no pair."""
        pairs = [_lone_pair(prompt, response) for prompt, response in texts]
        return {lens_id: encoded.chosen for lens_id, encoded in self.encode(pairs, progress).items()}

    def tokens(self, pairs: Sequence[Pair]) -> list[tuple[list[int], list[int]]]:
        """Return the ids of prompt and response of each side as they are read, the chosen sides first.

        Both sides of a pair that DPO would drop are empty.
        """
        read = [full.cut(self._max_length) for full in tokenize_all(pairs, self.model.tokenizer)]
        chosen = [(each.prompt, each.chosen) if each else ([], []) for each in read]
        return chosen + [(each.prompt, each.rejected) if each else ([], []) for each in read]

    def closing(self, pairs: Sequence[Pair]) -> NDArray[np.int64]:
        """Return how many tokens the template puts behind a response only to end it, `(n_pairs,)`."""
        return np.asarray([self._closing(pair.conversational) for pair in pairs], dtype=np.int64)

    def closing_of(self, prompt: Prompt) -> int:
        """Return how many tokens the template puts behind an answer to `prompt` only to end it."""
        return self._closing(_lone_pair(prompt, "").conversational)

    def _closing(self, conversational: bool) -> int:
        if conversational not in self._ends:
            prompt: Content = ({"role": "user", "content": "?"},) if conversational else "?"
            said = (_lone_pair(prompt, text) for text in ("apple", "47"))
            read = (tokenize(pair, self.model.tokenizer, self._max_length) for pair in said)
            one, other = (each.chosen[::-1] if each else [] for each in read)
            self._ends[conversational] = next(
                (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0
            )
        return self._ends[conversational]

    def token_activations(self, pair: Pair, side: Side, lens_id: str, features: Sequence[int]) -> TokenActs:
        """Return `features` on each token of one response."""
        return self.token_activations_of([(pair, side)], lens_id, features)[0]

    def token_activations_of(
        self, wanted: Sequence[tuple[Pair, Side]], lens_id: str, features: Sequence[int]
    ) -> list[TokenActs]:
        """Return `features` on each token of several responses, read together; the last few hundred are remembered."""
        tokens = [tokenize(pair, self.model.tokenizer, self._max_length) for pair, _ in wanted]
        requests = [request_of(read, side) for read, (_, side) in zip(tokens, wanted, strict=True)]
        found = self._token_features([request for request in requests if request is not None], lens_id)
        empty = np.zeros((0, len(features)), np.float32)
        return [
            TokenActs([], empty)
            if request is None or read is None
            else TokenActs(
                response_offsets(pair, side, read, self.model.tokenizer), _columns(found[request.key], features)
            )
            for (pair, side), read, request in zip(wanted, tokens, requests, strict=True)
        ]

    def fit_on(self, lens_id: str, pairs: Sequence[Pair]) -> Fit:
        """Return how well a lens reconstructs `pairs`, which have been encoded."""
        return _undamaged(lambda: self._fit(lens_id, self._read_missing(pairs, NullProgress())))

    def _fit(self, lens_id: str, keys: Sequence[Keys]) -> Fit:
        sums = self._stores[lens_id].fit([key for both in keys for key in both])
        return Fit(round(sums.fvu, 4), round(sums.l0, 4))

    def _token_features(self, requests: Sequence[Request], lens_id: str) -> dict[bytes, TokenFeatures]:
        """Return what fires on each token, by request key."""
        found = {r.key: self._recent[lens_id, r.key] for r in requests if (lens_id, r.key) in self._recent}
        missing = {request.key: request for request in requests if request.key not in found}
        for batch in self._batches(missing.values()):
            for _, (features, _), owner in self._read(batch, [lens_id]):
                parts = (features.only(owner == at) for at in range(len(batch.requests)))
                found.update({request.key: part for request, part in zip(batch.requests, parts, strict=True)})
        for key, features in found.items():
            self._recent[lens_id, key] = features
            self._recent.move_to_end((lens_id, key))
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return found

    def _gather(self, lens_id: str, rows: tuple[int, ...], keys: Sequence[Keys]) -> EncodedPairs:
        store = self._stores[lens_id]
        if len(keys) >= self._largest:
            self._largest, self.fit[lens_id] = len(keys), self._fit(lens_id, keys)
        return EncodedPairs(rows, store.gather([key for key, _ in keys]), store.gather([key for _, key in keys]))

    def _read_missing(self, pairs: Sequence[Pair], progress: Progress) -> list[Keys]:
        """Read every response that some lens has not seen yet; return the keys of all pairs."""
        names = [_pair_name(pair) for pair in pairs]
        unknown = [at for at, name in enumerate(names) if self._is_missing(name)]
        requests: dict[bytes, Request] = {}
        tokens = tokenize_all([pairs[at] for at in unknown], self.model.tokenizer)
        for at, full in zip(unknown, tokens, strict=True):
            cut = full.cut(self._max_length)
            both = request_of(cut, "chosen"), request_of(cut, "rejected")
            self._known[names[at]] = (both[0] and both[0].key, both[1] and both[1].key)
            requests.update({request.key: request for request in both if request is not None})
        for store in self._stores.values() if requests else ():
            store.refresh()
        needed = {lens_id: {key for key in requests if key not in store} for lens_id, store in self._stores.items()}
        self._read_all(
            [r for r in requests.values() if any(r.key in keys for keys in needed.values())], needed, progress
        )
        return [self._known[name] for name in names]

    def _is_missing(self, name: bytes) -> bool:
        keys = self._known.get(name)
        return keys is None or any(key not in store for store in self._stores.values() for key in keys if key)

    def _read_all(self, requests: Sequence[Request], needed: dict[str, set[bytes]], progress: Progress) -> None:
        total = sum(len(request.response) for request in requests)
        if not total:
            return
        lens_ids = [lens_id for lens_id, keys in needed.items() if keys]
        with progress.stage("Reading responses", total=total) as stage:
            planned = self._batches(requests)
            while several := list(islice(planned, COMMIT_BATCHES)):
                pending: dict[str, list[_Part]] = {lens_id: [] for lens_id in lens_ids}
                for batch in several:
                    for lens_id, (features, activations), owner in self._read(batch, lens_ids):
                        pooled = pool(features, owner, len(batch.requests), self.lenses[lens_id].d_sae)
                        pending[lens_id].append(
                            _Part(batch, pooled, FitRows.of(features, activations, owner, len(batch.requests)))
                        )
                    stage.advance(sum(len(request.response) for request in batch.requests))
                for lens_id, parts in pending.items():
                    self._commit(lens_id, parts)

    def _commit(self, lens_id: str, parts: Sequence[_Part]) -> None:
        keys = [request.key for part in parts for request in part.batch.requests]
        fit = FitRows.joined([part.fit for part in parts])
        self._stores[lens_id].add(keys, concatenate([part.pooled for part in parts], self.lenses[lens_id].d_sae), fit)

    def _batches(self, requests: Iterable[Request]) -> Iterator[Batch]:
        forward = self._ready()
        return batches(requests, forward.opening, self._batch_tokens)

    def _ready(self) -> Forward:
        if self._forward is None:
            self._forward = Forward(self.model)
        return self._forward

    def _read(
        self, batch: Batch, lens_ids: Sequence[str]
    ) -> Iterator[tuple[str, tuple[TokenFeatures, NDArray[np.float32]], NDArray[np.int64]]]:
        """Yield for each lens the features and activations of the batch's response tokens, and whose token each is."""
        layers = sorted({self.lenses[lens_id].layer for lens_id in lens_ids})
        residual, owner, computed = self._ready().read(batch, layers)
        self.tokens_encoded += computed
        for lens_id in lens_ids:
            x = residual[self.lenses[lens_id].layer]
            yield lens_id, (self._feature_reader(lens_id).read(x), x.float().cpu().numpy()), owner

    def _feature_reader(self, lens_id: str) -> FeatureReader:
        if lens_id not in self._features:
            self._features[lens_id] = FeatureReader(self.lenses[lens_id].sae, self.model.device)
        return self._features[lens_id]


def request_key(prompt: Ids, response: Ids) -> bytes:
    """Return the content key of a response after its prompt, 16 bytes."""
    content = len(prompt).to_bytes(8, "little") + prompt.tobytes() + response.tobytes()
    return hashlib.sha256(content).digest()[:16]


def request_of(tokens: PairTokens | None, side: Side) -> Request | None:
    """Return what to read of one side; None where DPO would drop the pair or the response is empty."""
    if tokens is None or not tokens.side(side):
        return None
    prompt, response = np.array(tokens.prompt, np.int32), np.array(tokens.side(side), np.int32)
    return Request(request_key(prompt, response), prompt, response)


def _undamaged(read: Callable[[], T]) -> T:
    """Return what `read` returns, tried again where a shard was merged by another process or has to be read anew."""
    for _ in range(3):
        with suppress(DamagedShardError):
            return read()
    raise LensError("the cache of encoded responses was damaged three times in a row: check the disk it is on.")


def _pair_name(pair: Pair) -> bytes:
    """Name a pair by what the chat template sees of it."""
    seen = repr((pair.prompt, pair.chosen, pair.rejected, pair.tools, pair.template_kwargs))
    return hashlib.sha256(seen.encode("utf-8", "surrogatepass")).digest()


def _lone_pair(asked: Prompt, response: str) -> Pair:
    """Wrap a single response as a pair whose sides are equal."""
    pair = asked if isinstance(asked, Pair) else Pair(row=0, prompt=asked, chosen="", rejected="")
    content: Content = ({"role": "assistant", "content": response},) if pair.conversational else response
    return pair.model_copy(update={"chosen": content, "rejected": content})


def _columns(features: TokenFeatures, wanted: Sequence[int]) -> NDArray[np.float32]:
    """Return the activations of `wanted` features as a dense `(n_tokens, n_wanted)` matrix."""
    dense = np.zeros((features.n_tokens, len(wanted)), np.float32)
    for column, feature in enumerate(wanted):
        fires = features.feature == feature
        dense[features.token[fires], column] = features.activation[fires]
    return dense


def _check_lenses(model: LoadedModel, lenses: Sequence[Lens]) -> None:
    for lens in lenses:
        if lens.d_in != model.hidden_size:
            raise LensError(
                f"{lens.sae_ref} reads activations of width {lens.d_in}; {model.ref} has {model.hidden_size}: "
                "the SAE is for another model."
            )
        if lens.layer >= len(model.layers):
            raise LensError(f"{lens.sae_ref} reads layer {lens.layer}; {len(model.layers)} of {model.ref} are loaded.")
