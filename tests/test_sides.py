"""How hard DPO pulls at tokens, and that edited responses are told as if they had been read with the rest."""

from pathlib import Path

import numpy as np
import pytest
import torch

from premortem.interp.edits import edit_pair
from premortem.interp.encode import Reader
from premortem.interp.errors import DataError
from premortem.interp.lens import load_lens
from premortem.interp.models import load_model
from premortem.interp.records import Dataset, Edit, Pair
from premortem.interp.sides import Edited, Responses
from premortem.interp.start_model import StartModel
from premortem.tools.workbench import Workbench
from synthetic import TOKENS, responses
from tiny import write_model, write_sae

N = 20


def sides(log_likelihood: float | np.ndarray) -> Responses:
    made = responses(N, {0: [3, 4]})
    known = np.broadcast_to(log_likelihood, 2 * N * TOKENS).astype(float)
    return Responses(made.bag, made.groups, lambda: known)


def test_what_is_certain_or_never_said_is_not_pulled_at() -> None:
    for log in (0.0, -200.0, np.nan):
        assert sides(log).pulls == pytest.approx(np.zeros(2 * N), abs=1e-9)
        assert abs(sides(log).pulled).sum() == pytest.approx(0.0, abs=1e-9)
    even = sides(np.log(0.25))
    assert even.pulls == pytest.approx(np.full(2 * N, TOKENS * 0.5 * 0.75))
    assert even.pulled.toarray() == pytest.approx(even.shares.toarray() * TOKENS * 0.5 * 0.75)


def test_each_token_pulls_at_the_features_that_fire_on_it() -> None:
    logs = -np.random.default_rng(0).exponential(2.0, 2 * N * TOKENS)
    found = sides(logs)
    pull = (np.exp(logs / 2) * (1 - np.exp(logs))).reshape(2 * N, TOKENS)
    fires = (found.bag.units.matrix(found.shares.shape[1]).toarray() > 0).reshape(2 * N, TOKENS, -1)
    assert found.pulls == pytest.approx(pull.sum(1))
    assert found.pulled.toarray() == pytest.approx(np.einsum("nt,ntd->nd", pull, fires))


def test_where_nobody_knows_how_likely_a_token_is_that_is_said() -> None:
    with pytest.raises(DataError, match="how likely"):
        _ = responses(N, {}).pulls


def test_edited_responses_are_pulled_at_as_if_they_had_been_read_with_the_rest() -> None:
    before, fresh = sides(-1.0), responses(2, {}, seed=3)
    changed = Responses(fresh.bag, np.asarray([0, N]), lambda: np.full(4 * TOKENS, -2.0))
    kept = np.arange(1, N)
    view = Edited(before, kept, changed)
    for name in ("pulls", "pulled", "shares"):
        old, new = (np.asarray(_dense(getattr(each, name))) for each in (before, changed))
        expected = np.concatenate([old[kept], new[:2], old[N + kept], new[2:]])
        assert _dense(getattr(view, name)) == pytest.approx(expected)
        dropped = _dense(getattr(Edited(before, kept, None), name))
        assert dropped == pytest.approx(np.concatenate([old[kept], old[N + kept]]))


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
    loaded, told = found.reader.model, found.reading.responses.pulls
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
    assert after.pulls == pytest.approx(whole.reading.responses.pulls, rel=1e-3)
    assert _dense(after.pulled) == pytest.approx(_dense(whole.reading.responses.pulled), rel=1e-3, abs=1e-6)
