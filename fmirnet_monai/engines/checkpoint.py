"""What makes a training run resumable, and its files say what made them."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Evaluator, Workflow
from monai.engines.utils import IterationEvents

from fmirnet_monai.utils import digest, process_rank, save_checkpoint, versions, write_text

from .batch import mean_loss

logger = logging.getLogger(__name__)


def diverged(what: str) -> ValueError:
    """The error that ends a training in which ``what`` is not finite any more."""
    return ValueError(
        f"learning_rate: training has diverged, {what} not finite. Start again in a new output_dir with a lower one."
    )


class TrainingCheckpoint:
    """Save everything a run needs to go on, after each epoch, and go on from it when the run is started again.

    Writes ``last.pt`` (epoch, best metric, the state of each object and of mixed precision's scaler, and what made it)
    and, when the evaluator has a new best key metric, ``model.pt`` (the bare state dict of the network, the form that
    MONAI's exports want) and beside it ``run.json``, which says what made it. Files are replaced whole, ``last.pt``
    last, so that a run killed at any moment loses at most the epoch it was in. Attach it after all other handlers.

    A network whose weights are not finite is not saved: the run ends. So does one of 2-D images on a CPU at the first
    loss that is not, for the gradient of sampling at such places would end the process (pytorch issue 24823).

    Args:
        output_dir: folder of the run.
        save_dict: objects with ``state_dict`` and ``load_state_dict``; ``"network"`` must be among them.
        evaluator: its best metric chooses ``model.pt``.
        settings: what must be the same when the run is started again, by name, such as the datalist.
        best: name in ``save_dict`` of the network that is validated and becomes ``model.pt``.
        inputs: files, by name, whose content must be the same, too; None where there is none.
        noted: settings that are written down, but may be others when the run is started again.
    """

    def __init__(
        self,
        output_dir: str | Path,
        save_dict: Mapping[str, Any],
        evaluator: Evaluator,
        settings: Mapping[str, Any] | None = None,
        best: str = "network",
        inputs: Mapping[str, str | Path | None] | None = None,
        noted: Mapping[str, Any] | None = None,
    ) -> None:
        if missing := {"network", best} - set(save_dict):
            raise ValueError(f"save_dict must name {sorted(missing)}, got {list(save_dict)}.")
        self.last = Path(output_dir) / "last.pt"
        self.model = Path(output_dir) / "model.pt"
        self.record = Path(output_dir) / "run.json"
        self.best = best
        self.save_dict = save_dict
        self.evaluator = evaluator
        self.settings = {name: str(value) for name, value in (settings or {}).items()}
        self.made_by: dict[str, Any] = {
            "versions": versions(),
            "noted": {name: str(value) for name, value in (noted or {}).items()},
            "sha256": {name: None if path is None else digest(path) for name, path in (inputs or {}).items()},
        }

    def attach(self, engine: Workflow) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.STARTED, self.resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        if engine.state.device.type == "cpu":
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.require_finite)

    def require_finite(self, engine: Workflow) -> None:
        """Raise ValueError when the loss of 2-D images is not finite, before its gradient is computed."""
        if engine.state.output["image"].dim() == 4 and not math.isfinite(mean_loss(engine.state.output)):
            raise diverged("the loss is")

    def resume(self, engine: Workflow) -> None:
        """Load ``last.pt`` if the folder has one, also one of other versions.

        Raises:
            ValueError: when it was written by a run with other settings or from other files.
        """
        if not self.last.is_file():
            return
        state = torch.load(self.last, map_location=engine.state.device, weights_only=True)
        self._require_same(state)
        for name, item in self.save_dict.items():
            item.load_state_dict(state[name])
        if engine.scaler is not None and state.get("scaler"):  # empty where it was not enabled
            engine.scaler.load_state_dict(state["scaler"])
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["epoch"] * engine.state.epoch_length
        self.evaluator.state.best_metric = state["best_metric"]
        self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]
        logger.info("going on from epoch %d of %s", state["epoch"], self.last)
        self._remember(state.get("made_by", {}))

    def _require_same(self, state: Mapping[str, Any]) -> None:
        older = "made_by" not in state  # of a version that knew fewer settings, and no files
        before = state.get("made_by", {"sha256": {}})["sha256"]
        changed = _changed(state["settings"], self.settings, older)
        changed += [f"content of {name}" for name in _changed(before, self.made_by["sha256"], older)]
        if changed:
            raise ValueError(
                f"{self.last}: this run was started with another {', '.join(changed)}. Give the new run an "
                "--output_dir of its own, or remove the folder to start over."
            )

    def _remember(self, before: Mapping[str, Any]) -> None:
        """Keep which other versions the run began with."""
        now = self.made_by["versions"]
        past = [*before.get("earlier_versions", []), before.get("versions", now)]
        if earlier := [found for found in past if found != now]:
            self.made_by["earlier_versions"] = earlier
            logger.info("made by %s before, going on with %s", _told(earlier[-1]), _told(now))

    def save(self, engine: Workflow) -> None:
        """Save the run, and the network where this epoch's is the best so far.

        Raises:
            ValueError: when the network's weights are not finite.
        """
        if not all(bool(weights.isfinite().all()) for weights in self.save_dict["network"].parameters()):
            raise diverged("the network's weights are")
        if process_rank() > 0:
            return
        progress = {
            "epoch": engine.state.epoch,
            "best_metric": self.evaluator.state.best_metric,
            "best_metric_epoch": self.evaluator.state.best_metric_epoch,
        }
        if progress["best_metric_epoch"] == progress["epoch"]:
            save_checkpoint(self.model, self.save_dict[self.best].state_dict())
            self._write_record(progress)
        state = {name: item.state_dict() for name, item in self.save_dict.items()}
        if engine.scaler is not None:
            state["scaler"] = engine.scaler.state_dict()
        save_checkpoint(self.last, {**state, **progress, "settings": self.settings, "made_by": self.made_by})

    def _write_record(self, progress: Mapping[str, Any]) -> None:
        """``run.json`` of the weights that were just written."""
        made_by = {name: value for name, value in self.made_by.items() if name not in ("noted", "sha256")}
        content = {
            "epoch": progress["epoch"],
            "metric": float(progress["best_metric"]),
            "settings": {**self.made_by["noted"], **self.settings},
            **made_by,
            "sha256": {**self.made_by["sha256"], self.model.name: digest(self.model)},
        }
        write_text(self.record, json.dumps(content, indent=1) + "\n")


def state_digest(module: torch.nn.Module) -> str:
    """SHA-256 of a network's weights by name, from whatever file or function they came."""
    found = hashlib.sha256()
    for name, values in module.state_dict().items():
        found.update(name.encode())
        found.update(values.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], older: bool) -> list[str]:
    """Names of what is not as it was; of a file of an older version, of what that one knew."""
    names = before if older else {**before, **now}
    return [name for name in names if before.get(name) != now.get(name)]


def _told(found: Mapping[str, str]) -> str:
    return " ".join(f"{name} {number}" for name, number in found.items())
