"""Facts about reading: pooled features are those of each response alone, and nothing is read twice."""

from pathlib import Path

import numpy as np
import pytest
import torch

from premortem.interp import encode as encode_module
from premortem.interp.encode import Reader
from premortem.interp.errors import LensError
from premortem.interp.lens import Lens, load_lens
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.pooling import EncodedPairs, Pooled, content_shares
from premortem.interp.records import Pair
from premortem.interp.tokens import tokenize
from tiny import D_SAE, chat_pair, some_pairs, write_model, write_sae


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(write_model(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture(scope="module")
def lenses(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> list[Lens]:
    folder = tmp_path_factory.mktemp("saes")
    saes = [write_sae(folder / "one", layer=1), write_sae(folder / "two", layer=2, seed=1, architecture="jumprelu")]
    return [load_lens(model, str(sae)) for sae in saes]


def alone(model: LoadedModel, lens: Lens, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Encode a response the usual way: the whole sequence, every layer, sae-lens's own encoder."""
    with torch.no_grad():
        hidden = model.model(torch.tensor([prompt + response]), output_hidden_states=True).hidden_states
        return lens.sae.encode(hidden[lens.layer + 1][0, len(prompt) :])


def same(one: Pooled, other: Pooled, tolerance: float = 0.0) -> bool:
    return bool(np.array_equal(one.n_tokens, other.n_tokens)) and all(
        abs(getattr(one, name) - getattr(other, name)).max() <= tolerance for name in ("share", "mean", "max")
    )


def test_pooled_features_are_those_of_two_separate_full_passes(model: LoadedModel, lenses: list[Lens]) -> None:
    pairs = some_pairs()
    for lens_id, encoded in Reader(model, lenses).encode(pairs).items():
        lens = next(lens for lens in lenses if lens.lens_id == lens_id)
        for at, pair in enumerate(pairs):
            tokens = tokenize(pair, model.tokenizer)
            assert tokens is not None
            for side, pooled in (("chosen", encoded.chosen), ("rejected", encoded.rejected)):
                acts = alone(model, lens, tokens.prompt, tokens.side(side))
                assert pooled.n_tokens[at] == len(acts)
                for seen, expected in (
                    (pooled.share, (acts > 0).float().mean(0)),
                    (pooled.mean, acts.mean(0)),
                    (pooled.max, acts.amax(0)),
                ):
                    np.testing.assert_allclose(seen[at].toarray()[0], expected.numpy(), atol=1e-4)


def test_swapping_sides_swaps_pooled_values(model: LoadedModel, lenses: list[Lens]) -> None:
    for lens_id, straight in Reader(model, lenses).encode(some_pairs()).items():
        swapped = Reader(model, lenses).encode([pair.swapped() for pair in some_pairs()])[lens_id]
        assert same(straight.chosen, swapped.rejected)
        assert same(straight.rejected, swapped.chosen)


def test_order_and_batch_size_change_nothing(model: LoadedModel, lenses: list[Lens]) -> None:
    pairs = some_pairs()
    for lens_id, encoded in Reader(model, lenses).encode(pairs).items():
        for reader in (Reader(model, lenses, batch_tokens=64), Reader(model, lenses)):
            back = reader.encode(pairs[::-1])[lens_id]
            assert back.rows == encoded.rows[::-1]
            assert same(back.chosen.take(range(len(pairs))[::-1]), encoded.chosen, 1e-4)


def test_the_second_call_reads_no_token(model: LoadedModel, lenses: list[Lens], tmp_path: Path) -> None:
    first, second = Reader(model, lenses, tmp_path), Reader(model, lenses, tmp_path)
    one = first.encode(some_pairs())
    seen = first.tokens_encoded
    first.encode(some_pairs())
    again = second.encode(some_pairs())
    assert seen > 0
    assert first.tokens_encoded == seen
    assert second.tokens_encoded == 0
    assert second.fit == first.fit
    assert all(same(one[lens_id].chosen, again[lens_id].chosen) for lens_id in one)


def test_cached_responses_need_no_sae(
    model: LoadedModel, lenses: list[Lens], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Reader(model, lenses, tmp_path).encode(some_pairs())
    monkeypatch.setattr(encode_module, "FeatureReader", None)
    Reader(model, lenses, tmp_path).encode(some_pairs())


def test_an_edit_reads_its_own_response_and_prompt(model: LoadedModel, lenses: list[Lens]) -> None:
    pairs, reader = some_pairs(), Reader(model, lenses)
    reader.encode(pairs)
    before = reader.tokens_encoded
    edited = pairs[1].with_text("chosen", "They like it.")
    reader.encode([pairs[0], edited, *pairs[2:]])
    tokens = tokenize(edited, model.tokenizer)
    assert tokens is not None
    assert reader.tokens_encoded - before == len(tokens.prompt) + len(tokens.chosen)


def test_a_new_lens_reads_again_and_leaves_the_old_one_alone(
    model: LoadedModel, lenses: list[Lens], tmp_path: Path
) -> None:
    Reader(model, lenses[:1], tmp_path).encode(some_pairs())
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / lenses[0].lens_id).iterdir()}
    both = Reader(model, lenses, tmp_path).encode(some_pairs())
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / lenses[0].lens_id).iterdir()} == written
    assert both[lenses[1].lens_id].chosen.share.nnz > 0


def test_a_run_killed_between_writes_goes_on_to_the_same_bits(
    model: LoadedModel, lenses: list[Lens], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "COMMIT_BATCHES", 1)
    pairs = some_pairs()
    whole = Reader(model, lenses, tmp_path / "whole", batch_tokens=64)
    expected = whole.encode(pairs)
    broken = Reader(model, lenses, tmp_path / "broken", batch_tokens=64)
    commit, calls = Reader._commit, []

    def dies(self: Reader, lens_id: str, parts: object) -> None:
        calls.append(lens_id)
        if len(calls) == 4:
            raise KeyboardInterrupt
        commit(self, lens_id, parts)

    monkeypatch.setattr(Reader, "_commit", dies)
    with pytest.raises(KeyboardInterrupt):
        broken.encode(pairs)
    resumed = Reader(model, lenses, tmp_path / "broken", batch_tokens=64)
    found = resumed.encode(pairs)
    assert 0 < resumed.tokens_encoded < whole.tokens_encoded
    for lens_id in expected:
        assert same(found[lens_id].chosen, expected[lens_id].chosen)
        assert same(found[lens_id].rejected, expected[lens_id].rejected)


def test_damaged_shards_are_read_again(model: LoadedModel, lenses: list[Lens], tmp_path: Path) -> None:
    expected = Reader(model, lenses, tmp_path).encode(some_pairs())
    for at, path in enumerate(sorted(tmp_path.rglob("*.safetensors"))):
        data = bytearray(path.read_bytes())
        data[-3 if at % 2 else 12] ^= 255
        path.write_bytes(bytes(data))
    reader = Reader(model, lenses, tmp_path)
    found = reader.encode(some_pairs())
    assert reader.tokens_encoded > 0
    assert all(same(found[lens_id].rejected, expected[lens_id].rejected) for lens_id in expected)


def test_fit_is_that_of_the_reconstruction(model: LoadedModel, lenses: list[Lens]) -> None:
    reader, (lens, _) = Reader(model, lenses), lenses
    reader.encode(some_pairs())
    inputs: dict[tuple[int, ...], torch.Tensor] = {}
    for pair in some_pairs():
        tokens = tokenize(pair, model.tokenizer)
        assert tokens is not None
        for response in (tokens.chosen, tokens.rejected):
            full = tokens.prompt + response
            hidden = model.model(torch.tensor([full]), output_hidden_states=True).hidden_states[lens.layer + 1]
            inputs[len(tokens.prompt), *full] = hidden[0, len(tokens.prompt) :]
    x = torch.cat(list(inputs.values()))
    error = (lens.sae(x) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert reader.fit[lens.lens_id].fvu == pytest.approx(float(error), rel=1e-3)
    assert reader.fit[lens.lens_id].l0 == pytest.approx(float((lens.sae.encode(x) > 0).sum(1).float().mean()), rel=1e-3)


def test_token_activations_stand_where_the_tokens_stand(model: LoadedModel, lenses: list[Lens]) -> None:
    reader, pair, lens = Reader(model, lenses), some_pairs()[0], lenses[0]
    tokens = tokenize(pair, model.tokenizer)
    assert tokens is not None
    expected = alone(model, lens, tokens.prompt, tokens.chosen)
    features = [int(f) for f in expected.amax(0).argsort(descending=True)[:3]]
    acts = reader.token_activations(pair, "chosen", lens.lens_id, features)
    np.testing.assert_allclose(acts.acts, expected[:, features].numpy(), atol=1e-4)
    assert "".join(pair.text("chosen")[start:end] for start, end in acts.offsets) == pair.text("chosen")


def test_texts_without_a_pair_share_the_cache(model: LoadedModel, lenses: list[Lens]) -> None:
    reader, pair = Reader(model, lenses), some_pairs()[0]
    encoded = reader.encode([pair])
    before = reader.tokens_encoded
    alone = reader.encode_texts([(pair.prompt, pair.text("chosen")), (pair.prompt, pair.text("rejected"))])
    assert reader.tokens_encoded == before
    for lens_id, pooled in alone.items():
        assert same(pooled.take([0]), encoded[lens_id].chosen)
        assert same(pooled.take([1]), encoded[lens_id].rejected)


def test_an_answer_is_read_after_its_pairs_own_prompt(model: LoadedModel, lenses: list[Lens]) -> None:
    """Tools are part of what the template makes of a prompt."""
    reader, pair = Reader(model, lenses), chat_pair(0, "Say nothing.", "yes", "no")
    said = "{% if tools %}TOOLS {{ tools | tojson }}{% endif %}"
    usual = model.tokenizer.chat_template
    model.tokenizer.chat_template = said + usual
    try:
        armed = pair.model_copy(update={"tools": ({"name": "f"},)})
        encoded = reader.encode([armed])
        before = reader.tokens_encoded
        alone = reader.encode_texts([(armed, "yes"), (armed, "no")])
        assert reader.tokens_encoded == before
        assert all(same(pooled.take([0]), encoded[lens_id].chosen) for lens_id, pooled in alone.items())
    finally:
        model.tokenizer.chat_template = usual


def test_what_only_ends_a_response_is_no_part_of_its_shares(model: LoadedModel, lenses: list[Lens]) -> None:
    plain = Pair(row=9, prompt="Say", chosen=" something", rejected=" no")
    pairs, reader, lens = (
        [*some_pairs(), chat_pair(8, "Say nothing.", "", "no"), plain],
        Reader(model, lenses),
        lenses[0],
    )
    closing = reader.closing(pairs)
    assert closing.tolist() == [reader.closing_of(pair.prompt) for pair in pairs]
    chosen = reader.encode(pairs)[lens.lens_id].chosen
    shares = content_shares(chosen, closing)
    for at, pair in enumerate(pairs):
        tokens = tokenize(pair, model.tokenizer)
        assert tokens is not None
        ending = model.tokenizer.decode(tokens.chosen[len(tokens.chosen) - closing[at] :])
        assert model.tokenizer.decode(tokens.chosen).removesuffix(ending).strip() == pair.text("chosen").strip()
        acts = alone(model, lens, tokens.prompt, tokens.chosen)[: len(tokens.chosen) - closing[at]]
        expected = (acts > 0).float().mean(0).numpy() if len(acts) else np.zeros(D_SAE)
        np.testing.assert_allclose(shares[at].toarray()[0], expected, atol=1e-6)
    assert shares[len(pairs) - 2].nnz == 0
    assert content_shares(chosen, 0) is chosen.share


def test_a_pair_that_dpo_drops_has_no_tokens(model: LoadedModel, lenses: list[Lens]) -> None:
    pairs = [chat_pair(7, "a" * 100, "b", "c"), chat_pair(8, "a", "b", "c")]
    encoded: EncodedPairs = Reader(model, lenses, max_length=80).encode(pairs)[lenses[0].lens_id]
    assert encoded.rows == (7, 8)
    assert encoded.chosen.n_tokens[0] == 0
    assert encoded.chosen.n_tokens[1] > 0
    assert encoded.chosen.share[0].nnz == 0


def test_no_pairs_make_an_empty_encoding(model: LoadedModel, lenses: list[Lens]) -> None:
    encoded = Reader(model, lenses).encode([])[lenses[0].lens_id]
    assert encoded.rows == ()
    assert encoded.chosen.share.shape == (0, D_SAE)


def test_a_lens_for_a_layer_that_was_not_kept_is_refused(model: LoadedModel, lenses: list[Lens]) -> None:
    short = load_model(model.ref, 2)
    with pytest.raises(LensError, match="2 of"):
        Reader(short, lenses)
    kept = Reader(short, lenses[:1]).encode(some_pairs())[lenses[0].lens_id]
    assert same(kept.chosen, Reader(model, lenses[:1]).encode(some_pairs())[lenses[0].lens_id].chosen, 1e-5)


@pytest.mark.model
def test_the_embedded_model_reads_the_same_packed_as_alone(model_dir: Path, tmp_path: Path) -> None:
    real = load_model(str(model_dir), 4)
    plain = load_model(str(model_dir), 4, packed=False)
    reader = Reader(real, [])
    forward = reader._ready()
    assert forward.tree and len(forward.opening) > 15 and real.hidden_size == 576
    pairs = some_pairs()
    requests = [
        request
        for pair in pairs
        for side in ("chosen", "rejected")
        if (request := encode_module.request_of(tokenize(pair, real.tokenizer), side)) is not None
    ]
    for batch in reader._batches(requests):
        seen, owner, _ = forward.read(batch, [2])
        for at, one in enumerate(batch.requests):
            ids = torch.from_numpy(np.concatenate([one.prompt, one.response]).astype(np.int64))[None]
            with torch.no_grad():
                hidden = plain.model(ids, output_hidden_states=True).hidden_states[3][0, len(one.prompt) :]
            torch.testing.assert_close(seen[2][torch.from_numpy(owner == at)], hidden, rtol=1e-4, atol=1e-3)
