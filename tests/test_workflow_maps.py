"""Maps through the commands, against SimpleITK: composed, inverted, beyond their grids, of one slice, damaged."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from commands import here
from monai.data import MetaTensor

from fmirnet_monai import workflow
from fmirnet_monai.data import Points, read_image, read_label, write_image, write_points
from fmirnet_monai.registration import DenseOptimizer, Method, Registrar, result
from fmirnet_monai.report import viewer
from fmirnet_monai.spatial import Affine, DisplacementField, Grid, smooth
from fmirnet_monai.spatial.image import plain
from fmirnet_monai.spatial.itk import read_transform, write_transform

GRID = Grid((26, 22, 16), np.diag([-1.5, 1.2, 2.0, 1.0]))
Run = Callable[..., tuple[str, str]]


def texture(*size: int, seed: int = 0) -> torch.Tensor:
    image = smooth(torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(seed)), 2.0)[0]
    return 100 * (image - image.min()) / (image.max() - image.min())


def turn(degrees: float, shift: tuple[float, float, float]) -> Affine:
    matrix = np.eye(4)
    angle = np.deg2rad(degrees)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return Affine(matrix)


def image_on(grid: Grid, path: Path, seed: int = 0) -> str:
    return str(write_image(MetaTensor(texture(*grid.shape, seed=seed), affine=torch.from_numpy(grid.affine)), path))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command, in a folder of its own, to what it says on both streams."""
    monkeypatch.chdir(tmp_path)

    return partial(here, capsys)


@pytest.fixture
def refused(run: Run, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A command that must fail with one line and code 2, to that line."""

    def words(*line: str, **options: Any) -> str:
        with pytest.raises(SystemExit) as stopped:
            run(*line, **options)
        assert stopped.value.code == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and said[0].startswith("fmirnet: error: ")
        return said[0]

    return words


def sitk_field(path: str | Path) -> sitk.DisplacementFieldTransform:
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))


def sampled(transform: sitk.Transform, like: sitk.Image) -> np.ndarray:
    geometry = like.GetSize(), like.GetOrigin(), like.GetSpacing(), like.GetDirection()
    return sitk.GetArrayFromImage(sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, *geometry))


# --- compose and invert ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["both.nii.gz", "both.h5"])
def test_an_affine_after_a_field_that_leaves_its_grid_is_itk_s_composite(run: Run, output: str) -> None:
    image = sitk.ReadImage(image_on(GRID, Path("fixed.nii.gz")))
    vectors = np.zeros((16, 22, 26, 3))
    vectors[..., 0], vectors[..., 1] = 45, -20 + np.arange(26)
    shift = sitk.GetImageFromArray(vectors, isVector=True)
    shift.CopyInformation(image)
    sitk.WriteImage(shift, "shift.mha")
    rotation = sitk.Euler3DTransform((3, -4, 5), 0.1, -0.2, np.deg2rad(25), (8, 2, -6))
    sitk.WriteTransform(rotation, "rotation.tfm")
    said, noted = run("compose", transforms="rotation.tfm,shift.mha", output=output)
    assert said == f"{output}\n" and not noted
    whole = sitk.CompositeTransform([rotation, sitk.DisplacementFieldTransform(sitk.Image(shift))])
    found = sitk.ReadTransform(output) if output.endswith(".h5") else sitk_field(output)
    assert np.abs(sampled(found, image) - sampled(whole, image)).max() < 0.01  # mm


def test_compose_says_what_leads_out_of_a_field_s_grid(run: Run) -> None:
    """Half the image leads out of the second field's grid, where nothing is known; ITK moves nothing there."""
    image = sitk.ReadImage(image_on(GRID, Path("fixed.nii.gz")))
    shift = np.zeros((3, *GRID.shape), dtype=np.float32)
    shift[0] = 13
    write_transform(DisplacementField(torch.from_numpy(shift), GRID), "shift.nii.gz")
    _, noted = run("compose", transforms="shift.nii.gz,shift.nii.gz", output="twice.nii.gz")
    assert re.search(r"note: 50\.0 % of twice\.nii\.gz lead out of a field's grid", noted)
    whole = sitk.CompositeTransform([sitk_field("shift.nii.gz")] * 2)
    assert np.abs(sampled(sitk_field("twice.nii.gz"), image) - sampled(whole, image)).max() < 0.01
    _, noted = run("compose", transforms="shift.nii.gz,shift.nii.gz", output="twice.h5")
    assert not noted and np.abs(sampled(sitk.ReadTransform("twice.h5"), image) - sampled(whole, image)).max() < 0.01


@pytest.mark.parametrize(("degrees", "shift"), [(25, (70, -30, 20)), (12, (14, 6, -9))])
def test_a_map_that_leads_off_its_grid_is_inverted(run: Run, degrees: float, shift: tuple[float, float, float]) -> None:
    """Its inverse exists wherever a point of its grid is mapped to, and nowhere else."""
    found = turn(degrees, shift)
    write_transform(found, "whole.nii.gz", GRID)
    affine = GRID.affine.copy()
    affine[:3, 3] = found.matrix[:3, :3] @ affine[:3, 3] + found.matrix[:3, 3] + np.array([4.0, 3, -2])
    moving = Grid((30, 24, 18), affine)
    image_on(moving, Path("moving.nii.gz"))
    said, _ = run("invert", transform="whole.nii.gz", output="back.nii.gz", reference="moving.nii.gz")
    points = moving.points()
    exact = points @ found.inverse().matrix[:3, :3].T + found.inverse().matrix[:3, 3]
    back = read_transform("back.nii.gz")
    error = np.linalg.norm(back(torch.from_numpy(points))[0].numpy() - exact, axis=1)
    exists, voxels = GRID.contains(exact), GRID.to_voxel(exact)
    between = np.all((voxels >= 0) & (voxels <= np.array(GRID.shape) - 1), axis=1)  # the vectors, where it is linear
    assert 0.1 < exists.mean() < 0.95
    assert error[between].max() < 0.05 and error[exists].max() < 0.5  # mm
    assert float(re.search(r"solved to within ([\d.]+) voxels", said)[1]) < 0.02
    missing = int(re.search(r"no inverse: ([\d,]+) of 12,960 voxels", said)[1].replace(",", ""))
    assert missing == pytest.approx(int((~exists).sum()), rel=0.02)


def test_an_inverse_that_nowhere_exists_is_said(run: Run) -> None:
    write_transform(turn(5, (400, 0, 0)), "far.nii.gz", GRID)
    image_on(GRID, Path("moving.nii.gz"))
    said, _ = run("invert", transform="far.nii.gz", output="back.nii.gz", reference="moving.nii.gz")
    assert "no inverse: 9,152 of 9,152 voxels" in said and "0.0000" not in said


@pytest.mark.parametrize("suffix", ["tfm", "mat", "h5"])
def test_an_affine_transform_stays_affine(run: Run, suffix: str) -> None:
    rotation = sitk.Euler3DTransform((3, -4, 5), 0.1, -0.2, 0.4, (8, 2, -6))
    sitk.WriteTransform(rotation, "there.tfm")
    run("invert", transform="there.tfm", output=f"back.{suffix}")
    back = read_transform(f"back.{suffix}")
    assert isinstance(back, Affine)
    theirs = sitk.ReadTransform(f"back.{suffix}")
    for point in ((0.0, 0.0, 0.0), (10.0, -20.0, 30.0), (-7.0, 50.0, 2.0)):
        np.testing.assert_allclose(theirs.TransformPoint(rotation.TransformPoint(point)), point, atol=1e-4)


# --- one map, one image ------------------------------------------------------------------------------------------


def test_one_map_as_field_and_as_transform_gives_simpleitk_s_image_on_a_larger_reference(run: Run) -> None:
    large = Grid((34, 30, 20), GRID.affine)
    image_on(large, Path("image.nii.gz"))
    image = sitk.ReadImage("image.nii.gz")
    affine = GRID.affine.copy()
    affine[:3, 3] = large.to_world(np.array([9.0, 7.0, 5.0]))
    ddf = 3 * smooth(torch.randn(1, 3, 14, 12, 8, generator=torch.Generator().manual_seed(3)), 1.5)[0] + 1.3
    field = DisplacementField(ddf, Grid((14, 12, 8), affine))
    images = []
    for name in ("field.nii.gz", "field.mha", "field.h5"):
        write_transform(field, name)
        _, noted = run(
            "warp", image="image.nii.gz", transform=name, reference="image.nii.gz", output="w.nii.gz", fill=-5
        )
        assert re.search(r"note: 9\d\.\d % of w\.nii\.gz lie beyond the image or the transform's grid", noted)
        images.append(sitk.GetArrayFromImage(sitk.ReadImage("w.nii.gz")))
    want = sitk.GetArrayFromImage(sitk.Resample(image, image, sitk_field("field.nii.gz"), sitk.sitkLinear, -5.0))
    for found in images:
        assert (np.abs(found - want) > 1e-2).mean() < 1e-3
    assert (np.abs(images[0] - images[2]) > 1e-2).mean() < 1e-3


@pytest.mark.parametrize("antialias", [False, True])
def test_what_is_written_is_smoothed_only_where_asked(run: Run, antialias: bool) -> None:
    """By default the same values as SimpleITK's from the same transform."""
    fine = Grid((64, 60, 6), np.diag([0.5, 0.5, 3.0, 1.0]))
    noise = torch.randn(1, *fine.shape, generator=torch.Generator().manual_seed(1))
    write_image(MetaTensor(noise, affine=torch.from_numpy(fine.affine)), "fine.nii.gz")
    image_on(fine.resized((16, 15, 6)), Path("coarse.nii.gz"))
    sitk.WriteTransform(sitk.TranslationTransform(3, (0.3, -0.2, 0.0)), "shift.tfm")
    run("warp", image="fine.nii.gz", transform="shift.tfm", reference="coarse.nii.gz", output="w.nii.gz",
        antialias=antialias)  # fmt: skip
    found = sitk.GetArrayFromImage(sitk.ReadImage("w.nii.gz"))
    source, reference = sitk.ReadImage("fine.nii.gz"), sitk.ReadImage("coarse.nii.gz")
    plain = sitk.Resample(source, reference, sitk.ReadTransform("shift.tfm"), sitk.sitkLinear, float(noise.min()))
    if antialias:
        assert found.std() < 0.5 * sitk.GetArrayFromImage(plain).std()
    else:
        np.testing.assert_allclose(found, sitk.GetArrayFromImage(plain), atol=1e-3)


def test_register_smooths_what_it_writes_only_where_asked(run: Run) -> None:
    fine = Grid((96, 88), np.diag([0.5, 0.5, 1.0]))
    image = texture(*fine.shape) + 20 * torch.randn(fine.shape, generator=torch.Generator().manual_seed(1))
    write_image(MetaTensor(image, affine=torch.from_numpy(fine.affine)), "fine.nii.gz")
    image_on(fine.resized((24, 22)), Path("coarse.nii.gz"))
    rough = {}
    for antialias in (False, True):
        run("register", moving="fine.nii.gz", fixed="coarse.nii.gz", output_dir="out", bundle="none",
            antialias=antialias, report=False)  # fmt: skip
        source, reference = sitk.ReadImage("fine.nii.gz"), sitk.ReadImage("coarse.nii.gz")
        transform = sitk.ReadTransform("out/transform.h5")
        plain = sitk.GetArrayFromImage(sitk.Resample(source, reference, transform, sitk.sitkLinear, float(image.min())))
        rough[antialias] = np.abs(sitk.GetArrayFromImage(sitk.ReadImage("out/warped.nii.gz")) - plain)
    assert np.median(rough[False]) < 1e-3 and np.median(rough[True]) > 3


def test_labels_are_never_smoothed(run: Run, refused: Callable[..., str]) -> None:
    write_image(MetaTensor((texture(20, 18) > 50).int()), "label.nii.gz")
    sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 0.0)), "shift.tfm")
    words = {"image": "label.nii.gz", "transform": "shift.tfm", "reference": "label.nii.gz", "output": "w.nii.gz"}
    assert "antialias" in refused("warp", **words, interpolation="nearest", antialias=True)
    assert not Path("w.nii.gz").exists()
    run("warp", **words, interpolation="nearest")
    assert set(read_label("w.nii.gz").unique().tolist()) == {0, 1}


def test_what_a_mask_leaves_out_changes_no_metric(run: Run) -> None:
    grid = Grid((30, 28), np.eye(3))
    image = texture(30, 28)
    spoilt = image.clone()
    spoilt[:, :6] = 4000
    mask = torch.ones(1, 30, 28)
    mask[:, :6] = 0
    for name, values in {"image": image, "spoilt": spoilt, "fixed": texture(30, 28, seed=1), "mask": mask}.items():
        write_image(values, f"{name}.nii.gz", grid)
    found = []
    for name in ("image", "spoilt"):
        run("metrics", image=f"{name}.nii.gz", fixed_image="fixed.nii.gz", mask="mask.nii.gz", output="m.json")
        found.append(json.loads(Path("m.json").read_text()))
    assert found[0] == pytest.approx(found[1])


def test_a_reference_of_another_dimension_is_one_line(run: Run, refused: Callable[..., str]) -> None:
    image_on(Grid((20, 18), np.eye(3)), Path("flat.nii.gz"))
    write_transform(turn(10, (0, 0, 0)), "turn.tfm")
    write_points(Points(np.zeros((1, 3)), ["a"]), "p.csv")
    assert "3-D" in refused("metrics", transform="turn.tfm", reference="flat.nii.gz")
    assert "3-D" in refused(
        "warp_points", points="p.csv", transform="turn.tfm", reference="flat.nii.gz", output="q.csv"
    )


def test_metrics_take_every_transform(run: Run, refused: Callable[..., str]) -> None:
    field = DisplacementField(2 * smooth(torch.randn(1, 3, *GRID.shape), 2.0)[0], GRID)
    image_on(GRID, Path("image.nii.gz"))
    write_transform(field.then(turn(10, (3, 0, 1))), "whole.h5")
    write_transform(field.then(turn(10, (3, 0, 1))), "whole.nii.gz")
    write_transform(turn(10, (3, 0, 1)), "turn.tfm")
    figures = {}
    for name, options in (("whole.nii.gz", {}), ("whole.h5", {}), ("turn.tfm", {"reference": "image.nii.gz"})):
        run("metrics", transform=name, output="m.json", **options)
        figures[name] = json.loads(Path("m.json").read_text())
    assert figures["whole.h5"] == pytest.approx(figures["whole.nii.gz"], abs=1e-4)
    assert figures["turn.tfm"]["folding"] == 0 and figures["turn.tfm"]["sd_log_jacobian"] < 1e-3
    assert "turn.tfm: has no grid of its own; name a --reference image" in refused("metrics", transform="turn.tfm")


# --- forms of fields ---------------------------------------------------------------------------------------------

COMMANDS = {
    "warp": {"image": "image.nii.gz", "transform": "FIELD", "output": "out.nii.gz"},
    "warp_points": {"points": "points.csv", "transform": "FIELD", "output": "out.csv"},
    "compose": {"transforms": "FIELD,FIELD", "output": "out.nii.gz"},
    "invert": {"transform": "FIELD", "output": "out.nii.gz"},
    "jacobian": {"transform": "FIELD", "output": "out.nii.gz"},
    "metrics": {"transform": "FIELD"},
}


@pytest.fixture
def inputs(run: Run) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(texture(12, 14, 16)[0].numpy()), "image.nii.gz")
    Path("points.csv").write_text("x,y,z\n4,5,6\n7,6,5\n")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd"])
def test_fields_in_double_precision_go_through_every_command(run: Run, inputs: None, command: str, suffix: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.full((12, 14, 16, 3), 0.5), isVector=True), f"field.{suffix}")
    run(command, **{name: text.replace("FIELD", f"field.{suffix}") for name, text in COMMANDS[command].items()})


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["nan.nii.gz", "nan.mha", "half.nii", "half.nii.gz", "nan.h5", "half.h5"])
def test_damaged_fields_are_one_line_in_every_command(
    run: Run, refused: Callable[..., str], inputs: None, command: str, kind: str
) -> None:
    vectors = np.full((12, 14, 16, 3), 0.5, np.float32)
    if kind.startswith("nan"):
        vectors[3, 4, 5] = np.nan
    image = sitk.GetImageFromArray(vectors, isVector=True)
    if kind.endswith("h5"):
        sitk.WriteTransform(sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64)), kind)
    elif kind.startswith("nan"):
        sitk.WriteImage(image, kind)
    if kind.startswith("half"):
        sitk.WriteImage(image, "whole.nii")
        content = Path(kind if kind == "half.h5" else "whole.nii").read_bytes()
        content = gzip.compress(content) if kind.endswith("gz") else content
        Path(kind).write_bytes(content[: len(content) // 2])
    before = sorted(Path().iterdir())
    line = refused(command, **{name: text.replace("FIELD", kind) for name, text in COMMANDS[command].items()})
    assert kind in line and ("NaN" in line if "nan" in kind else "damaged" in line)
    assert sorted(Path().iterdir()) == before


def test_a_volume_of_one_slice_goes_all_the_way(run: Run) -> None:
    grid = Grid((44, 38, 1), np.diag([-1.4, 1.1, 3.0, 1.0]))
    image_on(grid, Path("moving.nii.gz"))
    write_image(MetaTensor(texture(*grid.shape).roll(1, 1), affine=torch.from_numpy(grid.affine)), "fixed.nii.gz")
    run("register", moving="moving.nii.gz", fixed="fixed.nii.gz", output_dir="out", bundle="none", report=False)
    for name in ("displacement", "inverse_displacement"):
        field = sitk.ReadImage(f"out/{name}.nii.gz")
        assert (field.GetDimension(), field.GetNumberOfComponentsPerPixel()) == (3, 3)
    reference = sitk.ReadImage("out/warped.nii.gz")
    again = sitk.Resample(
        sitk.ReadImage("moving.nii.gz"), reference, sitk_field("out/displacement.nii.gz"), sitk.sitkLinear, 0.0
    )
    same = np.abs(sitk.GetArrayFromImage(again) - sitk.GetArrayFromImage(reference)) < 0.05
    assert same.mean() > 0.98  # but for the rim, where rounding decides
    field = {"transform": "out/displacement.nii.gz"}
    run("warp", image="moving.nii.gz", **field, output="again.nii.gz")
    np.testing.assert_allclose(read_image("again.nii.gz"), read_image("out/warped.nii.gz"), atol=0.05)
    run("jacobian", **field, output="jacobian.nii.gz")
    assert read_image("jacobian.nii.gz").shape == (1, *grid.shape)
    run("metrics", **field, output="m.json")
    written = json.loads(Path("out/metrics.json").read_text())["metrics"]
    measured = json.loads(Path("m.json").read_text())
    assert measured["sd_log_jacobian"] == pytest.approx(written["sd_log_jacobian"], abs=1e-3)
    run("invert", **field, output="back.nii.gz")
    run("compose", transforms="back.nii.gz,out/displacement.nii.gz", output="none.nii.gz")
    assert read_transform("none.nii.gz").ddf[:, 6:-6, 6:-6].abs().max() < 0.1


# --- what register writes ----------------------------------------------------------------------------------------


@pytest.fixture
def pair(run: Run) -> dict[str, str]:
    """The moving image ends six columns early."""
    grid = Grid((40, 34), np.diag([1.2, -0.9, 1.0]))
    wide = texture(*grid.shape)
    affine = torch.from_numpy(grid.affine)
    write_image(MetaTensor(wide.roll(1, 1), affine=affine), "fixed.nii.gz")
    write_image(MetaTensor(wide, affine=affine), "whole.nii.gz")
    write_image(MetaTensor(wide[:, :34], affine=affine), "moving.nii.gz")
    label = (wide > 60).int()
    write_image(MetaTensor(label[:, :34], affine=affine), "moving_label.nii.gz")
    return {"moving": "moving.nii.gz", "fixed": "fixed.nii.gz", "output_dir": "out", "bundle": "none"}


@pytest.mark.parametrize("affine", ["off", "rigid"])
def test_the_transform_is_always_written_and_equals_the_field(run: Run, pair: dict[str, str], affine: str) -> None:
    run("register", **pair, affine=affine, report=False)
    image = sitk.ReadImage("fixed.nii.gz")
    whole, field = (
        sampled(sitk.ReadTransform("out/transform.h5"), image),
        sampled(sitk_field("out/displacement.nii.gz"), image),
    )
    assert np.abs(whole - field).max() < 1e-3 and np.abs(field).max() > 0.5
    for transform in (sitk.ReadTransform("out/transform.h5"), sitk_field("out/displacement.nii.gz")):
        again = sitk.Resample(sitk.ReadImage("moving.nii.gz"), image, transform, sitk.sitkLinear, 0.0)
        warped = sitk.GetArrayFromImage(sitk.ReadImage("out/warped.nii.gz"))
        assert (np.abs(sitk.GetArrayFromImage(again) - warped) > 0.05).mean() < 0.005


def test_inside_is_written_when_needed_and_removed_when_not(run: Run, pair: dict[str, str]) -> None:
    run("register", **pair, report=False)
    inside, warped = read_label("out/inside.nii.gz"), read_image("out/warped.nii.gz")
    assert 0.75 < inside.float().mean() < 0.95
    figures = json.loads(Path("out/metrics.json").read_text())["metrics"]
    assert figures["inside"] == pytest.approx(100 * float(inside.float().mean()), abs=0.01)
    assert (warped[inside == 0] == 0).all()  # the image's smallest
    run("register", **{**pair, "fixed": "whole.nii.gz", "moving": "whole.nii.gz"}, report=False)
    assert not Path("out/inside.nii.gz").exists()


def test_the_fill_is_the_user_s(run: Run, pair: dict[str, str]) -> None:
    run("register", **pair, fill=-77, report=False)
    inside = read_label("out/inside.nii.gz")
    assert (read_image("out/warped.nii.gz")[inside == 0] == -77).all()


def test_what_is_not_wanted_is_not_made(run: Run, pair: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "invert", lambda *_: pytest.fail("inverted"))
    for name in ("image_metrics", "field_metrics", "label_metrics"):
        monkeypatch.setattr(result, name, lambda *_: pytest.fail("measured"))
    said, noted = run("register", **pair, inverse=False, metrics=False)
    content = json.loads(Path("out/metrics.json").read_text())
    assert content["metrics"] == {} and "inverse_residual" not in content
    assert not {"inverse", "metrics"} & set(content["seconds"])
    assert {path.name for path in Path("out").iterdir()} == {
        "displacement.nii.gz", "inside.nii.gz", "metrics.json", "report.html", "transform.h5", "warped.nii.gz"
    }  # fmt: skip
    assert "ncc" not in said and "no inverse" not in said and not noted


def test_a_later_run_leaves_no_inverse_of_an_earlier_one(run: Run, pair: dict[str, str]) -> None:
    run("register", **pair, report=False)
    assert Path("out/inverse_displacement.nii.gz").exists()
    run("register", **pair, report=False, inverse=False)
    assert not Path("out/inverse_displacement.nii.gz").exists()


def test_each_thing_is_made_once(run: Run, pair: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics, page and files together: the moving image and its label through the map, the inverse, the Jacobian."""
    calls: list[str] = []
    resample, invert, jacobian = result.resample, result.invert, DisplacementField.jacobian_determinant

    def counted(image: torch.Tensor, onto: Grid, through: Any = None, **options: Any) -> Any:
        moves = through is not None and not isinstance(through, Affine)
        calls.append(f"{options.get('mode', 'bilinear')} {'map' if moves else 'in place'}")
        return resample(image, onto, through, **options)

    for module in (result, viewer, workflow):
        monkeypatch.setattr(module, "resample", counted)
    monkeypatch.setattr(result, "invert", lambda *a: (calls.append("invert"), invert(*a))[1])
    monkeypatch.setattr(
        DisplacementField, "jacobian_determinant", lambda self: (calls.append("jacobian"), jacobian(self))[1]
    )
    run("register", **pair, moving_label="moving_label.nii.gz")
    assert calls.count("bilinear map") == calls.count("nearest map") == 1
    assert calls.count("invert") == calls.count("jacobian") == calls.count("bilinear in place") == 1


def test_nothing_is_made_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    image = MetaTensor(texture(30, 30))
    with monkeypatch.context() as context:
        for name in ("resample", "invert"):
            context.setattr(result, name, lambda *_, **__: pytest.fail("made"))
        context.setattr(DisplacementField, "jacobian_determinant", lambda _: pytest.fail("made"))
        found = Registrar(optimizer=DenseOptimizer("mse", (3,)), spatial_dims=2).register(image, image.roll(1, 1))
        assert found.map.dims == 2 and not {"warp", "inverse", "metrics"} & set(found.timings)
    assert found.warped is found.warped and found.inversion is found.inversion and found.metrics is found.metrics
    assert {"warp", "inverse", "metrics"} <= set(found.timings)


def test_a_label_of_one_slice_is_as_thick_as_its_spacing(run: Run) -> None:
    """Oblique, through ``register``: on the voxels that SimpleITK labels, within half its thickness."""
    grid = Grid((30, 28, 20), np.diag([-2.0, 2.0, 2.0, 1.0]))
    image_on(grid, Path("moving.nii.gz"))
    image_on(grid, Path("fixed.nii.gz"))
    tilt = np.deg2rad(20)
    axes = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array([-2.0, 2.0, 5.0])
    plane = Grid((40, 40, 1), affine)
    affine[:3, 3] = grid.to_world(np.array([14.5, 13.5, 9.0])) - plane.to_world(np.array([19.5, 19.5, 0.0]))
    label = MetaTensor(torch.full((1, 40, 40, 1), 3, dtype=torch.int32), affine=torch.from_numpy(affine))
    write_image(label, "label.nii.gz")
    run("register", moving="moving.nii.gz", fixed="fixed.nii.gz", moving_label="label.nii.gz", output_dir="out",
        report=False, inverse=False)  # fmt: skip
    assert read_transform("out/displacement.nii.gz").ddf.abs().max() < 0.05
    found = read_label("out/warped_label.nii.gz")[0].numpy() == 3
    distance = np.abs((grid.points() - affine[:3, 3]) @ axes[:, 2]).reshape(grid.shape)
    assert found[distance < 2.4].mean() > 0.85 and not found[distance > 2.6].any()  # within the plane it ends
    want = sitk.Resample(
        sitk.ReadImage("label.nii.gz"), sitk.ReadImage("moving.nii.gz"), sitk.Transform(), sitk.sitkNearestNeighbor
    )
    assert (found != (sitk.GetArrayFromImage(want).T == 3)).mean() < 0.002


# --- masks -------------------------------------------------------------------------------------------------------


def test_masks_are_read_and_heeded(run: Run, pair: dict[str, str]) -> None:
    mask = torch.ones(1, 40, 34, dtype=torch.uint8)
    mask[:, :, 20:] = 0
    affine = read_image("fixed.nii.gz").affine
    write_image(MetaTensor(mask, affine=affine), "mask.nii.gz")
    run("register", **pair, fixed_mask="mask.nii.gz", moving_mask="mask.nii.gz", report=False)
    figures = json.loads(Path("out/metrics.json").read_text())["metrics"]
    assert figures["before_inside"] == pytest.approx(85, abs=0.1)  # 34 of 40 columns of the mask


@pytest.mark.parametrize("side", ["moving", "fixed"])
@pytest.mark.parametrize("kind", ["empty", "volume", "off", "missing"])
def test_wrong_masks_are_one_line(refused: Callable[..., str], pair: dict[str, str], side: str, kind: str) -> None:
    affine = read_image("fixed.nii.gz").affine
    if kind == "off":
        affine = affine.clone()
        affine[0, 2] += 900
    values = torch.zeros(1, 40, 34) if kind == "empty" else torch.ones(1, 40, 34)
    if kind == "volume":
        write_image(MetaTensor(torch.ones(1, 9, 9, 9, dtype=torch.uint8)), "mask.nii.gz")
    elif kind != "missing":
        write_image(MetaTensor(values.to(torch.uint8), affine=affine), "mask.nii.gz")
    line = refused("register", **pair, **{f"{side}_mask": "mask.nii.gz"})
    assert "mask" in line and not Path("out").exists()


def test_masks_go_through_a_datalist(run: Run, pair: dict[str, str]) -> None:
    mask = torch.zeros(1, 40, 34, dtype=torch.uint8)
    mask[:, :20] = 1
    write_image(MetaTensor(mask, affine=read_image("fixed.nii.gz").affine), "mask.nii.gz")
    entry = {"moving": "moving.nii.gz", "fixed": "fixed.nii.gz"}
    Path("pairs.json").write_text(json.dumps({"test": [entry, {**entry, "fixed_mask": "mask.nii.gz"}]}))
    run("register", datalist="pairs.json", output_dir="all", bundle="none", report=False)
    shares = [
        json.loads(path.read_text())["metrics"]["before_inside"] for path in sorted(Path("all").glob("*/metrics.json"))
    ]
    assert shares == pytest.approx([85, 100], abs=0.1)


def test_a_method_has_one_face_for_files_and_tensors(pair: dict[str, str]) -> None:
    found = workflow.register_files(
        {key: pair[key] for key in ("moving", "fixed")}, "out", Method("none"), workflow.Outputs(False, False, False)
    )
    torch.testing.assert_close(plain(read_image("out/warped.nii.gz")), plain(found.warped))


def test_metrics_of_a_method_that_found_nothing(run: Run, tmp_path: Path) -> None:
    truth = torch.zeros(1, 12, 10, dtype=torch.uint8)
    write_image(truth, "nothing.nii.gz")
    truth[:, 3:6, 3:6] = 1
    write_image(truth, "truth.nii.gz")
    run("metrics", label="nothing.nii.gz", fixed_label="truth.nii.gz", output="a.json")
    assert json.loads(Path("a.json").read_text()) == {"dice": 0, "hd95": None, "assd": None}
    run("metrics", label="nothing.nii.gz", fixed_label="nothing.nii.gz", output="b.json")
    assert json.loads(Path("b.json").read_text()) == {"dice": None, "hd95": None, "assd": None}
