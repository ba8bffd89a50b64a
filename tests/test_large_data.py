"""With tens of thousands of rows nothing is counted again for each row, and no sequence grows without bound."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from premortem.agent.export_table import _row_groups
from premortem.interp.clusters import cluster_rows
from premortem.interp.records import Pair
from premortem.interp.tokens import MAX_LENGTH
from premortem.tools.score_rule import rule_scores
from premortem.tools.synthesise_pairs import SynthesiseArgs, _sources


class Rows(tuple[int, ...]):
    """Row numbers that count how often somebody goes through them."""

    read = 0

    def __iter__(self) -> Iterator[int]:
        self.read += 1
        return super().__iter__()


def test_rows_are_sorted_into_topics_without_reading_a_topic_for_each_row() -> None:
    topics = [SimpleNamespace(name=name, rows=Rows(range(*span))) for name, span in (("a", (0, 60)), ("b", (60, 100)))]
    reading: Any = SimpleNamespace(
        topics=topics,
        rows=np.arange(200),
        pairs=[None] * 200,
        vocabulary=SimpleNamespace(name=lambda fires: SimpleNamespace(text="words")),
    )
    finding: Any = SimpleNamespace(rows=tuple(range(10, 110)), finding_id="f", concept_id="c", effect=0.5)
    found = {cluster.name: cluster.rows for cluster in cluster_rows(reading, finding)}
    assert found == {
        "a: words": tuple(range(10, 60)),
        "b: words": tuple(range(60, 100)),
        "other prompts: words": tuple(range(100, 110)),
    }
    assert max(topic.rows.read for topic in topics) <= 2


def test_pairs_outside_a_finding_are_drawn_without_reading_its_rows_for_each_pair() -> None:
    pairs = [Pair(row=row, prompt="?", chosen="a", rejected="b") for row in range(50)]
    bench: Any = SimpleNamespace(settings=SimpleNamespace(seed=0), readable=pairs, findings={})
    finding: Any = SimpleNamespace(rows=Rows(range(40)))
    args = SynthesiseArgs(finding_id="f", count=20)
    assert sorted(pair.row for pair in _sources(bench, finding, args)) == list(range(40, 50))
    assert finding.rows.read == 1


class Piece:
    """A table of one row, or of none, that counts how often it is measured."""

    def __init__(self, rows: int) -> None:
        self.rows, self.measured = rows, 0

    def __len__(self) -> int:
        return self.rows

    @property
    def nbytes(self) -> int:
        self.measured += 1
        return 1 << 20


def test_an_export_measures_each_piece_of_a_table_once_and_writes_no_empty_one() -> None:
    pieces: Any = [Piece(n % 2) for n in range(300)]
    groups = list(_row_groups(pieces))
    assert [len(group) for group in groups] == [64, 64, 22]
    assert [piece for group in groups for piece in group] == pieces[1::2]
    assert max(piece.measured for piece in pieces) == 1


def test_a_rule_is_scored_on_what_training_would_read_of_a_response() -> None:
    asked: list[tuple[list[int], list[int]]] = []

    def log_likelihood(items: list[tuple[list[int], list[int]]], _progress: object) -> np.ndarray:
        asked.extend(items)
        return np.zeros(len(items))

    model = SimpleNamespace(
        prompt_ids=lambda prompt, system: [1], answer_ids=lambda text: [2] * len(text), log_likelihood=log_likelihood
    )
    bench: Any = SimpleNamespace(start_model=model, progress=None)
    pair = Pair(row=0, prompt="?", chosen="x" * (3 * MAX_LENGTH), rejected="short")
    assert rule_scores(bench, "Be brief.", [pair]).tolist() == [0.0]
    assert [len(response) for _, response in asked] == [MAX_LENGTH, MAX_LENGTH, 5, 5]
