"""Reads activations through an SAE: which features fire on each token, and how far the reconstruction is off.

sae-lens encodes into a dense (n_tokens, d_sae) matrix, of which a TopK SAE fills one percent. For TopK we keep the k
largest as coordinates and sum k decoder rows; other kinds go through sae-lens's own `encode` and `decode` a few hundred
tokens at a time. A test holds the short way against sae-lens's.

Nothing here knows which model the activations come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from premortem.interp.fast_linear import pack_linears
from premortem.interp.pooling import TokenFeatures

if TYPE_CHECKING:
    from sae_lens import SAE

_CHUNK = 512
"""Tokens encoded at a time where the SAE's output is dense."""


class FeatureReader:
    """Turns activations `(n_tokens, d_in)` into `TokenFeatures`."""

    def __init__(self, sae: SAE[Any], device: torch.device) -> None:
        self._sae = sae.to(device=device, dtype=torch.float32)
        self._device = device
        self._short = _is_plain_topk(sae)
        if self._short:
            norm = sae.W_dec.data.norm(dim=1) if sae.cfg.rescale_acts_by_decoder_norm else torch.ones(sae.cfg.d_sae)
            norm = norm.to(device)
            self._decoder = sae.W_dec.data / norm[:, None]
            encoder = nn.Linear(sae.cfg.d_in, sae.cfg.d_sae).requires_grad_(False).to(device)
            encoder.weight.data = (sae.W_enc.data * norm).T.contiguous()
            encoder.bias.data = sae.b_enc.data * norm
            self._encoder = nn.Sequential(encoder)
            pack_linears(self._encoder)

    @torch.inference_mode()
    def read(self, activations: torch.Tensor) -> TokenFeatures:
        """Return the firing features of each token of `activations`, `(n_tokens, d_in)`."""
        x = activations.to(self._device, torch.float32)
        read = self._read_topk if self._short else self._read_dense
        parts = [read(x[start : start + _CHUNK]) for start in range(0, len(x), _CHUNK)]
        token = [part[0] + at * _CHUNK for at, part in enumerate(parts)]
        return TokenFeatures(
            np.concatenate(token) if parts else np.zeros(0, np.int64),
            np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.int32),
            np.concatenate([part[2] for part in parts]) if parts else np.zeros(0, np.float32),
            len(x),
            np.concatenate([part[3] for part in parts]) if parts else np.zeros(0),
        )

    def _read_topk(self, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        sae = self._sae
        shifted = x - sae.b_dec if sae.cfg.apply_b_dec_to_input else x
        values, index = torch.topk(self._encoder(shifted), sae.cfg.k, dim=-1, sorted=False)
        values = values.relu()
        decoded = functional.embedding_bag(index, self._decoder, mode="sum", per_sample_weights=values) + sae.b_dec
        token, slot = (values > 0).nonzero(as_tuple=True)
        return _arrays(token, index[token, slot], values[token, slot], x, decoded)

    def _read_dense(self, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        acts = self._sae.encode(x)
        acts = acts.to_dense() if acts.is_sparse else acts
        token, feature = (acts > 0).nonzero(as_tuple=True)
        return _arrays(token, feature, acts[token, feature], x, self._sae.decode(acts))


def _arrays(
    token: torch.Tensor, feature: torch.Tensor, value: torch.Tensor, x: torch.Tensor, decoded: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    error = (x - decoded).double().square().sum(dim=-1)
    return (
        token.cpu().numpy(),
        feature.to(torch.int32).cpu().numpy(),
        value.float().cpu().numpy(),
        error.cpu().numpy(),
    )


def _is_plain_topk(sae: SAE[Any]) -> bool:
    """Whether k, W_enc, b_enc, W_dec and b_dec say all about this SAE."""
    cfg = sae.cfg
    return bool(
        cfg.architecture() == "topk"
        and cfg.normalize_activations in ("none", "expected_average_only_in")
        and cfg.reshape_activations == "none"
    )
