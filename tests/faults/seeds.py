"""Whole files of every kind that the package reads, made here and always the same."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import itk
import nibabel as nib
import numpy as np
import pydicom
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from fmirnet_monai.data import (
    phantom_clip,
    phantom_volume,
    write_clip,
    write_image,
)
from fmirnet_monai.data.phantom import write_chaos_layout
from fmirnet_monai.data.sliver import write_sliver_layout
from fmirnet_monai.data.volume import Volume
from fmirnet_monai.spatial import Affine, DisplacementField, Grid
from fmirnet_monai.spatial.dicom import DEFORMABLE, SPATIAL, grid_item, matrix_item
from fmirnet_monai.spatial.files import write_displacement
from fmirnet_monai.spatial.itk import write_transform

from .readers import PLACE, Seed, by_writer, one, written
from .texts import points, tables

SHAPE = (12, 10, 8)


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
            yield from by_writer(suffix[1:], f"{what}{suffix}", write, form, *readers)
        values = picture.numpy()[0]
        yield from _by_itk(values, place, what)
        for suffix, form in ((".mgz", "mgz"), (".mgh", "mgh")):
            write = lambda path, v=values: nib.save(nib.MGHImage(v.astype(np.int32), affine), path)  # noqa: E731
            yield from by_writer("mgz, mgh", f"{what}{suffix}", write, form, what)
        pair = written(lambda folder, v=values: nib.save(nib.Nifti1Pair(v, affine), folder / "pair.img"))
        yield Seed("hdr/img", pair, "pair.hdr", "nifti", what, "pair.hdr")
        yield Seed("hdr/img", pair, "pair.img", "bytes", what, "pair.hdr")
        second = nib.Nifti2Image(values, affine)
        yield from by_writer("nii", f"{what}.nii", lambda path, s=second: nib.save(s, path), "bytes", what)


def _by_itk(values: NDArray, place: Grid, what: str) -> Iterator[Seed]:
    from fmirnet_monai.spatial.geometry import set_geometry

    stored = itk.image_from_array(np.ascontiguousarray(values.T))
    set_geometry(stored, place)
    plain = {
        suffix: written(lambda f, s=suffix: itk.imwrite(stored, str(f / f"{what}{s}"))) for suffix in (".mha", ".nrrd")
    }
    yield from one("mha", f"{what}.mha", plain[".mha"][f"{what}.mha"], "metaimage", what)
    yield from one("nrrd", f"{what}.nrrd", plain[".nrrd"][f"{what}.nrrd"], "nrrd", what)
    for suffix, kind in ((".mhd", "mhd/raw"), (".nhdr", "nhdr/raw")):
        files = written(lambda f, s=suffix: itk.imwrite(stored, str(f / f"{what}{s}")))
        for name in files:
            yield Seed(kind, files, name, "text" if name.endswith(suffix) else "bytes", what, f"{what}{suffix}")
    for suffix in (".gipl", ".gipl.gz"):
        files = written(lambda f, s=suffix: itk.imwrite(stored, str(f / f"{what}{s}")))
        yield from one("gipl", f"{what}{suffix}", files[f"{what}{suffix}"], "bytes", what)


def pictures(values: NDArray) -> Iterator[Seed]:
    """Slices as pictures: grey, with a palette, of one bit."""
    grey = Image.fromarray(values.astype(np.uint8))
    for mode, what in (("L", "image"), ("L", "label"), ("P", "label"), ("1", "label")):
        picture = grey.convert(mode)
        if mode == "P":
            picture.putpalette([k for n in range(256) for k in (n, 255 - n, n // 2)])
        yield from by_writer("png", f"{what}.png", picture.save, "png", what)
    for suffix in (".jpg", ".tif"):
        yield from by_writer("jpg, tif", f"image{suffix}", grey.save, "bytes", "image")


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
    yield from one("dicom file", "slice.dcm", files[next(iter(files))], "dicom", "image", "label")
    yield from one("dicom frames", "frames.dcm", _slice(pixels, 0, len(pixels)), "dicom", "image")


def layouts(volume: Volume) -> Iterator[Seed]:
    """The data sets as downloaded."""
    chaos = written(lambda folder: write_chaos_layout(volume, folder / "CT" / "1"))
    for name in (next(n for n in chaos if n.endswith(".dcm")), next(n for n in chaos if n.endswith(".png"))):
        yield Seed("chaos", chaos, name, "dicom" if name.endswith(".dcm") else "png", "chaos", ".")
    sliver = written(lambda folder: write_sliver_layout(volume, folder))
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
                for k, v in written(lambda f, s=stored, n=name: itk.imwrite(s, str(f / n))).items()
            }
    return files


def clips() -> Iterator[Seed]:
    """A clip as EchoNet's are, alone and with its tables."""
    clip, traced = phantom_clip(1, frames=4)
    content = written(lambda folder: write_clip(clip, folder / "a.avi"))["a.avi"]
    yield from one("avi", "a.avi", content, "bytes", "clip", "clip")
    rows = ["FileName,X1,Y1,X2,Y2,Frame"]
    rows += [f"a.avi,{','.join(f'{v:.3f}' for v in chord)},{k}" for k in (0, 2) for chord in traced[k]]
    files = {"Videos/a.avi": content, "VolumeTracings.csv": "\n".join(rows).encode() + b"\n"}
    yield Seed("VolumeTracings.csv", files, "VolumeTracings.csv", "text", "echonet", ".")
    head = "HashedFileName,Calc,CalcValue,Frame,X1,X2,Y1,Y2\n"
    measured = f"{head}a,LVIDd,4.5,1,10,40,20,60\na,LVIDs,3,3,1,2,3,4\na,IVSd,1,3,0,1,0,1\n".encode()
    files = {"Videos/a.avi": content, "MeasurementsList.csv": measured}
    yield Seed("MeasurementsList.csv", files, "MeasurementsList.csv", "text", "echonet", ".")


def _registration(sop_class: str) -> pydicom.Dataset:
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.1"
    data.preamble = bytes(128)
    return data


def _spatial(affine: Affine) -> pydicom.Dataset:
    data, item, matrices = _registration(SPATIAL), pydicom.Dataset(), pydicom.Dataset()
    matrices.MatrixSequence = [matrix_item(affine, inverse=True)]
    item.MatrixRegistrationSequence = [matrices]
    data.RegistrationSequence = [item]
    return data


def _deformable(field: DisplacementField, affine: Affine) -> pydicom.Dataset:
    data, item = _registration(DEFORMABLE), pydicom.Dataset()
    item.PreDeformationMatrixRegistrationSequence = [matrix_item(affine)]
    item.DeformableRegistrationGridSequence = [grid_item(field)]
    data.DeformableRegistrationSequence = [item]
    return data


def transforms(seed: int = 0) -> Iterator[Seed]:
    """Affine maps, fields and B-splines in every file of ITK's."""
    random = np.random.default_rng(seed)
    affine = Affine(np.array([[1.0, 0.1, 0, 3], [-0.1, 1.0, 0, -2], [0, 0, 1.1, 5], [0, 0, 0, 1]]))
    grid = Grid((6, 5, 4), np.diag([-2.0, -2.0, 3.0, 1.0]))
    field = DisplacementField(torch.from_numpy(random.normal(size=(3, *grid.shape)).astype(np.float32)), grid)
    for suffix, form in ((".h5", "hdf5"), (".tfm", "text"), (".txt", "text"), (".mat", "bytes")):
        write = lambda path: write_transform(affine, path)  # noqa: E731
        yield from by_writer(suffix[1:], f"t{suffix}", write, form, "transform")
    yield from by_writer("h5", "t.h5", lambda path: write_transform(field.then(affine), path), "hdf5", "transform")
    for registration in (_spatial(affine), _deformable(field, affine)):
        yield from by_writer("dicom registration", "t.dcm", registration.save_as, "dicom", "transform")
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
        yield from by_writer(kind, f"t{suffix}", write, form, "transform")
    for suffix, form in ((".nii.gz", "nifti.gz"), (".nii", "nifti"), (".mha", "metaimage"), (".nrrd", "nrrd")):
        write = lambda path: write_displacement(field, path)  # noqa: E731
        yield from by_writer("field", f"field{suffix}", write, form, "transform")


def foreign(seed: int = 0) -> Iterator[Seed]:
    """Transforms of other tools: matrices, fields, and elastix's files with an initial one."""
    random = np.random.default_rng(seed)
    affine = Affine(np.array([[1.0, 0.1, 0, 3], [-0.1, 1.0, 0, -2], [0, 0, 1.1, 5], [0, 0, 0, 1]]))
    field = DisplacementField(torch.from_numpy(random.normal(size=(3, *PLACE.shape)).astype(np.float32)), PLACE)
    for kind, name, found, form in (
        ("fsl matrix", "a.mat", affine, "text"),
        ("lta", "a.lta", affine, "text"),
        ("afni matrix", "a.aff12.1D", affine, "text"),
        ("fsl field", "w.nii", field, "nifti"),
        ("fsl field", "w.nii.gz", field, "nifti.gz"),
        ("afni field", "w.nii", field, "nifti"),
        ("afni field", "w.nii.gz", field, "nifti.gz"),
    ):
        tool = kind.split()[0]
        write = lambda path, f=found, t=tool: write_transform(f, path, None, t, PLACE, PLACE)  # noqa: E731
        yield from by_writer(f"{kind} transform", name, write, form, "transform of images")
    lta = written(lambda folder: write_transform(affine, folder / "a.lta", None, "lta", PLACE, PLACE))["a.lta"]
    yield from one("lta transform", "v.lta", lta.replace(b"type      = 1", b"type      = 0"), "text", "transform")
    head = "(FixedImageDimension 3)\n(MovingImageDimension 3)\n"
    euler = f'{head}(Transform "EulerTransform")\n(TransformParameters .1 .2 .3 1 2 3)\n(CenterOfRotationPoint 1 2 3)\n'
    numbers = " ".join(f"{number:.3f}" for number in random.normal(size=3 * 4**3))
    spline = (
        f'{head}(Transform "BSplineTransform")\n(InitialTransformParameterFileName "out/t.0.txt")\n'
        f'(HowToCombineTransforms "Compose")\n(TransformParameters {numbers})\n(GridSize 4 4 4)\n(GridIndex 0 0 0)\n'
        "(GridSpacing 9 9 9)\n(GridOrigin -9 -9 -9)\n(GridDirection 1 0 0 0 1 0 0 0 1)\n"
    )
    files = {"t.0.txt": euler.encode(), "t.1.txt": spline.encode()}
    for target in files:
        yield Seed("elastix transform", files, target, "text", "transform", "t.1.txt")


def stored() -> Iterator[Seed]:
    """Weights and an archive."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4))
    yield from by_writer("weights", "m.pt", lambda path: torch.save(network.state_dict(), path), "zip", "weights")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(zipfile.ZipInfo(f"Train_Sets/CT/{number}/a.txt"), b"slice " * 200)
    yield from one("zip", "a.zip", made.getvalue(), "zip", "archive")


def generated() -> list[Seed]:
    """Seeds of every kind, made here and always the same."""
    volume = phantom_volume("1", 3, SHAPE, (30.0, 30.0, 30.0))
    assert volume.label is not None
    image, label = np.clip(np.rint(volume.image), -1000, 1000), volume.label.copy()
    label[2:6, 2:5, 2:4] = 1
    whole = Volume("1", image, np.asarray(volume.affine, dtype=np.float64), label)
    grey = np.clip((image[..., 4].T + 1000) / 8, 0, 255)
    parts = [volumes(image, label, whole.affine), pictures(grey), dicom(image), layouts(whole)]
    parts += [clips(), tables(), points(), transforms(), foreign(), stored()]
    return [seed for part in parts for seed in part]
