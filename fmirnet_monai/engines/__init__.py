"""What MONAI's Ignite engines need to train and evaluate registration and joint networks."""

from fmirnet_monai.utils import on_device

from .batch import (
    loss_terms,
    prepare_joint_batch,
    prepare_pair_batch,
    prepare_structure_batch,
    prepare_supervised_batch,
)
from .checkpoint import TrainingCheckpoint, state_digest
from .handlers import (
    ClipGradients,
    EarlyStopping,
    EpochSeed,
    GrowLevels,
    ProgressBar,
    handlers_of_this_process,
)
from .inferer import MixedPrecisionInferer
from .metrics import (
    evaluation_metrics,
    folding_metrics,
    key_metric,
    segmentation_key_metric,
    segmentation_metrics,
    validation_metrics,
)

__all__ = [
    "ClipGradients",
    "EarlyStopping",
    "EpochSeed",
    "GrowLevels",
    "MixedPrecisionInferer",
    "ProgressBar",
    "TrainingCheckpoint",
    "evaluation_metrics",
    "folding_metrics",
    "handlers_of_this_process",
    "key_metric",
    "loss_terms",
    "on_device",
    "prepare_joint_batch",
    "prepare_pair_batch",
    "prepare_structure_batch",
    "prepare_supervised_batch",
    "segmentation_key_metric",
    "segmentation_metrics",
    "state_digest",
    "validation_metrics",
]
