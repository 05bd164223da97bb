"""Fine-tune a segmentation bundle on the labels of the studies."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from fmirnet_monai.bundle import publish_weights
from fmirnet_monai.data import Pairing, write_pairs
from fmirnet_monai.data.folder import read_folder_case
from fmirnet_monai.study.training import TrainingJob, train_networks

from .studies import labelled_studies

logger = logging.getLogger(__name__)


class FineTuning(TrainTask):
    """Train the segmentation network of a joint bundle on every slice of the studies that have a final label.

    The bundle's own weights, where it has any, are where it starts; what has the best Dice on the studies kept for
    validation takes their place. A label counts as whole: slices on which nothing is drawn are learnt as background.

    Args:
        bundle_dir: the app's copy of the bundle.
    """

    def __init__(self, bundle_dir: Path) -> None:
        super().__init__(f"Fine-tune {bundle_dir.name} on the labels that were submitted")
        self.bundle_dir = bundle_dir

    def config(self) -> dict[str, Any]:
        """Options and their defaults."""
        return {"max_epochs": 10, "val_split": 0.2, "learning_rate": 3e-4}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, int]:
        """Train; gives how many studies were learnt from and validated on.

        Raises:
            ValueError: when fewer than two studies have a final label.
        """
        options = {**self.config(), **request}
        studies = list(labelled_studies(datastore).values())
        if len(studies) < 2:
            raise ValueError(f"{len(studies)} studies have a final label, training needs two: one to validate on.")
        validation = min(max(1, round(float(options["val_split"]) * len(studies))), len(studies) - 1)
        share = validation / len(studies)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)  # of the pairs, each slice is learnt from once
            pairing = Pairing(r=0.2, min_label_area=0.0, fractions=(1 - share, share, 0.0))
            datalist = write_pairs(map(read_folder_case, studies), folder / "data", pairing, keep_volumes=True)
            weights = self.bundle_dir / "models" / "model.pt"
            start = {
                "_target_": "CheckpointLoader",
                "load_path": str(weights),
                "load_dict": {"model": "@network_def"},
            }
            overrides = {
                "max_epochs": int(options["max_epochs"]),
                "learning_rate": float(options["learning_rate"]),
                "extra_handlers": [start] if weights.is_file() else [],
                "evaluation_section": "validation",  # there are no test studies
            }
            run = self.bundle_dir / "fine_tuning"  # stays, with the log, until the next one
            shutil.rmtree(run, ignore_errors=True)
            job = TrainingJob(run, str(datalist), str(self.bundle_dir), "all_labels", overrides)
            train_networks([job])
            publish_weights(job.output_dir / "model.pt", self.bundle_dir)
        logger.info("%s: trained on %d studies", self.bundle_dir.name, len(studies) - validation)
        return {"training": len(studies) - validation, "validation": validation}
