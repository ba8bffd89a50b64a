"""The line cache keeps what was written, whatever happened while it was written."""

from pathlib import Path

from premortem.interp.line_cache import LineCache


def test_entries_come_back_and_the_first_value_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache.jsonl"
    LineCache(path).add({"a": 1.5, "b": None})
    LineCache(path).add({"a": 9.0, "c": "text\n"})
    again = LineCache(path)
    assert (again["a"], again["b"], again["c"], "d" in again) == (1.5, None, "text\n", False)
    assert len(path.read_text().splitlines()) == 3


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    LineCache(path).add({"a": 1, "b": 2})
    path.write_bytes(path.read_bytes()[:-4])
    torn = LineCache(path)
    assert "a" in torn and "b" not in torn
    torn.add({"b": 2})
    assert LineCache(path)["b"] == 2


def test_without_a_path_nothing_is_written() -> None:
    cache = LineCache(None)
    cache.add({"a": 1})
    assert cache["a"] == 1
