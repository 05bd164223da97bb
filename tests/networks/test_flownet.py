"""FlowNet-S as it is taught: random smooth deformations whose fields are known."""

from __future__ import annotations

import torch

from fmirnet_monai.losses import EndpointError
from fmirnet_monai.networks import FlowNetS
from fmirnet_monai.spatial import warp
from fmirnet_monai.transforms import RandKnownFieldBatch
from fmirnet_monai.transforms.batch import smooth_noise


def test_flownet_learns_the_known_fields_of_some_pairs() -> None:
    torch.manual_seed(0)
    images = smooth_noise((4, 1, 32, 32), 10, torch.zeros(1)).sigmoid()
    batch = RandKnownFieldBatch(["image"], ["bilinear"], deformation=(2.0, 3.0))({"image": images.repeat(1, 2, 1, 1)})
    pair, field = batch["image"], batch["field"]
    network, error = FlowNetS(2, channels=(16, 32, 64)), EndpointError()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        error(network(pair), field).backward()
        optimizer.step()
    found = network(pair).detach()
    moving, fixed = pair.chunk(2, dim=1)
    assert error(found, field) < 0.3 * error(torch.zeros_like(field), field)
    assert (warp(moving, found) - fixed).square().mean() < 0.3 * (moving - fixed).square().mean()
