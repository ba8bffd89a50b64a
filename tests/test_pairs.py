"""Facts about reading a dataset: any input ends in pairs or in one clear error, and says what was left out."""

import hashlib
import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from premortem.interp import tables
from premortem.interp.errors import DataError, NoPairs, PremortemError
from premortem.interp.pairs import read_dataset, write_quarantine

ROW = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}
CHAT = {
    "prompt": [{"role": "user", "content": "Hi?"}],
    "chosen": [{"role": "assistant", "content": "Yes."}],
    "rejected": [{"role": "assistant", "content": "No."}],
}


def write_lines(folder: Path, *rows: object, name: str = "pairs.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def real_data() -> Path:
    folder = Path(os.environ.get("PREMORTEM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real preference data is not here ({folder}); set PREMORTEM_TEST_DATA to its folder")
    return folder


def test_rows_are_line_numbers_and_bad_lines_are_told_with_theirs(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path, ROW, "oops", {"prompt": "Hi?", "chosen": 5, "rejected": "x"}, "", {**ROW, "prompt": "Yo?"}
    )
    data = read_dataset(path)
    assert [pair.row for pair in data.pairs] == [0, 4]
    assert [(bad.row, bad.reason[:20]) for bad in data.quarantined] == [
        (1, "not JSON: Expecting "),
        (2, "'chosen' is the numb"),
    ]
    assert data.quarantined[1].line.startswith('{"prompt": "Hi?"')
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert data.path == str(path)


def test_quarantined_lines_go_to_a_file(tmp_path: Path) -> None:
    target = tmp_path / "quarantine.jsonl"
    write_quarantine(target, read_dataset(write_lines(tmp_path, ROW, "oops \x1b")).quarantined)
    (line,) = target.read_text().splitlines()
    assert json.loads(line) == {"row": 1, "reason": "not JSON: Expecting value at character 0", "line": "oops \\x1b"}
    assert {file.name for file in tmp_path.iterdir()} == {"pairs.jsonl", "quarantine.jsonl"}
    assert target.stat().st_mode & 0o077 == 0


def test_the_form_is_that_of_most_rows(tmp_path: Path) -> None:
    assert read_dataset(write_lines(tmp_path, ROW, CHAT, ROW)).form == "standard"
    assert read_dataset(write_lines(tmp_path, ROW, CHAT, CHAT)).form == "conversational"


def test_a_limit_reads_the_first_lines_and_hashes_all(tmp_path: Path) -> None:
    path = write_lines(tmp_path, "", ROW, ROW, ROW)
    data = read_dataset(path, limit=3)
    assert [pair.row for pair in data.pairs] == [1, 2]
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match="leaves nothing"):
        read_dataset(path, limit=0)


def test_a_mapping_applies_to_every_row(tmp_path: Path) -> None:
    data = read_dataset(
        write_lines(tmp_path, {"prompt": "Hi?", "a": "Yes.", "b": "No."}), mapping={"chosen": "a", "rejected": "b"}
    )
    assert data.pairs[0].text("rejected") == "No."


def test_notes_come_with_the_dataset(tmp_path: Path) -> None:
    assert [note.kind for note in read_dataset(write_lines(tmp_path, {**ROW, "chosen": "No."})).notes] == ["identical"]


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    with pytest.raises(NoPairs, match="none of 2 lines is a pair; row 0: not JSON"):
        read_dataset(write_lines(tmp_path, "x", "y"))
    with pytest.raises(NoPairs, match="holds no lines"):
        read_dataset(write_lines(tmp_path))


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    path = write_lines(tmp_path, ROW)
    with pytest.raises(DataError, match=r"no such file. Did you mean .*pairs\.jsonl\?"):
        read_dataset(tmp_path / "pair.jsonl")
    with pytest.raises(DataError, match="There is no folder"):
        read_dataset(path.parent / "nowhere" / "pairs.jsonl")


@pytest.mark.parametrize("name", ["a\0b.jsonl", "x" * 5000, "", "a/b/c/d", "../nowhere/x"])
def test_strange_names_are_a_data_error(name: str) -> None:
    with pytest.raises(DataError):
        read_dataset(name)


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown kind of file"):
        read_dataset(write_lines(tmp_path, "a,b", name="pairs.csv"))
    with pytest.raises(DataError, match="folder without Parquet"):
        read_dataset(tmp_path)
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        read_dataset(tmp_path / "pipe.jsonl")


def test_a_file_whose_prompt_has_another_name_is_refused_as_a_whole(tmp_path: Path) -> None:
    named = {"instruction": "Hi?", "chosen": "I say yes.", "rejected": "I say no."}
    with pytest.raises(DataError, match=r"row 0: .*give --map prompt=instruction") as caught:
        read_dataset(write_lines(tmp_path, named, ROW))
    assert not isinstance(caught.value, NoPairs)
    later = read_dataset(write_lines(tmp_path, ROW, named))
    assert [(bad.row, "--map prompt=instruction" in bad.reason) for bad in later.quarantined] == [(1, True)]


def test_parquet_rows_are_read_like_lines(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist([CHAT, {**CHAT, "chosen": None}, CHAT]), path)
    data = read_dataset(path)
    assert [pair.row for pair in data.pairs] == [0, 2]
    assert data.quarantined[0].reason == "'chosen' is null, not text or a list of messages"
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(read_dataset(path, limit=1).pairs) == 1


def test_a_folder_of_parquet_files_is_one_dataset(tmp_path: Path) -> None:
    for part in ("b", "a"):
        pq.write_table(pa.Table.from_pylist([{**ROW, "prompt": part}]), tmp_path / f"{part}.parquet")
    assert [pair.prompt for pair in read_dataset(tmp_path).pairs] == ["a", "b"]


def test_parquet_that_datasets_wrote_keeps_objects_of_mixed_kinds(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    tools = [[{"name": "f", "parameters": {"x": 1}}], [{"name": "g", "parameters": {"y": "z", "w": [1]}}]]
    source = write_lines(tmp_path, *({**CHAT, "tools": item, "n": i} for i, item in enumerate(tools)))
    loaded = datasets.load_dataset("json", data_files=str(source), split="train", cache_dir=str(tmp_path / "cache"))
    loaded.to_parquet(str(tmp_path / "pairs.parquet"))
    assert [list(pair.tools or ()) for pair in read_dataset(tmp_path / "pairs.parquet").pairs] == tools


def test_a_parquet_bomb_is_refused_in_bounded_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "FREE_DECODED_BYTES", 16 << 20)
    cell = pa.array(["x" * 60_000]).dictionary_encode()
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), cell.dictionary)
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"prompt": column, "chosen": column, "rejected": column}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="unpacks to more than"):
        read_dataset(path)


@pytest.mark.parametrize("messages", [False, True])
def test_rows_of_one_large_row_group_are_decoded_by_the_hundred(tmp_path: Path, messages: bool) -> None:
    """A third of the cells repeat, so there is a dictionary; the column is far larger than one batch may be."""
    texts = [random.Random(n % 300).randbytes(10_000).hex() for n in range(400)]
    sides = [[{"role": "assistant", "content": text}] for text in texts] if messages else texts
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"chosen": sides, "id": range(400)}), path)
    sizes = [len(batch) for batch, _ in tables.parquet_batches(path)]
    assert sum(sizes) == 400 and sizes[0] >= 300


@pytest.mark.parametrize("encoding", ["PLAIN", "RLE_DICTIONARY", "DELTA_BYTE_ARRAY"])
def test_a_batch_of_large_cells_stays_small_however_they_are_stored(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first cells are small and tell nothing of the large one that the others repeat."""
    monkeypatch.setattr(tables, "_BATCH_BYTES", 16 << 20)
    path = tmp_path / "pairs.parquet"
    how = {} if encoding == "RLE_DICTIONARY" else {"use_dictionary": False, "column_encoding": {"chosen": encoding}}
    pq.write_table(pa.table({"chosen": ["x"] * 20 + ["y" * (1 << 20)] * 40}), path, compression="none", **how)
    sizes = [batch.nbytes for batch, _ in tables.parquet_batches(path)]
    assert max(sizes) <= 2 * tables._BATCH_BYTES


def bad_cells(path: Path) -> Path:
    """Write four rows, the second of which has a text that is not UTF-8 and the third a date in the year 70,000."""
    texts = pa.array([b"Yes.", b"\xff\xfe", b"Yes.", b"Yes."], pa.binary()).cast(pa.string(), safe=False)
    dates = pa.array([0, 0, 1 << 41, 0], pa.int64()).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"prompt": ["Hi?"] * 4, "chosen": texts, "rejected": ["No."] * 4, "at": dates}), path)
    return path


def test_a_bad_cell_costs_its_row_and_not_the_table(tmp_path: Path) -> None:
    data = read_dataset(bad_cells(tmp_path / "pairs.parquet"))
    assert [pair.row for pair in data.pairs] == [0, 3]
    assert [bad.row for bad in data.quarantined] == [1, 2]
    assert "utf-8" in data.quarantined[0].reason
    assert all(bad.reason.startswith("a cell cannot be read: ") for bad in data.quarantined)
    assert len(read_dataset(tmp_path / "pairs.parquet", limit=2).quarantined) == 1


def test_a_damaged_parquet_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    path.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_dataset(path)


def test_a_hub_id_is_streamed_with_its_revision(monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: dict[str, object] = {}

    def load(path: str, **options: object) -> list[dict[str, str]]:
        asked.update(options, path=path)
        return [ROW, {**ROW, "prompt": "Yo?"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = read_dataset("org/name", split="test", config="en", revision="abc")
    assert len(data.pairs) == 2
    assert asked == {"path": "org/name", "name": "en", "split": "test", "revision": "abc", "streaming": True}
    assert data.sha256 == read_dataset("org/name").sha256 != read_dataset("org/name", limit=1).sha256


def test_a_hub_id_that_cannot_be_had_is_one_clear_error(monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load(path: str, **options: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match="no network"):
        read_dataset("org/name")


@pytest.mark.parametrize("name", ["hh-harmless", "pandalm", "xstest"])
def test_real_data_is_read_whole(name: str) -> None:
    path = real_data() / f"{name}.jsonl"
    data = read_dataset(path)
    assert data.quarantined == ()
    assert len(data.pairs) == path.read_bytes().count(b"\n")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b'{"chosen":', b'"x"', b",", b'"rejected":', b"}", b"\n", b"[", b"]"])).map(b"".join)
)
@pytest.mark.parametrize("name", ["fuzz.jsonl", "fuzz.jsonl.gz", "fuzz.parquet"])
def test_any_bytes_end_in_pairs_or_our_own_error(tmp_path: Path, name: str, body: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(body)
    try:
        assert read_dataset(path).pairs
    except PremortemError as error:
        assert "\n" not in str(error)


ANSWERS = [
    ("Paris it is.", "Rome it was."),
    ("You can boil it.", "You can fry it."),
    ("Blue, I think.", "Green, I think."),
    ("1. Walk far.", "1. Sleep long."),
    ("Never mind.", "Ask again."),
]


def test_prompts_are_not_made_up_from_the_first_words_of_answers(tmp_path: Path) -> None:
    rows = [{"wish": f"Say {i}.", "chosen": one, "rejected": other} for i, (one, other) in enumerate(ANSWERS)]
    with pytest.raises(DataError, match=r"3 rows have no prompt, and 2 only seem to.*row 0: .*map the column"):
        read_dataset(write_lines(tmp_path, *rows))
    assert len(read_dataset(write_lines(tmp_path, *rows), mapping={"prompt": "wish"}).pairs) == 5


def test_a_few_rows_without_a_prompt_cost_only_themselves(tmp_path: Path) -> None:
    shared = [{"chosen": f"Question {i}? Yes.", "rejected": f"Question {i}? No."} for i in range(20)]
    found = read_dataset(write_lines(tmp_path, *shared, *({"chosen": a, "rejected": b} for a, b in ANSWERS[::2])))
    assert (len(found.pairs), len(found.quarantined)) == (20, 3)


@pytest.mark.parametrize("name", ["tools", "system", "chat_template_kwargs"])
def test_a_mapping_to_a_column_that_no_row_has_is_refused(name: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path, ROW, {**ROW, "sys_prompt": None})
    with pytest.raises(DataError, match=f"no row has the column 'sysprompt' .for {name}.; there are .*'sys_prompt'"):
        read_dataset(path, mapping={name: "sysprompt"})
    assert len(read_dataset(path, mapping={name: "sys_prompt"}).pairs) == 2


def test_a_folder_of_the_hub_is_read_by_its_splits(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        for part in (0, 1):
            table = pa.Table.from_pylist([{**ROW, "prompt": f"{split} {part}"}])
            pq.write_table(table, folder / f"{split}-0000{part}-of-00002.parquet")
    assert [pair.prompt for pair in read_dataset(tmp_path).pairs] == ["train 0", "train 1"]
    assert [pair.prompt for pair in read_dataset(tmp_path, split="test").pairs] == ["test 0", "test 1"]
    with pytest.raises(DataError, match="no split 'dev'; --split takes one of test, train"):
        read_dataset(tmp_path, split="dev")
    for file in folder.glob("train-*"):
        file.unlink()
    assert len(read_dataset(tmp_path).pairs) == 2, "one split is the whole folder, whatever it is called"
