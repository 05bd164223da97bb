"""Image similarity as MONAI metrics: SSIM, NCC, NMI, each over all voxels or over those of a mask."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from monai.metrics.regression import RegressionMetric
from monai.utils import MetricReduction
from torch import Tensor

from fmirnet_monai.losses.masked import as_weights

from .similarity import ncc, nmi, ssim


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
        return ssim(y_pred, y, weights, self.data_range).unsqueeze(1)


class NCCMetric(MaskedMetric):
    """Global normalised cross-correlation (Pearson's), -1 to 1; NaN when an image is constant."""

    def _compute_metric(self, y_pred: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        return ncc(y_pred, y, weights).unsqueeze(1)


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
        return nmi(y_pred, y, weights, self.bins).unsqueeze(1)
