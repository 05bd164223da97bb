"""FMIRNet: shapes, options, TorchScript, the inverse, and that it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from fmirnet_monai.networks import FMIRNet
from fmirnet_monai.spatial import compose, downsample, upsample_field, warp

SMALL = (4, 8)
SIZES = [(32, 24), (17, 12), (5, 3), (9, 6, 7), (4, 2, 3)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_scales": 1},
    {"num_scales": 2, "share_weights": False},
    {"num_scales": 4, "in_channels": 2},
    {"combine": "compose"},
    {"attention": "none"},
    {"attention": "channel", "combine": "compose", "share_weights": False},
    {"attention": "spatial+channel", "in_channels": 2},
    {"residual": False},
    {"integration_steps": 5},
    {"integration_steps": 5, "half_resolution": False},
    {"integration_steps": 5, "combine": "compose", "num_scales": 4},
    {"integration_steps": 5, "combine": "compose", "half_resolution": False, "attention": "spatial+channel"},
    {"norm": "batch"},
    {"finest_scale": 1},
    {"finest_scale": 1, "integration_steps": 5, "combine": "compose"},
    {"correlation": 2, "combine": "compose", "in_channels": 2},
    {"stride": 2},
    {"stride": 2, "integration_steps": 5, "combine": "compose", "attention": "spatial+channel"},
    {"stride": 2, "finest_scale": 1, "num_scales": 1, "correlation": 1},
]


def name(value: object) -> str:
    """Short test name of a dict of options or of a size."""
    if isinstance(value, dict):
        return ",".join(f"{k}={v}" for k, v in value.items()) or "default"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def awake(net: FMIRNet, std: float = 0.3) -> FMIRNet:
    """Give the layers that start near zero weights of usual size."""
    for estimator in net.estimators:
        nn.init.normal_(estimator.head.weight, std=std)
    if net.scale_attention is not None:
        nn.init.normal_(net.scale_attention.gate[2].weight)
    return net


def smooth_pair(size: tuple[int, ...], sigma: float = 5.0) -> Tensor:
    """Two smooth images with intensities in [-1, 1], ``(1, 2, *size)``."""
    noise = np.random.default_rng(0).standard_normal((1, 2, *size))
    noise = gaussian_filter(noise, (0, 0, *[sigma] * len(size)))
    return torch.from_numpy(noise / np.abs(noise).max()).float()


@pytest.mark.parametrize("size", SIZES, ids=name)
@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_output_has_one_vector_per_voxel(options: dict[str, Any], size: tuple[int, ...]) -> None:
    net = awake(FMIRNet(len(size), channels=SMALL, **options))
    field = net(torch.rand(2, 2 * net.in_channels, *size))
    assert field.shape == (2, len(size), *size)
    assert field.isfinite().all()
    assert field.abs().max() > 0


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_scripted_network_equals_eager(options: dict[str, Any], dims: int) -> None:
    net = awake(FMIRNet(dims, channels=SMALL, **options)).eval()
    scripted = torch.jit.script(net)
    for size in ((9, 6, 7)[:dims], (8, 16, 4)[:dims]):
        x = torch.rand(1, 2 * net.in_channels, *size)
        torch.testing.assert_close(scripted(x), net(x))
        if net.integration_steps > 0:
            torch.testing.assert_close(scripted.forward_with_inverse(x), net.forward_with_inverse(x))


@pytest.mark.parametrize("size", [(40, 32), (12, 14, 10)], ids=name)
@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_untrained_network_gives_nearly_the_identity(options: dict[str, Any], size: tuple[int, ...]) -> None:
    net = FMIRNet(len(size), **options).eval()
    assert net(torch.rand(1, 2 * net.in_channels, *size)).abs().max() < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims .*4"),
        ({"num_scales": 0}, "num_scales .*0"),
        ({"finest_scale": -1}, "finest_scale .*-1"),
        ({"correlation": -1}, "correlation .*-1"),
        ({"stride": 3}, "stride .*3"),
        ({"combine": "multiply"}, "combine .*'multiply'"),
        ({"attention": "channel+spatial"}, r"attention .*'channel\+spatial'"),
        ({"integration_steps": -1}, "integration_steps .*-1"),
        ({"channels": (16,)}, r"channels .*\(16,\)"),
    ],
)
def test_invalid_option_is_named_with_its_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FMIRNet(**options)


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (1, 1, 16, 16), (1, 2, 16, 16, 16), (2, 16, 16)], ids=name)
def test_input_of_wrong_shape_is_named_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="x must have shape") as error:
        FMIRNet(2, channels=SMALL)(torch.zeros(shape))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("num_scales", [2, 3])
def test_shared_weights_are_counted_once(num_scales: int) -> None:
    def count(share_weights: bool) -> int:
        net = FMIRNet(2, num_scales=num_scales, attention="none", share_weights=share_weights)
        return sum(p.numel() for p in net.parameters())

    assert count(False) == num_scales * count(True)


@pytest.mark.parametrize("combine", ["add", "compose"])
def test_one_scale_without_attention_is_the_resunet_alone(combine: str) -> None:
    net = awake(FMIRNet(2, channels=SMALL, num_scales=1, combine=combine, attention="none"))
    x = torch.rand(2, 2, 19, 23)
    torch.testing.assert_close(net(x), net.estimators[0](x))


@pytest.mark.parametrize("size", [(16, 12), (8, 12, 4)], ids=name)
@pytest.mark.parametrize("combine", ["add", "compose"])
def test_two_scales_are_combined_as_documented(combine: str, size: tuple[int, ...]) -> None:
    net = awake(FMIRNet(len(size), channels=SMALL, num_scales=2, share_weights=False, combine=combine))
    x = torch.rand(1, 2, *size)
    fine, coarse = net.estimators
    attend = net.spatial_attention
    if combine == "add":
        field = upsample_field(coarse(downsample(x))) + fine(x)
        expected = field + field * attend.conv(field).sigmoid()
    else:
        first = upsample_field(attend(coarse(downsample(x))))
        second = attend(fine(torch.cat([warp(x[:, :1], first), x[:, 1:]], dim=1)))
        expected = compose(first, second)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("size", [(16, 12), (8, 12, 4)], ids=name)
@pytest.mark.parametrize("combine", ["add", "compose"])
def test_stride_has_fields_at_half_the_resolution_of_each_scales_images(combine: str, size: tuple[int, ...]) -> None:
    options: dict[str, Any] = {"channels": SMALL, "num_scales": 2, "share_weights": False, "attention": "none"}
    net = awake(FMIRNet(len(size), combine=combine, stride=2, **options))
    x = torch.rand(1, 2, *size)
    fine, coarse = net.estimators
    first = upsample_field(coarse(downsample(x)))
    assert first.shape[2:] == torch.Size(n // 2 for n in size)
    if combine == "add":
        expected = first + fine(x)
    else:
        expected = compose(first, fine(torch.cat([warp(x[:, :1], upsample_field(first)), x[:, 1:]], dim=1)))
    torch.testing.assert_close(net(x), upsample_field(expected))


def test_attention_without_residual_leaves_the_field_out() -> None:
    x = torch.rand(1, 2, 16, 12)
    with_residual, without = (awake(FMIRNet(2, channels=SMALL, residual=r)) for r in (True, False))
    without.load_state_dict(with_residual.state_dict())
    plain = FMIRNet(2, channels=SMALL, attention="none")
    plain.estimators.load_state_dict(with_residual.estimators.state_dict())
    torch.testing.assert_close(with_residual(x) - without(x), plain(x))


@pytest.mark.parametrize("combine", ["add", "compose"])
def test_channel_attention_starts_as_the_plain_sum(combine: str) -> None:
    plain = awake(FMIRNet(2, channels=SMALL, combine=combine, attention="none"))
    weighted = FMIRNet(2, channels=SMALL, combine=combine, attention="channel")
    weighted.estimators.load_state_dict(plain.estimators.state_dict())
    x = torch.rand(1, 2, 16, 12)
    torch.testing.assert_close(weighted(x), plain(x))


def test_half_resolution_has_no_effect_without_integration() -> None:
    whole, half = (awake(FMIRNet(2, channels=SMALL, half_resolution=h)) for h in (False, True))
    half.load_state_dict(whole.state_dict())
    x = torch.rand(1, 2, 17, 13)
    assert torch.equal(half(x), whole(x))


@pytest.mark.parametrize("size", [(48, 40), (24, 28, 20)], ids=name)
@pytest.mark.parametrize("resolution", [{}, {"half_resolution": False}, {"stride": 2}], ids=["half", "whole", "stride"])
@pytest.mark.parametrize("attention", ["none", "spatial+channel"])
@pytest.mark.parametrize("combine", ["add", "compose"])
def test_inverse_brings_every_voxel_back(
    combine: str, attention: str, resolution: dict[str, Any], size: tuple[int, ...]
) -> None:
    """Away from the border, of a field some voxels large; the negative field is no inverse and fails clearly."""
    net = FMIRNet(
        len(size),
        channels=SMALL,
        num_scales=2,
        combine=combine,
        attention=attention,
        integration_steps=7,
        **resolution,
    )
    awake(net, std=1.0)
    # the same on the grid that fields are composed on
    x = smooth_pair(tuple(net.stride * n for n in size), sigma=5.0 * net.stride)
    inside = (..., *[slice(6 * net.stride, -6 * net.stride)] * len(size))
    with torch.no_grad():
        for estimator in net.estimators:
            estimator.head.weight.mul_(4 / net(x).abs().max())
        there, back = net.forward_with_inverse(x)
        torch.testing.assert_close(there, net(x))
        assert 3 < there.abs().max() < 6
        residual = max(compose(*pair)[inside].abs().max() for pair in ((there, back), (back, there)))
        assert residual < 0.25
        assert residual < 0.4 * compose(there, -there)[inside].abs().max()


@pytest.mark.parametrize("combine", ["add", "compose"])
def test_integration_at_half_resolution_approximates_that_at_full(combine: str) -> None:
    options: dict[str, Any] = {"channels": SMALL, "num_scales": 2, "combine": combine, "integration_steps": 7}
    whole = awake(FMIRNet(2, half_resolution=False, **options))
    half = FMIRNet(2, half_resolution=True, **options)
    x = smooth_pair((48, 40), sigma=8)
    with torch.no_grad():
        whole.estimators[0].head.weight.mul_(3 / whole(x).abs().max())
        half.load_state_dict(whole.state_dict())
        error = (half(x) - whole(x))[..., 6:-6, 6:-6].abs().max()
        assert error < 0.05 * whole(x).abs().max()


def test_network_of_displacements_has_no_inverse() -> None:
    with pytest.raises(ValueError, match="integration_steps=0"):
        FMIRNet(2, channels=SMALL).forward_with_inverse(torch.rand(1, 2, 16, 16))


@pytest.mark.parametrize("options", [o for o in OPTIONS if "norm" not in o], ids=name)
def test_gradients_reach_every_parameter(options: dict[str, Any]) -> None:
    net = awake(FMIRNet(2, channels=SMALL, **options))
    c = net.in_channels
    x = torch.rand(2, 2 * c, 16, 24)
    F.mse_loss(warp(x[:, :c], net(x)), x[:, c:]).backward()
    without = [
        n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert without == []


@pytest.mark.parametrize("integration_steps", [0, 5])
@pytest.mark.parametrize("combine", ["add", "compose"])
def test_network_learns_to_register_one_pair(
    combine: str, integration_steps: int, learn_to_register: Callable[..., None]
) -> None:
    net = FMIRNet(2, channels=(8, 16), num_scales=2, combine=combine, integration_steps=integration_steps)
    learn_to_register(net, steps=40, learning_rate=1e-2, left=0.02, atol=0.3)


@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_state_dict_carries_all_weights(options: dict[str, Any]) -> None:
    first, second = awake(FMIRNet(2, channels=SMALL, **options)).eval(), FMIRNet(2, channels=SMALL, **options).eval()
    x = torch.rand(1, 2 * first.in_channels, 13, 18)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_pairs_of_a_batch_do_not_see_each_other(options: dict[str, Any]) -> None:
    net = awake(FMIRNet(2, channels=SMALL, **options)).eval()
    x = torch.rand(3, 2 * net.in_channels, 17, 12)
    torch.testing.assert_close(net(x), torch.cat([net(one) for one in x.split(1)]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("combine", ["add", "compose"])
def test_content_beyond_the_padding_does_not_matter(combine: str) -> None:
    """A size that needs no padding and the same image padded by hand give the same field."""
    net = awake(FMIRNet(2, channels=SMALL, combine=combine))
    x = torch.rand(1, 2, 14, 19)
    padded = F.pad(x, (0, 1, 0, 2), mode="replicate")
    torch.testing.assert_close(net(x), net(padded)[..., :14, :19])
