"""The two series that DICOM is written of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fmirnet_monai.utils import reading

from .dicom_source import SourceSeries, new_object

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


@dataclass(frozen=True, eq=False)
class DicomPair:
    """The series that a registration was made of.

    Attributes:
        moving: whose patient, study, pixel type and window the new objects get.
        fixed: whose frame of reference and geometry they get.
    """

    moving: SourceSeries
    fixed: SourceSeries

    @classmethod
    def read(cls, moving: str | Path, fixed: str | Path, labels: bool = False) -> DicomPair:
        """Read both and check that DICOM can be written of them.

        Args:
            moving: folder of a series, or a file of one slice.
            fixed: the same.
            labels: whether a label is to be written, too.

        Raises:
            ValueError: naming what can't be written of, and what to do.
            ModuleNotFoundError: for labels, where highdicom isn't installed.
        """
        pair = cls(SourceSeries.to_refer_to(moving), SourceSeries.to_refer_to(fixed))
        kinds = {str(part.SOPClassUID) for part in pair.moving.slices}
        if len(kinds) != 1 or not kinds <= {CT, MR}:
            raise ValueError(
                f"{moving}: --format dicom writes CT and MR images; its class is {', '.join(sorted(kinds))}, whose "
                "values depend on what a resampled series can't state; leave out --format."
            )
        if pair.moving.slices[0].get("ModalityLUTSequence"):
            raise ValueError(f"{moving}: its values come from a table (Modality LUT); leave out --format dicom.")
        with reading(moving, "no DICOM can be written of it ({}); leave out --format dicom."):
            new_object(pair.moving, min(kinds), "OT", "", 0)  # what is damaged is told before the work
            _ = pair.moving.stored
        if labels:
            import highdicom  # noqa: F401
        return pair

    def notes(self) -> list[str]:
        """What is to be told of the pair, a sentence each."""
        names = [str(side.slices[0].get("PatientID") or "") for side in (self.moving, self.fixed)]
        if names[0] == names[1]:
            return []
        return [
            "The PatientIDs of the moving and the fixed image differ; what is written as DICOM "
            "belongs to the moving image's patient and study."
        ]
