"""The generated sample: reproducible, like an abdomen, with slices that change smoothly; made once and found again."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import fmirnet_monai.data.sample as sample_module
from fmirnet_monai.data import (
    Volume,
    ensure_sample,
    find_chaos_cases,
    load_pairs,
    phantom_volume,
    read_chaos_case,
    write_chaos_layout,
    write_phantom,
)

SHAPE, SPACING = (96, 80, 40), (4.0, 4.0, 3.0)


@pytest.fixture(scope="module")
def volumes() -> list[Volume]:
    return [phantom_volume(str(seed), seed, SHAPE, SPACING) for seed in (1, 2, 3)]


def label_of(volume: Volume) -> np.ndarray:
    assert volume.label is not None
    return volume.label.astype(bool)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * (a & b).sum() / (a.sum() + b.sum())


# --- the volume --------------------------------------------------------------------------------------------------


def test_the_seed_decides(volumes: list[Volume]) -> None:
    again = phantom_volume("other name", 1, SHAPE, SPACING)
    np.testing.assert_array_equal(again.image, volumes[0].image)
    np.testing.assert_array_equal(label_of(again), label_of(volumes[0]))
    for other in volumes[1:]:
        assert 0.3 < dice(label_of(other), label_of(volumes[0])) < 0.95  # another anatomy, the same organ


def test_spacing_and_shape_are_those_asked_for(volumes: list[Volume]) -> None:
    assert volumes[0].image.shape == label_of(volumes[0]).shape == SHAPE
    np.testing.assert_allclose(np.linalg.norm(volumes[0].affine[:3, :3], axis=0), SPACING)


def test_anatomy_scales_with_spacing_not_with_voxels() -> None:
    coarse = phantom_volume("a", 4, (64, 54, 20), (6.0, 6.0, 9.0))
    fine = phantom_volume("a", 4, (128, 108, 40), (3.0, 3.0, 4.5))
    sizes = [label_of(v).sum() * abs(np.linalg.det(v.affine[:3, :3])) for v in (coarse, fine)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)
    assert 0.5e6 < sizes[1] < 3e6  # mm³; a liver has one to two litres


def test_liver_lies_on_the_right_of_the_patient(volumes: list[Volume]) -> None:
    for volume in volumes:
        middle = (volume.affine @ (*(np.array(SHAPE) - 1) / 2, 1))[:3]
        liver = (volume.affine @ (*np.argwhere(label_of(volume)).mean(0), 1))[:3]
        assert liver[0] > middle[0] + 20  # world x runs to the right hand in RAS+


def test_intensities_are_hounsfield_units_of_an_abdomen(volumes: list[Volume]) -> None:
    for volume in volumes:
        liver = volume.image[label_of(volume)]
        assert np.isfinite(volume.image).all() and volume.image.min() >= -1024 and volume.image.max() < 3000
        assert volume.image[:4, :4].mean() < -900  # air in the corners
        assert 60 < np.median(liver) < 200
        assert 5 < liver.std() < 50  # noise and texture, yet one organ
        soft = (volume.image > -50) & (volume.image < 250)
        assert 0.15 < soft.mean() < 0.8
        assert (volume.image > 250).sum() > 100  # bone


def test_liver_changes_smoothly_from_slice_to_slice(volumes: list[Volume]) -> None:
    for volume in volumes:
        label = label_of(volume)
        area = label.sum((0, 1))
        big = [k for k in range(SHAPE[2] - 1) if min(area[k], area[k + 1]) > 0.3 * area.max()]
        assert len(big) > 10
        near = [dice(label[..., k], label[..., k + 1]) for k in big]
        far = [dice(label[..., k], label[..., k + 8]) for k in big if k + 8 < SHAPE[2]]
        assert min(near) > 0.85 and np.mean(near) < 1
        assert np.mean(far) < np.mean(near) - 0.02  # registration has something to do


def test_layout_needs_a_label(volumes: list[Volume], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"subject 1: the CHAOS layout needs a label"):
        write_chaos_layout(Volume("1", volumes[0].image, volumes[0].affine), tmp_path / "1")


def test_written_sample_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    seeds = {"a": 7, "b": 7, "c": 8}
    folders = [write_phantom(tmp_path / name, 2, (16, 14, 5), (24, 24, 24), seed) for name, seed in seeds.items()]
    images = [[read_chaos_case(case).image for case in find_chaos_cases(folder)] for folder in folders]
    assert [len(of_folder) for of_folder in images] == [2, 2, 2]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0][0], images[0][1]) and not np.array_equal(images[0], images[2])


# --- the sample of a bundle --------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders for which the sample was generated, which is done small and quick here."""
    calls: list[Path] = []

    def small(folder: Path) -> Path:
        calls.append(Path(folder))
        return write_phantom(folder, 3, (32, 28, 12), (12.0, 12.0, 12.0))

    monkeypatch.setattr(sample_module, "write_phantom", small)
    return calls


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_sample_is_made_once(tmp_path: Path, made: list[Path]) -> None:
    folder = tmp_path / "sample"
    ensure_sample(folder / "datalist.json", folder)
    for section in ("training", "validation", "test"):
        assert all("moving_label" in pair for pair in load_pairs(folder / "datalist.json", section))
    before = times(folder)
    ensure_sample(folder / "datalist.json", folder)
    otherwise = tmp_path / "other" / ".." / "sample"  # the same place
    ensure_sample(str(folder / "datalist.json"), otherwise)
    assert times(folder) == before and len(made) == 1


@pytest.mark.parametrize("content", [{}, {"scan.nii": "mine"}, {"datalist.json": "{}"}])
def test_a_users_own_folder_is_left_alone(tmp_path: Path, made: list[Path], content: dict[str, str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text)
    ensure_sample(folder / "datalist.json", tmp_path / "sample")
    assert {p.name: p.read_text() for p in folder.iterdir()} == content
    assert not made and not (tmp_path / "sample").exists()


def test_interrupted_attempt_is_made_again_from_the_start(
    tmp_path: Path, made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sample"

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sample_module, "write_pairs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ensure_sample(folder / "datalist.json", folder)
    left_over = folder / "raw" / "Train_Sets" / "CT" / "99" / "DICOM_anon"
    left_over.mkdir(parents=True)
    (left_over / "i0000.dcm").write_bytes(b"half a slice")
    (folder / "notes.txt").write_text("not ours")
    ensure_sample(folder / "datalist.json", folder)
    assert load_pairs(folder / "datalist.json", "training")
    assert not left_over.exists() and len(made) == 2
    assert (folder / "notes.txt").read_text() == "not ours"


@pytest.mark.parametrize(("kind", "dims", "count"), [("echo", 2, (28, 8, 4)), ("sliver", 3, (12, 2, 2))])
def test_samples_of_the_other_layouts(tmp_path: Path, kind: str, dims: int, count: tuple[int, ...]) -> None:
    ensure_sample(tmp_path / "datalist.json", tmp_path, kind)
    for section, number in zip(("training", "validation", "test"), count, strict=True):
        pairs = load_pairs(tmp_path / "datalist.json", section)
        assert len(pairs) == number
        image = nib.load(pairs[0]["moving"])
        assert image.ndim == dims and nib.load(pairs[0]["moving_label"]).get_fdata().any()
    with pytest.raises(ValueError, match="kind must be one of slices, volumes, echo, sliver, got 'chaos'"):
        ensure_sample(tmp_path / "datalist.json", tmp_path, "chaos")


def test_only_the_first_process_makes_the_sample(
    tmp_path: Path, made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_module, "process_rank", lambda: 1)
    ensure_sample(tmp_path / "sample" / "datalist.json", tmp_path / "sample")
    assert not made and not (tmp_path / "sample").exists()
