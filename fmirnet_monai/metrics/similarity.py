"""Similarity of images, of each item of a batch; :py:mod:`fmirnet_monai.metrics.image` has them as MONAI metrics.

Images are ``(B, C, *spatial)``, weights ``(B, 1, *spatial)`` in [0, 1] or None for all voxels; values are ``(B)``, NaN
where the weights leave nothing. What stands in either image where the weight is 0 has no influence.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fmirnet_monai.losses.masked import only_valid
from fmirnet_monai.losses.ssim import ssim_map, window_centres
from fmirnet_monai.spatial.grid import precise

WINDOW = 11  # voxels a side, of SSIM
PART = 2**20  # voxels that are measured at a time: a volume of 512 x 512 x 300 takes gigabytes at once


def ssim(x: Tensor, y: Tensor, weights: Tensor | None = None, data_range: float = 1.0) -> Tensor:
    """Mean structural similarity, at most 1; a window counts with the weight of its centre."""
    sums = precise(y.device).new_zeros(2, len(y))
    rows = max(1, PART // y[0, :, 0].numel())
    for begin in range(0, max(1, y.shape[2] - WINDOW + 1), rows):
        part = slice(begin, begin + rows + WINDOW - 1)
        mask = None if weights is None else weights[:, :, part]
        values = ssim_map(x[:, :, part], y[:, :, part], data_range, WINDOW, mask=mask)
        centres = torch.ones_like(values) if mask is None else window_centres(mask, WINDOW).expand_as(values)
        sums += torch.stack([values * centres, centres]).to(sums).flatten(2).sum(2)
    return (sums[0] / sums[1]).float()  # 0 / 0 is NaN


def ncc(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Global normalised cross-correlation (Pearson's), -1 to 1; NaN when an image is constant."""
    masks = [None] * len(y) if weights is None else list(weights.expand_as(y))
    return torch.stack([_ncc(*case) for case in zip(x, y, masks, strict=True)])


def _ncc(x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    total = precise(y.device).new_zeros(3)
    for w, a, b in _parts(x, y, mask):
        total += torch.stack([w.sum(), (w * a).sum(), (w * b).sum()])
    mean_a, mean_b = total[1:] / total[0]
    squares = torch.zeros_like(total)
    for w, a, b in _parts(x, y, mask):
        a, b = a - mean_a, b - mean_b  # noqa: PLW2901
        squares += torch.stack([(w * a * b).sum(), (w * a * a).sum(), (w * b * b).sum()])
    return (squares[0] / (squares[1] * squares[2]).sqrt()).float()


def _parts(x: Tensor, y: Tensor, mask: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Weights and values of two images in the best precision, part by part."""
    best = precise(x.device)
    masks = [None] * len(x.flatten().split(PART)) if mask is None else mask.flatten().split(PART)
    for a, b, w in zip(x.flatten().split(PART), y.flatten().split(PART), masks, strict=True):
        if w is None:
            yield torch.ones_like(a).to(best), a.to(best), b.to(best)
        else:
            yield w.to(best), only_valid(a, w).to(best), only_valid(b, w).to(best)


def nmi(x: Tensor, y: Tensor, weights: Tensor | None = None, bins: int = 64) -> Tensor:
    """Normalised mutual information ``2 I(x; y) / (H(x) + H(y))``, 0 to 1, from a joint histogram.

    Over the voxels whose weight is above 0.5; ``bins`` equal ones between each image's own minimum and maximum.
    """
    cases = list(zip(x, y, strict=True))
    if weights is not None:
        inside = zip(cases, weights[:, 0] > 0.5, strict=True)
        cases = [(a.masked_select(valid), b.masked_select(valid)) for (a, b), valid in inside]
    return torch.stack([_nmi(a, b, bins) for a, b in cases])


def _nmi(a: Tensor, b: Tensor, bins: int) -> Tensor:
    if a.numel() == 0 or not (a.isfinite().all() and b.isfinite().all()):
        return a.new_full((), torch.nan, dtype=torch.float32)
    joint = precise(a.device).new_zeros(bins**2)
    ranges = [(image.min().to(joint), image.max().to(joint)) for image in (a, b)]
    for part in zip(a.flatten().split(PART), b.flatten().split(PART), strict=True):
        index = [_to_bins(values, *limits, bins) for values, limits in zip(part, ranges, strict=True)]
        joint += torch.bincount(index[0] * bins + index[1], minlength=bins**2)
    joint = joint.reshape(bins, bins) / joint.sum()
    h_a, h_b, h_ab = (-torch.xlogy(p, p).sum() for p in (joint.sum(1), joint.sum(0), joint))
    return (2.0 * (h_a + h_b - h_ab) / (h_a + h_b)).float()  # two constant images: 0 / 0, NaN


def _to_bins(values: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    scaled = (values.to(low) - low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny) * bins
    return scaled.long().clamp(max=bins - 1)
