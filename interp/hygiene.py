"""What the user should know about the data itself, before any model reads it.

Some pairs teach nothing (both sides equal), some teach by accident (an empty response, one side cut off), some count
twice, and some carry the control tokens of a chat template in their text, which can open a turn that nobody wrote.
Each kind becomes one `DataNote` with its rows. Nothing is removed but what no training would take: the user decides.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from premortem.interp.errors import NoPairs
from premortem.interp.forms import explicit_row
from premortem.interp.lines import shown
from premortem.interp.messages import plain
from premortem.interp.records import Content, DataNote, Dataset, Pair, Quarantined, content_id
from premortem.interp.tables import canonical
from premortem.interp.tokens import MAX_LENGTH, refusals, tokenize_all
from premortem.interp.words import spaced

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH
    from transformers import PreTrainedTokenizerBase

NEAR_DUPLICATE = 0.8
"""Share of three-word runs that two pairs have in common (Jaccard) to count as near-duplicates."""
NEAR_DUPLICATE_PAIRS = 20_000
"""Larger datasets are searched for exact copies only."""

_SPECIAL_TOKENS = "the text holds control tokens of a chat template"
_PERMUTATIONS = 64
_CANDIDATES = 20
_WORDS_READ = 600
_SPECIAL = re.compile(
    r"<[|｜][^<>|｜\n]{1,40}[|｜]>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
)


def collect_notes(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase | None = None, max_length: int = MAX_LENGTH
) -> tuple[DataNote, ...]:
    """Return the notes about the pairs, one per kind; with a tokenizer also those about length in tokens."""
    copies = list(_later_copies(pairs))
    found: list[tuple[str, Iterable[int], str]] = [
        ("identical", _rows(pairs, _identical), "both responses are the same, which teaches nothing"),
        ("prefix", _rows(pairs, _prefix), "one response is the beginning of the other"),
        ("empty", _rows(pairs, _empty), "a response is empty"),
        ("duplicate", copies, "the pair is an exact copy of an earlier one"),
        ("near_duplicate", _near_copies(pairs, set(copies)), "the pair is nearly a copy of an earlier one"),
        ("special_tokens", _with_special_tokens(pairs, tokenizer), _SPECIAL_TOKENS),
    ]
    if tokenizer is not None:
        found += _length_notes(pairs, tokenizer, max_length)
    return tuple(_told(found))


def vetted(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int = MAX_LENGTH) -> Dataset:
    """Return `dataset` as a model takes it: with notes on its tokens, without the pairs that its template refuses.

    Some templates raise at a system message, or where two messages of the user follow each other; TRL would stop
    there. Such pairs are quarantined. Raises NoPairs where none is left.
    """
    refused = refusals(dataset.pairs, tokenizer)
    first = next(iter(refused.items()), None)
    if first is not None and len(refused) == len(dataset.pairs):
        raise NoPairs(f"no pair is left: row {first[0]}: {first[1]}")
    pairs = [pair for pair in dataset.pairs if pair.row not in refused]
    told = [note for note in dataset.notes if note.kind != "special_tokens"]
    told += _told(
        [
            ("special_tokens", _with_special_tokens(pairs, tokenizer), _SPECIAL_TOKENS),
            *_length_notes(pairs, tokenizer, max_length),
            ("refused", refused, f"{first[1]}, so it is left out" if first else ""),
        ]
    )
    return without(dataset, refused).model_copy(update={"notes": tuple(told)})


def without(dataset: Dataset, refused: Mapping[int, str]) -> Dataset:
    """Return `dataset` with the rows of `refused` quarantined, each for its reason."""
    lost = [
        Quarantined(row=pair.row, reason=refused[pair.row], line=shown(canonical(explicit_row(pair))))
        for pair in dataset.pairs
        if pair.row in refused
    ]
    kept = tuple(pair for pair in dataset.pairs if pair.row not in refused)
    quarantined = tuple(sorted([*dataset.quarantined, *lost], key=lambda bad: bad.row))
    return dataset.model_copy(update={"pairs": kept, "quarantined": quarantined})


def _told(found: Iterable[tuple[str, Iterable[int], str]]) -> Iterator[DataNote]:
    """Yield a note for each kind that some rows have."""
    notes = ((kind, tuple(rows), what) for kind, rows, what in found)
    return (_note(kind, rows, what) for kind, rows, what in notes if rows)


def _note(kind: str, rows: tuple[int, ...], what: str) -> DataNote:
    count = "1 pair" if len(rows) == 1 else f"{len(rows)} pairs"
    return DataNote.model_validate({"kind": kind, "rows": rows, "text": f"{count}: {what}."})


def _rows(pairs: Iterable[Pair], test: object) -> Iterator[int]:
    assert callable(test)
    return (pair.row for pair in pairs if test(pair))


def _identical(pair: Pair) -> bool:
    return pair.chosen == pair.rejected


def _prefix(pair: Pair) -> bool:
    if _earlier(pair.chosen) != _earlier(pair.rejected):
        return False
    chosen, rejected = pair.text("chosen"), pair.text("rejected")
    shorter, longer = sorted((chosen, rejected), key=len)
    return bool(shorter) and chosen != rejected and longer.startswith(shorter)


def _empty(pair: Pair) -> bool:
    return any(_says_nothing(content) for content in (pair.chosen, pair.rejected))


def _says_nothing(content: Content) -> bool:
    if isinstance(content, str):
        return not content.strip()
    return not plain(content[-1]).strip() and not content[-1].get("tool_calls")


def _earlier(content: Content) -> Content:
    return "" if isinstance(content, str) else content[:-1]


def _later_copies(pairs: Iterable[Pair]) -> Iterator[int]:
    seen: set[str] = set()
    for pair in pairs:
        key = content_id(pair.prompt, pair.chosen, pair.rejected)
        if key in seen:
            yield pair.row
        seen.add(key)


def _near_copies(pairs: Sequence[Pair], copies: set[int]) -> Iterator[int]:
    """Yield the rows that nearly repeat an earlier pair; exact copies are told elsewhere."""
    if len(pairs) > NEAR_DUPLICATE_PAIRS:
        return
    from datasketch import MinHash, MinHashLSH

    index: MinHashLSH = MinHashLSH(threshold=NEAR_DUPLICATE, num_perm=_PERMUTATIONS)
    blank: MinHash = MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=int)
    runs_of: dict[int, np.ndarray] = {}
    for pair in pairs:
        if pair.row in copies:
            continue
        runs = _word_runs(pair)
        sketch = blank.copy()
        sketch.update_batch(runs)
        alike = sorted(index.query(sketch))[:_CANDIDATES]
        if any(_jaccard(runs, runs_of[row]) >= NEAR_DUPLICATE for row in alike):
            yield pair.row
        else:
            runs_of[pair.row] = runs
            index.insert(pair.row, sketch)


def _word_runs(pair: Pair) -> np.ndarray:
    """Return the hashes of the runs of three words in prompt and responses, sorted, each once: (n_runs,) uint32."""
    texts = (pair.prompt_text(), pair.text("chosen"), pair.text("rejected"))
    return np.unique(np.concatenate([_run_hashes(text, part) for part, text in enumerate(texts)]))


def _run_hashes(text: str, part: int) -> np.ndarray:
    """Return one hash per run of three words; `part` keeps equal words of prompt and responses apart."""
    words = spaced(text.lower()).encode().split(None, _WORDS_READ)[:_WORDS_READ]
    hashes = np.zeros(max(3, len(words)), dtype=np.uint32)
    hashes[: len(words)] = np.fromiter(map(zlib.crc32, words), dtype=np.uint32, count=len(words))
    first, second, third, shift = np.array([0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F], dtype=np.uint32)
    return hashes[:-2] * first + hashes[1:-1] * second + hashes[2:] * third + np.uint32(part) * shift


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def _with_special_tokens(pairs: Iterable[Pair], tokenizer: PreTrainedTokenizerBase | None) -> Iterator[int]:
    own = [token for token in tokenizer.all_special_tokens if len(token) > 1] if tokenizer is not None else []
    pattern = re.compile("|".join([_SPECIAL.pattern, *map(re.escape, own)]))
    end = (tokenizer.eos_token or "") if tokenizer is not None else ""
    for pair in pairs:
        if any(pattern.search(text) for text in _texts(pair, end)):
            yield pair.row


def _texts(pair: Pair, end: str) -> Iterator[str]:
    """Yield all texts of a pair; a plain response may close with the end-of-sequence token, which TRL expects."""
    for content in (pair.prompt, pair.chosen, pair.rejected):
        if isinstance(content, str):
            yield content.removesuffix(end) if content is not pair.prompt else content
        else:
            yield from (plain(message) for message in content)


def _length_notes(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[tuple[str, Iterable[int], str]]:
    lengths: dict[str, list[int]] = defaultdict(list)
    for pair, tokens in zip(pairs, tokenize_all(pairs, tokenizer), strict=True):
        if len(tokens.prompt) >= max_length:
            lengths["prompt"].append(pair.row)
        elif len(tokens.prompt) + max(len(tokens.chosen), len(tokens.rejected)) > max_length:
            lengths["response"].append(pair.row)
    return [
        ("prompt_too_long", lengths["prompt"], f"the prompt alone has {max_length} tokens, so TRL drops the pair"),
        ("truncated", lengths["response"], f"a response ends beyond {max_length} tokens, where TRL cuts it off"),
    ]
