"""Ignite handlers: what makes a training run repeatable and stepwise, ends it in time, and shows how far it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar as IgniteProgressBar
from monai.data import set_rnd
from monai.engines import Evaluator, Workflow
from monai.engines.utils import IterationEvents
from monai.handlers import EarlyStopHandler, StatsHandler, TensorBoardStatsHandler
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from fmirnet_monai.networks import LapIRN
from fmirnet_monai.utils import process_rank

from .batch import mean_loss
from .checkpoint import diverged


class EpochSeed:
    """Seed each epoch by its number, so that an epoch draws the same order and augmentation in a resumed run.

    Each begins with the first batch of a new order, also where ``epoch_length`` is not the data loader's: one that went
    on with what the epoch before had left would see other batches in a run that was resumed between them.

    Args:
        seed: of the run.
        dataset: training data whose random transforms are seeded too.
    """

    def __init__(self, seed: int, dataset: Dataset | None = None) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Workflow) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Workflow) -> None:
        """Seed torch, the transforms and the sampler of several processes, and begin the data anew."""
        seed = self.seed + 1_000_003 * engine.state.epoch + 7919 * process_rank()
        torch.manual_seed(seed)
        if self.dataset is not None:
            set_rnd(self.dataset, seed % 2**32)
        sampler = getattr(engine.data_loader, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(engine.state.epoch)
        engine.set_data(engine.data_loader)


class GrowLevels:
    """Train a LapIRN's levels one after another, the coarsest first (Mok and Chung, MICCAI 2020).

    What takes part follows from the number of the epoch alone, so that a resumed run goes on with the right levels.
    Of the paper's steps, a quarter train the first level alone, a quarter two levels and half of them three; a new
    level begins with about a fifteenth of its steps in which the coarser ones are frozen.

    Args:
        network: the network itself, not what wraps it for several processes.
        epochs: for each level but the coarsest, the epochs that pass before it starts, not falling.
        frozen_epochs: from a level's start, how many epochs the coarser levels' weights stand still.

    Raises:
        ValueError: when ``epochs`` is not of that form or length.
    """

    def __init__(self, network: LapIRN, epochs: Sequence[int], frozen_epochs: int = 1) -> None:
        if len(epochs) != len(network.levels) - 1 or list(epochs) != sorted(epochs):
            raise ValueError(
                f"epochs must be {len(network.levels) - 1} numbers that do not fall, one for each level but the "
                f"coarsest, got {list(epochs)}."
            )
        self.network = network
        self.epochs = list(epochs)
        self.frozen_epochs = frozen_epochs

    def attach(self, engine: Workflow) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Workflow) -> None:
        """Set the levels of the epoch that starts."""
        passed = engine.state.epoch - 1
        starts = [start for start in self.epochs if start <= passed]
        freezing = starts and passed < starts[-1] + self.frozen_epochs
        self.network.set_levels(active=1 + len(starts), frozen=len(starts) if freezing else 0)


class EarlyStopping(EarlyStopHandler):
    """MONAI's early stopping on an evaluator's key metric, as a handler of the trainer whose state can be saved.

    Args:
        patience: validations without improvement before training stops.
        evaluator: the engine that validates; larger values of its key metric are better.
    """

    def __init__(self, patience: int, evaluator: Evaluator) -> None:
        super().__init__(patience, lambda engine: engine.state.metrics[engine.state.key_metric_name])
        self.evaluator = evaluator

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        self.set_trainer(engine)
        super().attach(self.evaluator)

    def state_dict(self) -> dict[str, Any]:
        """Counter and best score so far."""
        assert self._handler is not None, "attach to the trainer first"
        return dict(self._handler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the counter and best score of :py:meth:`state_dict`; a run that was stopped stays stopped."""
        assert self._handler is not None, "attach to the trainer first"
        self._handler.load_state_dict(state)
        if self._handler.counter >= self.patience:
            self._handler.trainer.terminate()


class ClipGradients:
    """Keep the length of all gradients together from going beyond a limit, before each step of the optimizer.

    A step whose gradients are not finite is left out, as mixed precision's scaler does by itself; when one after the
    other is, training has diverged and ends.

    Args:
        optimizer: whose parameters' gradients count.
        limit: largest norm.
        patience: steps in a row that may be left out.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, limit: float = 1.0, patience: int = 10) -> None:
        self.optimizer = optimizer
        self.limit = limit
        self.patience = patience
        self.lost = 0

    def attach(self, engine: Workflow) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Workflow) -> None:
        """Clip.

        Raises:
            ValueError: when no gradients were finite for longer than ``patience``.
        """
        scaler = engine.scaler if engine.scaler is not None and engine.scaler.is_enabled() else None  # not on a CPU
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.limit)
        if scaler is not None:
            return
        self.lost = 0 if torch.isfinite(norm) else self.lost + 1
        if self.lost > self.patience:
            raise diverged(f"the loss of the last {self.lost} steps is")
        if self.lost:
            self.optimizer.zero_grad()


class ProgressBar(IgniteProgressBar):
    """Ignite's progress bar as a MONAI handler, with the pairs a second.

    On a GPU it moves at every tenth step only: to show a number is to wait for the device.

    Args:
        description: shown before the bar.
        loss: also show the trainer's loss.
    """

    def __init__(self, description: str, loss: bool = False) -> None:
        super().__init__(desc=description, persist=False)
        self.loss = loss
        self.every = 1
        self._since = perf_counter()

    def attach(self, engine: Workflow) -> None:  # type: ignore[override]
        """Attach to a trainer or evaluator."""
        cuda = engine.state.device is not None and engine.state.device.type == "cuda"
        self.every = 10 if cuda else 1
        event = Events.ITERATION_COMPLETED(every=self.every)
        super().attach(engine, output_transform=self.shown, event_name=event)

    def shown(self, output: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
        """What stands behind the bar, of a batch whole or as a list of its items."""
        pairs = len(output["image"]) if isinstance(output, Mapping) else len(output)
        loss = {"loss": mean_loss(output)} if self.loss else {}
        now, since = perf_counter(), self._since
        self._since = now
        return {**loss, "pairs/s": float(f"{self.every * pairs / (now - since):.3g}")}


def handlers_of_this_process(handlers: Sequence[Any]) -> list[Any]:
    """Under ``torchrun``: all handlers for the first process, without those that only report for the others."""
    if process_rank() == 0:
        return list(handlers)
    return [h for h in handlers if not isinstance(h, (ProgressBar, StatsHandler, TensorBoardStatsHandler))]
