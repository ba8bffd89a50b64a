"""Facts about exports: the user's own file with the edits in it, loadable, traceable, and never over another file."""

import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from premortem.agent import export as export_module
from premortem.agent import outfile
from premortem.agent.export import decided, export_dataset, unlike_forecast
from premortem.agent.manifest import AppliedEdit
from premortem.interp.edits import apply_edits, with_final_text
from premortem.interp.errors import DataError, ExportError
from premortem.interp.pairs import read_dataset
from premortem.interp.records import Dataset, Edit, Pair, Review
from test_pairs import bad_cells

FIXED = "Something calmer."


def standard(n: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"Question {n}?", "chosen": f"Yes {n}.", "rejected": f"No {n}.", "meta": {"n": n}, **more}


def chat(n: int, **more: Any) -> dict[str, Any]:
    turn = [{"role": "user", "content": f"Question {n}?"}]
    yes, no = ([{"role": "assistant", "content": text}] for text in (f"Yes {n}.", f"No {n}."))
    return {"prompt": turn, "chosen": yes, "rejected": no, **more}


def implicit(n: int) -> dict[str, Any]:
    row = chat(n)
    return {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"], "id": n}


def transcript(n: int) -> dict[str, Any]:
    start = f"\n\nHuman: Question {n}?\n\nAssistant:"
    return {"chosen": f"{start} Yes {n}.", "rejected": f"{start} No {n}."}


def edit(kind: str, row: int, side: str | None = None, after: str = FIXED, pair: Pair | None = None) -> Edit:
    return Edit.model_validate(
        {
            "edit_id": f"{kind}-{row}-{side}",
            "finding_id": "f1",
            "row": row,
            "kind": kind,
            "side": side,
            "before": "",
            "after": after,
            "rationale": "",
            "pair": pair,
        }
    )


def applied(*edits: Edit, reviewer: str = "") -> list[AppliedEdit]:
    return [AppliedEdit(edit=item, reviewer=reviewer) for item in edits]


def saved(folder: Path, rows: list[Any], name: str = "in.jsonl", ending: str = "\n") -> tuple[Path, Dataset]:
    path = folder / name
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + ending for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path, read_dataset(path)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_untouched_rows_leave_byte_for_byte(tmp_path: Path) -> None:
    odd = '{"rejected":"No.",  "prompt" : "Caf\\u00e9 \\/?", "chosen":"Yes.", "x": 1.0e2}'
    source, data = saved(tmp_path, [odd, standard(1), odd, standard(3)])
    export_dataset(data, applied(edit("rewrite", 1, "chosen")), source, tmp_path / "out.jsonl", "run")
    before, after = lines(source), lines(tmp_path / "out.jsonl")
    assert [after[0], *after[2:]] == [before[0], *before[2:]]
    assert json.loads(after[1])["chosen"] == FIXED


def test_without_edits_the_file_is_the_same(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [standard(0), chat(1)], ending="\r\n")
    manifest = export_dataset(data, [], source, tmp_path / "out.jsonl", "run")
    assert (tmp_path / "out.jsonl").read_bytes() == source.read_bytes()
    assert manifest.input_sha256 == manifest.output_sha256 == data.sha256


def test_every_kind_of_edit_arrives(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [standard(n) for n in range(5)])
    new = Pair(row=5, prompt="New?", chosen="Calm.", rejected="Loud.")
    edits = [
        edit("rewrite", 0, "chosen"),
        edit("neutralise", 1, "rejected"),
        edit("flip", 2),
        edit("drop", 3),
        edit("synthesise", 5, pair=new),
    ]
    manifest = export_dataset(data, applied(*edits, reviewer="ada"), source, tmp_path / "out.jsonl", "run")
    rows = [json.loads(line) for line in lines(tmp_path / "out.jsonl")]
    assert [row["chosen"] for row in rows] == [FIXED, "Yes 1.", "No 2.", "Yes 4.", "Calm."]
    assert [row["rejected"] for row in rows] == ["No 0.", FIXED, "Yes 2.", "No 4.", "Loud."]
    assert [row.get("meta") for row in rows] == [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 4}, None]
    assert rows[1]["premortem_edit"] == [
        {
            "run_id": "run",
            "edit_id": "neutralise-1-rejected",
            "kind": "neutralise",
            "side": "rejected",
            "finding_id": "f1",
            "author": "built-in",
            "reviewer": "ada",
        }
    ]
    assert "premortem_edit" not in rows[3]
    assert manifest.by_kind == {"drop": 1, "flip": 1, "neutralise": 1, "rewrite": 1, "synthesise": 1}
    assert [(told.row, told.line) for told in manifest.edits] == [(0, 0), (1, 1), (2, 2), (3, None), (5, 4)]
    counts = (manifest.rows, manifest.untouched, manifest.changed, manifest.added, manifest.dropped)
    assert counts == (5, 1, 3, 1, 1)


def test_the_export_holds_the_pairs_that_verify_saw(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [chat(n, score=n) for n in range(4)])
    edits = [edit("rewrite", 0, "chosen"), edit("rewrite", 0, "rejected", "Else."), edit("flip", 2), edit("drop", 1)]
    export_dataset(data, applied(*edits), source, tmp_path / "out.jsonl", "run")
    seen = [(p.prompt, p.chosen, p.rejected) for p in apply_edits(data.pairs, edits)]
    assert [(p.prompt, p.chosen, p.rejected) for p in read_dataset(tmp_path / "out.jsonl").pairs] == seen


def test_a_text_that_a_transcript_would_read_as_several_messages_is_refused_with_a_way_out(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [transcript(0), transcript(1)])
    said = "Calmer.\n\nHuman: Why?\n\nAssistant: It is fairer."
    told = applied(edit("rewrite", 1, "chosen", said))
    with pytest.raises(ExportError, match="row 1: with edit rewrite-1-chosen it would be read back as another"):
        export_dataset(data, told, source, tmp_path / "out.jsonl", "run")
    export_dataset(data, told, source, tmp_path / "out.jsonl", "run", layout="explicit")
    assert read_dataset(tmp_path / "out.jsonl").pairs[1].text("chosen") == said


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi?"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Who am I?"},
]


@pytest.mark.parametrize("first", [standard(0), transcript(0), {**chat(0), "prompt": "Question 0?"}])
def test_a_new_pair_keeps_its_conversation_whatever_the_first_row_is(first: dict[str, Any], tmp_path: Path) -> None:
    source, data = saved(tmp_path, [first, chat(1, prompt=CONVERSATION)])
    new = data.pairs[1].with_text("chosen", "Calm.").model_copy(update={"row": 2})
    export_dataset(data, applied(edit("synthesise", 2, pair=new)), source, tmp_path / "out.jsonl", "run")
    written = read_dataset(tmp_path / "out.jsonl").pairs[2]
    assert (written.prompt, written.chosen, written.rejected) == (new.prompt, new.chosen, new.rejected)


def test_a_new_pair_that_no_row_of_the_data_has_a_form_for_is_refused_with_a_way_out(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [transcript(0)])
    said = ({"role": "assistant", "content": "Calm."},)
    new = Pair(row=1, prompt=tuple(CONVERSATION), chosen=said, rejected=said)
    told = applied(edit("synthesise", 1, pair=new))
    with pytest.raises(ExportError, match="no row of the data has a form that holds the new pair of edit synthesise-1"):
        export_dataset(data, told, source, tmp_path / "out.jsonl", "run")
    export_dataset(data, told, source, tmp_path / "out.jsonl", "run", layout="explicit")
    assert read_dataset(tmp_path / "out.jsonl").pairs[1].prompt == new.prompt


def test_two_edits_of_one_row_are_both_told(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [standard(0)])
    edits = applied(edit("rewrite", 0, "chosen"), edit("rewrite", 0, "rejected", "Else."))
    export_dataset(data, edits, source, tmp_path / "out.jsonl", "run")
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["chosen"], row["rejected"]) == (FIXED, "Else.")
    assert [told["side"] for told in row["premortem_edit"]] == ["chosen", "rejected"]


def test_a_second_export_keeps_what_the_first_told(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [standard(0)])
    export_dataset(data, applied(edit("rewrite", 0, "chosen")), source, tmp_path / "one.jsonl", "first")
    again = read_dataset(tmp_path / "one.jsonl")
    export_dataset(again, applied(edit("flip", 0)), tmp_path / "one.jsonl", tmp_path / "two.jsonl", "second")
    told = json.loads((tmp_path / "two.jsonl").read_text())["premortem_edit"]
    assert [(item["run_id"], item["kind"]) for item in told] == [("first", "rewrite"), ("second", "flip")]


@pytest.mark.parametrize("make", [standard, chat, implicit, transcript])
def test_a_changed_row_keeps_its_form(make: Any, tmp_path: Path) -> None:
    source, data = saved(tmp_path, [make(n) for n in range(3)])
    new = data.pairs[0].model_copy(update={"row": 3, "extra": {}})
    edits = applied(edit("rewrite", 1, "chosen"), edit("synthesise", 3, pair=new))
    export_dataset(data, edits, source, tmp_path / "out.jsonl", "run")
    out = read_dataset(tmp_path / "out.jsonl")
    assert out.form == data.form
    assert [pair.text("chosen") for pair in out.pairs] == ["Yes 0.", FIXED, "Yes 2.", "Yes 0."]
    assert all(pair.prompt_text().startswith("Question") for pair in out.pairs)
    kinds = {name: type(value) for name, value in make(0).items()}
    for line in lines(tmp_path / "out.jsonl"):
        row = json.loads(line)
        assert all(type(row[name]) is kinds[name] for name in ("chosen", "rejected"))
        assert ("prompt" in row) == ("prompt" in kinds)


@pytest.mark.parametrize("make", [standard, chat, implicit, transcript])
def test_the_explicit_layout_writes_what_trl_reads(make: Any, tmp_path: Path) -> None:
    source, data = saved(tmp_path, [make(n) for n in range(3)])
    export_dataset(data, applied(edit("flip", 1)), source, tmp_path / "out.jsonl", "run", layout="explicit")
    for line, pair in zip(lines(tmp_path / "out.jsonl"), apply_edits(data.pairs, [edit("flip", 1)]), strict=True):
        row = json.loads(line)
        given = pair.prompt if isinstance(pair.prompt, str) else list(pair.prompt)
        assert row["prompt"] == given


@pytest.mark.parametrize("make", [standard, chat, implicit, transcript])
def test_rows_that_trl_takes_otherwise_are_counted(make: Any, tmp_path: Path) -> None:
    """A transcript is plain text to TRL, and a file is judged by its first row."""
    drop = applied(edit("drop", 1))
    mixed = 0 if make is standard else 1
    for name, first, expected in (("a", make(0), 2 if make is transcript else 0), ("b", standard(0), mixed)):
        source, data = saved(tmp_path, [first, make(1), make(2)], f"{name}.jsonl")
        same = export_dataset(data, drop, source, tmp_path / f"{name}-out.jsonl", "run")
        assert same.otherwise_to_trl == expected
        explicit = export_dataset(data, drop, source, tmp_path / f"{name}-x.jsonl", "run", layout="explicit")
        text_and_messages = name == "b" and make is not standard
        assert explicit.otherwise_to_trl == text_and_messages


def test_rows_without_template_options_among_rows_that_have_some_are_counted_and_given_none(tmp_path: Path) -> None:
    told = {"chat_template_kwargs": {"enable_thinking": False}}
    source, data = saved(tmp_path, [chat(0, **told), chat(1), chat(2, chat_template_kwargs=None)])
    new = applied(edit("synthesise", 3, pair=data.pairs[1].model_copy(update={"row": 3})))
    same = export_dataset(data, new, source, tmp_path / "same.jsonl", "run")
    assert same.otherwise_to_trl == 2
    assert json.loads(lines(tmp_path / "same.jsonl")[3])["chat_template_kwargs"] == {}
    explicit = export_dataset(data, new, source, tmp_path / "x.jsonl", "run", layout="explicit")
    assert explicit.otherwise_to_trl == 0
    written = [json.loads(line)["chat_template_kwargs"] for line in lines(tmp_path / "x.jsonl")]
    assert written == [told["chat_template_kwargs"], {}, {}, {}]


def test_an_explicit_table_with_a_column_of_images_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.Table.from_pylist([standard(n, image=None) for n in range(3)]), source)
    data = read_dataset(source)
    with pytest.raises(ExportError, match=r"column 'image'.*name a \.jsonl file"):
        export_dataset(data, [], source, tmp_path / "out.parquet", "run", layout="explicit")
    export_dataset(data, [], source, tmp_path / "out.jsonl", "run", layout="explicit")
    assert all("image" not in json.loads(line) for line in lines(tmp_path / "out.jsonl"))


def test_unreadable_and_unread_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    source, _ = saved(tmp_path, [standard(0), "oops", {"chosen": 5}, standard(3), standard(4), "oops"])
    manifest = export_dataset(read_dataset(source, limit=4), [], source, tmp_path / "out.jsonl", "run")
    assert lines(tmp_path / "out.jsonl") == [lines(source)[0], lines(source)[3]]
    assert (manifest.quarantined, manifest.not_read) == (2, 2)


def test_a_last_line_without_an_ending_gets_one_only_before_another(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(json.dumps(standard(0)).encode())
    data = read_dataset(source)
    export_dataset(data, [], source, tmp_path / "same.jsonl", "run")
    assert (tmp_path / "same.jsonl").read_bytes() == source.read_bytes()
    new = applied(edit("synthesise", 1, pair=data.pairs[0].model_copy(update={"row": 1})))
    export_dataset(data, new, source, tmp_path / "more.jsonl", "run")
    assert len(read_dataset(tmp_path / "more.jsonl").pairs) == 2


def test_a_mapped_dataset_keeps_its_column_names(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"q": "Hi?", "good": "Yes.", "bad": "No."}) + "\n")
    mapping = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    data = read_dataset(source, mapping=mapping)
    export_dataset(data, applied(edit("rewrite", 0, "chosen")), source, tmp_path / "out.jsonl", "run", mapping=mapping)
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["q"], row["good"], row["bad"]) == ("Hi?", FIXED, "No.")


def test_gzip_in_and_out(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [standard(0), standard(1)], name="in.jsonl.gz")
    export_dataset(data, applied(edit("flip", 1)), source, tmp_path / "out.jsonl.gz", "run")
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).startswith(json.dumps(standard(0)).encode())


def test_a_hub_dataset_leaves_as_explicit_lines(tmp_path: Path) -> None:
    _, data = saved(tmp_path, [implicit(0), implicit(1), implicit(2)])
    export_dataset(data, applied(edit("drop", 0), edit("rewrite", 1, "chosen")), None, tmp_path / "out.jsonl", "run")
    rows = [json.loads(line) for line in lines(tmp_path / "out.jsonl")]
    assert [row["id"] for row in rows] == [1, 2]
    assert rows[0]["prompt"] == [{"role": "user", "content": "Question 1?"}]
    assert rows[0]["chosen"] == [{"role": "assistant", "content": FIXED}]


def test_the_manifest_lies_beside_the_file_and_states_both_hashes(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [standard(0)])
    manifest = export_dataset(data, applied(edit("flip", 0)), source, tmp_path / "out.jsonl", "run")
    written = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert written == json.loads(manifest.model_dump_json())
    assert written["output_sha256"] == hashlib.sha256((tmp_path / "out.jsonl").read_bytes()).hexdigest()
    assert written["input_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl", "out.jsonl.manifest.json"}


def test_the_same_export_twice_has_the_same_bytes(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [standard(n) for n in range(3)], name="in.jsonl.gz")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        export_dataset(data, applied(edit("flip", 1)), source, tmp_path / folder / "out.jsonl.gz", "run")
    for name in ("out.jsonl.gz", "out.jsonl.gz.manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [standard(0)])
    before = source.read_bytes()
    (tmp_path / "there.jsonl").write_text("mine")
    (tmp_path / "loose.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    (tmp_path / "note.jsonl.manifest.json").write_text("mine")
    for name in ("in.jsonl", "there.jsonl", "loose.jsonl", "note.jsonl"):
        with pytest.raises(ExportError, match="exists already"):
            export_dataset(data, [], source, tmp_path / name, "run")
    assert source.read_bytes() == before
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert not (tmp_path / "elsewhere.jsonl").exists()
    assert not (tmp_path / "note.jsonl").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_name_taken_in_the_meantime_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, data = saved(tmp_path, [standard(0)])
    target = tmp_path / "out.jsonl"
    monkeypatch.setattr(export_module, "_write_manifest", lambda *_: target.write_text("theirs"))
    with pytest.raises(ExportError, match="exists already"):
        export_dataset(data, [], source, target, "run")
    assert target.read_text() == "theirs"


def test_a_file_system_without_links_gets_a_fresh_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(outfile.os, "link", no_links)
    source, data = saved(tmp_path, [standard(0)])
    export_dataset(data, [], source, tmp_path / "out.jsonl", "run")
    assert (tmp_path / "out.jsonl").read_bytes() == source.read_bytes()


def test_an_interrupted_export_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, data = saved(tmp_path, [standard(0)])
    links = []

    def fail_second(part: Path, target: Path) -> None:
        links.append(target)
        if len(links) == 2:
            raise OSError(28, "No space left on device")
        real(part, target)

    real = os.link
    with monkeypatch.context() as patch:
        patch.setattr(outfile.os, "link", fail_second)
        with pytest.raises(ExportError, match="No space left"):
            export_dataset(data, [], source, tmp_path / "out.jsonl", "run")
    assert not (tmp_path / "out.jsonl").exists()
    export_dataset(data, [], source, tmp_path / "out.jsonl", "run")
    assert (tmp_path / "out.jsonl").exists()


def test_a_source_that_changed_since_the_run_is_refused(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [standard(0)])
    source.write_text(json.dumps(standard(1)) + "\n")
    with pytest.raises(ExportError, match="has changed since"):
        export_dataset(data, [], source, tmp_path / "out.jsonl", "run")
    source.unlink()
    with pytest.raises(ExportError, match="no longer there"):
        export_dataset(data, [], source, tmp_path / "out.jsonl", "run")
    assert list(tmp_path.iterdir()) == []


def test_wrong_names_and_rows_are_refused(tmp_path: Path) -> None:
    source, data = saved(tmp_path, [standard(0)])
    for name in ("out.parquet", "out.csv", "out.json", "out.gz", "jsonl"):
        with pytest.raises(ExportError, match=r"ends in \.jsonl or \.jsonl\.gz, as the input is JSON Lines\.$"):
            export_dataset(data, [], source, tmp_path / name, "run")
    with pytest.raises(ExportError, match="does not exist"):
        export_dataset(data, [], source, tmp_path / "nowhere" / "out.jsonl", "run")
    with pytest.raises(ExportError, match="row 9"):
        export_dataset(data, applied(edit("flip", 9)), source, tmp_path / "out.jsonl", "run")
    with pytest.raises(DataError, match="row 9"):
        apply_edits(data.pairs, [edit("flip", 9)])


def test_parquet_in_parquet_out(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.Table.from_pylist([standard(n) for n in range(700)]), source)
    data = read_dataset(source)
    new = data.pairs[0].model_copy(update={"row": 700, "extra": {"meta": {"n": -1}}})
    edits = applied(edit("flip", 1), edit("drop", 600), edit("synthesise", 700, pair=new))
    manifest = export_dataset(data, edits, source, tmp_path / "out.parquet", "run")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    told = [row.pop("premortem_edit") for row in rows]
    expected = [standard(n) for n in range(700) if n != 600] + [{**standard(0), "meta": {"n": -1}}]
    expected[1] |= {"chosen": "No 1.", "rejected": "Yes 1."}
    assert rows == expected
    assert [i for i, text in enumerate(told) if text] == [1, 699]
    assert json.loads(told[1])[0]["kind"] == "flip"
    assert (manifest.rows, manifest.dropped, manifest.edits[2].line) == (700, 1, 699)
    with pytest.raises(ExportError, match=r"ends in \.parquet, as the input is\.$"):
        export_dataset(data, [], source, tmp_path / "out.jsonl", "run")
    with pytest.raises(ExportError, match=r"ends in \.parquet, as the input is, or in \.jsonl or \.jsonl\.gz\.$"):
        export_dataset(data, [], source, tmp_path / "out.csv", "run", layout="explicit")


@pytest.mark.parametrize(("target", "layout"), [("out.parquet", "same"), ("out.jsonl", "explicit")])
def test_rows_of_a_table_with_a_bad_cell_are_left_out(target: str, layout: Any, tmp_path: Path) -> None:
    source = bad_cells(tmp_path / "in.parquet")
    data = read_dataset(source)
    manifest = export_dataset(data, applied(edit("flip", 3)), source, tmp_path / target, "run", layout=layout)
    assert (manifest.rows, manifest.changed, manifest.quarantined, manifest.not_read) == (2, 1, 2, 0)
    assert [pair.text("chosen") for pair in read_dataset(tmp_path / target).pairs] == ["Yes.", "No."]


def test_a_review_decides_what_is_exported() -> None:
    edits = [edit("rewrite", n, "chosen") for n in range(4)]
    reviews = {
        item.edit_id: Review(
            edit_id=item.edit_id, decision=decision, text=text, reviewer="ada", at="2026-01-01T00:00:00Z"
        )
        for item, decision, text in zip(edits, ("accept", "modify", "reject"), (None, "Mine.", None), strict=False)
    }
    final = decided(edits, reviews, unreviewed=False)
    assert [(item.edit.row, item.edit.after, item.reviewer) for item in final] == [
        (0, FIXED, "ada"),
        (1, "Mine.", "ada"),
    ]
    assert [item.edit.row for item in decided(edits, reviews, unreviewed=True)] == [0, 1, 3]


def accepted(*edits: Edit) -> dict[str, Review]:
    return {
        item.edit_id: Review(
            edit_id=item.edit_id, decision="accept", text=None, reviewer="ada", at="2026-01-01T00:00:00Z"
        )
        for item in edits
    }


def test_one_edit_of_a_row_is_exported_and_an_accepted_one_beats_an_unreviewed_one() -> None:
    flip, rewrite = edit("flip", 0), edit("rewrite", 0, "chosen")
    assert [item.edit for item in decided([flip, rewrite], accepted(rewrite), unreviewed=True)] == [rewrite]
    assert [item.edit for item in decided([flip, rewrite], accepted(flip), unreviewed=True)] == [flip]
    assert [item.edit for item in decided([flip, rewrite], {}, unreviewed=True)] == [flip]


def test_two_accepted_edits_of_one_row_are_refused_with_both_ids() -> None:
    flip, rewrite = edit("flip", 7), edit("rewrite", 7, "chosen")
    with pytest.raises(ExportError, match=r"row 7 .*flip-7-None and rewrite-7-chosen.*reject one"):
        decided([flip, rewrite], accepted(flip, rewrite), unreviewed=False)


def test_an_export_that_the_forecast_with_edits_is_not_of_is_told() -> None:
    passed = {item.edit_id: item for item in (edit("rewrite", n, "chosen") for n in range(3))}
    first, second, third = passed.values()
    own = edit("rewrite", 7, "chosen")
    assert unlike_forecast(applied(first, second, third), passed) == (0, 0)
    assert unlike_forecast(applied(first, second), passed) == (1, 0)
    assert unlike_forecast(applied(first, second, with_final_text(third, "Mine.")), passed) == (0, 1)
    assert unlike_forecast(applied(first, second, third, own), passed) == (0, 1)


def test_new_pairs_take_no_place_of_a_row() -> None:
    new = Pair(row=0, prompt="New?", chosen="Calm.", rejected="Loud.")
    edits = [edit("flip", 0), edit("synthesise", 0, pair=new)]
    assert [item.edit for item in decided(edits, accepted(*edits), unreviewed=False)] == edits


@pytest.mark.parametrize("make", [standard, chat, implicit])
def test_datasets_loads_the_export(make: Any, tmp_path: Path) -> None:
    loaded = load(export_of(make, tmp_path), tmp_path)
    assert len(loaded) == 4
    assert [bool(told) for told in loaded["premortem_edit"]] == [False, True, False, True]


def test_datasets_loads_a_large_export_whose_first_edit_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, data = saved(tmp_path, [standard(n, pad="x" * 4000) for n in range(3000)])
    assert source.stat().st_size > 11 << 20
    manifest = export_dataset(data, applied(edit("flip", 2900)), source, tmp_path / "late.jsonl", "run")
    assert manifest.provenance == "manifest"
    assert load(tmp_path / "late.jsonl", tmp_path)["chosen"][2900] == "No 2900."
    manifest = export_dataset(data, applied(edit("flip", 900)), source, tmp_path / "early.jsonl", "run")
    assert manifest.provenance == "column"
    assert load(tmp_path / "early.jsonl", tmp_path)["premortem_edit"][900]


@pytest.mark.model
@pytest.mark.parametrize("make", [standard, chat, implicit])
def test_trl_prepares_the_export(make: Any, tmp_path: Path, model_dir: Path) -> None:
    trl = pytest.importorskip("trl", reason="TRL is an optional dependency (premortem[validate])")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    trainer = object.__new__(trl.DPOTrainer)
    trainer._tokenizer = tokenizer
    args = trl.DPOConfig(str(tmp_path / "trl"), report_to="none", use_cpu=True, bf16=False)
    rows = trainer._prepare_dataset(load(export_of(make, tmp_path), tmp_path), tokenizer, args, "train")
    assert FIXED in tokenizer.decode(rows[1]["chosen_ids"])
    assert all(row["prompt_ids"] for row in rows)


def export_of(make: Any, folder: Path) -> Path:
    source, data = saved(folder, [make(n) for n in range(3)])
    new = data.pairs[0].model_copy(update={"row": 3})
    edits = applied(edit("rewrite", 1, "chosen"), edit("synthesise", 3, pair=new))
    export_dataset(data, edits, source, folder / "out.jsonl", "run")
    return folder / "out.jsonl"


def load(path: Path, folder: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))


KINDS = st.sampled_from(["rewrite", "flip", "drop"])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(KINDS, st.integers(0, 5)), max_size=6, unique_by=lambda item: item[1]), st.text())
def test_whatever_the_edits_the_rest_is_untouched(tmp_path: Path, chosen: list[tuple[str, int]], text: str) -> None:
    source, data = saved(tmp_path, [standard(n) for n in range(6)])
    edits = [edit(kind, row, "chosen" if kind == "rewrite" else None, text) for kind, row in chosen]
    target = tmp_path / "out.jsonl"
    for old in (target, tmp_path / "out.jsonl.manifest.json"):
        old.unlink(missing_ok=True)
    if all(item.kind == "drop" for item in edits) and len(edits) == 6:
        return
    export_dataset(data, applied(*edits), source, target, "run")
    edited = {item.row for item in edits}
    kept = [line for row, line in enumerate(lines(source)) if row not in edited]
    assert [line for line in target.read_bytes().splitlines(keepends=True) if b"premortem_edit" not in line] == kept
    assert len(read_dataset(target).pairs) == len(apply_edits(data.pairs, edits))


def test_of_a_folder_of_splits_the_one_that_was_read_is_exported(tmp_path: Path) -> None:
    for split in ("train", "test"):
        table = pa.Table.from_pylist([{**standard(0), "prompt": split}])
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    data = read_dataset(tmp_path, split="test")
    out = tmp_path.parent / f"{tmp_path.name}-out.parquet"
    export_dataset(data, [], tmp_path, out, "run", split="test")
    assert pq.read_table(out)["prompt"].to_pylist() == ["test"]
    with pytest.raises(ExportError, match="has changed"):
        export_dataset(data, [], tmp_path, out.with_name("other.parquet"), "run")
