"""Let torchvision's package for GPUs be imported beside a CPU build of PyTorch; MONAI Label imports it for pictures.

Its compiled operators do not load there, and Python code that refers to two of them fails on import. With their schemas
defined it does not, and nobody calls them.
"""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    OPERATORS = torch.library.Library("torchvision", "DEF")  # lives as long as the process
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
