"""Facts about how trainings are read out: which may take part in a fit of what ships."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from bench_skill import LATER_RUNS, RUNS
from read_skill import UNFITTED, source
from skill_data import SETS


@pytest.mark.parametrize("name", SETS)
def test_no_set_that_holds_pairs_of_alpacaeval_takes_part_in_a_fit(name: str) -> None:
    one = SETS[name]
    drawn = {one.file, *(SETS[other].file for other in one.among)}
    assert (source(f"{name}-seed5") == UNFITTED) == ("alpacaeval.jsonl" in drawn)


def test_each_run_has_the_source_of_its_pairs() -> None:
    sources = {source(run.label) for run in (*RUNS, *LATER_RUNS)}
    assert sources == {"hh-harmless", "pandalm", "xstest", UNFITTED}
    assert source("polite-alpacaeval-large-seed5") == source("one-source-large-seed5") == UNFITTED
    assert source("planted-pandalm-large-seed3") == source("pandalm-seed0") == "pandalm"
