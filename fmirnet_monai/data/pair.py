"""A pair of images with what belongs to them, from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fmirnet_monai.spatial import Grid

from .images import check_common_labels, check_label_inside, read_image, read_label
from .points import Points, check_points_inside, paired, read_points


@dataclass(frozen=True, eq=False)
class LoadedPair:
    """Images ``(1, *spatial)`` on their own grids, labels and masks in integers, points in RAS+ mm; None where not
    given.
    """

    moving: Tensor
    fixed: Tensor
    moving_label: Tensor | None = None
    fixed_label: Tensor | None = None
    moving_points: Points | None = None
    fixed_points: Points | None = None
    moving_mask: Tensor | None = None
    fixed_mask: Tensor | None = None
    moving_channels: Sequence[Tensor] = ()
    fixed_channels: Sequence[Tensor] = ()

    def arguments(self) -> dict[str, Any]:
        """What ``register`` of a registrar takes."""
        points = {"moving_points": self.moving_points, "fixed_points": self.fixed_points}
        return {
            "moving": self.moving,
            "fixed": self.fixed,
            "moving_label": self.moving_label,
            "fixed_label": self.fixed_label,
            "moving_mask": self.moving_mask,
            "fixed_mask": self.fixed_mask,
            "moving_channels": self.moving_channels,
            "fixed_channels": self.fixed_channels,
            **{name: None if cloud is None else cloud.positions for name, cloud in points.items()},
        }


def read_pair(files: Mapping[str, Any]) -> LoadedPair:
    """Read a pair and check that its parts fit together.

    Args:
        files: paths ``moving`` and ``fixed`` and, if wanted, ``moving_label``, ``fixed_label``, ``moving_points``,
            ``fixed_points``, ``moving_mask``, ``fixed_mask``, and the lists ``moving_channels``,
            ``fixed_channels``.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for one that can't be used, in one line that names it.
    """
    read: dict[str, Any] = {}
    for side in ("moving", "fixed"):
        image = read[side] = read_image(files[side], track_meta=False)
        grid = Grid.of(image)
        for key in (f"{side}_label", f"{side}_mask"):
            if path := files.get(key):
                label = read[key] = read_label(path, track_meta=False)
                if label.dim() - 1 != grid.dims:
                    raise ValueError(f"{path}: has {label.dim() - 1} axes, {files[side]} {grid.dims}.")
                check_label_inside(label, grid, path)
        if path := files.get(f"{side}_points"):
            read[f"{side}_points"] = read_points(path, grid.dims)
            check_points_inside(read[f"{side}_points"], grid, path)
        channels = read[f"{side}_channels"] = [
            read_image(path, track_meta=False) for path in files.get(f"{side}_channels", ())
        ]
        for path, channel in zip(files.get(f"{side}_channels", ()), channels, strict=True):
            if channel.dim() - 1 != grid.dims:
                raise ValueError(f"{path}: has {channel.dim() - 1} axes, {files[side]} {grid.dims}.")
            if not Grid.of(channel).overlaps(grid):
                raise ValueError(f"{path}: has no overlap in space with {files[side]}; give channels of that image.")
    pair = LoadedPair(**read)
    if pair.moving_points and pair.fixed_points:
        pair = replace(pair, moving_points=paired(pair.moving_points, pair.fixed_points))
    if pair.moving_label is not None and pair.fixed_label is not None:
        check_common_labels(pair.moving_label, pair.fixed_label)
    counts = len(pair.moving_channels), len(pair.fixed_channels)
    if counts[0] != counts[1]:
        raise ValueError(f"moving_channels and fixed_channels must be as many, got {counts[0]} and {counts[1]}.")
    dims = [image.dim() - 1 for image in (pair.moving, pair.fixed)]
    if dims[0] != dims[1]:
        raise ValueError(
            f"{files['moving']} is {dims[0]}-D and {files['fixed']} is {dims[1]}-D; both must be the same."
        )
    return pair
