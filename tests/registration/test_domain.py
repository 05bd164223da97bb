"""What an image doesn't show moves nothing, counts in no figure and is said: field of view, masks, missing slices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRange
from torch import Tensor, nn

from fmirnet_monai.baselines import DemonsRegistrar, ElastixRegistrar, SynRegistrar
from fmirnet_monai.data import phantom_volume
from fmirnet_monai.losses import MSELoss
from fmirnet_monai.registration import DenseOptimizer, Registerd, Registrar, Registration
from fmirnet_monai.registration.base import PairRegistrar
from fmirnet_monai.registration.intensity import Percentiles
from fmirnet_monai.registration.optimise import Level
from fmirnet_monai.registration.registrar import default_optimizer
from fmirnet_monai.spatial import DisplacementField, Grid, resample, resize, smooth, warp

WINDOW = ScaleIntensityRange(-125, 275, 0, 1, clip=True)
RIM = 6  # slices at the edge of a field of view


def noise(shape: torch.Size, seed: int, size: float = 10.0) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def body(dims: int, seed: int) -> tuple[Tensor, Tensor]:
    """Anatomy without noise, and its affine."""
    volume = phantom_volume(
        "1", seed, (60, 44, 30) if dims == 3 else (72, 56, 1), (6.0, 6.0, 6.0) if dims == 3 else (5.0, 5.0, 5.0)
    )
    image = torch.from_numpy(volume.image.astype(np.float32))[None]
    affine = torch.from_numpy(volume.affine)
    return (image, affine) if dims == 3 else (image[..., 0], affine[[0, 1, 3]][:, [0, 1, 3]])


def part(image: Tensor, affine: Tensor, axis: int, begin: int, end: int) -> MetaTensor:
    """Some of an image's slices, in their place."""
    moved = affine.clone()
    moved[:-1, -1] += moved[:-1, axis] * begin
    return MetaTensor(image.narrow(axis + 1, begin, end - begin).clone(), affine=moved)


def texture(*size: int, seed: int = 0) -> Tensor:
    """``(1, *size)`` in [0, 1], fine and coarse."""
    generator = torch.Generator().manual_seed(seed)
    noises = [torch.randn(1, 1, *size, generator=generator) for _ in range(2)]
    image = (smooth(noises[0], 3.0) + 2 * smooth(noises[1], 8.0))[0]
    return (image - image.min()) / (image.max() - image.min())


def same(image: Tensor) -> Tensor:
    return image


# --- the field of view -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "axis", "side", "cut"),
    [(3, 2, "last", 9), (3, 0, "first", 14), (2, 1, "first", 14), (2, 0, "last", 20)],
)
def test_a_moving_image_that_ends_early_changes_nothing_where_it_doesn_t(
    dims: int, axis: int, side: str, cut: int
) -> None:
    """Truth is the identity; the control has the same field of view."""
    fields: dict[str, list[Tensor]] = {"control": [], "cut": []}
    for seed in (7,) if dims == 3 else (7, 12):
        image, affine = body(dims, seed)
        size = image.shape[axis + 1]
        fixed, moving = MetaTensor(image + noise(image.shape, 1), affine=affine), image + noise(image.shape, 2)
        ends = {"control": (0, size), "cut": (0, size - cut) if side == "last" else (cut, size)}
        for name, (begin, end) in ends.items():
            registrar = Registrar(spatial_dims=dims, intensity=WINDOW)
            _, field = registrar.estimate(part(moving, affine, axis, begin, end), fixed)
            length = field.length().movedim(axis, 0)
            fields[name].append(length if side == "last" else length.flip(0))
            assert field.jacobian_determinant().min() > 0.3 and field.jacobian_determinant().max() < 3
    control, found = (torch.stack(fields[name], dim=1) for name in ("control", "cut"))  # mm
    edge = len(found) - cut
    assert found[edge:].mean() < 2 * control[edge:].mean()
    assert found[edge:].max() < 2 * control[edge:].max()
    assert found[edge - RIM : edge].mean() < 1.3 * control[edge - RIM : edge].mean()
    assert found[: edge - RIM].mean() < 1.3 * control[: edge - RIM].mean()


@pytest.mark.parametrize("optimizer", ["dense", "affine"])
@pytest.mark.parametrize("sign", [1, -1])
def test_half_the_view_gone_and_large_motion_don_t_run_away(optimizer: str, sign: int) -> None:
    """A shift by an eighth of the width, of which the one way leads a quarter of the view out, and must."""
    size = (96, 80)
    shift = sign * size[0] / 8
    affine = torch.diag(torch.tensor([3.0, -3.0, 1.0])).double()
    grid = Grid(size, affine.numpy())
    truth = DisplacementField(torch.tensor([shift, 0.0]).reshape(2, 1, 1).expand(2, *size).clone(), grid)
    wide = texture(*size, seed=4)
    fixed = MetaTensor(resample(wide, grid, truth, grid=grid)[0], affine=affine)
    moving = part(wide, affine, 0, 0, size[0] // 2)
    registrar = Registrar(optimizer=default_optimizer(2, optimizer=optimizer), spatial_dims=2, intensity=same)
    _, found = registrar.estimate(moving, fixed)
    before, seen, right = (resample(moving, grid, through)[1] for through in (None, found, truth))
    assert seen.sum() >= 0.7 * before.sum()
    assert found.ddf.norm(dim=0)[seen].max() < 2 * abs(shift)
    assert found.jacobian_determinant().min() > 0
    error = (found.ddf - truth.ddf).norm(dim=0)[seen & right]
    assert error.median() < 0.1 * abs(shift)


@pytest.mark.parametrize("seed", [0, 1])
def test_misfit_is_not_pushed_out_of_view(seed: int) -> None:
    """More than a quarter of the moving image fits nothing; out of view with it, and what is left fits well."""
    fixed = texture(64, 48, seed=seed)[None]
    moving = fixed.clone()
    moving[:, :, 46:] += 0.6
    away = torch.zeros(1, 2, 64, 48)
    away[:, 0] = 18 * ((torch.arange(64.0) - 40) / 6).clamp(0, 1)[:, None]
    level = Level(moving, fixed, None, None, 0, torch.ones(()))
    still = torch.zeros_like(away)
    losses = [MSELoss()(warp(moving, ddf), fixed, level.seen(ddf)) for ddf in (still, away)]
    assert losses[1] < 0.4 * losses[0] and level.keeps_view(still, away)  # the trap: less than 30 % are lost
    optimizer = DenseOptimizer(MSELoss(), (60, 60))
    assert not optimizer.better(level, still, away)
    found = optimizer(moving, fixed)
    assert level.seen(found).float().mean() > 0.9
    assert found[:, :, :40].norm(dim=1).mean() < 0.5


def test_a_field_that_loses_the_view_is_not_taken_even_if_all_that_is_left_fits() -> None:
    image = texture(64, 48)[None]
    fixed = image.roll(-26, 2)
    away = torch.zeros(1, 2, 64, 48)
    away[:, 0] = 26.0
    level = Level(image, fixed, None, None, 0, torch.ones(()))
    optimizer = DenseOptimizer(MSELoss(), (1,))
    both = level.seen(away)
    assert MSELoss()(warp(image, away), fixed, both) < 0.01 * MSELoss()(image, fixed, both)
    assert both.float().mean() < 0.7 and not optimizer.better(level, torch.zeros_like(away), away)
    near = away * 18 / 26  # of the view 28 % are lost
    fixed = image.roll(-18, 2)
    assert optimizer.better(Level(image, fixed, None, None, 0, torch.ones(())), torch.zeros_like(away), near)


# --- masks -------------------------------------------------------------------------------------------------------


class Painted:
    """A 2-D pair of the same anatomy with an artefact in one image, and a mask without it on a grid of its own."""

    def __init__(self, side: str, value: float = 1500.0) -> None:
        image, affine = body(2, 9)
        images = {name: image + noise(image.shape, seed) for name, seed in (("moving", 1), ("fixed", 2))}
        self.clean = {name: MetaTensor(values.clone(), affine=affine) for name, values in images.items()}
        images[side][:, 30:42, 20:32] = value
        self.pair = {name: MetaTensor(values, affine=affine) for name, values in images.items()}
        grid = Grid.of(self.pair[side]).resized((144, 112))
        mask = torch.ones(1, *grid.shape, dtype=torch.uint8)
        mask[:, 58:86, 38:66] = 0
        self.mask = {f"{side}_mask": MetaTensor(mask, affine=torch.from_numpy(grid.affine))}

    def around(self, registrar: PairRegistrar, masked: bool, painted: bool = True) -> float:
        """Mean displacement in mm at the artefact and around it."""
        images = self.pair if painted else self.clean
        _, field = registrar.estimate(**images, **(self.mask if masked else {}))
        return float(field.length()[24:48, 14:38].mean())


@pytest.mark.parametrize("side", ["moving", "fixed"])
def test_an_artefact_under_a_mask_moves_nothing_near_it(side: str) -> None:
    case = Painted(side)

    def registrar() -> Registrar:
        return Registrar(spatial_dims=2, intensity=WINDOW)

    clean = case.around(registrar(), masked=False, painted=False)
    assert case.around(registrar(), masked=True) < 1.3 * clean
    assert case.around(registrar(), masked=False) > 2 * clean


@pytest.mark.parametrize(
    "make",
    [
        lambda: ElastixRegistrar(intensity=WINDOW, iterations=60, levels=2),
        lambda: SynRegistrar(intensity=WINDOW),
        lambda: DemonsRegistrar(intensity=WINDOW, iterations=(40, 20)),
    ],
    ids=["elastix", "SyN", "demons"],
)
@pytest.mark.parametrize("side", ["moving", "fixed"])
def test_classical_methods_get_the_masks(side: str, make: Callable[[], PairRegistrar]) -> None:
    case = Painted(side)
    clean = case.around(make(), masked=False, painted=False)
    masked, unmasked = (case.around(make(), masked=masked) for masked in (True, False))
    assert masked < 1.5 * clean + 0.1 and unmasked > 1.5 * masked


def test_a_mask_may_be_bool() -> None:
    case = Painted("fixed")
    mask = case.mask["fixed_mask"]
    truth = MetaTensor(mask.as_subclass(Tensor) > 0, affine=mask.affine)
    registrar = Registrar(spatial_dims=2, intensity=WINDOW)
    fields = [registrar.estimate(case.pair["moving"], case.pair["fixed"], None, m)[1].ddf for m in (mask, truth)]
    assert torch.equal(*fields)


@pytest.mark.parametrize("optimizer", ["dense", "affine"])
def test_where_no_slope_is_nothing_moves(optimizer: str) -> None:
    """A mask of some voxels, of which the coarsest level has none."""
    moving, fixed = texture(64, 48)[None], texture(64, 48, seed=1)[None]
    mask = torch.zeros_like(fixed)
    mask[..., 30:33, 20:23] = 1
    found = default_optimizer(2, optimizer=optimizer, iterations=(5, 0, 0))(moving, fixed, None, None, mask)
    assert found.isfinite().all() and not found.any()


def test_masks_in_a_pipeline() -> None:
    case = Painted("moving")
    step = Registerd(
        "moving",
        "moving",
        "fixed",
        Registrar(spatial_dims=2, intensity=WINDOW),
        moving_mask_key="mask",
        inside_key="inside",
    )
    short = {**case.pair, "moving": part(case.pair["moving"], case.pair["moving"].affine, 0, 0, 50)}
    found = step({**short, "mask": case.mask["moving_mask"]})
    grid = Grid.of(case.pair["fixed"])
    field = DisplacementField(torch.as_tensor(found["ddf"]), grid)
    _, expected = Registrar(spatial_dims=2, intensity=WINDOW).estimate(**short, **case.mask)
    torch.testing.assert_close(field.ddf, expected.ddf)
    assert torch.equal(torch.as_tensor(found["inside"])[0] > 0, resample(short["moving"], grid, field)[1])
    assert 0 < found["inside"].float().mean() < 1


@pytest.mark.parametrize("kind", ["translation", "affine"])
def test_the_affine_stage_heeds_masks(kind: str) -> None:
    """Two bright blocks, one of which went another way."""
    image, affine = body(2, 9)
    grid = Grid((72, 56), affine.numpy())
    moving = MetaTensor(image + noise(image.shape, 1), affine=affine)
    fixed_image = image + noise(image.shape, 2)
    shift = torch.eye(3).double()
    shift[:2, 2] = torch.tensor([14.0, -9.0])
    fixed = MetaTensor(fixed_image.clone(), affine=torch.linalg.inv(shift) @ affine)
    fixed[:, 20:50, 30:50] = 1500.0
    fixed[:, 4:24, 4:16] = 1500.0
    mask = torch.ones(1, 72, 56, dtype=torch.uint8)
    mask[:, 18:52, 28:52] = mask[:, 2:26, 2:18] = 0
    found, _ = Registrar(
        optimizer=DenseOptimizer(nn.MSELoss(), (0,)), spatial_dims=2, intensity=WINDOW, affine=kind
    ).estimate(moving, fixed, fixed_mask=MetaTensor(mask, affine=fixed.affine))
    points = torch.from_numpy(Grid.of(fixed).points())
    error = (found(points)[0] - (points @ shift[:2, :2].T + shift[:2, 2])).norm(dim=1).mean()
    assert grid.spacing.max() == 5.0 and error < 1.0  # mm


def test_wrong_masks_are_named() -> None:
    image = MetaTensor(texture(30, 30))
    quick = Registrar(optimizer=DenseOptimizer(nn.MSELoss(), (1,)), spatial_dims=2)
    far = torch.eye(3).double()
    far[0, 2] = 500
    for mask in (torch.zeros(1, 30, 30), MetaTensor(torch.ones(1, 30, 30), affine=far)):
        with pytest.raises(ValueError, match="moving_mask leaves nothing of the image"):
            quick.register(image, image, moving_mask=mask)
    with pytest.raises(ValueError, match=r"fixed_mask must be \(1, \*spatial\) with 2 axes, got \[1, 30, 30, 1\]"):
        quick.register(image, image, fixed_mask=torch.ones(1, 30, 30, 1))


# --- figures -----------------------------------------------------------------------------------------------------


def registered(**options: object) -> Registration:
    """A pair of which the moving image shows 45 of 60 columns."""
    wide = texture(60, 50)
    affine = torch.diag(torch.tensor([2.0, 1.5, 1.0])).double()
    quick = Registrar(optimizer=DenseOptimizer(nn.MSELoss(), (5,)), spatial_dims=2, intensity=Percentiles(), **options)
    return quick.register(part(wide, affine, 0, 0, 45), MetaTensor(wide + noise(wide.shape, 1, 0.02), affine=affine))


def test_the_share_that_is_seen_is_said() -> None:
    result = registered()
    assert result.metrics["before_inside"] == pytest.approx(75, abs=0.01)
    assert result.metrics["inside"] == pytest.approx(75, abs=1)
    assert result.metrics["inside"] == pytest.approx(100 * float(result.inside.float().mean()), abs=0.01)


def test_what_stands_beyond_the_image_counts_in_no_figure() -> None:
    plain, garbage = registered().metrics, registered(fill=1e6)
    assert garbage.warped.max() == 1e6
    for name in ("ssim", "ncc", "nmi", "before_ssim", "before_ncc", "before_nmi"):
        assert garbage.metrics[name] == plain[name]
    assert plain["ncc"] > 0.95


def test_masks_confine_the_figures() -> None:
    """Noise under a mask in either image changes none of them, and the share is that of the fixed image's mask."""
    wide = texture(60, 50)
    quick = Registrar(optimizer=DenseOptimizer(nn.MSELoss(), (0,)), spatial_dims=2, intensity=same)
    mask = torch.ones(1, 60, 50, dtype=torch.uint8)
    mask[:, 40:] = 0
    other = wide + noise(wide.shape, 1, 0.05)
    dirty = other.clone()
    dirty[:, 42:] = noise(dirty[:, 42:].shape, 3, 1.0)
    figures = [
        quick.register(*pair, **masks).metrics
        for pair, masks in (
            ((wide, other), {"moving_mask": mask}),
            ((wide, dirty), {"fixed_mask": mask}),
            ((dirty, wide), {"moving_mask": mask}),
            ((other, wide), {"moving_mask": mask}),
        )
    ]
    for name in ("ssim", "ncc", "nmi"):
        assert figures[0][name] == pytest.approx(figures[1][name], abs=1e-6)
        assert figures[2][name] == pytest.approx(figures[3][name], abs=1e-6)
    assert [round(f["inside"], 3) for f in figures] == [66.667, 100, 66.667, 66.667]


@pytest.mark.parametrize("side", ["moving", "fixed"])
def test_what_is_masked_sets_no_window(side: str) -> None:
    """Metal under a mask, with each image scaled by its own percentiles: nothing moves, no figure changes."""
    clean, metal = Painted(side, 0.0), Painted(side, 60000.0)
    quick = Registrar(spatial_dims=2)
    figures = [quick.register(**case.pair, **case.mask).metrics for case in (clean, metal)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-4)
    assert metal.around(quick, masked=True) < 1.5 * clean.around(quick, masked=False, painted=False)


# --- slices that nobody scanned ----------------------------------------------------------------------------------


def test_slices_that_nobody_scanned_stay_and_are_said() -> None:
    volume = torch.stack([texture(48, 40, seed=k // 3) for k in range(10)], dim=-1)
    affine = torch.diag(torch.tensor([1.5, 1.5, 6.0, 1.0])).double()
    moving = part(volume.roll(2, 1), affine, 2, 2, 8)
    quick = Registrar(optimizer=DenseOptimizer(nn.MSELoss(), (20,)), spatial_dims=2)
    result = quick.register(moving, MetaTensor(volume, affine=affine))
    missing = torch.tensor([k < 2 or k > 7 for k in range(10)])
    assert not result.inside[..., missing].any()
    assert result.inside[..., ~missing].float().mean() > 0.9
    assert (result.field.ddf[..., missing] == 0).all() and result.field.ddf[..., ~missing].abs().max() > 1
    assert result.metrics["before_inside"] == pytest.approx(60, abs=0.01)
    assert (result.warped[..., missing] == moving.min()).all()
    assert np.isfinite(result.metrics["ncc"])


class Watching(nn.Module):
    """A network that keeps what it is shown."""

    def forward(self, pair: Tensor) -> Tensor:
        self.seen = pair
        return pair.new_zeros(len(pair), pair.dim() - 2, *pair.shape[2:])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_sees_no_edge_where_the_image_ends(dims: int) -> None:
    size = (32, 28, 24)[:dims]
    image = 100 * texture(*size) + 300
    network = Watching()
    registrar = Registrar(network, spatial_dims=dims, spatial_size=32)
    affine = torch.diag(torch.tensor([-1.0, -1.0, *[1.0] * (dims - 1)])).double()  # LPS, as networks see volumes
    registrar.estimate(part(image, affine, 0, 0, 20), MetaTensor(image, affine=affine))
    moving, fixed = network.seen[0]
    rows = round(32 * 20 / 32)
    assert (moving[rows:] == moving[rows - 1 : rows]).all() and moving[:rows].mean() > 0.2
    assert fixed[rows:].mean() > 0.2


# --- images that are worked on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [8])
def test_a_finer_moving_image_is_smoothed_before_it_is_registered(seed: int) -> None:
    """As exact as with an image smoothed and resampled by hand, and much more than with one that is only resampled."""
    size, coarse, side = 288, 96, 370 / 288
    image = torch.from_numpy(phantom_volume("1", seed, (size, size, 1), (side, side, 3.0)).image[..., 0].astype("f4"))
    fine, affine = image[None], torch.diag(torch.tensor([-side, -side, 1.0])).double()
    generator = torch.Generator().manual_seed(1)
    truth = smooth(torch.randn(1, 2, size, size, generator=generator), 30.0)
    truth = truth / truth.norm(dim=1).mean() * 9 / side
    moving = MetaTensor(fine + 60 * torch.randn(fine.shape, generator=generator), affine=affine)
    deformed = warp(fine[None], truth) + 60 * torch.randn(1, *fine.shape, generator=generator)
    grid = Grid.of(moving).resized((coarse, coarse))
    place = torch.from_numpy(grid.affine)
    fixed = MetaTensor(resize(deformed, grid.shape)[0], affine=place)
    expected = resize(truth, grid.shape)[0] * coarse / size
    inner = WINDOW(fixed)[0] > 0.05

    def error(image: MetaTensor) -> float:
        _, found = Registrar(spatial_dims=2, intensity=WINDOW).estimate(image, fixed)
        return float((found.ddf - expected).norm(dim=0)[inner].mean())

    by_hand = smooth(moving.as_tensor()[None], (size / coarse - 1) / 2)[0]
    ours = error(moving)
    assert ours <= 1.05 * error(MetaTensor(resample(by_hand, grid, grid=Grid.of(moving))[0], affine=place))
    assert error(MetaTensor(resample(moving, grid)[0], affine=place)) >= 1.5 * ours


def test_thick_slices_gain_little_motion_across_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Truth in plane only, slices of four times the pixels: steps that count in voxels make twice as much of it."""
    volume = phantom_volume("1", 6, (64, 52, 48), (4.0, 4.0, 4.0))
    full = torch.from_numpy(volume.image.astype(np.float32))[None, None]
    flow = smooth(torch.randn(1, 3, *full.shape[2:], generator=torch.Generator().manual_seed(3)), 5.0)
    flow[:, 2] = 0
    flow = flow / flow[:, :2].std() * 1.0
    affine = torch.from_numpy(volume.affine.copy())
    affine[:3, 3] += 1.5 * affine[:3, 2]
    affine[:3, 2] *= 4
    size = (64, 52, 12)
    images = [
        MetaTensor(resize(image, size)[0] + noise((1, *size), seed, 8.0), affine=affine)
        for image, seed in ((full, 1), (warp(full, flow), 2))
    ]
    inner = WINDOW(images[1])[0] > 0.02
    in_plane = 4.0 * resize(flow, size)[0, :2].norm(dim=0)[inner].square().mean().sqrt()

    def across() -> float:
        _, found = Registrar(spatial_dims=3, intensity=WINDOW).estimate(*images)
        return float(torch.from_numpy(found.world_vectors())[..., 2][inner].square().mean().sqrt() / in_plane)

    ours = across()
    monkeypatch.setattr(DenseOptimizer, "power", 0)
    by_voxels = across()
    assert ours < 0.35 and ours < 0.5 * by_voxels, (ours, by_voxels)


# --- a microscope's voxels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dims", "affine"), [(2, "off"), (3, "off"), (2, "rigid"), (3, "rigid")])
def test_the_unit_of_length_does_not_matter(dims: int, affine: str) -> None:
    """Voxels of a micrometre: the same field in voxels, and the same figures, as with voxels of a millimetre."""
    size = (40, 36, 24)[:dims]
    image, other = texture(*size), texture(*size).roll(2, 1)
    results = []
    for scale in (1.0, 1e-3):
        place = torch.diag(torch.tensor([*[1.0, -1.3, 2.0][:dims], 1.0])).double()
        place[:-1, -1] = torch.tensor([12.0, -7.0, 5.0][:dims])
        place[:-1] *= scale
        optimizer = DenseOptimizer(nn.MSELoss(), (10, 10))
        registrar = Registrar(optimizer=optimizer, spatial_dims=dims, affine=affine)
        results.append(registrar.register(MetaTensor(image, affine=place), MetaTensor(other, affine=place)))
    one, small = results
    torch.testing.assert_close(small.field.ddf, one.field.ddf, rtol=0, atol=0.02 if affine == "off" else 0.2)
    torch.testing.assert_close(small.inverse.ddf, one.inverse.ddf, rtol=0, atol=0.05 if affine == "off" else 0.2)
    assert one.field.ddf.abs().max() > 1
    for name in ("ssim", "ncc", "inside", "sd_log_jacobian"):
        assert small.metrics[name] == pytest.approx(one.metrics[name], rel=0.02)
