"""The displacement field: warp, compose, integrate, Jacobian. Convention: see :py:mod:`fmirnet_monai.spatial.field`."""

from .field import compose, downsample, identity_grid, integrate, upsample_field, warp
from .jacobian import digital_jacobian_determinants, jacobian_determinant

__all__ = [
    "compose",
    "digital_jacobian_determinants",
    "downsample",
    "identity_grid",
    "integrate",
    "jacobian_determinant",
    "upsample_field",
    "warp",
]
