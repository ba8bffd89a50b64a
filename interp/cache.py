"""Pooled features kept by content, so that no response is ever read twice through the same lens.

One folder per lens holds shards: safetensors files of a few dozen to a few thousand responses, each named after the
sha256 of its own bytes. A shard is written to a scratch file and renamed, so an interrupted write leaves nothing that
looks like a shard; one whose bytes do not match its name is deleted, and its responses are read again. What a shard
holds stands in the shard itself: there is no index on disk that could disagree. Small shards, which edits leave
behind one by one, are merged when the folder is opened.

Nothing here knows about models; a key is 16 bytes that the caller made from content.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from premortem.interp.errors import PremortemError
from premortem.interp.pooling import FitRows, FitSums, Pooled, TokenRows, concatenate, from_arrays
from premortem.interp.pooling import empty as no_response

KEEP_BYTES = 128 * 2**20
"""Shards held in memory at most, in bytes, when there is a folder to read them from again."""

FORMAT = "3"
"""Of a shard; files of another one are deleted, and their responses read again."""

MANY_SMALL = 64
"""From so many small shards on, opening the folder merges them."""

TOGETHER = 1024
"""Responses in a merged shard, about: one is read and checked as a whole."""

_SMALL = 256
_STALE_SECONDS = 3600


class DamagedShardError(Exception):
    """A shard is gone or not what was written; it has been forgotten, and its responses must be read again."""


@dataclass(frozen=True)
class Shard:
    """Some responses through one lens."""

    keys: tuple[bytes, ...]
    """Content key of each response."""
    pooled: Pooled
    """Its features, same order."""
    fit: FitRows
    """How well the lens reconstructs each."""

    @property
    def n_bytes(self) -> int:
        """Memory of the arrays."""
        return (
            16 * self.pooled.share.nnz
            + 4 * len(self.pooled.tokens.values)
            + self.fit.total.nbytes
            + 64 * len(self.keys)
        )


class PooledStore:
    """All shards of one lens; in memory only when `folder` is None.

    Raises PremortemError when the folder cannot be written.
    """

    def __init__(self, folder: Path | None, d_sae: int, d_in: int) -> None:
        self._folder, self._d_sae, self._d_in = folder, d_sae, d_in
        self._place: dict[bytes, tuple[str, int]] = {}
        self._known: set[str] = set()
        self._held: OrderedDict[str, Shard] = OrderedDict()
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._sweep()
                self.refresh()
                self._merge_small()
            except OSError as error:
                raise _unwritable(folder, error) from error

    def __contains__(self, key: bytes) -> bool:
        return key in self._place

    def add(self, keys: Sequence[bytes], pooled: Pooled, fit: FitRows) -> None:
        """Keep responses. Raises PremortemError when the folder cannot be written."""
        shard = Shard(tuple(keys), pooled, fit)
        data = _to_bytes(shard, self._d_sae)
        name = hashlib.sha256(data).hexdigest()
        if self._folder is not None:
            _write(self._folder / f"{name}.safetensors", data)
        self._hold(name, shard)
        self._known.add(name)
        self._place.update({key: (name, at) for at, key in enumerate(shard.keys)})

    def gather(self, keys: Sequence[bytes | None]) -> Pooled:
        """Return one row per key, in order; None stands for an empty response.

        Raises KeyError for a key that is not kept, DamagedShardError when a shard has to be read again.
        """
        parts: list[Pooled] = []
        order = np.zeros(len(keys), np.int64)
        total = 0
        for name, wanted in self._by_shard(keys).items():
            rows = np.array([self._place[key][1] for key, _ in wanted])
            parts.append(self._shard(name).pooled.take(rows))
            order[[at for _, at in wanted]] = total + np.arange(len(wanted))
            total += len(wanted)
        empty = [at for at, key in enumerate(keys) if key is None]
        if empty:
            parts.append(no_response(1, self._d_sae))
            order[empty] = total
        gathered = parts[0] if len(parts) == 1 else concatenate(parts, self._d_sae)
        parts.clear()
        return gathered if np.array_equal(order, np.arange(len(gathered))) else gathered.take(order)

    def fit(self, keys: Sequence[bytes | None]) -> FitSums:
        """Return the sums over the responses with these keys, each counted once."""
        total = FitSums(0.0, 0.0, 0.0, 0.0, np.zeros(self._d_in))
        for name, wanted in self._by_shard(sorted({key for key in keys if key is not None})).items():
            total = total + self._shard(name).fit.sum(np.array([self._place[key][1] for key, _ in wanted]))
        return total

    def _by_shard(self, keys: Sequence[bytes | None]) -> dict[str, list[tuple[bytes, int]]]:
        found: dict[str, list[tuple[bytes, int]]] = {}
        for at, key in enumerate(keys):
            if key is not None:
                found.setdefault(self._place[key][0], []).append((key, at))
        return found

    def _hold(self, name: str, shard: Shard) -> None:
        self._held[name] = shard
        self._held.move_to_end(name)
        while self._folder is not None and len(self._held) > 1 and self._held_bytes() > KEEP_BYTES:
            self._held.popitem(last=False)

    def _held_bytes(self) -> int:
        return sum(shard.n_bytes for shard in self._held.values())

    def _shard(self, name: str) -> Shard:
        if name not in self._held:
            self._hold(name, self._read(name))
        self._held.move_to_end(name)
        return self._held[name]

    def _read(self, name: str) -> Shard:
        assert self._folder is not None
        path = self._folder / f"{name}.safetensors"
        try:
            data = path.read_bytes()
        except OSError:  # another process may have merged it
            self._forget(name)
            self.refresh()
            raise DamagedShardError(name) from None
        if hashlib.sha256(data).hexdigest() != name:
            path.unlink(missing_ok=True)
            self._forget(name)
            raise DamagedShardError(name)
        return _from_bytes(data, self._d_sae)

    def _forget(self, name: str) -> None:
        self._known.discard(name)
        self._place = {key: place for key, place in self._place.items() if place[0] != name}

    def refresh(self) -> None:
        """Learn which responses the files hold that appeared since the last time, from their keys alone."""
        paths = sorted(self._folder.glob("*.safetensors")) if self._folder is not None else []
        for path in paths:
            if path.stem in self._known:
                continue
            try:
                with safe_open(path, framework="numpy") as file:
                    if (file.metadata() or {}).get("format") != FORMAT:
                        raise ValueError("written by another version")
                    keys = _split_keys(file.get_tensor("keys"))
            except OSError:  # gone, or it cannot be opened just now
                continue
            except (SafetensorError, ValueError):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                continue
            self._known.add(path.stem)
            self._place.update({key: (path.stem, at) for at, key in enumerate(keys)})

    def _sweep(self) -> None:
        """Remove scratch files that an interrupted write left an hour ago or more."""
        assert self._folder is not None
        for path in self._folder.glob(".*.tmp"):
            with suppress(FileNotFoundError):  # its writer has just finished
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()

    def _merge_small(self) -> None:
        """Write small shards together; whoever is killed in between leaves responses kept twice, which does no harm."""
        assert self._folder is not None
        sizes: dict[str, int] = {}
        for name, _ in self._place.values():
            sizes[name] = sizes.get(name, 0) + 1
        small = sorted(name for name, size in sizes.items() if size < _SMALL)
        if len(small) < MANY_SMALL:
            return
        with filelock.FileLock(self._folder / ".merge.lock"):
            for portion in _portions(small, sizes):
                try:
                    shards = [self._read(name) for name in portion]
                except DamagedShardError:  # merged by another process, or damaged: the next opening tries again
                    return
                fit = FitRows.joined([shard.fit for shard in shards])
                keys = [key for shard in shards for key in shard.keys]
                self.add(keys, concatenate([shard.pooled for shard in shards], self._d_sae), fit)
                for name in portion:
                    (self._folder / f"{name}.safetensors").unlink(missing_ok=True)


def _portions(names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield `names` in portions of TOGETHER responses or a little more; a single name is left as it is."""
    portion: list[str] = []
    for name in names:
        portion.append(name)
        if sum(sizes[each] for each in portion) >= TOGETHER:
            yield portion
            portion = []
    if len(portion) > 1:
        yield portion


def _write(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.stem[:16]}-{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise _unwritable(path.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> PremortemError:
    told = f"{folder} cannot be written ({error.strerror or error}); PREMORTEM_CACHE names another folder."
    return PremortemError(told)


def _to_bytes(shard: Shard, d_sae: int) -> bytes:
    fit, pooled = shard.fit, shard.pooled
    arrays = {
        "keys": np.frombuffer(b"".join(shard.keys), np.uint8).reshape(-1, 16),
        "n_tokens": pooled.n_tokens.astype(np.int32),
        "indptr": pooled.share.indptr.astype(np.int64),
        "indices": pooled.share.indices.astype(np.int32),
        "share": pooled.share.data,
        "mean": pooled.mean.data,
        "max": pooled.max.data,
        "token_indptr": pooled.tokens.indptr.astype(np.int64),
        "token_indices": pooled.tokens.indices,
        "token_values": pooled.tokens.values,
        "fit": fit.sums,
        "total": fit.total,
    }
    ordered = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(ordered, metadata={"format": FORMAT})


def _from_bytes(data: bytes, d_sae: int) -> Shard:
    arrays = load(data)
    tokens = TokenRows(arrays["token_indptr"], arrays["token_indices"], arrays["token_values"])
    n_tokens, indptr, indices = arrays["n_tokens"], arrays["indptr"], arrays["indices"]
    pooled = from_arrays(n_tokens, indptr, indices, arrays["share"], arrays["mean"], arrays["max"], tokens, d_sae)
    return Shard(tuple(_split_keys(arrays["keys"])), pooled, FitRows(arrays["fit"], arrays["total"]))


def _split_keys(array: np.ndarray) -> list[bytes]:
    joined = array.tobytes()
    return [joined[at : at + 16] for at in range(0, len(joined), 16)]
