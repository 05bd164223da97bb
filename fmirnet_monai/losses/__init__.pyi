from .field import EndpointError
from .joint import JointLoss
from .labels import LabelOverlapLoss, StructureLoss
from .lncc import LocalNCCLoss, local_ncc_map
from .masked import MSELoss, compare, masked_mean
from .mind import MINDSSCLoss
from .mutual_information import MutualInformationLoss
from .registration import RegistrationLoss
from .regularization import FoldingLoss, SmoothnessLoss
from .similarities import MULTIMODAL, SIMILARITIES
from .ssim import SSIMLoss, ssim_map, window_centres
from .supervised import SupervisedLoss

__all__ = [
    "MULTIMODAL",
    "SIMILARITIES",
    "EndpointError",
    "FoldingLoss",
    "JointLoss",
    "LabelOverlapLoss",
    "LocalNCCLoss",
    "MINDSSCLoss",
    "MSELoss",
    "MutualInformationLoss",
    "RegistrationLoss",
    "SSIMLoss",
    "SmoothnessLoss",
    "StructureLoss",
    "SupervisedLoss",
    "compare",
    "local_ncc_map",
    "masked_mean",
    "ssim_map",
    "window_centres",
]
