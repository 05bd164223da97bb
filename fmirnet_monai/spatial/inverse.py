"""The inverse of a displacement field, point by point."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .field import sample_at

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

BATCH = 2**18  # points that are solved for at a time
NODES = 2**18  # of the field, from which a point that got stuck starts again
STARTS = 16  # of them, one after the other: beside a fold the nearest may lie on the wrong side of it


class FieldInverse:
    """Solves ``y + ddf(y) = x``.

    The usual fixed-point iteration (Chen et al., Medical Physics 2008) comes first; it does not converge where a field
    stretches more than twofold, as fields of real pairs do. What it leaves is solved by damped Newton steps, and what
    these leave starts again from the voxels whose images lie nearest.

    Args:
        ddf: ``(D, *spatial)`` in voxels; beyond the grid its border values hold.
        tolerance: a point is solved when its residual is not larger, in voxels.
    """

    simple = 12  # fixed-point iterations
    newton = 40  # iterations of an attempt

    def __init__(self, ddf: Tensor, tolerance: float = 0.01) -> None:
        self.ddf = ddf
        self.tolerance = tolerance

    @torch.no_grad()
    def __call__(self, goal: Tensor) -> tuple[Tensor, Tensor]:
        """The points whose images are ``goal (N, D)``, in voxels, and which of them were found, ``(N,)``.

        One that was found has a preimage, not only one: whether the field folds is for
        :py:func:`fmirnet_monai.spatial.digital_jacobian_determinants` to say.
        """
        parts = [self._solve(part) for part in goal.split(BATCH)]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _end(self, points: Tensor) -> Tensor:
        """``y + ddf(y)``."""
        return points + sample_at(self.ddf, points).T.to(points)

    def _solve(self, goal: Tensor) -> tuple[Tensor, Tensor]:
        source = 2 * goal - self._end(goal)
        left = torch.arange(len(goal), device=goal.device)
        miss = goal.new_full((len(goal),), math.inf)
        for _ in range(self.simple):
            error = self._end(source[left]) - goal[left]
            miss[left] = error.norm(dim=1)
            going = miss[left] > self.tolerance
            left, error = left[going], error[going]
            if not len(left):
                break
            source[left] -= error
        if len(left):
            source[left] = 2 * goal[left] - self._end(goal[left])
            self._newton(source, goal, miss, left)
            left = left[miss[left] > self.tolerance]
        for rank in range(1, STARTS + 1):
            if not len(left):
                break
            before, missed = source[left].clone(), miss[left].clone()
            source[left] = self._nearest(goal[left], rank)
            self._newton(source, goal, miss, left)
            worse = miss[left] > missed
            source[left[worse]], miss[left[worse]] = before[worse], missed[worse]
            left = left[miss[left] > self.tolerance]
        return source, miss <= self.tolerance

    def _newton(self, source: Tensor, goal: Tensor, miss: Tensor, left: Tensor) -> None:
        """Improve ``source[left]`` and ``miss[left]``."""
        miss[left] = (self._end(source[left]) - goal[left]).norm(dim=1)
        offsets = 1e-2 * torch.eye(goal.shape[1]).to(goal)  # the map is linear between voxels and bends at them
        damping = torch.ones(len(left), 1).to(goal)
        for _ in range(self.newton):
            if not len(left):
                break
            here = source[left]
            slopes = torch.stack([(self._end(here + o) - self._end(here - o)) / (2 * o.sum()) for o in offsets], dim=2)
            step = torch.linalg.solve_ex(slopes, (self._end(here) - goal[left]).unsqueeze(-1))[0].squeeze(-1)
            step = step.nan_to_num()
            step = step * (2 / step.norm(dim=1, keepdim=True).clamp(min=2)).nan_to_num()
            candidate = here - damping * step
            missed = (self._end(candidate) - goal[left]).norm(dim=1)
            better = missed < miss[left]
            source[left[better]], miss[left[better]] = candidate[better], missed[better]
            damping = torch.where(better[:, None], (2 * damping).clamp(max=1), damping / 2)
            going = miss[left] > self.tolerance
            left, damping = left[going], damping[going]

    def _nearest(self, goal: Tensor, rank: int) -> Tensor:
        """The voxels ``(N, D)`` whose images lie nearest to ``goal``, or next to that by their ``rank`` from 1 on."""
        tree, voxels = self._images
        return voxels[torch.from_numpy(tree.query(goal.cpu().numpy(), [min(rank, len(voxels))])[1][:, 0])].to(goal)

    @cached_property
    def _images(self) -> tuple[cKDTree, Tensor]:
        """Where evenly spread voxels are mapped to, and these voxels."""
        from scipy.spatial import cKDTree

        size = self.ddf.shape[1:]
        stride = max(1, math.ceil((math.prod(size) / NODES) ** (1 / len(size))))
        axes = [torch.arange(0, n, stride, device=self.ddf.device) for n in size]
        voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(size))
        images = voxels.cpu().double() + self.ddf.movedim(0, -1)[tuple(voxels.T)].cpu().double()
        return cKDTree(images.numpy()), voxels
