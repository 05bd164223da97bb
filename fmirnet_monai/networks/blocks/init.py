"""How the layers that give fields start."""

from __future__ import annotations

from torch import nn


def near_zero(layer: nn.Module) -> nn.Module:
    """The convolution with weights drawn near zero and no bias: fields start there, training from the identity."""
    for name, parameter in layer.named_parameters():
        if name == "bias":
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=1e-5)
    return layer
