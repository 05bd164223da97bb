"""Image files in a pipeline, placed where everything else here places them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImaged
from monai.utils import MetaKeys

from fmirnet_monai.formats import NIFTI, suffix_of
from fmirnet_monai.spatial.geometry import nifti_place, read_nifti
from fmirnet_monai.utils import reading

DAMAGED = "get what is damaged again, or convert it to .nii.gz"


class ReadImaged(LoadImaged):
    """MONAI's ``LoadImaged``, with a NIfTI's place as ITK, ANTs and 3D Slicer take it where qform and sform differ.

    MONAI's own reader takes the sform, which may lie elsewhere than the transforms that this package writes. MONAI's
    ``ITKReader`` would do but for two things: it reads NaN as 0, and gives slices of a volume no height.

    Args:
        keys: file names.
        allow_missing_keys: don't raise when a key is absent.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """Read ``data[key]`` for each key, with a warning where the two places differ."""
        files = [data[key] for key in self.key_iterator(dict(data))]
        for file in files:
            if isinstance(file, str | Path) and suffix_of(file, NIFTI):
                with reading(file, f"can't be read as an image ({{}}); {DAMAGED}."):
                    read_nifti(file)  # whose header is checked then
        named = ", ".join(map(str, files))
        with reading(named, f"can't be read as images ({{}}); {DAMAGED}."):
            result: dict[Hashable, Any] = super().__call__(data, reader)
            for key in self.key_iterator(result):
                image = result[key]
                file = str(image.meta["filename_or_obj"]) if isinstance(image, MetaTensor) else ""
                if suffix_of(file, NIFTI) and (place := nifti_place(file)) is not None:
                    image.affine = torch.from_numpy(place)
                    image.meta[MetaKeys.ORIGINAL_AFFINE] = torch.from_numpy(place.copy())
        return result
