"""VoxelMorph with MONAI's own backbone, against MONAI's network of the same weights."""

from __future__ import annotations

import monai.networks.nets
import pytest
import torch
import torch.nn.functional as F
from monai.networks.blocks import DVF2DDF
from monai.networks.nets import VoxelMorphUNet

from fmirnet_monai.networks import VoxelMorph

CHANNELS = (4, 8, 8, 8, 8, 8)


def small(dims: int, integration_steps: int = 0, in_channels: int = 1) -> VoxelMorph:
    """A small network whose fields are some voxels large."""
    net = VoxelMorph(dims, in_channels, CHANNELS, 8, (4,), integration_steps)
    final = [p for n, p in net.named_parameters() if "final_conv_out" in n and n.endswith("weight")]
    assert len(final) == 1
    with torch.no_grad():
        final[0].mul_(60)
    return net


def monai_twin(net: VoxelMorph, dims: int) -> monai.networks.nets.VoxelMorph:
    """MONAI's network with the weights of ``net``."""
    backbone = VoxelMorphUNet(dims, 2, 8, CHANNELS, (4,))
    backbone.load_state_dict(net.backbone.state_dict())
    return monai.networks.nets.VoxelMorph(backbone, net.integration_steps, half_res=False, spatial_dims=dims)


# three levels of pooling: MONAI's network takes sizes divisible by 8
@pytest.mark.parametrize("size", [(64, 128), (40, 24), (8, 56), (16, 24, 8)])
def test_field_without_integration_equals_monai(size: tuple[int, ...]) -> None:
    net = small(len(size))
    x = torch.rand(2, 2, *size)
    expected = monai_twin(net, len(size))(x[:, :1], x[:, 1:])[1]
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 128), (40, 56), (32, 24, 32)])
def test_integrated_field_equals_monai_away_from_the_border(size: tuple[int, ...]) -> None:
    """At the border MONAI integrates a velocity of 0 beyond the image, the project the nearest voxel's."""
    net = small(len(size), integration_steps=7)
    x = torch.rand(1, 2, *size)
    expected = monai_twin(net, len(size))(x[:, :1], x[:, 1:])[1]
    velocity = net.backbone(x)
    assert 0.5 < velocity.abs().max() < 6
    inside = (..., *[slice(8, -8)] * len(size))
    field = net(x)
    torch.testing.assert_close(field[inside], expected[inside], atol=1e-4, rtol=1e-4)
    everywhere = DVF2DDF(7, padding_mode="border")(velocity)
    torch.testing.assert_close(field, everywhere, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("integration_steps", [0, 5])
@pytest.mark.parametrize("size", [(37, 51), (9, 3), (1, 70), (11, 6, 9)])
def test_any_size_works(size: tuple[int, ...], integration_steps: int) -> None:
    field = small(len(size), integration_steps)(torch.rand(2, 2, *size))
    assert field.shape == (2, len(size), *size)
    assert field.isfinite().all()


def test_odd_size_is_the_padded_one_cropped() -> None:
    net = small(2)
    x = torch.rand(1, 2, 60, 63)
    torch.testing.assert_close(net(x), net(F.pad(x, (0, 1, 0, 4), mode="replicate"))[..., :60, :63])


def test_images_of_two_channels() -> None:
    assert small(2, in_channels=2)(torch.rand(1, 4, 16, 16)).shape == (1, 2, 16, 16)


@pytest.mark.parametrize("dims", [2, 3])
def test_default_backbone_is_monais_default(dims: int) -> None:
    expected = monai.networks.nets.VoxelMorph(spatial_dims=dims).backbone.state_dict()
    shapes = {name: tensor.shape for name, tensor in VoxelMorph(dims).backbone.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in expected.items()}
