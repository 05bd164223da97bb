"""Losses: similarity of two images, penalties on a field, and the weighted sum of named terms."""

from .joint import JointLoss
from .mind import MINDSSCLoss
from .region import RegionLoss
from .registration import RegistrationLoss
from .regularization import FoldingLoss, SmoothnessLoss
from .ssim import SSIMLoss, ssim_map

__all__ = [
    "FoldingLoss",
    "JointLoss",
    "MINDSSCLoss",
    "RegionLoss",
    "RegistrationLoss",
    "SSIMLoss",
    "SmoothnessLoss",
    "ssim_map",
]
