"""Facts about how trainings are read out: which may take part in a fit of what ships, and what is told of them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from bench_skill import EVERY_RUN
from forecast_again import tells_features
from read_skill import AGAIN, UNFITTED, columns, explained, source
from skill_data import SETS


@pytest.mark.parametrize("name", SETS)
def test_no_set_that_holds_pairs_of_alpacaeval_takes_part_in_a_fit(name: str) -> None:
    one = SETS[name]
    drawn = {one.file, *(SETS[other].file for other in one.among)}
    assert (source(f"{name}-seed5") == UNFITTED) == ("alpacaeval.jsonl" in drawn)


def test_each_run_has_the_source_of_its_pairs() -> None:
    sources = {source(run.label) for run in EVERY_RUN}
    assert sources == {"hh-harmless", "pandalm", "xstest", UNFITTED}
    assert source("polite-alpacaeval-large-seed5") == source("one-source-large-seed5") == UNFITTED
    assert source("planted-pandalm-large-seed3") == source("pandalm-seed0") == "pandalm"


def test_what_was_forecast_again_is_what_the_trainings_documents_say() -> None:
    again, runs = json.loads(AGAIN.read_text("utf-8")), {run.label: run for run in EVERY_RUN}
    assert set(again) == {label for label, run in runs.items() if tells_features(run.document)}
    for label, told in again.items():
        document = json.loads(runs[label].document.read_text("utf-8"))
        _, learned = columns(document, ())
        assert told["n_concepts"] == len(learned)
        for one in told["forecasters"].values():
            assert one["r2"] == pytest.approx(explained(np.asarray(one["effects"]), learned), abs=0.005)
