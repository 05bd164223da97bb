"""Displacement and velocity fields on the voxel grid.

Convention (the only one inside the package): a displacement field (DDF) is a tensor ``(B, D, *spatial)`` in voxels,
channel ``i`` displaces along array axis ``i`` (ij order), pull-back: ``warped(x) = image(x + ddf(x))``. This is the
convention of :py:class:`monai.networks.blocks.Warp`; the functions here give the same values and, unlike it, can be
scripted, which the networks and their exports need.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def identity_grid(field: Tensor) -> Tensor:
    """Voxel coordinates of every grid point of ``field``.

    Args:
        field: ``(B, D, *spatial)`` with D = 2 or 3; gives size, dtype and device only.

    Returns:
        ``(1, D, *spatial)``, channel ``i`` holding the index along array axis ``i``.
    """
    axes = [torch.arange(size, dtype=field.dtype, device=field.device) for size in field.shape[2:]]
    return torch.stack(torch.meshgrid(axes, indexing="ij")).unsqueeze(0)


def sample(image: Tensor, points: Tensor, mode: str = "bilinear", padding_mode: str = "border") -> Tensor:
    """Values of ``image`` at positions given in its own voxels, computed in the positions' precision.

    Args:
        image: ``(B, C, *spatial)``.
        points: ``(B, D, *size)`` voxel positions, channel ``i`` along array axis ``i``; any size of D axes.
        mode: ``"bilinear"`` (trilinear in 3-D), ``"nearest"`` or ``"bicubic"`` (2-D only).
        padding_mode: ``"border"``, ``"zeros"`` or ``"reflection"`` for positions outside the image.

    Returns:
        ``(B, C, *size)`` in the dtype of ``image``.
    """
    # grid_sample takes xyz order, normalised so that -1 and 1 are the centres of the first and last voxel
    axes = range(image.dim() - 3, -1, -1)
    normalised = [points[:, i] * (2.0 / max(image.shape[2 + i] - 1, 1)) - 1.0 for i in axes]
    grid = torch.stack(normalised, dim=-1)
    values = F.grid_sample(image.to(points.dtype), grid, mode=mode, padding_mode=padding_mode, align_corners=True)
    return values.to(image.dtype)


def sample_at(image: Tensor, points: Tensor) -> Tensor:
    """Linear interpolation of ``image (C, *spatial)`` at points ``(*size, D)`` in its voxels, in any number of axes.

    The image is neither copied nor converted: positions are rounded to its precision, 1e-5 voxels in a volume of 500.
    Beyond its outermost voxels' centres the border's values hold. Gives ``(C, *size)`` in the dtype of ``image``.
    """
    if image.dim() == 4 and 1 in image.shape[1:]:  # a slice: nothing changes across it, and to the last bit
        across = image.shape[1:].index(1)
        return sample_at(image.squeeze(across + 1), points[..., [axis for axis in range(3) if axis != across]])
    flat = points.reshape(*[1] * (image.dim() - 1), -1, points.shape[-1])
    size = torch.tensor(image.shape[1:]).to(points)
    grid = (flat * (2.0 / (size - 1).clamp(min=1)) - 1.0).flip(-1).to(image)
    values = F.grid_sample(image.unsqueeze(0), grid, padding_mode="border", align_corners=True)
    return values.reshape(image.shape[0], *points.shape[:-1])


def warp(image: Tensor, ddf: Tensor, mode: str = "bilinear", padding_mode: str = "border") -> Tensor:
    """Pull ``image`` back through a displacement field: ``warped(x) = image(x + ddf(x))``.

    Args:
        image: ``(B, C, *spatial)``, any real dtype that ``grid_sample`` takes.
        ddf: ``(B, D, *spatial)`` displacement in voxels of ``image``'s own grid.
        mode: ``"bilinear"`` (trilinear in 3-D), ``"nearest"`` or ``"bicubic"`` (2-D only).
        padding_mode: ``"border"``, ``"zeros"`` or ``"reflection"`` for samples outside the image.

    Returns:
        the warped image, ``(B, C, *spatial)``.

    Raises:
        ValueError: when the sizes of ``image`` and ``ddf`` do not match.
    """
    dims = image.dim() - 2
    if ddf.shape[1] != dims or image.shape[2:] != ddf.shape[2:] or image.shape[0] != ddf.shape[0]:
        raise ValueError(
            f"ddf must have shape (batch, {dims}, *spatial) on the grid of image, got image {list(image.shape)} "
            f"and ddf {list(ddf.shape)}."
        )
    dtype = torch.promote_types(image.dtype, torch.float32)  # half precision rounds positions to 0.25 from 256 on
    ddf = ddf.to(dtype)
    return sample(image, identity_grid(ddf) + ddf, mode, padding_mode)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Compose two displacement fields into one: ``x -> x + inner(x) + outer(x + inner(x))``.

    Warping with the result equals warping with ``outer`` first and then with ``inner``, up to one interpolation:
    ``warp(image, compose(outer, inner)) ~ warp(warp(image, outer), inner)``.

    Args:
        outer: ``(B, D, *spatial)`` in voxels, the field that touches the image first.
        inner: ``(B, D, *spatial)`` in voxels, on the same grid.

    Returns:
        ``(B, D, *spatial)`` in voxels.
    """
    return inner + warp(outer, inner)


def integrate(velocity: Tensor, steps: int) -> Tensor:
    """Displacement of a stationary velocity field after unit time, by scaling and squaring.

    ``integrate(-velocity, steps)`` is its inverse (Arsigny et al., MICCAI 2006).

    Args:
        velocity: ``(B, D, *spatial)`` in voxels per unit time.
        steps: number of squarings, at least 0 (0 returns ``velocity`` itself); 5 to 7 is usual.

    Returns:
        ``(B, D, *spatial)`` displacement in voxels.
    """
    ddf = velocity / (2.0**steps)
    still = identity_grid(ddf.to(torch.promote_types(ddf.dtype, torch.float32)))  # as in warp
    for _ in range(steps):
        ddf = ddf + sample(ddf, still + ddf)  # composed with itself
    return ddf


def upsample_field(ddf: Tensor) -> Tensor:
    """Bring a field to the grid of twice the size: doubled resolution and doubled vectors (voxel units).

    The grids are those of average pooling by 2: a coarse voxel covers the fine voxels ``2i`` and ``2i + 1``.

    Args:
        ddf: ``(B, D, *spatial)`` in voxels of the coarse grid.

    Returns:
        ``(B, D, *(2 * spatial))`` in voxels of the fine grid.
    """
    mode = "bilinear" if ddf.dim() == 4 else "trilinear"
    return 2.0 * F.interpolate(ddf, scale_factor=2.0, mode=mode, align_corners=False)


def downsample(tensor: Tensor) -> Tensor:
    """Average pooling by 2 along each spatial axis; sizes must be even. ``(B, C, *spatial)``, 2-D or 3-D."""
    if tensor.dim() == 4:
        return F.avg_pool2d(tensor, 2)
    return F.avg_pool3d(tensor, 2)
