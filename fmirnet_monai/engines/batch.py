"""What goes into a registration network in MONAI's supervised engines, and what comes out for the logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmirnet_monai.losses import RegistrationLoss


def prepare_pair_batch(
    batchdata: dict[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """The pair ``batchdata["image"]`` as input *and* target: registration learns from the pair itself.

    Args:
        batchdata: with ``"image"`` ``(B, 2 C, *spatial)``, the moving image first.
        device: where to put it.
        non_blocking: see :py:meth:`torch.Tensor.to`.
        kwargs: further arguments of :py:meth:`torch.Tensor.to`.

    Returns:
        the pair twice, a plain tensor: networks and losses have no use for metadata.
    """
    pair = torch.as_tensor(batchdata["image"]).to(device=device, non_blocking=non_blocking, **kwargs)
    if hasattr(pair, "as_tensor"):
        pair = pair.as_tensor()
    return pair, pair


def loss_terms(loss: RegistrationLoss) -> Callable[[list[dict[str, Any]]], dict[str, float]]:
    """Output transform for a statistics handler of the trainer: the loss and each of its unweighted terms."""
    return lambda output: {"loss": float(output[0]["loss"]), **loss.values}
