"""Building blocks of the registration networks."""

from .fusion import ScaleAttention, SpatialAttention
from .resunet import ResUNet

__all__ = ["ResUNet", "ScaleAttention", "SpatialAttention"]
