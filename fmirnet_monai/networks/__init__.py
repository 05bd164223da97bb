"""Registration networks: ``(B, 2 C, *spatial)`` (moving first) in, the displacement field ``(B, D, *spatial)`` out.

:py:class:`FCN` segments, :py:class:`JointNetwork` trains a network of each kind together.
"""

from .dual_prnet import DualPRNet
from .fcn import FCN
from .flips import FlipAverage
from .flownet import FlowNetS
from .fmirnet import FMIRNet
from .joint import JointNetwork, JointPrediction
from .lapirn import LapIRN
from .structures import StructureNetwork, StructurePrediction, StructureTraining
from .udrsnet import UDRSNet
from .voxelmorph import VoxelMorph
from .vtn import RecursiveCascade

__all__ = [
    "FCN",
    "DualPRNet",
    "FMIRNet",
    "FlipAverage",
    "FlowNetS",
    "JointNetwork",
    "JointPrediction",
    "LapIRN",
    "RecursiveCascade",
    "StructureNetwork",
    "StructurePrediction",
    "StructureTraining",
    "UDRSNet",
    "VoxelMorph",
]
