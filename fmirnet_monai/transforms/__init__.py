"""Dictionary transforms for image pairs that MONAI lacks."""

from .dictionary import (
    CheckFinited,
    ComposeDisplacementd,
    LongestSided,
    PixelSized,
    RandSwapPaird,
    SaveDisplacementd,
    Warpd,
)
from .reading import ReadImaged

__all__ = [
    "CheckFinited",
    "ComposeDisplacementd",
    "LongestSided",
    "PixelSized",
    "RandSwapPaird",
    "ReadImaged",
    "SaveDisplacementd",
    "Warpd",
]
