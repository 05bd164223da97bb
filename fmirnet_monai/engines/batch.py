"""What goes into registration and joint networks in MONAI's supervised engines, and what comes out for the logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


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


def prepare_joint_batch(
    batchdata: dict[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What joint registration and segmentation learns from: the pair, and the moving image's label.

    Args:
        batchdata: with ``"image"`` ``(B, 2 C, *spatial)``, the moving image first, and ``"label"``
            ``(B, 1, *spatial)`` of the moving image.
        device: where to put it.
        non_blocking: see :py:meth:`torch.Tensor.to`.
        kwargs: further arguments of :py:meth:`torch.Tensor.to`.

    Returns:
        the pair, and the target ``(pair, label)``.
    """
    pair, _ = prepare_pair_batch(batchdata, device, non_blocking, **kwargs)
    label = torch.as_tensor(batchdata["label"]).to(device=device, non_blocking=non_blocking, **kwargs)
    return pair, (pair, label.as_tensor() if hasattr(label, "as_tensor") else label)


def prepare_supervised_batch(
    batchdata: dict[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, tuple[Tensor, Tensor | None, Tensor | None]]:
    """What registration learns from that also takes labels and known fields.

    Args:
        batchdata: with ``"image"`` ``(B, 2 C, *spatial)`` and perhaps ``"labels"`` ``(B, 2, *spatial)``, the moving
            image's first, and ``"field"`` ``(B, D, *spatial)`` in voxels.
        device: where to put it.
        non_blocking: see :py:meth:`torch.Tensor.to`.
        kwargs: further arguments of :py:meth:`torch.Tensor.to`.

    Returns:
        the pair, and the target ``(pair, labels, field)``, of which the last two may be None.
    """
    pair, _ = prepare_pair_batch(batchdata, device, non_blocking, **kwargs)
    labels, field = (
        None if (known := batchdata.get(key)) is None else torch.as_tensor(known).to(device, non_blocking=non_blocking)
        for key in ("labels", "field")
    )
    return pair, (pair, labels, field)


def prepare_structure_batch(
    batchdata: dict[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Both images of each pair and their label maps, one after the other: what finding structures learns from.

    Args:
        batchdata: with ``"image"`` and ``"labels"``, both ``(B, 2, *spatial)``.
        device: where to put it.
        non_blocking: see :py:meth:`torch.Tensor.to`.
        kwargs: further arguments of :py:meth:`torch.Tensor.to`.

    Returns:
        images and label maps ``(2 B, 1, *spatial)``, all moving images first.
    """
    pair, (_, labels, _) = prepare_supervised_batch(batchdata, device, non_blocking, **kwargs)
    if labels is None:
        raise ValueError("labels: structures are learnt from label maps, and these pairs have none.")
    return torch.cat(pair.chunk(2, dim=1)), torch.cat(labels.chunk(2, dim=1))


def loss_terms(loss: nn.Module) -> Callable[[Any], dict[str, float]]:
    """Output transform for a statistics handler of the trainer: the loss and, where it has ``values``, its terms."""
    return lambda output: {"loss": mean_loss(output), **getattr(loss, "values", {})}


def mean_loss(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> float:
    """The loss in a trainer's output, of a batch whole or as a list of its items."""
    first = output if isinstance(output, Mapping) else output[0]
    return torch.as_tensor(first["loss"]).item()
