"""What the best model is chosen by."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from monai.networks.utils import one_hot
from torch import Tensor

from fmirnet_monai.engines import key_metric


def dice(warped: Tensor, target: Tensor, organ: int | None) -> float:
    """The key metric of one batch of integer masks ``(B, 1, X, Y)`` with three labels."""
    items = [
        {"warped_label": one_hot(w[None], 4)[0], "target_label": one_hot(t[None], 4)[0]}
        for w, t in zip(warped, target, strict=True)
    ]
    engine = Engine(lambda _, batch: batch)
    key_metric(True, organ)["dice"].attach(engine, "dice")
    return float(engine.run([items], max_epochs=1).metrics["dice"])


def test_dice_of_one_organ_or_the_mean_of_all() -> None:
    target = torch.zeros(2, 1, 8, 8)
    for label in (1, 2, 3):
        target[:, :, 2 * label, :] = label
    warped = target.clone()
    warped[:, :, 4, :4] = 0  # half of label 2 is missed, all of label 3
    warped[:, :, 6, :] = 0
    half = 2 * 4 / 12
    assert dice(warped, target, 1) == pytest.approx(1)
    assert dice(warped, target, 2) == pytest.approx(half)
    assert dice(warped, target, 3) == pytest.approx(0)
    assert dice(warped, target, None) == pytest.approx((1 + half) / 3)
