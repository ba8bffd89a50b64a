"""The database's tables, built by numbered migrations; a table is changed only by adding a migration.

    runs         one row per run: what was asked, where it stands, the dataset and the lens
    clauses      the rules of the spec, with the concepts that stand for them
    concepts     features and groups of features, with their tested names
    forecasts    one row per run, stage (`before` and `after` the edits) and forecaster
    effects      one row per concept of a forecast, strongest first
    findings     what the spec forbids, misses or never thought of, and how each ended
    clusters     the pairs that carry a finding's effect together
    edits        proposed changes, with the attempt that proposed them
    verdicts     the forecast before and after each edit, passed or not, with reasons
    reviews      a person's decisions; rows are only ever added, triggers refuse the rest
    tool_calls   every function call of the agent: arguments, result, seconds
    spending     what a run has used, summed over all its attempts
    llm_calls    every request to the LLM with its answer, hashed by content; secrets are redacted before
    validations  what real training said of forecasts, one document each; rows are only ever added

Every table but `runs` and `validations` refers to its run. `seq` keeps the order of writing; the pair of ids is what an
upsert matches. `digest` is a checksum of the record's cells (see `cells`).
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

from premortem.interp.records import content_id

MIGRATIONS = Migrations("premortem")

_RUNS = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'done', 'interrupted', 'failed')),
    error TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    spec TEXT NOT NULL,
    settings TEXT NOT NULL,
    forecaster TEXT NOT NULL,
    dataset_path TEXT,
    dataset_sha256 TEXT,
    form TEXT,
    pairs INTEGER,
    quarantined INTEGER,
    notes TEXT NOT NULL DEFAULT '[]',
    model TEXT,
    hook TEXT,
    sae TEXT,
    fvu REAL,
    l0 REAL
);
CREATE TABLE spending (
    run_id TEXT PRIMARY KEY NOT NULL REFERENCES runs,
    seconds REAL NOT NULL,
    tokens_encoded INTEGER NOT NULL,
    llm_calls INTEGER NOT NULL,
    llm_tokens INTEGER NOT NULL
);
CREATE TABLE tool_calls (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs,
    step INTEGER NOT NULL,
    tool TEXT NOT NULL,
    arguments TEXT NOT NULL,
    result TEXT NOT NULL,
    seconds REAL NOT NULL,
    UNIQUE (run_id, step)
);
"""

_FORECAST = """
CREATE TABLE clauses (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs,
    clause_id TEXT NOT NULL,
    text TEXT NOT NULL,
    behaviour TEXT NOT NULL,
    direction TEXT NOT NULL,
    scope TEXT NOT NULL,
    "limit" REAL NOT NULL,
    words TEXT NOT NULL,
    examples TEXT NOT NULL,
    detector TEXT NOT NULL,
    concept_ids TEXT NOT NULL,
    digest TEXT NOT NULL,
    UNIQUE (run_id, clause_id)
);
CREATE TABLE concepts (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs,
    concept_id TEXT NOT NULL,
    name TEXT NOT NULL,
    name_tested INTEGER NOT NULL,
    name_score REAL NOT NULL,
    features TEXT NOT NULL,
    weights TEXT NOT NULL,
    threshold REAL NOT NULL,
    digest TEXT NOT NULL,
    UNIQUE (run_id, concept_id)
);
CREATE TABLE forecasts (
    run_id TEXT NOT NULL REFERENCES runs,
    stage TEXT NOT NULL CHECK (stage IN ('before', 'after')),
    forecaster TEXT NOT NULL,
    n_pairs INTEGER NOT NULL,
    remaining TEXT NOT NULL,
    PRIMARY KEY (run_id, stage, forecaster)
);
CREATE TABLE effects (
    run_id TEXT NOT NULL,
    stage TEXT NOT NULL,
    forecaster TEXT NOT NULL,
    position INTEGER NOT NULL,
    concept_id TEXT NOT NULL,
    name TEXT NOT NULL,
    name_tested INTEGER NOT NULL,
    features TEXT NOT NULL,
    topic TEXT,
    effect REAL NOT NULL,
    low REAL NOT NULL,
    high REAL NOT NULL,
    verdict TEXT NOT NULL,
    split_half REAL NOT NULL,
    rows TEXT NOT NULL,
    q REAL NOT NULL,
    length_controlled REAL NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (run_id, stage, forecaster, position),
    FOREIGN KEY (run_id, stage, forecaster) REFERENCES forecasts
);
"""

_FINDINGS = """
CREATE TABLE findings (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs,
    finding_id TEXT NOT NULL,
    clause_id TEXT,
    concept_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    topic TEXT,
    effect REAL NOT NULL,
    low REAL NOT NULL,
    high REAL NOT NULL,
    rows TEXT NOT NULL,
    start_rate REAL,
    note TEXT NOT NULL,
    digest TEXT NOT NULL,
    outcome TEXT CHECK (outcome IN ('fixed', 'unfixed', 'reported')),
    outcome_reason TEXT NOT NULL DEFAULT '',
    UNIQUE (run_id, finding_id),
    FOREIGN KEY (run_id, clause_id) REFERENCES clauses (run_id, clause_id)
);
CREATE TABLE clusters (
    run_id TEXT NOT NULL,
    finding_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    cluster_id TEXT NOT NULL,
    concept_id TEXT NOT NULL,
    name TEXT NOT NULL,
    rows TEXT NOT NULL,
    contribution TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (run_id, finding_id, position),
    FOREIGN KEY (run_id, finding_id) REFERENCES findings (run_id, finding_id)
);
CREATE TABLE edits (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs,
    edit_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    finding_id TEXT NOT NULL,
    "row" INTEGER NOT NULL,
    kind TEXT NOT NULL,
    side TEXT,
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    rationale TEXT NOT NULL,
    pair TEXT,
    digest TEXT NOT NULL,
    UNIQUE (run_id, edit_id),
    FOREIGN KEY (run_id, finding_id) REFERENCES findings (run_id, finding_id)
);
CREATE TABLE verdicts (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs,
    edit_id TEXT NOT NULL,
    passed INTEGER NOT NULL,
    effect_before REAL NOT NULL,
    effect_after REAL NOT NULL,
    control_after REAL NOT NULL,
    collateral TEXT NOT NULL,
    second_lens REAL,
    reasons TEXT NOT NULL,
    digest TEXT NOT NULL,
    UNIQUE (run_id, edit_id),
    FOREIGN KEY (run_id, edit_id) REFERENCES edits (run_id, edit_id)
);
"""

_REVIEWS = """
CREATE TABLE reviews (
    seq INTEGER PRIMARY KEY,
    review_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL REFERENCES runs,
    edit_id TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('accept', 'modify', 'reject')),
    text TEXT,
    reviewer TEXT NOT NULL,
    at TEXT NOT NULL,
    digest TEXT NOT NULL,
    FOREIGN KEY (run_id, edit_id) REFERENCES edits (run_id, edit_id)
);
CREATE TRIGGER reviews_once BEFORE INSERT ON reviews
WHEN EXISTS (SELECT 1 FROM reviews WHERE review_id = NEW.review_id OR seq = NEW.seq)
BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER reviews_never_change BEFORE UPDATE ON reviews
BEGIN SELECT RAISE(ABORT, 'reviews are only ever added'); END;
CREATE TRIGGER reviews_never_leave BEFORE DELETE ON reviews
BEGIN SELECT RAISE(ABORT, 'reviews are only ever added'); END;
"""

_VALIDATIONS = """
CREATE TABLE validations (
    seq INTEGER PRIMARY KEY,
    validation_id TEXT NOT NULL UNIQUE,
    at TEXT NOT NULL,
    dataset_sha256 TEXT NOT NULL,
    document TEXT NOT NULL
);
CREATE TRIGGER validations_never_change BEFORE UPDATE ON validations
BEGIN SELECT RAISE(ABORT, 'validations are only ever added'); END;
CREATE TRIGGER validations_never_leave BEFORE DELETE ON validations
BEGIN SELECT RAISE(ABORT, 'validations are only ever added'); END;
"""


_LLM = """
CREATE TABLE llm_calls (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs,
    request_id TEXT NOT NULL,
    at TEXT NOT NULL,
    purpose TEXT NOT NULL,
    prompt TEXT NOT NULL,
    request TEXT NOT NULL,
    reply TEXT NOT NULL,
    remembered INTEGER NOT NULL,
    digest TEXT NOT NULL,
    UNIQUE (run_id, request_id)
);
CREATE INDEX llm_calls_by_request ON llm_calls (request_id);
ALTER TABLE spending ADD COLUMN llm_seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN spec_problems TEXT NOT NULL DEFAULT '[]';
ALTER TABLE spending ADD COLUMN llm_usd REAL NOT NULL DEFAULT 0;
"""


@MIGRATIONS()
def m001_first_tables(db: Database) -> None:
    """Create the tables of the first release."""
    for script in (_RUNS, _FORECAST, _FINDINGS, _REVIEWS):
        db.executescript(script)


@MIGRATIONS()
def m002_what_concepts_promote(db: Database) -> None:
    """Tell with each concept and effect the words that its direction makes likelier; nobody asked before."""
    _add_cell(db, "concepts", "promotes", "[]", beside=("seq", "run_id"))
    _add_cell(db, "effects", "promotes", "[]", beside=("run_id", "stage", "forecaster", "position"))


@MIGRATIONS()
def m003_validations(db: Database) -> None:
    """Keep what real training said of forecasts."""
    db.executescript(_VALIDATIONS)


@MIGRATIONS()
def m004_units_and_reliability(db: Database) -> None:
    """Tell with each effect what it is a share of, and with each forecast how far its halves agree."""
    _add_cell(db, "effects", "unit", "responses", beside=("run_id", "stage", "forecaster", "position"))
    db.execute("ALTER TABLE forecasts ADD COLUMN reliability REAL")


@MIGRATIONS()
def m005_llm_calls(db: Database) -> None:
    """Keep every request to the LLM with its answer and its price."""
    for statement in filter(str.strip, _LLM.split(";")):
        db.execute(statement)
    _add_cell(db, "edits", "author", "built-in", beside=("seq", "run_id", "attempt"))
    _add_cell(db, "clauses", "about", "", beside=("seq", "run_id"))


@MIGRATIONS()
def m006_told_apart(db: Database) -> None:
    """Keep how well the sides of the pairs can be told apart."""
    db.execute("ALTER TABLE forecasts ADD COLUMN told_apart REAL")


@MIGRATIONS()
def m007_llm_stopped(db: Database) -> None:
    """Keep why the LLM was asked in vain."""
    db.execute("ALTER TABLE runs ADD COLUMN llm_stopped TEXT NOT NULL DEFAULT ''")


@MIGRATIONS()
def m008_exempt(db: Database) -> None:
    """Keep which prompts a rule leaves out by its own condition."""
    _add_cell(db, "clauses", "exempt_words", "[]", beside=("seq", "run_id"))
    _add_cell(db, "clauses", "exempt_rows", "[]", beside=("seq", "run_id"))


@MIGRATIONS()
def m009_overall(db: Database) -> None:
    """Tell of a finding that is confined to a topic what its effect is there, and over all pairs."""
    _add_cell(db, "findings", "overall", None, kind="REAL", beside=("seq", "run_id", "outcome", "outcome_reason"))


@MIGRATIONS()
def m010_parts_agree(db: Database) -> None:
    """Keep how far the parts that a forecast is made of agree."""
    db.execute("ALTER TABLE forecasts ADD COLUMN parts_agree REAL")


def _add_cell(
    db: Database, table: str, column: str, value: str | None, *, beside: tuple[str, ...], kind: str = "TEXT"
) -> None:
    """Add a cell to the records of `table`, which keep their checksum; `beside` are columns that no record holds."""
    rows = list(db.query(f"SELECT rowid AS place, * FROM {table}"))
    usual = "" if value is None else f" NOT NULL DEFAULT '{value}'"
    db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}{usual}")
    for row in rows:
        cells = {name: cell for name, cell in row.items() if name not in ("place", "digest", *beside)}
        if content_id(cells) == row["digest"]:  # a damaged row stays one
            digest = content_id({**cells, column: value})
            db.execute(f"UPDATE {table} SET digest = ? WHERE rowid = ?", [digest, row["place"]])
