"""Building blocks of the registration networks."""

from .correlation import LocalCorrelation, local_correlation
from .fusion import ScaleAttention, SpatialAttention
from .init import near_zero
from .resunet import ResUNet, ResUNetPyramid

__all__ = [
    "LocalCorrelation",
    "ResUNet",
    "ResUNetPyramid",
    "ScaleAttention",
    "SpatialAttention",
    "local_correlation",
    "near_zero",
]
