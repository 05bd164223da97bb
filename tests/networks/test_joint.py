"""Joint networks and their loss: what each term sees, which gradients flow, and what is learnt without labels."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import SegResNet, UNet
from torch import Tensor, nn

from fmirnet_monai.engines import prepare_joint_batch
from fmirnet_monai.losses import JointLoss, RegistrationLoss, SmoothnessLoss
from fmirnet_monai.networks import FCN, FMIRNet, JointNetwork, JointPrediction, VoxelMorph


class Shift(nn.Module):
    """A registration network that shifts everything by a number of voxels along the first axis."""

    def __init__(self, voxels: float) -> None:
        super().__init__()
        self.voxels = nn.Parameter(torch.tensor(voxels))

    def forward(self, pair: Tensor) -> Tensor:
        field = torch.zeros(pair.shape[0], 2, *pair.shape[2:])
        return torch.cat([field[:, :1] + self.voxels, field[:, 1:]], dim=1)


class Shade(nn.Module):
    """Scores that are the image itself: class 1 where it is bright."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([-image, image], dim=1) * 10 - torch.tensor([-5.0, 5.0]).reshape(1, 2, 1, 1)


def square(first: int, size: int = 32) -> Tensor:
    image = torch.zeros(1, 1, size, size)
    image[..., first : first + 8, 12:20] = 1
    return image


def loss_of(**options) -> JointLoss:
    registration = RegistrationLoss({"mse": nn.MSELoss()}, {"smoothness": SmoothnessLoss()})
    return JointLoss(registration, DiceCELoss(softmax=True), **options)


def test_each_image_is_compared_with_its_own_label() -> None:
    pair, label = torch.cat([square(8), square(12)], dim=1), square(8)
    loss = loss_of(weights={"fixed": 1.0})
    right = JointNetwork(Shift(-4.0), Shade())
    total = loss(right(pair), (pair, label))
    assert all(value < 0.02 for value in loss.values.values())
    assert float(total.detach()) == pytest.approx(sum(loss.values.values()))
    wrong = JointNetwork(Shift(0.0), Shade())
    loss(wrong(pair), (pair, label))
    assert loss.values["moving"] < 0.02 and loss.values["warped"] < 0.02  # both unmoved, so they agree
    assert loss.values["fixed"] > 0.2 and loss.values["registration"] > 0.01


def test_of_pairs_that_are_not_registered_only_the_moving_image_is_learnt() -> None:
    pair, label = torch.cat([square(8), square(12)], dim=1), square(8)
    batch = torch.cat([pair, torch.cat([square(20), torch.rand(1, 1, 32, 32)], dim=1)])
    labels = torch.cat([label, square(20)])
    network = JointNetwork(Shift(-4.0), Shade(), registered=1)
    prediction = network(batch)
    assert [len(part) for part in prediction] == [1, 2, 1, 1]
    loss = loss_of(weights={"fixed": 1.0}, tolerance=0.1)
    loss(prediction, (batch, labels))
    assert all(value < 0.02 for value in loss.values.values())
    loss(prediction, (batch, torch.cat([label, square(2)])))
    assert loss.values["moving"] > 0.2 and loss.values["warped"] < 0.02
    with pytest.raises(ValueError, match="registered must be at least 1"):
        JointNetwork(Shift(0.0), Shade(), registered=0)


def test_the_segmentation_reaches_the_field_through_the_label() -> None:
    pair, label = torch.cat([square(8), square(12)], dim=1), square(8)
    network = JointNetwork(Shift(-1.5), Shade())
    loss = loss_of(weights={"registration": 0.0, "moving": 0.0, "warped": 0.0, "fixed": 1.0})
    loss(network(pair), (pair, label)).backward()
    assert network.registration.voxels.grad > 0  # the shift of -1.5 should go on towards -4


def test_terms_of_weight_zero_are_not_computed_and_unknown_ones_refused() -> None:
    pair = torch.cat([square(8), square(12)], dim=1)
    loss = loss_of()
    loss(JointNetwork(Shift(0.0), Shade())(pair), (pair, square(8)))
    assert set(loss.values) == {"registration", "moving", "warped"}
    with pytest.raises(ValueError, match=r"no term: \['fixd'\]"):
        loss_of(weights={"fixd": 1.0})


@pytest.mark.parametrize("registration", [FMIRNet(2, channels=(4, 8)), VoxelMorph(2, integration_steps=3)])
@pytest.mark.parametrize(
    "segmentation",
    [
        FCN(channels=(4, 4, 8, 8, 8), out_channels=3),
        UNet(2, 1, 3, (4, 8), (2,), norm="batch"),
        SegResNet(2, 8, 1, 3, norm=("group", {"num_groups": 4})),
    ],
)
def test_any_pair_of_networks_trains_together(registration: nn.Module, segmentation: nn.Module) -> None:
    network = JointNetwork(registration, segmentation)
    batch = {"image": torch.rand(2, 2, 32, 32), "label": torch.randint(0, 3, (2, 1, 32, 32))}
    pair, target = prepare_joint_batch(batch)
    loss_of(num_classes=3, weights={"fixed": 1.0})(network(pair), target).backward()
    for part in (network.registration, network.segmentation):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())


def test_a_fixed_image_that_nobody_labelled_is_learnt() -> None:
    """Fixed images look unlike the labelled moving ones; only the term on them teaches the network their looks."""
    pair = torch.cat([square(8), 0.2 * square(12)], dim=1)
    found = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        segmentation = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))
        network = JointNetwork(Shift(-4.0), segmentation)
        optimizer = torch.optim.Adam(segmentation.parameters(), 1e-2)
        loss = loss_of(weights={"fixed": weight})
        for _ in range(150):
            optimizer.zero_grad()
            loss(network(pair), (pair, square(8))).backward()
            optimizer.step()
        predicted = segmentation(pair[:, 1:]).argmax(1, keepdim=True)
        found[weight] = float(2 * (predicted * square(12)).sum() / (predicted.sum() + 64))
    assert found[0.0] < 0.6 and found[1.0] > 0.9, found


def test_a_label_that_is_not_trusted_teaches_nothing() -> None:
    pair, label = torch.cat([square(8), square(20)], dim=1), square(8)
    found = {}
    for tolerance in (None, 0.02):
        scores = torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        still = torch.zeros_like(scores)
        prediction = JointPrediction(torch.zeros(1, 2, 32, 32), still, still, scores)
        loss_of(weights={"fixed": 1.0}, tolerance=tolerance)(prediction, (pair, label)).backward()
        assert scores.grad is not None
        found[tolerance] = scores.grad
    apart = (slice(None), slice(None), slice(10, 14), slice(14, 18))  # inside the moving square, outside the fixed one
    assert found[0.02][apart].abs().max() < 1e-6 < found[None][apart].abs().min()
    corner = (slice(None), slice(None), slice(0, 2), slice(0, 2))
    assert found[0.02][corner].abs().min() > 1e-6


def test_a_label_counts_for_the_fixed_image_where_the_registration_fits() -> None:
    pair, label = torch.cat([square(8), square(20)], dim=1), square(8)
    network = JointNetwork(Shift(0.0), Shade())  # unmoved: the label is wrong for the fixed image
    plain, careful = loss_of(weights={"fixed": 1.0}), loss_of(weights={"fixed": 1.0}, tolerance=0.1)
    plain(network(pair), (pair, label))
    careful(network(pair), (pair, label))
    assert careful.values["fixed"] < 0.1 * plain.values["fixed"]
    same = torch.cat([square(8), square(8)], dim=1)
    for loss in (plain, careful):
        loss(network(same), (same, label))
    assert careful.values["fixed"] == pytest.approx(plain.values["fixed"])
    with pytest.raises(ValueError, match="tolerance must be above 0"):
        loss_of(tolerance=0.0)
