"""What speaks for and against a map without any label: measured on small images, so that it costs little.

At a quarter of the working resolution, of volumes at half of it, the pair is registered back; what is compared is what
both images show, where the fixed one has some structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fmirnet_monai.losses import local_ncc_map
from fmirnet_monai.spatial import compose, identity_grid, resize_field, smooth

from .level import Level, binary, resized

COARSER = {2: 4, 3: 2}  # times fewer voxels along each axis
SMALLEST = 16  # voxels of an axis that isn't shorter itself
STRUCTURE = 0.03  # standard deviation of intensities in [0, 1] around a voxel, above which there is some
NEAR = 1.5  # voxels, of the Gaussian that says what is around one
LEAST = 20  # voxels with structure, below which all count
FLAT = 0.05  # determinant of an affine map, below which it isn't inverted
MISSED = 0.04  # of the image's length; a map that leads back further away than that misses
FINE, WIDE = 5, 9  # voxels a side, of the windows of local correlation
MOST = 1 << 23  # values that torch finds a quantile of; of more, every second, third, … counts

Register = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Sequence[float]], Tensor]


@dataclass
class Checks:
    """What was measured of a map to tell whether it holds.

    Attributes:
        figures: name to value, see :py:func:`evidence`.
        uncertainty: see :py:func:`spread`, ``(*spatial)`` of the fixed grid; None unless asked for.
    """

    figures: dict[str, float] = field(default_factory=dict)
    uncertainty: Tensor | None = None


def spread(ddf: Tensor, others: Iterable[Tensor], back: Tensor, spacing: Sequence[float]) -> Tensor:
    """Local uncertainty in mm: how far other ways of registering the same pair lead elsewhere, root mean square.

    Args:
        ddf: the map, ``(D, *spatial)`` in voxels.
        others: what the mirrored pair, another start or another method gives, the same shape.
        back: the map of the pair registered back; how far there and back misses counts as one more.
        spacing: of the voxels in mm, along each axis.

    Returns:
        ``(*spatial)``.
    """
    scale = ddf.new_tensor(spacing).reshape(-1, *[1] * len(spacing))
    apart = [compose(back[None], ddf[None])[0], *(other - ddf for other in others)]
    return torch.stack([(part * scale).square().sum(0) for part in apart]).mean(0).sqrt()


def evidence(pair: Tensor, seen: Tensor, ddf: Tensor, spacing: Sequence[float], back: Register) -> dict[str, float]:
    """Figures of a batch of pairs, the slices of a volume or one, all together.

    Args:
        pair: ``(B, 2, *spatial)``, the moving image first, in [0, 1].
        seen: where they are known, the same shape.
        ddf: the map, ``(B, D, *spatial)`` in voxels.
        spacing: of the voxels in mm, along each axis.
        back: registers ``(moving, fixed, there, moving_mask, fixed_mask, spacing)``, as the map ``there``, which leads
            the other way, was found or like it.

    Returns:
        name to value: ``inverse_consistency``, by how many mm there and back misses at the 95th percentile, and
        ``inverse_misses``, where it does so by more than 4 % of the image's longest side, in percent;
        ``residual_99``, the 99th percentile of the absolute difference of intensities in [0, 1]; ``lncc`` and
        ``lncc_10``, mean and 10th percentile of the squared local correlation, and ``before_lncc``. Empty where the
        images show nothing in common.
    """
    if not len(pair):
        return {}
    size = [max(min(n, SMALLEST), n // COARSER[ddf.shape[1]]) for n in pair.shape[2:]]
    sides = [resized(pair[:, [i]], binary(seen[:, [i]]), size) for i in (0, 1)]
    (moving, moving_mask), (fixed, fixed_mask) = sides
    level = Level(moving, fixed, moving_mask, fixed_mask, 0, moving.new_ones(()))
    there = resize_field(ddf, size)
    warped, inside = level.warped(there)
    before = level.seen(torch.zeros_like(there))
    if not inside.any() or not before.any():
        return {}
    voxel = [s * n / m for s, n, m in zip(spacing, pair.shape[2:], size, strict=True)]
    scale = moving.new_tensor(voxel).reshape(1, -1, *[1] * len(size))
    longest = max(v * n for v, n in zip(voxel, size, strict=True))
    shown = _structure(fixed, fixed_mask) & inside
    shown = shown if int(shown.sum()) >= LEAST else inside

    returned = back(fixed, moving, there, fixed_mask, moving_mask, voxel)
    misses = (level.compose(returned, there) * scale).norm(dim=1, keepdim=True)[shown]
    residual = (warped - fixed).abs()[inside]
    fine, wide = (local_ncc_map(warped, fixed, width, inside)[shown] for width in (FINE, WIDE))
    known = shown & before
    unregistered = local_ncc_map(moving, fixed, WIDE, before)[known if known.any() else before]
    return {
        "before_lncc": float(unregistered.mean()),
        "lncc": float(wide.mean()),
        "lncc_10": _quantile(fine, 0.1),
        "residual_99": _quantile(residual, 0.99),
        "inverse_consistency": _quantile(misses, 0.95),
        "inverse_misses": 100.0 * float((misses > MISSED * longest).float().mean()),
    }


def _quantile(values: Tensor, share: float) -> float:
    return float(values[:: 1 + len(values) // MOST].quantile(share))


def linear_inverse(ddf: Tensor) -> Tensor:
    """The inverse of the affine map that is nearest to each field ``(B, D, *spatial)``, or no motion where it has none.

    In voxels, the same shape. So a way back by descent need not find again how far the images lie apart as a whole.
    """
    field = ddf.cpu().double()  # which Apple's GPUs don't have
    places = identity_grid(field).flatten(2)[0].T
    places = torch.cat([places, torch.ones_like(places[:, :1])], dim=1)
    goals = places[:, :-1] + field.flatten(2).mT
    matrix = (torch.linalg.pinv(places) @ goals).mT  # (B, D, D + 1)
    linear, offset = matrix[..., :-1], matrix[..., -1:]
    if (torch.linalg.det(linear) < FLAT).any():
        return torch.zeros_like(ddf)
    back = torch.linalg.solve(linear, places[:, :-1].T - offset) - places[:, :-1].T
    return back.reshape(ddf.shape).to(ddf)


def _structure(image: Tensor, mask: Tensor | None) -> Tensor:
    """Where an image ``(B, 1, *spatial)`` has some, bool."""
    weights = torch.ones_like(image) if mask is None else mask
    total, mean, square = (smooth(weights * image**power, NEAR) for power in (0, 1, 2))
    total = total.clamp(min=1e-3)
    return (square / total - (mean / total).square() > STRUCTURE**2) & (weights > 0)
