"""GrowLevels: which levels of a LapIRN take part in which epoch, also in a run that was interrupted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from fmirnet_monai.engines import GrowLevels, TrainingCheckpoint, prepare_pair_batch
from fmirnet_monai.losses import RegistrationLoss
from fmirnet_monai.networks import LapIRN

CONFIGS = Path(__file__).parents[2] / "bundles" / "fmirnet_chaos" / "configs"


def small() -> LapIRN:
    return LapIRN(features=4, blocks=1, integration_steps=2)


def levels(net: LapIRN) -> tuple[int, int]:
    """How many levels take part and how many of them are frozen."""
    return int(net.active_levels), sum(not p.requires_grad for p in net.parameters()) // len(
        [*net.levels[0].parameters()]
    )


@pytest.mark.parametrize(
    ("epochs", "frozen_epochs", "expected"),
    [
        ((2, 4), 1, [(1, 0), (1, 0), (2, 1), (2, 0), (3, 2), (3, 0)]),
        ((1, 2), 2, [(1, 0), (2, 1), (3, 2), (3, 2), (3, 0), (3, 0)]),
        ((0, 0), 0, [(3, 0)] * 6),
        ((1, 9), 0, [(1, 0), *[(2, 0)] * 5]),
    ],
)
def test_levels_of_each_epoch(epochs: tuple[int, int], frozen_epochs: int, expected: list[tuple[int, int]]) -> None:
    net, seen = small(), []
    trainer = Engine(lambda engine, batch: None)
    GrowLevels(net, epochs, frozen_epochs).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append(levels(net)))
    trainer.run([0], max_epochs=len(expected))
    assert seen == expected


def train(folder: Path, max_epochs: int, seen: list[tuple[int, int]]) -> LapIRN:
    """Train on one pair, going on from the folder's checkpoint; the first epoch's network stays the best."""
    torch.manual_seed(1)
    net = small()
    pair = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    evaluator = SimpleNamespace(state=SimpleNamespace(best_metric=0.5, best_metric_epoch=1))
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=[{"image": pair}] * 2,
        network=net,
        optimizer=optimizer,
        loss_function=RegistrationLoss({"mse": torch.nn.MSELoss()}),
        prepare_batch=prepare_pair_batch,
        train_handlers=[
            GrowLevels(net, (1, 3)),
            TrainingCheckpoint(folder, {"network": net, "optimizer": optimizer}, evaluator),
        ],
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append(levels(net)))
    trainer.run()
    return net


@pytest.mark.parametrize("interrupted", [1, 2, 3, 4])
def test_resumed_run_goes_on_with_the_levels_of_its_epoch(interrupted: int, tmp_path: Path) -> None:
    whole, first, second = [], [], []
    expected = train(tmp_path / "whole", 5, whole)
    train(tmp_path / "resumed", interrupted, first)
    net = train(tmp_path / "resumed", 5, second)
    assert whole == [(1, 0), (2, 1), (2, 0), (3, 2), (3, 0)]
    assert first + second == whole
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=0, atol=0)


def test_best_weights_give_the_field_that_they_were_chosen_by(tmp_path: Path) -> None:
    first = train(tmp_path, 1, [])
    train(tmp_path, 5, [])
    net = small()
    net.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    x = torch.rand(1, 2, 20, 12)
    assert int(net.active_levels) == 1
    assert torch.equal(net(x), first(x))


@pytest.mark.parametrize("epochs", [(), (1,), (1, 2, 3), (4, 2)])
def test_epochs_that_do_not_fit_the_levels_are_refused(epochs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="epochs must be 2 numbers"):
        GrowLevels(small(), epochs)


@pytest.mark.parametrize("configs", [("train",), ("train", "multi_gpu_train")])
def test_variant_of_the_bundle_brings_the_handler(configs: tuple[str, ...]) -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in (*configs, "variants/lapirn")])
    parser.update({"max_epochs": 20, "train#handlers": []})
    (handler,) = parser.get_parsed_content("train#trainer#train_handlers")
    assert isinstance(handler, GrowLevels)
    assert handler.network is parser.get_parsed_content("network_def")
    assert handler.epochs == [5, 10]
