"""Dictionary transforms for image pairs that MONAI lacks, and random changes of whole batches on the device."""

from .batch import (
    RandFlipBatch,
    RandIntensityBatch,
    RandItselfBatch,
    RandKnownFieldBatch,
    RandShapesBatch,
    RandSpaceBatch,
    RandSwapBatch,
    RandTurnBatch,
)
from .dictionary import (
    CheckFinited,
    ComposeDisplacementd,
    LongestSided,
    PixelSized,
    SaveDisplacementd,
    Warpd,
)
from .reading import ReadImaged

__all__ = [
    "CheckFinited",
    "ComposeDisplacementd",
    "LongestSided",
    "PixelSized",
    "RandFlipBatch",
    "RandIntensityBatch",
    "RandItselfBatch",
    "RandKnownFieldBatch",
    "RandShapesBatch",
    "RandSpaceBatch",
    "RandSwapBatch",
    "RandTurnBatch",
    "ReadImaged",
    "SaveDisplacementd",
    "Warpd",
]
