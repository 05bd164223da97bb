"""Files in pipelines and bundles lie where ``read_image`` and SimpleITK place them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from commands import BUNDLES
from monai.bundle import ConfigParser
from monai.transforms import Compose, LoadImaged, SaveImaged
from PIL import Image
from scipy.ndimage import map_coordinates

from fmirnet_monai.data import read_image
from fmirnet_monai.spatial import Grid
from fmirnet_monai.transforms import ReadImaged

HERE = np.array([[-3.0, 0, 0, 5], [0, -3.0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
THERE = HERE + np.array([[0, 0, 0, 40.0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
VALUES = np.random.default_rng(0).integers(-125, 275, (40, 36, 9)).astype(np.int16)


def write(path: Path, values: np.ndarray = VALUES, codes: tuple[int, int] = (1, 2)) -> str:
    image = nib.Nifti1Image(values, None)
    image.header.set_qform(HERE, codes[0])
    image.header.set_sform(THERE if all(codes) else HERE, codes[1])
    nib.save(image, path)
    return str(path)


@pytest.mark.filterwarnings("ignore:.*its qform and its sform")
@pytest.mark.parametrize("codes", [(1, 2), (2, 1), (1, 1), (1, 0), (0, 1), (0, 0)])
def test_values_of_monai_and_the_place_of_itk(codes: tuple[int, int], tmp_path: Path) -> None:
    file = write(tmp_path / "image.nii.gz", codes=codes)
    found, theirs = (read("a")({"a": file})["a"] for read in (ReadImaged, LoadImaged))
    assert torch.equal(found.as_tensor(), theirs.as_tensor()) and found.dtype == theirs.dtype
    assert set(found.meta) == set(theirs.meta)
    assert Grid.of(found[None]).matches(Grid.of(read_image(file)))
    np.testing.assert_allclose(found.meta["original_affine"], found.affine)
    if sum(codes) == 1:  # one place, nothing to choose
        assert torch.equal(found.affine, theirs.affine)
    SaveImaged("a", output_dir=tmp_path, output_postfix="again", separate_folder=False, print_log=False)(
        {"a": found[None]}
    )
    again, first = (sitk.ReadImage(str(tmp_path / name)) for name in ("image_again.nii.gz", "image.nii.gz"))
    np.testing.assert_allclose(again.GetOrigin(), first.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(again.GetDirection(), first.GetDirection(), atol=1e-5)


def test_a_slice_keeps_its_height_in_the_volume(tmp_path: Path) -> None:
    file = write(tmp_path / "slice.nii.gz", VALUES[..., 0])
    with pytest.warns(UserWarning, match=r"slice\.nii\.gz: its qform and its sform lie up to 40 mm"):
        found = ReadImaged("a")({"a": file})["a"]
    np.testing.assert_allclose(found.affine, HERE, atol=1e-5)


def test_other_files_are_read_as_by_monai(tmp_path: Path) -> None:
    Image.fromarray(VALUES[..., 0].astype(np.uint8)).save(tmp_path / "picture.png")
    for name in ("volume.mha", "volume.nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(VALUES.T), str(tmp_path / name))
    files = {file.stem + file.suffix: str(file) for file in tmp_path.iterdir()}
    found, theirs = (read(list(files))(files) for read in (ReadImaged, LoadImaged))
    for name in files:
        assert torch.equal(found[name].as_tensor(), theirs[name].as_tensor()), name
        assert torch.equal(found[name].affine, theirs[name].affine), name
    assert ReadImaged(["picture.png", "absent"], allow_missing_keys=True)(files).keys() == files.keys()
    with pytest.raises(KeyError, match="absent"):
        ReadImaged("absent")(files)


def preprocessing(bundle: str, config: str = "inference", name: str = "preprocessing", **settings: Any) -> Compose:
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs" / f"{config}.json")
    parser.update({"bundle_root": str(BUNDLES / bundle), **settings})
    found = parser.get_parsed_content(name)
    return found if isinstance(found, Compose) else Compose(found)


@pytest.mark.filterwarnings("ignore:.*its qform and its sform")
@pytest.mark.parametrize("codes", [(1, 2), (2, 1)])
@pytest.mark.parametrize("bundle", ["fmirnet_chaos", "fmirnet_echonet", "runet_chaos", "rfcn_chaos"])
def test_bundles_place_a_file_as_register_does(bundle: str, codes: tuple[int, int], tmp_path: Path) -> None:
    flat = bundle.startswith("fmirnet")
    file = write(tmp_path / "image.nii.gz", VALUES[..., 0] if flat else VALUES, codes)
    keys = ["moving", "fixed"] if flat else ["image"]
    found = preprocessing(bundle, spatial_size=[40, 40], pixel_size=3.0)(dict.fromkeys(keys, file))
    ours = Grid.of(read_image(file))
    for key in keys:
        image = found[key]
        # the middle of the image, found again among the voxels that were resampled, padded or turned
        values = torch.as_tensor(image)[0].double()
        voxels = torch.stack(torch.meshgrid(*[torch.arange(n) for n in values.shape], indexing="ij"), -1)[values > 0]
        middle = Grid.of(image).to_world(voxels.double().numpy()).mean(0)
        source = read_image(file)[0] > -125
        expected = ours.to_world(source.nonzero().double().numpy()).mean(0)
        np.testing.assert_allclose(middle, expected, atol=0.5)


def test_fmirnet_chaos_resamples_labels_to_the_nearest_voxel(tmp_path: Path) -> None:
    """Not, as PyTorch's ``nearest``, to the one below, which lies up to half a new voxel off."""
    label = np.zeros((90, 75), np.uint8)
    label[22:53, 31:60] = 1
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    files = {}
    image = np.arange(90 * 75, dtype=np.int16).reshape(90, 75)
    for name, values, end in (("image", image, ""), ("label", label, "_label")):
        nib.save(nib.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
        files |= {f"{side}{end}": str(tmp_path / f"{name}.nii.gz") for side in ("moving", "fixed")}
    for config, name in (("train", "load_pair"), ("inference", "preprocessing")):
        found = preprocessing("fmirnet_chaos", config, name, spatial_size=[30, 30])(files)["fixed_label"]
        # from scipy: each new voxel's centre, and the voxel of the file that is nearest to it
        x, y = ((np.arange(n) + 0.5) * size / n - 0.5 for n, size in ((30, 90), (25, 75)))
        expected = map_coordinates(label, np.meshgrid(x, y, indexing="ij"), order=0)
        assert found.shape == (1, 30, 30)
        inner = torch.as_tensor(found)[0, :, 2:27]  # padded on both sides
        np.testing.assert_array_equal(inner, expected)
        centre = Grid.of(found).to_world(torch.as_tensor(found)[0].nonzero().double().numpy()).mean(0)
        np.testing.assert_allclose(centre, np.array([37.0, 45.0]) * 2, atol=1.1)


@pytest.mark.parametrize(("axes", "wanted"), [(2, 3), (3, 2)])
def test_an_image_of_other_axes_is_told(axes: int, wanted: int, tmp_path: Path) -> None:
    file = write(tmp_path / "image.nii.gz", VALUES if axes == 3 else VALUES[..., 0], (1, 0))
    assert ReadImaged("a", spatial_dims=axes)({"a": file})["a"].dim() == axes
    with pytest.raises(ValueError, match=rf"image\.nii\.gz: has {axes} axes, .* takes images of {wanted}"):
        ReadImaged("a", spatial_dims=wanted)({"a": file})
