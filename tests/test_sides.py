"""What tokens count by, and that edited responses are told as if they had been read with the rest."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from premortem.interp.edits import edit_pair
from premortem.interp.encode import Reader
from premortem.interp.errors import DataError
from premortem.interp.forecast import without_rows
from premortem.interp.lens import load_lens
from premortem.interp.models import load_model
from premortem.interp.records import Dataset, Edit, Pair
from premortem.interp.sides import Edited, Responses, Sides, Weight
from premortem.interp.start_model import StartModel
from premortem.tools.workbench import Workbench
from synthetic import TOKENS, facts, responses
from tiny import write_model, write_sae

N = 20


def sides(log_likelihood: float | np.ndarray) -> Responses:
    made = responses(N, {0: [3, 4]})
    return Responses(made.bag, made.groups, facts(2 * N * TOKENS, log_likelihood))


def test_what_is_certain_or_never_said_is_not_pulled_at() -> None:
    for log in (0.0, -200.0, np.nan):
        assert sides(log).weighed("pull").tokens == pytest.approx(np.zeros(2 * N), abs=1e-9)
        assert abs(sides(log).weighed("pull").firing).sum() == pytest.approx(0.0, abs=1e-9)
    even = sides(np.log(0.25))
    tokens, firing = even.weighed("pull")
    assert tokens == pytest.approx(np.full(2 * N, TOKENS * 0.5 * 0.75))
    assert firing.toarray() == pytest.approx(even.shares.toarray() * TOKENS * 0.5 * 0.75)


def test_each_token_pulls_at_the_features_that_fire_on_it() -> None:
    logs = -np.random.default_rng(0).exponential(2.0, 2 * N * TOKENS)
    found = sides(logs)
    pull = (np.exp(logs / 2) * (1 - np.exp(logs))).reshape(2 * N, TOKENS)
    fires = (found.bag.units.matrix(found.shares.shape[1]).toarray() > 0).reshape(2 * N, TOKENS, -1)
    tokens, firing = found.weighed("pull")
    assert tokens == pytest.approx(pull.sum(1))
    assert firing.toarray() == pytest.approx(np.einsum("nt,ntd->nd", pull, fires))


@pytest.mark.parametrize("weight", ["news", "pull"])
def test_where_nobody_knows_the_tokens_that_is_said(weight: Weight) -> None:
    made = responses(N, {})
    with pytest.raises(DataError, match="nobody knows the tokens"):
        Responses(made.bag, made.groups).weighed(weight)


def test_tokens_that_only_end_a_response_count_nothing() -> None:
    made = responses(N, {})
    ended = Responses(replace(made.bag, closing=TOKENS), made.groups, made.facts)
    for weight in ("news", "pull"):
        assert made.weighed(weight).tokens.min() > 0
        assert (ended.weighed(weight).tokens == 0).all()
        assert abs(ended.weighed(weight).firing).sum() == 0


def test_edited_responses_count_as_if_they_had_been_read_with_the_rest() -> None:
    before, fresh = sides(-1.0), responses(2, {}, seed=3)
    changed = Responses(fresh.bag, np.asarray([0, N]), facts(4 * TOKENS, -2.0), before)
    kept = np.arange(1, N)
    view = Edited(before, kept, changed)
    tellers: list[Callable[[Sides], object]] = [
        lambda each: each.shares,
        *(lambda each, i=i: each.weighed("pull")[i] for i in (0, 1)),  # type: ignore[misc]
        *(lambda each, i=i: each.weighed("news")[i] for i in (0, 1)),  # type: ignore[misc]
    ]
    for teller in tellers:
        old, new = (_dense(teller(each)) for each in (before, changed))
        expected = np.concatenate([old[kept], new[:2], old[N + kept], new[2:]])
        assert _dense(teller(view)) == pytest.approx(expected)
        dropped = _dense(teller(Edited(before, kept, None)))
        assert dropped == pytest.approx(np.concatenate([old[kept], old[N + kept]]))


def test_what_the_rest_of_the_data_says_too_is_less_news_in_an_edit() -> None:
    before = sides(-1.0)
    alone = Responses(before.bag, before.groups, before.facts)
    beside = Responses(before.bag, before.groups, before.facts, before)
    assert (beside.weighed("news").tokens < alone.weighed("news").tokens).all()


def _dense(found: object) -> np.ndarray:
    return found.toarray() if hasattr(found, "toarray") else np.asarray(found)


PAIRS = tuple(
    Pair(
        row=row,
        prompt=({"role": "user", "content": f"What of {row}?"},),
        chosen=({"role": "assistant", "content": "good " * (row + 1)},),
        rejected=({"role": "assistant", "content": "bad, " * (3 - row)},),
    )
    for row in range(3)
)


def bench(folder: Path, pairs: tuple[Pair, ...]) -> Workbench:
    loaded = load_model(str(folder / "model"))
    main = load_lens(loaded, str(folder / "sae"))
    dataset = Dataset(path="pairs.jsonl", sha256="0", form="conversational", pairs=pairs)
    return Workbench(dataset, (), Reader(loaded, [main]), main, None, lambda: StartModel(loaded))


def test_the_pull_is_that_of_the_tokens_that_the_lens_reads(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_sae(tmp_path / "sae")
    found = bench(tmp_path, PAIRS)
    loaded, told = found.reader.model, found.reading.responses.weighed("pull").tokens
    for at, (prompt, response) in enumerate(found.reader.tokens(PAIRS)):
        assert len(response) == found.reading.responses.lengths[at]
        logits = loaded.model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        logs = logits[torch.arange(len(response)), torch.tensor(response)].detach().numpy()
        said = logs[: len(response) - found.reader.closing_of(PAIRS[0].prompt)]
        assert told[at] == pytest.approx((np.exp(said / 2) * (1 - np.exp(said))).sum(), rel=1e-3)
    edit = Edit(
        edit_id="e", finding_id="f", row=1, kind="rewrite", side="chosen", before=PAIRS[1].text("chosen"),
        after="something else", rationale="",
    )  # fmt: skip
    after = found.reading_after([edit]).responses
    whole = bench(tmp_path, (PAIRS[0], PAIRS[2], edit_pair(PAIRS[1], [edit])))
    for one, other in zip(after.weighed("pull"), whole.reading.responses.weighed("pull"), strict=True):
        assert _dense(one) == pytest.approx(_dense(other), rel=1e-3, abs=1e-6)
    ids = found.reading.whole.facts.ids()  # type: ignore[union-attr]
    assert ids.tolist() == [token for _, response in found.reader.tokens(PAIRS) for token in response]
    assert after.weighed("news").tokens == pytest.approx(whole.reading.responses.weighed("news").tokens, rel=0.5)


def test_a_first_step_on_an_edited_pair_is_that_of_the_pair_as_it_is_now(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is an optional dependency (premortem[validate])")
    write_model(tmp_path / "model")
    write_sae(tmp_path / "sae")
    found = bench(tmp_path, PAIRS)
    told = found.reading.responses.steps
    assert told.shape == (3, len(found.said[1]))
    assert abs(told).max() > 0
    edit = Edit(
        edit_id="e", finding_id="f", row=1, kind="rewrite", side="chosen", before=PAIRS[1].text("chosen"),
        after="something else", rationale="",
    )  # fmt: skip
    after = found.reading_after([edit]).responses.steps
    assert after[:2].tolist() == told[[0, 2]].tolist()
    whole = bench(tmp_path, (PAIRS[0], edit_pair(PAIRS[1], [edit]), PAIRS[2])).reading.responses.steps
    assert after[2] == pytest.approx(whole[1], rel=1e-4, abs=1e-4)
    assert after[2] != pytest.approx(told[1], rel=1e-2)
    kept = without_rows(found.reading, [0]).responses.steps
    assert kept.tolist() == told[1:].tolist()
