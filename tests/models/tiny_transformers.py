"""Small transformers for depth, with weights that give lively outputs."""

from __future__ import annotations

import torch
from torch import nn

from endolux.models import DepthNetwork

TINY = {
    "hidden_size": 32,
    "blocks": 4,
    "heads": 2,
    "neck": [8, 12, 16, 24],
    "fusion": 16,
    "head_width": 8,
    "grid": 4,
    "taps": [1, 2, 3, 4],
}
SIX = {**TINY, "blocks": 6, "taps": [3, 4, 5, 6]}


def lively(network: DepthNetwork, bias: float = 0.0, seed: int = 0) -> DepthNetwork:
    """Random weights of the usual size give nearly nothing: every place shall matter."""
    torch.manual_seed(seed)
    heads = [network.head] if hasattr(network, "head") else list(network.heads)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.5)
            elif "layer_scale" in name or "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif "backbone" in name and "lora" not in name:
                nn.init.normal_(parameter, std=0.08)
        for part in (network.neck, *heads):
            for parameter in part.parameters():
                if parameter.ndim > 1:
                    nn.init.kaiming_normal_(parameter)
                else:
                    nn.init.normal_(parameter, std=0.1)
        for head in heads:
            nn.init.constant_(head.conv3.bias, bias)
    return network.eval()


def library_network(network: DepthNetwork, **options: object) -> torch.nn.Module:
    """The library's own model with the weights of ours."""
    import transformers

    shape = network.config()
    backbone = transformers.Dinov2Config(
        image_size=14 * shape["grid"], patch_size=14, hidden_size=shape["hidden_size"],
        num_hidden_layers=shape["blocks"], num_attention_heads=shape["heads"], out_indices=shape["taps"],
        reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=shape["hidden_size"], neck_hidden_sizes=shape["neck"],
        fusion_hidden_size=shape["fusion"], head_hidden_size=shape["head_width"], **options,
    )  # fmt: skip
    made = transformers.DepthAnythingForDepthEstimation(config)
    made.load_state_dict(network.state_dict())
    return made.eval()
