"""The short part of ``benchmarks/fuzz.py``: damaged files are read or refused; and those that once were neither."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import signal
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import itk
import nibabel as nib
import numpy as np
import pytest
import torch

from fmirnet_monai import Grid, read_image
from fmirnet_monai.bundle import read_config
from fmirnet_monai.data import load_volumes, read_case_table, read_clip, read_label, read_points, read_sections
from fmirnet_monai.data.download import unpack
from fmirnet_monai.errors import one_line
from fmirnet_monai.output import result_folder
from fmirnet_monai.spatial.files import read_displacement
from fmirnet_monai.spatial.itk import read_transform
from fmirnet_monai.study.study import Study
from fmirnet_monai.transforms import ReadImaged

from .readers import READERS, Seed
from .seeds import generated
from .trial import GOOD, Reader, damaged, message_fault

COUNT = 400


@pytest.fixture(scope="module")
def seeds() -> list[Seed]:
    return generated()


@pytest.fixture(scope="module")
def reader(seeds: list[Seed]) -> Iterator[Reader]:
    with Reader(list({(seed.kind, seed.reader): seed for seed in seeds}.values())) as process:
        yield process


def test_damaged_files_are_read_or_refused(seeds: list[Seed], reader: Reader, tmp_path: Path) -> None:
    failures = []
    for number in range(COUNT):
        case = damaged(seeds, number, seed=7)
        case.write(tmp_path / str(number))
        found = reader.read(case, tmp_path / str(number))
        if found.result not in GOOD:
            failures.append(f"case {number}, {case.kind}, {case.target}: {found.result}: {found.text[-300:]}")
    assert not failures


def test_a_number_makes_the_same_damage_again(seeds: list[Seed]) -> None:
    assert {seed.kind for seed in seeds} >= {"nii.gz", "dicom series", "avi", "points mrk.json", "h5", "weights"}
    for number in range(len(seeds)):
        case = damaged(seeds, number, seed=1)
        assert case.files == damaged(seeds, number, seed=1).files
        assert case.files.keys() == seeds[number].files.keys()


def test_a_reader_that_fails_is_found_out_and_the_next_case_is_read(reader: Reader, tmp_path: Path) -> None:
    case = Seed("sections", {"a.json": b""}, "a.json", "bytes", "sections", "a.json")
    case.write(tmp_path)
    assert reader.read(case, tmp_path).result == "refused"
    unknown = reader.read(replace(case, reader="none"), tmp_path)
    assert unknown.result == "crash" and "KeyError" in unknown.text
    os.kill(reader.copy, signal.SIGSTOP)
    assert reader.read(case, tmp_path, limit=0.1).result == "hang"
    assert reader.read(case, tmp_path).result == "refused"
    os.kill(reader.copy, signal.SIGSEGV)
    assert reader.read(case, tmp_path).result == "crash"
    assert reader.read(case, tmp_path).result == "refused"
    assert message_fault("can't be read", case, tmp_path) == "names no file"
    assert message_fault(f"{tmp_path}/a.json: can't be read", case, tmp_path) == ""


def nifti(folder: Path, shape: tuple[int, ...], name: str = "a.nii") -> Path:
    """A file of a few bytes whose header states this shape."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header["vox_offset"] = 352
    content = header.binaryblock + bytes(4) + bytes(200)
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_that_states_more_than_its_file_holds(tmp_path: Path, name: str) -> None:
    path = nifti(tmp_path, (3000, 3000, 3000), name)
    for read in (read_image, read_label, lambda file: ReadImaged(["image"])({"image": str(file)})):
        with pytest.raises(ValueError, match=rf"{name}: can't be read as an image .*states \(3000, 3000, 3000\)"):
            read(path)
    with pytest.raises(ValueError, match=rf"{name}: not a displacement field, or damaged: its header states"):
        read_displacement(path)


def test_a_gzip_that_lies_about_its_size_is_counted(tmp_path: Path) -> None:
    """Several parts one behind the other state the size of the last one alone, and are whole nevertheless."""
    image = np.random.default_rng(0).integers(0, 9, (300, 300, 120)).astype(np.int16)
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    half = len(content) - 1000
    parts = gzip.compress(content[:half], 1) + gzip.compress(content[half:], 1)
    (tmp_path / "b.nii.gz").write_bytes(parts)
    assert read_image(tmp_path / "b.nii.gz").shape == (1, *image.shape)
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(content[: len(content) // 2], 1))
    with pytest.raises(ValueError, match=r"c\.nii\.gz: .*which its content is too short for"):
        read_image(tmp_path / "c.nii.gz")


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_a_place_that_itk_never_makes_out(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.arange(64, dtype=np.int16).reshape(4, 4, 4), np.diag([2.0, 2, 2, 1])), path)
    content = bytearray(path.read_bytes())
    content[320:324] = struct.pack("<f", value)  # of the sform
    path.write_bytes(content)
    if not np.isfinite(value):
        with pytest.raises(ValueError, match=r"a\.nii: can't be read as an image"):
            read_image(path)
    content[252:254] = struct.pack("<h", 1)  # the qform, which is whole
    path.write_bytes(content)
    assert Grid.of(read_image(path)).spacing.tolist() == [2, 2, 2]


META = "ObjectType = Image\nNDims = {}\nBinaryData = True\nTransformMatrix = 1 0 0 0 1 0 {} 0 1\nOffset = 0 0 {}\n"
META += "ElementSpacing = 1 1 1\nDimSize = {}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
NRRD = "NRRD0004\ntype: unsigned char\ndimension: 3\nspace: left-posterior-superior\nsizes: {}\n"
NRRD += "space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: raw\nspace origin: ({},0,0)\n\n"


@pytest.mark.parametrize(
    ("name", "header", "match"),
    [
        ("a.mha", META.format(-1, 0, 0, "4 4 4"), "number of axes is '-1'"),
        ("a.mha", META.format(3, 0, 0, "4000 4000 4000"), "states .4000, 4000, 4000. voxels"),
        ("a.mha", META.format(3, 0, 0, "4 4 -4"), "size is '4 4 -4'"),
        ("a.mha", META.format(3, "-1e308", 0, "4 4 4"), "no finite place"),
        ("a.mha", META.format(3, 0, "1" * 5000, "4 4 4"), "5013 characters: 'Offset = "),
        ("a.nrrd", NRRD.format("4 4 " + "1" * 5000, 0), "5011 characters: 'sizes: "),
        ("a.nrrd", NRRD.format("4 4 4", "1" * 5000), "5020 characters: 'space origin: "),
        ("a.nrrd", NRRD.format("4 4 4\nsp" + "x" * 70000, 0), "a number of 70002 characters"),
        ("a.nrrd", NRRD.format("4000 4000 4000", 0), "states .4000, 4000, 4000. voxels"),
    ],
)
def test_text_headers_that_end_itk_or_never_end(tmp_path: Path, name: str, header: str, match: str) -> None:
    (tmp_path / name).write_bytes(header.encode() + bytes(range(64)))
    with pytest.raises(ValueError, match=f"{name}: can't be read as an image .*{match}"):
        read_image(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: not a displacement field, or damaged: .*{match}"):
        read_displacement(tmp_path / name)


def element(length: int, kind: bytes = b"LO") -> bytes:
    return b"\x10\x00\x10\x00" + (
        b"UN\0\0" + struct.pack("<I", length) if length > 65535 else kind + struct.pack("<H", length)
    )


@pytest.mark.parametrize(
    ("place", "new", "match"),
    [
        (b"\x10\x00\x10\x00PN", element(4_000_000_000), "element 00100010 of 4000000000 bytes is cut off"),
        (b"\x10\x00\x10\x00PN", b"\x10\x00\x10\x00WI", "is of a kind b'WI' that DICOM doesn't know"),
    ],
)
def test_dicom_elements_that_are_longer_than_the_file(
    tmp_path: Path, seeds: list[Seed], place: bytes, new: bytes, match: str
) -> None:
    whole = next(seed for seed in seeds if seed.kind == "dicom file")
    content = whole.files[whole.target].replace(place, new)
    assert content != whole.files[whole.target]
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.dcm: can't be read as an image .*{match}"):
        read_image(tmp_path / "a.dcm")


def test_bytes_behind_the_pixels_of_dicom(tmp_path: Path, seeds: list[Seed]) -> None:
    whole = next(seed for seed in seeds if seed.kind == "dicom file")
    content = whole.files[whole.target]
    (tmp_path / "a.dcm").write_bytes(content + b"\x10\x80\x30\x12UN\0\0\xf0\xff\xff\x7f" + bytes(9))
    with pytest.raises(ValueError, match="element 80101230 of 2147483632 bytes is cut off"):
        read_image(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("kind", "parameters", "fixed", "match"),
    [
        ("Euler3DTransform_double_3_3", "nan 0.2 0.3 0 0 0", "0 0 0 0", "not finite"),
        ("Euler3DTransform_double_3_3", "File 0.2 0.3 0 0 0", "0 0 0 0", "could not convert"),
        ("Euler3DTransform_double_3_3", "1" * 5000 + " 0 0 0 0 0", "0 0 0 0", "more than 63 characters"),
        ("BSplineTransform_double_3_3", "0 " * 192, "4 4 -1 0 0 0 1 1 1 1 0 0 0 1 0 0 0 1", "on a grid of"),
        ("BSplineTransform_double_3_3", "0 " * 192, "4 4 9 0 0 0 1 1 1 1 0 0 0 1 0 0 0 1", "192 parameters on a grid"),
        ("BSplineTransform_double_3_3", "0 " * 192, "4 4 4 0 0 0 1 1 1 1 0 -1e308 0 1 0 0 0 1", "not finite, or too"),
    ],
)
def test_transforms_of_numbers_that_can_not_be(
    tmp_path: Path, kind: str, parameters: str, fixed: str, match: str
) -> None:
    text = f"#Insight Transform File V1.0\n#Transform 0\nTransform: {kind}\nParameters: {parameters}\n"
    (tmp_path / "a.tfm").write_text(f"{text}FixedParameters: {fixed}\n")
    with pytest.raises(ValueError, match=f"a.tfm: not a transform, or damaged: .*{match}"):
        read_transform(tmp_path / "a.tfm")


def test_a_spline_and_a_rotation_are_still_read(tmp_path: Path) -> None:
    spline = itk.BSplineTransform[itk.D, 3, 3].New()
    spline.SetTransformDomainMeshSize([1, 1, 1])
    for suffix in (".tfm", ".mat", ".h5"):
        itk.transformwrite([spline], str(tmp_path / f"a{suffix}"))
        assert read_transform(tmp_path / f"a{suffix}").dims == 3


def test_a_matlab_file_that_states_more_numbers_than_it_has(tmp_path: Path) -> None:
    head = struct.pack("<5i", 0, 2_000_000_000, 1, 0, 28)
    (tmp_path / "a.mat").write_bytes(head + b"AffineTransform_double_3_3\0\0" + bytes(96))
    with pytest.raises(ValueError, match="it ends within 2000000000 numbers"):
        read_transform(tmp_path / "a.mat")


def test_hdf5_that_leads_nowhere(tmp_path: Path, seeds: list[Seed]) -> None:
    whole = next(seed for seed in seeds if seed.kind == "h5" and seed.form == "hdf5")
    content = bytearray(whole.files[whole.target])
    begin = content.find(b"GCOL")
    size = int.from_bytes(content[begin + 8 : begin + 16], "little")
    place = begin + 16
    while content[place : place + 2] != b"\0\0":  # to what is free
        place += 16 + -(-int.from_bytes(content[place + 8 : place + 16], "little") // 8) * 8
    assert begin < place < begin + size
    content[place + 8 : place + 16] = bytes(8)
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.h5: not a transform, or damaged: its heap of texts is damaged"):
        read_transform(tmp_path / "a.h5")


def test_hdf5_that_announces_what_it_never_wrote(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        entry = file.create_group("TransformGroup/0")
        entry["TransformType"] = [b"AffineTransform_double_3_3"]
        entry["TransformFixedParameters"] = np.zeros(3)
        entry.create_dataset("TransformParameters", shape=(2**33,), dtype="f8", chunks=(2**20,))
    with pytest.raises(ValueError, match=r"a\.h5: .*its header states \(8589934592,\) voxels"):
        read_transform(tmp_path / "a.h5")


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"\xff\xfe", b'{"a": ' + b"1" * 5000 + b"}", b"", b"null"], ids=range(5)
)
def test_json_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    bundle = tmp_path / "b"
    (bundle / "configs").mkdir(parents=True)
    for path in (tmp_path / "a.json", bundle / "configs" / "inference.json", tmp_path / "a.mrk.json"):
        path.write_bytes(content)
    for read, name in (
        (lambda: read_sections(tmp_path / "a.json"), "a.json"),
        (lambda: read_case_table(tmp_path / "a.json"), "a.json"),
        (lambda: load_volumes(tmp_path / "a.json", "test"), "a.json"),
        (lambda: Study.read(tmp_path / "a.json"), "a.json"),
        (lambda: read_config(bundle), "inference.json"),
        (lambda: read_points(tmp_path / "a.mrk.json", 3), "a.mrk.json"),
    ):
        with pytest.raises(ValueError, match=name):
            read()


def test_a_result_replaces_one_whose_metrics_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("[" * 100_000)
    with result_folder(tmp_path, []) as folder:
        (folder / "metrics.json").write_text("{}")
    assert (tmp_path / "metrics.json").read_text() == "{}"


@pytest.mark.parametrize("change", [{"title": 3}, {"methods": "elastix"}, {"cases": []}, {"prepare": 5}, {"tuned": []}])
def test_a_study_of_fields_of_other_kinds(tmp_path: Path, change: dict) -> None:
    content = {"title": "T", "methods": [{"name": "identity"}], **change}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a\.json is no study"):
        Study.read(tmp_path / "a.json")


@pytest.mark.parametrize("item", [3, {"moving": 5, "fixed": "a"}, {"moving": [None], "fixed": "a"}])
def test_a_datalist_of_other_things_than_files(tmp_path: Path, item: object) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"test": [item], "volumes": {"test": [{"subject": "1"}]}}))
    with pytest.raises(ValueError, match=r"a\.json: "):
        load_volumes(tmp_path / "a.json", "test")


def test_frames_larger_than_their_clip(tmp_path: Path, seeds: list[Seed]) -> None:
    whole = next(seed for seed in seeds if seed.kind == "avi")
    content = bytearray(whole.files[whole.target])
    begin = content.find(b"\xff\xc0")  # the size of the first picture
    assert content[begin + 5 : begin + 9] == struct.pack(">HH", 112, 112)
    content[begin + 5 : begin + 9] = struct.pack(">HH", 16000, 16000)
    (tmp_path / "a.avi").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.avi: can't be decoded as video"):
        read_clip(tmp_path / "a.avi")


def archive(folder: Path, member: zipfile.ZipInfo, content: bytes) -> Path:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("good.txt", b"good")
        file.writestr(member, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "a/../../x", "..\\x", "C:\\x"])
def test_an_archive_that_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path, zipfile.ZipInfo(name), b"x")
    with pytest.raises(ValueError, match=r"a\.zip: holds .* a place outside its folder"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_through_a_link_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="a place outside its folder"):
        unpack(archive(tmp_path, zipfile.ZipInfo("a/x"), b"x"), tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_an_archive_with_a_link_or_of_nothing_but_size(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with pytest.raises(ValueError, match=r"a\.zip: holds 'link', a link or device"):
        unpack(archive(tmp_path, link, b"/etc/passwd"), tmp_path / "out")
    with pytest.raises(ValueError, match=r"a\.zip: its members come to 20000004 bytes"):
        unpack(archive(tmp_path, zipfile.ZipInfo("zeros"), bytes(20_000_000)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    made = io.BytesIO(archive(tmp_path, zipfile.ZipInfo("x"), bytes(range(256)) * 4).read_bytes())
    content = made.getvalue()
    (tmp_path / "a.zip").write_bytes(content[:60] + bytes(200) + content[260:])
    with pytest.raises(ValueError, match=r"a\.zip: can't be unpacked"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_message_is_one_line_whatever_a_file_holds() -> None:
    line = one_line("a\n\tb\x1b[2J\ufeff" + "x" * 5000)
    assert line.startswith("a b\\x1b[2J\\ufeffx") and line.isprintable() and len(line) < 1000


def test_weights_that_are_no_state_dict(tmp_path: Path) -> None:
    for number, content in enumerate(([1, 2], {3: torch.zeros(1)}, torch.zeros(3), "text")):
        torch.save(content, tmp_path / f"{number}.pt")
        with pytest.raises(ValueError, match=rf"{number}\.pt"):
            READERS["weights"](tmp_path / f"{number}.pt")


def test_a_pair_of_files_whose_place_is_not_finite(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "pair.hdr")
    content = bytearray((tmp_path / "pair.hdr").read_bytes())
    place = nib.nifti1.header_dtype.fields["srow_y"][1] + 4
    content[place : place + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "pair.hdr").write_bytes(content)
    with pytest.raises(ValueError, match=r"pair\.hdr: .*its place is not finite"):
        read_image(tmp_path / "pair.hdr")


def test_a_metaimage_of_more_bytes_than_there_are(tmp_path: Path) -> None:
    itk.imwrite(itk.image_from_array(np.zeros((6, 5, 4), np.int16)), str(tmp_path / "a.mha"), compression=True)
    content = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(
        re.sub(rb"CompressedDataSize = \d+", b"CompressedDataSize = " + b"9" * 20, content)
    )
    with pytest.raises(ValueError, match=r"a\.mha: .*states 9{20} bytes, more than a\.mha has"):
        read_image(tmp_path / "a.mha")


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_spacing_that_is_infinite_is_warned_of_by_nobody(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([2, 2, 2, 1]))
    image.header.set_qform(image.affine, 1)
    nib.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[80:84] = np.float32(np.inf).tobytes()  # pixdim[1]
    (tmp_path / "a.nii").write_bytes(content)
    with contextlib.suppress(ValueError):
        ReadImaged(["image"])({"image": str(tmp_path / "a.nii")})
