"""The end of a run: a table, one file of all cases, a picture of a few."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Events
from monai.engines import Workflow
from monai.engines.utils import IterationEvents
from monai.transforms import LoadImage

from fmirnet_monai.data import write_image
from fmirnet_monai.spatial import Grid

from .figures import draw_pairs, draw_segmentations
from .table import before_and_after, write_tables

logger = logging.getLogger(__name__)


class Report(ABC):
    """Ignite handler that writes and prints what an evaluator measured.

    Into ``output_dir`` go ``summary.md``, ``summary.json``, ``cases.csv`` and a picture. The evaluator's data loader
    must have batches of one case.

    Args:
        output_dir: folder to write.
        num_pictures: cases in the picture, spread evenly.
    """

    def __init__(self, output_dir: str | Path, num_pictures: int = 4) -> None:
        self.output_dir = Path(output_dir)
        self.num_pictures = num_pictures

    @abstractmethod
    def name(self, batch: Mapping[str, Any]) -> str:
        """What a case is called."""

    @abstractmethod
    def picture(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
        """What :py:meth:`draw` needs of a case, in numpy."""

    def keep(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> None:  # noqa: B027 - most keep nothing
        """Write what is worth keeping of a case."""

    @abstractmethod
    def draw(self) -> None:
        """Draw ``self.pictures``."""

    @abstractmethod
    def rows(self, cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Rows of the table."""

    def attach(self, engine: Workflow) -> None:
        """Attach to the evaluator, after its metrics."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_STARTED, self._start_clock)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop_clock)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep_picture)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _started(self, engine: Workflow) -> None:
        self._seconds: list[float] = []
        self._names: list[str] = []
        self.pictures: list[dict[str, Any]] = []
        count = min(self.num_pictures, engine.state.epoch_length)
        self._pictured = set(np.linspace(0, engine.state.epoch_length - 1, count + 2).round().astype(int)[1:-1])

    def _start_clock(self, engine: Workflow) -> None:
        self._synchronise(engine)
        self._clock = time.perf_counter()

    def _stop_clock(self, engine: Workflow) -> None:
        self._synchronise(engine)
        self._seconds.append(time.perf_counter() - self._clock)

    @staticmethod
    def _synchronise(engine: Workflow) -> None:
        if engine.state.device.type == "cuda":
            torch.cuda.synchronize(engine.state.device)

    def _keep_picture(self, engine: Workflow) -> None:
        batch, output = engine.state.batch[0], engine.state.output[0]
        self._names.append(self.name(batch))
        self.keep(batch, output)
        if engine.state.iteration - 1 in self._pictured:
            self.pictures.append({"title": self._names[-1], **self.picture(batch, output)})

    def _write(self, engine: Workflow) -> None:
        details = {}
        for name, values in engine.state.metric_details.items():
            by_label = values.flatten(1).cpu()
            details[name] = by_label.nanmean(1).numpy()
            if by_label.shape[1] > 1:
                details |= {f"{name}_{i}": part.numpy() for i, part in enumerate(by_label.unbind(1), 1)}
        seconds = np.array(self._seconds)
        seconds[:1] = np.nan  # the first pass warms up
        cases = pd.DataFrame({**details, "seconds": seconds}, index=self._names)
        table = write_tables(self.output_dir, self.rows(cases))
        print(f"\n{table}", flush=True)
        if self.pictures:
            self.draw()
        logger.info("table, cases and picture written to %s", self.output_dir)


class RegistrationReport(Report):
    """Report of pairs before and after registration, pictured in ``pairs.png``.

    The evaluator's metrics are those of :py:func:`fmirnet_monai.engines.evaluation_metrics`.
    """

    def name(self, batch: Mapping[str, Any]) -> str:
        """Subject and files."""
        files = (Path(str(batch[key].meta["filename_or_obj"])).name for key in ("moving", "fixed"))
        return " ".join([str(batch.get("subject", "")), *files]).replace(".nii.gz", "")

    def picture(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
        """Images, field and labels; all labels are shown as one region."""
        case: dict[str, Any] = {"ddf": output["pred"].cpu().numpy()}
        for key, source in (("moving", batch), ("fixed", batch), ("warped", output)):
            case[key] = source[key][0].cpu().numpy()
        for key, one_hot in (
            ("moving_label", "source_label"),
            ("fixed_label", "target_label"),
            ("warped_label", "warped_label"),
        ):
            if one_hot in output:
                case[key] = output[one_hot][1:].amax(0).cpu().numpy()
        return case

    def draw(self) -> None:
        """See :py:func:`draw_pairs`."""
        draw_pairs(self.pictures, self.output_dir / "pairs.png")

    def rows(self, cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Before and after."""
        return before_and_after(cases)


class SegmentationReport(Report):
    """Report of segmented volumes, pictured in ``volumes.png``, each written as ``SUBJECT.nii.gz`` too.

    The evaluator's metrics are those of :py:func:`fmirnet_monai.engines.segmentation_metrics`, prediction and label
    one-hot on the volume's own grid under ``pred`` and ``label``.
    """

    def name(self, batch: Mapping[str, Any]) -> str:
        """The subject, or the file."""
        return str(batch.get("subject") or Path(str(batch["image"].meta["filename_or_obj"])).name)

    def keep(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        """Write the labels that were found, on the volume's own grid."""
        found = output["pred"].argmax(0, keepdim=True).int().cpu()
        write_image(found, self.output_dir / f"{self.name(batch)}.nii.gz", Grid.of(output["pred"]))

    def picture(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
        """The volume as the file has it, with both labels."""
        image = LoadImage(image_only=True, ensure_channel_first=True)(batch["image"].meta["filename_or_obj"])
        labels = {key: output[name].argmax(0).cpu().numpy() for key, name in (("label", "label"), ("found", "pred"))}
        return {"image": np.asarray(image[0]), **labels}

    def draw(self) -> None:
        """See :py:func:`draw_segmentations`."""
        draw_segmentations(self.pictures, self.output_dir / "volumes.png")

    def rows(self, cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """One row."""
        return {"segmentation": cases}
