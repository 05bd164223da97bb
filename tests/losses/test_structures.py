"""What a segmentation network is told of structures, of which an image shows a few."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fmirnet_monai.losses import StructureLoss


def certain(labels: Tensor, classes: int) -> Tensor:
    """Scores that give the labels with certainty."""
    return 30.0 * torch.nn.functional.one_hot(labels[:, 0], classes).movedim(-1, 1).float()


@pytest.fixture
def labels() -> Tensor:
    maps = torch.zeros(2, 1, 8, 8, 8, dtype=torch.long)
    maps[0, 0, :4] = 2
    maps[1, 0, :2] = 5
    return maps


def test_loss_is_none_when_all_is_found(labels: Tensor) -> None:
    assert StructureLoss()(certain(labels, 7), labels) < 1e-3


def test_structures_that_no_map_shows_take_nothing_from_those_that_one_shows(labels: Tensor) -> None:
    """A structure is missed: Dice lacks one half, however many classes there are."""
    missed = torch.where(labels == 5, 0, labels)
    few, many = (StructureLoss()(certain(missed, classes), labels) for classes in (6, 40))
    torch.testing.assert_close(few, many)
    cross_entropy = torch.nn.functional.cross_entropy(certain(missed, 6), labels[:, 0])
    torch.testing.assert_close(few - cross_entropy, torch.tensor(0.5), atol=1e-3, rtol=0)


def test_what_is_found_where_nothing_is_labelled_costs_cross_entropy(labels: Tensor) -> None:
    wrong = torch.where(labels == 0, 3, labels)
    assert StructureLoss()(certain(wrong, 7), labels) > 1


def test_labels_beyond_the_structures_are_background(labels: Tensor) -> None:
    scores = torch.randn(2, 6, 8, 8, 8)
    more = labels.clone()
    more[:, :, 5:] = 6
    assert torch.equal(StructureLoss()(scores, more), StructureLoss()(scores, torch.where(more == 6, 0, more)))


def test_maps_without_labels_leave_cross_entropy_alone() -> None:
    scores = torch.randn(1, 4, 6, 6, requires_grad=True)
    empty = torch.zeros(1, 1, 6, 6)
    loss = StructureLoss()(scores, empty)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(scores.grad).all()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores, empty[:, 0].long()))
