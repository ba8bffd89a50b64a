"""What a finished run lets a person look at: the pairs themselves, and where the findings' concepts fire in them.

The database keeps numbers and edits; the pairs stay in the user's file. `load_dataset` reads them again, and only when
the file is still the one the run has read. The spans come from the `read_pairs` calls that the run has on record, so
nothing needs the model. Nothing here prints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from premortem.agent.store import Store
from premortem.interp.errors import DataError
from premortem.interp.records import Dataset, Side, Span


def load_dataset(store: Store, run_id: str) -> Dataset:
    """Read the run's input again; raise DataError when it is gone or has changed since."""
    from premortem.interp.hygiene import without
    from premortem.interp.pairs import read_dataset  # brings pyarrow, which `agent --help` does without

    info = store.run(run_id)
    if info.dataset_path is None:
        raise DataError(f"run {run_id} stopped before it had read its data; run it again")
    names = ("mapping", "split", "config", "revision", "limit")
    asked: dict[str, Any] = {name: info.settings[name] for name in names if info.settings.get(name) is not None}
    dataset = read_dataset(place(info.dataset_path, str(info.settings.get("cwd", ""))), **asked)
    check_unchanged(dataset, info.dataset_sha256, run_id)
    refused = {row: str(note["text"]) for note in info.notes if note["kind"] == "refused" for row in note["rows"]}
    return without(dataset, refused)


def place(path: str, cwd: str) -> str:
    """Return where lies what a run in the folder `cwd` calls `path`, also for a command that is given in another one.

    What is not there, as a hub id, stays as it is.
    """
    there = Path(cwd) / path
    return str(there) if cwd and there.exists() else path


def check_unchanged(dataset: Dataset, sha256: str | None, run_id: str) -> None:
    """Raise DataError where `dataset` is not what the run read, whose hash is `sha256`."""
    if dataset.sha256 != sha256:
        raise DataError(f"{dataset.path} has changed since run {run_id} read it; run again on the new data")


def source_of(dataset: Dataset) -> Path | None:
    """Return the file or folder that `dataset` was read from; None for a hub dataset."""
    path = Path(dataset.path)
    return path if path.exists() else None


def load_spans(store: Store, run_id: str) -> dict[tuple[str, int, Side], list[Span]]:
    """Return where the findings' concepts fire, by finding_id, row and side, as far as the run has looked."""
    found: dict[tuple[str, int, Side], list[Span]] = {}
    for call in store.load_tool_calls(run_id):
        if call.tool != "read_pairs" or not isinstance(call.result, list):
            continue
        finding_id = str(call.arguments.get("finding_id"))
        for excerpt in call.result:
            if excerpt.get("side") and excerpt.get("spans"):
                spans = [Span.model_validate(span) for span in excerpt["spans"]]
                found[finding_id, int(excerpt["row"]), excerpt["side"]] = spans
    return found
