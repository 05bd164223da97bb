"""Dictionary transforms for image pairs that MONAI lacks."""

from .dictionary import CheckFinited, RandSwapPaird, SaveDisplacementd, Warpd

__all__ = ["CheckFinited", "RandSwapPaird", "SaveDisplacementd", "Warpd"]
