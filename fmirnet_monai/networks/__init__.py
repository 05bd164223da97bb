"""Registration networks: ``(B, 2 C, *spatial)`` (moving first) in, the displacement field ``(B, D, *spatial)`` out."""

from .dual_prnet import DualPRNet
from .fmirnet import FMIRNet
from .lapirn import LapIRN
from .udrsnet import UDRSNet
from .voxelmorph import VoxelMorph
from .vtn import RecursiveCascade

__all__ = ["DualPRNet", "FMIRNet", "LapIRN", "RecursiveCascade", "UDRSNet", "VoxelMorph"]
