"""FMIRNet: fast multiscale unsupervised deformable image registration, on MONAI."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fmirnet_monai")
except PackageNotFoundError:  # used from a folder that is not installed, as in a self-contained bundle
    __version__ = "unknown"
