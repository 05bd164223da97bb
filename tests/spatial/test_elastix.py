"""Transforms of elastix against elastix itself: each kind, chains of them, and what a run writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import itk
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from fmirnet_monai.spatial import Affine
from fmirnet_monai.spatial.geometry import flip
from fmirnet_monai.spatial.itk import read_transform

from .tools import moved

Writer = Callable[..., Path]
KINDS = {
    2: {
        "TranslationTransform": [3.0, -2.5],
        "EulerTransform": [0.3, 2.0, -1.0],
        "SimilarityTransform": [1.2, -0.2, 2.0, 1.0],
        "AffineTransform": [1.1, 0.2, -0.1, 0.9, 3.0, -4.0],
    },
    3: {
        "TranslationTransform": [3.0, -2.5, 1.0],
        "EulerTransform": [0.3, -0.2, 0.1, 2.0, -1.0, 0.5],
        "SimilarityTransform": [0.1, -0.2, 0.05, 2.0, 1.0, -3.0, 1.2],
        "AffineTransform": [1.1, 0.2, -0.1, 0.9, 1.05, 0.1, 0.0, -0.1, 0.95, 3.0, -4.0, 2.0],
    },
}


def text(dims: int, kind: str, parameters: list[float], initial: str = "NoInitialTransform", **more: str) -> str:
    """A file as elastix writes it, of fixed images of 1 mm."""
    settings = {
        "FixedImageDimension": dims,
        "MovingImageDimension": dims,
        "FixedInternalImagePixelType": '"float"',
        "MovingInternalImagePixelType": '"float"',
        "HowToCombineTransforms": '"Compose"',
        "InitialTransformParameterFileName": f'"{initial}"',
        "NumberOfParameters": len(parameters),
        "Transform": f'"{kind}"',
        "TransformParameters": " ".join(map(repr, parameters)),
        "UseDirectionCosines": '"true"',
        "Size": " ".join(["40"] * dims),
        "Index": " ".join(["0"] * dims),
        "Spacing": " ".join(["1"] * dims),
        "Origin": " ".join(["0"] * dims),
        "Direction": words(np.eye(dims).ravel()),
        "Resampler": '"DefaultResampler"',
        "ResampleInterpolator": '"FinalBSplineInterpolator"',
        **more,
    }
    return "\n// a comment\n".join(f"({name} {value})" for name, value in settings.items()) + "\n"


def spline(dims: int, first: tuple[int, ...] = (1, -2, 3)) -> tuple[list[float], dict[str, str]]:
    """B-splines on a turned grid about (15, 15, 15), whose first control point has an index."""
    size, spacing, index = (np.array(given[:dims]) for given in ([7, 6, 8], [13.0, 11.0, 12.0], first))
    turn = Rotation.from_euler("xyz", [10, -20, 30] if dims == 3 else [0, 0, 30], degrees=True).as_matrix()
    turn = turn[:dims, :dims]
    grid = {
        "BSplineTransformSplineOrder": "3",
        "UseCyclicTransform": '"false"',
        "GridSize": words(size),
        "GridIndex": words(index),
        "GridSpacing": words(spacing),
        "GridOrigin": words(15 - turn @ (spacing * (index + (size - 1) / 2))),
        "GridDirection": words(turn.T.ravel()),
    }
    return np.random.default_rng(0).normal(0, 4, int(np.prod(size)) * dims).tolist(), grid


def words(numbers: np.ndarray) -> str:
    return " ".join(map(repr, numbers.tolist()))


def by_elastix(path: Path, points: np.ndarray, folder: Path) -> np.ndarray:
    """Points ``(N, D)`` in RAS+ mm through transformix, which reads and prints text of six digits."""
    dims = points.shape[1]
    lps = points @ flip(dims)
    listed = folder / "points.txt"
    listed.write_text(f"point\n{len(lps)}\n" + "".join(" ".join(map(repr, p)) + "\n" for p in lps.tolist()))
    image = itk.image_from_array(np.random.default_rng(0).random((40,) * dims).astype(np.float32))
    parameters = itk.ParameterObject.New()
    parameters.ReadParameterFile(str(path))
    method = itk.TransformixFilter.New(image)
    method.SetTransformParameterObject(parameters)
    method.SetTransformParameterFileName(str(path))
    method.SetFixedPointSetFileName(str(listed))
    method.SetOutputDirectory(str(folder))
    method.UpdateLargestPossibleRegion()
    lines = (folder / "outputpoints.txt").read_text().splitlines()
    found = [line.split("OutputPoint = [")[1].split("]")[0].split() for line in lines]
    return np.array(found, dtype=float) @ flip(dims)


def about(dims: int) -> np.ndarray:
    """Points, of which the B-splines know all but some."""
    return np.random.default_rng(1).uniform(-10, 40, (60, dims)) @ flip(dims)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", [*KINDS[2], "BSplineTransform", "RecursiveBSplineTransform"])
def test_each_kind_as_elastix_applies_it(kind: str, dims: int, tmp_path: Path) -> None:
    if "BSpline" in kind:
        # elastix's recursive ones read beyond their numbers where that is not 0
        parameters, more = spline(dims, (0, 0, 0)) if "Recursive" in kind else spline(dims)
    else:
        parameters = KINDS[dims][kind]
        more = {"CenterOfRotationPoint": " ".join(["10", "-5", "7"][:dims])}
    path = tmp_path / "TransformParameters.0.txt"
    for variant in ({"ComputeZYX": '"true"'}, {"ComputeZYX": '"false"'}) if kind == "EulerTransform" else ({},):
        path.write_text(text(dims, kind, parameters, **more, **variant))
        found = read_transform(path)
        assert isinstance(found, Affine) == ("BSpline" not in kind)
        assert np.abs(moved(found, about(dims)) - about(dims)).max() > 2
        np.testing.assert_allclose(moved(found, about(dims)), by_elastix(path, about(dims), tmp_path), atol=1e-5)


@pytest.mark.parametrize("key", ["InitialTransformParameterFileName", "InitialTransformParametersFileName"])
@pytest.mark.parametrize("folder", ["", "/nowhere/before/", "out/", "C:\\\\runs\\\\out\\\\"])
def test_the_initial_transform_comes_first_and_is_found_beside(key: str, folder: str, tmp_path: Path) -> None:
    parameters, grid = spline(3)
    centre = {"CenterOfRotationPoint": "10 -5 7"}
    first, second = tmp_path / "TransformParameters.0.txt", tmp_path / "TransformParameters.1.txt"
    first.write_text(text(3, "EulerTransform", KINDS[3]["EulerTransform"], **centre))
    content = text(3, "BSplineTransform", parameters, f"{folder.replace(chr(92) * 2, chr(92))}{first.name}", **grid)
    second.write_text(content.replace("InitialTransformParameterFileName", key))
    expected = moved(read_transform(first), about(3))
    (tmp_path / "alone.txt").write_text(text(3, "BSplineTransform", parameters, **grid))
    expected = moved(read_transform(tmp_path / "alone.txt"), expected)
    np.testing.assert_allclose(moved(read_transform(second), about(3)), expected, atol=1e-12)
    second.write_text(text(3, "BSplineTransform", parameters, str(first), **grid))
    np.testing.assert_allclose(by_elastix(second, about(3), tmp_path), expected, atol=1e-5)


def test_a_damaged_initial_transform_is_named(tmp_path: Path) -> None:
    centre = {"CenterOfRotationPoint": "10 -5 7"}
    for number, initial in ((0, "NoInitialTransform"), (1, "t.0.txt"), (2, "t.1.txt")):
        (tmp_path / f"t.{number}.txt").write_text(
            text(3, "EulerTransform", KINDS[3]["EulerTransform"][:5] if number == 0 else [0.0] * 6, initial, **centre)
        )
    with pytest.raises(
        ValueError, match=r"t\.1\.txt: can't be read .* elastix: in t\.0\.txt, its Euler.* 5 parameters"
    ):
        read_transform(tmp_path / "t.1.txt")
    with pytest.raises(
        ValueError, match=r"t\.2\.txt: can't be read .* elastix: in t\.0\.txt, its Euler.* 5 parameters"
    ):
        read_transform(tmp_path / "t.2.txt")


def test_what_a_run_of_elastix_writes(tmp_path: Path) -> None:
    """Three stages: their combination as elastix hands it over, and as its files are read, from another folder."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.random((5, 5, 5)), np.ones((5, 5, 5)))
    images = [itk.image_from_array(np.roll(coarse, shift, 1).astype(np.float32)) for shift in (0, 2)]
    parameters = itk.ParameterObject.New()
    for name in ("rigid", "affine", "bspline"):
        settings = dict(parameters.GetDefaultParameterMap(name, 1))
        settings |= {"MaximumNumberOfIterations": ("8",), "FinalGridSpacingInPhysicalUnits": ("9",)}
        parameters.AddParameterMap({**settings, "WriteResultImage": ("false",)})
    method = itk.ElastixRegistrationMethod.New(*images)
    method.SetParameterObject(parameters)
    (tmp_path / "run").mkdir()
    method.SetOutputDirectory(str(tmp_path / "run"))
    method.SetLogToConsole(False)
    method.SetNumberOfThreads(1)
    method.UpdateLargestPossibleRegion()
    (tmp_path / "run").rename(tmp_path / "moved")
    found = read_transform(tmp_path / "moved" / "TransformParameters.2.txt")
    points = np.random.default_rng(1).uniform(4, 20, (30, 3)) @ flip(3)
    whole = method.ConvertToItkTransform(method.GetCombinationTransform())
    expected = np.array([list(whole.TransformPoint(p)) for p in (points @ flip(3)).tolist()]) @ flip(3)
    assert np.abs(expected - points).max() > 0.1
    np.testing.assert_allclose(moved(found, points), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"HowToCombineTransforms": '"Add"', "InitialTransformParameterFileName": '"a.txt"'}, "is added, not composed"),
        ({"InitialTransformParameterFileName": '"/etc/b.txt"'}, "its initial transform b.txt is not beside it"),
        ({"InitialTransformParameterFileName": '"out/t.txt"'}, "leads back to itself"),
        ({"UseDirectionCosines": '"false"'}, "leaves out how the images are turned .* transformix -def all"),
        ({"UseBinaryFormatForTransformationParameters": '"true"'}, "its parameters are in another file"),
        (
            {"Transform": '"SplineKernelTransform"'},
            "its SplineKernelTransform is not read; write its field by transformix -def all.* or .mhd",
        ),
        ({"MovingImageDimension": "2"}, "images of 3 and 2 axes"),
        ({"TransformParameters": "1 2 3"}, "has 3 parameters where 6 belong"),
        ({"TransformParameters": "1 2 3 4 5 nan"}, "not finite"),
        ({"CenterOfRotationPoint": "1 2"}, "it has 2 numbers where 3 belong"),
    ],
)
def test_what_is_refused(change: dict[str, str], said: str, tmp_path: Path) -> None:
    settings = {"CenterOfRotationPoint": "1 2 3", **change}
    (tmp_path / "t.txt").write_text(text(3, "EulerTransform", KINDS[3]["EulerTransform"], **settings))
    with pytest.raises(ValueError, match=rf"t\.txt: can't be read as a transform of elastix: .*{said}"):
        read_transform(tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"BSplineTransformSplineOrder": "1"}, "its B-splines are not cubic"),
        ({"UseCyclicTransform": '"true"'}, "its B-splines are cyclic"),
        ({"GridSize": "7 6 9"}, r"has 1008 parameters on a grid of \[7.0, 6.0, 9.0\]"),
        ({"GridSize": "3 112 1"}, "its control points are no grid"),
        ({"GridSpacing": "1 0 1"}, "its control points are no grid"),
        ({"GridDirection": "1 0 0 1 0 0 0 0 1"}, "its control points are no grid"),
    ],
)
def test_splines_that_are_refused(change: dict[str, str], said: str, tmp_path: Path) -> None:
    parameters, grid = spline(3)
    (tmp_path / "t.txt").write_text(text(3, "BSplineTransform", parameters, **{**grid, **change}))
    with pytest.raises(ValueError, match=rf"t\.txt: can't be read as a transform of elastix: .*{said}"):
        read_transform(tmp_path / "t.txt")
