"""Transforms of ITK, read and written, against SimpleITK: each kind stays what it is."""

from __future__ import annotations

import itertools
from pathlib import Path

import h5py
import itk
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.typing import NDArray

from fmirnet_monai.spatial import Affine, Chain, DisplacementField, Grid, chain
from fmirnet_monai.spatial.itk import Spline, flip_lps, read_transform, write_transform

from .conftest import random_affine, random_field, random_grid, sitk_points, transform_of

GRID = random_grid(np.random.default_rng(0), 3)


def somewhere(grid: Grid, seed: int = 0) -> np.ndarray:
    return grid.to_world(np.random.default_rng(seed).uniform(-2, np.array(grid.shape) + 1, (30, grid.dims)))


def linear(dims: int) -> dict[str, sitk.Transform]:
    shift = [3.0, -2.0, 1.0][:dims]
    found = {"translation": sitk.TranslationTransform(dims, shift), "scale": sitk.ScaleTransform(dims, [1.2] * dims)}
    if dims == 2:
        return {**found, "euler": sitk.Euler2DTransform([1.0, 2.0], 0.3, shift)}
    euler = sitk.Euler3DTransform([1.0, 2.0, 3.0], 0.1, -0.2, 0.3, shift)
    similarity = sitk.Similarity3DTransform()
    similarity.SetScale(1.3)
    return {**found, "euler": euler, "similarity": similarity, "identity": sitk.Transform(3, sitk.sitkIdentity)}


@pytest.mark.parametrize("suffix", [".tfm", ".h5", ".mat"])
@pytest.mark.parametrize("dims", [2, 3])
def test_linear_transforms_stay_affine(dims: int, suffix: str, tmp_path: Path) -> None:
    points = somewhere(random_grid(np.random.default_rng(0), dims))
    for name, transform in linear(dims).items():
        if suffix == ".mat" and name in ("translation", "scale", "identity"):
            continue  # MATLAB's form has no name for them
        file = tmp_path / f"{name}{suffix}"
        sitk.WriteTransform(transform, str(file))
        found = read_transform(file)
        assert isinstance(found, Affine)
        np.testing.assert_allclose(found(torch.from_numpy(points))[0], sitk_points(transform, points), atol=1e-9)


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_a_list_of_transforms_is_applied_from_its_end(suffix: str, tmp_path: Path) -> None:
    """As SimpleITK does, though ITK's reader gives the list as it stands."""
    parts = [itk.AffineTransform[itk.D, 2].New() for _ in range(2)]
    parts[0].Scale([2.0, 1.0])
    parts[1].Translate([3.0, -1.0])
    itk.transformwrite(parts, str(tmp_path / f"list{suffix}"))
    found = read_transform(tmp_path / f"list{suffix}")
    points = np.array([[1.0, 2.0]])
    moved = np.array(parts[0].TransformPoint(parts[1].TransformPoint((points * [-1, -1])[0].tolist())))
    np.testing.assert_allclose(found(torch.from_numpy(points))[0], [-moved])


def test_the_spelling_of_itk_4_is_read(tmp_path: Path) -> None:
    file = write_transform(random_affine(np.random.default_rng(1), 3, GRID), tmp_path / "new.h5")
    expected = read_transform(file)
    with h5py.File(file, "a") as content:
        entry = content["TransformGroup/0"]
        for name in ("TransformParameters", "TransformFixedParameters"):
            entry.move(name, name.replace("Transform", "Tranform"))
    found = read_transform(file)
    assert isinstance(found, Affine) and isinstance(expected, Affine)
    np.testing.assert_allclose(found.matrix, expected.matrix)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("suffix", [".tfm", ".txt", ".mat", ".h5"])
def test_an_affine_map_is_written_as_one(dims: int, suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    grid = random_grid(rng, dims)
    found = random_affine(rng, dims, grid)
    file = write_transform(found, tmp_path / f"a{suffix}")
    points = somewhere(grid)
    np.testing.assert_allclose(
        sitk_points(sitk.ReadTransform(str(file)), points), found(torch.from_numpy(points))[0], atol=1e-6
    )
    again = read_transform(file)
    assert isinstance(again, Affine)
    np.testing.assert_allclose(again.matrix, found.matrix, atol=1e-9)


@pytest.mark.parametrize("shape", [(20, 17), (14, 12, 13), (18, 15, 1)])
def test_a_composite_is_a_chain_both_ways(shape: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    grid = random_grid(rng, len(shape), shape)
    whole = chain([random_field(rng, grid), random_affine(rng, grid.dims, grid), random_field(rng, grid)])
    points = somewhere(grid)
    sitk.WriteTransform(transform_of(whole), str(tmp_path / "theirs.h5"))
    ours = write_transform(whole, tmp_path / "ours.h5")
    for file in (tmp_path / "theirs.h5", ours):
        found = read_transform(file)
        assert isinstance(found, Chain)
        assert [type(part) for part in found.parts()] == [DisplacementField, Affine, DisplacementField]
        assert (
            np.abs(found(torch.from_numpy(points))[0].numpy() - sitk_points(transform_of(whole), points)).max() < 1e-3
        )
    theirs = sitk_points(sitk.ReadTransform(str(ours)), points)
    assert np.abs(theirs - whole(torch.from_numpy(points))[0].numpy()).max() < 1e-3


def test_one_field_as_image_and_as_transform_is_one_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    grid = random_grid(rng, 3)
    field = random_field(rng, grid, 4.0)
    points = torch.from_numpy(somewhere(grid))
    found = [read_transform(write_transform(field, tmp_path / f"f{s}"))(points) for s in (".nii.gz", ".mha", ".h5")]
    for moved, inside in found[1:]:
        torch.testing.assert_close(moved, found[0][0], rtol=0, atol=1e-4)
        assert torch.equal(inside, found[0][1])
    assert not found[0][1].all()


def test_b_splines_are_itk_s(tmp_path: Path) -> None:
    grid = random_grid(np.random.default_rng(4), 3, (16, 15, 14))
    reference = sitk.Image([int(n) for n in grid.shape], sitk.sitkFloat32)
    spline = sitk.BSplineTransformInitializer(reference, [3, 3, 3])
    rng = np.random.default_rng(5)
    spline.SetParameters(rng.normal(0, 0.5, len(spline.GetParameters())).tolist())
    shift = sitk.TranslationTransform(3, (0.5, 0.0, 0.0))
    whole = sitk.CompositeTransform([shift, spline])
    sitk.WriteTransform(whole, str(tmp_path / "spline.h5"))
    found = read_transform(tmp_path / "spline.h5")
    assert isinstance(found.parts()[0], Spline)
    plain = Grid((16, 15, 14), np.diag([-1.0, -1.0, 1.0, 1.0]))
    points = plain.points()
    expected = sitk_points(whole, points)
    np.testing.assert_allclose(found(torch.from_numpy(points))[0], expected, atol=1e-9)
    dense, _ = DisplacementField.of(found, plain)
    np.testing.assert_allclose(dense(torch.from_numpy(points))[0], expected, atol=1e-4)
    with pytest.raises(ValueError, match="has no inverse of its own"):
        found.inverse()
    again = write_transform(chain(found.parts()[::-1]), tmp_path / "again.h5")
    swapped = sitk.CompositeTransform([spline, shift])
    np.testing.assert_allclose(sitk_points(sitk.ReadTransform(str(again)), points), sitk_points(swapped, points))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("suffix", [".tfm", ".mat", ".h5"])
def test_b_splines_of_any_order_move_their_whole_domain(suffix: str, order: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(order)
    spline = sitk.BSplineTransform(3, order)
    spline.SetTransformDomainMeshSize([2, 3, 4])
    spline.SetTransformDomainOrigin([3.1, -7.7, 0.3])
    spline.SetTransformDomainPhysicalDimensions([31.7, 20.1, 55.3])
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    spline.SetTransformDomainDirection(turn.ravel().tolist())
    spline.SetParameters(rng.normal(0, 3, len(spline.GetParameters())).tolist())
    sitk.WriteTransform(spline, str(tmp_path / f"spline{suffix}"))
    found = read_transform(tmp_path / f"spline{suffix}")
    parts = np.array([*itertools.product([-1e-3, 1e-6, 0.3, 1 - 1e-6, 1 + 1e-3], repeat=3)])

    def place(parts: NDArray[np.float64]) -> NDArray[np.float64]:
        return flip_lps([3.1, -7.7, 0.3] + (parts * [31.7, 20.1, 55.3]) @ turn.T)

    points = place(parts)
    np.testing.assert_allclose(found(torch.from_numpy(points))[0], sitk_points(spline, points), atol=1e-6)
    again = sitk.ReadTransform(str(write_transform(found, tmp_path / "again.h5")))
    np.testing.assert_allclose(sitk_points(again, points), sitk_points(spline, points), atol=1e-6)
    border, within = (torch.from_numpy(place(np.clip(parts, rim, 1 - rim))) for rim in (0.0, 1e-6))
    np.testing.assert_allclose(found(border)[0], found(within)[0], atol=1e-3)  # its side is rounding's in ITK


@pytest.mark.parametrize("suffix", [".tfm", ".mat", ".h5"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_translation_has_no_fixed_parameters(dims: int, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"shift{suffix}"
    sitk.WriteTransform(sitk.TranslationTransform(dims, [1.0, 2.0, 3.0][:dims]), str(file))
    moved = read_transform(file)(torch.zeros(1, dims, dtype=torch.float64))[0]
    np.testing.assert_allclose(moved[0], flip_lps([1.0, 2.0, 3.0][:dims]))


def test_a_transform_of_minc_is_refused_by_name(tmp_path: Path) -> None:
    text = "MNI Transform File\nTransform_Type = Linear;\nLinear_Transform =\n 1 0 0 1\n 0 1 0 2\n 0 0 1 3;\n"
    (tmp_path / "a.xfm").write_text(text)
    with pytest.raises(ValueError, match=r"a\.xfm: transforms of MINC are not read; write its displacement field"):
        read_transform(tmp_path / "a.xfm")


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_other_kinds_are_refused_by_name(suffix: str, tmp_path: Path) -> None:
    perspective = itk.Rigid3DPerspectiveTransform[itk.D].New()
    itk.transformwrite([perspective], str(tmp_path / f"a{suffix}"))
    with pytest.raises(ValueError, match=rf"a\{suffix}: not a transform.*Rigid3DPerspectiveTransform"):
        read_transform(tmp_path / f"a{suffix}")


def test_an_inverse_is_written_as_a_field(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    grid = random_grid(rng, 2, (30, 28))
    whole = chain([random_field(rng, grid), random_affine(rng, 2, grid)])
    file = write_transform(whole.inverse(), tmp_path / "back.h5", grid)
    back = sitk.ReadTransform(str(file))
    points = grid.to_world(rng.uniform(8, 20, (20, 2)))
    expected = whole.inverse()(torch.from_numpy(points))[0].numpy()
    assert np.abs(sitk_points(back, points) - expected).max() < 0.1 * grid.spacing.max()  # linear between voxels


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    grid = random_grid(rng, 2)
    field = random_field(rng, grid)
    with pytest.raises(FileNotFoundError, match=r"no such transform: .*nothing\.tfm"):
        read_transform(tmp_path / "nothing.tfm")
    (tmp_path / "text.tfm").write_text("no transform")
    with pytest.raises(ValueError, match=r"text\.tfm: not a transform"):
        read_transform(tmp_path / "text.tfm")
    with pytest.raises(ValueError, match=r"\.tfm holds an affine transform"):
        write_transform(field, tmp_path / "field.tfm")
    with pytest.raises(ValueError, match="has no grid of its own"):
        write_transform(random_affine(rng, 2, grid), tmp_path / "affine.mha")
    with pytest.raises(ValueError, match="unknown suffix"):
        write_transform(field, tmp_path / "field.jpg")
    broken = transform_of(field)
    vectors = sitk.GetArrayFromImage(sitk.DisplacementFieldTransform(broken).GetDisplacementField())
    vectors[2, 3] = np.inf
    image = sitk.GetImageFromArray(vectors, isVector=True)
    sitk.WriteTransform(sitk.DisplacementFieldTransform(image), str(tmp_path / "infinite.h5"))
    with pytest.raises(ValueError, match=r"infinite\.h5: 1 of its vectors are NaN or infinite"):
        read_transform(tmp_path / "infinite.h5")
    assert not list(tmp_path.glob("*partial*"))
