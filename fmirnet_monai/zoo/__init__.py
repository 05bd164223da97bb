"""What a pull request to MONAI's model zoo takes."""

from fmirnet_monai.zoo.folder import run_checks, write_zoo_folder

__all__ = ["run_checks", "write_zoo_folder"]
