from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from monai.transforms import Compose
from torch import Tensor

from fmirnet_monai.losses import LabelOverlapLoss
from fmirnet_monai.spatial import smooth, warp
from fmirnet_monai.transforms import (
    RandFlipBatch,
    RandIntensityBatch,
    RandItselfBatch,
    RandKnownFieldBatch,
    RandShapesBatch,
    RandSpaceBatch,
    RandSwapBatch,
    RandTurnBatch,
)
from fmirnet_monai.transforms.batch import Batch, BatchTransform, rotations

KEYS, MODES = ("image", "labels"), ("bilinear", "nearest")
STILL = {
    "zoom": (1, 1),
    "stretch": 0,
    "rotation": 0,
    "shift": 0,
    "own_affine": 0,
    "own_shift": 0,
    "deformed": 0,
    "deformation_itself": (0, 0),
}


def batch_of(count: int, *size: int) -> Batch:
    """Pairs whose labels are their images' tenths."""
    image = torch.rand(count, 2, *size)
    return {"image": image, "labels": (10 * image).byte()}


def items_that(change: Callable[[Tensor], Tensor], before: Batch, after: Batch) -> list[bool]:
    """Which items both tensors were changed of; each must be changed so or not at all."""
    changed = []
    for number in range(len(before["image"])):
        equal = []
        for key in KEYS:
            old, new = before[key][number : number + 1], after[key][number : number + 1]
            equal.append(torch.equal(new, change(old)))
            assert equal[-1] or torch.equal(new, old)
        assert equal[0] == equal[1]
        changed.append(equal[0])
    return changed


@pytest.mark.parametrize(
    ("transform", "change"),
    [
        (RandSwapBatch(KEYS, prob=0.5), lambda t: t.flip(1)),
        (RandFlipBatch(KEYS, prob=0.5, axes=[1]), lambda t: t.flip(3)),
        (RandItselfBatch(KEYS, prob=0.5), lambda t: t[:, 1:].repeat(1, 2, *[1] * (t.dim() - 2))),
    ],
    ids=["swap", "flip", "itself"],
)
@pytest.mark.parametrize("size", [(6, 7), (4, 5, 6)])
def test_items_are_changed_by_themselves_and_images_and_labels_together(
    transform: Callable[[Batch], Batch], change: Callable[[Tensor], Tensor], size: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    batch = batch_of(200, *size)
    kept = {key: value.clone() for key, value in batch.items()}
    changed = items_that(change, batch, transform(batch))
    assert 70 < sum(changed) < 130  # 100 expected, four standard deviations are 28
    assert all(torch.equal(batch[key], kept[key]) for key in KEYS)


def test_turns_take_every_quarter() -> None:
    torch.manual_seed(0)
    batch = batch_of(400, 5, 5)
    turned = RandTurnBatch(KEYS, prob=0.75)(batch)
    seen = [0] * 4
    for old, new in zip(batch["image"], turned["image"], strict=True):
        seen[[torch.equal(new, old.rot90(number, (1, 2))) for number in range(4)].index(True)] += 1
    assert min(seen) > 60  # 100 of each expected
    with pytest.raises(ValueError, match=r"square.*5, 6"):
        RandTurnBatch("image")(batch_of(2, 5, 6))


def test_probability_outside_its_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"prob.*1\.5"):
        RandSwapBatch("image", prob=1.5)


def test_a_batch_without_labels_does() -> None:
    chain = Compose([RandSwapBatch(KEYS), RandShapesBatch(share=0.5), RandSpaceBatch(KEYS, MODES, (6, 6))])
    assert set(chain({"image": torch.rand(4, 2, 8, 8)})) == {"image"}


def test_seed_repeats_all_changes() -> None:
    chain = Compose(
        [
            RandShapesBatch(share=0.5, classes=(3, 5)),
            RandItselfBatch(KEYS),
            RandSpaceBatch(KEYS, MODES, (12, 12)),
            RandTurnBatch(KEYS),
            RandIntensityBatch(),
        ]
    )
    batch = batch_of(6, 16, 16)

    def draw(seed: int) -> Batch:
        torch.manual_seed(seed)
        return chain(batch)

    one, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(one[key], again[key]) for key in KEYS)
    assert not torch.equal(one["image"], other["image"])


@pytest.mark.parametrize("size", [(24, 20), (12, 14, 10)])
def test_a_still_window_shows_the_middle(size: tuple[int, ...]) -> None:
    batch = batch_of(3, *size)
    window = [n - 4 for n in size]
    zoom = window[0] / size[0]  # the same share of each axis would resample the others
    shown = RandSpaceBatch(["image"], ["bilinear"], size, **STILL)(batch)["image"]
    torch.testing.assert_close(shown, batch["image"], atol=1e-4, rtol=0)
    square = {"image": torch.rand(3, 2, *[size[0]] * len(size))}
    part = RandSpaceBatch(["image"], ["bilinear"], [window[0]] * len(size), **{**STILL, "zoom": (zoom, zoom)})(square)
    middle = (slice(None), slice(None), *[slice(2, -2)] * len(size))
    torch.testing.assert_close(part["image"], square["image"][middle], atol=1e-4, rtol=0)


def test_window_beyond_the_image_is_empty() -> None:
    batch = {"image": torch.ones(2, 2, 16, 16), "labels": torch.ones(2, 2, 16, 16, dtype=torch.uint8)}
    shown = RandSpaceBatch(KEYS, MODES, (16, 16), **{**STILL, "zoom": (2, 2)})(batch)
    for key in KEYS:
        assert torch.equal(shown[key][:, :, 5:11, 5:11], torch.ones(2, 2, 6, 6))
        assert shown[key][:, :, :3].sum() == 0


def test_both_sides_are_shown_alike_but_for_the_moving_ones_own_motion() -> None:
    torch.manual_seed(0)
    image = smooth(torch.rand(8, 1, 32, 32), 2.0)
    alike = {**STILL, "zoom": (0.7, 1.1), "stretch": 0.1, "rotation": 20, "shift": 0.2}
    shown = RandSpaceBatch(["image"], ["bilinear"], (32, 32), **alike)({"image": image.repeat(1, 2, 1, 1)})["image"]
    torch.testing.assert_close(shown[:, 0], shown[:, 1])
    assert (shown[:, :1] - image).abs().mean() > 0.01
    own = RandSpaceBatch(["image"], ["bilinear"], (32, 32), **{**STILL, "own_shift": 0.1})
    moving, fixed = own({"image": image.repeat(1, 2, 1, 1)})["image"].split(1, 1)
    torch.testing.assert_close(fixed, image, atol=1e-4, rtol=0)
    assert (moving - fixed).abs().flatten(1).max(1).values.min() > 1e-3


def test_deformation_has_the_strength_asked_for_and_labels_follow() -> None:
    """A pair of one image is deformed by the places that the transform gives, its labels by the same."""
    torch.manual_seed(0)
    image = smooth(torch.rand(64, 1, 40, 40), 1.0).repeat(1, 2, 1, 1)
    space = RandSpaceBatch(KEYS, MODES, (40, 40), **{**STILL, "deformation_itself": (3, 3)})
    moving, fixed = space.places(image)
    ddf = moving - fixed
    assert 1.5 < ddf.std() < 3.5  # interpolated between its control points, where it is 3
    torch.manual_seed(1)
    shown = space({"image": image, "labels": (image > 0.5).byte()})
    torch.manual_seed(1)
    moving, fixed = space.places(image)
    expected = warp(image[:, :1], moving - fixed, padding_mode="zeros")
    torch.testing.assert_close(shown["image"][:, :1], expected, atol=1e-4, rtol=0)
    mask = shown["labels"][:, :1].bool()
    assert (shown["image"][:, :1][mask] > 0.48).float().mean() > 0.9  # but where noise crosses the limit within a voxel
    # undeformed pairs of two images stay as they are
    other = {"image": torch.rand(4, 2, 40, 40)}
    torch.testing.assert_close(space(other)["image"], other["image"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_rotations_are_rotations(dims: int) -> None:
    matrix = rotations(50, dims, 30.0, torch.zeros(1))
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(dims).expand(50, dims, dims))
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(50))
    if dims == 2:
        assert matrix[:, 0, 0].min() >= 0.866 - 1e-3


@pytest.mark.parametrize("size", [(20, 24), (10, 12, 14)])
def test_shapes_are_one_image_twice_with_an_intensity_for_each_label(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    batch = batch_of(5, *size)
    shapes = RandShapesBatch(share=0.4, classes=(4, 6))(batch)
    for key in KEYS:
        assert torch.equal(shapes[key][2:], batch[key][2:])
        assert torch.equal(shapes[key][:2, 0], shapes[key][:2, 1])
        assert shapes[key].dtype == batch[key].dtype
    for image, labels in zip(shapes["image"][:2, 0], shapes["labels"][:2, 0], strict=True):
        assert 2 <= len(labels.unique()) <= 6
        assert all(len(image[labels == number].unique()) == 1 for number in labels.unique())


def test_intensities_change_alike_on_both_sides_and_stay_in_range() -> None:
    torch.manual_seed(0)
    image = torch.rand(40, 1, 12, 12).repeat(1, 2, 1, 1)
    shown = RandIntensityBatch(bias=0, noise=0)({"image": image})["image"]
    assert torch.equal(shown[:, 0], shown[:, 1])
    assert shown.min() >= 0
    assert shown.max() <= 1
    sides = zip(image.flatten(1), shown.flatten(1), strict=True)
    rising = torch.stack([torch.corrcoef(torch.stack(both))[0, 1] for both in sides])
    assert 1 <= (rising < 0).sum() <= 15  # 6 inverted expected
    noisy = RandIntensityBatch(gamma=0, gain=(1, 1), offset=0, invert=0, bias=0)({"image": image})["image"]
    assert 0.001 < (noisy[:, 0] - noisy[:, 1]).std() < 0.05
    assert set(RandIntensityBatch()({"image": image, "labels": image})) == {"image", "labels"}


def test_overlap_loss_of_a_shift_is_that_of_the_masks() -> None:
    labels = torch.zeros(1, 2, 24, 24, dtype=torch.uint8)
    labels[:, 0, 6:16, 6:16] = 3
    labels[:, 1, 9:19, 6:16] = 3
    loss = LabelOverlapLoss()
    still = torch.zeros(1, 2, 24, 24, requires_grad=True)
    known = torch.zeros(1, 2, 24, 24)
    known[:, 0] = -3
    assert loss(known, labels) == pytest.approx(0, abs=1e-5)
    value = loss(still, labels)
    assert 0.2 < value < 0.4
    (gradient,) = torch.autograd.grad(value, still)
    assert gradient[:, 0].sum() > 0  # further up is better
    assert gradient[:, 1].abs().sum() < gradient[:, 0].abs().sum()


def test_overlap_loss_takes_only_labels_that_both_show() -> None:
    labels = torch.zeros(2, 2, 16, 16, dtype=torch.uint8)
    labels[0, 0, :8] = 1  # on one side only
    labels[1, :, :, :2] = 40  # beyond those that are compared
    labels[1, :, 0, 5:10] = 2  # too small
    assert LabelOverlapLoss()(torch.zeros(2, 2, 16, 16), labels) == 0
    labels[1, 0, 8:12] = 5
    labels[1, 1, 12:16] = 5
    assert LabelOverlapLoss()(torch.zeros(2, 2, 16, 16), labels) > 0.8


@pytest.mark.parametrize("size", [(40, 32), (16, 14, 12)])
def test_known_field_brings_the_moving_side_onto_the_fixed_one(size: tuple[int, ...]) -> None:
    before = batch_of(3, *size)
    after = RandKnownFieldBatch(KEYS, MODES)(before)
    assert after["field"].shape == (3, len(size), *size)
    for key, mode in zip(KEYS, MODES, strict=True):
        moving, fixed = after[key].chunk(2, dim=1)
        assert torch.equal(moving, before[key].chunk(2, dim=1)[0])
        torch.testing.assert_close(warp(moving.float(), after["field"], mode), fixed.float())
        assert not torch.equal(moving, fixed)


def test_pairs_that_stay_as_they_are_keep_the_field_that_they_had() -> None:
    before = batch_of(64, 9, 8)
    fields = torch.rand(64, 2, 9, 8)
    known = RandKnownFieldBatch(KEYS, MODES, prob=0.5)({**before, "field": fields})
    unknown = RandKnownFieldBatch(KEYS, MODES, prob=0.5)(before)["field"]
    same = [torch.equal(one, other) for one, other in zip(known["image"], before["image"], strict=True)]
    assert 10 < sum(same) < 54
    assert all(torch.equal(known["field"][i], fields[i]) == same[i] for i in range(64))
    assert 10 < unknown.isnan().flatten(1).all(1).sum() < 54
    assert unknown.isnan().flatten(1).any(1).equal(unknown.isnan().flatten(1).all(1))


@pytest.mark.parametrize(
    ("transform", "size"),
    [
        (partial(RandFlipBatch, prob=0.5), (12, 10)),
        (partial(RandFlipBatch, prob=0.5), (8, 7, 6)),
        (partial(RandTurnBatch, prob=0.75), (12, 12)),
        (partial(RandTurnBatch, prob=0.75), (8, 8, 6)),
    ],
)
def test_known_field_follows_flips_and_turns(transform: Callable[..., BatchTransform], size: tuple[int, ...]) -> None:
    """It still brings the moving side onto the fixed one."""
    batch = RandKnownFieldBatch(KEYS, MODES)(batch_of(24, *size))
    changed = transform((*KEYS, "field"), field_key="field")(batch)
    assert not torch.equal(changed["field"], batch["field"])
    moving, fixed = changed["image"].chunk(2, dim=1)
    torch.testing.assert_close(warp(moving, changed["field"]), fixed)


def test_field_of_exchanged_sides_is_unknown() -> None:
    batch = RandKnownFieldBatch(KEYS, MODES)(batch_of(32, 8, 9))
    changed = RandSwapBatch((*KEYS, "field"), prob=0.5, field_key="field")(batch)
    exchanged = [not torch.equal(one, other) for one, other in zip(changed["image"], batch["image"], strict=True)]
    assert 5 < sum(exchanged) < 27
    for number, swapped in enumerate(exchanged):
        field = changed["field"][number]
        assert field.isnan().all() if swapped else torch.equal(field, batch["field"][number])
