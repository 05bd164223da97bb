"""The command ``register`` over file formats, geometries, processes and real pairs, judged by SimpleITK and ITK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import itk
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.typing import NDArray

from fmirnet_monai.cli import main
from fmirnet_monai.data import read_image
from fmirnet_monai.spatial import smooth
from fmirnet_monai.spatial.files import read_displacement

SeriesWriter = Callable[..., list[Path]]


def blob_pair(dims: int) -> tuple[NDArray, NDArray]:
    """Two smooth random images (whole numbers); the second is the first, two voxels further along the first axis."""
    shape = (44, 40, 20)[:dims]
    image = smooth(torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1)), 2.0)[0, 0]
    image = (200 * (image - image.min()) / (image.max() - image.min())).round()
    return image.numpy(), image.roll(-2, 0).numpy()


def directions(name: str, dims: int) -> NDArray:
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.eye(dims)
    turn[:2, :2] = [[c, -s], [s, c]]
    if dims == 3 and name == "oblique":
        turn = turn @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return {"plain": np.eye(dims), "flipped": np.diag([-1.0, 1.0, -1.0][:dims]), "oblique": turn}[name]


def write_dicom(path: Path, values: NDArray, direction: NDArray, writer: SeriesWriter) -> Path:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * np.array([1.5, 1.2, 3.0]), [20.0, -11.0, 5.0]
    writer(path, values.astype(np.int16), affine)
    return path


def write(path: Path, values: NDArray, direction: NDArray, form: str) -> Path:
    spacing, origin = np.array([1.5, 1.2, 3.0][: values.ndim]), np.array([20.0, -11.0, 5.0][: values.ndim])
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T.astype(np.uint8 if form == ".png" else np.float32)))
    if form != ".png":
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(origin.tolist())
        image.SetDirection(direction.ravel().tolist())
    file = path.with_name(path.name + form)
    sitk.WriteImage(image, str(file))
    return file


def resampled(output: Path, moving: Path, fixed: Path) -> list[NDArray]:
    """The moving image through the saved transform, by SimpleITK and by ITK."""
    results = []
    if moving.is_dir():
        images = [sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(p))) for p in (moving, fixed)]
    else:
        images = [sitk.ReadImage(str(path)) for path in (moving, fixed)]
    vectors = sitk.ReadImage(str(output / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(vectors)
    floating = sitk.Cast(images[0], sitk.sitkFloat32)
    results.append(sitk.GetArrayFromImage(sitk.Resample(floating, images[1], transform, sitk.sitkLinear, -1.0)))
    dims = images[0].GetDimension()
    field = itk.imread(str(output / "displacement.nii.gz"))
    warper = itk.WarpImageFilter[itk.Image[itk.F, dims], itk.Image[itk.F, dims], type(field)].New(
        Input=itk.imread(str(moving), itk.F), DisplacementField=field, EdgePaddingValue=-1
    )
    warper.SetOutputParametersFromImage(field)
    warper.Update()
    results.append(itk.array_from_image(warper.GetOutput()))
    return [result.T for result in results]


CASES = [(form, name, 3) for form in (".nii.gz", ".mha") for name in ("plain", "flipped", "oblique")]
CASES += [(".mhd", "oblique", 3), (".nrrd", "oblique", 3), ("DICOM", "plain", 3), ("DICOM", "oblique", 3)]
CASES += [(".nii.gz", "oblique", 2), (".mha", "flipped", 2), (".png", "plain", 2)]


@pytest.mark.parametrize(("form", "name", "dims"), CASES)
def test_itk_and_simpleitk_repeat_the_result(
    tmp_path: Path, write_series: SeriesWriter, form: str, name: str, dims: int
) -> None:
    direction = directions(name, dims)
    files = [
        write_dicom(tmp_path / key, values, direction, write_series)
        if form == "DICOM"
        else write(tmp_path / key, values, direction, form)
        for key, values in zip(("moving", "fixed"), blob_pair(dims), strict=True)
    ]
    output = tmp_path / "out"
    main(["register", "--moving", str(files[0]), "--fixed", str(files[1]), "--bundle", "none", "--report", "false",
          "--output_dir", str(output)])  # fmt: skip
    metrics = json.loads((output / "metrics.json").read_text())["metrics"]
    assert metrics["ncc"] > 0.95 > metrics["before_ncc"] and metrics["folding"] == 0
    warped = np.asarray(read_image(output / "warped.nii.gz"))[0]
    for again in resampled(output, *files):
        inside = again >= 0
        assert inside.mean() > 0.75
        assert np.abs(again - warped)[inside].max() < 0.5  # of 200; float32 files hold micrometres


@pytest.mark.parametrize("dims", [2, 3])
def test_affine_and_field_in_one_file_for_itk_and_simpleitk(tmp_path: Path, dims: int) -> None:
    files = [
        write(tmp_path / key, values, directions("oblique", dims), ".nii.gz")
        for key, values in zip(("moving", "fixed"), blob_pair(dims), strict=True)
    ]
    output = tmp_path / "out"
    main(["register", "--moving", str(files[0]), "--fixed", str(files[1]), "--bundle", "none", "--report", "false",
          "--affine", "rigid", "--output_dir", str(output)])  # fmt: skip
    moving, fixed = (sitk.ReadImage(str(path)) for path in files)
    whole = sitk.ReadTransform(str(output / "transform.h5"))
    again = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, whole, sitk.sitkLinear, -1.0)).T
    warped = np.asarray(read_image(output / "warped.nii.gz"))[0]
    assert np.abs(again - warped)[again >= 0].max() < 0.5
    (composite,) = itk.transformread(str(output / "transform.h5"))
    point = fixed.TransformContinuousIndexToPhysicalPoint([15.2, 12.7, 9.1][:dims])
    assert np.allclose(list(composite.TransformPoint(point)), whole.TransformPoint(point), atol=1e-3)


def test_volume_slice_by_slice_moves_within_slices_only(tmp_path: Path) -> None:
    files = [
        write(tmp_path / key, values, np.eye(3), ".nii.gz")
        for key, values in zip(("moving", "fixed"), blob_pair(3), strict=True)
    ]
    output = tmp_path / "out"
    main(["register", "--moving", str(files[0]), "--fixed", str(files[1]), "--slices", "true", "--refine", "5",
          "--bundle", "fmirnet_chaos", "--output_dir", str(output)])  # fmt: skip
    content = json.loads((output / "metrics.json").read_text())
    assert content["settings"]["method"] == "fmirnet_chaos" and content["settings"]["slice_by_slice"] is True
    assert content["metrics"]["ncc"] > content["metrics"]["before_ncc"]
    vectors = sitk.GetArrayFromImage(sitk.ReadImage(str(output / "displacement.nii.gz")))
    assert np.abs(vectors[..., 2]).max() < 1e-4 < np.abs(vectors[..., 0]).max()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("truncated", "can't be read as an image"),
        ("nan", "NaN or infinite"),
        ("constant", "all its intensities are 7"),
        ("four axes", "has 4 axes"),
        ("colour", "3 values per voxel"),
        ("label elsewhere", "lies off the image"),
        ("points elsewhere", "off the image"),
        ("no overlap", "no overlap in space"),
        ("two axes", "both must be the same"),
    ],
)
def test_unfit_files_are_refused_in_one_line(
    bad: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    values = blob_pair(3)[0]
    moving = write(tmp_path / "moving", values, np.eye(3), ".nii.gz")
    fixed = write(tmp_path / "fixed", values, np.eye(3), ".nii.gz")
    words = ["register", "--moving", str(moving), "--fixed", str(fixed), "--output_dir", str(tmp_path / "out")]
    named = moving
    if bad == "truncated":
        moving.write_bytes(moving.read_bytes()[: moving.stat().st_size // 2])
    elif bad in ("nan", "constant"):
        write(tmp_path / "moving", values * np.nan if bad == "nan" else values * 0 + 7, np.eye(3), ".nii.gz")
    elif bad == "four axes":
        sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(str(fixed))] * 2), str(moving))
    elif bad == "colour":
        sitk.WriteImage(sitk.Compose(*[sitk.ReadImage(str(fixed))] * 3), str(moving))
    elif bad == "two axes":
        write(tmp_path / "moving", values[..., 3], np.eye(2), ".nii.gz")
    elif bad == "no overlap":
        far = sitk.ReadImage(str(moving))
        far.SetOrigin([900.0, 0.0, 0.0])
        sitk.WriteImage(far, str(moving))
    elif bad == "points elsewhere":
        named = tmp_path / "points.csv"
        named.write_text("x,y,z\n30,0,20\n900,0,20\n")
        words += ["--moving_points", str(named)]
    else:
        label = sitk.ReadImage(str(fixed)) > 100
        label.SetOrigin([900.0, 0.0, 0.0])
        named = tmp_path / "label.mha"
        sitk.WriteImage(label, str(named))
        words += ["--fixed_label", str(named)]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    lines = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and len(lines) == 1
    assert str(named) in lines[0] and message in lines[0]
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_two_processes_share_the_pairs(tmp_path: Path) -> None:
    """As many as the command has threads."""
    files = [
        write(tmp_path / key, values, np.eye(2), ".nii.gz")
        for key, values in zip(("moving", "fixed"), blob_pair(2), strict=True)
    ]
    pairs = [{"moving": str(files[0]), "fixed": str(files[1])}] * 3 + [{"moving": "gone.nii", "fixed": str(files[1])}]
    (tmp_path / "pairs.json").write_text(json.dumps({"test": pairs}))
    register = ["-m", "fmirnet_monai", "register", "--refine", "2", "--report", "false"]
    command = [sys.executable, *register, "--datalist", "pairs.json", "--output_dir", "out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode != 0 and "1 of 4 pairs failed" in done.stderr
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert table["ncc"].notna().tolist() == [True, True, True, False]
    assert "gone.nii" in table["error"][3]
    main([*register[2:], "--moving", pairs[0]["moving"], "--fixed", pairs[0]["fixed"], "--output_dir",
          str(tmp_path / "alone")])  # fmt: skip
    for folder in (tmp_path / "out").glob("*/"):
        found, alone = (read_displacement(f / "displacement.nii.gz").ddf for f in (folder, tmp_path / "alone"))
        torch.testing.assert_close(found, alone, atol=1e-3, rtol=0.0)


# --- real pairs --------------------------------------------------------------------------------------------------


def real(output: Path, **options: object) -> dict[str, float]:
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    main(["register", *words, "--output_dir", str(output)])
    assert (output / "report.html").stat().st_size > 50_000
    content = json.loads((output / "metrics.json").read_text())
    assert content["inverse_residual"] < 0.05
    return content["metrics"]


@pytest.mark.realdata
def test_camus_end_diastole_to_end_systole(real_data: Path, tmp_path: Path) -> None:
    base = real_data / "camus" / "patient0002" / "patient0002_4CH_"
    metrics = real(tmp_path / "out", moving=f"{base}ED.mhd", fixed=f"{base}ES.mhd", moving_label=f"{base}ED_gt.mhd",
                   fixed_label=f"{base}ES_gt.mhd")  # fmt: skip
    assert metrics["dice"] > metrics["before_dice"] + 0.05
    assert 0 < metrics["assd"] < metrics["before_assd"] < 20 and metrics["folding"] < 0.01


@pytest.mark.realdata
def test_acdc_volume(real_data: Path, tmp_path: Path) -> None:
    base = real_data / "acdc" / "patient001_"
    metrics = real(tmp_path / "out", moving=f"{base}ED.nii.gz", fixed=f"{base}ES.nii.gz",
                   moving_label=f"{base}ED_gt.nii.gz", fixed_label=f"{base}ES_gt.nii.gz")  # fmt: skip
    assert metrics["dice"] > metrics["before_dice"] + 0.1 and metrics["folding"] < 0.01


@pytest.mark.realdata
def test_liver_mr_landmarks(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "eth_liver_4dmri" / "dataset19"
    metrics = real(tmp_path / "out", moving=folder / "exhMaster_unmasked.force_direction.mha",
                   fixed=folder / "cyc_1_6.force_direction.mha", moving_points=folder / "exhMasterLMliver.vtk",
                   fixed_points=folder / "cyc_1_6LMliver.vtk")  # fmt: skip
    assert metrics["before_tre_mean"] > 5 and metrics["tre_mean"] < 2.2 and metrics["folding"] == 0
    points = pd.read_csv(tmp_path / "out" / "warped_points.csv")
    assert len(points) == 36 and {"x", "y", "z"} <= set(points)


@pytest.mark.realdata
def test_btcv_volumes_after_an_affine_stage(real_data: Path, tmp_path: Path) -> None:
    names = [f"{kind}_{subject}.nii.gz" for kind in ("image", "label") for subject in ("01", "00")]
    for name in names:  # half the size in plane: the whole volumes take four minutes on a slow machine
        volume = sitk.ReadImage(str(real_data / "btcv_ct" / name))
        sitk.WriteImage(sitk.Shrink(volume, (2, 2, 1)), str(tmp_path / name))
    moving, fixed, moving_label, fixed_label = (tmp_path / name for name in names)
    metrics = real(tmp_path / "out", moving=moving, fixed=fixed, moving_label=moving_label, fixed_label=fixed_label,
                   affine="true")  # fmt: skip
    assert metrics["dice_6"] > 0.75 > metrics["before_dice_6"] and metrics["digital_folding"] < 1
    assert metrics["assd"] < metrics["before_assd"]
