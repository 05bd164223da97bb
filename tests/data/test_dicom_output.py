"""Registrations written as DICOM: valid by dciodvfy, read by pydicom, SimpleITK and highdicom, and like our maps."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from conftest import SeriesWriter, change_tags
from pydicom.dataset import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from fmirnet_monai.cli import main
from fmirnet_monai.data import (
    DicomPair,
    phantom_volume,
    read_image,
    write_chaos_layout,
    write_dicom_label,
    write_dicom_series,
    write_dicom_transform,
    write_image,
)
from fmirnet_monai.spatial import Affine, DisplacementField, Grid, Map, resample
from fmirnet_monai.spatial.image import on_grid
from fmirnet_monai.spatial.itk import flip_lps, read_transform

TURN = Rotation.from_euler("xyz", [4, -3, 6], degrees=True).as_matrix()
OBLIQUE = Rotation.from_euler("xyz", [10, 5, -8], degrees=True).as_matrix()
OF_BOTH = "12345"


def needs(program: str, package: str) -> str:
    if (found := shutil.which(program)) is None:
        pytest.skip(f"{program} is not installed: apt-get install {package}")
    return found


def errors(file: Path) -> list[str]:
    """What dciodvfy finds wrong with a file; its warnings are left out."""
    done = subprocess.run([needs("dciodvfy", "dicom3tools"), str(file)], capture_output=True, text=True, check=False)
    said = (done.stderr + done.stdout).splitlines()
    assert said and not any("not a DICOM" in line for line in said)
    return [line for line in said if line.startswith("Error")]


@dataclass
class Made:
    """Two series, a map, and what was written of them."""

    moving: Path
    fixed: Path
    found: Map
    label: torch.Tensor
    warped: torch.Tensor
    folder: Path

    @property
    def grid(self) -> Grid:
        return Grid.of(read_image(self.fixed, track_meta=False))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT series as scanners write them: private elements, two windows, padding, an overlay, lossy once."""
    folder = tmp_path_factory.mktemp("moving")
    volume = phantom_volume("1", 5, (40, 36, 12), (8.0, 8.0, 10.0))
    write_chaos_layout(volume, folder)
    for index, file in enumerate(sorted((folder / "DICOM_anon").iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.private_block(0x0029, "SOMEBODY", create=True).add_new(1, "LO", "secret")
        agent = Dataset()
        agent.CodeValue, agent.CodingSchemeDesignator, agent.CodeMeaning = "7140000", "SCT", "Iodine"
        agent.private_block(0x0029, "SOMEBODY", create=True).add_new(1, "LO", "secret")
        dataset.ContrastBolusAgentSequence, dataset.ContrastBolusAgent = [agent], "Iodine"
        dataset.Manufacturer, dataset.StationName, dataset.SoftwareVersions = "Maker", "CT1", "7"
        dataset.WindowCenter, dataset.WindowWidth = [40, 400], [300, 1500]
        dataset.PatientID, dataset.KVP, dataset.XRayTubeCurrent = OF_BOTH, 120, 200 + index
        dataset.PatientSex, dataset.PatientBirthDate, dataset.StudyDate = "F", "19800101", "20200203"
        dataset.SeriesDescription, dataset.PatientPosition = "Thorax b30 " + 50 * "x", "FFS"
        dataset.ImageType, dataset.LossyImageCompression = ["ORIGINAL", "PRIMARY", "AXIAL"], "01"
        dataset.BitsStored, dataset.HighBit = 12, 11
        for tag, kind, value in ((0x280106, "US", 0), (0x280120, "US", 0), (0x60000010, "US", 8)):
            dataset.add_new(tag, kind, value)  # smallest value, padding, rows of an overlay
        dataset.save_as(file)
    return folder / "DICOM_anon"


def smooth_field(grid: Grid, size: float = 2.0) -> DisplacementField:
    rng = np.random.default_rng(0)
    values = np.stack([gaussian_filter(rng.normal(size=grid.shape), 4) for _ in range(3)])
    return DisplacementField(torch.from_numpy(values / np.abs(values).max() * size).float(), grid)


def rigid() -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = TURN, [5, -4, 3]
    return Affine(matrix)


@pytest.fixture(scope="module", params=["deformable", "both", "rigid"])
def made(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An oblique MR series as fixed image, and all that is written for a known map."""
    from conftest import _write_series

    folder = tmp_path_factory.mktemp("made")
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = OBLIQUE * [7.0, 6.5, 9.0], [20, 10, 5]
    pixels = np.random.default_rng(0).integers(0, 900, (38, 40, 14))
    for file in _write_series(folder / "fixed", pixels, lps):
        change_tags(file, PatientID=OF_BOTH, PatientPosition="HFS", PositionReferenceIndicator="SN")
    grid = Grid.of(read_image(folder / "fixed", track_meta=False))
    found: Map = rigid() if request.param == "rigid" else smooth_field(grid)
    found = found.then(rigid()) if request.param == "both" else found
    moving = read_image(source, track_meta=False)
    warped, _ = resample(moving, grid, found)
    bones = on_grid((moving > 80).int() * 3 + (moving > 150).int() * 4, Grid.of(moving))
    label, _ = resample(bones, grid, found, mode="nearest")
    pair = DicomPair.read(source, folder / "fixed", labels=True)
    assert pair.notes() == []
    series = write_dicom_series(pair, warped, DisplacementField.of(found, grid)[0], Grid.of(moving), folder / "warped")
    write_dicom_transform(pair, found, folder / "transform.dcm")
    write_dicom_label(pair, label, series, folder / "label.dcm")
    return Made(source, folder / "fixed", found, label, warped, folder)


def written(made: Made) -> list[Any]:
    return [pydicom.dcmread(file) for file in sorted((made.folder / "warped").iterdir())]


def test_dciodvfy_finds_no_error(made: Made) -> None:
    files = [*sorted((made.folder / "warped").iterdir())[::6], made.folder / "transform.dcm", made.folder / "label.dcm"]
    assert {file.name: errors(file) for file in files} == {file.name: [] for file in files}


def test_the_series_lies_like_the_fixed_one_and_holds_the_warped_values(made: Made) -> None:
    read = read_image(made.folder / "warped", track_meta=False)
    assert made.grid.distance(Grid.of(read)) < 1e-6
    assert (read - made.warped).abs().max() <= 0.501
    images = []
    for folder in (made.folder / "warped", made.fixed):
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        images.append(reader.Execute())
    for name in ("Origin", "Spacing", "Direction", "Size"):
        one, other = (getattr(image, f"Get{name}")() for image in images)
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(sitk.GetArrayFromImage(images[0]).T - made.warped[0].numpy()).max() <= 0.501


def test_what_the_series_says_of_itself(made: Made) -> None:
    slices, moving = written(made), pydicom.dcmread(next(made.moving.iterdir()))
    fixed = pydicom.dcmread(next(made.fixed.iterdir()))
    assert [part.InstanceNumber for part in slices] == [*range(1, 15)]
    assert len({part.SOPInstanceUID for part in slices}) == 14 and len({part.SeriesInstanceUID for part in slices}) == 1
    for part in slices:
        for name in (
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "StudyInstanceUID",
            "StudyDate",
            "KVP",
            "Modality",
        ):
            assert part[name] == moving[name]
        for name in ("RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth", "BitsStored"):
            assert part[name] == moving[name]
        for name in ("FrameOfReferenceUID", "PatientPosition", "PositionReferenceIndicator"):
            assert part[name] == fixed[name]
        assert part.SliceThickness == pytest.approx(fixed.SliceThickness)
        assert part.SeriesInstanceUID not in (moving.SeriesInstanceUID, fixed.SeriesInstanceUID)
        assert part.ImageType == ["DERIVED", "SECONDARY", "AXIAL"] and part.LossyImageCompression == "01"
        assert len(part.SeriesDescription) == 64 and len(part.SeriesDate) == 8 and part.Manufacturer == "fmirnet_monai"
        assert part.ContributingEquipmentSequence[0].Manufacturer == "Maker"
        assert part.ContrastBolusAgentSequence[0].CodeMeaning == "Iodine"
        kept = [element.tag for element in part.iterall()]
        assert not [tag for tag in kept if tag.is_private or tag.group >> 8 == 0x60]
        assert not {"XRayTubeCurrent", "SmallestImagePixelValue", "StationName"} & {e.keyword for e in part}
        assert part.pixel_array.max() <= 4095


def test_each_slice_names_what_it_is_made_of(made: Made) -> None:
    moving = read_image(made.moving, track_meta=False)
    datasets = [pydicom.dcmread(file) for file in made.moving.iterdir()]
    order = {d.SOPInstanceUID: k for k, d in enumerate(sorted(datasets, key=lambda d: d.ImagePositionPatient[2]))}
    points, _ = made.found(torch.from_numpy(made.grid.points().reshape(*made.grid.shape, 3)))
    heights = Grid.of(moving).to_voxel(points)[..., 2].clip(0, moving.shape[-1] - 1)
    for index, part in enumerate(written(made)):
        named = sorted(order[item.ReferencedSOPInstanceUID] for item in part.SourceImageSequence)
        seen = heights[..., index]
        assert named == [*range(int(seen.min().floor()), int(seen.max().ceil()) + 1)]


def applied(dataset: Any, index: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A point of the fixed image and where the object takes it, both LPS, as PS3.3 C.20.3.1.1 says."""
    (item,) = (i for i in dataset.DeformableRegistrationSequence if "DeformableRegistrationGridSequence" in i)
    (grid,) = item.DeformableRegistrationGridSequence
    size = [int(n) for n in grid.GridDimensions]
    offsets = np.frombuffer(grid.VectorGridData, "<f4").reshape(*size[::-1], 3)
    row, column = np.reshape(np.asarray(grid.ImageOrientationPatient, float), (2, 3))
    steps = np.stack([row, column, np.cross(row, column)]) * np.asarray(grid.GridResolution)[:, None]
    start = np.asarray(grid.ImagePositionPatient, float) + np.asarray(index) @ steps
    before, after = (
        np.reshape(np.asarray(item[f"{when}DeformationMatrixRegistrationSequence"][0].FrameOfReferenceTransformationMatrix,
                              float), (4, 4))
        for when in ("Pre", "Post")
    )  # fmt: skip
    return start, (after @ (before @ [*start, 1] + [*offsets[index[::-1]], 0]))[:3]


def test_the_map_by_hand_is_ours(made: Made) -> None:
    dataset = pydicom.dcmread(made.folder / "transform.dcm")
    moving, fixed = (pydicom.dcmread(next(folder.iterdir())) for folder in (made.moving, made.fixed))
    assert dataset.FrameOfReferenceUID == fixed.FrameOfReferenceUID and dataset.Modality == "REG"
    places = np.random.default_rng(0).integers(0, made.grid.shape, (40, 3))
    if isinstance(made.found, Affine):
        (item,) = (i for i in dataset.RegistrationSequence if i.FrameOfReferenceUID == moving.FrameOfReferenceUID)
        (stated,) = item.MatrixRegistrationSequence[0].MatrixSequence
        assert stated.FrameOfReferenceTransformationMatrixType == "RIGID"
        matrix = np.reshape(np.asarray(stated.FrameOfReferenceTransformationMatrix, float), (4, 4))
        source = np.random.default_rng(1).uniform(-90, 90, (9, 3))
        back, _ = made.found(torch.from_numpy(flip_lps(source @ matrix[:3, :3].T + matrix[:3, 3])))
        np.testing.assert_allclose(flip_lps(back), source, atol=1e-9)
    else:
        for place in places.tolist():
            start, moved = applied(dataset, tuple(place))
            np.testing.assert_allclose(start, flip_lps(made.grid.to_world(np.asarray(place, float))), atol=1e-6)
            ours, _ = made.found(torch.from_numpy(flip_lps(start)))
            np.testing.assert_allclose(moved, flip_lps(ours), atol=1e-4)
    read = read_transform(made.folder / "transform.dcm")
    assert [type(part) for part in read.parts()] == [type(part) for part in made.found.parts()]
    points = torch.from_numpy(made.grid.to_world(places.astype(float)))
    np.testing.assert_allclose(read(points)[0], made.found(points)[0], atol=1e-4)


@pytest.mark.parametrize("made", ["rigid"], indirect=True)
def test_plastimatch_states_the_same_matrix(made: Made, tmp_path: Path) -> None:
    """Which writes Spatial Registrations, too, of a transform of ITK from fixed to moving."""
    assert isinstance(made.found, Affine)
    flip = np.diag([-1.0, -1, 1, 1])
    numbers = (flip @ made.found.matrix @ flip)[:3]
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(numbers[:, :3].ravel().tolist())
    transform.SetTranslation(numbers[:, 3].tolist())
    sitk.WriteTransform(transform, str(tmp_path / "t.tfm"))
    subprocess.run(
        [needs("plastimatch", "plastimatch"), "xf-convert", "--input", "t.tfm", "--fixed-rcs", str(made.fixed),
         "--moving-rcs", str(made.moving), "--output-dicom", "out"], cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    (theirs,) = (tmp_path / "out").iterdir()
    stated = []
    for file in (theirs, made.folder / "transform.dcm"):
        items = pydicom.dcmread(file).RegistrationSequence
        stated.append({i.FrameOfReferenceUID: i.MatrixRegistrationSequence[0].MatrixSequence[0] for i in items})
    assert stated[0].keys() == stated[1].keys() and len(stated[0]) == 2
    for frame, one in stated[0].items():
        numbers = (np.asarray(s.FrameOfReferenceTransformationMatrix, float) for s in (one, stated[1][frame]))
        np.testing.assert_allclose(*numbers, atol=2e-6)
    read = read_transform(theirs)
    assert isinstance(read, Affine)
    np.testing.assert_allclose(read.matrix, made.found.matrix, atol=1e-5)


def test_labels_are_segments_of_the_registered_series(made: Made) -> None:
    found = highdicom.seg.segread(made.folder / "label.dcm")
    assert [found.get_segment_description(n).segment_label for n in found.segment_numbers] == ["Label 3", "Label 7"]
    uids = [part.SOPInstanceUID for part in written(made)]
    pixels = found.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    for number, value in ((0, 3), (1, 7)):
        expected = (made.label[0] == value).numpy().transpose(2, 1, 0)
        assert expected.any()
        np.testing.assert_array_equal(pixels[..., number] > 0, expected)
    assert found.PatientID == OF_BOTH and found.FrameOfReferenceUID == written(made)[0].FrameOfReferenceUID


def test_the_command_writes_dicom_in_place_of_nifti_and_a_later_one_the_other_way_round(
    source: Path, tmp_path: Path, write_series: SeriesWriter
) -> None:
    fixed, folder = mr(tmp_path / "fixed", write_series, spacing=40.0), tmp_path / "out"
    moving = read_image(source, track_meta=False)
    label = write_image((moving > 80).int(), tmp_path / "label.nii.gz", Grid.of(moving))
    words = ["register", "--moving", str(source), "--fixed", str(fixed), "--moving_label", str(label), "--bundle",
             "none", "--optimizer", "affine", "--output_dir", str(folder), "--report", "false"]  # fmt: skip
    main([*words, "--format", "dicom"])
    names = ["00001.dcm", "00002.dcm", "00003.dcm", "00004.dcm", "00005.dcm"]
    assert sorted(file.name for file in (folder / "warped").iterdir()) == names
    beside = {"metrics.json", "transform.dcm", "transform.h5", "inverse_displacement.nii.gz", "inside.nii.gz"}
    assert {file.name for file in folder.iterdir()} == beside | {"warped", "warped_label.dcm"}
    content = json.loads((folder / "metrics.json").read_text())
    assert set(content["files"]) == beside | {f"warped/{name}" for name in names} | {"warped_label.dcm"}
    assert "the moving image's patient and study" in content["notes"][-1]
    for name in ("transform.dcm", "transform.h5"):
        main(["warp", "--image", str(source), "--transform", str(folder / name), "--reference", str(fixed), "--output",
              str(tmp_path / f"{name}.nii.gz"), "--dtype", "same"])  # fmt: skip
    first, second, series = (
        read_image(path, track_meta=False)
        for path in (*(tmp_path / f"transform.{kind}.nii.gz" for kind in ("dcm", "h5")), folder / "warped")
    )
    assert (first - second).abs().max() <= 1 and (first - series).abs().max() <= 1
    main(words)
    assert {file.name for file in folder.iterdir()} == (beside - {"transform.dcm"}) | {
        *("warped.nii.gz", "warped_label.nii.gz", "displacement.nii.gz")
    }


def mr(folder: Path, write_series: SeriesWriter, spacing: float = 3.0, **changes: Any) -> Path:
    pixels = np.random.default_rng(0).integers(0, 900, (20, 18, 5))
    for file in write_series(folder, pixels, np.diag([spacing, spacing, spacing, 1.0]), **changes):
        change_tags(file, PatientBirthDate="")
    return folder


def out(pair: DicomPair, folder: Path) -> tuple[torch.Tensor, Path]:
    """The moving image on the fixed grid, moved by nothing, and the series written of it."""
    moving, grid = (read_image(side.path, track_meta=False) for side in (pair.moving, pair.fixed))
    field = DisplacementField.identity(Grid.of(grid))
    warped, _ = resample(moving, field.grid, field)
    write_dicom_series(pair, warped, field, Grid.of(moving), folder)
    return warped, folder


def test_slices_that_are_scaled_differently_get_one_scale(tmp_path: Path, write_series: SeriesWriter) -> None:
    moving = mr(tmp_path / "m", write_series, rescale=[(1 + 0.5 * k, 20.0 * k) for k in range(5)])
    warped, folder = out(DicomPair.read(moving, mr(tmp_path / "f", write_series)), tmp_path / "out")
    slope = float(pydicom.dcmread(folder / "00001.dcm").RescaleSlope)
    assert (read_image(folder, track_meta=False) - warped).abs().max() <= slope / 2 + 1e-3 < 2.5
    assert errors(folder / "00003.dcm") == []


def test_one_slice_is_a_series_of_one(tmp_path: Path, write_series: SeriesWriter) -> None:
    one, other = (next(mr(tmp_path / name, write_series).glob("*3.dcm")) for name in "mf")
    warped, folder = out(DicomPair.read(one, other), tmp_path / "out")
    assert [file.name for file in folder.iterdir()] == ["00001.dcm"] and errors(folder / "00001.dcm") == []
    read = read_image(folder / "00001.dcm", track_meta=False)
    assert torch.equal(read, warped.round()) and Grid.of(read).matches(Grid.of(read_image(other)))


def test_values_beyond_the_bits_are_clipped(tmp_path: Path, write_series: SeriesWriter) -> None:
    moving = mr(tmp_path / "m", write_series)
    for file in moving.iterdir():
        change_tags(file, BitsStored=8, HighBit=7, PixelRepresentation=1)
    pair, grid = DicomPair.read(moving, mr(tmp_path / "f", write_series)), Grid((20, 18, 5), np.diag([-3.0, -3, 3, 1]))
    values = torch.linspace(-500, 500, 20 * 18 * 5).reshape(1, 20, 18, 5)
    write_dicom_series(pair, values, DisplacementField.identity(grid), grid, tmp_path / "out")
    read = read_image(tmp_path / "out", track_meta=False)
    assert torch.equal(read, values.round().clip(-128, 127))


@pytest.mark.realdata
def test_slices_of_a_patient(real_data: Path, tmp_path: Path) -> None:
    scan = real_data / "CHAOS" / "Train_Sets" / "CT" / "3" / "DICOM_anon"
    if not scan.is_dir():
        pytest.skip(f"the CHAOS sample is not there: no folder {scan}")
    (tmp_path / "in").mkdir()
    for file in sorted(scan.iterdir())[30:36]:
        (tmp_path / "in" / file.name).symlink_to(file)
    pair = DicomPair.read(tmp_path / "in", tmp_path / "in")
    moving = read_image(tmp_path / "in", track_meta=False)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_euler("z", 3, degrees=True).as_matrix(), [4, -3, 1]
    found, grid = Affine(matrix), Grid.of(moving)
    warped, inside = resample(moving, grid, found)
    write_dicom_series(pair, warped, DisplacementField.of(found, grid)[0], grid, tmp_path / "out")
    write_dicom_transform(pair, found, tmp_path / "t.dcm")
    read = read_image(tmp_path / "out", track_meta=False)
    assert inside.float().mean() > 0.5 and (read - warped).abs().max() <= 0.501 and grid.matches(Grid.of(read))
    np.testing.assert_allclose(read_transform(tmp_path / "t.dcm").matrix, matrix, atol=1e-9)  # type: ignore[attr-defined]
    assert [errors(tmp_path / name) for name in ("out/00001.dcm", "out/00006.dcm", "t.dcm")] == [[], [], []]


def test_another_patient_is_told(tmp_path: Path, write_series: SeriesWriter) -> None:
    moving, fixed = (mr(tmp_path / name, write_series) for name in "mf")
    for file in fixed.iterdir():
        change_tags(file, PatientID="B")
    (note,) = DicomPair.read(moving, fixed).notes()
    assert "PatientIDs" in note and "differ" in note and "the moving image's patient" in note
    assert "'0'" not in note and "'B'" not in note  # a page and a metrics.json may be given away


def replace(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))


def each(**tags: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in folder.iterdir():
            change_tags(file, **tags)

    return change


@pytest.mark.parametrize(
    ("side", "damage", "message"),
    [
        (
            "m",
            each(SOPClassUID=PositronEmissionTomographyImageStorage),
            r"m: --format dicom writes CT and MR images; its class is 1\.2\.840\.10008\.5\.1\.4",
        ),
        ("f", each(FrameOfReferenceUID=None), r"f: has no FrameOfReferenceUID"),
        ("m", each(StudyInstanceUID=""), r"m: has no StudyInstanceUID"),
        ("m", lambda f: change_tags(min(f.iterdir()), BitsStored=12), "m: its slices store their pixels in different"),
        (
            "m",
            lambda f: change_tags(min(f.iterdir()), PhotometricInterpretation="MONOCHROME1"),
            "m: its slices store their pixels in different",
        ),
        (
            "m",
            lambda f: [replace(x, b"IS\2\x001 ", b"IS\2\x00x ") for x in f.iterdir()],
            "m: no DICOM can be written of it",
        ),
        ("m", each(BitsStored=17), "m: its pixels take 17 of 16 bits"),
        ("f", lambda f: [x.unlink() for x in f.iterdir()], "f: no DICOM series in this folder"),
    ],
)
def test_what_no_dicom_can_be_written_of(
    tmp_path: Path, write_series: SeriesWriter, side: str, damage: Callable[[Path], object], message: str
) -> None:
    moving, fixed = (mr(tmp_path / name, write_series) for name in "mf")
    damage(tmp_path / side)
    with pytest.raises(ValueError, match=message):
        DicomPair.read(moving, fixed)


def test_series_of_frames_and_other_files_are_refused(tmp_path: Path, write_series: SeriesWriter) -> None:
    moving = mr(tmp_path / "m", write_series)
    single = next(moving.iterdir())
    change_tags(single, NumberOfFrames=2)
    with pytest.raises(ValueError, match=r"holds several frames; with --format dicom give series of one file a slice"):
        DicomPair.read(single, moving)
    (tmp_path / "a.nii.gz").write_bytes(b"NIfTI")
    with pytest.raises(
        ValueError, match=r"a\.nii\.gz: is no DICOM; with --format dicom the moving and the fixed image"
    ):
        DicomPair.read(tmp_path / "a.nii.gz", moving)
