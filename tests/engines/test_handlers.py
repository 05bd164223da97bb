from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from fmirnet_monai.engines import (
    ClipGradients,
    ProgressBar,
    TrainingCheckpoint,
    on_device,
    prepare_pair_batch,
    prepare_structure_batch,
    prepare_supervised_batch,
)
from fmirnet_monai.losses import (
    EndpointError,
    LabelOverlapLoss,
    MSELoss,
    RegistrationLoss,
    SmoothnessLoss,
    SupervisedLoss,
)
from fmirnet_monai.networks import FMIRNet


class Recorded(torch.optim.SGD):
    """Keeps the gradients' norm at each step."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.parameters(), lr=0.0)
        self.norms: list[float] = []

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Record, and go."""
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(float(torch.cat(gradients).norm()))
        super().step(closure)


def trainer_of(handlers: list, optimizer: torch.optim.Optimizer, network: nn.Module) -> SupervisedTrainer:
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": torch.rand(3, 2, 16, 16)} for _ in range(4)],
        network=network,
        optimizer=optimizer,
        loss_function=lambda prediction, target: 100 * (prediction.float() + target[:, :1]).square().sum(),
        inferer=SimpleInferer(),
        prepare_batch=prepare_pair_batch,
        train_handlers=handlers,
        decollate=False,
    )


def test_gradients_are_clipped_before_each_step() -> None:
    network = nn.Conv2d(2, 2, 3, padding=1)
    free, clipped = Recorded(network), Recorded(network)
    trainer_of([], free, network).run()
    trainer_of([ClipGradients(clipped, 0.5)], clipped, network).run()
    assert min(free.norms) > 1
    assert clipped.norms == pytest.approx([0.5] * 4, rel=1e-4)


@pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu", enabled=False)], ids=["none", "as amp on a CPU"])
def test_steps_without_finite_gradients_are_left_out_and_training_ends_after_many(
    scaler: torch.amp.GradScaler | None,
) -> None:
    network = nn.Conv2d(2, 2, 3)
    optimizer = torch.optim.Adam(network.parameters())
    clip = ClipGradients(optimizer, patience=2)
    engine = SimpleNamespace(scaler=scaler)
    weight = network.weight.detach().clone()
    for value in (math.nan, 1.0, math.inf, math.nan):
        (value * network.weight).sum().backward()
        clip(engine)
        optimizer.step()
        assert torch.isfinite(network.weight).all()
    assert not torch.equal(network.weight, weight)
    (math.nan * network.weight).sum().backward()
    with pytest.raises(ValueError, match=r"learning_rate: training has diverged, the loss of the last 3 steps"):
        clip(engine)


def test_progress_bar_shows_loss_and_pairs_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    network = nn.Conv2d(2, 2, 3, padding=1)
    trainer_of([ProgressBar("training", loss=True)], Recorded(network), network).run()
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "loss=" in shown
    assert "pairs/s=" in shown


def test_checkpoint_keeps_the_network_that_was_validated(tmp_path: Path) -> None:
    network, average = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)
    evaluator = SupervisedEvaluator(torch.device("cpu"), [{"image": torch.rand(1, 2, 8, 8)}], average)
    evaluator.state.best_metric_epoch = 1
    saved = {"network": network, "average": average}
    checkpoint = TrainingCheckpoint(tmp_path, saved, evaluator, best="average")
    trainer = trainer_of([], Recorded(network), network)
    trainer.state.epoch = 1
    checkpoint.save(trainer)
    assert torch.equal(torch.load(tmp_path / "model.pt")["weight"], average.weight)
    assert torch.equal(torch.load(tmp_path / "last.pt")["network"]["weight"], network.weight)
    with pytest.raises(ValueError, match=r"save_dict must name \['teacher'\]"):
        TrainingCheckpoint(tmp_path, saved, evaluator, best="teacher")


@pytest.mark.parametrize("dims", [2, 3])
def test_network_on_device_gives_the_same_field(dims: int) -> None:
    torch.manual_seed(0)
    network = FMIRNet(spatial_dims=dims, channels=(4, 8, 8), num_scales=2).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    pair = torch.rand(1, 2, *[24] * dims)
    before = network(pair)
    after = on_device(network, "cpu")(pair)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)
    order = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert all(p.is_contiguous(memory_format=order) for p in network.parameters() if p.dim() == dims + 2)


def test_known_fields_reach_the_loss_and_the_rest_of_it_may_have_no_weight() -> None:
    registration = RegistrationLoss({"mse": MSELoss()})
    loss = SupervisedLoss(registration, weights={"registration": 0.0, "field": 2.0}, field=EndpointError())
    batch = {"image": torch.rand(2, 2, 16, 16), "field": torch.randn(2, 2, 16, 16)}
    _, target = prepare_supervised_batch(batch, "cpu")
    field = torch.zeros(2, 2, 16, 16)
    assert float(loss(field, target)) == pytest.approx(2 * batch["field"].norm(dim=1).mean().item(), rel=1e-4)
    assert set(loss.values) == {"field"}


def test_labels_reach_the_loss_and_may_be_absent() -> None:
    registration = RegistrationLoss({"mse": MSELoss()}, {"smoothness": SmoothnessLoss()})
    loss = SupervisedLoss(registration, LabelOverlapLoss(), {"labels": 2.0})
    labels = torch.zeros(2, 2, 16, 16, dtype=torch.uint8)
    labels[:, 0, 2:8, 2:8] = labels[:, 1, 4:10, 2:8] = 1
    batch = {"image": torch.rand(2, 2, 16, 16), "labels": labels}
    field: Tensor = torch.zeros(2, 2, 16, 16)
    pair, target = prepare_supervised_batch(batch, "cpu")
    with_labels = loss(field, target)
    assert set(loss.values) == {"registration", "labels"}
    assert float(with_labels) == pytest.approx(loss.values["registration"] + 2 * loss.values["labels"])
    pair, bare = prepare_supervised_batch({"image": pair}, "cpu")
    assert bare[1:] == (None, None)
    assert float(loss(field, bare)) == pytest.approx(float(registration(field, pair)))
    assert set(loss.values) == {"registration"}
    with pytest.raises(ValueError, match="label"):
        SupervisedLoss(registration, LabelOverlapLoss(), {"label": 1.0})


def test_structures_are_learnt_from_both_sides_of_labelled_pairs() -> None:
    pair = torch.rand(2, 2, 8, 8)
    labels = torch.randint(0, 3, (2, 2, 8, 8), dtype=torch.uint8)
    images, maps = prepare_structure_batch({"image": pair, "labels": labels}, "cpu")
    assert torch.equal(images, torch.cat([pair[:, :1], pair[:, 1:]]))
    assert torch.equal(maps, torch.cat([labels[:, :1], labels[:, 1:]]))
    with pytest.raises(ValueError, match="labels"):
        prepare_structure_batch({"image": pair}, "cpu")
