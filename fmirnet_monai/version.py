"""The installed version."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fmirnet_monai")
except PackageNotFoundError:  # used from a folder that is not installed, as in a self-contained bundle
    __version__ = "unknown"
