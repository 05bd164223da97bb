"""Image files in a pipeline, placed where everything else here places them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImaged
from monai.utils import MetaKeys, ensure_tuple
from numpy.typing import NDArray

from fmirnet_monai.formats import NIFTI, suffix_of
from fmirnet_monai.spatial.geometry import nifti_place
from fmirnet_monai.spatial.headers import check_nibabel
from fmirnet_monai.utils import reading

DAMAGED = "get what is damaged again, or convert it to .nii.gz"


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
            ValueError: naming the file, when one can't be read or has another number of axes.
        """
        files = {key: ensure_tuple(data[key]) for key in self.key_iterator(dict(data))}
        places = {key: self._place(given[0]) for key, given in files.items()}
        named = ", ".join(str(file) for given in files.values() for file in given)
        with reading(named, f"can't be read as images ({{}}); {DAMAGED}."):
            result: dict[Hashable, Any] = super().__call__(data, reader)
        for key in self.key_iterator(result):
            image, place = result[key], places[key]
            self._check_axes(", ".join(map(str, files[key])), image)
            if place is not None and isinstance(image, MetaTensor):
                image.affine = torch.from_numpy(place)
                image.meta[MetaKeys.ORIGINAL_AFFINE] = torch.from_numpy(place.copy())
        return result

    @staticmethod
    def _place(file: Any) -> NDArray[np.float64] | None:
        """Where ITK places a NIfTI on which tools differ, see :py:func:`nifti_place`; its header is checked first."""
        if not isinstance(file, str | Path) or not suffix_of(file, NIFTI):
            return None
        with reading(file, f"can't be read as an image ({{}}); {DAMAGED}."):
            check_nibabel(nib.load(file))
            return nifti_place(file)

    def _check_axes(self, name: str, image: torch.Tensor) -> None:
        if image.ndim not in (2, 3) or sum(size > 1 for size in image.shape) < 2:
            raise ValueError(
                f"{name}: has size {tuple(image.shape)}, expected 2 or 3 axes, two of them of 2 voxels or more; "
                "'fmirnet register_series' takes a series, otherwise extract one time point or channel."
            )
        if self.spatial_dims not in (None, image.ndim):
            raise ValueError(
                f"{name}: has {image.ndim} axes, {list(image.shape)}, and this bundle takes images of "
                f"{self.spatial_dims}; 'fmirnet register' and 'prepare' take volumes and slices."
            )
