"""The command ``register_series``: what it writes, which way things go, what it refuses."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from commands import REPOSITORY
from numpy.typing import NDArray

from fmirnet_monai import series_files
from fmirnet_monai.cli import main
from fmirnet_monai.data import (
    Points,
    Series,
    TimeAxis,
    phantom_clip,
    read_points,
    read_series,
    write_clip,
    write_image,
    write_points,
    write_series,
)
from fmirnet_monai.registration import Method, SeriesRegistration
from fmirnet_monai.spatial import DisplacementField, Grid, smooth
from fmirnet_monai.spatial.image import on_grid

SHAPE, COUNT, STEP, DRAWN = (40, 36), 4, 2, 1  # pixels, frames, pixels of motion from frame to frame, labelled frame
SPACING = (1.5, 0.8, 4.0)
QUICK = ("--bundle=none",)


def texture() -> NDArray[np.float32]:
    """``(X, Y, 1, T)``: what is seen moves along the first axis, towards its end."""
    wide = smooth(torch.rand(1, 1, SHAPE[0] + STEP * COUNT, SHAPE[1], generator=torch.Generator().manual_seed(2)), 2.0)
    first = STEP * COUNT
    shown = [wide[0, 0, first - STEP * n : first - STEP * n + SHAPE[0]] for n in range(COUNT)]
    return 1000 * torch.stack(shown, -1)[:, :, None].numpy()


def disc(number: int) -> NDArray[np.uint8]:
    """A disc that moves likewise, ``(X, Y, 1)``."""
    x, y = np.indices(SHAPE)
    return (np.hypot(SPACING[0] * (x - 16 - STEP * number), SPACING[1] * (y - 18)) < 8).astype(np.uint8)[:, :, None] * 3


def place(number: int) -> NDArray[np.float64]:
    """A landmark that moves likewise, in RAS+ mm."""
    return np.array([[SPACING[0] * (14 + STEP * number), SPACING[1] * 20, 0.0]])


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A series of slices as one file, and as a file a frame whose names' digits are in the wrong order as text."""
    folder = tmp_path_factory.mktemp("series")
    affine = np.diag([*SPACING, 1.0])
    image = nib.Nifti1Image(texture(), affine)
    image.header.set_zooms((*SPACING, 40.0))
    image.header.set_xyzt_units("mm", "msec")
    image.header["toffset"] = 12.0
    image.set_sform(affine, 3)
    nib.save(image, folder / "cine.nii.gz")
    for number in range(COUNT):
        nib.save(nib.Nifti1Image(texture()[..., number], affine), folder / f"t{8 + number}.nii.gz")  # 8, 9, 10, 11
    nib.save(nib.Nifti1Image(disc(DRAWN), affine), folder / "label.nii.gz")
    write_points(Points(place(DRAWN), ["apex"]), folder / "points.csv")
    return {name: folder / file for name, file in FILES.items()}


FILES = {"images": "cine.nii.gz", "pattern": "t*.nii.gz", "label": "label.nii.gz", "points": "points.csv"}


@pytest.fixture(scope="module")
def written(given: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out") / "result"
    options = [f"--{name}={given[name]}" for name in ("images", "label", "points")]
    main(["register_series", *options, f"--label_frame={DRAWN}", "--fields=true", f"--output_dir={output}", *QUICK])
    return output


def test_everything_is_written_and_listed(written: Path) -> None:
    names = {"warped.nii.gz", "inside.nii.gz", "labels.nii.gz", "warped_label.nii.gz", "warped_points.csv"}
    names |= {"series.csv", "metrics.json"}
    for number in range(COUNT):
        names |= {f"frame_{number:03d}_{end}" for end in ("transform.h5", "displacement.nii.gz", "points.csv")}
    assert {file.name for file in written.iterdir()} == names  # no hidden folder of maps either
    content = json.loads((written / "metrics.json").read_text())
    assert content["files"] == sorted(names)
    assert content["settings"]["label_frame"] == DRAWN and content["settings"]["reference"] == 0
    documented = set(re.findall(r"`(\w+)`", (REPOSITORY / "docs" / "background" / "metrics.md").read_text()))
    metrics = {name.removeprefix("before_") for name in (*content["metrics"], *content["frames"][0])}
    for keys in (content, metrics, content["seconds"], content["settings"], content["series"]):
        assert set(keys) <= documented
    with (written / "series.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[3]["ncc"]) > 0.95 > float(rows[3]["before_ncc"])
    assert rows[0]["verdict"] == "" and {row["verdict"] for row in rows[1:]} <= {"good", "look", "failed"}
    assert float(rows[1]["before_lncc"]) < float(rows[1]["lncc"])  # of the whole map, not of what a neighbour left
    assert content["metrics"]["temporal_sd"] < 0.5 * content["metrics"]["before_temporal_sd"]


def test_the_time_axis_and_the_place_are_kept(written: Path, given: dict[str, Path]) -> None:
    for name in ("warped.nii.gz", "labels.nii.gz", "inside.nii.gz"):
        image, series = (nib.load(file) for file in (written / name, given["images"]))
        assert image.shape == series.shape and np.allclose(image.affine, series.affine)
        assert image.header.get_zooms()[3] == 40.0 and image.header.get_xyzt_units() == ("mm", "msec")
        assert image.header["toffset"] == 12.0 and image.header["sform_code"] == 3


@pytest.mark.parametrize("stated", [-2.0, 0.0, math.nan, math.inf])
def test_a_time_axis_that_can_t_be_is_left_out(tmp_path: Path, stated: float) -> None:
    image = nib.Nifti1Image(texture(), np.diag([*SPACING, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = stated
    nib.save(image, tmp_path / "cine.nii.gz")
    series = read_series(str(tmp_path / "cine.nii.gz"))
    write_series(texture(), tmp_path / "again.nii.gz", series.grid, series.time)
    header = nib.load(tmp_path / "again.nii.gz").header
    assert header["pixdim"][4] == 1.0 and header.get_xyzt_units()[1] == "unknown"


def test_frames_are_resampled_once_through_the_transform_that_is_written(written: Path, given: dict[str, Path]) -> None:
    warped = nib.load(written / "warped.nii.gz").get_fdata()
    seen = nib.load(written / "inside.nii.gz").get_fdata() > 0
    reference = sitk.ReadImage(str(given["pattern"].parent / "t8.nii.gz"))
    for number in range(COUNT):
        moving = sitk.ReadImage(str(given["pattern"].parent / f"t{8 + number}.nii.gz"))
        through = sitk.ReadTransform(str(written / f"frame_{number:03d}_transform.h5"))
        theirs = sitk.GetArrayFromImage(sitk.Resample(moving, reference, through, sitk.sitkLinear)).T
        shown = seen[..., number]
        assert shown.mean() > 0.6
        assert np.abs(theirs - warped[..., number])[shown].max() < 0.05  # of 1000
        field = sitk.ReadImage(str(written / f"frame_{number:03d}_displacement.nii.gz"), sitk.sitkVectorFloat64)
        point = (-15.0, -8.0, 0.0)
        vector = field[field.TransformPhysicalPointToIndex(point)]
        assert np.allclose(through.TransformPoint(point), np.add(point, vector), atol=1e-4)


def test_labels_and_points_drawn_on_one_frame_are_carried_to_all(written: Path) -> None:
    labels = nib.load(written / "labels.nii.gz")
    assert labels.get_data_dtype() == np.uint8
    carried = np.asanyarray(labels.dataobj)
    assert np.array_equal(carried[..., DRAWN], disc(DRAWN))  # untouched
    for number in range(COUNT):
        both, known = carried[..., number] == 3, disc(number) > 0
        assert set(np.unique(carried[..., number])) == {0, 3}
        assert 2 * (both & known).sum() / (both.sum() + known.sum()) > 0.93
        moved = read_points(written / f"frame_{number:03d}_points.csv", 3)
        assert moved.names == ["apex"] and np.linalg.norm(moved.positions - place(number)) < 1.0  # mm
    on_reference = np.asanyarray(nib.load(written / "warped_label.nii.gz").dataobj)
    assert np.array_equal(on_reference, carried[..., 0])
    assert np.allclose(
        read_points(written / "warped_points.csv", 3).positions,
        read_points(written / "frame_000_points.csv", 3).positions,
    )


def test_a_file_a_frame_is_read_in_the_order_of_their_numbers(
    written: Path, given: dict[str, Path], tmp_path: Path
) -> None:
    series = read_series(str(given["pattern"]))
    assert [Path(name).name for name in series.names] == ["t8.nii.gz", "t9.nii.gz", "t10.nii.gz", "t11.nii.gz"]
    main(["register_series", f"--images={given['pattern']}", f"--output_dir={tmp_path}/out", *QUICK])
    one, other = (nib.load(folder / "warped.nii.gz") for folder in (written, tmp_path / "out"))
    assert np.array_equal(one.get_fdata(), other.get_fdata())
    assert other.header.get_xyzt_units() == ("mm", "unknown")


def test_what_more_frames_left_goes(written: Path, given: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "out")
    (tmp_path / "out" / "frame_000_notes.txt").write_text("the user's")
    pattern = given["pattern"].parent / "t1?.nii.gz"
    main(["register_series", f"--images={pattern}", f"--output_dir={tmp_path}/out", "--metrics=false", *QUICK])
    left = {"frame_000_transform.h5", "frame_001_transform.h5", "warped.nii.gz", "metrics.json"}
    assert {file.name for file in (tmp_path / "out").iterdir()} - {"inside.nii.gz"} == left | {"frame_000_notes.txt"}


def test_a_run_that_was_killed_goes_on(given: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[set] = []

    def stopped(*args: object, progress: bool) -> SeriesRegistration:
        kept = args[5]
        begun.append(set(kept))  # type: ignore[call-overload]
        kept[0, 1] = DisplacementField(torch.zeros(3, *SHAPE, 1), Grid((*SHAPE, 1), np.eye(4)))  # type: ignore[index]
        raise KeyboardInterrupt

    monkeypatch.setattr(series_files, "register_series", stopped)
    options = series_files.SeriesOptions()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            series_files.register_series_files(str(given["images"]), tmp_path / "out", Method("none"), options)
    for other in (Method("none", "rigid"), Method("none", optimizer="affine")):  # other options, other maps
        with pytest.raises(KeyboardInterrupt):
            series_files.register_series_files(str(given["images"]), tmp_path / "out", other, options)
    assert begun == [set(), {(0, 1)}, set(), set()]
    file = next((tmp_path / "out").glob(".series_*/0_1.pt"))
    file.write_bytes(file.read_bytes()[:100])
    kept = series_files._Kept(file.parent, Grid((*SHAPE, 1), np.eye(4)))
    assert kept.get((0, 1)) is None  # damaged: made again


def test_maps_are_kept_until_the_frames_are_written(
    given: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(series_files, "_write_frames", stopped)
    with pytest.raises(SystemExit, match="130"):
        main(["register_series", f"--images={given['images']}", f"--output_dir={tmp_path}/out", *QUICK])
    assert [file.name for file in (tmp_path / "out").glob(".series_*/*")]


def test_a_mean_and_a_clip(tmp_path: Path) -> None:
    clip, _ = phantom_clip(3, frames=8, size=64)
    write_clip(clip[:3], tmp_path / "clip.avi")
    words = ["register_series", f"--images={tmp_path}/clip.avi", f"--output_dir={tmp_path}/out", "--reference=mean"]
    main([*words, "--rounds=1", *QUICK])
    warped = nib.load(tmp_path / "out" / "warped.nii.gz")
    assert warped.shape == (64, 64, 1, 3) and nib.load(tmp_path / "out" / "reference.nii.gz").shape == (64, 64)
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["settings"]["reference"] == "mean" and content["settings"]["rounds"] == 1
    assert content["metrics"]["ncc"] > content["metrics"]["before_ncc"]


def test_a_series_by_itk_is_the_same(given: dict[str, Path], tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(texture().T, isVector=False)
    image.SetSpacing((*SPACING, 40.0))
    image.SetDirection(np.diag([-1.0, -1, 1, 1]).ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "cine.mha"))
    one, other = read_series(str(given["images"])), read_series(str(tmp_path / "cine.mha"))
    assert one.grid.matches(other.grid) and other.time.spacing == 40.0
    assert all(
        torch.equal(a.as_subclass(torch.Tensor), b.as_subclass(torch.Tensor))
        for a, b in zip(one.frames, other.frames, strict=True)
    )


def change(given: dict[str, Path], folder: Path, frame: Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]) -> str:
    """The series with its frame 2 changed, ``frame`` gets values and affine; gives the pattern."""
    for file in given["pattern"].parent.glob("t*.nii.gz"):
        shutil.copy(file, folder)
    changed = nib.load(folder / "t10.nii.gz")
    nib.save(nib.Nifti1Image(*frame(changed.get_fdata(dtype=np.float32), changed.affine)), folder / "t10.nii.gz")
    return f"{folder}/t*.nii.gz"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--images=FOLDER/t8.nii.gz"], "t8.nii.gz: has size .* a series 4 axes"),
        (["--images=FOLDER/t8*.nii.gz"], "has one frame, a series two or more; 'register' takes a pair"),
        (["--images=FOLDER/nothing*.nii.gz"], "no such series: .*nothing.*; check the path, and quote a pattern"),
        (["--images=FOLDER/points.csv"], "points.csv: can't be read as an image"),
        (["--reference=4"], "reference must be first, mean or a frame from 0 to 3, got '4'"),
        (["--reference=-1"], "reference must be first, mean or a frame from 0 to 3, got '-1'"),
        (["--reference=mean", "--label=FOLDER/label.nii.gz"], "label_frame: a mean is no frame"),
        (["--reference=mean", "--rounds=0"], "rounds must be at least 1, got 0"),
        (["--label=FOLDER/label.nii.gz", "--label_frame=4"], "label_frame must be a frame from 0 to 3, got 4"),
        (["--label_frame=1"], "label_frame: there is nothing drawn"),
        (["--label=FOLDER/cine.nii.gz"], "cine.nii.gz: has 4 axes"),
    ],
)
def test_wrong_options_are_told_and_nothing_is_written(
    given: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    words = [word.replace("FOLDER", str(given["images"].parent)) for word in options]
    images = [] if "--images" in words[0] else [f"--images={given['images']}"]
    with pytest.raises(SystemExit) as stop:
        main(["register_series", *images, *words, f"--output_dir={tmp_path}/out", *QUICK])
    err = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and re.search(told, err), err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (lambda values, affine: (0 * values + 7, affine), "t10.nii.gz: all its intensities are 7; give another image"),
        (
            lambda values, affine: (values, affine + np.eye(4, 4, 3)),
            "t10.nii.gz: lies on another grid than .*t8.nii.gz",
        ),
        (lambda values, affine: (values[:30], affine), r"t10.nii.gz: .*\(30, 36, 1\) voxels, not \(40, 36, 1\)"),
    ],
    ids=["constant", "elsewhere", "smaller"],
)
def test_frames_that_do_not_fit_are_named(
    given: dict[str, Path], tmp_path: Path, frame: Callable[[NDArray, NDArray], tuple[NDArray, NDArray]], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        read_series(change(given, tmp_path, frame))


def test_a_constant_frame_of_one_file_is_numbered(tmp_path: Path) -> None:
    values = texture()
    values[..., 2] = 5
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "cine.nii")
    with pytest.raises(ValueError, match=r"cine\.nii, frame 2: all its intensities are 5; leave this frame out"):
        read_series(str(tmp_path / "cine.nii"))


def test_complex_intensities_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(texture().astype(np.complex64), np.eye(4)), tmp_path / "cine.nii")
    with pytest.raises(ValueError, match=r"cine\.nii: has size \(40, 36, 1, 4\) and 2 values per voxel"):
        read_series(str(tmp_path / "cine.nii"))


def test_a_frame_of_the_result_is_not_read_as_input(given: dict[str, Path], tmp_path: Path) -> None:
    points = tmp_path / "frame_000_points.csv"
    shutil.copy(given["points"], points)
    options = series_files.SeriesOptions(points=str(points))
    with pytest.raises(ValueError, match="is an input, which would be overwritten"):
        series_files.register_series_files(str(given["images"]), tmp_path, Method("none"), options)


@pytest.mark.parametrize("command", ["register", "warp"])
def test_a_series_elsewhere_names_this_command(
    given: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    write_image(on_grid(torch.rand(1, 40, 36, 1), Grid((40, 36, 1), np.eye(4))), tmp_path / "fixed.nii")
    words = {"register": ["--moving", "--fixed", "--output_dir"], "warp": ["--image", "--transform", "--output"]}[
        command
    ]
    files = [given["images"], tmp_path / "fixed.nii", tmp_path / "out.nii"]
    with pytest.raises(SystemExit):
        main([command, *(f"{word}={file}" for word, file in zip(words, files, strict=True))])
    assert "has 4 axes (40, 36, 1, 4), expected 2 or 3; 'register_series' takes a series" in capsys.readouterr().err


def test_what_one_frame_alone_has_no_figure_of_has_none_of_the_series() -> None:
    grid = Grid(SHAPE, np.eye(3))
    found = SeriesRegistration(torch.zeros(1, *SHAPE), [DisplacementField.identity(grid)] * 3, 0)
    rows = [{"frame": number, "image": "", "before_ncc": 0.5, "ncc": 0.9} for number in range(3)]
    rows[1]["lncc"] = 0.5  # frame 2 shows nothing that the reference does
    values = series_files.summary(rows, found)
    assert values["ncc"] == pytest.approx(0.9) and math.isnan(values["lncc"])


@pytest.mark.filterwarnings("error")
def test_frames_that_have_no_voxel_in_common_have_no_steadiness() -> None:
    series = Series([torch.rand(1, *SHAPE)] * 2, ["a", "b"], ["a", "b"], TimeAxis())
    shown = np.stack([np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)], -1)
    assert all(map(math.isnan, series_files._steadiness(series, np.zeros((*SHAPE, 2), np.float32), shown).values()))


def test_frames_compared_as_of_different_modalities_are_not_good(given: dict[str, Path], tmp_path: Path) -> None:
    method = Method("none", similarity="mi", progress=False)
    verdicts = series_files.register_series_files(str(given["images"]), tmp_path / "out", method)[1]
    assert verdicts.total() == COUNT - 1 and verdicts["good"] == 0
