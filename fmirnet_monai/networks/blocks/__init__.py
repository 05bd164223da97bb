"""Building blocks of the registration networks."""

from .fusion import ScaleAttention, SpatialAttention
from .init import near_zero
from .resunet import ResUNet, ResUNetPyramid

__all__ = ["ResUNet", "ResUNetPyramid", "ScaleAttention", "SpatialAttention", "near_zero"]
