"""Registration as a step of a MONAI pipeline."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, ensure_tuple_rep

from .registrar import Registrar


class Registerd(MapTransform):
    """Register one image of a dictionary to another, and warp any images and labels with the same field.

    Works with a bundle, with refinement, or without any network (asked for in MONAI issue 9008)::

        Compose([
            LoadImaged(["pre", "post", "pre_seg"]), EnsureChannelFirstd(["pre", "post", "pre_seg"]),
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
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.moving_key = moving_key
        self.fixed_key = fixed_key
        self.registrar = registrar
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.names = self.keys if names is None else ensure_tuple_rep(names, len(self.keys))
        self.ddf_key = ddf_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the warped images and the field."""
        result = dict(data)
        fixed = result[self.fixed_key]
        flat = fixed.dim() == 3 or min(fixed.shape[1:]) == 1
        registrar = self.registrar or Registrar(spatial_dims=2 if flat else 3)
        affine_stage, deformable = registrar.estimate(result[self.moving_key], fixed)
        field = deformable.then_affine(affine_stage)
        affine = torch.from_numpy(field.grid.affine.copy())
        for key, name, mode in self.key_iterator(result, self.names, self.mode):
            warped = field.warp(result[key], mode=mode, padding_mode="zeros" if mode == "nearest" else "border")
            source = {k: v for k, v in getattr(result[key], "meta", {}).items() if k == ImageMetaKey.FILENAME_OR_OBJ}
            result[name] = MetaTensor(torch.as_tensor(warped), affine=affine, meta=source)
        if self.ddf_key is not None:
            result[self.ddf_key] = MetaTensor(field.ddf, affine=affine)
        return result
