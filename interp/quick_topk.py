"""sae-lens's TopK SAE for training, with its matrix products taken the quicker way.

The four products of a training step are nearly all of its time. On CPUs where torch's float32 product is slow (see
`fast_linear`) the same numbers come twice as fast from another library inside torch. Everything else is sae-lens's.

Importing this module imports sae-lens, which takes ten seconds.
"""

from __future__ import annotations

from typing import Any

import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from typing_extensions import override

from premortem.interp.fast_linear import can_pack


class QuickTopK(TopKTrainingSAE):
    """A TopK SAE in training; saves and loads as any other."""

    def __init__(self, cfg: TopKTrainingSAEConfig) -> None:
        super().__init__(cfg)
        self._quick = can_pack() and cfg.device == "cpu" and not cfg.use_sparse_activations

    @override
    def encode_with_hidden_pre(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return feature activations and pre-activations, both `(n, d_sae)`."""
        if not self._quick:
            return super().encode_with_hidden_pre(x)
        hidden_pre = _product(self.process_sae_in(x), self.W_enc) + self.b_enc
        if self.cfg.rescale_acts_by_decoder_norm:
            hidden_pre = hidden_pre * self.W_dec.norm(dim=-1)
        return self.activation_fn(hidden_pre), hidden_pre

    @override
    def decode(self, feature_acts: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction, `(n, d_in)`."""
        if not self._quick:
            return super().decode(feature_acts)
        if self.cfg.rescale_acts_by_decoder_norm:
            feature_acts = feature_acts / self.W_dec.norm(dim=-1)
        return _product(feature_acts, self.W_dec) + self.b_dec


class _Product(torch.autograd.Function):
    """`a @ b` for `(n, d)` and `(d, m)`."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return _times_transposed(a, b.t())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        a, b = ctx.saved_tensors
        grad_a = _times_transposed(grad, b) if ctx.needs_input_grad[0] else None
        return grad_a, _times_transposed(a.t(), grad.t()) if ctx.needs_input_grad[1] else None


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = _Product.apply(a, b)
    return out


def _times_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return `a @ b.T`, the form that the operator takes."""
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return out
