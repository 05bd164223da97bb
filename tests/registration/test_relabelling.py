"""A segmentation network that learns a propagated label: what it mends, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from fmirnet_monai.registration import Annotation, Propagation, relabel

SLICES = 13


@pytest.fixture(scope="module")
def volume() -> tuple[MetaTensor, MetaTensor]:
    """A bright tube (label 4) with a dark one (label 9) beside it, off the volume's centre, along the first axis."""
    x, y = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    images, labels = [], []
    for z in range(SLICES):
        bright = ((x - 25) ** 2 + (y - 40 - z / 2) ** 2).sqrt()
        dark = ((x - 40) ** 2 + (y - 40 + z / 2) ** 2).sqrt()
        images.append(0.4 + 0.4 * torch.sigmoid(9 - bright) - 0.3 * torch.sigmoid(6 - dark))
        labels.append(torch.where(bright < 9, 4, torch.where(dark < 6, 9, 0)))
    affine = torch.diag(torch.tensor([4.0, 1.5, 1.5, 1.0], dtype=torch.double))
    noise = 0.02 * torch.randn(SLICES, 60, 80, generator=torch.Generator().manual_seed(0))
    return MetaTensor((torch.stack(images) + noise)[None], affine=affine), MetaTensor(
        torch.stack(labels)[None].int(), affine=affine
    )


@pytest.fixture(scope="module")
def propagated(volume: tuple[MetaTensor, MetaTensor]) -> Propagation:
    """The right label but for two slices, which are shifted, and not sure of themselves."""
    label = volume[1].clone()
    confidence = torch.full(label.shape, 0.95)
    for z in (5, 8):
        label[0, z] = label[0, z].roll(6, 1)
        confidence[0, z] = 0.5
    confidence[0, [1, 6, 11]] = 1.0
    label[0, [0, 12]] = 0
    confidence[0, [0, 12]] = 0
    return Propagation(label, MetaTensor(confidence, affine=label.affine), Annotation(0, (1, 6, 11)))


def dice(found: Tensor, label: Tensor, value: int, index: int) -> float:
    a, b = ((torch.as_tensor(t)[0, index] == value).double() for t in (found, label))
    return float(2 * (a * b).sum() / (a.sum() + b.sum()))


def test_it_mends_slices_that_were_propagated_wrongly(
    volume: tuple[MetaTensor, MetaTensor], propagated: Propagation
) -> None:
    image, label = volume
    random = torch.random.get_rng_state()
    result = relabel(image, propagated, epochs=60)
    assert torch.equal(torch.random.get_rng_state(), random)
    for value in (4, 9):
        for z in (5, 8):
            assert dice(propagated.label, label, value, z) < 0.7
            assert dice(result.label, label, value, z) > 0.85
        for z in (3, 9):
            assert dice(result.label, label, value, z) > 0.93
    assert set(result.label.unique().tolist()) == {0, 4, 9}
    assert result.label.dtype == propagated.label.dtype and result.label.shape == label.shape
    torch.testing.assert_close(result.label.affine, label.affine)
    for z in propagated.annotation.slices:
        assert torch.equal(result.label[0, z], propagated.label[0, z]) and (result.confidence[0, z] == 1).all()
    assert not result.label[0, [0, 12]].any() and not result.confidence[0, [0, 12]].any()
    assert result.confidence.min() >= 0 and result.confidence.max() <= 1


def test_labels_at_the_images_edge_are_learnt_whole(
    volume: tuple[MetaTensor, MetaTensor], propagated: Propagation
) -> None:
    cut = (..., slice(16, None), slice(30, None))  # a millimetre beside the tubes
    label, confidence = propagated.label[cut], propagated.confidence[cut]
    result = relabel(volume[0][cut], Propagation(label, confidence, propagated.annotation), epochs=2)
    assert result.label.shape == label.shape
    between = [z for z in range(1, 12) if z not in propagated.annotation.slices]
    inside = (label > 0)[0, between]
    assert (result.confidence != confidence)[0, between][inside].all()


def test_the_same_seed_gives_the_same_label(volume: tuple[MetaTensor, MetaTensor], propagated: Propagation) -> None:
    once, again, other = (relabel(volume[0], propagated, epochs=1, seed=seed).confidence for seed in (0, 0, 1))
    torch.testing.assert_close(once, again, rtol=0, atol=0)
    assert not torch.equal(once, other)


def test_epochs_out_of_range(volume: tuple[MetaTensor, MetaTensor], propagated: Propagation) -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        relabel(volume[0], propagated, epochs=0)
