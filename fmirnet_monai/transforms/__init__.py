"""Dictionary transforms for image pairs that MONAI lacks."""

from .dictionary import CheckFinited, RandSwapPaird, Warpd

__all__ = ["CheckFinited", "RandSwapPaird", "Warpd"]
