"""Image similarity as MONAI metrics: SSIM, NCC, NMI, each over all voxels or over those of a mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.metrics.regression import RegressionMetric
from monai.utils import MetricReduction
from torch import Tensor

from fmirnet_monai.losses import ssim_map, window_centres
from fmirnet_monai.losses.masked import as_weights, only_valid


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

    def _compute_metric(self, y_pred: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """The value of each case, ``(B, 1)``."""
        raise NotImplementedError


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
        ssim = ssim_map(y_pred, y, self.data_range, mask=weights)
        if weights is None:
            return ssim.flatten(1).mean(1, keepdim=True)
        centres = window_centres(weights).expand_as(ssim)
        return ((ssim * centres).flatten(1).sum(1) / centres.flatten(1).sum(1)).unsqueeze(1)  # 0 / 0 is NaN


class NCCMetric(MaskedMetric):
    """Global normalised cross-correlation (Pearson's), -1 to 1; NaN when an image is constant."""

    def _compute_metric(self, y_pred: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        if weights is None:
            weights = y.new_ones(1)
        else:
            y_pred, y = only_valid(y_pred, weights), only_valid(y, weights)
        w, a, b = (image.flatten(1).double() for image in (weights.expand_as(y), y_pred, y))
        a, b = (image - (w * image).sum(1, keepdim=True) / w.sum(1, keepdim=True) for image in (a, b))
        product, squares_a, squares_b = ((w * image).sum(1) for image in (a * b, a * a, b * b))
        return (product / (squares_a * squares_b).sqrt()).unsqueeze(1).float()


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
            cases = [(a[:, valid], b[:, valid]) for (a, b), valid in inside]
        return torch.stack([self._nmi(a, b) for a, b in cases]).unsqueeze(1)

    def _nmi(self, a: Tensor, b: Tensor) -> Tensor:
        if a.numel() == 0 or not (a.isfinite().all() and b.isfinite().all()):
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
