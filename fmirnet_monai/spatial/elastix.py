"""Transforms of elastix: ``TransformParameters.*.txt``, with the initial ones that they name."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from .frames import numbers
from .grid import Grid
from .itk_transform import SPLINE, from_part
from .maps import Map, chain

INITIAL = ("InitialTransformParameterFileName", "InitialTransformParametersFileName")  # from elastix 5.1 on; before
SPLINES = ("BSplineTransform", "RecursiveBSplineTransform")
LINEAR = {  # number of parameters in 2-D and in 3-D
    "TranslationTransform": (2, 3),
    "EulerTransform": (3, 6),
    "SimilarityTransform": (4, 7),
    "AffineTransform": (6, 12),
}
FIELD = "write its field by transformix -def all -tp IN.txt -out DIR and give DIR/deformationField.nii or .mhd"
IN = "in "  # before the file that an error is about
ALONE = "NoInitialTransform"
LONGEST = 100  # files that one may lead through
Settings = dict[str, list[str]]


def read_elastix(path: Path, *_: Grid | None) -> Map:
    """The transform of a file after the initial one that it names.

    Files are named with the folder of the run, which may have moved since: the initial one is looked for beside the
    file, and nowhere else.

    Raises:
        ValueError: for a kind that isn't read, transforms that are added, an initial one that is not there, or a file
            that is damaged.
    """
    return chain(_parts(path, (path.name,))[::-1])


def _parts(path: Path, seen: tuple[str, ...]) -> list[Map]:
    """The transform of a file, the initial one, and so on, the first applied last."""
    settings = _settings(path.read_text("utf-8", "replace"))
    own = _own(settings)
    named = next((settings[key][0] for key in INITIAL if settings.get(key)), ALONE)
    if named == ALONE:
        return [own]
    _require(settings, "HowToCombineTransforms", "Compose", "its initial transform is added, not composed")
    name = PureWindowsPath(named).name  # which knows both kinds of strokes
    if name in seen or len(seen) > LONGEST:
        raise ValueError(f"its initial transform {name[:60]} leads back to itself; copy the other run's beside it")
    initial = path.with_name(name or ALONE)
    if not initial.is_file():
        raise ValueError(f"its initial transform {name[:60]} is not beside it; copy it there")
    try:
        return [own, *_parts(initial, (*seen, name))]
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(IN) else f"{IN}{name[:60]}, {error}") from error


def _settings(text: str) -> Settings:
    """Values by their name, of lines such as ``(Spacing 1.5 1.5)``."""
    found: Settings = {}
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("//"):
            continue
        name, *values = line[1:].rpartition(")")[0].split()
        if not line.startswith("(") or name in found:
            raise ValueError(f"its line {line[:40]!r} is no setting, or not the only one of its name")
        found[name] = " ".join(values).split('"')[1::2] if any('"' in value for value in values) else values
    return found


def _own(settings: Settings) -> Map:
    """The transform of one file alone."""
    dims = [_word(settings, f"{side}ImageDimension") for side in ("Fixed", "Moving")]
    if dims not in (["2"] * 2, ["3"] * 2):
        raise ValueError(f"it is of images of {' and '.join(dims)[:40]} axes")
    _require(settings, "UseDirectionCosines", "true", "it leaves out how the images are turned")
    _require(settings, "UseBinaryFormatForTransformationParameters", "false", "its parameters are in another file")
    kind, parameters = _word(settings, "Transform"), numbers(settings.get("TransformParameters", []))
    if kind in SPLINES:
        return _spline(settings, parameters, int(dims[0]))
    if kind not in LINEAR:
        raise ValueError(f"its {kind[:40]} is not read; {FIELD}")
    return _linear(settings, kind, parameters, int(dims[0]))


def _linear(settings: Settings, kind: str, parameters: NDArray[np.float64], dims: int) -> Map:
    if len(parameters) != LINEAR[kind][dims - 2]:
        raise ValueError(f"its {kind} has {len(parameters)} parameters where {LINEAR[kind][dims - 2]} belong")
    name = kind if kind in ("TranslationTransform", "AffineTransform") else kind.replace("T", f"{dims}DT")
    fixed = [] if kind == "TranslationTransform" else _given(settings, "CenterOfRotationPoint", dims).tolist()
    if kind == "EulerTransform" and dims == 3:
        fixed.append(float(settings.get("ComputeZYX") == ["true"]))
    return from_part((f"{name}_double_{dims}_{dims}", parameters, np.array(fixed)))


def _spline(settings: Settings, parameters: NDArray[np.float64], dims: int) -> Map:
    _require(settings, "BSplineTransformSplineOrder", "3", "its B-splines are not cubic")
    _require(settings, "UseCyclicTransform", "false", "its B-splines are cyclic")
    size, spacing, origin = (_given(settings, f"Grid{name}", dims) for name in ("Size", "Spacing", "Origin"))
    direction = np.eye(dims)
    if "GridDirection" in settings:  # column by column
        direction = _given(settings, "GridDirection", dims**2).reshape(dims, dims).T
    if "GridIndex" in settings:
        origin = origin + direction @ (spacing * _given(settings, "GridIndex", dims))
    if not (size >= 4).all() or not (spacing > 0).all() or abs(np.linalg.det(direction)) < 1e-6:
        raise ValueError(f"its control points are no grid: {size.tolist()} of spacing {spacing.tolist()}")
    fixed = np.concatenate([size, origin, spacing, direction.ravel()])
    return from_part((f"{SPLINE}_double_{dims}_{dims}", parameters, fixed))


def _require(settings: Settings, name: str, value: str, otherwise: str) -> None:
    if settings.get(name, [value]) != [value]:
        raise ValueError(f"{otherwise} ({name} {' '.join(settings[name])[:40]}); {FIELD}")


def _word(settings: Settings, name: str) -> str:
    if len(settings.get(name, [])) != 1:
        raise ValueError(f"it states no {name}")
    return settings[name][0]


def _given(settings: Settings, name: str, count: int) -> NDArray[np.float64]:
    if name not in settings:
        raise ValueError(f"it states no {name}")
    return numbers(settings[name], count)
