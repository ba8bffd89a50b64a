"""A lens: a model, one of its layers, and the SAE that reads there.

An SAE is trained on the residual stream behind one decoder layer. Its author names that place in one of two languages:
TransformerLens (`blocks.12.hook_resid_post`, or `blocks.13.hook_resid_pre` for the same place) or Hugging Face
(`model.layers.12`). Both become the index of the decoder layer whose output is read. What the files do not say, the
user must: sae-lens answers None to a question about metadata that is not there, so nothing is taken for granted.

Two embedded lenses come with the package: the main one, and a second at another layer which takes no part in proposing
edits and so can judge them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

from premortem.interp.embedded import DEFAULT_MODEL
from premortem.interp.errors import LensError
from premortem.interp.models import LoadedModel, ModelIdentity, resolve_model
from premortem.interp.records import content_id
from premortem.interp.sae_files import SaeFacts, find_sae

if TYPE_CHECKING:
    from sae_lens import SAE

EMBEDDED = ("smollm2-main", "smollm2-second")
"""Folders of the embedded lenses, below `interp/lenses`."""

_POST = re.compile(r"blocks\.(\d+)\.hook_resid_post$")
_PRE = re.compile(r"blocks\.(\d+)\.hook_resid_pre$")
_HF = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)[._](\d+)(?:\.output)?$")


@dataclass(frozen=True)
class Lens:
    """A model, a layer and an SAE that read together."""

    lens_id: str
    """Content hash of the model, the layer and the SAE."""
    model_ref: str
    """The model, as the user named it."""
    layer: int
    """0-based decoder layer whose output is read."""
    sae_ref: str
    """The SAE: a folder, or a release and id."""
    d_in: int
    """Width of the residual stream."""
    d_sae: int
    """Number of features."""
    facts: SaeFacts = field(compare=False, repr=False)
    """What the SAE's files say."""
    warnings: tuple[str, ...] = ()
    """What looks wrong without being proof: another model's name, for instance."""

    @property
    def hook(self) -> str:
        """The layer as Hugging Face names it."""
        return f"model.layers.{self.layer}"

    @property
    def card(self) -> dict[str, Any]:
        """Data, recipe and figures, if its author shipped them."""
        return self.facts.card

    @cached_property
    def sae(self) -> SAE[Any]:
        """The SAE in float32; loaded on first use, which imports sae-lens."""
        return self.facts.load()


def load_lens(model: str | LoadedModel | ModelIdentity, sae_ref: str, *, layer: int | None = None) -> Lens:
    """Return the lens of `sae_ref` on `model`; `layer` overrides where the SAE's files say it reads.

    Raises LensError when the SAE cannot be found, is pickled, has another width than the model, or reads a place
    that the model does not have.
    """
    identity = resolve_model(model) if isinstance(model, str) else model
    facts = find_sae(sae_ref)
    if facts.d_in != identity.hidden_size:
        raise LensError(
            f"{sae_ref} reads activations of width {facts.d_in}; {identity.ref} has {identity.hidden_size}: "
            f"the SAE is for another model ({facts.model_name or 'it does not say which'})."
        )
    layer = _layer(facts) if layer is None else layer
    if not 0 <= layer < identity.n_layers:
        raise LensError(f"{sae_ref} reads layer {layer}; {identity.ref} has layers 0 to {identity.n_layers - 1}.")
    return Lens(
        lens_id=content_id("lens", identity.digest, layer, facts.digest),
        model_ref=identity.ref,
        layer=layer,
        sae_ref=sae_ref,
        d_in=facts.d_in,
        d_sae=facts.d_sae,
        facts=facts,
        warnings=_warnings(identity.ref, facts),
    )


def default_lenses(model: str | LoadedModel | ModelIdentity = DEFAULT_MODEL) -> tuple[Lens, Lens]:
    """Return the embedded lenses of the embedded model: the main one and the second."""
    main, second = (load_lens(model, embedded_path(name)) for name in EMBEDDED)
    return main, second


def embedded_path(name: str) -> str:
    """Return the folder of an embedded SAE; raises LensError when the package does not hold it."""
    with as_file(files("premortem.interp") / "lenses" / name) as folder:
        if not (folder / "cfg.json").exists():
            raise LensError(f"the embedded lens {name} is not in this package: train one with `agent lens train`.")
        return str(folder)


def hook_layer(hook_name: str) -> int:
    """Return the index of the decoder layer whose output `hook_name` stands for.

    Raises LensError for a place that is not the residual stream behind a layer.
    """
    if found := _POST.search(hook_name) or _HF.search(hook_name):
        return int(found[1])
    if found := _PRE.search(hook_name):
        if found[1] == "0":
            raise LensError(f"{hook_name} reads the embeddings, before any layer; an SAE behind a layer is needed.")
        return int(found[1]) - 1
    raise LensError(f"{hook_name} is not the residual stream behind a decoder layer; only that place can be read.")


def _layer(facts: SaeFacts) -> int:
    if facts.hook_name is None:
        raise LensError(f"{facts.ref}: its files do not say which layer it reads; give the layer.")
    return hook_layer(facts.hook_name)


def _warnings(model_ref: str, facts: SaeFacts) -> tuple[str, ...]:
    """Compare names loosely: a folder or an alias may carry the same model."""
    if facts.model_name is None:
        return (f"{facts.ref} does not say which model it was trained on.",)
    ours, theirs = _plain(model_ref), _plain(facts.model_name)
    if ours in theirs or theirs in ours:
        return ()
    return (f"{facts.ref} was trained on {facts.model_name}; it reads {model_ref} here.",)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.rstrip("/").rsplit("/", 1)[-1].lower())
