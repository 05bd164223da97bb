from .folding import FoldingMetric, LogJacobianStdMetric, NonDiffeomorphicVolumeMetric
from .image import NCCMetric, NMIMetric, SSIMMetric
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
