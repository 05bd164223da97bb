"""Local normalised cross-correlation with windows of valid voxels only: MONAI's values in a fifth of the time."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from fmirnet_monai.spatial.smoothing import Filter

from .masked import SMALLEST, as_weights, masked_mean, only_valid


def _box_sums(images: Tensor, width: int) -> Tensor:
    """Sums over a window of odd width around each voxel, over what of it lies inside the image.

    Running sums would lose the precision that differences of moments need, and convolutions have less than single
    precision on some devices.
    """
    for axis in range(2, images.dim()):
        images = _box(width, images.shape[axis]).along(axis, images)
    return images


@lru_cache(maxsize=64)
def _box(width: int, size: int) -> Filter:
    places = torch.arange(size)
    return Filter(((places[:, None] - places).abs() <= width // 2).float())


def local_ncc_map(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 9,
    mask: Tensor | None = None,
    smooth_nr: float = 0.0,
    smooth_dr: float = 1e-5,
) -> Tensor:
    """Squared correlation of two images in a window around each voxel.

    Only voxels inside the image and the mask count, weighted by it. Where the window lies inside both, the value is
    that of :py:class:`monai.losses.LocalNormalizedCrossCorrelationLoss`, which takes zeros to stand outside the image;
    except where the images are so flat that their variance drowns in rounding: there MONAI's may be in the hundreds.

    Args:
        x: ``(B, C, *spatial)``, 2-D or 3-D.
        y: same shape.
        kernel_size: odd width of the window in voxels.
        mask: weights ``(B, 1, *spatial)`` in [0, 1] or bool; None for valid everywhere.
        smooth_nr: added to the numerator.
        smooth_dr: least sum of squared deviations over a window.

    Returns:
        ``(B, C, *spatial)`` from 0 to 1 (up to rounding, without ``smooth_nr``).

    Raises:
        ValueError: when the shapes differ or the window's width is even.
    """
    if x.shape != y.shape:
        raise ValueError(f"both images must have one shape, got {list(x.shape)} and {list(y.shape)}.")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}.")
    precision = torch.promote_types(x.dtype, torch.float32)
    x, y = x.to(precision), y.to(precision)

    if mask is None:
        x, y = x - _mean(x), y - _mean(y)
        weighted_x, weighted_y, weights = x, y, x.new_ones(1, 1, *x.shape[2:])
    else:
        weights = as_weights(mask, x)
        x, y = (only_valid(image - _mean(only_valid(image, weights), weights), weights) for image in (x, y))
        weighted_x, weighted_y = weights * x, weights * y
    count = _box_sums(weights, kernel_size).clamp(min=SMALLEST)
    moments = torch.cat([weighted_x, weighted_y, weighted_x * x, weighted_y * y, weighted_x * y], dim=1)
    sum_x, sum_y, sum_xx, sum_yy, sum_xy = _box_sums(moments, kernel_size).chunk(5, dim=1)
    mean_x, mean_y = sum_x / count, sum_y / count
    covariance = sum_xy - mean_x * sum_y
    variance_x = _variance(sum_xx, mean_x * sum_x, smooth_dr)
    variance_y = _variance(sum_yy, mean_y * sum_y, smooth_dr)
    return (covariance.square() + smooth_nr) / (variance_x * variance_y)


def _mean(image: Tensor, weights: Tensor | None = None) -> Tensor:
    """Of each item and channel; subtracted for precision only, so that no gradient goes through it."""
    image, axes = image.detach(), list(range(2, image.dim()))
    if weights is None:
        return image.mean(axes, keepdim=True)
    return (image * weights).sum(axes, keepdim=True) / weights.sum(axes, keepdim=True).clamp(min=SMALLEST)


def _variance(squares: Tensor, of_mean: Tensor, least: float) -> Tensor:
    """Difference of two moments, at least what their rounding leaves of it."""
    rounding = 8 * torch.finfo(squares.dtype).eps
    return torch.maximum(squares - of_mean, (rounding * squares.detach()).clamp(min=least))


class LocalNCCLoss(nn.Module):
    """Minus the mean of the squared local correlation, see :py:func:`local_ncc_map`.

    Args:
        kernel_size: odd width of the window in voxels.
        smooth_nr: added to the numerator.
        smooth_dr: least sum of squared deviations over a window.

    Raises:
        ValueError: when the window's width is even.
    """

    def __init__(self, kernel_size: int = 9, smooth_nr: float = 0.0, smooth_dr: float = 1e-5) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}.")
        self.kernel_size = kernel_size
        self.smooth_nr = smooth_nr
        self.smooth_dr = smooth_dr

    def extra_repr(self) -> str:
        """What the module's own line doesn't show."""
        return f"kernel_size={self.kernel_size}, smooth_nr={self.smooth_nr}, smooth_dr={self.smooth_dr}"

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None, each: bool = False) -> Tensor:
        """Two images ``(B, C, *spatial)`` and weights ``(B, 1, *spatial)`` in [0, 1] or bool to a scalar in [-1, 0].

        With ``each`` the loss of each item, ``(B)``.
        """
        ncc = local_ncc_map(prediction, target, self.kernel_size, mask, self.smooth_nr, self.smooth_dr)
        if mask is not None:
            return -masked_mean(ncc, mask, each)
        return -(ncc.flatten(1).mean(1) if each else ncc.mean())
