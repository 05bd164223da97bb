"""Guides: what the images don't show is followed, what they show stays, and what is wrong is told and tears nothing."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor, nn

from fmirnet_monai.baselines import IdentityRegistrar
from fmirnet_monai.registration import AffineOptimizer, DenseOptimizer, Guidance, Registerd, Registrar, load_extractor
from fmirnet_monai.registration.guidance import feature_guide, trusted
from fmirnet_monai.registration.guides import ChannelGuide, LabelGuide, PointGuide
from fmirnet_monai.registration.measure import label_metrics
from fmirnet_monai.registration.result import map_points, on_grid
from fmirnet_monai.spatial import Grid, resample

SHOWN, HIDDEN = 1, 2


def ball(size: Sequence[int], middle: Sequence[float], radius: float) -> Tensor:
    axes = torch.meshgrid(*[torch.arange(float(n)) for n in size], indexing="ij")
    distance = torch.stack([a - m for a, m in zip(axes, middle, strict=True)]).norm(dim=0)
    return distance[None] < radius


@dataclass
class Case:
    """A ball that the images show and one that they don't, each moved its own way, in voxels of an oblique grid."""

    dims: int

    def __post_init__(self) -> None:
        self.size = {2: (56, 72), 3: (36, 52, 28)}[self.dims]
        self.affine = np.diag([*[1.0, -1.25, 2.0][: self.dims], 1.0])
        self.affine[: self.dims, -1] = [20.0, -7.0, 3.0][: self.dims]
        middle = np.array(self.size) / 2
        aside = np.array([0.0, self.size[1] / 4, 0.0])[: self.dims]
        self.places = np.array([middle - aside, middle + aside])  # of the fixed image
        self.shifts = np.array([[0.0, 3.0, 0.0], [5.0, 0.0, 3.0]])[:, : self.dims]
        self.moving, self.moving_label = self._side(self.places + self.shifts, 1)
        self.fixed, self.fixed_label = self._side(self.places, 2)

    def _side(self, places: NDArray, seed: int) -> tuple[MetaTensor, MetaTensor]:
        radii = {2: (8, 7), 3: (7, 6)}[self.dims]
        shown, hidden = (ball(self.size, place, radius) for place, radius in zip(places, radii, strict=True))
        noise = torch.randn(shown.shape, generator=torch.Generator().manual_seed(seed))
        parts = shown + 0.02 * noise, SHOWN * shown.int() + HIDDEN * hidden.int()
        return tuple(MetaTensor(part, affine=torch.from_numpy(self.affine)) for part in parts)

    def points(self, which: int) -> tuple[NDArray, NDArray]:
        """Landmarks of a ball, of the moving and the fixed image in mm."""
        around = np.concatenate([np.zeros((1, self.dims)), 4 * np.eye(self.dims), -4 * np.eye(self.dims)])
        places = self.places[which] + around
        grid = Grid.of(self.fixed)
        return grid.to_world(places + self.shifts[which]), grid.to_world(places)

    def register(self, guidance: Guidance, **given: object) -> dict[str, float]:
        """Dice of both balls, the mean TRE of the points given, least Jacobian determinant, and what was told."""
        found = Registrar(spatial_dims=self.dims, guidance=guidance).register(self.moving, self.fixed, **given)
        warped = resample(self.moving_label, found.fixed_grid, found.map, mode="nearest")[0]
        values = label_metrics(warped, self.fixed_label)
        points = [self.points(which) for which in (0, 1)]
        tre = [np.linalg.norm(map_points(found.map, fixed) - moving, axis=1).mean() for moving, fixed in points]
        self.told = found.notes
        self.metrics = found.metrics
        return {
            "shown": values[f"dice_{SHOWN}"],
            "hidden": values[f"dice_{HIDDEN}"],
            "tre_shown": tre[0],
            "tre_hidden": tre[1],
            "least": float(found.determinant.min()),
        }


@cache
def alone(dims: int) -> dict[str, float]:
    """What the images alone lead to."""
    found = Case(dims).register(Guidance())
    assert found["hidden"] < 0.7 and found["tre_hidden"] > 4 and found["shown"] > 0.94
    return found


@pytest.mark.parametrize("dims", [2, 3])
def test_labels_lead_to_what_the_images_don_t_show(dims: int) -> None:
    case, without = Case(dims), alone(dims)
    labels = {"moving_label": case.moving_label, "fixed_label": case.fixed_label}
    found = case.register(Guidance(labels=1.0), **labels)
    assert found["hidden"] > 0.88 and found["shown"] > without["shown"] - 0.01 and found["least"] > 0
    assert not case.told
    assert case.metrics["guided_dice"] == pytest.approx((found["hidden"] + found["shown"]) / 2, abs=1e-6)
    assert {name for name in case.metrics if "dice" in name or "assd" in name or "hd95" in name} == {
        *("before_dice", "before_dice_1", "before_dice_2", "before_assd", "before_hd95"),
        *("guided_dice", "guided_dice_1", "guided_dice_2", "guided_assd", "guided_hd95"),
    }
    unused = case.register(Guidance(), **labels)
    assert unused == without and "dice" in case.metrics


def test_labels_of_half_the_structures_leave_the_other_half() -> None:
    case, without = Case(2), alone(2)
    halves = [
        MetaTensor(torch.where(label.as_tensor() == HIDDEN, label.as_tensor(), 0), affine=label.affine)
        for label in (case.moving_label, case.fixed_label)
    ]
    found = case.register(Guidance(labels=1.0), moving_label=halves[0], fixed_label=halves[1])
    assert found["hidden"] > 0.95 and found["shown"] > without["shown"] - 0.01


@pytest.mark.parametrize("side", ["moving", "fixed"])
def test_a_label_that_one_side_lacks_is_told_and_guides_nothing(side: str) -> None:
    case, without = Case(2), alone(2)
    labels = {"moving_label": case.moving_label, "fixed_label": case.fixed_label}
    lacking = labels[f"{side}_label"].as_tensor()
    affine = labels[f"{side}_label"].affine
    labels[f"{side}_label"] = MetaTensor(torch.where(lacking == HIDDEN, 0, lacking), affine=affine)
    found = case.register(Guidance(labels=1.0), **labels)
    other = {"moving": "fixed", "fixed": "moving"}[side]
    assert case.told == [f"guide: only {other}_label holds {HIDDEN}; what one side lacks guides nothing."]
    assert found["shown"] > without["shown"] - 0.01 and found["least"] > 0
    assert found["hidden"] == pytest.approx(without["hidden"], abs=0.1)


@pytest.mark.parametrize("dims", [2, 3])
def test_landmarks_lead_to_what_the_images_don_t_show(dims: int) -> None:
    case, without = Case(dims), alone(dims)
    moving, fixed = case.points(1)
    found = case.register(Guidance(points=1.0), moving_points=moving, fixed_points=fixed)
    assert found["tre_hidden"] < 0.5 and found["hidden"] > 0.75 and found["least"] > 0
    assert found["tre_shown"] < without["tre_shown"] + 0.2 and found["shown"] > without["shown"] - 0.01
    assert case.metrics["guided_tre_mean"] == pytest.approx(found["tre_hidden"], abs=1e-6)
    assert "tre_mean" not in case.metrics and not case.told


def test_a_landmark_30_mm_off_is_told_and_tears_nothing() -> None:
    case = Case(2)
    moving, fixed = case.points(1)
    right = case.register(Guidance(points=1.0), moving_points=moving, fixed_points=fixed)
    moving[2, 0] += 30
    found = case.register(Guidance(points=1.0), moving_points=moving, fixed_points=fixed)
    assert len(case.told) == 1 and case.told[0].startswith("landmark 3 still lies ")
    assert found["tre_hidden"] < right["tre_hidden"] + 0.5 and found["shown"] > right["shown"] - 0.01
    assert found["least"] > 0.5 * right["least"]


def test_both_guides_and_a_volume_slice_by_slice() -> None:
    flat = Case(2)
    labels = [label[..., None].repeat(1, 1, 1, 5) for label in (flat.moving_label, flat.fixed_label)]
    images = [image[..., None].repeat(1, 1, 1, 5) for image in (flat.moving, flat.fixed)]
    affine = torch.eye(4, dtype=torch.double)
    affine[:2, :2] = torch.from_numpy(flat.affine[:2, :2])
    affine[:2, 3] = torch.from_numpy(flat.affine[:2, 2])
    affine[2, 2] = 8.0
    placed = [MetaTensor(part.as_tensor(), affine=affine) for part in (*images, *labels)]
    clouds = [
        np.concatenate([np.pad(side, ((0, 0), (0, 1)), constant_values=z) for z in (0, 8, 16)])
        for side in flat.points(1)
    ]
    registrar = Registrar(spatial_dims=2, guidance=Guidance(labels=0.5, points=1.0))
    found = registrar.register(*placed, moving_points=clouds[0], fixed_points=clouds[1])
    left = np.linalg.norm(map_points(found.map, clouds[1]) - clouds[0], axis=1)
    assert left.max() < 1.0 and found.metrics["guided_dice"] > 0.95
    assert not found.deformable.ddf[2].any()


def test_channels_show_what_the_images_don_t() -> None:
    case, without = Case(2), alone(2)
    hidden = [
        MetaTensor((label.as_tensor() == HIDDEN).float() * 700 + 40, affine=label.affine)
        for label in (case.moving_label, case.fixed_label)
    ]
    found = case.register(Guidance(), moving_channels=hidden[:1], fixed_channels=hidden[1:])
    assert found["hidden"] > 0.95 and found["shown"] > without["shown"] - 0.02
    assert case.register(Guidance(channels=0.0), moving_channels=hidden[:1], fixed_channels=hidden[1:]) == without
    with pytest.raises(ValueError, match="moving_channels and fixed_channels must be as many, got 1 and 0"):
        case.register(Guidance(), moving_channels=hidden[:1])


class Away(nn.Module):
    """How far from the middle grey, on half the grid: what is dark in one image and bright in the other looks alike."""

    def forward(self, image: Tensor) -> Tensor:
        """``(1, 1, H, W)`` to ``(1, 2, H / 2, W / 2)``."""
        away = (image - 0.5).abs()[:, :, ::2, ::2]
        return torch.cat([away, 2 * away], dim=1)


@pytest.mark.parametrize("form", ["script", "exported"])
def test_features_of_a_program(tmp_path: Path, form: str) -> None:
    size = (64, 64)
    places = [[32.0, 27.0], [32.0, 36.0]]
    images = [
        MetaTensor((0.5 + sign * 0.5 * ball(size, place, 9).float()), affine=torch.eye(3))
        for sign, place in zip((1, -1), places, strict=True)
    ]
    file = tmp_path / "features"
    if form == "script":
        torch.jit.script(Away()).save(str(file))
    else:
        torch.export.save(torch.export.export(Away(), (torch.rand(1, 1, *size),)), file)
    extractor = pickle.loads(pickle.dumps(load_extractor(file)))  # as the processes of a datalist get it
    guidance = Guidance(features=10.0, extractor=extractor)
    found, without = (
        Registrar(spatial_dims=2, intensity=lambda image: image, guidance=guide).register(*images)
        for guide in (guidance, Guidance())
    )
    middle = np.array([places[1]])
    errors = [np.linalg.norm(map_points(one.map, middle) - places[0]) for one in (found, without)]
    assert errors[0] < 1.0 and errors[1] > 4


def test_extractors_that_can_t_be_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="features: no such file"):
        load_extractor(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(ValueError, match=r"text\.pt is neither TorchScript .* nor an exported program"):
        load_extractor(tmp_path / "text.pt")
    image = torch.rand(1, 1, 20, 20)
    with pytest.raises(ValueError, match=r"must give \(1, F, \*size\) for \[1, 1, 20, 20\], got \[1, 400\]"):
        feature_guide(lambda x: x.flatten(1), image, image, 1.0)
    with pytest.raises(ValueError, match=r"the extractor fails on an image \[1, 1, 20, 20\]: .*size"):
        feature_guide(lambda x: x.reshape(3, 3), image, image, 1.0)


class Still(nn.Module):
    """A network that finds nothing."""

    def forward(self, pair: Tensor) -> Tensor:
        """``(B, 2, *spatial)`` to the identity."""
        return pair.new_zeros(len(pair), pair.dim() - 2, *pair.shape[2:])


def test_guides_serve_the_refinement_of_a_network_s_field() -> None:
    case = Case(2)
    moving, fixed = case.points(1)
    points = {"moving_points": moving, "fixed_points": fixed}
    refined = Registrar(Still(), DenseOptimizer(iterations=(60,)), 2, guidance=Guidance(points=1.0))
    assert refined.register(case.moving, case.fixed, **points).metrics["guided_tre_mean"] < 1.0
    plain = Registrar(Still(), None, 2, guidance=Guidance(points=1.0))
    with pytest.raises(ValueError, match=r"guides: serve optimisation and refinement, .*; set refine above 0"):
        plain.register(case.moving, case.fixed, **points)


def test_guides_are_told_when_they_can_t_be_used() -> None:
    case = Case(2)
    with pytest.raises(ValueError, match="guide: labels need both moving_label and fixed_label"):
        case.register(Guidance(labels=1.0), moving_label=case.moving_label)
    with pytest.raises(ValueError, match="guide: points need both moving_points and fixed_points"):
        case.register(Guidance(points=1.0), fixed_points=case.points(0)[0])
    with pytest.raises(ValueError, match="have no label in common, they hold 1, 2 and 11, 12"):
        other = case.fixed_label + 10 * (case.fixed_label > 0)
        case.register(Guidance(labels=1.0), moving_label=case.moving_label, fixed_label=other)
    with pytest.raises(ValueError, match="the weight of points as a guide must be a number of at least 0, got -1"):
        Guidance(points=-1)
    affine = Registrar(optimizer=AffineOptimizer("mse"), spatial_dims=2, guidance=Guidance(labels=1.0))
    with pytest.raises(ValueError, match="guides: the affine optimizer takes none"):
        affine.register(case.moving, case.fixed, case.moving_label, case.fixed_label)
    with pytest.raises(ValueError, match="guides: identity takes none, got channels"):
        more = {"moving_channels": [case.moving], "fixed_channels": [case.fixed]}
        IdentityRegistrar().register(case.moving, case.fixed, **more)


def test_items_of_a_batch_are_guided_each_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    moving, fixed = torch.rand(2, 2, 1, 32, 40, generator=generator)
    labels = [torch.rand(2, 3, 32, 40, generator=generator).round() for _ in range(2)]
    places = [[40 * torch.rand(n, 2, generator=generator) * 0.75 for n in (3, 5)] for _ in range(2)]
    guides = [
        LabelGuide(moving=labels[0], fixed=labels[1], weight=0.5),
        ChannelGuide(moving=labels[0], fixed=labels[1]),
        PointGuide(moving=places[0], fixed=places[1], trust=[torch.ones(3), torch.ones(5)], size=(32, 40)),
    ]
    optimizer = DenseOptimizer("mse", (6, 6), tolerance=0)
    together = optimizer(moving, fixed, guides=guides)
    single = [optimizer(moving[[i]], fixed[[i]], guides=[g.items([i]) for g in guides]) for i in (0, 1)]
    torch.testing.assert_close(together, torch.cat(single), rtol=0, atol=1e-4)


def test_labels_are_compared_by_soft_dice_where_both_images_are_valid() -> None:
    moving, fixed = torch.rand(2, 2, 3, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    seen = torch.rand(2, 1, 9, 8, 7, generator=torch.Generator().manual_seed(1)) > 0.3
    errors, slope = LabelGuide(moving=moving, fixed=fixed).compare(moving, seen)
    both, sizes = (part.flatten(2).sum(2) for part in (2 * moving * fixed * seen, (moving + fixed) * seen))
    torch.testing.assert_close(errors, 1 - both.sum(1) / sizes.sum(1))
    leaf = moving.clone().requires_grad_()
    dice = (2 * leaf * fixed * seen).flatten(2).sum(2) / ((leaf + fixed) * seen).flatten(2).sum(2)
    (gradient,) = torch.autograd.grad((-dice * sizes).sum(), leaf)  # each label by its size
    torch.testing.assert_close(slope, gradient, rtol=1e-4, atol=1e-5)


def test_pulls_are_at_most_a_voxel_and_shrink_near_the_aim() -> None:
    size, ddf = (24, 30), torch.zeros(1, 2, 24, 30)
    seen, scale = torch.ones(1, 1, *size, dtype=torch.bool), torch.ones(1, 2, 1, 1)
    for distance, expected in ((8.0, 1.0), (0.25, 0.25)):
        fixed = torch.tensor([[12.0, 15.0]])
        moving = fixed + torch.tensor([0.0, distance])
        guide = PointGuide(moving=[moving], fixed=[fixed], trust=[torch.ones(1)], size=size)
        pull, errors = guide.pull(ddf, seen, scale, 2.0)
        torch.testing.assert_close(pull[0, :, 12, 15], torch.tensor([0.0, expected]))
        assert float(errors) == pytest.approx(distance) and pull.norm(dim=1).max() < expected + 1e-5
    discs = [ball(size, [12.0, 15.0 + shift], 6)[None].float() for shift in (0, 4)]
    far = LabelGuide(moving=discs[1], fixed=discs[0]).pull(ddf, seen, scale, 2.0)
    near = LabelGuide(moving=discs[0], fixed=discs[0]).pull(ddf, seen, scale, 2.0)
    assert 0.9 < far[0].norm(dim=1).max() <= 1 + 1e-6 and far[0][0, 1, 12, 12:18].min() > 0
    assert near[0].norm(dim=1).max() < 0.3 and float(near[1]) < 1e-6


def test_a_landmark_unlike_its_neighbours_loses_trust_and_no_other() -> None:
    places = np.random.default_rng(0).uniform(0, 100, (12, 3))
    motion = 0.1 * places[:, ::-1] + np.random.default_rng(1).normal(0, 0.5, (12, 3))
    motion[4] += [0, 30, 0]
    trust = trusted(places, motion, 4.0)
    assert trust[4] < 0.1 and np.delete(trust, 4).min() > 0.5
    assert (trusted(places[:3], motion[2:5], 4.0) == 1).all()


def test_guides_in_a_pipeline() -> None:
    case = Case(2)
    data = {"pre": case.moving, "post": case.fixed, "pre_seg": case.moving_label, "post_seg": case.fixed_label}
    data |= dict(zip(("pre_points", "post_points"), case.points(1), strict=True))
    for keys in ({"label_keys": ["pre_seg", "post_seg"]}, {"point_keys": ["pre_points", "post_points"]}):
        step = Registerd("pre_seg", "pre", "post", mode="nearest", names="warped", **keys)
        warped = step(data)["warped"]
        assert label_metrics(warped, on_grid(case.fixed_label, Grid.of(case.fixed)))[f"dice_{HIDDEN}"] > 0.9
    channels = Registerd("pre_seg", "pre", "post", mode="nearest", channel_keys=(["pre_seg"], ["post_seg"]))(data)
    assert label_metrics(channels["pre_seg"], on_grid(case.fixed_label, Grid.of(case.fixed)))[f"dice_{HIDDEN}"] > 0.9
    lacking = {**data, "pre_seg": case.moving_label * (case.moving_label == 1)}
    with pytest.warns(UserWarning, match="guide: only fixed_label holds 2; what one side lacks guides nothing"):
        Registerd("pre_seg", "pre", "post", mode="nearest", label_keys=["pre_seg", "post_seg"])(lacking)
    with pytest.raises(ValueError, match="label_keys must be two, of the moving and the fixed image, got 'pre_seg'"):
        Registerd("pre", "pre", "post", label_keys="pre_seg")
    with pytest.raises(ValueError, match="label_keys: the registrar's guidance gives labels no weight"):
        Registerd("pre", "pre", "post", Registrar(spatial_dims=2), label_keys=["pre_seg", "post_seg"])
