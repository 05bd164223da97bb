"""Whether a file states where the patient's sides are."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest

from fmirnet_monai.data import read_image
from fmirnet_monai.data.orientation import has_orientation, has_spacing
from fmirnet_monai.report.viewer import place_known

VALUES = np.arange(60, dtype=np.float32).reshape(3, 4, 5)


@pytest.mark.parametrize(("qform", "sform", "stated"), [(0, 0, False), (1, 0, True), (0, 2, True), (1, 1, True)])
def test_nifti_by_its_codes(tmp_path: Path, qform: int, sform: int, stated: bool) -> None:
    place = np.diag([-1.0, -2, 3, 1])
    place[:3, 3] = 5, 6, -7
    image = nib.Nifti1Image(VALUES, place)
    image.set_qform(image.affine, qform)
    image.set_sform(image.affine, sform)
    path = tmp_path / "image.nii.gz"
    nib.save(image, path)
    assert has_orientation(path) == stated
    assert place_known(read_image(path)) == (True, stated)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii"])
def test_what_itk_writes_has_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    itk.imwrite(itk.image_from_array(VALUES), str(path))
    assert has_orientation(path)


def test_nrrd_in_no_patients_space(tmp_path: Path) -> None:
    path = tmp_path / "image.nrrd"
    header = "NRRD0004\ntype: float\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nendian: little\nspacings: 1 2 3\n\n"
    path.write_bytes(header.encode() + VALUES.tobytes())
    assert not has_orientation(path)
    path.write_bytes(header.replace("spacings", "space: right-anterior-superior\nspacings").encode() + VALUES.tobytes())
    assert has_orientation(path)


def test_others(tmp_path: Path) -> None:
    assert not has_orientation("picture.PNG") and not has_spacing("picture.PNG") and has_spacing("image.nii.gz")
    nib.save(nib.AnalyzeImage(VALUES, np.eye(4)), tmp_path / "old.hdr")
    assert not has_orientation(tmp_path / "old.hdr")
    assert has_orientation(tmp_path / "gone.nii.gz") and has_orientation(tmp_path)
    (tmp_path / "broken.nii").write_bytes(b"none")
    assert not has_orientation(tmp_path / "broken.nii")
