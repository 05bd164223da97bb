"""Tasks of the app. What torchvision needs comes first: MONAI Label imports it."""

from . import torchvision_ops as torchvision_ops
