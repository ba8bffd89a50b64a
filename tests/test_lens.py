"""Facts about lenses: they say where they read, refuse what could run a program, and need sae-lens only to encode."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from premortem.interp import lens as lens_module
from premortem.interp import sae_files
from premortem.interp.errors import LensError
from premortem.interp.features import FeatureReader
from premortem.interp.lens import EMBEDDED, default_lenses, embedded_path, hook_layer, load_lens
from premortem.interp.models import ModelIdentity, resolve_model
from tiny import D_SAE, HIDDEN, K, write_model, write_sae

TINY = ModelIdentity("tiny", Path("tiny"), "0123456789abcdef", 4, HIDDEN)


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("blocks.12.hook_resid_post", 12),
        ("blocks.13.hook_resid_pre", 12),
        ("model.layers.12", 12),
        ("model.language_model.layers.3", 3),
        ("transformer.h.7", 7),
        ("gpt_neox.layers.0", 0),
        ("layers.5", 5),
        ("model.layers.12.output", 12),
    ],
)
def test_both_languages_name_the_same_layer(name: str, layer: int) -> None:
    assert hook_layer(name) == layer


@pytest.mark.parametrize(
    "name",
    [
        "blocks.3.hook_mlp_out",
        "blocks.0.hook_resid_pre",
        "blocks.2.attn.hook_z",
        "layers.4.mlp",
        "layers.4.mlp.output",
        "hook_embed",
    ],
)
def test_other_places_are_refused(name: str) -> None:
    with pytest.raises(LensError, match=r"layer"):
        hook_layer(name)


def test_a_sae_lens_folder_says_all(tmp_path: Path) -> None:
    lens = load_lens(TINY, str(write_sae(tmp_path / "sae", layer=2)))
    assert (lens.layer, lens.hook, lens.d_in, lens.d_sae) == (2, "model.layers.2", HIDDEN, D_SAE)
    assert lens.warnings == ()
    assert lens.sae.W_enc.dtype == torch.float32
    assert lens.sae.cfg.k == K


def test_the_id_changes_with_model_layer_and_weights(tmp_path: Path) -> None:
    sae = str(write_sae(tmp_path / "a"))
    other_model = ModelIdentity("tiny", Path("tiny"), "another", 4, HIDDEN)
    ids = [
        load_lens(TINY, sae).lens_id,
        load_lens(TINY, sae, layer=3).lens_id,
        load_lens(other_model, sae).lens_id,
        load_lens(TINY, str(write_sae(tmp_path / "b", seed=1))).lens_id,
    ]
    assert len(set(ids)) == 4
    assert load_lens(TINY, str(write_sae(tmp_path / "c"))).lens_id == ids[0]


def test_a_sparsify_folder_is_read_as_topk(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "layers.2"
    weights = load_file(write_sae(tmp_path / "sae") / "sae_weights.safetensors")
    folder.mkdir(parents=True)
    renamed = {
        "encoder.weight": weights["W_enc"].T.contiguous(),
        "encoder.bias": weights["b_enc"],
        "W_dec": weights["W_dec"],
        "b_dec": weights["b_dec"],
    }
    save_file(renamed, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": HIDDEN, "num_latents": D_SAE, "k": K}))
    lens = load_lens(TINY, str(folder))
    assert (lens.layer, lens.d_sae) == (2, D_SAE)


def test_the_layer_can_be_given_and_must_exist(tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", metadata={"sae_lens_version": "6.54.0"})
    with pytest.raises(LensError, match="which layer"):
        load_lens(TINY, str(sae))
    assert load_lens(TINY, str(sae), layer=3).layer == 3
    with pytest.raises(LensError, match="layers 0 to 3"):
        load_lens(TINY, str(sae), layer=4)


def test_another_width_is_another_model(tmp_path: Path) -> None:
    wide = ModelIdentity("wide", Path("wide"), "0", 4, 64)
    with pytest.raises(LensError, match=r"width 32; wide has 64.*tiny"):
        load_lens(wide, str(write_sae(tmp_path / "sae")))


def test_another_name_is_a_warning(tmp_path: Path) -> None:
    other = ModelIdentity("org/Qwen9-7B", Path("x"), "0", 4, HIDDEN)
    assert "trained on tiny" in load_lens(other, str(write_sae(tmp_path / "sae"))).warnings[0]
    renamed = ModelIdentity("/models/Tiny-Instruct/", Path("x"), "0", 4, HIDDEN)
    assert load_lens(renamed, str(write_sae(tmp_path / "sae"))).warnings == ()


@pytest.mark.parametrize("name", ["sae.pt", "ae.bin", "weights.pth", "sae.pkl"])
def test_pickles_are_refused_unopened(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    folder = tmp_path / "sae"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps(Evil(marker)))
    (folder / "cfg.json").write_text("{}")
    for ref in (folder, folder / name):
        with pytest.raises(LensError, match="pickle"):
            load_lens(TINY, str(ref))
    assert not marker.exists()


def test_torch_load_is_shut_while_an_sae_loads(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(LensError, match="pickle"), sae_files.no_pickles():
        torch.load(tmp_path / "evil.pt", weights_only=False)
    assert not marker.exists()
    assert torch.load.__module__ == "torch.serialization"


def test_releases_published_as_pickles_are_refused() -> None:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    for release, known in get_pretrained_saes_directory().items():
        if known.conversion_func in sae_files._PICKLED_LOADERS:
            with pytest.raises(LensError, match="pickles"):
                load_lens(TINY, f"{release}:{next(iter(known.saes_map))}")


def test_a_release_is_described_without_sae_lens_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sae_lens

    monkeypatch.setenv("PREMORTEM_CACHE", str(tmp_path / "cache"))
    sae = load_lens(TINY, str(write_sae(tmp_path / "sae", layer=1))).sae
    monkeypatch.setattr(sae_lens.SAE, "from_pretrained", lambda *args, **options: sae)
    first = load_lens(TINY, "org/saes:layer_1")
    monkeypatch.setattr(sae_files, "_load_release", lambda ref, digest: pytest.fail("loaded again"))
    again = load_lens(TINY, "org/saes:layer_1")
    assert (again.lens_id, again.layer, again.d_sae) == (first.lens_id, 1, D_SAE)


def test_an_unknown_release_is_one_clear_line() -> None:
    with pytest.raises(LensError) as caught:
        load_lens(TINY, "no-such-release:blocks.1")
    assert "\n" not in str(caught.value)


def test_broken_folders_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(LensError, match="neither a folder"):
        load_lens(TINY, str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(LensError, match=r"no cfg\.json"):
        load_lens(TINY, str(tmp_path / "empty"))
    sae = write_sae(tmp_path / "sae")
    (sae / "cfg.json").write_text("{")
    with pytest.raises(LensError, match="JSON"):
        load_lens(TINY, str(sae))
    (sae / "cfg.json").write_text('{"d_in": 32}')
    with pytest.raises(LensError, match="d_sae None"):
        load_lens(TINY, str(sae))


def test_describing_a_lens_imports_no_sae_lens(tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae")
    script = (
        "import sys; from pathlib import Path; from premortem.interp.lens import load_lens;"
        "from premortem.interp.models import ModelIdentity;"
        f"load_lens(ModelIdentity('tiny', Path('.'), '0', 4, {HIDDEN}), {str(sae)!r});"
        "assert 'sae_lens' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [("topk", {}), ("topk", {"rescale_acts_by_decoder_norm": True}), ("jumprelu", {}), ("standard", {})],
)
def test_the_short_way_reads_what_sae_lens_reads(architecture: str, settings: dict[str, Any], tmp_path: Path) -> None:
    folder = write_sae(tmp_path / "sae", architecture=architecture, **settings)
    if settings:
        weights = load_file(folder / "sae_weights.safetensors")
        weights["W_dec"] = weights["W_dec"] * torch.linspace(0.5, 2, D_SAE).half()[:, None]
        save_file(weights, folder / "sae_weights.safetensors")
    sae = load_lens(TINY, str(folder)).sae
    x = torch.randn(700, HIDDEN, generator=torch.Generator().manual_seed(3))
    acts = sae.encode(x)
    features = FeatureReader(sae, torch.device("cpu")).read(x)
    dense = np.zeros((len(x), D_SAE), np.float32)
    dense[features.token, features.feature] = features.activation
    np.testing.assert_allclose(dense, acts.numpy(), atol=1e-5)
    np.testing.assert_allclose(features.squared_error, (x - sae.decode(acts)).square().sum(1).numpy(), rtol=1e-4)


def test_without_embedded_lenses_the_error_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lens_module, "files", lambda package: tmp_path)
    with pytest.raises(LensError, match="lens train"):
        embedded_path(EMBEDDED[0])


@pytest.mark.model
def test_the_embedded_lenses_read_two_layers_of_the_embedded_model(model_dir: Path) -> None:
    main, second = default_lenses(resolve_model(str(model_dir)))
    assert main.layer != second.layer
    assert main.d_in == second.d_in == 576
    for lens in (main, second):
        assert {"data", "recipe", "figures"} <= set(lens.card)
        assert lens.card["figures"]["fvu"] <= 0.20 and lens.card["figures"]["dead_share"] <= 0.05


def test_a_tiny_model_on_disk_is_found(tmp_path: Path) -> None:
    lens = load_lens(str(write_model(tmp_path / "tiny")), str(write_sae(tmp_path / "sae")))
    assert lens.model_ref == str(tmp_path / "tiny")
