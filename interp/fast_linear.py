"""Linear layers with weights laid out for the CPU they run on.

torch multiplies float32 matrices through MKL, which picks its widest instructions on Intel only: on an AMD machine
with AVX-512 it ran at 65 Gflop/s per core where oneDNN, shipped inside the same torch, ran at 145. torch's own
compiler reaches oneDNN by packing a weight once and calling two operators; so do we, without a compiler. The sums are
the same up to rounding. Only for reading: a packed layer has no `weight` to train.

oneDNN compiles a program of a megabyte or two for every number of rows that it meets, and keeps a thousand of them. So
rows are rounded up to a multiple of ROWS: there are few programs, and time is not lost on making more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

ROWS = 32
"""Rows are filled up with zeros to a multiple of this; fewer stay as they are."""

SAME = 1e-3
"""Difference of two blocks' outputs, relative to the largest, that only rounding makes."""


def filled(x: torch.Tensor) -> torch.Tensor:
    """Return `x`, (n, d), with rows of zeros behind it up to a multiple of ROWS; up to ROWS rows come back as given."""
    missing = -len(x) % ROWS if len(x) > ROWS else 0
    return torch.cat([x, x.new_zeros(missing, x.shape[1])]) if missing else x


class PackedLinear(nn.Module):
    """`y = x W^T + b` for `x` of shape (..., d_in), float32 on CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().contiguous()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = None if linear.bias is None else linear.bias.detach().clone()

    def forward(self, x: torch.Tensor, activation: str = "none") -> torch.Tensor:
        """Return the product, of shape (..., d_out); with `swish`, SiLU of it in the same pass over memory."""
        rows = x.reshape(-1, self.in_features)
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(filled(rows), self._packed, self._bias, activation, [], "")
        return y[: len(rows)].view(*x.shape[:-1], self.out_features)


class PackedGate(nn.Module):
    """`down(silu(gate(x)) * up(x))`, the feed-forward block of most models, with two passes over memory fewer."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = block.gate_proj, block.up_proj, block.down_proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, of the shape of `x`."""
        y: torch.Tensor = self.down_proj(self.gate_proj(x, "swish").mul_(self.up_proj(x)))
        return y


def can_pack() -> bool:
    """Return whether this build of torch has the operators, and they multiply correctly here."""
    if not torch.backends.mkldnn.is_available():
        return False
    linear = nn.Linear(48, 32).requires_grad_(False)
    x = torch.linspace(-1, 1, 3 * 5 * 48).reshape(3, 5, 48)
    try:
        return bool(torch.allclose(PackedLinear(linear)(x), linear(x), atol=1e-5))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def pack_linears(module: nn.Module) -> int:
    """Replace every float32 `nn.Linear` on the CPU inside `module` by a packed one; return how many."""
    if not can_pack():
        return 0
    found = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.dtype == torch.float32 and child.weight.device.type == "cpu"
    ]
    for parent, name, child in found:
        setattr(parent, name, PackedLinear(child))
    for parent in list(module.modules()):
        for name, block in list(parent.named_children()):
            if _is_gate(block):
                setattr(parent, name, PackedGate(block))
    return len(found)


@torch.no_grad()
def _is_gate(block: Any) -> bool:
    """Whether `block` computes what `PackedGate` does: its parts have the names, and a trial the same result.

    The trial drives the gate from -3 to 3 or so: close to zero all activation functions look alike.
    """
    parts = [getattr(block, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if isinstance(block, PackedGate) or not all(isinstance(part, PackedLinear) for part in parts):
        return False
    x = torch.linspace(-1, 1, 2 * block.gate_proj.in_features).reshape(1, 2, -1)
    try:
        x = x * 3 / block.gate_proj(x).abs().max().clamp_min(1e-9)
        own, ours = block(x), PackedGate(block)(x)
        return bool((own - ours).abs().max() <= SAME * own.abs().max())
    except (RuntimeError, TypeError):
        return False
