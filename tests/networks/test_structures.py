"""Registration by structures: what it sees, where the field may be, and that segmentation and field both learn."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor, nn

from fmirnet_monai.losses import LabelOverlapLoss, SupervisedLoss
from fmirnet_monai.networks import FMIRNet, StructureNetwork, StructureTraining
from fmirnet_monai.networks.structures import widen

COMPOSED = {"combine": "compose", "attention": "none", "integration_steps": 5}


class Bright(nn.Module):
    """Finds a structure where the image is brighter than .75, another where it is brighter than .25."""

    def forward(self, image: Tensor) -> Tensor:
        bright, grey = (image - 0.75) * 100, (image - 0.25) * 100
        return torch.cat([torch.zeros_like(image), bright + grey, grey], 1)


def awake(network: FMIRNet) -> FMIRNet:
    for estimator in network.estimators:
        nn.init.normal_(estimator.head.weight, std=0.3)
    return network


def squares(first: int, size: int = 64) -> Tensor:
    """A structure at ``first`` and, far from it, another that moves too."""
    image = torch.zeros(1, 1, size, size)
    image[..., first : first + 8, 8:16] = 1
    image[..., first : first + 8, 48:56] = 0.5
    return image


def test_probabilities_are_those_of_the_classes_without_the_background() -> None:
    network = StructureNetwork(FMIRNet(2, in_channels=3, channels=(4, 8)), Bright())
    found = network.structures(squares(20))[0]
    torch.testing.assert_close(found.sum((1, 2)), torch.tensor([64.0, 64.0]), rtol=1e-3, atol=1e-2)
    assert found[0, 24, 12] > 0.99 and found[1, 24, 52] > 0.99


def test_registration_sees_each_image_before_its_structures() -> None:
    class Seen(FMIRNet):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return super().forward(x)

    registration = Seen(2, in_channels=3, channels=(4, 8))
    moving, fixed = squares(20), squares(24)
    StructureNetwork(registration, Bright())(torch.cat([moving, fixed], 1))
    for side, image in zip(registration.seen.chunk(2, dim=1), (moving, fixed), strict=True):
        torch.testing.assert_close(side[:, :1], image)
        torch.testing.assert_close(side[:, 1:], StructureNetwork(registration, Bright()).structures(image))


@pytest.mark.parametrize("options", [{}, COMPOSED, {**COMPOSED, "finest_scale": 1}], ids=["add", "compose", "half"])
@pytest.mark.parametrize("dims", [2, 3])
def test_field_is_none_far_from_the_region_and_something_near_it(dims: int, options: dict) -> None:
    registration = awake(FMIRNet(dims, in_channels=3, channels=(4, 8), **{"attention": "none", **options}))
    network = StructureNetwork(registration, Bright(), region=[1], margin=2)
    fixed = torch.zeros(1, 1, *[30] * dims)
    fixed[(..., *[slice(4, 8)] * dims)] = 1
    fixed[(..., *[slice(26, 30)] * dims)] = 0.5
    field = network(torch.cat([torch.rand_like(fixed), fixed], 1))
    assert field.shape == (1, dims, *[30] * dims)
    near, far = (field[(..., *[slice(first, first + 4)] * dims)].abs().amax() for first in (4, 26))
    assert near > 0.1 and far < 1e-2 * near


def test_widened_mask_covers_the_organ_and_fades_monotonically() -> None:
    mask = torch.zeros(1, 1, 1, 40)
    mask[..., 18:22] = 1
    wide = widen(mask, 3)[0, 0, 0]
    assert (wide[18:22] > wide[:10].max()).all()
    flank = widen(torch.ones(1, 1, 40, 1) * (torch.arange(40) < 20).reshape(40, 1), 3)[0, 0, 6:, 0]
    assert (flank.diff() <= 1e-6).all() and flank[0] > 0 and flank[-1] == 0


@pytest.mark.parametrize("region", [(), (2,)])
def test_scripted_network_equals_eager(region: tuple[int, ...]) -> None:
    organs = UNet(3, 1, 3, channels=(4, 8, 8), strides=(2, 2))
    registration = awake(FMIRNet(3, in_channels=3, channels=(4, 8), finest_scale=1, **COMPOSED))
    network = StructureNetwork(registration, organs, region).eval()
    scripted = torch.jit.script(network)
    for size in ((16, 24, 16), (15, 21, 13)):  # odd ones don't fit the UNet's skips by themselves
        pair = torch.rand(1, 2, *size)
        field = network(pair)
        assert field.shape == (1, 3, *size)
        torch.testing.assert_close(scripted(pair), field)
        torch.testing.assert_close(scripted.structures(pair[:, :1]), network.structures(pair[:, :1]))


def test_training_learns_structures_and_brings_them_together() -> None:
    torch.manual_seed(0)
    organs = UNet(2, 1, 3, channels=(8, 16), strides=(2,), norm="batch")
    network = StructureNetwork(FMIRNet(2, in_channels=3, channels=(8, 16), **COMPOSED), organs)
    training = StructureTraining(network)
    structures = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    loss = SupervisedLoss(labels=LabelOverlapLoss(), weights={"labels": 1.0}, structures=structures)
    pair = torch.cat([squares(20), squares(23)], 1)
    labels = (pair > 0.75).long() + 2 * (pair == 0.5).long()
    optimizer = torch.optim.Adam(training.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        total = loss(training(pair), (pair, labels, None))
        total.backward()
        optimizer.step()
    assert set(loss.values) == {"labels", "structures"} and loss.values["labels"] < 0.1
    with torch.no_grad():
        field, scores = network.predict(pair)
    for found, label in zip(scores.argmax(1), labels[0], strict=True):
        assert (found == label).float().mean() > 0.99
    assert field[0, 0, 24:30, 9:15].mean() < -2.5 and field[0, 0, 24:30, 49:55].mean() < -2.5


def test_what_a_structure_is_is_learnt_from_labels_alone() -> None:
    network = StructureNetwork(
        awake(FMIRNet(2, in_channels=3, channels=(4, 8), **COMPOSED)), UNet(2, 1, 3, (4, 8), (2,))
    )
    field, _ = network.predict(torch.rand(1, 2, 16, 16))
    field.square().mean().backward()
    assert all(p.grad is None for p in network.segmentation.parameters())
    assert any(p.grad is not None for p in network.registration.parameters())


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        (1, {}, "in_channels for the image and each structure"),
        (3, {"region": [3]}, "structures have the numbers 1 to 2, got 3"),
        (3, {"margin": -1}, "margin must be at least 0"),
    ],
)
def test_wrong_options_are_named(channels: int, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StructureNetwork(FMIRNet(2, in_channels=channels), Bright(), **options)
