"""Image similarity as MONAI metrics: SSIM, NCC, NMI, each over all voxels or over those of a mask."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from monai.metrics.regression import RegressionMetric
from monai.utils import MetricReduction
from torch import Tensor

from fmirnet_monai.losses import ssim_map, window_centres
from fmirnet_monai.losses.masked import as_weights, only_valid
from fmirnet_monai.spatial.grid import precise

WINDOW = 11  # voxels a side, of SSIM
PART = 2**20  # voxels that are measured at a time: a volume of 512 x 512 x 300 takes gigabytes at once


class MaskedMetric(RegressionMetric):
    """Base of metrics that are called ``metric(y_pred, y)`` or ``metric(y_pred, y, mask=mask)``.

    ``mask`` holds weights in [0, 1] or is bool, ``(B, 1, *spatial)`` for batches and a list of ``(1, *spatial)`` for
    lists. What stands in either image where it is 0 has no influence; a case of which it leaves nothing is NaN.
    """

    def _compute_list(  # type: ignore[override]
        self, y_pred: Sequence[Tensor], y: Sequence[Tensor], mask: Sequence[Tensor] | None = None
    ) -> Tensor:
        masks = [None] * len(y) if mask is None else [m.unsqueeze(0) for m in mask]
        cases = zip(y_pred, y, masks, strict=True)
        return torch.cat([self._compute_tensor(a.detach()[None], b.detach()[None], m) for a, b, m in cases])

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: Tensor, y: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        self._check_shape(y_pred, y)
        return self._compute_metric(y_pred, y, None if mask is None else as_weights(mask, y))

    @abstractmethod
    def _compute_metric(self, y_pred: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """The value of each case, ``(B, 1)``."""


class SSIMMetric(MaskedMetric):
    """Mean structural similarity, at most 1: :py:class:`monai.metrics.SSIMMetric` with separable windows.

    Under a mask as in :py:class:`fmirnet_monai.losses.SSIMLoss`.

    Args:
        data_range: range of the intensities, 1 for images in [0, 1].
        reduction: MONAI's metric reduction over cases.
        get_not_nans: ``aggregate`` also returns the number of cases that count.
    """

    def __init__(
        self,
        data_range: float = 1.0,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, get_not_nans=get_not_nans)
        self.data_range = data_range

    def _compute_metric(self, y_pred: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        sums = precise(y.device).new_zeros(2, len(y))
        rows = max(1, PART // y[0, :, 0].numel())
        for begin in range(0, max(1, y.shape[2] - WINDOW + 1), rows):
            part = slice(begin, begin + rows + WINDOW - 1)
            mask = None if weights is None else weights[:, :, part]
            ssim = ssim_map(y_pred[:, :, part], y[:, :, part], self.data_range, WINDOW, mask=mask)
            centres = torch.ones_like(ssim) if mask is None else window_centres(mask, WINDOW).expand_as(ssim)
            sums += torch.stack([ssim * centres, centres]).to(sums).flatten(2).sum(2)
        return (sums[0] / sums[1]).float().unsqueeze(1)  # 0 / 0 is NaN


class NCCMetric(MaskedMetric):
    """Global normalised cross-correlation (Pearson's), -1 to 1; NaN when an image is constant."""

    def _compute_metric(self, y_pred: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        masks = [None] * len(y) if weights is None else list(weights.expand_as(y))
        return torch.stack([self._ncc(*case) for case in zip(y_pred, y, masks, strict=True)]).unsqueeze(1)

    def _ncc(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
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


class NMIMetric(MaskedMetric):
    """Normalised mutual information ``2 I(a; b) / (H(a) + H(b))``, 0 to 1, from a joint histogram.

    Under a mask, over the voxels whose weight is above 0.5.

    Args:
        bins: equal bins between each image's own minimum and maximum.
        reduction: MONAI's metric reduction over cases.
        get_not_nans: ``aggregate`` also returns the number of cases that count.
    """

    def __init__(
        self,
        bins: int = 64,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, get_not_nans=get_not_nans)
        self.bins = bins

    def _compute_metric(self, y_pred: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        cases = list(zip(y_pred, y, strict=True))
        if weights is not None:
            inside = zip(cases, weights[:, 0] > 0.5, strict=True)
            cases = [(a.masked_select(valid), b.masked_select(valid)) for (a, b), valid in inside]
        return torch.stack([self._nmi(a, b) for a, b in cases]).unsqueeze(1)

    def _nmi(self, a: Tensor, b: Tensor) -> Tensor:
        if a.numel() == 0 or not (a.isfinite().all() and b.isfinite().all()):
            return a.new_full((), torch.nan, dtype=torch.float32)
        joint = precise(a.device).new_zeros(self.bins**2)
        ranges = [(image.min().to(joint), image.max().to(joint)) for image in (a, b)]
        for part in zip(a.flatten().split(PART), b.flatten().split(PART), strict=True):
            index = [self._to_bins(values, *limits) for values, limits in zip(part, ranges, strict=True)]
            joint += torch.bincount(index[0] * self.bins + index[1], minlength=self.bins**2)
        joint = joint.reshape(self.bins, self.bins) / joint.sum()
        h_a, h_b, h_ab = (-torch.xlogy(p, p).sum() for p in (joint.sum(1), joint.sum(0), joint))
        return (2.0 * (h_a + h_b - h_ab) / (h_a + h_b)).float()  # two constant images: 0 / 0, NaN

    def _to_bins(self, values: Tensor, low: Tensor, high: Tensor) -> Tensor:
        scaled = (values.to(low) - low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny) * self.bins
        return scaled.long().clamp(max=self.bins - 1)
