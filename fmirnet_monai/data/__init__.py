"""Raw data sets to datalists of pairs: one reader per set, pairing and splits, the generated sample."""

from .chaos import find_chaos_cases, read_chaos_case
from .datalist import common_folder, load_pairs, merge_datalists
from .download import download_chaos
from .folder import find_folder_cases, read_case_table, read_folder_case
from .pairing import Pairing, slice_groups, split_pairs
from .phantom import phantom_volume, write_chaos_layout, write_phantom
from .prepare import write_pairs
from .sample import ensure_sample
from .volume import Volume, check_finite

__all__ = [
    "Pairing",
    "Volume",
    "check_finite",
    "common_folder",
    "download_chaos",
    "ensure_sample",
    "find_chaos_cases",
    "find_folder_cases",
    "load_pairs",
    "merge_datalists",
    "phantom_volume",
    "read_case_table",
    "read_chaos_case",
    "read_folder_case",
    "slice_groups",
    "split_pairs",
    "write_chaos_layout",
    "write_pairs",
    "write_phantom",
]
