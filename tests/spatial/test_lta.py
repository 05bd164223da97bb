"""Transforms of FreeSurfer against a case by hand, FreeSurfer's own surfa, nitransforms, and files of the tool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import surfa
from nitransforms.io.lta import FSLinearTransform

from fmirnet_monai.spatial import Affine, DisplacementField, Grid
from fmirnet_monai.spatial.itk import read_transform, write_transform

from .conftest import random_affine, random_grid
from .tools import FILES, moved, within

HAND = """# made by hand
type      = {kind}
nxforms   = 1
mean      = 0.0000 0.0000 0.0000
sigma     = 1.0000
1 4 4
1 0 0 1
0 1 0 0
0 0 1 -2
0 0 0 1
src volume info
valid = 1  # volume info valid
filename = a b.mgz
volume = 4 6 8
voxelsize = 2 2 2
xras   = -1 0 0
yras   = 0 0 -1
zras   = 0 1 0
cras   = 10 20 30
dst volume info
valid = 1  # volume info valid
filename = c.mgz
volume = 10 10 10
voxelsize = 1 1 3
xras   = 1 0 0
yras   = 0 1 0
zras   = 0 0 1
cras   = 0 0 0
subject fsaverage
fscale 0.150000
"""


def test_voxels_by_hand(tmp_path: Path) -> None:
    """Voxel (7, 2, 3) of dst is voxel (6, 2, 5) of src, for the matrix adds (1, 0, -2) on the way from src to dst."""
    (tmp_path / "a.lta").write_text(HAND.format(kind=0))
    start = np.array([7 - 5.0, 2 - 5, (3 - 5) * 3])
    end = np.array([10 - 2 * (6 - 2.0), 20 + 2 * (5 - 4), 30 - 2 * (2 - 3)])
    np.testing.assert_allclose(moved(read_transform(tmp_path / "a.lta"), start[None]), end[None], atol=1e-12)


def test_ras_by_hand(tmp_path: Path) -> None:
    (tmp_path / "a.lta").write_text(HAND.format(kind="1 # LINEAR_RAS_TO_RAS"))
    start = np.array([[3.0, 4, 5]])
    np.testing.assert_allclose(moved(read_transform(tmp_path / "a.lta"), start), start - [1, 0, -2], atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_as_surfa_and_nitransforms_have_it(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    moving, fixed = random_grid(rng, 3), random_grid(rng, 3)
    truth, points = random_affine(rng, 3, fixed), within(fixed)
    expected = moved(truth, points)
    path = write_transform(truth, tmp_path / "a.lta", form="lta", moving=moving, fixed=fixed)
    theirs = surfa.load_affine(str(path))
    np.testing.assert_allclose(theirs.inv().transform(points), expected, atol=1e-9)
    for stated, grid in ((theirs.source, moving), (theirs.target, fixed)):
        assert tuple(stated.shape) == grid.shape
        np.testing.assert_allclose(stated.vox2world.matrix, grid.affine, atol=1e-9)
    np.testing.assert_allclose(  # it keeps single precision
        moved(Affine(FSLinearTransform.from_filename(path).to_ras()), points), expected, atol=1e-3
    )
    np.testing.assert_allclose(moved(read_transform(path), points), expected, atol=1e-9)
    surfa.transform.Affine.save(theirs.convert(space="voxel"), str(tmp_path / "voxels.lta"))
    assert "VOX_TO_VOX" in (tmp_path / "voxels.lta").read_text()
    np.testing.assert_allclose(moved(read_transform(tmp_path / "voxels.lta"), points), expected, atol=1e-6)


def test_files_of_the_tool() -> None:
    """One of bbregister, between voxels, and what lta_convert made of it, between RAS mm, in single precision; and
    another such pair."""
    points = np.random.default_rng(0).uniform(-80, 80, (40, 3))
    for voxels, ras in (("bold-to-t1w.v2v.lta", "bold-to-t1w.lta"), ("affine-RAS.fs.v2v.lta", "affine-RAS.fs.lta")):
        found = [moved(read_transform(FILES / name), points) for name in (voxels, ras)]
        assert np.abs(found[0] - points).max() > 5
        np.testing.assert_allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("type      = 0", "type      = 14", "1 transforms of type 14, .* lta_convert"),
        ("nxforms   = 1", "nxforms   = 2", "2 transforms of type 0, .* lta_convert"),
        ("valid = 1", "valid = 0", "its src volume is not stated"),
        ("1 4 4\n", "", "it has no line '1 4 4'"),
        ("0 1 0 0", "0 1 0", "it has 15 numbers where 16 belong"),
        ("0 1 0 0", "0 0 0 0", "Singular matrix"),
        ("0 1 0 0", "0 nan 0 0", "not finite"),
        ("zras   = 0 1 0", "zras   = 0 0 0", "affine must be finite and invertible"),
        ("dst volume info", "", "no line 'dst volume info'"),
        ("voxelsize = 2 2 2", "", "states no 'voxelsize'"),
    ],
)
def test_what_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = HAND.format(kind=0)
    assert old in text
    (tmp_path / "a.lta").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"a\.lta: can't be read as a transform of FreeSurfer: .*{said}"):
        read_transform(tmp_path / "a.lta")


def test_both_images_are_asked_for(tmp_path: Path) -> None:
    grid = Grid((4, 4, 4), np.eye(4))
    with pytest.raises(ValueError, match=r"a\.lta: --format lta .* name --moving and --fixed"):
        write_transform(Affine.identity(3), tmp_path / "a.lta", form="lta")
    with pytest.raises(ValueError, match=r"\.lta holds an affine transform, this one is none"):
        write_transform(DisplacementField.identity(grid), tmp_path / "a.lta", form="lta", moving=grid, fixed=grid)
    assert not any(tmp_path.iterdir())
