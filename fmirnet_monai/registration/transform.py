"""Registration as a step of a MONAI pipeline."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, ensure_tuple_rep
from torch import Tensor

from fmirnet_monai.spatial import DisplacementField, Grid, resample
from fmirnet_monai.utils import warn

from .base import positions
from .guidance import Guidance, Hints
from .registrar import Registrar


class Registerd(MapTransform):
    """Register one image of a dictionary to another, and warp any images and labels with the same field.

    Works with a bundle, with refinement, or without any network (asked for in MONAI issue 9008)::

        Compose([
            ReadImaged(["pre", "post", "pre_seg"]), EnsureChannelFirstd(["pre", "post", "pre_seg"]),
            Registerd(["pre", "pre_seg"], moving_key="pre", fixed_key="post", mode=["bilinear", "nearest"]),
        ])

    Each image is resampled once, from its own grid onto the fixed image's.

    Args:
        keys: channel-first images and labels in the moving image's space, to be warped.
        moving_key: the image to register.
        fixed_key: the image to register it to.
        registrar: how; by default direct optimisation, see :py:class:`Registrar`.
        mode: interpolation per key, ``"bilinear"`` or ``"nearest"`` (labels).
        names: keys to write, one per key; None overwrites ``keys``.
        ddf_key: where to store the field ``(D, *spatial)`` in voxels of the fixed image, which
            :py:class:`fmirnet_monai.transforms.Warpd` applies; None doesn't store it.
        inside_key: where to store the map ``(1, *spatial)`` of 0 and 1 that says where the field leads into the moving
            image; None doesn't store it.
        moving_mask_key: mask of the moving image, on any grid in its space; where it is 0 the image says nothing.
        fixed_mask_key: the same of the fixed image.
        fill: value beyond the moving image, by default the registrar's, else its smallest; labels have 0.
        label_keys: label maps of the moving and the fixed image, which then guide the registration.
        point_keys: landmarks of both, ``(N, D)`` in RAS+ mm in the same order, which then guide it.
        channel_keys: further images of the moving and of the fixed one, as many, which are compared too.
        allow_missing_keys: don't raise when one of ``keys`` is absent.
    """

    def __init__(
        self,
        keys: KeysCollection,
        moving_key: str,
        fixed_key: str,
        registrar: Registrar | None = None,
        mode: str | Sequence[str] = "bilinear",
        names: KeysCollection | None = None,
        ddf_key: str | None = "ddf",
        allow_missing_keys: bool = False,
        inside_key: str | None = None,
        moving_mask_key: str | None = None,
        fixed_mask_key: str | None = None,
        fill: float | None = None,
        label_keys: Sequence[str] | None = None,
        point_keys: Sequence[str] | None = None,
        channel_keys: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.moving_key = moving_key
        self.fixed_key = fixed_key
        self.registrar = registrar
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.names = self.keys if names is None else ensure_tuple_rep(names, len(self.keys))
        self.ddf_key = ddf_key
        self.inside_key = inside_key
        self.mask_keys = moving_mask_key, fixed_mask_key
        self.fill = fill
        guidance = Guidance(labels=float(label_keys is not None), points=float(point_keys is not None))
        self.guidance = guidance if registrar is None else registrar.guidance
        for guide, guiding in (("label", label_keys), ("point", point_keys), ("channel", channel_keys)):
            if guiding is None:
                continue
            if len(guiding) != 2 or isinstance(guiding, str):
                raise ValueError(f"{guide}_keys must be two, of the moving and the fixed image, got {guiding!r}.")
            if not getattr(self.guidance, f"{guide}s"):
                raise ValueError(f"{guide}_keys: the registrar's guidance gives {guide}s no weight.")
        self.label_keys = label_keys
        self.point_keys = point_keys
        self.channel_keys = channel_keys

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the warped images and the field."""
        result = dict(data)
        moving, fixed = result[self.moving_key], result[self.fixed_key]
        flat = fixed.dim() == 3 or min(fixed.shape[1:]) == 1
        registrar = self.registrar or Registrar(spatial_dims=2 if flat else 3, guidance=self.guidance)
        masks = [None if key is None else result[key] for key in self.mask_keys]
        notes: list[str] = []
        hints = self._hints(result)
        affine, deformable = registrar.estimate(moving, fixed, masks[0], masks[1], hints=hints, notes=notes)
        for text in notes:
            warn(text)
        found, grid = deformable.then(affine), deformable.grid
        fill = registrar.fill if self.fill is None else self.fill
        for key, name, mode in self.key_iterator(result, self.names, self.mode):
            if mode == "nearest":
                values, _ = resample(result[key], grid, found, mode=mode)
            else:
                values, _ = resample(result[key], grid, found, mode=mode, fill=fill, antialias=registrar.antialias)
            source = {k: v for k, v in getattr(result[key], "meta", {}).items() if k == ImageMetaKey.FILENAME_OR_OBJ}
            result[name] = _on_grid(values, grid)
            result[name].meta.update(source)
        if self.inside_key is not None:
            inside = resample(moving, grid, found)[1]
            result[self.inside_key] = _on_grid(inside[None].to(torch.uint8), grid)
        if self.ddf_key is not None:
            result[self.ddf_key] = _on_grid(DisplacementField.of(found, grid)[0].ddf.to(fixed.device), grid)
        return result

    def _hints(self, data: Mapping[Hashable, Any]) -> Hints:
        """What guides the registration of this pair."""
        moving, fixed = ([data[key] for key in side] for side in self.channel_keys or ((), ()))
        labels = [data[key] for key in self.label_keys or ()] or [None, None]
        points = [positions(data[key]) for key in self.point_keys or ()] or [None, None]
        return Hints((labels[0], labels[1]), (points[0], points[1]), (moving, fixed))


def _on_grid(values: Tensor, grid: Grid) -> MetaTensor:
    return MetaTensor(values, affine=torch.from_numpy(grid.affine.copy()))
