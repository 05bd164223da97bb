"""Image files in a pipeline, placed where everything else here places them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImaged
from monai.utils import MetaKeys

from fmirnet_monai.formats import NIFTI, suffix_of
from fmirnet_monai.spatial.geometry import nifti_place
from fmirnet_monai.utils import reason


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
        """Read ``data[key]`` for each key, with a warning where the two places differ.

        Raises:
            ValueError: naming the file, when one can't be read.
        """
        try:
            result: dict[Hashable, Any] = super().__call__(data, reader)
        except Exception as error:  # MONAI's readers raise anything, in many lines
            raise ValueError(self._told(data, reader) or reason(error)) from error
        for key in self.key_iterator(result):
            image = result[key]
            file = str(image.meta["filename_or_obj"]) if isinstance(image, MetaTensor) else ""
            if image.ndim not in (2, 3) or sum(n > 1 for n in image.shape) < 2:
                raise ValueError(
                    f"{file}: has size {tuple(image.shape)}, expected 2 or 3 axes, two of them of 2 voxels or more; "
                    "extract one time point or channel of a whole image."
                )
            if suffix_of(file, NIFTI) and (place := nifti_place(file)) is not None:
                image.affine = torch.from_numpy(place)
                image.meta[MetaKeys.ORIGINAL_AFFINE] = torch.from_numpy(place.copy())
        return result

    def _told(self, data: Mapping[Hashable, Any], reader: Any) -> str:
        """Which file can't be read."""
        for key in self.key_iterator(dict(data)):
            try:
                self._loader(data[key], reader)
            except Exception:
                there = "can't be read as an image; it is damaged or of another format: get it again, or convert it"
                try:
                    with suppress(IsADirectoryError):
                        Path(data[key]).open("rb").close()
                except OSError as error:
                    there = f"{reason(error)}; check its path and rights"
                return f"{data[key]}: {there}."
        return ""
