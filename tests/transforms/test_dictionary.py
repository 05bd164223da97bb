"""Dictionary transforms of image pairs: values, geometry, missing keys and errors that name the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, ScaleIntensityd
from torch import Tensor

from fmirnet_monai.spatial import DisplacementField, Grid, resample, warp
from fmirnet_monai.transforms import (
    CheckFinited,
    ComposeDisplacementd,
    LongestSided,
    PixelSized,
    Warpd,
)

AFFINE = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
OTHER_AFFINE = torch.diag(torch.tensor([1.5, 1.0, 5.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("size", [(7, 10), (5, 6, 8)])
def test_warpd_equals_warp_and_fills_what_is_beyond(size: tuple[int, ...]) -> None:
    image, ddf = torch.rand(2, *size), torch.randn(len(size), *size)
    label = torch.randint(0, 5, (1, *size), dtype=torch.uint8)
    data = {"image": image, "label": label, "pred": ddf}
    result = Warpd(["image", "label"], mode=["bilinear", "nearest"])(data)
    places = ddf + torch.stack(torch.meshgrid(*[torch.arange(n) for n in size], indexing="ij"))
    limit = torch.tensor(size).reshape(-1, *[1] * len(size)) - 0.5
    inside = ((places >= -0.5) & (places <= limit)).all(0)
    assert 0.3 < inside.float().mean() < 1
    torch.testing.assert_close(result["image"][:, inside], warp(image[None], ddf[None])[0][:, inside])
    assert (result["image"][:, ~inside] == image.min()).all()
    expected = warp(label[None].float(), ddf[None], mode="nearest")[0].byte()
    assert torch.equal(result["label"][:, inside], expected[:, inside]) and not result["label"][:, ~inside].any()
    filled = Warpd("image", fill=7.0)({"image": image, "pred": ddf})["image"]
    assert (filled[:, ~inside] == 7).all()
    assert result["label"].dtype == torch.uint8
    assert data["image"] is image
    assert data["label"] is label


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_results_of_a_field_on_the_gpu_lie_where_the_images_do() -> None:
    """As in validation: the network's field is on the GPU, the batch that it is measured with is not."""
    image, ddf = torch.rand(1, 7, 10), torch.rand(2, 7, 10)
    result = Warpd("image")({"image": image, "pred": ddf.cuda()})["image"]
    torch.testing.assert_close(result, warp(image[None], ddf[None])[0])
    field = DisplacementField(ddf, Grid((7, 10), np.eye(3)))
    expected = resample(image, field.grid, field)
    for found, wanted in zip(resample(image.cuda(), field.grid, field), expected, strict=True):
        torch.testing.assert_close(found.cpu(), wanted)


def test_the_fill_is_for_images() -> None:
    data = {"ddf": torch.full((2, 12, 10), 30.0), "image": torch.rand(1, 12, 10), "label": torch.ones(1, 12, 10).byte()}
    found = Warpd(["image", "label"], ddf_key="ddf", mode=["bilinear", "nearest"], fill=-1024)(data)
    assert (found["image"] == -1024).all() and not found["label"].any()


def test_warpd_writes_new_keys_and_leaves_the_others() -> None:
    image, ddf = torch.rand(1, 7, 10), torch.ones(2, 7, 10)
    result = Warpd(["image"], ddf_key="field", names=["warped"])({"image": image, "field": ddf, "other": 5})
    assert result["image"] is image
    assert result["field"] is ddf
    assert result["other"] == 5
    torch.testing.assert_close(result["warped"][:, :-1, :-1], image[:, 1:, 1:])


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.uint8])
def test_warpd_of_a_whole_number_image_by_the_identity_changes_nothing(dtype: torch.dtype) -> None:
    """CT as it is stored: interpolation gives 99.9999 where 100 stood, which is 100."""
    image = torch.randint(0, 250, (1, 37, 53)).to(dtype)
    assert torch.equal(Warpd("image")({"image": image, "pred": torch.zeros(2, 37, 53)})["image"], image)


def test_warpd_gives_the_geometry_of_the_reference() -> None:
    moving = MetaTensor(torch.rand(1, 7, 10), affine=AFFINE, meta={"filename_or_obj": "moving.nii"})
    fixed = MetaTensor(torch.rand(1, 7, 10), affine=OTHER_AFFINE, meta={"filename_or_obj": "fixed.nii"})
    data = {"moving": moving, "fixed": fixed, "pred": torch.randn(2, 7, 10)}
    result = Warpd("moving", names="warped", reference_key="fixed")(data)
    assert isinstance(result["warped"], MetaTensor)
    assert torch.equal(result["warped"].affine, OTHER_AFFINE)
    assert result["warped"].meta["filename_or_obj"] == "fixed.nii"
    assert torch.equal(result["moving"].affine, AFFINE)
    own = Warpd("moving")(data)["moving"]
    assert torch.equal(own.affine, AFFINE)
    assert own.meta["filename_or_obj"] == "moving.nii"


def test_warpd_of_a_plain_tensor_takes_the_geometry_of_the_reference() -> None:
    fixed = MetaTensor(torch.rand(1, 7, 10), affine=OTHER_AFFINE)
    data = {"moving": torch.rand(1, 7, 10), "fixed": fixed, "pred": torch.zeros(2, 7, 10)}
    result = Warpd("moving", reference_key="fixed")(data)["moving"]
    assert torch.equal(result.affine, OTHER_AFFINE)
    torch.testing.assert_close(result.as_tensor(), data["moving"], atol=1e-5, rtol=0)
    assert type(Warpd("moving")(data)["moving"]) is torch.Tensor


@pytest.mark.parametrize("kind", [torch.as_tensor, MetaTensor])
def test_geometry_of_a_warped_image_is_its_own_copy(kind: Callable[[Tensor], Tensor]) -> None:
    """A later transform of the result does not touch the reference."""
    fixed = MetaTensor(torch.rand(1, 7, 10), affine=OTHER_AFFINE.clone())
    data = {"moving": kind(torch.rand(1, 7, 10)), "fixed": fixed, "pred": torch.zeros(2, 7, 10)}
    result = Warpd("moving", reference_key="fixed")(data)["moving"]
    result.affine = AFFINE
    result.meta["filename_or_obj"] = "result.nii"
    assert torch.equal(fixed.affine, OTHER_AFFINE)
    assert "filename_or_obj" not in fixed.meta


@pytest.mark.parametrize("transform", [Warpd(["image", "absent"]), CheckFinited(["image", "absent"])])
def test_missing_key_is_named(transform: MapTransform) -> None:
    data = {"image": torch.rand(2, 5, 6), "pred": torch.zeros(2, 5, 6)}
    with pytest.raises(KeyError, match="absent"):
        transform(data)


@pytest.mark.parametrize(
    "transform",
    [
        Warpd(["absent", "image"], names=["no", "new"], mode=["bilinear", "nearest"], allow_missing_keys=True),
        CheckFinited(["absent", "image"], allow_missing_keys=True),
    ],
)
def test_missing_key_may_be_allowed(transform: MapTransform) -> None:
    data = {"image": torch.rand(2, 5, 6), "pred": torch.zeros(2, 5, 6)}
    assert {*transform(data)} - {"new"} == {"image", "pred"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_checkfinited_names_the_file(bad: float) -> None:
    image = torch.rand(1, 5, 6)
    image[0, 2, 3] = bad
    data = {"image": MetaTensor(image, meta={"filename_or_obj": "/data/case_17.nii.gz"})}
    with pytest.raises(ValueError, match=r"/data/case_17\.nii\.gz.* 1 of 30 "):
        CheckFinited("image")(data)


@pytest.mark.parametrize("kind", [torch.as_tensor, MetaTensor, np.asarray])
def test_checkfinited_names_the_key_of_an_image_without_a_file(kind: Callable[[Tensor], Any]) -> None:
    good, bad = torch.rand(1, 5, 6), torch.rand(1, 5, 6)
    bad[0, :, 2] = torch.inf
    with pytest.raises(ValueError, match="bad: 5 of 30 "):
        CheckFinited(["good", "bad"])({"good": kind(good), "bad": kind(bad)})


def test_checkfinited_gives_the_data_back_unchanged() -> None:
    data = {"image": torch.rand(1, 5, 6), "label": torch.ones(1, 5, 6, dtype=torch.uint8), "other": "text"}
    result = CheckFinited(["image", "label"])(data)
    assert result == data
    assert all(result[key] is data[key] for key in data)


def test_transforms_work_in_a_chain_of_monai() -> None:
    fixed = MetaTensor(torch.rand(1, 7, 10) * 50, affine=OTHER_AFFINE)
    moving = MetaTensor(fixed.as_tensor().roll(2, 1), affine=AFFINE)
    ddf = torch.zeros(2, 7, 10)
    ddf[0] = 2
    chain = Compose(
        [
            CheckFinited(["moving", "fixed"]),
            ScaleIntensityd(["moving", "fixed"]),
            Warpd("moving", names="warped", reference_key="fixed"),
        ]
    )
    result = chain({"moving": moving, "fixed": fixed, "pred": ddf})
    torch.testing.assert_close(
        result["warped"][:, :5].as_tensor(), result["fixed"][:, :5].as_tensor(), atol=1e-5, rtol=0
    )
    assert torch.equal(result["warped"].affine, OTHER_AFFINE)


def test_bad_image_in_a_chain_of_monai_is_named() -> None:
    image = MetaTensor(torch.full((1, 5, 6), torch.nan), meta={"filename_or_obj": "bad.nii"})
    with pytest.raises(RuntimeError) as error:
        Compose([CheckFinited("image")])({"image": image})
    assert "bad.nii" in str(error.value.__cause__)


@pytest.mark.parametrize("depth", [None, 5])
def test_pixel_size_is_changed_in_the_plane_only_and_back(depth: int | None) -> None:
    shape = (40, 60) if depth is None else (40, 60, depth)
    affine = torch.diag(torch.tensor([1.5, 2.0, 7.0, 1.0], dtype=torch.double))
    x, y = torch.meshgrid(torch.arange(40) * 1.5, torch.arange(60) * 2.0, indexing="ij")
    plane = torch.sin(x / 12) + torch.cos(y / 15)
    image = plane if depth is None else plane[..., None] * torch.arange(1.0, depth + 1)
    data = {
        "image": MetaTensor(image[None], affine=affine),
        "label": MetaTensor((image > 0.5)[None].float(), affine=affine),
    }
    transform = PixelSized(["image", "label"], 3.0, ["bilinear", "nearest"])
    result = transform(data)
    assert result["image"].shape[1:] == (20, 40, *shape[2:]) and set(result["label"].unique().tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(result["image"].pixdim[:2], [3.0, 3.0], rtol=1e-6)
    back = transform.inverse(result)
    assert back["image"].shape[1:] == shape
    np.testing.assert_allclose(back["image"].affine, affine, atol=1e-6)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert (back["image"] - data["image"])[inner].abs().max() < 0.1 * image.abs().max()


def test_labels_stay_where_they_are_when_they_shrink() -> None:
    affine = torch.eye(3, dtype=torch.double)
    label = torch.zeros(1, 60, 60)
    label[:, 22:41, 22:41] = 1  # its middle is at 31, in voxels of the original
    result = PixelSized("label", 3.0, "nearest")({"label": MetaTensor(label, affine=affine)})["label"]
    middle = Grid.of(result).to_world([torch.nonzero(result[0]).double().mean(0).numpy()])[0]
    np.testing.assert_allclose(middle, Grid.of(MetaTensor(label, affine=affine)).to_world([[31.0, 31.0]])[0], atol=1e-6)


def test_a_pixel_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="pixel_size must be above 0 mm, got 0"):
        PixelSized("image", 0)


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 9)])
def test_longest_side_gives_equal_voxels_over_the_same_extent_and_back(shape: tuple[int, ...]) -> None:
    affine = torch.diag(torch.tensor([1.5, 2.0, 7.0, 1.0], dtype=torch.double))
    image = MetaTensor(torch.rand(1, *shape), affine=affine)
    transform = LongestSided(["image", "label"], 30, ["bilinear", "nearest"], allow_missing_keys=True)
    result = transform({"image": image})["image"]
    assert max(result.shape[1:]) == 30
    before, after = Grid.of(image), Grid.of(result)
    np.testing.assert_allclose(after.spacing, 4.0, rtol=0.06)
    for grid in (before, after):  # from edge to edge
        extent = grid.to_world([np.array(grid.shape) - 0.5])[0] - grid.to_world([np.full(grid.dims, -0.5)])[0]
        np.testing.assert_allclose(extent, np.array(before.shape) * before.spacing, rtol=1e-5)
    back = transform.inverse({"image": result})["image"]
    assert back.shape == image.shape
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)


def test_longest_side_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="voxels must be at least 2, got 0"):
        LongestSided("image", 0)


def test_composed_fields_warp_like_one_after_the_other() -> None:
    axes = torch.meshgrid(torch.arange(40.0), torch.arange(36.0), indexing="ij")
    image = (torch.sin(axes[0] / 6) + torch.cos(axes[1] / 5))[None]
    first = torch.stack([torch.sin(axes[1] / 9), torch.full((40, 36), 1.5)])
    second = torch.stack([torch.full((40, 36), -0.7), torch.cos(axes[0] / 8)])
    twice = warp(warp(image[None], first[None]), second[None])[0]
    data = ComposeDisplacementd("pred", "affine")({"pred": second, "affine": MetaTensor(first), "image": image})
    once = Warpd("image")(data)["image"]
    assert (once - twice)[..., 5:-5, 5:-5].abs().max() < 0.02
    alone = ComposeDisplacementd("pred", "affine")({"pred": second})
    assert alone["pred"] is second


def test_images_on_grids_of_their_own_are_found_by_their_geometry() -> None:
    shifted = AFFINE.clone()
    shifted[0, 3] = 6.0  # three voxels of 2 mm along the first axis
    fixed = MetaTensor(torch.zeros(1, 12, 8, 6), affine=AFFINE)
    image = torch.rand(1, 12, 8, 6)
    data = {"moving": MetaTensor(image, affine=shifted), "fixed": fixed, "pred": torch.zeros(3, 12, 8, 6)}
    result = Warpd("moving", names="warped", reference_key="fixed", in_world=True)(data)["warped"]
    torch.testing.assert_close(result[:, 3:].as_tensor(), image[:, :-3])
    assert torch.equal(result.affine, fixed.affine)
    with pytest.raises(ValueError, match="in_world needs a reference_key"):
        Warpd("moving", in_world=True)
