"""Dictionary transforms for image pairs that MONAI lacks."""

from .dictionary import CheckFinited, PixelSized, RandSwapPaird, SaveDisplacementd, Warpd

__all__ = ["CheckFinited", "PixelSized", "RandSwapPaird", "SaveDisplacementd", "Warpd"]
