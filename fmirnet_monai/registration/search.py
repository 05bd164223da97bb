"""Discrete search: where descent would start too far away, every displacement of a small cube is tried."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from fmirnet_monai.losses import MINDSSCLoss
from fmirnet_monai.spatial import resize, resize_field, warp

COUPLING = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of data and smoothness, each pass more
CONSISTENT = 15  # passes that bring the map there and the map back together
LEAST = 0.25  # share of a neighbourhood that both images must show for its cost to count


class DiscreteSearch:
    """A coarse field between two images that may lie far apart.

    Every displacement of a cube is scored for every voxel of a coarse grid by the distance of the self-similarity
    contexts (MIND-SSC); smooth displacements are picked by a coupled convex problem, there and back, and made
    consistent (Siebert, Hansen, Heinrich, "Fast 3D registration with accurate optimisation and little learning for
    Learn2Reg 2021", and 2024). The field is a start for descent: it is exact to about half a coarse voxel.

    Its memory is that of the scores, ``side ** D * (2 * reach + 1) ** D`` numbers, whatever the images' size, and of
    the contexts, 12 times an image in 3-D and 4 times in 2-D.

    Args:
        side: voxels of the coarse grid along the longest axis.
        reach: longest displacement along an axis in its voxels.

    Raises:
        ValueError: when one is not at least 1.
    """

    def __init__(self, side: int = 16, reach: int = 4) -> None:
        if side < 1 or reach < 1:
            raise ValueError(f"side and reach must be at least 1 voxel, got {side} and {reach}.")
        self.side = side
        self.reach = reach
        self.contexts = MINDSSCLoss(radius=1)

    @torch.no_grad()
    def __call__(
        self, moving: Tensor, fixed: Tensor, *, moving_mask: Tensor | None = None, fixed_mask: Tensor | None = None
    ) -> Tensor:
        """Search for a batch.

        Args:
            moving: ``(B, C, *spatial)``.
            fixed: same shape.
            moving_mask: ``(B, 1, *spatial)``, 1 where the moving image is valid, 0 elsewhere; None for everywhere.
            fixed_mask: the same of the fixed image.

        Returns:
            ``(B, D, *spatial)`` in voxels; 0 where nothing is seen.
        """
        full = moving.shape[2:]
        size = [max(1, round(n * self.side / max(full))) for n in full]
        sides = [self._features(*side, size) for side in ((moving, moving_mask), (fixed, fixed_mask))]
        there, back = self._smooth(self._costs(*sides)), self._smooth(self._costs(*sides[::-1]))
        for _ in range(CONSISTENT):
            there, back = (there - warp(back, there)) / 2, (back - warp(there, back)) / 2
        return resize_field(there, full)

    def _features(self, image: Tensor, mask: Tensor | None, size: list[int]) -> tuple[Tensor, Tensor]:
        """Contexts on the coarse grid, and where they are valid."""
        weights = torch.ones_like(image[:, :1]) if mask is None else mask
        share = resize(weights, size)
        contexts = resize(self.contexts.descriptor(image, mask) * weights, size) / share.clamp(min=1e-3)
        valid = (share > 0.5).to(contexts)
        return contexts * valid, valid

    def _costs(self, moving: tuple[Tensor, Tensor], fixed: tuple[Tensor, Tensor]) -> Tensor:
        """Of each displacement ``(B, displacements, *coarse)``; what leads out of view costs as much as the mean.

        So it neither draws nor repels.
        """
        features, valid = fixed
        dims = features.dim() - 2
        padded = [F.pad(part, [self.reach] * (2 * dims)) for part in moving]
        costs, weights = [], []
        for offsets in itertools.product(range(2 * self.reach + 1), repeat=dims):
            shifted, seen = padded
            for axis, offset in enumerate(offsets, start=2):
                shifted, seen = (part.narrow(axis, offset, features.shape[axis]) for part in (shifted, seen))
            weight = valid * seen
            costs.append((features - shifted).square().sum(1, keepdim=True) * weight)
            weights.append(weight)
        cost, share = (_neighbours(torch.cat(parts, dim=1)) for parts in (costs, weights))
        counts = share > LEAST
        cost = torch.where(counts, cost / share.clamp(min=LEAST), 0.0)
        mean = cost.sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp(min=1)
        return torch.where(counts, cost, mean)

    def _smooth(self, costs: Tensor) -> Tensor:
        """The displacements ``(B, D, *coarse)`` that are cheap and like their neighbours'."""
        dims = costs.dim() - 2
        axis = torch.arange(-self.reach, self.reach + 1).to(costs)
        cube = torch.stack(torch.meshgrid([axis] * dims, indexing="ij")).flatten(1)  # (D, displacements)
        lengths = cube.square().sum(0).reshape(1, -1, *[1] * dims)
        costs = costs + 1e-4 * lengths  # of equal ones the shortest
        found = _neighbours(cube[:, costs.argmin(1)].movedim(0, 1))
        for coupling in COUPLING:
            apart = lengths - 2 * torch.einsum("dn,bd...->bn...", cube, found)  # squared distance, up to a constant
            found = _neighbours(cube[:, (costs + coupling * apart).argmin(1)].movedim(0, 1))
        return found


def _neighbours(tensor: Tensor) -> Tensor:
    """Mean over each voxel and those around it."""
    pool = F.avg_pool2d if tensor.dim() == 4 else F.avg_pool3d
    return pool(tensor, 3, stride=1, padding=1, count_include_pad=False)
