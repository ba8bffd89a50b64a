"""Starts a run, or goes on with it: the same command is always the way forward.

A run's id is a hash of all that decides its outcome: the spec's text, the dataset's bytes, the model, the lenses, the
settings and this program's version. So the same command finds the same run. One that is done is simply shown, one that
was interrupted or failed goes on from its last checkpoint, and one that another process works on is left alone
(`RunBusy`). Where the data turns out to be read otherwise than when the run was left (another device rounds otherwise),
it starts again.

Each run has a folder `runs/<run_id>/` with LangGraph's checkpoints and a lock file; its records are in the `Store`,
which knows where the folder is: the same command in another place goes on there.
SIGINT and SIGTERM leave the run `interrupted`; after SIGKILL its row still says `running`, which `recover_runs`
corrects.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from pydantic import Field

from premortem.agent.asking import Asker
from premortem.agent.chat import Carrier
from premortem.agent.cli_options import say
from premortem.agent.engineer import Engineer
from premortem.agent.fresh_start import clear_work
from premortem.agent.graph import run_graph
from premortem.agent.ledger import Budget, Ledger
from premortem.agent.nodes import Nodes, ReadOtherwise, recursion_limit
from premortem.agent.planner import BuiltinPlanner, Planner
from premortem.agent.signals import interruptible
from premortem.agent.spec import parse_spec
from premortem.agent.store import Store
from premortem.agent.toolbox import LazyTools, Meter, Tool, Toolbox, Workbench
from premortem.interp.errors import PremortemError, RunBusy, StoreError
from premortem.interp.progress import NullProgress, Progress
from premortem.interp.records import Record, content_id

CHECKPOINTS = "checkpoints.db"
LOOK = 1.0
"""Seconds to wait for a run's lock: whoever only looks whether a process holds it does so for a moment."""


class RunSettings(Record):
    """What a run is asked to do."""

    spec_path: str
    """Where the spec was read from."""
    spec_text: str
    """The spec."""
    data: str
    """Dataset: a file or a hub id."""
    mapping: dict[str, str] | None = None
    """Columns that stand for `prompt`, `chosen` and `rejected`; null: the usual names."""
    split: str = "train"
    """Split of a hub dataset."""
    config: str | None = None
    """Configuration of a hub dataset."""
    revision: str | None = None
    """Revision of a hub dataset."""
    limit: int | None = None
    """Read only the first so many pairs; null: all."""
    model: str = "smollm2"
    """The model that is about to be trained: the embedded one, a folder or a hub id."""
    sae: str | None = None
    """The SAE it is read through; null: the embedded one."""
    second_sae: str | None = None
    """The SAE that only the verifier reads through; null: the embedded one, or none for another model."""
    forecaster: str = "calibrated"
    """Its name, as `agent forecast --forecaster` takes it."""
    fix_surprises: bool = False
    """Whether to propose edits for what no clause mentions."""
    llm: str | None = None
    """The LLM's name at its endpoint; null: the built-in planner and rewriter."""
    budget: Budget = Budget()
    """What the LLM may be used for at most."""
    max_touched: float = Field(default=0.5, gt=0, le=1)
    """Share of the pairs that edits may touch, all findings together."""
    max_attempts: int = Field(default=3, ge=1)
    """Attempts per finding."""
    max_findings: int = Field(default=100, ge=1)
    """Findings to work on; the others are listed."""
    seed: int = 0
    """Seed of everything random."""
    offline: bool = False
    """Whether to fetch nothing from the network."""


_REFERENCES = {"spec_path", "spec_text", "data", "split", "config", "revision", "model", "sae", "second_sae", "offline"}
"""Settings that only say where to find what `RunInputs` and the spec's text identify by content."""


_UNTOLD = {"spec_path", "spec_text", "data", "offline"}
"""Settings that make no other run of the same rules and data."""


class RunInputs(Record):
    """What the references in the settings lead to, identified by content."""

    dataset_sha256: str
    """See `Dataset.sha256`."""
    model_digest: str
    """Hash of the model's weights."""
    lens_ids: tuple[str, ...]
    """Main lens first."""


def identify(settings: RunSettings, inputs: RunInputs) -> str:
    """Return the run_id: the same for the same work of this version, wherever its files lie."""
    return content_id(
        version("premortem"),
        settings.spec_text,
        inputs.dataset_sha256,
        inputs.model_digest,
        inputs.lens_ids,
        settings.model_dump(exclude=_REFERENCES if settings.llm else {*_REFERENCES, "budget"}),
    )


def is_done(store: Store, settings: RunSettings, inputs: RunInputs) -> bool:
    """Whether there is nothing left to do."""
    return _is_done(store, identify(settings, inputs))


class Unfinished(NamedTuple):
    """A run of the same rules and data that was left before its end."""

    run_id: str
    differs: tuple[str, ...]
    """Settings that are others now."""


def unfinished_like(store: Store, settings: RunSettings, inputs: RunInputs) -> Unfinished | None:
    """Return the last unfinished run of the same spec and data, where these `settings` begin another one."""
    run_id, asked = identify(settings, inputs), settings.model_dump(mode="json", exclude=_UNTOLD)
    if store.has_run(run_id):
        return None
    for info in store.runs():
        same = info.spec == settings.spec_text and info.dataset_sha256 == inputs.dataset_sha256
        if same and info.status in ("interrupted", "failed"):
            return Unfinished(info.run_id, tuple(name for name in asked if info.settings.get(name) != asked[name]))
    return None


def start_run(
    settings: RunSettings,
    inputs: RunInputs,
    store: Store,
    runs_dir: Path,
    make_workbench: Callable[[RunSettings], Workbench],
    *,
    planner: Planner | None = None,
    tools: Mapping[str, Tool] | None = None,
    progress: Progress | None = None,
    carrier: Carrier | None = None,
) -> str:
    """Start the run or go on with it, and return its run_id; `store.run(run_id).status` says how it ended.

    `carrier` takes requests to the LLM that the settings name. `make_workbench` is called only when there is work left.
    Raises RunBusy when another process holds the run; any other failure is noted in the run's row and raised.
    """
    run_id = identify(settings, inputs)
    folder = _folder(store, run_id, runs_dir)
    asked = settings.model_dump(exclude={"spec_text"}) | {"cwd": os.getcwd(), "folder": str(folder.absolute())}
    if _is_done(store, run_id):
        store.relocate(run_id, asked, settings.data)
        store.set_status(run_id, "done")  # who asks for it again means it by `last`
        return run_id
    with hold(folder), interruptible():
        if _is_done(store, run_id):
            return run_id
        _begin(run_id, settings, asked, store, folder)
        rules = BuiltinPlanner(settings.max_attempts, settings.fix_surprises)
        heard = progress or NullProgress()

        def work() -> None:
            with _metered(store, run_id) as meter:
                bench = meter.bench = make_workbench(settings)
                engineer = _engineer(settings, store, run_id, carrier, heard)
                nodes = Nodes(
                    run_id=run_id,
                    bench=bench,
                    toolbox=Toolbox(bench, tools or LazyTools(), store, run_id, meter),
                    store=store,
                    planner=planner or (engineer.planner if engineer is not None else rules),
                    progress=heard,
                    forecaster=settings.forecaster,
                    max_findings=settings.max_findings,
                    engineer=engineer,
                    max_touched=settings.max_touched,
                )
                limit = recursion_limit(settings.max_findings, settings.max_attempts)
                run_graph(nodes, run_id, folder / CHECKPOINTS, limit)

        with _status_kept(store, run_id):
            try:
                work()
            except ReadOtherwise as error:
                say(f"note: {error}; it starts again", "yellow")
                _forget(store, run_id, folder)
                work()
    return run_id


def _engineer(
    settings: RunSettings, store: Store, run_id: str, carrier: Carrier | None, progress: Progress
) -> Engineer | None:
    """Return the LLM's part in the run; None where the settings name no LLM."""
    if settings.llm is None or carrier is None:
        return None
    asker = Asker(Ledger(store, run_id, carrier, settings.budget), settings.llm)
    rules = BuiltinPlanner(settings.max_attempts, settings.fix_surprises)
    return Engineer(asker, parse_spec(settings.spec_text, rules_needed=False), rules, progress)


def _begin(run_id: str, settings: RunSettings, asked: Mapping[str, Any], store: Store, folder: Path) -> None:
    """Write the run's row. Where its records or its checkpoints are lost, what is left of the others is useless."""
    known = store.has_run(run_id)
    if not known or not (folder / CHECKPOINTS).exists():
        _forget(store, run_id, folder)
    if known:
        store.relocate(run_id, asked, settings.data)
    store.begin_run(run_id, spec=settings.spec_text, settings=asked, forecaster=settings.forecaster)


def _forget(store: Store, run_id: str, folder: Path) -> None:
    """Let a run start from its beginning."""
    for name in (CHECKPOINTS, f"{CHECKPOINTS}-wal", f"{CHECKPOINTS}-shm"):
        (folder / name).unlink(missing_ok=True)
    clear_work(store, run_id)


def _folder(store: Store, run_id: str, runs_dir: Path) -> Path:
    """Return where a run's checkpoints are, or will be: in `runs_dir`, unless they lie where the run was left."""
    own = runs_dir / run_id
    left = Path(store.run(run_id).settings.get("folder") or own) if store.has_run(run_id) else own
    return own if (own / CHECKPOINTS).exists() or not left.exists() else left


@contextmanager
def _metered(store: Store, run_id: str) -> Iterator[Meter]:
    """Count what the block uses, also when it fails."""
    meter = Meter(store, run_id)
    try:
        yield meter
    finally:
        with suppress(StoreError):
            meter.read()


@contextmanager
def _status_kept(store: Store, run_id: str) -> Iterator[None]:
    """Note in the run's row how the block ended; an interruption ends here, other failures go on to the caller."""
    try:
        yield
    except KeyboardInterrupt:
        store.set_status(run_id, "interrupted")
    except BaseException as error:
        reason = str(error) if isinstance(error, PremortemError) else f"{type(error).__name__}: {error}"
        with suppress(StoreError):
            store.set_status(run_id, "failed", reason)
        raise
    else:
        store.set_status(run_id, "done")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the run's folder, created if needed, for this process alone; raise RunBusy when another one does."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=LOOK)
    except Timeout:
        raise RunBusy(f"run {folder.name} is in the hands of {_owner(folder)}; wait for it to finish") from None
    except OSError as error:
        raise StoreError(f"run folder {folder}: {error.strerror or error}") from error
    try:
        (folder / "owner").write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        lock.release()


def recover_runs(store: Store, runs_dir: Path) -> None:
    """Mark as interrupted every run that says `running` while no process holds it: its process was killed.

    A folder that is nowhere is held by nobody; of one that cannot be looked into nothing is known, and its run stays.
    """
    for info in store.runs():
        if info.status == "running":
            own = runs_dir / info.run_id
            with suppress(StoreError, OSError):
                folder = next((one for one in (Path(info.settings.get("folder") or own), own) if one.exists()), None)
                with hold(folder) if folder is not None else nullcontext():
                    store.mark_killed(info.run_id)


def _is_done(store: Store, run_id: str) -> bool:
    return store.has_run(run_id) and store.run(run_id).status == "done"


def _owner(folder: Path) -> str:
    try:
        return (folder / "owner").read_text(encoding="utf-8")
    except OSError:
        return "another process"
