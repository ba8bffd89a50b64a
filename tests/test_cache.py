"""Facts about the cache: what is kept comes back row for row, and no damage, kill or crowd of small files matters."""

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from premortem.interp import cache
from premortem.interp.cache import DamagedShardError, PooledStore
from premortem.interp.errors import PremortemError
from premortem.interp.pooling import FitRows, FitSums, Pooled, TokenFeatures, TokenRows, concatenate, pool

D_SAE, D_IN = 7, 3


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


def responses(seed: int, n: int) -> tuple[Pooled, FitRows]:
    """Return n random responses of one to four tokens."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n), rng.integers(1, 5, n))
    fires = rng.random((len(owner), D_SAE)) < 0.4
    token, feature = fires.nonzero()
    values = rng.random(len(token)).astype(np.float32) + 0.5
    found = TokenFeatures(token, feature.astype(np.int32), values, len(owner), np.ones(len(owner)))
    activations = rng.random((len(owner), D_IN)).astype(np.float32)
    return pool(found, owner, n, D_SAE), FitRows.of(found, activations, owner, n)


def store(folder: Path | None) -> PooledStore:
    return PooledStore(folder, D_SAE, D_IN)


def dense(pooled: Pooled) -> list[np.ndarray]:
    return [pooled.n_tokens, pooled.share.toarray(), pooled.mean.toarray(), pooled.max.toarray()]


def assert_same(one: Pooled, other: Pooled) -> None:
    for mine, theirs in zip(dense(one), dense(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def filled(folder: Path | None, shards: int = 3, size: int = 4) -> tuple[PooledStore, Pooled]:
    kept, parts = store(folder), []
    for at in range(shards):
        pooled, fit = responses(at, size)
        kept.add([key(at * size + i) for i in range(size)], pooled, fit)
        parts.append(pooled)
    return kept, concatenate(parts, D_SAE)


def test_pooling_counts_averages_and_takes_the_largest() -> None:
    found = TokenFeatures(
        np.array([0, 1, 1, 2]), np.array([3, 3, 5, 0], np.int32), np.array([1, 4, 2, 6], np.float32), 4, np.zeros(4)
    )
    pooled = pool(found, np.array([0, 0, 1, 1]), 3, D_SAE)
    assert pooled.n_tokens.tolist() == [2, 2, 0]
    assert pooled.share.toarray()[0].tolist() == [0, 0, 0, 1, 0, 0.5, 0]
    assert pooled.mean.toarray()[0].tolist() == [0, 0, 0, 2.5, 0, 1, 0]
    assert pooled.max.toarray()[0].tolist() == [0, 0, 0, 4, 0, 2, 0]
    assert pooled.max.toarray()[1].tolist() == [6, 0, 0, 0, 0, 0, 0]
    assert pooled.share[2].nnz == 0


def many_tokens(n: int, each: int) -> TokenRows:
    """Return n tokens with so many features each, all different from their neighbours."""
    cells = np.arange(n * each)
    return TokenRows(np.arange(n + 1) * each, (cells % 997).astype(np.uint16), (cells % 251).astype(np.float16))


def peak_of(make: Callable[[], object]) -> int:
    """Return the most memory that `make` held at once, in bytes."""
    tracemalloc.start()
    try:
        make()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_tokens_are_taken_across_runs_in_the_order_asked() -> None:
    tokens = many_tokens(40_000, 3)
    order = np.random.default_rng(0).permutation(40_000)[:30_000]
    whole = tokens.matrix(997)[order]
    taken = tokens.take(order).matrix(997)
    assert (taken != whole).nnz == 0 and taken.nnz == whole.nnz


def test_taking_tokens_holds_little_more_than_what_is_taken() -> None:
    tokens = many_tokens(200_000, 40)
    everything = np.arange(200_000)
    assert peak_of(lambda: tokens.take(everything)) < 2 * (tokens.indices.nbytes + tokens.values.nbytes)


def test_responses_in_the_order_kept_are_copied_once() -> None:
    kept = store(None)
    owner = np.repeat(np.arange(300), 200)
    token, feature = np.repeat(np.arange(len(owner)), 6), np.tile(np.arange(6, dtype=np.int32), len(owner))
    found = TokenFeatures(token, feature, np.ones(len(token), np.float32), len(owner), np.ones(len(owner)))
    pooled = pool(found, owner, 300, D_SAE)
    kept.add(
        [key(n) for n in range(300)], pooled, FitRows.of(found, np.ones((len(owner), D_IN), np.float32), owner, 300)
    )
    held = pooled.tokens.indices.nbytes + pooled.tokens.values.nbytes
    alone = peak_of(lambda: pooled.take(np.arange(300)))
    assert peak_of(lambda: kept.gather([key(n) for n in range(300)])) < alone + held / 2


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.none(), st.integers(0, 11)), max_size=30))
def test_rows_come_back_in_the_order_asked(wanted: list[int | None]) -> None:
    kept, all_rows = filled(None)
    found = kept.gather([None if n is None else key(n) for n in wanted])
    assert len(found) == len(wanted)
    for at, n in enumerate(wanted):
        if n is None:
            assert found.n_tokens[at] == 0 and found.max[at].nnz == 0
        else:
            assert_same(found.take([at]), all_rows.take([n]))


def test_another_process_finds_what_was_kept(tmp_path: Path) -> None:
    late = store(tmp_path)
    _, all_rows = filled(tmp_path)
    assert_same(store(tmp_path).gather([key(n) for n in range(12)]), all_rows)
    assert key(3) not in late
    late.refresh()
    assert key(3) in late


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    filled(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    filled(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("place", [3, 60, -5])
def test_a_flipped_bit_is_noticed_and_the_shard_forgotten(place: int, tmp_path: Path) -> None:
    filled(tmp_path, shards=2)
    victim = sorted(tmp_path.glob("*.safetensors"))[0]
    data = bytearray(victim.read_bytes())
    data[place] ^= 1
    victim.write_bytes(bytes(data))
    opened = store(tmp_path)
    with suppress(DamagedShardError):
        opened.gather([key(n) for n in range(8) if key(n) in opened])
    assert len([n for n in range(8) if key(n) not in opened]) == 4
    assert not victim.exists()


def test_a_cut_off_shard_is_no_shard(tmp_path: Path) -> None:
    filled(tmp_path, shards=1)
    (victim,) = tmp_path.glob("*.safetensors")
    victim.write_bytes(victim.read_bytes()[:100])
    assert key(0) not in store(tmp_path)


def test_a_shard_that_cannot_be_opened_just_now_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, shards=1)

    def no_handle_left(*_: object, **__: object) -> None:
        raise FileNotFoundError("No such file or directory (os error 24)")

    with monkeypatch.context() as without:
        without.setattr(cache, "safe_open", no_handle_left)
        assert key(0) not in store(tmp_path)
    assert key(0) in store(tmp_path)


def test_a_write_that_dies_leaves_nothing_that_looks_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(descriptor: int) -> None:
        raise KeyboardInterrupt

    kept, (pooled, fit) = store(tmp_path), responses(0, 2)
    monkeypatch.setattr(cache.os, "fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        kept.add([key(0), key(1)], pooled, fit)
    assert key(0) not in store(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    kept, (pooled, fit) = store(tmp_path), responses(0, 2)
    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(PremortemError, match="No space left"):
        kept.add([key(0), key(1)], pooled, fit)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PremortemError) as caught:
        store(tmp_path / "file" / "lens")
    told = f"{tmp_path / 'file' / 'lens'} cannot be written (Not a directory); PREMORTEM_CACHE names another folder."
    assert str(caught.value) == told


def test_many_small_shards_become_one(tmp_path: Path) -> None:
    kept, all_rows = filled(tmp_path, shards=cache.MANY_SMALL, size=1)
    keys = [key(n) for n in range(cache.MANY_SMALL)]
    before = kept.fit(keys)
    opened = store(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert_same(opened.gather(keys), all_rows)
    assert opened.fit(keys).fvu == pytest.approx(before.fvu)
    assert_same(kept.gather(keys), all_rows)


def test_many_small_shards_do_not_become_one_without_bound() -> None:
    sizes = {f"{n:03d}": 100 for n in range(64)}
    portions = list(cache._portions(sorted(sizes), sizes))
    assert [name for portion in portions for name in portion] == sorted(sizes)
    assert all(cache.TOGETHER <= 100 * len(portion) <= cache.TOGETHER + 100 for portion in portions[:-1])


def test_a_reader_whose_shards_were_merged_away_finds_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "KEEP_BYTES", 0)
    kept, all_rows = filled(tmp_path, shards=cache.MANY_SMALL, size=1)
    store(tmp_path)
    with pytest.raises(DamagedShardError):
        kept.gather([key(0)])
    assert_same(kept.gather([key(0)]), all_rows.take([0]))


def test_shards_beyond_the_memory_limit_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEEP_BYTES", 1)
    kept, all_rows = filled(tmp_path)
    assert len(kept._held) == 1
    assert_same(kept.gather([key(n) for n in range(12)]), all_rows)


def test_fit_adds_up_over_shards(tmp_path: Path) -> None:
    kept, _ = filled(tmp_path)
    sums = [responses(at, 4)[1] for at in range(3)]
    total = sums[0].sum(np.arange(4)) + sums[1].sum(np.arange(4)) + sums[2].sum(np.arange(4))
    fit = kept.fit([key(n) for n in range(12)])
    assert (fit.n_tokens, fit.firing) == (total.n_tokens, total.firing)
    assert fit.fvu == pytest.approx(total.fvu)
    assert np.isnan(kept.fit([]).l0)


def test_fit_is_that_of_the_responses_asked_for_and_of_no_others(tmp_path: Path) -> None:
    kept, _ = filled(tmp_path, shards=1)
    alone = responses(0, 4)[1].sum(np.array([2]))
    assert kept.fit([key(2), None, key(2)]).fvu == pytest.approx(alone.fvu)


def test_rows_of_fit_add_up_to_what_their_tokens_give() -> None:
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(3), 4)
    found = TokenFeatures(np.arange(12), np.zeros(12, np.int32), np.ones(12, np.float32), 12, rng.random(12))
    activations = rng.random((12, D_IN)).astype(np.float32)
    rows, whole = FitRows.of(found, activations, owner, 3).sum(np.arange(3)), FitSums.of(found, activations)
    assert (rows.fvu, rows.l0) == (pytest.approx(whole.fvu), whole.l0)


def test_a_token_that_outshouts_the_others_tells_nothing_of_the_fit() -> None:
    rng = np.random.default_rng(0)
    activations = rng.normal(size=(40, D_IN)).astype(np.float32)
    error = np.full(40, 0.1)
    quiet = FitSums.of(
        TokenFeatures(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 40, error), activations
    )
    activations[7] *= 100
    error[7] = 1e4
    loud = FitSums.of(
        TokenFeatures(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 40, error), activations
    )
    assert loud.n_tokens == 39
    assert loud.fvu == pytest.approx(quiet.fvu, rel=0.1)
