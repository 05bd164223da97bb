"""Metrics as MONAI metric classes: similarity of images, folding of fields, surface distances in mm."""

from .folding import FoldingMetric, LogJacobianStdMetric, NonDiffeomorphicVolumeMetric
from .similarity import NCCMetric, NMIMetric, SSIMMetric
from .surface import SurfaceDistanceInMM

__all__ = [
    "FoldingMetric",
    "LogJacobianStdMetric",
    "NCCMetric",
    "NMIMetric",
    "NonDiffeomorphicVolumeMetric",
    "SSIMMetric",
    "SurfaceDistanceInMM",
]
