"""The end of a run: a table before and after registration, one file of all cases, a picture of a few."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Events
from monai.engines import Workflow
from monai.engines.utils import IterationEvents

from .figures import draw_pairs
from .table import before_and_after, write_tables

logger = logging.getLogger(__name__)


class RegistrationReport:
    """Ignite handler that writes and prints what an evaluator measured.

    Into ``output_dir`` go ``summary.md``, ``summary.json``, ``cases.csv`` and ``pairs.png``. The evaluator's metrics
    are those of :py:func:`fmirnet_monai.engines.evaluation_metrics`; its data loader must have batches of one pair.

    Args:
        output_dir: folder to write.
        num_pictures: pairs in the picture, spread evenly over the cases.
    """

    def __init__(self, output_dir: str | Path, num_pictures: int = 4) -> None:
        self.output_dir = Path(output_dir)
        self.num_pictures = num_pictures

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
        self._pictures: list[dict[str, Any]] = []
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
        files = (Path(str(batch[key].meta["filename_or_obj"])).name for key in ("moving", "fixed"))
        name = " ".join([str(batch.get("subject", "")), *files])
        self._names.append(name.replace(".nii.gz", ""))
        if engine.state.iteration - 1 in self._pictured:
            case: dict[str, Any] = {"title": self._names[-1], "ddf": output["pred"].cpu().numpy()}
            for key, source in (("moving", batch), ("fixed", batch), ("warped", output)):
                case[key] = source[key][0].cpu().numpy()
            for key, source in (
                ("moving_label", "source_label"),
                ("fixed_label", "target_label"),
                ("warped_label",) * 2,
            ):
                if source in output:  # one-hot; the picture shows all labels as one region
                    case[key] = output[source][1:].amax(0).cpu().numpy()
            self._pictures.append(case)

    def _write(self, engine: Workflow) -> None:
        details = {
            name: torch.nanmean(values.flatten(1), dim=1).cpu().numpy()
            for name, values in engine.state.metric_details.items()
        }
        seconds = np.array(self._seconds)
        seconds[:1] = np.nan  # the first pass warms up
        cases = pd.DataFrame({**details, "seconds": seconds}, index=self._names)
        table = write_tables(self.output_dir, before_and_after(cases))
        print(f"\n{table}", flush=True)
        if self._pictures:
            draw_pairs(self._pictures, self.output_dir / "pairs.png")
        logger.info("table, cases and picture written to %s", self.output_dir)
