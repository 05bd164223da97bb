"""Losses over the valid part of two images: the sum over the mask divided by the sum of the mask."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 1e-6  # sums of weights below this count as nothing; its inverse bounds what a gradient is divided by


def as_weights(mask: Tensor, image: Tensor) -> Tensor:
    """A mask as constant weights of an image's voxels.

    Args:
        mask: ``(B, 1, *spatial)`` in [0, 1] or bool.
        image: ``(B, C, *spatial)``.

    Returns:
        ``(B, 1, *spatial)`` on the image's device, of its type but at least in single precision.

    Raises:
        ValueError: when the mask has another shape.
    """
    expected = [image.shape[0], 1, *image.shape[2:]]
    if list(mask.shape) != expected:
        raise ValueError(f"mask must have the shape {expected} for images {list(image.shape)}, got {list(mask.shape)}.")
    return mask.detach().to(image.device, torch.promote_types(image.dtype, torch.float32))


def only_valid(image: Tensor, weights: Tensor) -> Tensor:
    """The image, 0 where the weight is 0: whatever stands there, NaN too, reaches neither a value nor a gradient."""
    return torch.where(weights > 0, image, 0.0)


def masked_mean(values: Tensor, mask: Tensor, each: bool = False) -> Tensor:
    """Weighted mean of the values, 0 where the mask is empty.

    Args:
        values: ``(B, C, *spatial)``.
        mask: weights ``(B, 1, *spatial)`` in [0, 1] or bool.
        each: the mean of each item instead of that of the whole batch.

    Returns:
        scalar, or ``(B,)``.

    Raises:
        ValueError: when the mask has another shape.
    """
    weights = as_weights(mask, values)
    total = (only_valid(values, weights) * weights).flatten(1).sum(1)
    weight = weights.flatten(1).sum(1) * values.shape[1]
    return total / weight.clamp(min=SMALLEST) if each else total.sum() / weight.sum().clamp(min=SMALLEST)


class MSELoss(nn.Module):
    """Mean squared difference over the valid voxels; without a mask that of :py:class:`torch.nn.MSELoss`."""

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None, each: bool = False) -> Tensor:
        """Two images ``(B, C, *spatial)`` and weights ``(B, 1, *spatial)`` in [0, 1] or bool to a scalar >= 0.

        With ``each`` the loss of each item, ``(B)``.
        """
        if mask is not None:
            return masked_mean(only_valid(prediction - target, as_weights(mask, prediction)).square(), mask, each)
        return (prediction - target).square().flatten(1).mean(1) if each else F.mse_loss(prediction, target)


Loss = Callable[..., Tensor]


def compare(loss: Loss, prediction: Tensor, target: Tensor, mask: Tensor | None = None, each: bool = False) -> Tensor:
    """Any loss of two images over their valid voxels.

    A loss that takes a ``mask`` gets it. For any other see :py:func:`excess`; there the value is

        perfect + (loss(blended, target) - perfect) * voxels / sum(mask)

    with ``blended`` the prediction inside the mask and the target outside, and ``perfect = loss(target, target)``. With
    a mask of 0 and 1 this is the sum over the mask divided by its sum for means of what each voxel gives by itself
    (:py:class:`torch.nn.MSELoss`, ``L1Loss``, ``SmoothL1Loss``, ``HuberLoss``). It is an approximation, in which the
    target's invalid voxels are seen, of losses with windows (MONAI's SSIM and local NCC) and of whole images (mutual
    information).

    Args:
        loss: ``loss(prediction, target)`` or ``loss(prediction, target, mask=mask)``, a mean and not a sum.
        prediction: ``(B, C, *spatial)``.
        target: same shape.
        mask: weights ``(B, 1, *spatial)`` in [0, 1] or bool, a constant; None for valid everywhere.
        each: the loss of each item, ``(B)``: at once of a loss that takes ``each``, of any other item by item.

    Returns:
        scalar, or ``(B)``; 0 for an empty mask.

    Raises:
        ValueError: when the mask has another shape.
    """
    if each and not takes(loss, "each"):
        masks = [None] * len(prediction) if mask is None else mask.split(1)
        items = zip(prediction.split(1), target.split(1), masks, strict=True)
        return torch.stack([compare(loss, *item) for item in items])
    options = {"each": True} if each else {}
    if mask is None:
        return loss(prediction, target, **options)
    if takes(loss, "mask"):
        return loss(prediction, target, mask=mask, **options)
    worse, perfect = excess(loss, prediction, target, mask)
    return torch.where(mask.any(), perfect + worse, 0.0 * worse)


def excess(loss: Loss, prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """By how much a loss exceeds that of a perfect match, per valid voxel.

    Outside the mask both images are the target, which matches there and gives no gradient. Zeros in both would be an
    edge that always fits.

    Args:
        loss: ``loss(prediction, target)``, a mean and not a sum.
        prediction: ``(B, C, *spatial)``.
        target: same shape.
        mask: weights ``(B, 1, *spatial)`` in [0, 1] or bool, a constant.

    Returns:
        the excess, and the loss of the perfect match, which has no gradient; both scalars.

    Raises:
        ValueError: when the mask has another shape.
    """
    weights = as_weights(mask, target)
    inside = torch.where(weights > 0, prediction, target)
    blended = torch.lerp(target, inside, weights.to(target.dtype))
    with torch.no_grad():
        perfect = loss(target, target)
    valid = weights.sum().clamp(min=SMALLEST)
    return (loss(blended, target) - perfect) * (weights.numel() / valid), perfect


def takes(loss: Loss, name: str) -> bool:
    """Whether a loss of two images can be given something else, such as ``mask``, by that name."""
    return name in _parameters(type(loss).forward if isinstance(loss, nn.Module) else getattr(loss, "__func__", loss))


@lru_cache
def _parameters(function: Callable) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
