"""Measures whether a lens fits a model on the user's own pairs, and says what is likely wrong when it does not.

An SAE with the right width encodes anything: activations of another layer, a TopK SAE read as ReLU, text without the
template it was trained on. The result looks like features and means nothing. So the reconstruction is measured on the
response tokens that a forecast would read: the fraction of variance unexplained (FVU), the features per token (L0), the
share of features that never fire, and how much of the model's own prediction survives when the reconstruction takes
the activation's place: (CE_zero - CE_sae) / (CE_zero - CE_clean) on response tokens, prompt tokens left alone.

Beyond an FVU of 0.5 the lens is refused, and the usual mistakes are tried one by one on a few pairs: the one that
brings the reconstruction back is named. The wrong layer hides below that, because neighbouring layers resemble each
other: a lens that reconstructs another layer clearly better than the one it is said to read is refused as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from premortem.interp.encode import Reader, request_key
from premortem.interp.errors import LensMisfit, NoPairs
from premortem.interp.features import FeatureReader
from premortem.interp.forward import Forward, Residuals
from premortem.interp.lens import Lens
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.packing import Request, batches
from premortem.interp.pooling import FitSums
from premortem.interp.records import Pair, Record
from premortem.interp.tokens import tokenize_all

MOST_FVU = 0.5
"""A lens that leaves more of the variance unexplained is refused."""

BETTER = 0.8
"""A neighbouring layer whose FVU is at most this much of the own layer's is where the lens belongs."""
FINE = 0.05
"""A lens that leaves no more than this unexplained fits, whatever it does elsewhere."""

_SPLICED = 24
_TRIED = 24
_TRIED_EVERYWHERE = 12
"""Responses on which every layer of the model is tried."""
_NEIGHBOURS = (-1, 1, -2, 2)
_BATCH_TOKENS = 1024


class LensFit(Record):
    """How well a lens fits a model on the pairs at hand."""

    lens_id: str
    """The lens."""
    model: str
    """The model, as the user named it."""
    hook: str
    """The layer whose output is read."""
    sae: str
    """The SAE: a folder, or a release and id."""
    n_pairs: int
    """Pairs that were read."""
    n_tokens: int
    """Response tokens that were read."""
    fvu: float
    """Fraction of variance unexplained on those tokens; 0 is perfect, 1 as good as their mean."""
    l0: float
    """Mean number of features that fire on a token."""
    dead_share: float
    """Share of features that fire on none of these tokens, 0 to 1; rare features look dead on few tokens."""
    ce_clean: float
    """Mean cross-entropy of response tokens, in nats, on the first pairs."""
    ce_sae: float
    """The same with the reconstruction in the activation's place."""
    ce_zero: float
    """The same with zeros in its place."""
    ce_recovered: float
    """(ce_zero - ce_sae) / (ce_zero - ce_clean); 1 is perfect."""
    warnings: tuple[str, ...]
    """What looks wrong without being proof."""


def check_lens(
    reader: Reader, pairs: Sequence[Pair], lens_id: str | None = None, *, whole: LoadedModel | None = None
) -> LensFit:
    """Measure a lens of `reader` (the first, if none is named) on `pairs`.

    `whole` is the model with all its layers; None loads it. Raises NoPairs when there is no response token, LensMisfit
    beyond an FVU of 0.5, or when another layer fits clearly better.
    """
    lens = reader.lenses[lens_id] if lens_id else next(iter(reader.lenses.values()))
    encoded = reader.encode(pairs)[lens.lens_id]
    n_tokens = int(encoded.chosen.n_tokens.sum() + encoded.rejected.n_tokens.sum())
    if not n_tokens:
        raise NoPairs("no pair has a response token to check the lens on.")
    some = (_requests(pairs[i : i + _SPLICED], reader.model) for i in range(0, len(pairs), _SPLICED))
    requests = next(filter(None, some), None)
    if requests is None:
        raise NoPairs("no pair is short enough to check the lens on.")
    fires = np.asarray((encoded.chosen.max + encoded.rejected.max).sum(axis=0)).ravel() > 0
    whole = whole or load_model(reader.model.ref, trunk=reader.model)
    fvu, l0 = reader.fit_on(lens.lens_id, pairs)
    if not fvu <= MOST_FVU:
        raise LensMisfit(_complaint(lens, fvu, n_tokens, _likely_cause(whole, lens, pairs[:_TRIED], fvu)))
    if misplaced := _misplaced(whole, lens, requests):
        raise LensMisfit(misplaced)
    clean, spliced, zero = splice(whole, lens, requests)
    return LensFit(
        lens_id=lens.lens_id,
        model=lens.model_ref,
        hook=lens.hook,
        sae=lens.sae_ref,
        n_pairs=len(pairs),
        n_tokens=n_tokens,
        fvu=fvu,
        l0=l0,
        dead_share=float(1 - fires.mean()),
        ce_clean=clean,
        ce_sae=spliced,
        ce_zero=zero,
        ce_recovered=(zero - spliced) / (zero - clean),
        warnings=lens.warnings,
    )


def splice(model: LoadedModel, lens: Lens, requests: Sequence[Request]) -> tuple[float, float, float]:
    """Return the mean cross-entropy of response tokens, in nats: as is, with the reconstruction, with zeros."""
    sae = lens.sae.to(model.device)
    changes: list[Callable[[torch.Tensor], torch.Tensor] | None] = [
        None,
        lambda x: sae(x.float()).to(x.dtype),
        torch.zeros_like,
    ]
    losses = [0.0, 0.0, 0.0]
    for request in requests:
        for at, change in enumerate(changes):
            losses[at] += _response_loss(model, lens.layer, request, change)
    total = sum(len(request.response) for request in requests)
    return losses[0] / total, losses[1] / total, losses[2] / total


@torch.inference_mode()
def _response_loss(
    model: LoadedModel, layer: int, request: Request, change: Callable[[torch.Tensor], torch.Tensor] | None
) -> float:
    """Return the summed cross-entropy of the response's tokens, with `change` applied to their residual stream."""
    first, count = len(request.prompt), len(request.response)

    def hook(module: torch.nn.Module, args: Any, output: Any) -> Any:
        assert change is not None
        residual = (output[0] if isinstance(output, tuple) else output).clone()
        residual[0, first:] = change(residual[0, first:])
        return (residual, *output[1:]) if isinstance(output, tuple) else residual

    ids = torch.from_numpy(np.concatenate([request.prompt, request.response]).astype(np.int64))[None].to(model.device)
    handle = model.layers[layer].register_forward_hook(hook) if change is not None else None
    try:
        logits = model.model(ids, use_cache=False, logits_to_keep=count + 1).logits[0]
    finally:
        if handle is not None:
            handle.remove()
    targets = ids[0, first:]
    return float(functional.cross_entropy(logits[:-1].float(), targets, reduction="sum"))


def _likely_cause(whole: LoadedModel, lens: Lens, pairs: Sequence[Pair], fvu: float) -> str:
    """Try the usual mistakes; return a sentence for the one that explains the misfit, or one that says none does."""
    found = sorted((value, cause) for cause, value in _alternatives(whole, lens, pairs))
    if found and found[0][0] <= min(MOST_FVU, 0.7 * fvu):
        return f"{found[0][1]}: there it is {found[0][0]:.2f}."
    return "No usual mistake (layer, BOS token, template, activation function) explains it: is it this model's?"


def _misplaced(whole: LoadedModel, lens: Lens, requests: Sequence[Request]) -> str | None:
    """Return a complaint when a neighbouring layer is reconstructed clearly better; None when the layer is right."""
    found = _fvu_at(whole, requests, [lens.layer, *_near(whole, lens)], FeatureReader(lens.sae, whole.device))
    best = min(found, key=lambda layer: found[layer])
    if found[lens.layer] <= FINE or found[best] > BETTER * found[lens.layer]:
        return None
    return (
        f"{lens.sae_ref} is read at layer {lens.layer} of {lens.model_ref} and leaves {found[lens.layer]:.2f} of the "
        f"variance unexplained; at layer {best} it is {found[best]:.2f}. It belongs there: give --layer {best}."
    )


def _near(whole: LoadedModel, lens: Lens) -> list[int]:
    return [lens.layer + step for step in _NEIGHBOURS if 0 <= lens.layer + step < len(whole.layers)]


def _alternatives(whole: LoadedModel, lens: Lens, pairs: Sequence[Pair]) -> Iterator[tuple[str, float]]:
    requests = _requests(pairs, whole)
    features = FeatureReader(lens.sae, whole.device)
    others = [layer for layer in range(len(whole.layers)) if layer != lens.layer]
    for layer, value in _fvu_at(whole, requests[:_TRIED_EVERYWHERE], others, features).items():
        yield f"The SAE fits the output of layer {layer} rather than {lens.layer}", value
    bos = whole.tokenizer.bos_token_id
    if bos is not None:
        with_bos = [_replaced(r, np.array([bos, *r.prompt], np.int32)) for r in requests]
        value = _fvu_at(whole, with_bos, [lens.layer], features)[lens.layer]
        yield "The SAE fits texts that begin with the BOS token", value
    if plain := _requests([_without_template(pair) for pair in pairs if pair.conversational], whole):
        value = _fvu_at(whole, plain, [lens.layer], features)[lens.layer]
        yield "The SAE fits plain text rather than the chat template", value
    x = torch.cat([read[lens.layer] for read in _residuals(whole, requests, [lens.layer])]).float()
    for name, acts in _other_activations(lens.sae, x):
        lens.sae.process_sae_in(x)  # decoding scales by what reading these activations has left behind
        yield f"The SAE fits when it is read as {name}", _error(x, lens.sae.decode(acts))


@torch.inference_mode()
def _other_activations(sae: Any, x: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """Return the features that the SAE's own weights give under another activation function."""
    before = (sae.process_sae_in(x) @ sae.W_enc + getattr(sae, "b_enc", 0.0)).relu()
    if sae.cfg.architecture() == "topk":
        return [("ReLU", before)]
    others = []
    for k in (32, 64, 128):
        kept = torch.topk(before, min(k, before.shape[1]), dim=-1)
        others.append((f"TopK with k = {k}", torch.zeros_like(before).scatter_(-1, kept.indices, kept.values)))
    return others


def _requests(pairs: Iterable[Pair], model: LoadedModel) -> list[Request]:
    requests = {}
    for tokens in tokenize_all(list(pairs), model.tokenizer):
        cut = tokens.cut(1024)
        for ids in (cut.chosen, cut.rejected) if cut is not None else ():
            prompt, response = np.array(tokens.prompt, np.int32), np.array(ids, np.int32)
            if len(ids) and len(prompt):
                key = request_key(prompt, response)
                requests[key] = Request(key, prompt, response)
    return list(requests.values())


def _replaced(request: Request, prompt: Any) -> Request:
    return Request(request_key(prompt, request.response), prompt, request.response)


def _without_template(pair: Pair) -> Pair:
    prompt = pair.prompt_text() + "\n\n"
    return Pair(row=pair.row, prompt=prompt, chosen=pair.text("chosen"), rejected=pair.text("rejected"))


def _residuals(model: LoadedModel, requests: Sequence[Request], layers: Sequence[int]) -> Iterator[Residuals]:
    """Yield what `layers` put out at the response tokens, one batch at a time: all layers at once are large."""
    forward = Forward(model)
    for batch in batches(requests, forward.opening, _BATCH_TOKENS):
        yield forward.read(batch, layers)[0]


def _fvu_at(
    model: LoadedModel, requests: Sequence[Request], layers: Sequence[int], features: FeatureReader
) -> dict[int, float]:
    """Return, by layer, what the SAE leaves unexplained of the layer's output."""
    sums: dict[int, FitSums] = {}
    for read in _residuals(model, requests, layers):
        for layer, x in read.items():
            here = FitSums.of(features.read(x), x.float().cpu().numpy())
            sums[layer] = sums[layer] + here if layer in sums else here
    return {layer: fit.fvu for layer, fit in sums.items()}


def _error(x: torch.Tensor, decoded: torch.Tensor) -> float:
    wide = x.double()
    return float((wide - decoded.double()).square().sum() / (wide - wide.mean(0)).square().sum())


def _complaint(lens: Lens, fvu: float, n_tokens: int, cause: str) -> str:
    return (
        f"{lens.sae_ref} does not fit {lens.model_ref} here: {fvu:.2f} of the variance at {lens.hook} stays "
        f"unexplained on {n_tokens} response tokens (at most {MOST_FVU} is accepted). {cause}"
    )
