"""The Registrar: geometry, direction, inverse, and what it refuses."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation as MonaiOrientation
from torch import Tensor, nn

from fmirnet_monai.bundle import read_config
from fmirnet_monai.data import write_image
from fmirnet_monai.networks import FMIRNet
from fmirnet_monai.registration import DenseOptimizer, Guidance, Method, Registerd, Registrar
from fmirnet_monai.registration.orientation import on_extent, oriented
from fmirnet_monai.registration.result import map_points
from fmirnet_monai.spatial import DisplacementField, Grid, integrate, resample, smooth
from fmirnet_monai.spatial.itk import write_transform
from fmirnet_monai.transforms import Warpd

BUNDLE = Path(__file__).parents[2] / "bundles" / "fmirnet_chaos"


def quick(dims: int, **options) -> Registrar:
    return Registrar(optimizer=DenseOptimizer(nn.MSELoss(), (25, 25)), spatial_dims=dims, **options)


def geometry(dims: int, kind: str, spacing: float = 1.0) -> np.ndarray:
    affine = np.diag([*np.array([1.0, 1.3, 2.0][:dims]) * spacing, 1.0])
    if kind == "flipped":
        affine = affine @ np.diag([-1.0, *[1.0] * dims])
    if kind == "oblique":
        cosine, sine = np.cos(0.4), np.sin(0.4)
        turn = np.eye(dims + 1)
        turn[:2, :2] = [[cosine, -sine], [sine, cosine]]
        affine = turn @ affine
    affine[:dims, dims] = [12.0, -7.0, 5.0][:dims]
    return affine


def pair(dims: int, kind: str = "plain") -> tuple[MetaTensor, MetaTensor, DisplacementField]:
    """A texture on one grid and the same, deformed, on another of the same place; and the field between them."""
    size = (48, 44, 24)[:dims]
    generator = torch.Generator().manual_seed(0)
    image = smooth(torch.rand(1, 1, *size, generator=generator), 2.0)[0]
    moving = MetaTensor((image - image.min()) / (image.max() - image.min()), affine=torch.tensor(geometry(dims, kind)))
    velocity = smooth(torch.randn(1, dims, *size, generator=generator), 5.0)
    truth = DisplacementField(integrate(velocity * (1.5 / velocity.norm(dim=1).mean()), 5)[0], Grid.of(moving))
    shape = tuple(round(n * 1.25) for n in size)
    affine = np.array(geometry(dims, kind))
    affine[:dims, :dims] /= 1.25
    on_fixed, _ = DisplacementField.of(truth, Grid(shape, affine))
    border = 8  # the texture goes on beyond the moving image, as a body does beyond a scan
    wider = np.array(moving.affine)
    wider[:dims, dims] = Grid.of(moving).to_world(np.full(dims, -float(border)))
    padded = torch.nn.functional.pad(moving.as_tensor()[None], [border] * (2 * dims), mode="replicate")[0]
    seen, _ = resample(padded, on_fixed.grid, on_fixed, grid=Grid(padded.shape[1:], wider))
    return moving, MetaTensor(seen, affine=torch.tensor(affine)), on_fixed


@pytest.mark.parametrize("kind", ["plain", "flipped", "oblique"])
@pytest.mark.parametrize("dims", [2, 3])
def test_images_labels_and_points_agree_in_direction(dims: int, kind: str) -> None:
    moving, fixed, truth = pair(dims, kind)
    points = truth.grid.to_world(np.random.default_rng(0).uniform(10, np.array(truth.grid.shape) - 10, (30, dims)))
    label = MetaTensor((moving > 0.5).to(torch.int16), affine=moving.affine)
    fixed_label = MetaTensor((fixed > 0.5).to(torch.int16), affine=fixed.affine)
    result = quick(dims).register(moving, fixed, label, fixed_label, map_points(truth, points), points)
    assert result.warped.shape == fixed.shape and np.allclose(result.warped.affine, fixed.affine)
    assert result.metrics["tre_mean"] < 0.75 * result.metrics["before_tre_mean"]
    assert result.metrics["dice"] > result.metrics["before_dice"] + 0.01
    assert result.metrics["ncc"] > 0.98
    # moving points land on the fixed ones through the inverse, and not through the field
    there = np.linalg.norm(result.warped_points - points, axis=1).mean()
    wrong = np.linalg.norm(map_points(result.map, result.moving_points) - points, axis=1).mean()
    assert there < 0.75 * result.metrics["before_tre_mean"] < wrong
    assert result.inversion.residual < 0.1 and result.inverse.grid.matches(Grid.of(moving))
    assert result.metrics["digital_folding"] == 0


def test_affine_and_field_are_one_resampling_and_one_file(tmp_path: Path) -> None:
    moving, fixed, _ = pair(3, "oblique")
    shift = np.eye(4)
    shift[:3, 3] = [3.0, -4.0, 2.0]
    moved = MetaTensor(torch.as_tensor(moving), affine=torch.tensor(shift @ np.asarray(moving.affine)))
    result = quick(3, affine="translation").register(moved, fixed)
    assert np.allclose(result.affine.matrix[:3, 3], shift[:3, 3], atol=1.0)
    assert result.metrics["ncc"] > 0.97
    write_image(result.warped, tmp_path / "warped.nii.gz")
    write_image(moved, tmp_path / "moving.nii.gz")
    write_transform(result.field, tmp_path / "field.nii.gz")
    write_transform(result.map, tmp_path / "transform.h5")
    expected = sitk.ReadImage(str(tmp_path / "warped.nii.gz"))
    source = sitk.ReadImage(str(tmp_path / "moving.nii.gz"))
    field = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64))
    for transform in (field, sitk.ReadTransform(str(tmp_path / "transform.h5"))):
        again = sitk.GetArrayFromImage(sitk.Resample(source, expected, transform, sitk.sitkLinear, float(moved.min())))
        assert 0.7 < result.inside.float().mean() < 1
        assert (np.abs(again - sitk.GetArrayFromImage(expected)) > 2e-3).mean() < 1e-3  # on the rim rounding decides


def test_volume_is_registered_slice_by_slice_with_a_2d_bundle() -> None:
    moving, fixed, _ = pair(3, "oblique")
    result = Registrar.from_bundle(BUNDLE).register(moving, fixed)
    assert result.settings["slice_by_slice"]
    assert result.field.ddf[2].abs().max() < 1e-4 and result.field.ddf[:2].abs().max() > 0.5
    assert result.inversion.residual < 0.1


def test_volume_of_one_slice() -> None:
    moving, fixed, _ = pair(2)

    def thick(image: Tensor) -> MetaTensor:
        affine = torch.eye(4, dtype=torch.double)
        affine[:2, :2], affine[:2, 3] = image.affine[:2, :2], image.affine[:2, 2]
        return MetaTensor(torch.as_tensor(image)[..., None], affine=affine)

    result = quick(2).register(thick(moving), thick(fixed))
    flat = quick(2).register(moving, fixed)
    assert torch.allclose(result.field.ddf[:2, ..., 0], flat.field.ddf, atol=1e-4)
    assert result.metrics["digital_folding"] == 0


def test_refinement_raises_similarity() -> None:
    moving, fixed, _ = pair(2)
    plain, refined = (Registrar.from_bundle(BUNDLE, n, intensity=lambda image: image) for n in (0, 20))
    assert refined.register(moving, fixed).metrics["ncc"] > plain.register(moving, fixed).metrics["ncc"]


def test_a_bundle_says_how_many_steps_of_refinement_there_are_by_default() -> None:
    universal, chaos = ("fmirnet_universal", BUNDLE)
    assert Registrar.from_bundle(universal, None).optimizer is None
    assert Registrar.from_bundle(universal, 3).optimizer.iterations == (3,)
    assert Registrar.from_bundle(chaos, None).optimizer.iterations == (60,)
    assert Registrar.from_bundle(chaos, 0).optimizer is None


def test_a_variant_is_named_with_its_bundle() -> None:
    names = [Registrar.from_bundle("fmirnet_chaos", variant=variant).name for variant in (None, "fast")]
    assert names == ["fmirnet_chaos", "fmirnet_chaos, fast"]


def test_field_averaged_over_flips_mirrors_with_the_pair() -> None:
    moving, fixed = (image.as_tensor()[:, :40, :40] for image in pair(2)[:2])
    found = {}
    for flips in (False, True):
        registrar = Registrar.from_bundle(BUNDLE, 0, flips=flips, intensity=lambda image: image, spatial_size=40)
        ddf = registrar.register(moving, fixed).field.ddf
        mirrored = registrar.register(moving.flip(1), fixed.flip(1)).field.ddf.flip(1)
        mirrored[0] = -mirrored[0]
        found[flips] = float((ddf - mirrored).norm(dim=0).mean() / ddf.norm(dim=0).mean())
    assert found[True] < 1e-3 < found[False]
    with pytest.raises(ValueError, match=r"flips: are of a network, .* name a bundle"):
        Method("none", flips=True).registrar(MetaTensor(moving), MetaTensor(fixed))


@pytest.mark.parametrize("slices", [1, 5])
def test_what_direct_optimisation_does_better_is_told(slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shift that the network was not trained for, and one that it was, where nothing needs to be tried."""
    tried = create_autospec(DenseOptimizer.optimise, side_effect=DenseOptimizer.optimise)
    monkeypatch.setattr(DenseOptimizer, "optimise", tried)
    image = smooth(torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(1)), 4.0)[0]
    image = torch.nn.functional.pad(image - image.min(), (40, 40, 40, 40))
    told = {}
    for shift in (3, 40):
        pair = [
            MetaTensor(one if slices == 1 else one[..., None].repeat(1, 1, 1, slices))
            for one in (image, image.roll(shift, 1))
        ]
        result = Method().register(*pair)
        assert result.settings["method"] == "fmirnet_universal" and "quick_check" in result.timings
        told[shift] = result.notes
        assert tried.called == (shift == 40)
    assert told[3] == [] and len(told[40]) == 1 and "compare bundle none" in told[40][0]
    assert Method(checks=False).register(*pair).notes == []


def test_wrong_input_is_named() -> None:
    moving, fixed, _ = pair(2)
    volume, _, _ = pair(3)
    with pytest.raises(ValueError, match="moving is 3-D and fixed is 2-D"):
        quick(2).register(volume, fixed)
    with pytest.raises(ValueError, match="registers volumes"):
        quick(3).register(moving, fixed)
    with pytest.raises(ValueError, match="moving is constant"):
        quick(2).register(torch.ones(1, 20, 20), fixed)
    with pytest.raises(ValueError, match="fixed holds NaN"):
        quick(2).register(moving, torch.full((1, 20, 20), torch.nan))
    with pytest.raises(ValueError, match="no overlap in space"):
        far = torch.eye(3, dtype=torch.double)
        far[:2, 2] = 1000
        quick(2).register(MetaTensor(torch.as_tensor(moving), affine=far), fixed)
    with pytest.raises(ValueError, match=r"moving_points must be \(N, 2\)"):
        quick(2).register(moving, fixed, moving_points=np.zeros((4, 3)))
    with pytest.raises(ValueError, match="affine must be one of"):
        Registrar(affine="yes")
    with pytest.raises(FileNotFoundError, match="bundle: nothing is no bundle"):
        Registrar.from_bundle("nothing")
    with pytest.raises(ValueError, match=r"bundle: .*runet_chaos is none for registration"):
        Registrar.from_bundle("runet_chaos")
    single = MetaTensor(torch.rand(1, 20, 20, 1))
    with pytest.raises(ValueError, match="these have one slice; choose a 2-D method"):
        quick(3).register(single, single)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bundle": "fmirnet_sliver", "slices": True}, "slices: True does not fit fmirnet_sliver, which takes volumes"),
        ({"bundle": "fmirnet_chaos", "slices": False}, "slices: False does not fit fmirnet_chaos, which takes slices"),
        ({"bundle": "fmirnet_chaos", "similarity": "mind", "refine": 0}, "similarity: mind is for the refinement"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    volume = MetaTensor(torch.rand(1, 20, 20, 20))
    with pytest.raises(ValueError, match=message):
        Method(**options).registrar(volume, volume)


@pytest.mark.parametrize(
    ("shape", "spacing", "size"),
    [
        ((40, 32, 6), (0.7, 0.7, 0.5), [128, 102, 6]),  # a thin slab, of thin slices: along them, not across
        ((6, 40, 32), (1.0, 1.0, 1.0), [6, 128, 102]),
        ((40, 32, 20), (1.0, 1.0, 3.0), [128, 102, 20]),
        ((40, 32, 20), (1e-4, 1e-4, 3e-4), [128, 102, 20]),  # a microscope's voxels
        ((40, 12, 14), (1.0, 3.0, 1.0), [128, 12, 45]),  # two thin axes: the spacing decides
    ],
)
def test_volumes_are_cut_across_their_thin_or_widely_spaced_axis(
    shape: tuple[int, ...], spacing: tuple[float, ...], size: list[int]
) -> None:
    registrar = Registrar.from_bundle(BUNDLE)
    assert registrar.describe(Grid(shape, np.diag([*spacing, 1.0])))["working_grid"] == size


def test_narrow_image_and_label_that_lies_between_slices() -> None:
    """Neither stops a registration: the window of SSIM shrinks, and what can't be measured is NaN."""
    torch.manual_seed(0)
    image = MetaTensor(torch.rand(1, 80, 6))
    assert np.isfinite(Registrar(spatial_dims=2).register(image, image.flip(1)).metrics["ncc"])
    volume = MetaTensor(torch.rand(1, 20, 20, 20))
    nothing = MetaTensor(torch.zeros(1, 20, 20, 20, dtype=torch.uint8))
    metrics = quick(3).register(volume, volume.flip(1), nothing, nothing).metrics
    assert np.isnan(metrics["dice"]) and np.isfinite(metrics["ncc"])


def test_registerd_in_a_pipeline() -> None:
    moving, fixed, truth = pair(2, "oblique")
    seg = MetaTensor((moving > 0.5).to(torch.uint8), affine=moving.affine)
    step = Registerd(["a", "seg"], "a", "b", quick(2), ["bilinear", "nearest"], names=["warped", "warped_seg"])
    data = {"a": moving, "b": fixed, "seg": seg}
    result = step(data)
    expected = quick(2).register(moving, fixed)
    assert torch.allclose(torch.as_tensor(result["warped"]), torch.as_tensor(expected.warped), atol=1e-5)
    assert result["warped_seg"].dtype == torch.uint8 and set(result["warped_seg"].unique().tolist()) <= {0, 1}
    assert result["a"] is moving and np.allclose(result["warped"].affine, fixed.affine)
    same_grid = MetaTensor(resample(moving, truth.grid, truth)[0], affine=fixed.affine)
    again = Warpd("c", ddf_key="ddf")({"c": same_grid, "ddf": result["ddf"]})["c"]
    assert again.shape == fixed.shape
    single = {key: MetaTensor(torch.rand(1, 20, 20, 1)) for key in ("a", "b")}
    assert Registerd("a", "a", "b")(single)["ddf"].shape == (3, 20, 20, 1)


def test_a_bundle_brings_its_affine_stage_unless_another_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "fmirnet_sliver"
    shutil.copytree(BUNDLE.parent / "fmirnet_sliver" / "configs", folder / "configs")
    (folder / "models").mkdir()
    network = read_config(folder).get("network_def")
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    volumes = [MetaTensor(torch.rand(1, 20, 20, 20)) for _ in range(2)]
    stages = {stage: Method(str(folder), stage).registrar(*volumes).affine for stage in ("auto", "off", "rigid")}
    assert stages == {"auto": "affine", "off": "off", "rigid": "rigid"}
    assert Method(str(BUNDLE), slices=True).registrar(*volumes).affine == "off"


def test_certainty_is_the_probability_of_the_likeliest_structure_where_there_is_one() -> None:
    image = MetaTensor(torch.rand(1, 20, 20, 20))

    def find(volume: Tensor, share: int) -> Tensor:
        found = torch.full((1, 2, *volume.shape[2:]), 0.1)
        found[:, 0, :share, :10] = 0.8
        found[:, 1, :share, :10] = 0.15
        return found

    sure = quick(3, structures=partial(find, share=10), spatial_size=20)
    assert sure.certainty(image) == pytest.approx(0.8)
    assert quick(3, structures=partial(find, share=0)).certainty(image) == 0
    assert [sure.certainty(other) for other in (image[..., 0], 0 * image, image / 0)] == [0, 0, 0]
    with pytest.raises(ValueError, match="structures: optimisation finds none"):
        quick(3).certainty(image)


@pytest.mark.parametrize(
    ("certainties", "options", "name"),
    [
        ((0.93, 0.9), {}, "fmirnet_sliver"),
        ((0.93, 0.9), {"affine": "affine", "refine": 0}, "fmirnet_sliver"),
        ((0.93, 0.8), {}, "optimisation"),
        ((0.8, 0.93), {}, "optimisation"),
        ((), {"affine": "rigid"}, "optimisation"),
        ((), {"similarity": "mi"}, "optimisation"),
        ((), {"bundle": "none"}, "optimisation"),
        ((), {"guidance": Guidance(labels=1.0)}, "optimisation"),
    ],
)
def test_volumes_are_registered_by_the_weights_that_know_what_both_show(
    monkeypatch: pytest.MonkeyPatch, certainties: tuple[float, ...], options: dict, name: str
) -> None:
    asked = iter(certainties)
    monkeypatch.setattr(Registrar, "certainty", lambda registrar, image: next(asked))
    images = [MetaTensor(torch.rand(1, 20, 20, 20)) for _ in range(2)]
    method = Method(**options)
    registrar = method.registrar(*images, steered=method.guidance.labels > 0)
    assert registrar.name == name
    assert ("not of a kind" in registrar.settings.get("volumes", "")) == (name == "optimisation" and certainties != ())


def test_a_bundle_that_tells_left_from_right_is_shown_no_mirror_images() -> None:
    with pytest.raises(ValueError, match="flips: fmirnet_sliver"):
        Registrar.from_bundle("fmirnet_sliver", flips=True)


def test_structures_that_a_network_finds_guide_the_refinement() -> None:
    """Where the images say nothing of each other, they alone pull."""
    torch.manual_seed(0)
    masks = [MetaTensor(torch.zeros(1, 24, 24, 20)) for _ in range(2)]
    for mask, first in zip(masks, (6, 9), strict=True):
        mask[:, first : first + 8, 8:16, 6:14] = 1
    moving, fixed = (MetaTensor(0.6 * torch.rand(1, 24, 24, 20) + 0.4 * number) for number in (0, 1))

    def find(image: Tensor) -> Tensor:
        return MonaiOrientation(axcodes="LPS", labels=None)(masks[int(image.mean() > 0.5)])[None]

    def dice(weight: float) -> float:
        registrar = quick(3, structures=find, guidance=Guidance(structures=weight), intensity=lambda image: image)
        labels = [MetaTensor(mask.to(torch.uint8)) for mask in masks]
        return registrar.register(moving, fixed, *labels).metrics["dice"]

    assert dice(1.0) > 0.85 > dice(0.0) + 0.1


def test_structures_that_one_image_does_not_show_guide_nothing() -> None:
    shown = {"moving": (0.9, 0.4, 0.9), "fixed": (0.9, 0.9, 0.4)}

    class Listening(DenseOptimizer):
        def __call__(self, *images: Any) -> Tensor:
            self.guides = images[-1]
            return super().__call__(*images)

    def find(image: Tensor) -> Tensor:
        side = shown["fixed" if image.mean() > 0.5 else "moving"]
        return image.new_tensor(side).reshape(1, 3, 1, 1, 1) * image.new_ones(1, 1, *image.shape[2:]).tril()

    moving, fixed = (MetaTensor(0.6 * torch.rand(1, 20, 20, 20) + 0.4 * number) for number in (0, 1))
    optimizer = Listening(nn.MSELoss(), (2,))
    registrar = Registrar(None, optimizer, structures=find, guidance=Guidance(), intensity=lambda image: image)
    registrar.register(moving, fixed)
    (guide,) = optimizer.guides
    assert guide.moving.shape[1] == guide.fixed.shape[1] == 1 and float(guide.moving.max()) == pytest.approx(0.9)
    shown["fixed"] = (0.4, 0.9, 0.4)
    registrar.register(moving, fixed)
    assert optimizer.guides == []


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SLA", "PIR"])
def test_a_network_sees_volumes_in_lps_order_whatever_their_axes(codes: str) -> None:
    class Lefts(nn.Module):
        """Takes what lies 2, 3 and 1 voxels further to the left, the back and the head."""

        def forward(self, pair: Tensor) -> Tensor:
            self.seen = pair
            return torch.tensor([2.0, 3.0, 1.0]).reshape(1, 3, 1, 1, 1).expand(1, 3, *pair.shape[2:])

    moving, fixed, _ = pair(3)
    one, other = (
        [MonaiOrientation(axcodes=code, labels=None)(image) for image in (moving, fixed)] for code in ("LPS", codes)
    )
    networks = Lefts(), Lefts()
    fields = [
        Registrar(network, spatial_size=40, intensity=lambda image: image).register(*images).field
        for network, images in zip(networks, (one, other), strict=True)
    ]
    torch.testing.assert_close(networks[0].seen, networks[1].seen, atol=1e-3, rtol=0)
    points = fields[0].grid.to_world(np.random.default_rng(0).uniform(4, 16, (20, 3)))
    np.testing.assert_allclose(map_points(fields[1], points), map_points(fields[0], points), atol=1e-3)


def test_a_bundle_brings_what_finds_structures_for_its_refinement() -> None:
    plain, refined = (Registrar.from_bundle("fmirnet_sliver", steps) for steps in (0, 3))
    assert plain.optimizer is None and refined.optimizer is not None
    found = refined.structures(torch.rand(1, 1, 16, 16, 16))
    assert found.shape[1] == refined.network.registration.in_channels - 1 and found.sum(1).max() <= 1 + 1e-5


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SLA", "PIR"])
def test_a_field_with_other_axes_is_the_same_map(codes: str) -> None:
    torch.manual_seed(0)
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    affine[:3, 3] = 5, -3, 20
    grid = Grid((9, 8, 7), affine)
    field = DisplacementField(torch.rand(3, 9, 8, 7), grid)
    turned = on_extent(field, oriented(grid, codes))
    points = torch.from_numpy(grid.to_world(np.random.default_rng(0).uniform(0, 6, (20, 3))))
    torch.testing.assert_close(turned(points)[0], field(points)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(on_extent(turned, grid).ddf, field.ddf)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_network_gives_the_same_map() -> None:
    network = FMIRNet(2, channels=(4, 8), num_scales=2, combine="compose", attention="none", integration_steps=3)
    for parameter in network.estimators[0].head.parameters():
        nn.init.normal_(parameter, std=0.2)
    moving, fixed, _ = pair(2)
    options: dict[str, Any] = {"spatial_dims": 2, "spatial_size": 48}
    plain = Registrar(network, **options).estimate(moving, fixed)[1].ddf
    registrar = Registrar(network, compiled=True, **options)
    for _ in range(2):
        found = registrar.estimate(moving, fixed)[1].ddf
        assert plain.abs().max() > 0.5 and (found - plain).abs().max() < 1e-3
