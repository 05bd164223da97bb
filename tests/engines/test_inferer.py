"""Mixed precision where MONAI's engines have none."""

from __future__ import annotations

import pytest
import torch

from fmirnet_monai.engines import MixedPrecisionInferer


@pytest.mark.parametrize(
    ("enabled", "multiplies", "dtype"),
    [(True, True, torch.bfloat16), (False, True, torch.float32), (True, False, torch.float32)],
)
def test_the_network_runs_in_bfloat16_where_asked_and_of_use(
    enabled: bool, multiplies: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: multiplies)
    inferer, network = MixedPrecisionInferer(enabled), torch.nn.Conv2d(1, 2, 3)
    scores = inferer(torch.rand(1, 1, 8, 8), network)
    scores.float().sum().backward()
    assert scores.dtype == dtype
    assert network.weight.grad is not None and network.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_gradients_in_bfloat16_are_those_of_full_precision_however_small_the_volume(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    torch.manual_seed(0)
    network, image = torch.nn.Conv3d(32, 32, 3, padding=1), torch.randn(2, 32, size, size, size)
    for _ in range(5):  # what is not set is not wrong each time
        found = []
        for enabled in (True, False):
            network.zero_grad()
            MixedPrecisionInferer(enabled)(image, network).float().square().sum().backward()
            found.append(network.weight.grad.clone())
        assert (found[0] - found[1]).abs().max() < 0.02 * found[1].abs().max()
