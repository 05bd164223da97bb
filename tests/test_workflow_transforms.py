"""Transforms of other tools through the commands: each gives what the same transform of ITK gives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from commands import here
from spatial.conftest import random_affine, random_field, random_grid, smooth_image

from fmirnet_monai.data import Points, write_image, write_points
from fmirnet_monai.spatial import Affine, Grid
from fmirnet_monai.spatial.itk import read_transform, write_transform

Run = Callable[..., tuple[str, str]]
RNG = np.random.default_rng(3)
MOVING, FIXED = random_grid(RNG, 3), random_grid(RNG, 3)
MOVING = Grid(MOVING.shape, np.block([[MOVING.affine[:3, :3], FIXED.affine[:3, 3:]], [np.zeros((1, 3)), 1]]))
TURN = random_affine(RNG, 3, FIXED)
FIELD = random_field(RNG, FIXED)
IMAGES = {"moving": "moving.nii.gz", "fixed": "fixed.nii.gz"}
AFFINE = {"fsl": "a.mat", "lta": "a.lta", "afni": "a.aff12.1D"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command, in a folder with two images, points and their transforms by ITK, to what it says on both streams."""
    monkeypatch.chdir(tmp_path)
    for name, grid in (("moving", MOVING), ("fixed", FIXED)):
        write_image(smooth_image(np.random.default_rng(0), grid).float(), f"{name}.nii.gz", grid)
    places = FIXED.points()[::97]
    write_points(Points(places, [f"p{number}" for number in range(len(places))]), "points.csv")
    write_transform(TURN, "turn.tfm")
    write_transform(FIELD, "field.nii.gz")

    return partial(here, capsys)


def refused(run: Run, capsys: pytest.CaptureFixture[str], *line: str, **options: Any) -> str:
    with pytest.raises(SystemExit) as end:
        run(*line, **options)
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def values(path: str) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("form", AFFINE)
def test_an_affine_map_there_and_back(run: Run, form: str) -> None:
    run("compose", transforms="turn.tfm", format=form, output=AFFINE[form], **IMAGES)
    run("compose", transforms=AFFINE[form], format="itk", output="back.tfm", **IMAGES)
    back = read_transform("back.tfm")
    assert isinstance(back, Affine)
    np.testing.assert_allclose(back.matrix, TURN.matrix, atol=1e-8)


@pytest.mark.parametrize("form", ["fsl", "afni"])
def test_a_field_there_and_back(run: Run, form: str) -> None:
    run("compose", transforms="turn.tfm,field.nii.gz", output="whole.nii.gz")
    run("compose", transforms="whole.nii.gz", format=form, output="theirs.nii.gz", **IMAGES)
    run("compose", transforms="theirs.nii.gz", format="itk", output="back.nii.gz", moving="moving.nii.gz")
    np.testing.assert_allclose(values("back.nii.gz"), values("whole.nii.gz"), atol=1e-4)
    if form == "fsl":
        assert np.abs(values("theirs.nii.gz") - values("whole.nii.gz")[:, :, :, 0]).max() > 1


def test_the_suffix_chooses_where_it_can(run: Run) -> None:
    for output in ("a.lta", "a.aff12.1D"):
        run("compose", transforms="turn.tfm", output=output, **IMAGES)
        assert ("nxforms" if output == "a.lta" else "3dAllineate") in Path(output).read_text()


def written(run: Run, transform: str, name: str, **images: str) -> list[np.ndarray]:
    """What every command makes of a transform."""
    out = [f"{name}_{what}" for what in ("warped.nii.gz", "points.csv", "inverse.nii.gz", "jacobian.nii.gz")]
    run("warp", image="moving.nii.gz", transform=transform, reference="fixed.nii.gz", output=out[0], **images)
    run("warp_points", points="points.csv", transform=transform, output=out[1], **images)
    run("invert", transform=transform, reference="moving.nii.gz", output=out[2], **images)
    run("jacobian", transform=transform, reference="fixed.nii.gz", output=out[3], **images)
    figures = run("metrics", transform=transform, reference="fixed.nii.gz", **images)[0]
    numbers = [float(line.split()[-1]) for line in figures.splitlines()]
    table = np.loadtxt(out[1], delimiter=",", skiprows=1, usecols=(0, 1, 2))
    return [values(out[0]), table, values(out[2]), values(out[3]), np.array(numbers)]


@pytest.mark.parametrize("name", [*AFFINE.values(), "fsl.nii.gz", "afni.nii.gz"])
def test_every_command_takes_them(run: Run, name: str) -> None:
    itk = "field.nii.gz" if name.endswith(".nii.gz") else "turn.tfm"
    form = next(form for form in AFFINE if name in (AFFINE[form], f"{form}.nii.gz"))
    run("compose", transforms=itk, format=form, output=name, **IMAGES)
    found = written(run, name, "theirs", **({} if form == "lta" else IMAGES))
    expected = written(run, itk, "ours")
    assert all(np.ptp(ours) > 0.5 for ours in expected[:3])
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=5e-3)


def test_what_is_wrong_is_one_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("compose", transforms="turn.tfm", format="fsl", output="a.mat", **IMAGES)
    warp = {"image": "moving.nii.gz", "output": "w.nii.gz", "reference": "fixed.nii.gz"}
    said = refused(run, capsys, "warp", transform="a.mat", **warp)
    assert "a.mat: is a matrix of 4 x 4 numbers" in said and "--moving and --fixed" in said
    said = refused(run, capsys, "compose", transforms="a.mat,turn.tfm", output="b.tfm", **IMAGES)
    assert "a.mat: is a matrix of 4 x 4 numbers" in said and "one transform at a time" in said
    said = refused(run, capsys, "compose", transforms="turn.tfm", output="b.tfm")
    assert "give two or more files separated by commas, or one and its new --format" in said
    said = refused(run, capsys, "compose", transforms="turn.tfm", format="spm", output="b.mat")
    assert "format must be one of itk, fsl, lta, afni, got 'spm'" in said
    said = refused(run, capsys, "compose", transforms="turn.tfm", format="lta", output="b.mat", **IMAGES)
    assert "b.mat: unknown suffix, expected one of .lta" in said
    said = refused(run, capsys, "compose", transforms="turn.tfm", format="lta", output="b.lta")
    assert "b.lta: --format lta holds only with its images; name --moving and --fixed" in said
    said = refused(run, capsys, "compose", transforms="field.nii.gz", format="fsl", output="b.nii.gz")
    assert "b.nii.gz: --format fsl holds only with its images; name --moving." in said
    said = refused(run, capsys, "compose", transforms="field.nii.gz", format="afni", output="b.1D", **IMAGES)
    assert "b.1D: .1d holds an affine transform, this one is none" in said
    said = refused(run, capsys, "compose", transforms="a.mat", format="fsl", output="a.mat", **IMAGES)
    assert "a.mat: is an input, which would be overwritten" in said
    said = refused(
        run, capsys, "compose", transforms="turn.tfm", format="lta", output="b.lta", moving="no.nii", fixed="no.nii"
    )
    assert "no such image: no.nii" in said
    assert not [path for path in Path().iterdir() if path.name.startswith(("b.", "w."))]


def test_afni_without_images_is_warned_of(run: Run) -> None:
    run("compose", transforms="turn.tfm", format="afni", output="a.aff12.1D", **IMAGES)
    said = run("compose", transforms="a.aff12.1D", format="itk", output="b.tfm")[1]
    assert "warning: a.aff12.1D: AFNI leaves out how oblique images are turned" in said
    assert "warning" not in run("compose", transforms="a.aff12.1D", format="itk", output="b.tfm", **IMAGES)[1]
