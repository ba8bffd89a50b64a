"""Finds an SAE and says what it is before loading it: a folder on disk, or a release of sae-lens.

Facts (width, hook, model, digest) come from its configuration file and the bytes of its weights, because importing
sae-lens takes ten seconds and most runs find their responses encoded already. Only safetensors are read. A pickle can
run any program when it is opened, so pickled weights are refused by name, and `torch.load` is shut while sae-lens
loads.

Nothing here knows which model the SAE will read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from premortem.interp.cache_home import cache_home
from premortem.interp.errors import LensError
from premortem.interp.quiet import quiet

if TYPE_CHECKING:
    from sae_lens import SAE

_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".npz")
_PICKLED_LOADERS = ("connor_rob_hook_z", "goodfire", "deepseek_r1", "qwen_scope", "dictionary_learning_1")
_HOOK_KEYS = ("hf_hook_name", "hook_name", "hook_point")


@dataclass(frozen=True)
class SaeFacts:
    """What an SAE's files say about it."""

    ref: str
    """What the user named: a folder, or `release:sae_id`."""
    digest: str
    """16-digit hash of its weights and configuration."""
    d_in: int
    """Width of the activations it reads."""
    d_sae: int
    """Number of features."""
    hook_name: str | None
    """Where it reads, in the words of its author; None: the files do not say."""
    model_name: str | None
    """The model it was trained on; None: the files do not say."""
    prepend_bos: bool | None
    """Whether it was trained on texts that begin with the BOS token; None: the files do not say."""
    load: Callable[[], SAE[Any]] = field(compare=False, repr=False)
    """Loads it, in float32 on the CPU."""
    card: dict[str, Any] = field(default_factory=dict, compare=False)
    """Data, recipe and figures, if its author shipped a `card.json`."""


def find_sae(ref: str) -> SaeFacts:
    """Return the facts of an SAE: a sae-lens folder, a sparsify folder, or `release:sae_id`.

    Raises LensError when there is none, when it is pickled, or when its files leave out something needed.
    """
    path = Path(ref).expanduser()
    if path.suffix.lower() in _PICKLES:
        raise LensError(f"{ref} is a pickle, which can run any program when it is opened: only safetensors are read.")
    if path.is_dir():
        return _folder(ref, path)
    if path.exists():
        raise LensError(f"{ref} is a file; name the folder that holds cfg.json and its safetensors.")
    if ":" not in ref:
        raise LensError(f"{ref!r} is neither a folder nor a sae-lens release and id like 'gpt2-small-res-jb:blocks.8'.")
    return _release(ref)


@contextlib.contextmanager
def no_pickles() -> Iterator[None]:
    """Make `torch.load` refuse for a while."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise LensError("this SAE is a pickle, which can run any program when it is opened; it is not loaded.")

    before = torch.load
    torch.load = refuse
    try:
        yield
    finally:
        torch.load = before


def _folder(ref: str, path: Path) -> SaeFacts:
    names = {item.name for item in path.iterdir()}
    sparsify = "sae.safetensors" in names
    weights = path / ("sae.safetensors" if sparsify else "sae_weights.safetensors")
    if "cfg.json" not in names or not weights.exists():
        pickled = sorted(name for name in names if Path(name).suffix.lower() in _PICKLES)
        if pickled:
            raise LensError(f"{ref} holds {pickled[0]}, a pickle, and no safetensors: it is not loaded.")
        raise LensError(f"{ref} holds no cfg.json beside sae_weights.safetensors (or sparsify's sae.safetensors).")
    cfg = _read_json(path / "cfg.json")
    if sparsify:
        cfg = {**cfg, "hook_name": path.name if "layers" in path.name else None, "d_sae": _sparsify_width(cfg)}
    digest = hashlib.sha256(weights.read_bytes() + json.dumps(cfg, sort_keys=True).encode()).hexdigest()[:16]
    card = _read_json(path / "card.json") if "card.json" in names else {}
    return _facts(ref, cfg, digest, lambda: _load_folder(path, sparsify), card)


def _load_folder(path: Path, sparsify: bool) -> SAE[Any]:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader, sparsify_disk_loader

    with no_pickles(), _as_lens_error(str(path)), quiet():
        converter = sparsify_disk_loader if sparsify else sae_lens_disk_loader
        return SAE.load_from_disk(path, device="cpu", dtype="float32", converter=converter).requires_grad_(False)


def _release(ref: str) -> SaeFacts:
    """Describe an SAE of a release; what it says is remembered, so only the first use must load it."""
    memo = cache_home() / "releases" / f"{hashlib.sha256(ref.encode()).hexdigest()[:32]}.json"
    if memo.exists():
        known = _read_json(memo)
        return _facts(ref, known["cfg"], known["digest"], lambda: _load_release(ref, known["digest"]), {})
    sae = _load_release(ref, None)
    cfg, digest = sae.cfg.to_dict(), _tensor_digest(sae)
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        scratch = memo.with_name(f".{memo.name}.{os.getpid()}")
        scratch.write_text(json.dumps({"cfg": cfg, "digest": digest}, default=str), "utf-8")
        scratch.replace(memo)
    return _facts(ref, cfg, digest, lambda: sae, {})


def _load_release(ref: str, digest: str | None) -> SAE[Any]:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    release, sae_id = ref.split(":", 1)
    known = get_pretrained_saes_directory().get(release)
    if known is not None and known.conversion_func in _PICKLED_LOADERS:
        raise LensError(f"release {release} is published as pickles, which can run any program; it is not loaded.")
    with no_pickles(), _as_lens_error(ref), quiet():
        sae: SAE[Any] = SAE.from_pretrained(release, sae_id, device="cpu", dtype="float32").requires_grad_(False)
    if digest is not None and (seen := _tensor_digest(sae)) != digest:
        raise LensError(f"{ref} has changed since it was first used ({digest} then, {seen} now).")
    return sae


@contextlib.contextmanager
def _as_lens_error(ref: str) -> Iterator[None]:
    """Turn what sae-lens raises on bad files, unknown names or a missing network into one line."""
    try:
        yield
    except LensError:
        raise
    except Exception as error:  # sae-lens and the hub raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LensError(f"{ref}: the SAE cannot be loaded: {reason}") from error


def _facts(ref: str, cfg: dict[str, Any], digest: str, load: Callable[[], SAE[Any]], card: dict[str, Any]) -> SaeFacts:
    """Read a configuration of sae-lens 6 (facts in `metadata`) or of an older or other format (facts at the top)."""
    meta = {**cfg, **(cfg.get("metadata") or {})}
    widths = [cfg.get("d_in"), cfg.get("d_sae")]
    if not all(isinstance(width, int) and width > 0 for width in widths):
        raise LensError(f"{ref}: its cfg.json gives d_in {widths[0]!r} and d_sae {widths[1]!r}; widths are needed.")
    hook = next((str(meta[key]) for key in _HOOK_KEYS if meta.get(key)), None)
    bos = meta.get("prepend_bos")
    return SaeFacts(
        ref=ref,
        digest=digest,
        d_in=cfg["d_in"],
        d_sae=cfg["d_sae"],
        hook_name=hook,
        model_name=str(meta["model_name"]) if meta.get("model_name") else None,
        prepend_bos=bos if isinstance(bos, bool) else None,
        load=load,
        card=card,
    )


def _sparsify_width(cfg: dict[str, Any]) -> int | None:
    width = cfg.get("num_latents")
    if not width and isinstance(cfg.get("d_in"), int) and isinstance(cfg.get("expansion_factor"), int):
        return int(cfg["d_in"] * cfg["expansion_factor"])
    return width


def _tensor_digest(sae: SAE[Any]) -> str:
    total = hashlib.sha256(type(sae).__name__.encode())
    for name, tensor in sorted(sae.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LensError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise LensError(f"{path} holds no JSON object.")
    return value
