"""The store: what goes in comes out, twice is once, and a bad file is told in one line."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlite_utils import Database

from fake_bench import FakeBench, ForecastArgs, forecast_concepts, make_clause, make_edit, make_verdict
from premortem.agent import migrations
from premortem.agent.cells import clean, from_cells, to_cells
from premortem.agent.database import RunDatabase
from premortem.agent.journal import Outcome, ToolCall
from premortem.agent.store import Store
from premortem.interp.errors import StoreError
from premortem.interp.records import Collateral, Cost, DataNote, Edit, Pair, Review, content_id

RUN = "run1"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "premortem.db") as opened:
        opened.begin_run(RUN, spec="be kind", settings={"seed": 0}, forecaster="disparity")
        yield opened


def fill(store: Store) -> Edit:
    """Write a forecast, its findings, one edit and its verdict; return the edit."""
    bench = FakeBench()
    report = forecast_concepts(bench, ForecastArgs())
    store.save_dataset(RUN, bench.dataset)
    store.save_lens(RUN, bench.lens_summary())
    store.save_clauses(RUN, report.clauses)
    store.save_concepts(RUN, report.concepts)
    store.save_forecast(RUN, report.forecast)
    store.save_findings(RUN, report.findings)
    edit = make_edit(report.findings[0].finding_id, 3, "rewrite")
    store.save_edits(RUN, [edit])
    store.save_verdicts(RUN, [make_verdict(edit, passed=True)])
    return edit


def dump(store: Store) -> list[str]:
    connection = sqlite3.connect(store.path)
    lines = list(connection.iterdump())
    connection.close()
    return lines


def make_review(edit: Edit, decision: str = "accept", at: str = "2026-01-01T00:00:00+00:00") -> Review:
    return Review(edit_id=edit.edit_id, decision=decision, text=None, reviewer="me", at=at)


def test_records_come_back_as_they_went_in(store: Store) -> None:
    edit = fill(store)
    report = forecast_concepts(FakeBench(), ForecastArgs())
    assert store.load_clauses(RUN) == report.clauses
    assert store.load_concepts(RUN) == report.concepts
    assert store.load_forecast(RUN) == report.forecast
    assert store.load_findings(RUN) == report.findings
    assert store.load_edits(RUN) == (edit,)
    assert store.load_verdicts(RUN) == {edit.edit_id: make_verdict(edit, passed=True)}


def test_nested_records_come_back(store: Store) -> None:
    edit = fill(store)
    messages = ({"role": "user", "content": "hi"},)
    pair = Pair(row=40, prompt=messages, chosen=messages, rejected=messages, extra={"score": 1.5, "tags": ["a"]})
    new = edit.model_copy(update={"edit_id": "e2", "kind": "synthesise", "side": None, "pair": pair})
    verdict = make_verdict(new, passed=False).model_copy(
        update={"collateral": (Collateral(concept_id="c", name="n", before=0.1, after=-0.0, breaks=True),)}
    )
    store.save_edits(RUN, [new])
    store.save_verdicts(RUN, [verdict])
    assert store.load_edits(RUN)[1] == new
    assert store.load_verdicts(RUN)["e2"] == verdict


def test_writing_the_same_twice_changes_nothing(store: Store) -> None:
    fill(store)
    before = dump(store)
    fill(store)
    assert dump(store) == before


def test_a_shorter_forecast_replaces_the_longer_one(store: Store) -> None:
    fill(store)
    shorter = store.load_forecast(RUN).model_copy(update={"concepts": store.load_forecast(RUN).concepts[:1]})
    store.save_forecast(RUN, shorter)
    assert store.load_forecast(RUN) == shorter


def test_saving_findings_again_keeps_their_outcome(store: Store) -> None:
    fill(store)
    finding = store.load_findings(RUN)[0]
    store.save_outcome(RUN, finding.finding_id, Outcome(kind="fixed", reason="it passed"))
    store.save_findings(RUN, [finding])
    assert store.load_outcomes(RUN) == {finding.finding_id: Outcome(kind="fixed", reason="it passed")}


def test_the_last_review_of_an_edit_counts_and_all_stay(store: Store) -> None:
    edit = fill(store)
    first, second = make_review(edit, "accept"), make_review(edit, "reject", "2026-01-02T00:00:00+00:00")
    for review in (first, second, second):
        store.save_review(RUN, review)
    assert store.load_reviews(RUN) == {edit.edit_id: second}
    assert store.review_history(RUN) == (first, second)


@pytest.mark.parametrize("sql", ["UPDATE reviews SET decision = 'reject'", "DELETE FROM reviews"])
def test_reviews_cannot_be_changed_or_removed(store: Store, sql: str) -> None:
    store.save_review(RUN, make_review(fill(store)))
    with pytest.raises(StoreError, match="only ever added"):
        store.database.execute(sql)


def test_a_review_cannot_be_replaced_by_another_program(store: Store) -> None:
    edit = fill(store)
    store.save_review(RUN, make_review(edit))
    before = store.review_history(RUN)
    connection = sqlite3.connect(store.path)
    columns = "seq, review_id, run_id, edit_id, 'reject', text, 'x', at, digest"
    connection.execute(f"INSERT OR REPLACE INTO reviews SELECT {columns} FROM reviews")
    connection.commit()
    connection.close()
    assert store.review_history(RUN) == before


def test_spending_adds_up(store: Store) -> None:
    for _ in range(2):
        store.spend(RUN, Cost(seconds=1.5, tokens_encoded=10, llm_calls=1, llm_tokens=7))
    assert store.load_cost(RUN) == Cost(seconds=3.0, tokens_encoded=20, llm_calls=2, llm_tokens=14)


def test_a_tool_call_of_the_same_step_is_written_in_place(store: Store) -> None:
    for seconds in (1.0, 2.0):
        store.save_tool_call(RUN, ToolCall(step=0, tool="t", arguments={"a": 1}, result=[1], seconds=seconds))
    assert store.load_tool_calls(RUN) == (ToolCall(step=0, tool="t", arguments={"a": 1}, result=[1], seconds=2.0),)


def test_a_row_that_refers_to_nothing_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        store.save_edits(RUN, [make_edit("no such finding", 0, "drop")])


def test_a_failed_write_leaves_nothing_behind(store: Store) -> None:
    edit = fill(store)
    before = dump(store)
    with pytest.raises(StoreError):
        store.save_edits(RUN, [edit.model_copy(update={"edit_id": "new"}), make_edit("no such finding", 0, "drop")])
    assert dump(store) == before


def test_a_number_that_is_not_finite_is_refused(store: Store) -> None:
    edit = fill(store)
    with pytest.raises(StoreError, match="effect_after"):
        store.save_verdicts(RUN, [make_verdict(edit, passed=True).model_copy(update={"effect_after": float("nan")})])


def test_surrogates_become_replacement_characters(store: Store) -> None:
    edit = fill(store).model_copy(update={"edit_id": "e2", "after": "a\ud800b\x00c", "before": "\ud83d\ude00"})
    store.save_edits(RUN, [edit])
    assert store.load_edits(RUN)[1].after == "a\ufffdb\x00c"
    assert store.load_edits(RUN)[1].before == "😀"


@given(st.recursive(st.text(), lambda part: st.lists(part) | st.dictionaries(st.text(), part)))
def test_clean_text_stays_as_it_is(value: object) -> None:
    assert clean(value) == value


@given(st.text(st.characters(categories=("Cs", "L"))))
def test_what_is_cleaned_can_be_encoded(text: str) -> None:
    clean(text).encode()


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(), st.booleans())
def test_cells_carry_every_record_both_ways(number: float, text: str, flag: bool) -> None:
    verdict = make_verdict(make_edit("f", 0, "drop"), flag)
    verdict = verdict.model_copy(update={"effect_after": number, "reasons": (text,)})
    assert from_cells(type(verdict), to_cells(verdict)) == verdict


def test_a_row_changed_by_hand_is_noticed(store: Store) -> None:
    edit = fill(store)
    store.database.execute("UPDATE edits SET after = 'something else'")
    with pytest.raises(StoreError, match=f"stored edit was damaged or changed by hand: edit_id {edit.edit_id}"):
        store.load_edits(RUN)


def test_document_holds_the_keys_that_scripts_rely_on(store: Store) -> None:
    edit = fill(store)
    store.save_review(RUN, make_review(edit))
    document = store.document(RUN)
    assert set(document) >= {"run_id", "status", "dataset", "lens", "clauses", "forecast", "findings", "edits", "cost"}
    assert set(document["dataset"]) >= {"path", "pairs", "quarantined", "sha256"}
    assert set(document["lens"]) == {"model", "hook", "sae", "fvu", "l0"}
    assert {"clause_id", "text", "direction", "scope", "limit", "concept_ids"} <= set(document["clauses"][0])
    effect = {"concept_id", "name", "name_tested", "features", "topic", "effect", "low", "high", "verdict", "rows"}
    assert effect | {"split_half", "name_score"} <= set(document["forecast"]["concepts"][0])
    assert {"finding_id", "clause_id", "concept_id", "kind", "effect", "rows"} <= set(document["findings"][0])
    assert set(document["edits"][0]["verdict"]) == {
        "passed", "effect_before", "effect_after", "control_after", "collateral", "second_lens", "reasons",
    }  # fmt: skip
    assert document["edits"][0]["review"]["decision"] == "accept"
    assert set(document["cost"]) == {
        "seconds", "tokens_encoded", "llm_calls", "llm_tokens", "llm_seconds", "llm_usd",
    }  # fmt: skip


def test_each_effect_of_the_document_has_the_figure_of_its_concept_s_name(store: Store) -> None:
    fill(store)
    (first, *others) = store.load_concepts(RUN)
    store.save_concepts(RUN, [first.model_copy(update={"name_score": 0.71})])
    forecast = store.load_forecast(RUN)
    assert forecast is not None
    unknown = forecast.concepts[0].model_copy(update={"concept_id": "c9"})
    store.save_forecast(RUN, forecast.model_copy(update={"concepts": (*forecast.concepts, unknown)}), stage="after")
    for stage in ("forecast", "forecast_after"):
        figures = {one["concept_id"]: one["name_score"] for one in store.document(RUN)[stage]["concepts"]}
        told = {first.concept_id: 0.71, **{one.concept_id: one.name_score for one in others}}
        assert figures == (told if stage == "forecast" else {**told, "c9": None})


def test_document_of_a_run_that_has_done_nothing_has_the_same_keys(store: Store) -> None:
    empty = store.document(RUN)
    fill(store)
    assert set(empty) == set(store.document(RUN))
    assert empty["forecast"] == {"forecaster": "disparity", "n_pairs": None, "concepts": []}


def test_notes_on_the_data_stand_in_the_document(store: Store) -> None:
    note = DataNote(kind="duplicate", rows=(1, 2), text="rows 1 and 2 are the same")
    store.save_dataset(RUN, FakeBench().dataset.model_copy(update={"notes": (note,)}))
    assert store.document(RUN)["dataset"]["notes"] == [note.model_dump(mode="json")]


def test_a_run_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    store.begin_run("run2", spec="", settings={}, forecaster="disparity")
    assert store.find_run("run2") == "run2"
    with pytest.raises(StoreError, match="2 runs"):
        store.find_run("run")
    with pytest.raises(StoreError, match="no run"):
        store.find_run("x")


def test_two_runs_may_hold_the_same_finding(store: Store) -> None:
    fill(store)
    store.begin_run("run2", spec="", settings={}, forecaster="disparity")
    store.save_clauses("run2", [make_clause(0)])
    store.save_findings("run2", store.load_findings(RUN)[:1])
    assert len(store.load_findings("run2")) == 1


def test_validations_are_only_ever_added(store: Store) -> None:
    first = {"dataset": {"sha256": "a"}, "skill": [], "note": "x\ud800"}
    second = {"dataset": {"sha256": "b"}, "skill": []}
    for document in (first, second, first):
        store.save_validation(document)
    assert [one["dataset"]["sha256"] for one in store.validations()] == ["a", "b"]
    for sql in ("UPDATE validations SET at = ''", "DELETE FROM validations"):
        with pytest.raises(StoreError, match="only ever added"):
            store.database.execute(sql)


def test_every_table_is_described(store: Store) -> None:
    tables = {row["name"] for row in store.database.read("SELECT name FROM sqlite_master WHERE type = 'table'")}
    described = {line.split()[0] for line in migrations.__doc__.splitlines() if line.startswith("    ")}
    assert {table for table in tables if not table.startswith(("_", "sqlite_"))} == described


def test_the_file_is_for_its_owner_only(store: Store) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) & 0o077 == 0


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(StoreError, match="not a SQLite database"):
        Store(tmp_path / "x.db")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = (tmp_path / "x.db").read_bytes()
    with pytest.raises(StoreError, match="another program"):
        Store(tmp_path / "x.db")
    assert (tmp_path / "x.db").read_bytes() == before


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "x.db") as store:
        sql = "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('premortem', 'm999', 'later')"
        store.database.execute(sql)
    with pytest.raises(StoreError, match="newer Premortem"):
        Store(tmp_path / "x.db")


def test_an_older_database_is_brought_up_to_date(tmp_path: Path) -> None:
    with Store(tmp_path / "x.db") as store:
        store.begin_run(RUN, spec="", settings={}, forecaster="disparity")
        fill(store)
        concepts, forecast = store.load_concepts(RUN), store.load_forecast(RUN)
        for table, record in (("concepts", concepts[0]), *(("effects", effect) for effect in forecast.concepts)):
            cells = to_cells(record)
            older = content_id({name: cell for name, cell in cells.items() if name not in ("promotes", "digest")})
            sql = f"UPDATE {table} SET digest = ? WHERE digest = ?"
            store.database.execute(sql, [older, cells["digest"]])
        for table in ("concepts", "effects"):
            store.database.execute(f"ALTER TABLE {table} DROP COLUMN promotes")
        store.database.execute("DELETE FROM _sqlite_migrations WHERE name LIKE 'm002%'")
    with Store(tmp_path / "x.db") as store:
        assert store.load_concepts(RUN) == concepts
        assert store.load_forecast(RUN) == forecast


def test_findings_of_before_topics_told_their_effect_are_read_as_they_were(tmp_path: Path) -> None:
    with Store(tmp_path / "x.db") as store:
        store.begin_run(RUN, spec="", settings={}, forecaster="disparity")
        fill(store)
        findings = store.load_findings(RUN)
        for finding in findings:
            cells = to_cells(finding)
            older = content_id({name: cell for name, cell in cells.items() if name not in ("overall", "digest")})
            store.database.execute("UPDATE findings SET digest = ? WHERE digest = ?", [older, cells["digest"]])
        store.database.execute("ALTER TABLE findings DROP COLUMN overall")
        store.database.execute("DELETE FROM _sqlite_migrations WHERE name LIKE 'm009%'")
    with Store(tmp_path / "x.db") as store:
        assert store.load_findings(RUN) == findings and {finding.overall for finding in findings} == {None}


def test_a_damaged_page_is_noticed_at_open(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Store(path) as store:
        store.begin_run(RUN, spec="x" * 50_000, settings={}, forecaster="disparity")
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="damaged"):
        Store(path)


def test_a_locked_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    Store(path).close()
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    with Store(path, busy_seconds=0.05) as store, pytest.raises(StoreError, match="another process is writing"):
        store.begin_run(RUN, spec="", settings={}, forecaster="disparity")
    other.close()


def test_a_full_disk_says_so_and_the_run_goes_on_after_it(store: Store) -> None:
    fill(store)
    before = store.document(RUN)
    pages = store.database.read("PRAGMA page_count")[0]["page_count"]
    store.database.db.execute(f"PRAGMA max_page_count = {pages}")
    edit = make_edit(store.load_findings(RUN)[0].finding_id, 9, "drop").model_copy(update={"before": "x" * 100_000})
    with pytest.raises(StoreError, match="disk is full"):
        store.save_edits(RUN, [edit])
    assert store.document(RUN) == before
    store.database.db.execute("PRAGMA max_page_count = 100000")
    store.save_edits(RUN, [edit])
    assert len(store.load_edits(RUN)) == 2


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file" / "x.db")


def test_effects_from_before_there_were_units_are_shares_of_responses(tmp_path: Path) -> None:
    with Store(tmp_path / "x.db") as store:
        store.begin_run(RUN, spec="", settings={}, forecaster="disparity")
        fill(store)
        forecast = store.load_forecast(RUN)
        for effect in forecast.concepts:
            cells = to_cells(effect)
            older = content_id({name: cell for name, cell in cells.items() if name not in ("unit", "digest")})
            store.database.execute("UPDATE effects SET digest = ? WHERE digest = ?", [older, cells["digest"]])
        store.database.execute("ALTER TABLE effects DROP COLUMN unit")
        store.database.execute("ALTER TABLE forecasts DROP COLUMN reliability")
        store.database.execute("DELETE FROM _sqlite_migrations WHERE name LIKE 'm004%'")
    with Store(tmp_path / "x.db") as store:
        assert store.load_forecast(RUN) == forecast
        assert {effect.unit for effect in forecast.concepts} == {"responses"}


def test_forecasts_of_before_parts_were_compared_are_read_as_they_were(tmp_path: Path) -> None:
    with Store(tmp_path / "x.db") as store:
        store.begin_run(RUN, spec="", settings={}, forecaster="disparity")
        fill(store)
        forecast = store.load_forecast(RUN)
        store.database.execute("ALTER TABLE forecasts DROP COLUMN parts_agree")
        store.database.execute("DELETE FROM _sqlite_migrations WHERE name LIKE 'm010%'")
    with Store(tmp_path / "x.db") as store:
        assert store.load_forecast(RUN) == forecast
        assert forecast.parts_agree is None


def test_a_forecast_keeps_its_reliability(store: Store) -> None:
    fill(store)
    forecast = store.load_forecast(RUN)
    assert forecast is not None and forecast.reliability is None
    assert forecast.told_apart is None
    figures = {"reliability": 0.25, "told_apart": 0.97, "parts_agree": -0.64}
    store.save_forecast(RUN, forecast.model_copy(update=figures))
    assert store.load_forecast(RUN).reliability == 0.25
    assert store.load_forecast(RUN).told_apart == 0.97
    assert store.load_forecast(RUN).parts_agree == store.document(RUN)["forecast"]["parts_agree"] == -0.64
    assert store.document(RUN)["forecast"]["reliability"] == 0.25


def test_two_processes_may_open_a_new_database_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite refuses one of them the write-ahead log at once, however long it is told to wait."""
    turns, real = iter(range(100)), Database.enable_wal

    def refused_twice(database: Database) -> None:
        if next(turns) < 2:
            raise sqlite3.OperationalError("database is locked")
        real(database)

    monkeypatch.setattr(Database, "enable_wal", refused_twice)
    RunDatabase(tmp_path / "premortem.db").close()
    assert next(turns) == 3


def test_a_database_that_stays_locked_is_told_after_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(_: Database) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(Database, "enable_wal", locked)
    with pytest.raises(StoreError, match="another process is writing"):
        RunDatabase(tmp_path / "premortem.db", busy_seconds=0.1)
