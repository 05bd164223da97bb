"""Losses: similarity of two images, penalties on a field, and the weighted sum of named terms.

A similarity of two images is called ``loss(prediction, target, mask=None)``, images ``(B, C, *spatial)`` and the mask
``(B, 1, *spatial)`` with weights in [0, 1] or bool. Its value is then a weighted mean over the valid voxels, and what
stands in either image where the mask is 0 has no influence on it or on its gradient.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
