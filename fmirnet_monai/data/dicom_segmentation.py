"""A label map as DICOM SEG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmirnet_monai.version import __version__

from .dicom_pair import DicomPair
from .dicom_source import SOFTWARE, series_number


def write_dicom_label(pair: DicomPair, label: Tensor, series: Sequence[Any], file: Path) -> None:
    """Write a label map as DICOM SEG that refers to the registered series, a segment for each label.

    Args:
        pair: that the series is of.
        label: ``(1, *spatial)`` on the series' grid.
        series: as write_dicom_series gives it.
        file: to write.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    numbers = [int(n) for n in torch.as_tensor(label).unique() if n != 0]
    maker = hd.AlgorithmIdentificationSequence(SOFTWARE, codes.cid7162.DeformableModels, __version__)
    segments = [
        hd.seg.SegmentDescription(
            segment_number=index + 1,
            segment_label=f"Label {number}",
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="AUTOMATIC",
            algorithm_identification=maker,
            tracking_uid=hd.UID(),
            tracking_id=f"Label {number}",
        )
        for index, number in enumerate(numbers)
    ]
    volume = np.transpose(torch.as_tensor(label).cpu().numpy()[0], (2, 1, 0))
    order = np.searchsorted([0, *numbers], volume).astype(np.uint16 if len(numbers) > 255 else np.uint8)
    result = hd.seg.Segmentation(
        source_images=series,
        pixel_array=order,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=series_number(pair.moving, 2),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name=SOFTWARE,
        software_versions=__version__,
        device_serial_number="none",
        series_description="Labels, registered",
    )
    result.save_as(file, enforce_file_format=True)
