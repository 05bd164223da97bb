"""The inverse of a displacement field."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from .field import identity_grid, sample

ATTEMPTS = 4


@torch.no_grad()
def invert(ddf: Tensor, iterations: int = 50, tolerance: float = 0.01) -> tuple[Tensor, float]:
    """Solve ``y + ddf(y) = x`` for every voxel ``x`` by damped Newton steps; a voxel that has its ``y`` is left alone.

    The usual fixed-point iteration ``v <- -ddf(x + v)`` (Chen et al., Medical Physics 2008) does not converge where a
    field stretches more than twofold, as fields of real pairs do. Voxels that get stuck start again from the solution
    of the nearest one that did not.

    Args:
        ddf: ``(1, D, *spatial)`` in voxels, at least 2 along each axis; beyond the grid its border values hold.
        iterations: at most so many in an attempt.
        tolerance: a voxel is done when its residual is not larger, in voxels.

    Returns:
        the inverse field ``y - x`` ``(1, D, *spatial)`` in double, and the largest ``|y + ddf(y) - x|`` in voxels over
        the voxels whose ``y`` lies inside the grid. A small one says that each voxel found a preimage, not that it is
        the only one: whether the field folds is for :py:func:`digital_jacobian_determinants` to say.
    """
    ddf = ddf.double()
    dims, size = ddf.shape[1], ddf.shape[2:]

    def end(points: Tensor) -> Tensor:  # y + ddf(y) of (N, D)
        sites = points.T.reshape(1, dims, -1, *[1] * (dims - 1))
        return points + sample(ddf, sites).reshape(dims, -1).T

    goal = identity_grid(ddf).reshape(dims, -1).T
    source = goal - ddf.reshape(dims, -1).T
    miss = (end(source) - goal).norm(dim=1)
    offsets = 1e-4 * torch.eye(dims).to(ddf)  # small: the map is linear between voxels and bends at them
    for attempt in range(ATTEMPTS):
        left = (miss > tolerance).nonzero()[:, 0]
        if attempt and 0 < len(left) < len(miss):
            source[left] = source[_nearest(miss <= tolerance, size)[left]]
            miss[left] = (end(source[left]) - goal[left]).norm(dim=1)
        damping = torch.ones(len(left), 1).to(ddf)
        for _ in range(iterations):
            if not len(left):
                break
            here = source[left]
            slopes = torch.stack([(end(here + o) - end(here - o)) / (2 * o.sum()) for o in offsets], dim=2)
            step = torch.linalg.solve_ex(slopes, (end(here) - goal[left]).unsqueeze(-1))[0].squeeze(-1).nan_to_num()
            step = step * (2 / step.norm(dim=1, keepdim=True).clamp(min=2)).nan_to_num()
            candidate = here - damping * step
            missed = (end(candidate) - goal[left]).norm(dim=1)
            better = missed < miss[left]
            source[left[better]], miss[left[better]] = candidate[better], missed[better]
            damping = torch.where(better[:, None], (2 * damping).clamp(max=1), damping / 2)
            going = miss[left] > tolerance
            left, damping = left[going], damping[going]
    inside = ((source >= 0) & (source <= torch.tensor(size).to(ddf) - 1)).all(1)
    return (source - goal).T.reshape(ddf.shape), float((miss * inside).max())


def _nearest(found: Tensor, size: torch.Size) -> Tensor:
    """Flat index of the nearest voxel that is ``found``, for each voxel of a grid."""
    missing = ~found.reshape(size).cpu().numpy()
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    return torch.from_numpy(np.ravel_multi_index(tuple(nearest), tuple(size)).ravel()).to(found.device)
