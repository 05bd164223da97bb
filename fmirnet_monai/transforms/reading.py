"""Image files in a pipeline, placed where everything else here places them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImaged
from monai.utils import MetaKeys

from fmirnet_monai.formats import NIFTI, suffix_of
from fmirnet_monai.spatial.geometry import nifti_place


class ReadImaged(LoadImaged):
    """MONAI's ``LoadImaged``, with a NIfTI's place as ITK, ANTs and 3D Slicer take it where qform and sform differ.

    MONAI's own reader takes the sform, which may lie elsewhere than the transforms that this package writes. MONAI's
    ``ITKReader`` would do but for two things: it reads NaN as 0, and gives slices of a volume no height.

    Args:
        keys: file names.
        allow_missing_keys: don't raise when a key is absent.
        spatial_dims: axes that each image must have; by default any number.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, spatial_dims: int | None = None) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self.spatial_dims = spatial_dims

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """Read ``data[key]`` for each key, with a warning where the two places differ.

        Raises:
            ValueError: for an image of another number of axes.
        """
        result: dict[Hashable, Any] = super().__call__(data, reader)
        for key in self.key_iterator(result):
            image = result[key]
            file = str(image.meta["filename_or_obj"]) if isinstance(image, MetaTensor) else ""
            if self.spatial_dims not in (None, image.dim()):
                raise ValueError(
                    f"{file or key}: has {image.dim()} axes, {list(image.shape)}, and this bundle takes images of "
                    f"{self.spatial_dims}; 'python -m fmirnet_monai register' and 'prepare' take volumes and slices."
                )
            if suffix_of(file, NIFTI) and (place := nifti_place(file)) is not None:
                image.affine = torch.from_numpy(place)
                image.meta[MetaKeys.ORIGINAL_AFFINE] = torch.from_numpy(place.copy())
        return result
