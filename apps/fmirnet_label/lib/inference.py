"""What the server answers to an inference request: labels of another image, or the rest of a few drawn slices."""

from __future__ import annotations

import math
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monai.data import MetaTensor
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from fmirnet_monai.data import read_image, read_label, write_image
from fmirnet_monai.data.folder import Case
from fmirnet_monai.registration import Method
from fmirnet_monai.spatial import Grid
from fmirnet_monai.workflow import PropagationOptions, propagate_file

from .studies import labelled_studies

AUTO = "auto"
SLICES = [AUTO, "true", "false"]  # a choice, as viewers show it; it comes back whole where nothing was chosen


class LabelTask(InferTask):
    """A task that gives a label map of the open image; wrong input is answered with 400 and one line that says why.

    Args:
        datastore: gives the studies.
        description: shown to the user.
        config: options and their defaults.
    """

    def __init__(self, datastore: Callable[[], Datastore], description: str, config: dict[str, Any]) -> None:
        super().__init__(InferType.ANNOTATION, None, 3, description, config)
        self.datastore = datastore

    def is_valid(self) -> bool:
        """It needs no weights of its own."""
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """File of the label map, and what else there is to say.

        Args:
            request: ``image`` (a path) and ``image_id``, and any of the options.
        """
        options = {**InferTask.config(self), **request}  # the defaults; what is offered now is another question
        begin = time.time()
        with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as file:
            output = file.name
        try:
            said = self.label(options, output)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            Path(output).unlink(missing_ok=True)
            raise HTTPException(400, " ".join(str(error).split())) from error
        return output, {**said, "latencies": {"total": round(time.time() - begin, 2)}}

    @abstractmethod
    def label(self, options: Mapping[str, Any], output: str) -> dict[str, Any]:
        """Write the label map of ``options["image"]`` to ``output``; gives what the answer says beside it."""

    def names(self, image_id: str) -> dict[str, int]:
        """The numbers of the names of a stored label, as a viewer submitted them or one of these tasks answered."""
        info = self.datastore().get_label_info(image_id, DefaultLabelTag.FINAL)
        names = {entry["name"]: entry["idx"] for entry in info.get("label_info", []) if "idx" in entry}
        return names or dict(info.get("params", {}).get("label_names", {}))


class AnotherImagesLabel(LabelTask):
    """Label of another image of the studies, carried to the open one by registration."""

    def __init__(self, datastore: Callable[[], Datastore]) -> None:
        options = {"moving": "", "affine": "affine", "similarity": "auto", "slices": SLICES}
        super().__init__(datastore, "Carry the label of another image of the studies to this one", options)

    def config(self) -> dict[str, Any]:
        """The options; ``moving`` lists the labelled images."""
        return {**super().config(), "moving": list(labelled_studies(self.datastore()))}

    def label(self, options: Mapping[str, Any], output: str) -> dict[str, Any]:
        """See :py:meth:`LabelTask.label`."""
        source = self._moving(options)
        assert source.label is not None
        moving, moving_label, fixed = read_image(source.image), read_label(source.label), read_image(options["image"])
        slices = AUTO if options["slices"] == SLICES else options["slices"]
        method = Method(
            affine=options["affine"],
            similarity=options["similarity"],
            slices=None if slices == AUTO else str(slices).lower() == "true",
        )
        result = method.registrar(moving, fixed).register(moving, fixed, moving_label=moving_label)
        assert result.warped_label is not None
        write_image(result.warped_label, output, Grid.of(fixed))
        metrics = {name: round(value, 4) for name, value in result.metrics.items() if not math.isnan(value)}
        names = self.names(source.subject) or _numbered(result.warped_label)
        return {"label_names": names, "moving": source.subject, "metrics": metrics}

    def _moving(self, options: Mapping[str, Any]) -> Case:
        given = options["moving"]
        image = options["image_id"]
        labelled = {name: case for name, case in labelled_studies(self.datastore()).items() if name != image}
        chosen = given if given and isinstance(given, str) else next(iter(labelled), "")
        if chosen in labelled:
            return labelled[chosen]
        others = f"those with a label are {', '.join(labelled)}" if labelled else "label one and submit it"
        if not chosen:
            raise ValueError(f"moving: no image of the studies but {image} has a label; {others}.")
        raise ValueError(f"moving: {chosen} is no other image with a label; {others}.")


class RestOfSlices(LabelTask):
    """The whole volume's label from the few slices that were drawn and submitted."""

    def __init__(self, datastore: Callable[[], Datastore]) -> None:
        options = {"train_epochs": 0}
        super().__init__(datastore, "Label all slices between the few that are drawn and submitted", options)

    def label(self, options: Mapping[str, Any], output: str) -> dict[str, Any]:
        """See :py:meth:`LabelTask.label`."""
        drawn, names = options.get("label"), {}
        if not drawn:
            case = labelled_studies(self.datastore()).get(options["image_id"])
            if case is None:
                raise ValueError(
                    f"{options['image_id']}: has no label; draw two or more slices, best the first and the last of "
                    "each structure among them, submit the label, and ask again."
                )
            drawn, names = case.label, self.names(case.subject)
        with tempfile.TemporaryDirectory() as folder:
            result = propagate_file(
                options["image"],
                drawn,
                output,
                Method(),
                PropagationOptions(slices=options.get("annotated"), train_epochs=int(options["train_epochs"])),
                confidence=str(Path(folder) / "confidence.nii.gz"),
            )
        annotation = result.annotation
        between = result.confidence.movedim(annotation.axis + 1, 0)[annotation.slices[0] : annotation.slices[-1] + 1]
        return {
            "label_names": names or _numbered(result.label),
            "annotated": list(annotation.slices),
            "axis": annotation.axis,
            "least_certain": int(between.flatten(1).mean(1).argmin()) + annotation.slices[0],
        }


def _numbered(label: MetaTensor) -> dict[str, int]:
    return {f"label {int(i)}": int(i) for i in label.unique() if i != 0}
