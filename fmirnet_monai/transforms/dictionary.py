"""Dictionary transforms that MONAI lacks for image pairs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import FolderLayout, MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Resize
from monai.utils import ensure_tuple, ensure_tuple_rep
from torch import Tensor

from fmirnet_monai.data import check_finite
from fmirnet_monai.spatial import DisplacementField, Grid, compose, resample
from fmirnet_monai.spatial.files import write_displacement


class CheckFinited(MapTransform):
    """Raise ValueError that names the file when an image holds NaN or infinity; give the data back unchanged."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check ``data[key]`` for each key."""
        for key in self.key_iterator(dict(data)):
            image = data[key]
            source = image.meta.get("filename_or_obj", key) if isinstance(image, MetaTensor) else key
            check_finite(torch.as_tensor(image).numpy(), str(source))
        return dict(data)


class _GridResize(Resize):
    """Resize to what the image's own grid asks for; shrinking images are smoothed first.

    Args:
        mode: ``"bilinear"`` or ``"nearest"`` (labels).
    """

    def __init__(self, mode: str = "bilinear") -> None:
        smooth = mode != "nearest"  # PyTorch's "nearest" rounds down, which shifts a label by up to half its new voxel
        super().__init__(spatial_size=(), mode=mode if smooth else "nearest-exact", anti_aliasing=smooth)

    @abstractmethod
    def shape(self, grid: Grid) -> tuple[int, ...]:
        """Size that an image on ``grid`` gets."""

    def __call__(self, img: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """``(C, X, Y[, Z])`` with the geometry of a MetaTensor, which says how large its voxels are."""
        grid = Grid.of(img)
        self.spatial_size = self.shape(grid)
        mode = "trilinear" if self.mode == "bilinear" and grid.dims == 3 else self.mode
        return super().__call__(img, mode, *args, **kwargs)


class PixelSize(_GridResize):
    """Resample the first two axes to square pixels of one size; slices of a volume stay as many as they are.

    Args:
        pixel_size: in mm.
        mode: ``"bilinear"`` or ``"nearest"`` (labels).
    """

    def __init__(self, pixel_size: float, mode: str = "bilinear") -> None:
        if pixel_size <= 0:
            raise ValueError(f"pixel_size must be above 0 mm, got {pixel_size}.")
        super().__init__(mode)
        self.pixel_size = pixel_size

    def shape(self, grid: Grid) -> tuple[int, ...]:
        """See :py:class:`PixelSize`."""
        plane = [max(1, round(grid.shape[i] * grid.spacing[i] / self.pixel_size)) for i in (0, 1)]
        return (*plane, *grid.shape[2:])


class LongestSide(_GridResize):
    """Resample over the same extent to voxels of equal sides, so many along the longest axis.

    Args:
        voxels: along the longest axis.
        mode: ``"bilinear"`` or ``"nearest"`` (labels).
    """

    def __init__(self, voxels: int, mode: str = "bilinear") -> None:
        if voxels < 2:
            raise ValueError(f"voxels must be at least 2, got {voxels}.")
        super().__init__(mode)
        self.voxels = voxels

    def shape(self, grid: Grid) -> tuple[int, ...]:
        """See :py:class:`LongestSide`."""
        return grid.with_longest_side(self.voxels).shape


class _GridResized(MapTransform, InvertibleTransform):
    """Dictionary form of such a transform, with a mode per key."""

    def __init__(self, keys: KeysCollection, resizers: Sequence[_GridResize], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resizers = resizers

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample each ``data[key]``."""
        result = dict(data)
        for key, resizer in self.key_iterator(result, self.resizers):
            result[key] = resizer(result[key])
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring each ``data[key]`` back to the voxels that it had."""
        result = dict(data)
        for key, resizer in self.key_iterator(result, self.resizers):
            result[key] = resizer.inverse(result[key])
        return result


class PixelSized(_GridResized):
    """Dictionary form of :py:class:`PixelSize`, with the mode per key.

    Args:
        keys: images and labels ``(C, X, Y[, Z])``.
        pixel_size: in mm.
        mode: ``"bilinear"`` or ``"nearest"`` (labels).
        allow_missing_keys: don't raise when a key is absent.
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixel_size: float,
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        modes = ensure_tuple_rep(mode, len(ensure_tuple(keys)))
        super().__init__(keys, [PixelSize(pixel_size, name) for name in modes], allow_missing_keys)


class LongestSided(_GridResized):
    """Dictionary form of :py:class:`LongestSide`, with the mode per key.

    Args:
        keys: images and labels ``(C, X, Y[, Z])``.
        voxels: along the longest axis.
        mode: ``"bilinear"`` or ``"nearest"`` (labels).
        allow_missing_keys: don't raise when a key is absent.
    """

    def __init__(
        self,
        keys: KeysCollection,
        voxels: int,
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        modes = ensure_tuple_rep(mode, len(ensure_tuple(keys)))
        super().__init__(keys, [LongestSide(voxels, name) for name in modes], allow_missing_keys)


class Warpd(MapTransform):
    """Warp images and labels with a displacement field of the same dictionary.

    The field may lie on another device than the images, as that of a network does; the results lie where the images do.

    Args:
        keys: channel-first images or labels ``(C, *spatial)``, on the grid of the field unless ``in_world``.
        ddf_key: the field ``(D, *spatial)`` in voxels, see :py:mod:`fmirnet_monai.spatial.field`.
        names: keys to write, one per key; None overwrites ``keys``.
        mode: interpolation per key, ``"bilinear"`` or ``"nearest"`` (labels).
        reference_key: image whose geometry the results carry, the fixed image; None keeps each one's own.
        allow_missing_keys: don't raise when a key is absent.
        in_world: each image lies on a grid of its own and is found by its geometry, not by its voxels' indices; the
            field lies on the grid of ``reference_key``.
        fill: value beyond the image, by default its smallest, and 0 for labels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        ddf_key: str = "pred",
        names: KeysCollection | None = None,
        mode: str | Sequence[str] = "bilinear",
        reference_key: str | None = None,
        allow_missing_keys: bool = False,
        in_world: bool = False,
        fill: float | None = None,
    ) -> None:
        if in_world and reference_key is None:
            raise ValueError("in_world needs a reference_key: the image on whose grid the field lies.")
        super().__init__(keys, allow_missing_keys)
        self.ddf_key = ddf_key
        self.names = self.keys if names is None else ensure_tuple_rep(names, len(self.keys))
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.reference_key = reference_key
        self.in_world = in_world
        self.fill = fill

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the warped tensors, as MetaTensor where geometry is known."""
        result = dict(data)
        ddf = torch.as_tensor(result[self.ddf_key]).float()
        for key, name, mode in self.key_iterator(result, self.names, self.mode):
            image = result[key]
            grid = Grid.of(result[self.reference_key]) if self.in_world else Grid(ddf.shape[1:], np.eye(len(ddf) + 1))
            source = torch.as_tensor(image)
            place = Grid.of(image) if self.in_world else Grid(source.shape[1:], grid.affine)
            field = DisplacementField(ddf.to(source.device), grid)
            fill = None if mode == "nearest" else self.fill
            warped, _ = resample(source, grid, field, grid=place, mode=mode, fill=fill)
            reference = result[self.reference_key] if self.reference_key else image
            if isinstance(reference, MetaTensor):
                warped = MetaTensor(warped, meta=deepcopy(reference.meta))
            result[name] = warped
        return result


class ComposeDisplacementd(MapTransform):
    """Join a displacement field with that of an earlier stage: ``x -> x + inner(x)``, then the outer one from there.

    The moving image warped by the result is that warped by ``outer`` first and by ``inner`` then, but resampled once.

    Args:
        keys: inner fields ``(D, *spatial)`` in voxels, which are overwritten.
        outer_key: the earlier stage's field on the same grid; where it is absent, nothing changes.
    """

    def __init__(self, keys: KeysCollection, outer_key: str) -> None:
        super().__init__(keys)
        self.outer_key = outer_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Overwrite each ``data[key]``."""
        result = dict(data)
        if self.outer_key in result:
            outer = torch.as_tensor(result[self.outer_key]).float()[None]
            for key in self.key_iterator(result):
                inner = torch.as_tensor(result[key]).float()[None]
                result[key] = compose(outer.to(inner), inner)[0]
        return result


class SaveDisplacementd(MapTransform):
    """Write a displacement field as ITK file in mm, named after the fixed image, the data unchanged.

    Args:
        keys: fields ``(D, *spatial)`` in voxels.
        output_dir: folder to write.
        reference_key: the fixed image on the field's grid, a MetaTensor that knows its file.
        data_root_dir: the part of the fixed image's folder that is left out below ``output_dir``.
        output_postfix: added to the fixed image's name.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        reference_key: str = "fixed",
        data_root_dir: str = "",
        output_postfix: str = "displacement",
    ) -> None:
        super().__init__(keys)
        self.reference_key = reference_key
        self.layout = FolderLayout(
            output_dir, output_postfix, extension=".nii.gz", parent=False, data_root_dir=data_root_dir
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write ``data[key]`` for each key."""
        reference = data[self.reference_key]
        for key in self.key_iterator(dict(data)):
            field = DisplacementField(torch.as_tensor(data[key]).cpu().float(), Grid.of(reference))
            write_displacement(field, str(self.layout.filename(reference.meta["filename_or_obj"])))
        return dict(data)
