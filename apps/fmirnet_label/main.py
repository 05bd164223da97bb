"""The MONAI Label app: segmentation by the joint bundles, labels from another image, the rest of a few drawn slices."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lib.inference
import lib.permitted
import lib.training
from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.infer.bundle import BundleInferTask

from fmirnet_monai import __version__
from fmirnet_monai.bundle import find_bundle
from fmirnet_monai.program import told

logger = logging.getLogger(__name__)

BUNDLES = ("runet_chaos", "rfcn_chaos")


class FMIRNetLabel(MONAILabelApp):
    """See the module; the bundles are copied below the app's folder ``model``, where fine-tuning changes their weights.

    Args:
        app_dir: this folder.
        studies: folder or DICOMweb address of the studies.
        conf: of the server; ``bundles`` names other segmentation bundles, separated by commas.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        # where pip puts dcmqi's programs, which MONAI Label would download else
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self.uploads = lib.permitted.own_uploads()
        names = conf.get("bundles", ",".join(BUNDLES)).split(",")
        self.bundles = {name: _own_copy(name, Path(app_dir) / "model") for name in names}
        super().__init__(
            app_dir,
            studies,
            dict(conf),
            name=f"FMIRNet ({__version__})",
            description="Segmentation, labels from another image, and the rest of a few drawn slices",
            version=__version__,
        )

    def init_datastore(self) -> Datastore:
        """The studies, which take no name that leads out of them."""
        return lib.permitted.guard_names(super().init_datastore())

    def init_infers(self) -> dict[str, InferTask]:
        """Every bundle that has weights, and the two tasks that need none."""
        tasks: dict[str, InferTask] = {
            "registration": lib.inference.AnotherImagesLabel(self.datastore),
            "slice_propagation": lib.inference.RestOfSlices(self.datastore),
        }
        for name, folder in self.bundles.items():
            task = BundleInferTask(str(folder), self.conf, type=InferType.SEGMENTATION)
            if task.is_valid():
                task.dimension = 3  # its network takes slices, it takes volumes
                task.config()["result_dtype"] = "uint8"
                tasks[name] = task
            else:
                logger.warning("%s has no weights and can't be asked until it is trained", name)
        return tasks

    def init_trainers(self) -> dict[str, TrainTask]:
        """Fine-tuning of every bundle."""
        return {name: lib.training.FineTuning(folder) for name, folder in self.bundles.items()}

    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """As MONAI Label's, but what is asked wrongly, or of a damaged study, is answered by 404 or 400 and a line.

        MONAI Label takes any file that a request names; here images are the studies' or came with the request, and
        others are answered by 400.
        """
        model, image = request.get("model"), request.get("image")
        if model in self.bundles and model not in self._infers:
            raise HTTPException(
                404, f"model: {model} has no weights; train it or give it a models/model.pt, and restart the server."
            )
        if model not in self._infers:
            raise HTTPException(404, f"model: there is no {model!r}, but {', '.join(self._infers)}.")
        file = image
        if isinstance(image, str):
            study = (datastore or self.datastore()).get_image_uri(image)
            if not study and not Path(image).exists() and os.sep not in image:
                raise HTTPException(404, f"image: the studies hold no {image!r}.")
            if study and Path(image).exists():  # a file here that has a study's name
                file = study
            elif not study:
                lib.permitted.require_upload("image", image, self._given())
        lib.permitted.require_upload("label", request.get("label"), self._given())
        lib.permitted.refuse_files({k: v for k, v in request.items() if k not in ("image", "label", "session")})
        try:
            result: dict[str, Any] = super().infer({**request, "image": file, "image_id": image}, datastore)
        except Exception as error:
            if isinstance(error, HTTPException) or not (line := told(error)):
                raise
            raise HTTPException(400, line) from error
        return result

    def _given(self) -> list[Path]:
        """Folders of what requests brought."""
        sessions = self.sessions()
        return [self.uploads] if sessions is None else [self.uploads, Path(sessions.store_path)]

    def train(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """As MONAI Label's, but what can't be trained is answered by 400 and a line that says why."""
        if request.get("model") not in self._trainers:
            raise HTTPException(404, f"model: there is no {request.get('model')!r}, but {', '.join(self._trainers)}.")
        try:
            result: dict[str, Any] = super().train(request)
        except (ValueError, OSError, RuntimeError) as error:
            raise HTTPException(400, " ".join(str(error).split())) from error
        return result


def _own_copy(name: str, models: Path) -> Path:
    """The app's copy of a bundle, made where there is none."""
    target = models / name
    if not (target / "configs").is_dir():
        source = find_bundle(name)
        ignore = shutil.ignore_patterns("sample", "runs", "eval")
        shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True)
    return target
