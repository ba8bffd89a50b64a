"""Reads JSON Lines ourselves, one line at a time, so that one bad line costs one line.

Ready-made loaders give up on a whole file for one stray byte, turn large integers into floats, keep the last of two
equal keys without a word, and add `null` where a key was missing. An export that promises untouched rows byte for byte
cannot stand on that. So the file is read as bytes; each line is decoded strictly, parsed strictly, and either becomes
a `Line` (its number, its bytes, its value) or a `Quarantined` record that says what was seen. The hash of the whole
file is taken in the same pass, also of what lies behind a `stop`.

Memory stays bounded whatever the file is: a line beyond the cap is skimmed, never held; a gzip file is stopped when it
grows out of proportion. Nothing here knows what a pair is.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

from premortem.interp.errors import DataError, RowError
from premortem.interp.records import Quarantined

MAX_LINE_BYTES = 16 << 20
"""Longest line that is parsed, in bytes without its line ending."""
MAX_DEPTH = 100
"""Deepest nesting of lists and objects."""
MAX_SHOWN = 500
"""Characters of a bad line that its quarantine record keeps."""
MIN_UNPACKED_BYTES = 64 << 20
"""A gzip file may always unpack to this many bytes ..."""
MAX_UNPACK_RATIO = 100
"""... or to this many times its own size, whichever is larger; beyond that it is taken for a bomb."""
GIVE_UP_AFTER = 10_000
"""So many bad lines from the start without one good line: the file is not JSON Lines."""

_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 16
_SURROGATE = re.compile(rb"\\[uU][dD][89a-fA-F]")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), 127)}
_KINDS = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}


class Line(NamedTuple):
    """One readable line."""

    row: int
    """0-based line number in the file; blank lines count."""
    raw: bytes
    """The line as it stands in the file, line ending included."""
    value: dict[str, Any]
    """The object it holds."""


class LineReader:
    """Iterates once over the readable lines of a `.jsonl` or `.jsonl.gz` file.

    After the iteration `sha256` holds the hash of the file's bytes and `quarantined` the lines that were refused.
    `stop` ends the iteration before that row; the hash still covers the whole file. Raises DataError when the file
    cannot be opened or is something else than JSON Lines.
    """

    def __init__(self, path: Path, *, stop: int | None = None, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.path = path
        self.stop = stop
        self.max_line_bytes = max_line_bytes
        self.sha256 = ""
        self.quarantined: list[Quarantined] = []

    def __iter__(self) -> Iterator[Line]:
        self.quarantined = []
        try:
            with open(self.path, "rb", buffering=0) as file:
                hashed = _HashedFile(file)
                source: io.BufferedReader = io.BufferedReader(hashed)
                yield from self._read(_unpacked(source, self.path))
                while source.read(_CHUNK):
                    pass
                self.sha256 = hashed.digest.hexdigest()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{self.path}: the gzip file is damaged ({error}); compress it again.") from error
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}.") from error

    def _read(self, source: BinaryIO) -> Iterator[Line]:
        row, good, started = 0, 0, False
        while (self.stop is None or row < self.stop) and (raw := source.readline(self.max_line_bytes + 2)):
            body = raw.removeprefix(_BOM) if row == 0 else raw
            if not started and body.strip():
                started = True
                _check_start(body.lstrip(), self.path)
            line = self._judge(row, raw, body, source)
            if line is not None:
                good += 1
                yield line
            elif not good and len(self.quarantined) >= GIVE_UP_AFTER:
                reason = self.quarantined[0].reason
                raise DataError(f"{self.path}: not JSON Lines: no line of the first {row + 1} is readable ({reason}).")
            row += 1

    def _judge(self, row: int, raw: bytes, body: bytes, source: BinaryIO) -> Line | None:
        """Return the line, or None after filing it under `quarantined`; a blank line is None and filed nowhere."""
        cut = len(raw) == self.max_line_bytes + 2 and not raw.endswith(b"\n")
        if cut or len(body.rstrip(b"\r\n")) > self.max_line_bytes:
            _skim(raw, source)
            reason = f"the line is longer than {self.max_line_bytes} bytes"
        elif not body.strip():
            return None
        else:
            try:
                return Line(row, raw, parse_line(body))
            except RowError as error:
                reason = str(error)
        self.quarantined.append(Quarantined(row=row, reason=reason, line=shown(raw)))
        return None


def parse_line(body: bytes) -> dict[str, Any]:
    """Return the JSON object of one line; raise RowError with the reason where it is not exactly one.

    Refused: bytes that are not UTF-8, text that is not JSON, duplicate keys, NaN and infinities, half a surrogate
    pair, integers beyond 64 bits, nesting deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_int64,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8: byte 0x{body[error.start]:02x} at position {error.start}") from error
    except json.JSONDecodeError as error:
        raise RowError(_why_not_json(body, error)) from error
    except RecursionError as error:
        raise RowError(f"lists and objects are nested deeper than {MAX_DEPTH}") from error
    _check_depth(body, value)
    if _SURROGATE.search(body):
        _check_surrogates(value)
    if not isinstance(value, dict):
        raise RowError(f"{_KINDS.get(type(value), 'null')} stands where a JSON object was expected")
    return value


def shown(raw: bytes) -> str:
    """Return the beginning of `raw` as text that is safe to store and print: undecodable bytes and controls escaped."""
    text = raw[: 4 * MAX_SHOWN].rstrip(b"\r\n").decode("utf-8", "backslashreplace")
    return text.translate(_CONTROL)[:MAX_SHOWN]


class _HashedFile(io.RawIOBase):
    """A raw file that hashes every byte read from it."""

    def __init__(self, file: io.FileIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.file.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:count])
        return count


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than `limit` bytes."""

    def __init__(self, stream: BinaryIO, limit: int, path: Path) -> None:
        self.stream, self.left, self.path = stream, limit, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self.stream.read(len(buffer))
        self.left -= len(chunk)
        if self.left < 0:
            raise DataError(
                f"{self.path}: unpacks to more than {MAX_UNPACK_RATIO} times its size; unpack it yourself if you "
                "trust it."
            )
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _unpacked(source: io.BufferedReader, path: Path) -> BinaryIO:
    """Return the stream of lines: `source` itself, or what its gzip content unpacks to."""
    if source.peek(2)[:2] != b"\x1f\x8b":
        return cast(BinaryIO, source)
    limit = max(MIN_UNPACKED_BYTES, MAX_UNPACK_RATIO * path.stat().st_size)
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=source, mode="rb"))
    return cast(BinaryIO, io.BufferedReader(_Bounded(stream, limit, path), _CHUNK))


def _skim(raw: bytes, source: BinaryIO) -> None:
    """Read on to the end of the line that `raw` begins."""
    while raw and not raw.endswith(b"\n"):
        raw = source.readline(_CHUNK)


def _check_start(body: bytes, path: Path) -> None:
    """Refuse a file whose first bytes say that it is not JSON Lines."""
    if body.startswith(b"["):
        raise DataError(
            f"{path}: holds one JSON list; write one object per line instead, for example with jq -c '.[]' {path.name}"
        )
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: is UTF-16 text; save it as UTF-8.")
    if body.startswith(b"PAR1"):
        raise DataError(f"{path}: is a Parquet file; name it {path.stem}.parquet.")


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(items)
    if len(value) != len(items):
        keys = [key for key, _ in items]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RowError(f"the key {twice!a:.80} stands twice in one object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise RowError(f"{name} is not a JSON value")


def _int64(digits: str) -> int:
    if len(digits) > 20 or not -(1 << 63) <= int(digits) < 1 << 63:
        raise RowError(f"the integer {digits:.30} does not fit into 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise RowError(f"the number {digits:.30} is too large")
    return value


def _why_not_json(body: bytes, error: json.JSONDecodeError) -> str:
    if b"\x00" in body:
        return f"a raw NUL byte at position {body.index(0)}"
    return f"not JSON: {error.msg} at character {error.pos}"


def _check_depth(body: bytes, value: Any) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for node in level for child in _children(node)]
    if level:
        raise RowError(f"lists and objects are nested deeper than {MAX_DEPTH}")


def _children(node: Any) -> list[Any]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return list(inner)


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(f"half a surrogate pair: \\u{ord(error.object[error.start]):04x}") from error
