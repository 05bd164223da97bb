"""Whole files of every kind that the package reads, made here or from real images, and who reads them."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pydicom
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from fmirnet_monai.bundle import load_weights, read_inference_config
from fmirnet_monai.data import (
    find_camus_cases,
    find_chaos_cases,
    find_echonet_cases,
    find_sliver_cases,
    load_pairs,
    load_volumes,
    phantom_clip,
    phantom_volume,
    read_case_table,
    read_chaos_case,
    read_clip,
    read_echo_case,
    read_folder_case,
    read_image,
    read_label,
    read_pair_table,
    read_points,
    read_sections,
    write_clip,
    write_image,
)
from fmirnet_monai.data.datalist import check_sections, merge_datalists
from fmirnet_monai.data.download import unpack
from fmirnet_monai.data.phantom import write_chaos_layout
from fmirnet_monai.data.sliver import write_sliver_layout
from fmirnet_monai.data.volume import Volume
from fmirnet_monai.spatial import Affine, DisplacementField, Grid
from fmirnet_monai.spatial.files import write_displacement
from fmirnet_monai.spatial.itk import read_transform, write_transform
from fmirnet_monai.study.methods import parse_methods
from fmirnet_monai.study.study import Study
from fmirnet_monai.transforms import ReadImaged

REPOSITORY = Path(__file__).parents[2]
SHAPE = (12, 10, 8)
LARGEST = 300_000  # bytes of a real file that is taken as it is


@dataclass(frozen=True)
class Seed:
    """A whole input of one reader.

    Attributes:
        kind: row of the table that it counts in.
        files: what they hold, by their name below a folder.
        target: the one to damage.
        form: of it, see :py:data:`mutation.FORMS`.
        reader: of :py:data:`READERS`.
        given: what the reader is given, below that folder.
    """

    kind: str
    files: Mapping[str, bytes]
    target: str
    form: str
    reader: str
    given: str

    @property
    def plain_bytes(self) -> int:
        """Size of all its files, of compressed ones that of their content."""
        return sum(unpacked(content) for content in self.files.values())

    def write(self, folder: Path) -> None:
        """Put all files into a folder."""
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def unpacked(content: bytes) -> int:
    """Size of a file's content; of one that is not compressed, or damaged, its own."""
    try:
        return len(gzip.decompress(content))
    except Exception:
        return len(content)


def _all_echo_cases(folder: Path) -> None:
    for case in find_echonet_cases(folder)[0]:
        read_echo_case(case)


def _datalist(path: Path) -> None:
    load_pairs(path, "training")
    load_volumes(path, "training", labelled=False)
    check_sections(path, {"1": "training"})
    merged = path.with_name("merged.json")
    merged.unlink(missing_ok=True)
    merge_datalists([path], merged, names=["a"])


def _trained(path: Path) -> None:
    load_weights(torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4)), path)


READERS: dict[str, Callable[[Path], object]] = {
    "image": lambda path: read_image(path, track_meta=False),
    "label": lambda path: read_label(path, track_meta=False),
    "training image": lambda path: ReadImaged(["image"])({"image": str(path)}),
    "transform": read_transform,
    "points": lambda path: read_points(path, 3),
    "clip": read_clip,
    "echonet": _all_echo_cases,
    "camus": lambda folder: [read_echo_case(case) for case in find_camus_cases(folder)[0]],
    "chaos": lambda folder: [read_chaos_case(case) for case in find_chaos_cases(folder)],
    "sliver": lambda folder: [read_folder_case(case) for case in find_sliver_cases(folder)],
    "case table": read_case_table,
    "pair table": read_pair_table,
    "sections": read_sections,
    "datalist": _datalist,
    "weights": _trained,
    "tuned": lambda path: parse_methods(["elastix"], path),
    "study": Study.read,
    "bundle": lambda folder: read_inference_config(folder, "small"),
    "archive": lambda path: unpack(path, path.parent / "unpacked"),
}


def _read_files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def _written(write: Callable[[Path], object]) -> dict[str, bytes]:
    """What ``write`` puts into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return _read_files(Path(folder))


def _one(kind: str, name: str, content: bytes, form: str, *readers: str) -> list[Seed]:
    return [Seed(kind, {name: content}, name, form, reader, name) for reader in readers]


def _by_writer(kind: str, name: str, write: Callable[[Path], object], form: str, *readers: str) -> list[Seed]:
    return _one(kind, name, _written(lambda folder: write(folder / name))[name], form, *readers)


def volumes(image: NDArray, label: NDArray, affine: NDArray) -> Iterator[Seed]:
    """An image and its label in every format of volumes that is read."""
    place = Grid(image.shape, affine)
    pictures = {
        "image": MetaTensor(torch.from_numpy(image.astype(np.int16))[None], affine=torch.from_numpy(affine)),
        "label": MetaTensor(torch.from_numpy(label.astype(np.uint8))[None], affine=torch.from_numpy(affine)),
    }
    for what, picture in pictures.items():
        for suffix, form in ((".nii.gz", "nifti.gz"), (".nii", "nifti"), (".mha", "metaimage"), (".nrrd", "nrrd")):
            readers = [what, "training image"] if what == "image" and suffix[:4] == ".nii" else [what]
            write = lambda path, picture=picture: write_image(picture, path)  # noqa: E731
            yield from _by_writer(suffix[1:], f"{what}{suffix}", write, form, *readers)
        values = picture.numpy()[0]
        yield from _by_itk(values, place, what)
        for suffix, form in ((".mgz", "mgz"), (".mgh", "mgh")):
            write = lambda path, v=values: nib.save(nib.MGHImage(v.astype(np.int32), affine), path)  # noqa: E731
            yield from _by_writer("mgz, mgh", f"{what}{suffix}", write, form, what)
        pair = _written(lambda folder, v=values: nib.save(nib.Nifti1Pair(v, affine), folder / "pair.img"))
        yield Seed("hdr/img", pair, "pair.hdr", "nifti", what, "pair.hdr")
        yield Seed("hdr/img", pair, "pair.img", "bytes", what, "pair.hdr")
        second = nib.Nifti2Image(values, affine)
        yield from _by_writer("nii", f"{what}.nii", lambda path, s=second: nib.save(s, path), "bytes", what)


def _by_itk(values: NDArray, place: Grid, what: str) -> Iterator[Seed]:
    from fmirnet_monai.spatial.geometry import set_geometry

    stored = itk.image_from_array(np.ascontiguousarray(values.T))
    set_geometry(stored, place)
    plain = {
        suffix: _written(lambda f, s=suffix: itk.imwrite(stored, str(f / f"{what}{s}"))) for suffix in (".mha", ".nrrd")
    }
    yield from _one("mha", f"{what}.mha", plain[".mha"][f"{what}.mha"], "metaimage", what)
    yield from _one("nrrd", f"{what}.nrrd", plain[".nrrd"][f"{what}.nrrd"], "nrrd", what)
    for suffix, kind in ((".mhd", "mhd/raw"), (".nhdr", "nhdr/raw")):
        files = _written(lambda f, s=suffix: itk.imwrite(stored, str(f / f"{what}{s}")))
        for name in files:
            yield Seed(kind, files, name, "text" if name.endswith(suffix) else "bytes", what, f"{what}{suffix}")
    for suffix in (".gipl", ".gipl.gz"):
        files = _written(lambda f, s=suffix: itk.imwrite(stored, str(f / f"{what}{s}")))
        yield from _one("gipl", f"{what}{suffix}", files[f"{what}{suffix}"], "bytes", what)


def pictures(values: NDArray) -> Iterator[Seed]:
    """Slices as pictures: grey, with a palette, of one bit."""
    grey = Image.fromarray(values.astype(np.uint8))
    for mode, what in (("L", "image"), ("L", "label"), ("P", "label"), ("1", "label")):
        picture = grey.convert(mode)
        if mode == "P":
            picture.putpalette([k for n in range(256) for k in (n, 255 - n, n // 2)])
        yield from _by_writer("png", f"{what}.png", picture.save, "png", what)
    for suffix in (".jpg", ".tif"):
        yield from _by_writer("jpg, tif", f"image{suffix}", grey.save, "bytes", "image")


def _slice(pixels: NDArray, number: int, frames: int = 1) -> bytes:
    """A DICOM file whose names are always the same."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MRImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number + 1}"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    data.Modality, data.PatientName, data.PatientID = "MR", "NOBODY", "0"
    data.SeriesNumber, data.InstanceNumber = 1, number + 1
    data.ImagePositionPatient, data.ImageOrientationPatient = [-5.0, 3.5, 2.5 * number], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness = [1.5, 1.25], 2.5
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    if frames > 1:
        data.NumberOfFrames = frames
        data.PerFrameFunctionalGroupsSequence = [_frame(number) for number in range(frames)]
    data.PixelData = pixels.astype(np.uint16).tobytes()
    made = io.BytesIO()
    data.save_as(made, enforce_file_format=True)
    return made.getvalue()


def _frame(number: int) -> pydicom.Dataset:
    position, whole = pydicom.Dataset(), pydicom.Dataset()
    position.ImagePositionPatient = [-5.0, 3.5, 2.5 * number]
    whole.PlanePositionSequence = [position]
    return whole


def dicom(image: NDArray) -> Iterator[Seed]:
    """A series, one of its files, and one file of several frames."""
    pixels = np.moveaxis(image.astype(np.float64) - image.min(), -1, 0).swapaxes(1, 2)
    files = {f"series/i{k:02d}.dcm": _slice(part, k) for k, part in enumerate(pixels)}
    for name in (next(iter(files)), list(files)[len(files) // 2]):
        yield Seed("dicom series", files, name, "dicom", "image", "series")
    yield from _one("dicom file", "slice.dcm", files[next(iter(files))], "dicom", "image", "label")
    yield from _one("dicom frames", "frames.dcm", _slice(pixels, 0, len(pixels)), "dicom", "image")


def layouts(volume: Volume) -> Iterator[Seed]:
    """The data sets as downloaded."""
    chaos = _written(lambda folder: write_chaos_layout(volume, folder / "CT" / "1"))
    for name in (next(n for n in chaos if n.endswith(".dcm")), next(n for n in chaos if n.endswith(".png"))):
        yield Seed("chaos", chaos, name, "dicom" if name.endswith(".dcm") else "png", "chaos", ".")
    sliver = _written(lambda folder: write_sliver_layout(volume, folder))
    for name in sliver:
        yield Seed("sliver", sliver, name, "text" if name.endswith(".mhd") else "bytes", "sliver", ".")
    camus = _camus(volume)
    for name in camus:
        if not name.endswith(".cfg"):
            yield Seed("camus", camus, name, "text" if name.endswith(".mhd") else "bytes", "camus", ".")


def _camus(volume: Volume) -> dict[str, bytes]:
    assert volume.label is not None
    files = {"patient0001/Info_2CH.cfg": b"ED: 1\n"}
    middle = volume.image.shape[2] // 2
    for phase, index in (("ED", middle), ("ES", middle + 1)):
        for end, values in (("", volume.image), ("_gt", volume.label)):
            name = f"patient0001_2CH_{phase}{end}.mhd"
            stored = itk.image_from_array(np.ascontiguousarray(np.clip(values[..., index].T, 0, 255).astype(np.uint8)))
            files |= {
                f"patient0001/{k}": v
                for k, v in _written(lambda f, s=stored, n=name: itk.imwrite(s, str(f / n))).items()
            }
    return files


def clips() -> Iterator[Seed]:
    """A clip as EchoNet's are, alone and with its tables."""
    clip, traced = phantom_clip(1, frames=4)
    content = _written(lambda folder: write_clip(clip, folder / "a.avi"))["a.avi"]
    yield from _one("avi", "a.avi", content, "bytes", "clip", "clip")
    rows = ["FileName,X1,Y1,X2,Y2,Frame"]
    rows += [f"a.avi,{','.join(f'{v:.3f}' for v in chord)},{k}" for k in (0, 2) for chord in traced[k]]
    files = {"Videos/a.avi": content, "VolumeTracings.csv": "\n".join(rows).encode() + b"\n"}
    yield Seed("VolumeTracings.csv", files, "VolumeTracings.csv", "text", "echonet", ".")
    head = "HashedFileName,Calc,CalcValue,Frame,X1,X2,Y1,Y2\n"
    measured = f"{head}a,LVIDd,4.5,1,10,40,20,60\na,LVIDs,3,3,1,2,3,4\na,IVSd,1,3,0,1,0,1\n".encode()
    files = {"Videos/a.avi": content, "MeasurementsList.csv": measured}
    yield Seed("MeasurementsList.csv", files, "MeasurementsList.csv", "text", "echonet", ".")


def tables() -> Iterator[Seed]:
    """Tables, lists and settings, as CSV and JSON."""
    beside = dict.fromkeys(("a.nii.gz", "b.nii.gz", "c.nii.gz"), b".")
    rows = {
        "case table": [{"image": "a.nii.gz", "label": "b.nii.gz", "subject": "1"}, {"image": "c.nii.gz"}],
        "pair table": [
            {"moving": "a.nii.gz", "fixed": "b.nii.gz", "subject": "1"},
            {"moving": "c.nii.gz", "fixed": "a.nii.gz"},
        ],
    }
    for kind, content in rows.items():
        head = list(content[0])
        lines = [",".join(head), *(",".join(row.get(key, "") for key in head) for row in content)]
        for name, text, form in (("t.csv", "\n".join(lines) + "\n", "text"), ("t.json", json.dumps(content), "json")):
            yield Seed(kind, {**beside, name: text.encode()}, name, form, kind, name)
    pair = {"moving": "a.nii.gz", "fixed": ["b.nii.gz"], "moving_label": "c.nii.gz", "subject": "1", "slice": 3}
    lists: dict[str, Any] = {"name": "x", "num_training": 1, "training": [pair], "validation": [], "test": []}
    lists["volumes"] = {"training": [{"image": "a.nii.gz", "label": "b.nii.gz", "subject": "1"}]}
    yield Seed("datalist", {**beside, "d.json": json.dumps(lists).encode()}, "d.json", "json", "datalist", "d.json")
    sections = {"training": ["1", "2"], "validation": ["3"], "test": ["4"]}
    yield from _one("sections", "s.json", json.dumps(sections).encode(), "json", "sections")
    tuned = {"methods": {"elastix": {"settings": {"iterations": 50}, "criterion": "dice", "trials": []}}}
    yield from _one("tuned settings", "tuned.json", json.dumps(tuned).encode(), "json", "tuned")
    shared = {"prepare": [["prepare", "folder", "--output_dir", "{work}/x"]], "datalist": "x/datalist.json"}
    study = {"data": "data.json", "title": "T", "methods": [{"name": "identity"}, "elastix"], "cases": {"count": 3}}
    files = {"study.json": json.dumps(study).encode(), "data.json": json.dumps(shared).encode()}
    for name in files:
        yield Seed("study", files, name, "json", "study", "study.json")
    config = {
        "imports": ["$import torch"],
        "spatial_dims": 2,
        "network_def": {"_target_": "torch.nn.Conv2d", "in_channels": 1},
    }
    bundle = {"b/configs/inference.json": config, "b/configs/variants/small.json": {"spatial_dims": 3}}
    files = {name: json.dumps(content).encode() for name, content in bundle.items()}
    for name in files:
        yield Seed("bundle config", files, name, "json", "bundle", "b")


def points() -> Iterator[Seed]:
    """Landmarks in every form that is read."""
    places = [(-1.5, 2.25, 3.0, "liver"), (10.0, -20.5, 30.125, "spleen, upper"), (0.0, 0.0, 1.0, "")]
    csv = "x,y,z,name\n" + "".join(f'{x},{y},{z},"{name}"\n' for x, y, z, name in places)
    yield from _one("points csv", "p.csv", csv.encode(), "text", "points")
    table = "label,r,a,s,defined,selected\n" + "".join(f'"{n}",{x},{y},{z},1,1\n' for x, y, z, n in places)
    yield from _one("points csv", "p.csv", table.encode(), "text", "points")
    fcsv = "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    fcsv += "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label\n"
    fcsv += "".join(f'{i},{x},{y},{z},0,0,0,1,1,1,0,"{n}"\n' for i, (x, y, z, n) in enumerate(places))
    yield from _one("points fcsv", "p.fcsv", fcsv.encode(), "text", "points")
    vtk = "# vtk DataFile Version 3.0\npoints SPACE=RAS\nASCII\nDATASET POLYDATA\nPOINTS 3 float\n"
    vtk += "".join(f"{x} {y} {z}\n" for x, y, z, _ in places)
    yield from _one("points vtk", "p.vtk", vtk.encode(), "text", "points")
    control = [{"label": n, "position": [x, y, z], "positionStatus": "defined"} for x, y, z, n in places]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": control}
    yield from _one("points mrk.json", "p.mrk.json", json.dumps({"markups": [markup]}).encode(), "json", "points")


def transforms(seed: int = 0) -> Iterator[Seed]:
    """Affine maps, fields and B-splines in every file of ITK's."""
    random = np.random.default_rng(seed)
    affine = Affine(np.array([[1.0, 0.1, 0, 3], [-0.1, 1.0, 0, -2], [0, 0, 1.1, 5], [0, 0, 0, 1]]))
    grid = Grid((6, 5, 4), np.diag([-2.0, -2.0, 3.0, 1.0]))
    field = DisplacementField(torch.from_numpy(random.normal(size=(3, *grid.shape)).astype(np.float32)), grid)
    for suffix, form in ((".h5", "hdf5"), (".tfm", "text"), (".txt", "text"), (".mat", "bytes")):
        write = lambda path: write_transform(affine, path)  # noqa: E731
        yield from _by_writer(suffix[1:], f"t{suffix}", write, form, "transform")
    yield from _by_writer("h5", "t.h5", lambda path: write_transform(field.then(affine), path), "hdf5", "transform")
    spline = itk.BSplineTransform[itk.D, 3, 3].New()
    spline.SetTransformDomainMeshSize([1, 1, 1])
    spline.SetParameters(itk.OptimizerParameters[itk.D](random.normal(size=spline.GetNumberOfParameters()).tolist()))
    euler = itk.Euler3DTransform[itk.D].New()
    euler.SetRotation(0.1, 0.2, 0.3)
    for kind, suffix, transform, form in (
        ("h5", ".h5", spline, "hdf5"),
        ("tfm", ".tfm", spline, "text"),
        ("mat", ".mat", euler, "bytes"),
        ("tfm", ".tfm", euler, "text"),
    ):
        write = lambda path, t=transform: itk.transformwrite([t], str(path))  # noqa: E731
        yield from _by_writer(kind, f"t{suffix}", write, form, "transform")
    for suffix, form in ((".nii.gz", "nifti.gz"), (".nii", "nifti"), (".mha", "metaimage"), (".nrrd", "nrrd")):
        write = lambda path: write_displacement(field, path)  # noqa: E731
        yield from _by_writer("field", f"field{suffix}", write, form, "transform")


def stored() -> Iterator[Seed]:
    """Weights and an archive."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4))
    yield from _by_writer("weights", "m.pt", lambda path: torch.save(network.state_dict(), path), "zip", "weights")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(zipfile.ZipInfo(f"Train_Sets/CT/{number}/a.txt"), b"slice " * 200)
    yield from _one("zip", "a.zip", made.getvalue(), "zip", "archive")


def generated() -> list[Seed]:
    """Seeds of every kind, made here and always the same."""
    volume = phantom_volume("1", 3, SHAPE, (30.0, 30.0, 30.0))
    assert volume.label is not None
    image, label = np.clip(np.rint(volume.image), -1000, 1000), volume.label.copy()
    label[2:6, 2:5, 2:4] = 1
    whole = Volume("1", image, np.asarray(volume.affine, dtype=np.float64), label)
    grey = np.clip((image[..., 4].T + 1000) / 8, 0, 255)
    parts = [volumes(image, label, whole.affine), pictures(grey), dicom(image), layouts(whole)]
    parts += [clips(), tables(), points(), transforms(), stored()]
    return [seed for part in parts for seed in part]


def real(source_dir: Path) -> list[Seed]:
    """Seeds from real images below a folder: small files as they are, crops of large ones by this package's writers."""
    found: list[Seed] = []
    files = sorted(path for path in source_dir.rglob("*") if path.is_file())
    readers = (
        ((".nii.gz",), "nifti.gz"),
        ((".mha",), "metaimage"),
        ((".png",), "png"),
        ((".dcm",), "dicom"),
        ((".vtk",), "text"),
    )
    taken: dict[tuple[str, str, str], int] = {}
    for path in files:
        form = next((form for suffixes, form in readers if path.name.lower().endswith(suffixes)), None)
        label = any(word in path.as_posix().lower() for word in ("label", "_gt", "ground"))
        what = "points" if form == "text" else "label" if label else "image"
        key = (path.relative_to(source_dir).parts[0], str(form), what)
        if form is None or taken.get(key, 0) >= 2:
            continue
        content = path.read_bytes() if path.stat().st_size < LARGEST and form != "dicom" else _cropped(path, what)
        name = path.name if form != "dicom" else f"crop_{path.stem.replace(',', '_')}.dcm"
        seeds = [] if content is None else _one(f"real {key[0]}", name, content, form, what)
        if seeds and _reads(seeds[0]):  # some slices have no label
            found += seeds
            taken[key] = taken.get(key, 0) + 1
    found += _real_camus(source_dir)
    return found


def _reads(seed: Seed) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        seed.write(Path(folder))
        try:
            READERS[seed.reader](Path(folder) / seed.given)
        except ValueError:
            return False
    return True


def _cropped(path: Path, what: str) -> bytes | None:
    """A middle part of a real image in its own format."""
    if path.name.endswith(".dcm"):
        dataset = pydicom.dcmread(path)
        rows, columns = (slice(int(n) // 2 - 16, int(n) // 2 + 16) for n in (dataset.Rows, dataset.Columns))
        pixels = dataset.pixel_array[rows, columns]
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pixels.tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made = io.BytesIO()
        dataset.save_as(made, enforce_file_format=True)
        return made.getvalue()
    if path.name.endswith((".nii.gz", ".mha")):
        image = (read_label if what == "label" else read_image)(path)
        cut = tuple(slice(n // 2 - min(n, 24) // 2, n // 2 + (min(n, 24) + 1) // 2) for n in image.shape[1:])
        part = image[(slice(None), *cut)]
        return _written(lambda folder: write_image(part, folder / path.name))[path.name]
    return None


def _real_camus(source_dir: Path) -> list[Seed]:
    """A patient of CAMUS, cropped."""
    found: list[Seed] = []
    for patient in sorted({path.parent for path in source_dir.rglob("Info_2CH.cfg")})[:1]:
        files: dict[str, bytes] = {f"{patient.name}/Info_2CH.cfg": (patient / "Info_2CH.cfg").read_bytes()}
        for header in sorted(patient.glob("*_2CH_E[DS]*.mhd")):
            stored = itk.imread(str(header))
            values = np.squeeze(itk.array_from_image(stored))[200:248, 200:248]
            cropped = itk.image_from_array(np.ascontiguousarray(values))
            cropped.SetSpacing([float(stored.GetSpacing()[0]), float(stored.GetSpacing()[1])])
            made = _written(lambda folder, c=cropped, n=header.name: itk.imwrite(c, str(folder / n)))
            files |= {f"{patient.name}/{name}": content for name, content in made.items()}
        found += [
            Seed("real camus", files, name, "text" if name.endswith(".mhd") else "bytes", "camus", ".")
            for name in files
            if not name.endswith(".cfg")
        ]
    return found
