"""How far a displacement field is from a diffeomorphism, as MONAI metrics.

Each is called with the field, ``metric(ddf)``; a second argument is accepted, for engines that pass one, and ignored.
"""

from __future__ import annotations

from abc import abstractmethod
from math import factorial

import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction
from torch import Tensor

from fmirnet_monai.spatial import digital_jacobian_determinants, jacobian_determinant
from fmirnet_monai.spatial.jacobian import SMALLEST


class FieldMetric(CumulativeIterationMetric):
    """Base of the metrics of a field ``(B, D, *spatial)`` in voxels; subclasses give one value a field.

    Args:
        reduction: MONAI's metric reduction over cases.
    """

    def __init__(self, reduction: MetricReduction | str = MetricReduction.MEAN) -> None:
        super().__init__()
        self.reduction = reduction

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: object) -> Tensor:
        return self._measure(torch.as_tensor(y_pred).float()).unsqueeze(1)

    @abstractmethod
    def _measure(self, ddf: Tensor) -> Tensor:
        """``(B, D, *spatial)`` to ``(B,)``."""

    def aggregate(self, reduction: MetricReduction | str | None = None) -> Tensor:
        """Reduce over all fields since the last reset."""
        return do_metric_reduction(self.get_buffer(), reduction or self.reduction)[0]


class FoldingMetric(FieldMetric):
    """Folded part of the grid in percent.

    Args:
        digital: count grid cells of which any simplex has a determinant <= 0, which misses no fold; otherwise
            count voxels whose determinant by central differences is <= 0, the figure most papers print.
        reduction: MONAI's metric reduction over cases.
    """

    def __init__(self, digital: bool = False, reduction: MetricReduction | str = MetricReduction.MEAN) -> None:
        super().__init__(reduction)
        self.digital = digital

    def _measure(self, ddf: Tensor) -> Tensor:
        if self.digital:
            folded = (digital_jacobian_determinants(ddf) <= 0).any(dim=1)
        else:
            folded = jacobian_determinant(ddf) <= 0
        return 100.0 * folded.flatten(1).float().mean(1)


class NonDiffeomorphicVolumeMetric(FieldMetric):
    """Volume of the negatively oriented simplices in percent of the grid's volume (Liu et al., IJCV 2024)."""

    def _measure(self, ddf: Tensor) -> Tensor:
        determinants = digital_jacobian_determinants(ddf)
        # D! times the volume of a simplex; two tessellations, each counted half
        volume = determinants.clamp(max=0).neg().sum(1) / (2 * factorial(ddf.shape[1]))
        return 100.0 * volume.flatten(1).mean(1)


class LogJacobianStdMetric(FieldMetric):
    """SDlogJ: standard deviation of ``log det J``, determinants below 1e-9 taken as 1e-9 (smoothness of the map)."""

    def _measure(self, ddf: Tensor) -> Tensor:
        return jacobian_determinant(ddf).clamp(min=SMALLEST).log().flatten(1).std(1)
