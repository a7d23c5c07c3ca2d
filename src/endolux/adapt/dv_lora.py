"""DV-LoRA: a low-rank branch whose factors are scaled row by row by two learned vectors (EndoDAC, arXiv 2405.08672)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from typing_extensions import override


class DVLoraLinear(nn.Module):
    """``W x + diag(V) B diag(U) A x``: with W frozen, A and B as in LoRA, U and V drawn from U(-1, 1).

    Args:
        base_layer: the adapted layer.
        rank: rows of A.
        scaling: factor of the branch; 1 in EndoDAC.
        trained_vectors: whether U and V are trained; as released they never are.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> base, x = nn.Linear(4, 3), torch.rand(2, 4)
        >>> layer = DVLoraLinear(base, rank=2)
        >>> torch.equal(layer(x), base(x))
        True
        >>> _ = nn.init.normal_(layer.lora_B)
        >>> bool(torch.allclose(layer(x), layer.merged()(x), atol=1e-6))
        True
    """

    def __init__(self, base_layer: nn.Linear, *, rank: int, scaling: float = 1.0, trained_vectors: bool = True) -> None:
        super().__init__()
        self.base_layer, self.scaling = base_layer, scaling
        inputs, outputs = base_layer.in_features, base_layer.out_features
        self.lora_A = nn.Parameter(base_layer.weight.new_empty(rank, inputs))
        self.lora_B = nn.Parameter(base_layer.weight.new_zeros(outputs, rank))
        self.lora_U = nn.Parameter(base_layer.weight.new_empty(rank, 1), requires_grad=trained_vectors)
        self.lora_V = nn.Parameter(base_layer.weight.new_empty(outputs, 1), requires_grad=trained_vectors)
        for parameter in (self.lora_A, self.lora_U, self.lora_V):
            # With this slope the bound is 1 / sqrt(columns): 1 for the vectors.
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))

    @override
    def forward(self, input: Tensor) -> Tensor:
        """The layer with its branch."""
        low = nn.functional.linear(input, self.lora_U * self.lora_A)
        base: Tensor = self.base_layer(input)
        return base + self.scaling * nn.functional.linear(low, self.lora_V * self.lora_B)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer with the same function."""
        base = self.base_layer
        plain = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device=base.weight.device)
        change = (self.lora_V * self.lora_B).double() @ (self.lora_U * self.lora_A).double()
        plain.weight.copy_(base.weight.double() + self.scaling * change)
        if base.bias is not None:
            plain.bias.copy_(base.bias)
        return plain
