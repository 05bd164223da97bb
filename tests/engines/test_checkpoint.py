"""TrainingCheckpoint and EpochSeed: a resumed run ends as a whole one, and its files say what made them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from torch import nn

from fmirnet_monai.engines import EpochSeed, TrainingCheckpoint, prepare_pair_batch, state_digest
from fmirnet_monai.engines import checkpoint as module
from fmirnet_monai.utils import save_checkpoint, versions

PAIRS = [{"image": image} for image in torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(3))]


def trained(
    folder: Path,
    max_epochs: int,
    scaler: torch.amp.GradScaler | None = None,
    epoch_length: int | None = None,
    seen: list[float] | None = None,
    lr: float = 1e-2,
    **arguments: Any,
) -> SupervisedTrainer:
    """Train a convolution in the folder, going on from what is there; every epoch's network is the best so far."""
    torch.manual_seed(1)
    network = nn.Conv2d(2, 2, 3, padding=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    evaluator = SimpleNamespace(state=SimpleNamespace(best_metric=0.5, best_metric_epoch=0))
    checkpoint = TrainingCheckpoint(folder, {"network": network, "optimizer": optimizer}, evaluator, **arguments)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(PAIRS, batch_size=2, shuffle=True),
        epoch_length=epoch_length,
        network=network,
        optimizer=optimizer,
        loss_function=lambda prediction, target: (prediction.float() - target[:, :1]).square().mean(),
        prepare_batch=prepare_pair_batch,
        train_handlers=[EpochSeed(0)],
        amp=scaler is not None,
        decollate=False,
    )

    def scaled() -> None:
        trainer.scaler = scaler  # for MONAI's own, which is one of CUDA alone and made when a run starts

    def validated() -> None:
        evaluator.state.best_metric_epoch = trainer.state.epoch

    trainer.add_event_handler(Events.STARTED, scaled)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, validated)
    if seen is not None:
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda: seen.append(float(trainer.state.output["image"].sum()))
        )
    checkpoint.attach(trainer)
    trainer.run()
    return trainer


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.pt", weights_only=True)


def older(folder: Path, *without: str) -> None:
    """Write ``last.pt`` as a version before did that had none of these."""
    save_checkpoint(folder / "last.pt", {name: value for name, value in last(folder).items() if name not in without})


def scaling(**options: Any) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2, **options)


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("epoch_length", [None, 2, 5])
def test_a_resumed_run_sees_the_batches_and_ends_with_the_bits_of_a_whole_one(
    amp: bool, epoch_length: int | None, tmp_path: Path
) -> None:
    whole: list[float] = []
    parts: list[float] = []
    one = trained(tmp_path / "whole", 4, scaling() if amp else None, epoch_length, whole)
    for epochs in (1, 2, 4):
        other = trained(tmp_path / "parts", epochs, scaling() if amp else None, epoch_length, parts)
    assert whole == parts and len(set(whole[: epoch_length or 3])) > 1
    for name, value in one.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[name], value)
    if amp:
        assert last(tmp_path / "whole")["scaler"] == last(tmp_path / "parts")["scaler"] == one.scaler.state_dict()
        assert one.scaler.get_scale() > 16.0
    assert (tmp_path / "whole" / "model.pt").read_bytes() == (tmp_path / "parts" / "model.pt").read_bytes()
    assert (tmp_path / "whole" / "run.json").read_text() == (tmp_path / "parts" / "run.json").read_text()


@pytest.mark.parametrize("before", [None, scaling(enabled=False)], ids=["none", "not enabled"])
def test_a_run_without_a_scaler_goes_on_with_one_and_the_other_way(
    before: torch.amp.GradScaler | None, tmp_path: Path
) -> None:
    trained(tmp_path, 1, before)
    assert trained(tmp_path, 2, scaling()).state.epoch == 2
    assert trained(tmp_path, 3, before).state.epoch == 3


@pytest.mark.parametrize(
    ("lr", "epoch_length", "what"), [(1e30, None, "the loss is"), (math.inf, 1, "the network's weights are")]
)
def test_training_that_diverges_ends_and_saves_nothing(
    lr: float, epoch_length: int | None, what: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"learning_rate: training has diverged, {what} not finite. Start again"):
        trained(tmp_path, 1, lr=lr, epoch_length=epoch_length)
    assert not list(tmp_path.iterdir())


def test_files_say_what_made_them(tmp_path: Path) -> None:
    datalist, weights = tmp_path / "datalist.json", tmp_path / "start.pt"
    datalist.write_text("{}")
    weights.write_bytes(b"weights")
    hashes = {"datalist": hashlib.sha256(b"{}").hexdigest(), "weights": hashlib.sha256(b"weights").hexdigest()}
    inputs = {"datalist": datalist, "weights": weights, "more": None}
    trained(tmp_path / "run", 2, settings={"seed": 3}, inputs=inputs, noted={"amp": False})
    state, record = last(tmp_path / "run"), json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["settings"] == {"seed": "3"}
    assert state["made_by"] == {"versions": versions(), "noted": {"amp": "False"}, "sha256": {**hashes, "more": None}}
    model = hashlib.sha256((tmp_path / "run" / "model.pt").read_bytes()).hexdigest()
    assert record == {
        "epoch": 2,
        "metric": 0.5,
        "settings": {"seed": "3", "amp": "False"},
        "versions": versions(),
        "sha256": {**hashes, "more": None, "model.pt": model},
    }
    bare = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert list(bare) == ["weight", "bias"] and torch.equal(bare["weight"], state["network"]["weight"])


@pytest.mark.parametrize("changed", ["datalist", "weights"])
def test_changed_content_under_the_same_name_is_refused(changed: str, tmp_path: Path) -> None:
    inputs = {name: tmp_path / name for name in ("datalist", "weights")}
    for path in inputs.values():
        path.write_text("before")
    trained(tmp_path / "run", 1, inputs=inputs)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    inputs[changed].write_text("after")
    with pytest.raises(ValueError, match=rf"last\.pt: .* another content of {changed}\. Give the new run an"):
        trained(tmp_path / "run", 2, inputs=inputs)
    with pytest.raises(ValueError, match="another content of"):
        trained(tmp_path / "run", 2, inputs={**inputs, changed: None})
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    inputs[changed].write_text("before")
    assert trained(tmp_path / "run", 2, inputs=inputs).state.epoch == 2


@pytest.mark.parametrize("settings", [{"seed": 4}, {}, {"seed": 3, "loss": "mse"}])
def test_another_setting_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    trained(tmp_path, 1, settings={"seed": 3})
    with pytest.raises(ValueError, match=r"started with another (seed|loss)"):
        trained(tmp_path, 2, settings=settings)


def test_a_file_of_an_older_version_that_knew_less_still_goes_on(tmp_path: Path) -> None:
    (tmp_path / "datalist").write_text("{}")
    more: dict[str, Any] = {"settings": {"loss": "mse", "seed": 3}, "inputs": {"datalist": tmp_path / "datalist"}}
    trained(tmp_path, 1, scaling(), settings={"loss": "mse"})
    older(tmp_path, "made_by", "scaler")
    with pytest.raises(ValueError, match="another loss"):
        trained(tmp_path, 2, settings={"seed": 3}, inputs=more["inputs"])
    assert trained(tmp_path, 2, scaling(), **more).state.epoch == 2
    assert set(last(tmp_path)["made_by"]["sha256"]) == {"datalist"} and last(tmp_path)["settings"]["seed"] == "3"


def test_other_versions_go_on_and_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=module.__name__)
    recorded: list[Sequence[str]] = []
    for epoch, number in enumerate(("1", "2", "2", "1"), 1):
        monkeypatch.setattr(module, "versions", lambda number=number: {"torch": number})
        trained(tmp_path, epoch)
        record = json.loads((tmp_path / "run.json").read_text())
        assert record["versions"] == {"torch": number}
        recorded.append([found["torch"] for found in record.get("earlier_versions", [])])
    assert recorded == [[], ["1"], ["1"], ["2"]]
    assert "made by torch 1 before, going on with torch 2" in caplog.text


def test_digest_of_weights_hangs_on_names_and_values_alone(tmp_path: Path) -> None:
    network = nn.Conv2d(2, 4, 3)
    digest = state_digest(network)
    assert digest == state_digest(network.to(memory_format=torch.channels_last))
    save_checkpoint(tmp_path / "a.pt", network.state_dict())
    other = nn.Conv2d(2, 4, 3)
    assert state_digest(other) != digest
    other.load_state_dict(torch.load(tmp_path / "a.pt"))
    assert state_digest(other) == digest != state_digest(nn.Sequential(other))


def test_the_same_state_is_saved_as_the_same_bytes(tmp_path: Path) -> None:
    state = nn.Conv2d(2, 4, 3).state_dict()
    for name in ("a.pt", "b.pt"):
        save_checkpoint(tmp_path / name, state)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
