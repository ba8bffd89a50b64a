"""A run on a model whose chat template refuses some of the pairs: real model, real lens."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from premortem.agent.evidence import load_dataset
from premortem.agent.export import export_dataset
from premortem.agent.opening import open_run, settings_for
from premortem.agent.runs import start_run
from premortem.agent.show import data_and_lens
from premortem.agent.store import Store
from premortem.interp.progress import NullProgress

ROOT = Path(__file__).parent.parent
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def strict_model(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """Return the embedded model with a template that takes no system message."""
    folder = tmp_path_factory.mktemp("model") / "strict"
    folder.mkdir()
    for file in model_dir.iterdir():
        if file.is_file() and file.suffix != ".jinja":
            os.link(file, folder / file.name)
    (folder / "chat_template.jinja").write_text(STRICT + (model_dir / "chat_template.jinja").read_text())
    return folder


def test_pairs_that_the_template_refuses_are_left_out_and_told(strict_model: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (ROOT / "runs/demo/pairs.jsonl").read_text().splitlines()[:40]]
    system = {"role": "system", "content": "Be brief."}
    for n, row in enumerate(rows):
        row["prompt"] = [*([system] if n in (3, 7) else []), *row["prompt"]]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no pair\n")
    asked = {"model": str(strict_model), "sae": str(ROOT / "interp/lenses/smollm2-main"), "data": str(data)}
    settings, spec = settings_for(ROOT / "runs/demo/spec.md", asked)
    with Store(tmp_path / "runs" / "premortem.db") as store:
        opened = open_run(settings, spec.clauses, tmp_path / "runs", NullProgress())
        run_id = start_run(settings, opened.inputs, store, tmp_path / "runs", opened.make_workbench)
        document, dataset = store.document(run_id), load_dataset(store, run_id)
    assert (document["status"], document["dataset"]["pairs"], document["dataset"]["quarantined"]) == ("done", 38, 3)
    assert any("System role not supported" in note["text"] for note in document["dataset"]["notes"])
    told = [json.loads(line) for line in opened.quarantine.read_text().splitlines()]
    assert [bad["row"] for bad in told] == [3, 7, 40]
    manifest = export_dataset(dataset, [], data, tmp_path / "out.jsonl", run_id)
    assert (manifest.rows, manifest.quarantined, manifest.not_read) == (38, 3, 0)
    assert data_and_lens(document)
