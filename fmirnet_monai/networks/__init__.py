"""Registration networks: ``(B, 2 C, *spatial)`` (moving first) in, the displacement field ``(B, D, *spatial)`` out."""

from .fmirnet import FMIRNet
from .voxelmorph import VoxelMorph

__all__ = ["FMIRNet", "VoxelMorph"]
