"""Image similarity as MONAI metrics: SSIM, NCC, NMI."""

from __future__ import annotations

import torch
from monai.metrics.regression import RegressionMetric
from monai.utils import MetricReduction
from torch import Tensor

from fmirnet_monai.losses import ssim_map


class SSIMMetric(RegressionMetric):
    """Mean structural similarity, at most 1: :py:class:`monai.metrics.SSIMMetric` with separable windows.

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

    def _compute_metric(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return ssim_map(y_pred, y, self.data_range).flatten(1).mean(1, keepdim=True)


class NCCMetric(RegressionMetric):
    """Global normalised cross-correlation (Pearson's), -1 to 1; NaN when an image is constant."""

    def _compute_metric(self, y_pred: Tensor, y: Tensor) -> Tensor:
        a, b = (image.flatten(1).double() for image in (y_pred, y))
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).unsqueeze(1).float()


class NMIMetric(RegressionMetric):
    """Normalised mutual information ``2 I(a; b) / (H(a) + H(b))``, 0 to 1, from a joint histogram.

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

    def _compute_metric(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return torch.stack([self._nmi(a, b) for a, b in zip(y_pred, y, strict=True)]).unsqueeze(1)

    def _nmi(self, a: Tensor, b: Tensor) -> Tensor:
        if not (a.isfinite().all() and b.isfinite().all()):
            return torch.tensor(torch.nan)
        a, b = self._to_bins(a), self._to_bins(b)
        joint = torch.bincount(a * self.bins + b, minlength=self.bins**2).double().reshape(self.bins, self.bins)
        joint = joint / joint.sum()
        h_a, h_b, h_ab = (-torch.xlogy(p, p).sum() for p in (joint.sum(1), joint.sum(0), joint))
        return (2.0 * (h_a + h_b - h_ab) / (h_a + h_b)).float()  # two constant images: 0 / 0, NaN

    def _to_bins(self, image: Tensor) -> Tensor:
        image = image.flatten().double()
        low, high = image.min(), image.max()
        scaled = (image - low) / (high - low).clamp(min=torch.finfo(image.dtype).tiny) * self.bins
        return scaled.long().clamp(max=self.bins - 1)
