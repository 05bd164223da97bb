from .batch import write_batch
from .figures import draw_comparison, draw_pairs, draw_segmentations
from .handlers import RegistrationReport, SegmentationReport
from .page import write_report
from .table import before_and_after, markdown_table, summarise, write_tables

__all__ = [
    "RegistrationReport",
    "SegmentationReport",
    "before_and_after",
    "draw_comparison",
    "draw_pairs",
    "draw_segmentations",
    "markdown_table",
    "summarise",
    "write_batch",
    "write_report",
    "write_tables",
]
