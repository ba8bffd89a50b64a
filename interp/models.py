"""Models: any Hugging Face causal language model, and the embedded one (see `embedded`).

Weights are read from safetensors only and no model brings code of its own: a pickle could run anything. A model for
reading keeps only the first decoder layers, because an SAE never looks at the later ones.

Nothing here knows about SAEs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from premortem.interp.cache_home import cache_home, file_sha256
from premortem.interp.embedded import DEFAULT_MODEL, fetch_model
from premortem.interp.errors import ModelError
from premortem.interp.fast_linear import pack_linears
from premortem.interp.progress import NullProgress, Progress
from premortem.interp.quiet import first_line, quiet

_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
_SENSES = re.compile(r"vision|visual|audio|image")
"""How the parts of a model are called that do not read text."""
_WHOLE_ONLY = ("num_kv_shared_layers", "hidden_size_per_layer_input")
"""Settings by which a model's layers hang on how many there are: such a model (Gemma 4 E) is loaded whole."""
_VOLATILE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")


@dataclass(frozen=True)
class LoadedModel:
    """A model and its tokenizer, ready to read."""

    model: nn.Module
    """The transformers model; without its later layers and LM head if `layers` was given to `load_model`."""
    tokenizer: Any
    """The tokenizer, with its chat template."""
    ref: str
    """What the user named: `smollm2`, a folder or a hub id."""
    digest: str
    """16-digit hash of weights, configuration, tokenizer and chat template."""
    n_layers: int
    """Decoder layers of the whole model, kept or not."""

    @cached_property
    def layers(self) -> nn.ModuleList:
        """The decoder layers that were kept, first to last."""
        return decoder_layers(self.model)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream, the SAE's `d_in`."""
        return int(text_config(self.model).hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision the model computes in."""
        return next(self.model.parameters()).dtype


@dataclass(frozen=True)
class ModelIdentity:
    """What a lens must know of a model, told from its files without loading weights."""

    ref: str
    """What the user named."""
    folder: Path
    """Where its files are."""
    digest: str
    """See `LoadedModel.digest`."""
    n_layers: int
    """Decoder layers."""
    hidden_size: int
    """Width of the residual stream."""


def resolve_model(ref: str, progress: Progress | None = None) -> ModelIdentity:
    """Return what `ref` stands for; a hub id is downloaded (or found in Hugging Face's cache) at its safetensors.

    Raises ModelError when there is no such model, its licence has not been accepted, or it has no safetensors weights.
    """
    folder = _model_folder(ref, progress or NullProgress())
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{ref}: no safetensors weights in {folder}; pickled weights are refused, convert them first.")
    from transformers import AutoConfig

    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{ref}: its configuration cannot be read: {first_line(error)}") from error
    return ModelIdentity(ref, folder, _digest(folder), int(config.num_hidden_layers), int(config.hidden_size))


def usual_device() -> str:
    """Return where models and SAEs are held: a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_model(
    ref: str,
    layers: int | None = None,
    *,
    packed: bool = True,
    device: str | None = None,
    trunk: LoadedModel | None = None,
    dtype: torch.dtype | None = None,
) -> LoadedModel:
    """Load `ref`; with `layers`, only the first so many decoder layers and no LM head.

    `packed` lays linear weights out for the CPU (twice as fast on some, see `fast_linear`); pass False to train.
    `trunk` is the same model loaded for reading: its layers are shared, not loaded a second time. `dtype`: how weights
    are held; by default float32 on a CPU, bfloat16 on a GPU. Raises ModelError when it cannot be loaded.
    """
    identity = resolve_model(ref)
    if layers is not None and not 1 <= layers <= identity.n_layers:
        raise ModelError(f"{ref} has {identity.n_layers} decoder layers; {layers} were asked for.")
    device = device or usual_device()
    try:
        with quiet():
            usual = torch.float32 if device == "cpu" else torch.bfloat16
            model = _load_weights(identity, layers, dtype or usual)
            tokenizer = _load_tokenizer(identity.folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{ref}: cannot be loaded: {first_line(error)}") from error
    if trunk is not None and trunk.digest == identity.digest and trunk.device.type == device:
        _share(model, trunk)
    model = model.to(device).eval().requires_grad_(False)
    if packed and device == "cpu":
        pack_linears(model)
        _leave_file(model)
    return LoadedModel(model, tokenizer, ref, identity.digest, identity.n_layers)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers, whatever the architecture calls it; raises ModelError when there is none.

    A model that sees or hears too has other layers for that, as many perhaps.
    """
    wanted = int(text_config(model).num_hidden_layers)
    lists = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == wanted and not _SENSES.search(name)
    ]
    if not lists:
        raise ModelError(f"{type(model).__name__} has no list of {wanted} decoder layers to read from.")
    return lists[0]


def _share(model: Any, trunk: LoadedModel) -> None:
    """Let `model` use the layers and the embeddings of `trunk`, before anything has touched its own in the file."""
    own = decoder_layers(model)
    for at, layer in enumerate(trunk.layers):
        own[at] = layer
    model.set_input_embeddings(trunk.model.get_input_embeddings())  # type: ignore[operator]
    model.tie_weights()


def _leave_file(model: nn.Module) -> None:
    """Copy what packing has left of the weights out of the mapped file, whose pages then go."""
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()


def text_config(model: nn.Module) -> Any:
    """Return the configuration of the part of a model that reads text."""
    config: Any = model.config
    return config.get_text_config()


def _model_folder(ref: str, progress: Progress) -> Path:
    if ref == DEFAULT_MODEL:
        return fetch_model(ref, progress=progress)
    folder = Path(ref).expanduser()
    if folder.is_dir():
        return folder
    if ref.count("/") != 1 or ref.startswith((".", "/", "~")):
        raise ModelError(f"{ref!r} is neither {DEFAULT_MODEL!r}, nor a folder, nor a hub id like 'org/name'.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        with progress.stage(f"Getting {ref} from the hub or its cache"), quiet():
            return Path(snapshot_download(ref, allow_patterns=_HUB_FILES))
    except GatedRepoError as error:
        raise ModelError(
            f"{ref} is gated: accept its licence at https://huggingface.co/{ref}, then give your token with "
            "`hf auth login` or in HF_TOKEN."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(f"{ref}: not found on the hub or in its cache: {first_line(error)}") from error


def _load_weights(identity: ModelIdentity, layers: int | None, dtype: torch.dtype) -> Any:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    if layers is None:
        return AutoModelForCausalLM.from_pretrained(identity.folder, **options)
    config = AutoConfig.from_pretrained(identity.folder, trust_remote_code=False)
    text = config.get_text_config()
    if getattr(text, "altup_num_inputs", 1) > 1:
        raise ModelError(f"{identity.ref} has several residual streams side by side, and an SAE reads a single one.")
    if any(getattr(text, name, 0) for name in _WHOLE_ONLY):
        return AutoModel.from_pretrained(identity.folder, config=config, **options)
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return AutoModel.from_pretrained(identity.folder, config=config, **options)


def load_tokenizer(identity: ModelIdentity) -> Any:
    """Load the model's tokenizer alone, with its chat template; raises ModelError when it cannot be loaded."""
    try:
        with quiet():
            return _load_tokenizer(identity.folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{identity.ref}: cannot be loaded: {first_line(error)}") from error


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _digest(folder: Path) -> str:
    """Hash what decides the activations of a text: weights, configuration, tokenizer and chat template."""
    total = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json"), *folder.glob("*.jinja")]):
        total.update(f"{path.name} {_known_sha256(path)}\n".encode())
    for name in ("config.json", "tokenizer_config.json"):
        if (path := folder / name).exists():
            settings = {k: v for k, v in json.loads(path.read_text("utf-8")).items() if k not in _VOLATILE}
            total.update(json.dumps(settings, sort_keys=True).encode())
    return total.hexdigest()[:16]


def _known_sha256(path: Path) -> str:
    """Hash a large file once: the result is remembered by path, size and time of change."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:32]
    memo = cache_home() / "digests" / key
    if memo.exists() and len(known := memo.read_text("ascii")) == 64:
        return known
    known = file_sha256(path)
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        scratch = memo.with_name(f".{key}.{os.getpid()}")
        scratch.write_text(known, "ascii")
        scratch.replace(memo)
    return known
