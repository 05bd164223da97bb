"""Metrics as MONAI metric classes: similarity of images, folding of fields, surface distances in mm."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
