"""The displacement field: warp, compose, integrate, Jacobian. Convention: see :py:mod:`fmirnet_monai.spatial.field`."""

from .displacement import DisplacementField
from .field import compose, downsample, identity_grid, integrate, upsample_field, warp
from .grid import Grid
from .itk import read_displacement, write_displacement
from .jacobian import digital_jacobian_determinants, jacobian_determinant

__all__ = [
    "DisplacementField",
    "Grid",
    "compose",
    "digital_jacobian_determinants",
    "downsample",
    "identity_grid",
    "integrate",
    "jacobian_determinant",
    "read_displacement",
    "upsample_field",
    "warp",
    "write_displacement",
]
