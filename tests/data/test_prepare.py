"""From volumes to files and a datalist: what is written is the volume, in one orientation, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from fmirnet_monai.data import Pairing, Volume, load_pairs, load_slices, load_volumes, write_pairs
from fmirnet_monai.data.pairing import SECTIONS

EVEN = (0.5, 0.25, 0.25)
SPACING = np.array([4.0, 5.0, 7.5])


def code_of_place(world: NDArray) -> NDArray:
    """A whole number that tells the place of a point (mm on a 0.5 mm raster) in space."""
    return np.rint(2 * (world @ (1.0, 25.0, 600.0))) % 30011 - 15000


def coordinates(shape: tuple[int, ...], affine: NDArray) -> NDArray:
    index = np.stack(np.meshgrid(*map(np.arange, (*shape, 1)[:3]), indexing="ij"), -1)
    return nib.affines.apply_affine(affine, index)


def volume_at(codes: str, subject: str = "a", labelled: bool = True, depth: int = 8) -> Volume:
    """A volume whose values tell their place, the same block of space stored with axes as ``codes`` says."""
    extent = {"L": (8, 0), "R": (8, 0), "P": (6, 1), "A": (6, 1), "S": (depth, 2), "I": (depth, 2)}
    ornt = nib.orientations.axcodes2ornt(codes)
    shape = tuple(extent[code][0] for code in codes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world_axis, flip) in enumerate(ornt.astype(int)):
        affine[world_axis, axis] = flip * SPACING[world_axis]
        affine[world_axis, 3] = (10.5, -20.0, 33.0)[world_axis]
        if flip < 0:
            affine[world_axis, 3] += SPACING[world_axis] * (shape[axis] - 1)
    world = coordinates(shape, affine)
    label = (world[..., 0] > 14).astype(np.uint8) + (world[..., 1] > -10) if labelled else None
    return Volume(subject, code_of_place(world).astype(np.float32), affine, label)


def all_pairs(datalist: Path) -> list[dict[str, Any]]:
    content = json.loads(datalist.read_text())
    return [pair for section in SECTIONS if content[section] for pair in load_pairs(datalist, section)]


def images_of(datalist: Path) -> dict[str, nib.Nifti1Image]:
    return {pair[key]: nib.load(pair[key]) for pair in all_pairs(datalist) for key in ("moving", "fixed")}


def whole_tree(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


# --- 2-D ---------------------------------------------------------------------------------------------------------


def test_datalist_has_the_form_of_monai(tmp_path: Path) -> None:
    volumes = [volume_at("LPS", name) for name in "abcd"]
    datalist = write_pairs(volumes, tmp_path / "new" / "out", Pairing(r=0.3, fractions=EVEN), name="mine")
    assert datalist == tmp_path / "new" / "out" / "datalist.json"
    content = json.loads(datalist.read_text())
    assert content["name"] == "mine" and content["r"] == 0.3 and content["split"] == "subject"
    for section in SECTIONS:
        assert len(content[section]) == content[f"num_{section}"] > 0
        for pair in content[section]:
            files = [pair[key] for key in ("moving", "fixed", "moving_label", "fixed_label")]
            assert not any(Path(file).is_absolute() for file in files)
            assert all((datalist.parent / file).is_file() for file in files)
            assert len(set(files)) == 4


def test_pairs_lie_within_a_group_of_one_subject(tmp_path: Path) -> None:
    datalist = write_pairs([volume_at("LPS", name) for name in "abcd"], tmp_path, Pairing(r=0.3, fractions=EVEN))
    moving_of: dict[tuple[str, int], set[str]] = {}
    for pair in all_pairs(datalist):
        moving, fixed = (nib.load(pair[key]).affine[:3, 3] for key in ("moving", "fixed"))
        assert pair["distance"] == pytest.approx((fixed - moving)[2], abs=1e-3)
        assert all(Path(pair[key]).parent.name == pair["subject"] for key in ("moving", "fixed", "fixed_label"))
        moving_of.setdefault((pair["subject"], pair["group"]), set()).add(pair["moving"])
    assert all(len(files) == 1 for files in moving_of.values())
    assert len(moving_of) == 4 * round(0.3 * 8)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LPI", "RPS", "SAL", "ASR", "PIL", "LSA"])
def test_any_input_orientation_gives_axial_lps_slices_of_the_same_space(tmp_path: Path, codes: str) -> None:
    """Values and labels stand for the place in space, so every written pixel shows whether it lies right."""
    volume = volume_at(codes)
    assert "".join(nib.aff2axcodes(volume.affine)) == codes
    datalist = write_pairs([volume], tmp_path, Pairing(r=0.15, fractions=(1, 0, 0)))
    heights = set()
    for file, image in images_of(datalist).items():
        assert image.shape == (8, 6)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        world = coordinates(image.shape, image.affine)[:, :, 0]
        np.testing.assert_array_equal(np.asarray(image.dataobj), code_of_place(world))
        label = nib.load(file.replace("image", "label"))
        np.testing.assert_allclose(label.affine, image.affine)
        np.testing.assert_array_equal(
            np.asarray(label.dataobj), (world[..., 0] > 14).astype(int) + (world[..., 1] > -10)
        )
        heights.add(round(float(world[0, 0, 2]), 3))
    assert sorted(heights) == [33.0 + SPACING[2] * k for k in range(8)]


def test_slices_with_little_label_are_left_out(tmp_path: Path) -> None:
    label = np.zeros((8, 6, 8), dtype=np.uint8)
    for k in range(8):
        label.reshape(48, 8)[: 3 * k, k] = 1 + k % 2  # 3 k pixels of 4 x 5 mm, any label counts
    plain = volume_at("LPS")
    volume = Volume("a", plain.image, plain.affine, label)
    for area, first in ((60.0 * 4, 4), (60.0 * 4 + 0.1, 5), (0, 0)):
        folder = tmp_path / str(area)
        images = images_of(write_pairs([volume], folder, Pairing(fractions=(1, 0, 0), min_label_area=area)))
        lowest = min(image.affine[2, 3] for image in images.values())
        assert len(images) == 8 - first and lowest == pytest.approx(volume.affine[2, 3] + SPACING[2] * first)


def test_unlabelled_volume_gives_all_slices_without_labels(tmp_path: Path) -> None:
    volume = volume_at("RAS", labelled=False)
    pairs = all_pairs(write_pairs([volume], tmp_path, Pairing(fractions=(1, 0, 0), min_label_area=1e9)))
    assert len({pair[key] for pair in pairs for key in ("moving", "fixed")}) == 8
    assert not any("label" in key for pair in pairs for key in pair)
    assert not list(tmp_path.rglob("label*"))


@pytest.mark.parametrize(
    "image",
    [
        np.linspace(0, 1, 8 * 6 * 8).reshape(8, 6, 8),
        np.linspace(0, 65535, 8 * 6 * 8).reshape(8, 6, 8).round(),
        np.linspace(-1, 1, 8 * 6 * 8).reshape(8, 6, 8) * 1e-4,
    ],
    ids=["0 to 1", "unsigned 16 bit", "tiny"],
)
def test_intensities_of_any_range_survive_or_are_refused(tmp_path: Path, image: NDArray) -> None:
    """MR and normalised images are not Hounsfield units; losing them in silence would train on noise."""
    volume = Volume("patient_7", image, volume_at("LPS").affine)
    try:
        datalist = write_pairs([volume], tmp_path, Pairing(fractions=(1, 0, 0)))
    except ValueError as error:
        assert "patient_7" in str(error)
        return
    for written in images_of(datalist).values():
        index = round((written.affine[2, 3] - volume.affine[2, 3]) / SPACING[2])
        np.testing.assert_allclose(written.get_fdata(), image[..., index], atol=np.ptp(image) / 500)


# --- 3-D ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAL"])
def test_volumes_are_paired_across_subjects(tmp_path: Path, codes: str) -> None:
    volumes = [volume_at(codes, name, labelled=name != "b") for name in "abcdefgh"]
    datalist = write_pairs(volumes, tmp_path, Pairing(3, fractions=EVEN))
    pairs = all_pairs(datalist)
    assert {len(json.loads(datalist.read_text())[section]) for section in SECTIONS} == {4 * 3, 2 * 1}
    for pair in pairs:
        moving, fixed = pair["subject"]
        assert Path(pair["moving"]).parent.name == moving != fixed == Path(pair["fixed"]).parent.name
        assert ("moving_label" in pair) == ("fixed_label" in pair) == ("b" not in pair["subject"])
    for image in images_of(datalist).values():
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        np.testing.assert_array_equal(
            np.asarray(image.dataobj), code_of_place(coordinates(image.shape, image.affine)).astype(int)
        )


# --- refusals ----------------------------------------------------------------------------------------------------


def test_existing_datalist_is_refused_before_anything_happens(tmp_path: Path) -> None:
    write_pairs([volume_at("LPS")], tmp_path, Pairing(fractions=(1, 0, 0)))
    before, read = whole_tree(tmp_path), []

    def volumes() -> Iterator[Volume]:
        read.append(1)
        yield volume_at("LPS", "other")

    with pytest.raises(FileExistsError, match=r"output_dir: .*datalist\.json exists; choose another folder"):
        write_pairs(volumes(), tmp_path, Pairing())
    assert whole_tree(tmp_path) == before and not read


def test_interrupted_reading_leaves_no_datalist(tmp_path: Path) -> None:
    def volumes() -> Iterator[Volume]:
        yield volume_at("LPS")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pairs(volumes(), tmp_path, Pairing(fractions=(1, 0, 0)))
    assert not list(tmp_path.rglob("*.json*"))
    write_pairs([volume_at("LPS")], tmp_path, Pairing(fractions=(1, 0, 0)))  # and the next attempt goes through


def test_subject_that_comes_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"subject a comes twice"):
        write_pairs([volume_at("LPS"), volume_at("LPS", "b"), volume_at("RAS")], tmp_path, Pairing())
    assert not (tmp_path / "datalist.json").exists()


@pytest.mark.parametrize(
    ("volumes", "pairing"),
    [
        ([], Pairing()),
        ([volume_at("LPS")], Pairing(spatial_dims=3)),
        ([volume_at("LPS")], Pairing(r=1)),
        ([volume_at("LPS")], Pairing(min_label_area=1e6)),
        ([volume_at("LPS", depth=1)], Pairing()),
    ],
    ids=["nothing", "one subject in 3-D", "every slice annotated", "too little label", "one slice"],
)
def test_no_pair(tmp_path: Path, volumes: list[Volume], pairing: Pairing) -> None:
    with pytest.raises(ValueError, match=r"no pair comes of \d volumes .*lower r or min_label_area"):
        write_pairs(volumes, tmp_path, pairing)
    assert not (tmp_path / "datalist.json").exists()


@pytest.mark.parametrize("subjects", ["ab", "abc"])
def test_split_that_drops_every_pair_is_refused(tmp_path: Path, subjects: str) -> None:
    """With one volume a section every 3-D pair crosses sections: there is nothing to train on."""
    with pytest.raises(ValueError, match=r"no pair"):
        write_pairs([volume_at("LPS", name) for name in subjects], tmp_path, Pairing(3, fractions=EVEN))
    assert not (tmp_path / "datalist.json").exists()


def test_volumes_are_kept_beside_the_slices_in_the_section_of_their_slices(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    volumes = [volume_at("LPS", name) for name in names]
    write_pairs(volumes, tmp_path, Pairing(min_label_area=0, fractions=EVEN), keep_volumes=True)
    seen = []
    for section in SECTIONS:
        subjects = {pair["subject"] for pair in load_pairs(tmp_path / "datalist.json", section)}
        found = load_volumes(tmp_path / "datalist.json", section)
        assert {item["subject"] for item in found} == subjects
        seen += [item["subject"] for item in found]
        for item in found:
            whole = nib.load(item["image"])
            np.testing.assert_array_equal(whole.get_fdata(), code_of_place(coordinates(whole.shape, whole.affine)))
            assert nib.load(item["label"]).shape == whole.shape
    assert sorted(seen) == names


def test_volumes_can_be_kept_only_beside_slices_divided_by_subject(tmp_path: Path) -> None:
    for pairing in (Pairing(spatial_dims=3), Pairing(split="pair")):
        with pytest.raises(ValueError, match="volumes: are kept beside slices"):
            write_pairs([volume_at("LPS")], tmp_path, pairing, keep_volumes=True)
    write_pairs([volume_at("LPS")], tmp_path, Pairing(fractions=(1, 0, 0), min_label_area=0))
    with pytest.raises(ValueError, match="no volumes in the section 'training'; prepare the data with --volumes"):
        load_volumes(tmp_path / "datalist.json", "training")


def test_slices_come_once_each_and_annotated_ones_are_the_moving_ones(tmp_path: Path) -> None:
    pairing = Pairing(r=0.3, min_label_area=0, fractions=(1, 0, 0))
    write_pairs([volume_at("LPS", depth=10)], tmp_path, pairing)
    pairs = load_pairs(tmp_path / "datalist.json", "training")
    slices = load_slices(tmp_path / "datalist.json", "training")
    assert len(slices) == 10 and len({item["image"] for item in slices}) == 10
    assert all(Path(item["label"]).name == Path(item["image"]).name.replace("image", "label") for item in slices)
    annotated = load_slices(tmp_path / "datalist.json", "training", annotated_only=True)
    assert {item["image"] for item in annotated} == {pair["moving"] for pair in pairs} and len(annotated) == 3


def test_slices_without_labels_are_refused(tmp_path: Path) -> None:
    write_pairs([volume_at("LPS", labelled=False)], tmp_path, Pairing(fractions=(1, 0, 0)))
    with pytest.raises(ValueError, match="has no moving_label, which segmentation needs"):
        load_slices(tmp_path / "datalist.json", "training")
