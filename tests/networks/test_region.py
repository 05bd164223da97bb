"""Region attention: where the field may be, what the loss sees, and that both learn."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor, nn

from fmirnet_monai.losses import RegionLoss, RegistrationLoss, SmoothnessLoss
from fmirnet_monai.networks import FMIRNet, RegionNetwork, RegionTraining
from fmirnet_monai.networks.region import widen

COMPOSED = {"combine": "compose", "attention": "none", "integration_steps": 5}


class Bright(nn.Module):
    """Scores that are high where the image is brighter than a half."""

    def forward(self, image: Tensor) -> Tensor:
        return (image - 0.5) * 100


def squares(first: int, size: int = 64) -> Tensor:
    """An organ at ``first`` and, far from it, something else that moves too."""
    image = torch.zeros(1, 1, size, size)
    image[..., first : first + 8, 8:16] = 1
    image[..., first : first + 8, 48:56] = 0.4
    return image


def awake(network: FMIRNet) -> FMIRNet:
    for estimator in network.estimators:
        nn.init.normal_(estimator.head.weight, std=0.3)
    return network


@pytest.mark.parametrize("options", [{}, COMPOSED, {**COMPOSED, "finest_scale": 1}], ids=["add", "compose", "half"])
@pytest.mark.parametrize("dims", [2, 3])
def test_field_is_none_far_from_the_organ_and_something_near_it(dims: int, options: dict) -> None:
    registration = awake(FMIRNet(dims, channels=(4, 8), **{"attention": "none", **options}))
    network = RegionNetwork(registration, Bright(), margin=2)
    fixed = torch.zeros(1, 1, *[30] * dims)
    fixed[(..., *[slice(4, 8)] * dims)] = 1
    field = network(torch.cat([torch.rand_like(fixed), fixed], 1))
    assert field.shape == (1, dims, *[30] * dims)
    near, far = (field[(..., *[slice(first, first + 4)] * dims)].abs().amax() for first in (4, 26))
    assert near > 0.1 and far < 1e-2 * near


def test_a_weight_of_one_everywhere_is_the_plain_network() -> None:
    registration = awake(FMIRNet(2, channels=(4, 8), **COMPOSED))
    pair = torch.rand(2, 2, 21, 18)
    torch.testing.assert_close(RegionNetwork(registration, Bright(), outside=1.0)(pair), registration(pair))


def test_widened_mask_covers_the_organ_and_fades_monotonically() -> None:
    mask = torch.zeros(1, 1, 1, 40)
    mask[..., 18:22] = 1
    wide = widen(mask, 3)[0, 0, 0]
    assert (wide[18:22] > wide[:10].max()).all()
    flank = widen(torch.ones(1, 1, 40, 1) * (torch.arange(40) < 20).reshape(40, 1), 3)[0, 0, 6:, 0]
    assert (flank.diff() <= 1e-6).all() and flank[0] > 0 and flank[-1] == 0


def test_scripted_network_equals_eager() -> None:
    organ = UNet(3, 1, 1, channels=(4, 8, 8), strides=(2, 2))
    network = RegionNetwork(awake(FMIRNet(3, channels=(4, 8), finest_scale=1, **COMPOSED)), organ).eval()
    for size in ((16, 24, 16), (15, 21, 13)):  # odd ones don't fit the UNet's skips by themselves
        pair = torch.rand(1, 2, *size)
        field = network(pair)
        assert field.shape == (1, 3, *size)
        torch.testing.assert_close(torch.jit.script(network)(pair), field)


def test_training_learns_the_organ_and_aligns_it() -> None:
    torch.manual_seed(0)
    organ = UNet(2, 1, 1, channels=(8, 16), strides=(2,), norm="batch")
    network = RegionNetwork(FMIRNet(2, channels=(8, 16), **COMPOSED), organ, margin=4)
    training = RegionTraining(network)
    registration = RegistrationLoss({"mse": nn.MSELoss()}, {"smoothness": SmoothnessLoss("mean")}, {"smoothness": 0.01})
    loss = RegionLoss(registration, DiceCELoss(sigmoid=True), organ=1)
    pair = torch.cat([squares(20), squares(23)], 1)
    label = (squares(23) > 0.5).long() + 2 * (squares(23) == 0.4).long()
    optimizer = torch.optim.Adam(training.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        total = loss(training(pair), (pair, label))
        total.backward()
        optimizer.step()
    with torch.no_grad():
        field, scores = network.predict(pair)
    found = scores > 0
    assert 2 * (found & (label == 1)).sum() > 0.95 * (found.sum() + (label == 1).sum())
    assert field[0, 0, 24:30, 9:15].mean() < -1.5 and field[0, 0, 24:30, 50:54].abs().max() < 0.2


def test_unknown_term_and_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="inner"):
        RegionLoss(RegistrationLoss({"mse": nn.MSELoss()}), nn.BCEWithLogitsLoss(), weights={"inner": 1.0})
    with pytest.raises(ValueError, match="outside"):
        RegionNetwork(FMIRNet(2), Bright(), outside=2.0)
