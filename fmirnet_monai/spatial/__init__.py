"""The displacement field: warp, compose, integrate, Jacobian. Convention: see :py:mod:`fmirnet_monai.spatial.field`.

Files of other tools are read and written by :py:mod:`fmirnet_monai.spatial.itk`, imported where it is needed.
"""

from .displacement import DisplacementField
from .field import compose, downsample, identity_grid, integrate, upsample_field, warp
from .grid import Grid
from .inverse import invert
from .jacobian import digital_jacobian_determinants, jacobian_determinant

__all__ = [
    "DisplacementField",
    "Grid",
    "compose",
    "digital_jacobian_determinants",
    "downsample",
    "identity_grid",
    "integrate",
    "invert",
    "jacobian_determinant",
    "upsample_field",
    "warp",
]
