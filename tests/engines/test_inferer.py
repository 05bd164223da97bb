"""Mixed precision where MONAI's engines have none."""

from __future__ import annotations

import pytest
import torch

from fmirnet_monai.engines import MixedPrecisionInferer


@pytest.mark.parametrize(("enabled", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_network_runs_in_bfloat16_where_asked(enabled: bool, dtype: torch.dtype) -> None:
    inferer, network = MixedPrecisionInferer(enabled), torch.nn.Conv2d(1, 2, 3)
    scores = inferer(torch.rand(1, 1, 8, 8), network)
    scores.float().sum().backward()
    assert scores.dtype == dtype
    assert network.weight.grad is not None and network.weight.grad.dtype == torch.float32
