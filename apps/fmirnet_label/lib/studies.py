"""The studies that have a label, whether they lie in a folder or on a DICOMweb server."""

from __future__ import annotations

from pathlib import Path

from monailabel.interfaces.datastore import Datastore

from fmirnet_monai.data.folder import Case


def labelled_studies(datastore: Datastore) -> dict[str, Case]:
    """Image and label file of every study that has a final label, by its id; from a server they are fetched first."""
    cases = {}
    for entry in datastore.datalist():
        image, label = Path(entry["image"]), Path(entry["label"])
        name = Path(image.name.removesuffix(".gz")).stem  # a DICOM series is named by its UID, which has dots
        cases[name] = Case(name, image, label)
    return dict(sorted(cases.items()))
