"""Commands on bundles as a whole."""

from __future__ import annotations

import fmirnet_monai as fm
from fmirnet_monai.output import require_folder

from .say import note


def publish(*, weights: str, bundle_dir: str, variant: str | None = None) -> None:
    """Put the weights of a training run into a bundle's models folder, after checking that its network loads them.

    Args:
        weights: model.pt of a run.
        bundle_dir: the bundle, a folder with configs/inference.json.
        variant: config in its configs/variants that the run was made by.
    """
    print(fm.bundle.publish_weights(weights, bundle_dir, variant))


def bundle_copy(bundle: str, *, output_dir: str) -> None:
    """Copy a bundle to a folder of its name, where it can be changed and trained.

    Args:
        bundle: name or folder of the bundle.
        output_dir: folder that gets the copy.
    """
    print(fm.bundle.copy_bundle(bundle, output_dir))


def bundle_export(bundle: str, *, output_dir: str, trust_bundle: bool = False) -> None:
    """Write a bundle as a zip that needs MONAI but not this package: code, weights, TorchScript, ONNX, checksums.

    The exported networks are compared with the bundle's own before anything is written.

    Args:
        bundle: name or folder of the bundle.
        output_dir: folder to write NAME_vVERSION.zip into.
        trust_bundle: as in register.
    """
    require_folder(output_dir)
    print(fm.export.export_bundle(bundle, output_dir, trust_bundle))


def bundle_zoo(bundle: str, *, output_dir: str, trust_bundle: bool = False) -> None:
    """Write what a pull request to MONAI's model zoo takes, after the zoo's checks passed without this package.

    Args:
        bundle: name or folder of the bundle.
        output_dir: folder to write the folder NAME into: models/NAME and its unit test as they go into the zoo's
            repository, PULL_REQUEST.md and CHECKS.md.
        trust_bundle: the checks run what the bundle's configs say; true is needed for any but the package's own.
    """
    require_folder(output_dir)
    note("the zoo's checks follow; its unit test trains an epoch, which takes a minute or more.")
    print(fm.zoo.write_zoo_folder(bundle, output_dir, trust_bundle))
