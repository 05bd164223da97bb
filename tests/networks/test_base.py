"""The one form of all registration networks: what holds for each of them, whatever is inside."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fmirnet_monai.networks import DualPRNet, FlowNetS, LapIRN, RecursiveCascade, UDRSNet, VoxelMorph
from fmirnet_monai.networks.base import PairNetwork, channels_last_gradient
from fmirnet_monai.spatial import warp

# small networks by spatial dimensions and image channels; FMIRNet with its many options has all this in test_fmirnet.py
NETWORKS: dict[str, Callable[[int, int], PairNetwork]] = {
    "voxelmorph": lambda d, c: VoxelMorph(d, c, (4, 8, 8, 8), 8, (4,)),
    "udrsnet": lambda d, c: UDRSNet(d, c, (4, 8), stages=2),
    "vtn": lambda d, c: RecursiveCascade(d, c, (4, 6, 8), stages=2),
    "lapirn": lambda d, c: LapIRN(d, c, 6, blocks=2, integration_steps=4),
    "lapirn_disp": lambda d, c: LapIRN(d, c, 6, levels=2, blocks=1, integration_steps=0),
    "flownet": lambda d, c: FlowNetS(d, c, (4, 6, 8)),
    "dual_prnet": lambda d, c: DualPRNet(d, c, (4, 6, 8), correlation=False),
    "dual_prnet++": lambda d, c: DualPRNet(d, c, (4, 6, 8), correlation=True),
}
NEAR_ZERO = sorted(set(NETWORKS) - {"voxelmorph"})  # MONAI's own start is a little further from the identity

each_network = pytest.mark.parametrize("name", NETWORKS)


def awake(net: PairNetwork) -> PairNetwork:
    """Give the layers that start near zero weights that make fields some voxels large."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1 and parameter.abs().max() < 1e-3:
                nn.init.normal_(parameter, std=0.1)
    return net


@each_network
@pytest.mark.parametrize("size", [(17, 13), (1, 30), (5, 3), (9, 6, 7), (4, 2, 3)])
def test_any_size_has_one_vector_per_voxel(name: str, size: tuple[int, ...]) -> None:
    field = awake(NETWORKS[name](len(size), 1))(torch.rand(2, 2, *size))
    assert field.shape == (2, len(size), *size)
    assert field.isfinite().all()
    assert field.abs().max() > 0


@each_network
def test_padded_pair_gives_the_same_field(name: str) -> None:
    net = awake(NETWORKS[name](2, 1))
    x = torch.rand(1, 2, 14, 19)
    assert net.divisor in (2, 4, 8)
    padded = F.pad(x, (0, -19 % net.divisor, 0, -14 % net.divisor), mode="replicate")
    torch.testing.assert_close(net(x), net(padded)[..., :14, :19])


@pytest.mark.parametrize("size", [(40, 33), (17, 12, 10)])
@pytest.mark.parametrize("name", NEAR_ZERO)
def test_untrained_network_gives_nearly_the_identity(name: str, size: tuple[int, ...]) -> None:
    assert NETWORKS[name](len(size), 1)(torch.rand(1, 2, *size)).abs().max() < 0.01


@pytest.mark.parametrize("network", [UDRSNet, RecursiveCascade, LapIRN, DualPRNet])
def test_default_widths_are_those_of_a_small_model(network: Callable[[], PairNetwork]) -> None:
    net = network()
    assert 100_000 < sum(p.numel() for p in net.parameters()) < 600_000
    assert net(torch.rand(1, 2, 32, 32)).abs().max() < 0.01


@each_network
@pytest.mark.parametrize("size", [(9, 14), (6, 9, 5)])
def test_scripted_network_equals_eager(name: str, size: tuple[int, ...]) -> None:
    net = awake(NETWORKS[name](len(size), 2)).eval()
    x = torch.rand(1, 4, *size)
    torch.testing.assert_close(torch.jit.script(net)(x), net(x), atol=1e-5, rtol=1e-4)


@each_network
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (1, 1, 16, 16), (1, 2, 16, 16, 16), (2, 16, 16)])
def test_input_of_wrong_shape_is_named_with_its_shape(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="x must have shape") as error:
        NETWORKS[name](2, 1)(torch.zeros(shape))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("network", [UDRSNet, RecursiveCascade, LapIRN, DualPRNet])
def test_other_than_two_or_three_axes_are_refused(network: Callable[..., PairNetwork]) -> None:
    with pytest.raises(ValueError, match=r"spatial_dims .*4"):
        network(4)


@each_network
def test_gradients_reach_every_parameter(name: str) -> None:
    net = awake(NETWORKS[name](2, 1))
    x = torch.rand(2, 2, 32, 24)
    F.mse_loss(warp(x[:, :1], net(x)), x[:, 1:]).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradient_of_a_concatenated_part_has_no_gaps() -> None:
    """And is the same as without."""
    x = torch.rand(2, 4, 8, 6, requires_grad=True)
    (expected,) = torch.autograd.grad(torch.cat([x, x.detach()], 1).square().sum(), x)
    layouts = []
    y = channels_last_gradient(x.clone())
    y.register_hook(lambda g: layouts.append(g.is_contiguous(memory_format=torch.channels_last)))
    torch.cat([y, x.detach()], 1).square().sum().backward()
    assert torch.equal(x.grad, expected) and layouts == [True]


@each_network
def test_pairs_of_a_batch_do_not_see_each_other(name: str) -> None:
    net = awake(NETWORKS[name](2, 2))
    x = torch.rand(3, 4, 17, 12)
    torch.testing.assert_close(net(x), torch.cat([net(one) for one in x.split(1)]), atol=1e-4, rtol=1e-4)


@each_network
def test_state_dict_carries_all_weights(name: str) -> None:
    first, second = awake(NETWORKS[name](2, 1)), NETWORKS[name](2, 1)
    x = torch.rand(1, 2, 13, 18)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


@each_network
def test_network_learns_to_register_one_pair(name: str, learn_to_register: Callable[..., None]) -> None:
    learn_to_register(NETWORKS[name](2, 1), steps=60, learning_rate=5e-3, left=0.05, atol=0.5)
