"""Facts about the line reader: one bad line costs one line, and memory stays bounded."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from premortem.interp.errors import DataError, PremortemError, RowError
from premortem.interp.lines import GIVE_UP_AFTER, LineReader, parse_line, shown

GOOD = b'{"a": 1}'

REFUSED = {
    "raw NUL byte": b'{"a": "\x00"}',
    "lone surrogate escape": b'{"a": "\\ud800"}',
    "low surrogate first": b'{"a": "\\udc00\\ud800"}',
    "surrogate in a key": b'{"\\ud800": 1}',
    "raw surrogate bytes": b'{"a": "\xed\xa0\x80"}',
    "invalid UTF-8": b'{"a": "\xff"}',
    "duplicate keys": b'{"a": 1, "a": 2}',
    "duplicate keys inside": b'{"b": {"a": 1, "a": 2}}',
    "truncated": b'{"a": "x',
    "garbage": b"hello",
    "two objects": b'{"a": 1} {"a": 2}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "float too large": b'{"a": 1e999}',
    "integer beyond int64": b'{"a": 123456789012345678901234567890}',
    "integer just beyond int64": b'{"a": 9223372036854775808}',
    "integer of 10000 digits": b'{"a": ' + b"9" * 10000 + b"}",
    "2000 levels": b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    "200000 levels": b'{"a": ' + b"[" * 200_000,
    "a list": b"[1]",
    "a string": b'"x"',
    "a number": b"7",
    "null": b"null",
    "true": b"true",
}


def write(folder: Path, body: bytes, name: str = "pairs.jsonl") -> Path:
    path = folder / name
    path.write_bytes(body)
    return path


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_line_is_quarantined_and_its_neighbours_are_read(line: bytes, tmp_path: Path) -> None:
    reader = LineReader(write(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD + b"\n"))
    assert [read.row for read in reader] == [0, 2]
    (bad,) = reader.quarantined
    assert bad.row == 1
    assert bad.reason
    assert len(bad.line) <= 500
    json.dumps(bad.model_dump(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "body",
    [
        GOOD,
        GOOD + b"\n",
        GOOD + b"\r\n",
        b"\xef\xbb\xbf" + GOOD + b"\n",
        GOOD + b"\n\n  \n",
        b'{"a": "\\u0000"}\n',
        b'{"a": "\\ud83d\\ude00"}\n',
        b'{"a": 9223372036854775807}\n',
    ],
)
def test_what_ordinary_files_contain_is_read(body: bytes, tmp_path: Path) -> None:
    reader = LineReader(write(tmp_path, body))
    assert [line.row for line in reader] == [0]
    assert reader.quarantined == []


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    reader = LineReader(write(tmp_path, b"\n" + GOOD + b"\r\n\r\n" + GOOD))
    assert [(line.row, line.raw) for line in reader] == [(1, GOOD + b"\r\n"), (3, GOOD)]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_line_at_the_cap_is_read_and_one_beyond_is_skimmed(ending: bytes, tmp_path: Path) -> None:
    at_cap, beyond = b'{"a": "' + b"x" * 91 + b'"}', b'{"a": "' + b"x" * 92 + b'"}'
    body = ending.join([at_cap, beyond, b"y" * 100_000, at_cap]) + ending
    reader = LineReader(write(tmp_path, body), max_line_bytes=len(at_cap))
    assert [line.row for line in reader] == [0, 3]
    assert [bad.row for bad in reader.quarantined] == [1, 2]
    assert all("longer than 100 bytes" in bad.reason for bad in reader.quarantined)


def test_the_hash_covers_the_whole_file_also_behind_a_stop(tmp_path: Path) -> None:
    body = (GOOD + b"\n") * 100_000
    reader = LineReader(write(tmp_path, body), stop=3)
    assert len(list(reader)) == 3
    assert reader.sha256 == hashlib.sha256(body).hexdigest()


def test_a_gzip_file_reads_the_same_and_is_hashed_as_stored(tmp_path: Path) -> None:
    packed = gzip.compress((GOOD + b"\n") * 5)
    reader = LineReader(write(tmp_path, packed, "pairs.jsonl.gz"))
    assert [line.value for line in reader] == [{"a": 1}] * 5
    assert reader.sha256 == hashlib.sha256(packed).hexdigest()


def test_a_gzip_bomb_is_stopped(tmp_path: Path) -> None:
    packed = gzip.compress((b'{"a": "' + b" " * 1_000_000 + b'"}\n') * 100)
    with pytest.raises(DataError, match="unpacks to more than 100 times"):
        list(LineReader(write(tmp_path, packed, "pairs.jsonl.gz")))


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-10], lambda b: b[:20] + b"\xff\xff\xff" + b[23:], lambda b: b + b"junk"]
)
def test_a_damaged_gzip_file_is_one_clear_error(damage, tmp_path: Path) -> None:
    packed = gzip.compress((GOOD + b"\n") * 500)
    with pytest.raises(DataError, match="damaged"):
        list(LineReader(write(tmp_path, damage(packed), "pairs.jsonl.gz")))


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        (b'[{"a": 1}]', "one object per line"),
        (b"\n  \n [1]", "one object per line"),
        (b"\xef\xbb\xbf[1]", "one object per line"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b"PAR1\x00\x00", ".parquet"),
    ],
)
def test_a_file_of_another_kind_says_what_to_do(body: bytes, advice: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=advice):
        list(LineReader(write(tmp_path, body)))


def test_a_long_file_without_one_readable_line_is_given_up(tmp_path: Path) -> None:
    reader = LineReader(write(tmp_path, b"x\n" * (GIVE_UP_AFTER + 5)))
    with pytest.raises(DataError, match="not JSON Lines"):
        list(reader)


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    assert list(LineReader(write(tmp_path, b""))) == []


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(LineReader(tmp_path))


def test_reasons_name_what_was_seen() -> None:
    for key, words in {
        "duplicate keys": "'a' stands twice",
        "NaN": "NaN is not",
        "raw NUL byte": "NUL byte at position 7",
        "invalid UTF-8": "0xff at position 7",
        "lone surrogate escape": "ud800",
        "a list": "a list stands where a JSON object",
    }.items():
        with pytest.raises(RowError, match=words):
            parse_line(REFUSED[key])


def test_shown_text_has_no_control_characters() -> None:
    assert shown(b"a\x00b\x1b[31m\xff\n") == "a\\x00b\\x1b[31m\\xff"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_with_our_own_errors(tmp_path: Path, body: bytes) -> None:
    reader = LineReader(write(tmp_path, body))
    try:
        rows = [line.row for line in reader]
    except PremortemError:
        return
    seen = sorted(rows + [bad.row for bad in reader.quarantined])
    assert seen == sorted(set(seen))
    assert reader.sha256 == hashlib.sha256(body).hexdigest()


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4), st.booleans())
def test_what_json_can_say_comes_back_equal(value: dict, escaped: bool) -> None:
    assert parse_line(json.dumps(value, ensure_ascii=escaped).encode()) == value
