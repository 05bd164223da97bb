"""How networks are run in MONAI's supervised engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor
from torch.overrides import TorchFunctionMode

TINY = 2  # voxels


class MixedPrecisionInferer(SimpleInferer):
    """Runs the network in bfloat16 on a CPU, where MONAI's engines know mixed precision on CUDA devices only.

    On other devices it does nothing: there the engine's own ``amp`` is in charge. bfloat16 has the range of single
    precision, so no gradient needs scaling. Processors that don't multiply in it, which take several times as long,
    keep single precision. So do convolutions of volumes of two voxels a side: there oneDNN gives gradients of the
    weights that are not set (up to 1e30) on processors with AVX-512's bfloat16 and without AMX (torch 2.13).

    Args:
        enabled: what the engine was given as ``amp``.
    """

    def __init__(self, enabled: bool = True) -> None:
        super().__init__()
        known = torch.backends.mkldnn.is_available()  # or there is nobody to ask
        self.enabled = enabled and known and torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the network gives."""
        if not (self.enabled and inputs.device.type == "cpu"):
            return super().__call__(inputs, network, *args, **kwargs)
        with torch.autocast("cpu", torch.bfloat16), _TinyVolumesInFullPrecision():
            return super().__call__(inputs, network, *args, **kwargs)


class _TinyVolumesInFullPrecision(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.conv3d or max(args[0].shape[2:]) > TINY:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            return func(args[0].float(), *args[1:], **(kwargs or {}))
