"""How networks are run in MONAI's supervised engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor


class MixedPrecisionInferer(SimpleInferer):
    """Runs the network in bfloat16 on a CPU, where MONAI's engines know mixed precision on CUDA devices only.

    On other devices it does nothing: there the engine's own ``amp`` is in charge. bfloat16 has the range of single
    precision, so no gradient needs scaling.

    Args:
        enabled: what the engine was given as ``amp``.
    """

    def __init__(self, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the network gives."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.enabled and inputs.device.type == "cpu"):
            return super().__call__(inputs, network, *args, **kwargs)
