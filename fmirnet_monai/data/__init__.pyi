from .batches import DeviceBatches, pair_sampler, sides
from .chaos import chaos_subject, find_chaos_cases, read_chaos_case
from .datalist import (
    PATH_KEYS,
    VOLUME_KEYS,
    check_classes,
    check_sections,
    common_folder,
    count_classes,
    has_labels,
    load_labelled,
    load_pairs,
    load_slices,
    load_volumes,
    merge_datalists,
    saving_root,
)
from .dicom_pair import DicomPair
from .dicom_registration import write_dicom_transform
from .dicom_segmentation import write_dicom_label
from .dicom_series import write_dicom_series
from .download import download_chaos
from .echo import find_camus_cases, find_echonet_cases, read_clip, read_echo_case, write_echo_pairs
from .echo_phantom import phantom_clip, write_clip, write_echo_phantom
from .file_type import nifti_code, stored_as
from .folder import find_folder_cases, read_case_table, read_folder_case
from .images import check_label_inside, read_image, read_label, write_image
from .named import match_pairs, read_pair_table, write_named_pairs
from .pair import LoadedPair, read_pair
from .pairing import Pairing, require_sections, slice_groups, split_pairs
from .phantom import phantom_volume, write_chaos_layout, write_phantom
from .points import Points, check_points_inside, paired, read_points, write_points
from .prepare import Sharing, write_pairs
from .sample import ensure_sample
from .series import Series, TimeAxis, read_series, write_series
from .sliver import find_sliver_cases, write_sliver_layout
from .stored import SAME, Stored, check_dtype
from .subjects import read_sections
from .volume import NoStructure, Volume, check_finite

__all__ = [
    "PATH_KEYS",
    "SAME",
    "VOLUME_KEYS",
    "DeviceBatches",
    "DicomPair",
    "LoadedPair",
    "NoStructure",
    "Pairing",
    "Points",
    "Series",
    "Sharing",
    "Stored",
    "TimeAxis",
    "Volume",
    "chaos_subject",
    "check_classes",
    "check_dtype",
    "check_finite",
    "check_label_inside",
    "check_points_inside",
    "check_sections",
    "common_folder",
    "count_classes",
    "download_chaos",
    "ensure_sample",
    "find_camus_cases",
    "find_chaos_cases",
    "find_echonet_cases",
    "find_folder_cases",
    "find_sliver_cases",
    "has_labels",
    "load_labelled",
    "load_pairs",
    "load_slices",
    "load_volumes",
    "match_pairs",
    "merge_datalists",
    "nifti_code",
    "pair_sampler",
    "paired",
    "phantom_clip",
    "phantom_volume",
    "read_case_table",
    "read_chaos_case",
    "read_clip",
    "read_echo_case",
    "read_folder_case",
    "read_image",
    "read_label",
    "read_pair",
    "read_pair_table",
    "read_points",
    "read_sections",
    "read_series",
    "require_sections",
    "saving_root",
    "sides",
    "slice_groups",
    "split_pairs",
    "stored_as",
    "write_chaos_layout",
    "write_clip",
    "write_dicom_label",
    "write_dicom_series",
    "write_dicom_transform",
    "write_echo_pairs",
    "write_echo_phantom",
    "write_image",
    "write_named_pairs",
    "write_pairs",
    "write_phantom",
    "write_points",
    "write_series",
    "write_sliver_layout",
]
