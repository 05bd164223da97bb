"""Maps of space, fields on a grid, images resampled. Convention: see :py:mod:`fmirnet_monai.spatial.field`.

Files of other tools are read and written by :py:mod:`fmirnet_monai.spatial.itk`, imported where it is needed.
"""

from .displacement import DisplacementField, Inverse
from .field import compose, downsample, identity_grid, integrate, upsample_field, warp
from .grid import Grid
from .jacobian import digital_jacobian_determinants, jacobian_determinant
from .maps import Affine, Chain, Map, chain
from .resample import extend, resample, resize, resize_field
from .roundtrip import invert
from .smoothing import smooth

__all__ = [
    "Affine",
    "Chain",
    "DisplacementField",
    "Grid",
    "Inverse",
    "Map",
    "chain",
    "compose",
    "digital_jacobian_determinants",
    "downsample",
    "extend",
    "identity_grid",
    "integrate",
    "invert",
    "jacobian_determinant",
    "resample",
    "resize",
    "resize_field",
    "smooth",
    "upsample_field",
    "warp",
]
