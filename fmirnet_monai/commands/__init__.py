"""The commands of ``fmirnet``; each is a thin layer over a function of the package.

What they work with is loaded when one runs: reading the words of a command line, or its help, needs nothing of it.
"""

from __future__ import annotations

from typing import Any

import fmirnet_monai as fm

from .bundles import bundle_copy, bundle_export, bundle_zoo, publish
from .compare import compare, compare_tune, profile, table
from .prepare import (
    download_chaos,
    phantom,
    phantom_echonet,
    prepare_camus,
    prepare_chaos,
    prepare_echonet,
    prepare_folder,
    prepare_merge,
    prepare_pairs,
    prepare_sliver,
)
from .register import demo, propagate, register, register_series
from .transforms import compose, invert, jacobian, metrics, warp, warp_points

GONE = {  # options, and what to know instead
    "skip_existing": "is what --datalist does by now: pairs of the same files and settings are not done again; "
    "leave it out, or give --overwrite true to do all again."
}
OWN = ""  # in a group of commands: what the group's name alone does


def completion(shell: str) -> None:
    """Print the completion of commands and options for a shell: source <(fmirnet completion bash).

    Args:
        shell: bash, zsh, fish, tcsh or powershell.
    """
    print(fm.completion.completion_script(COMMANDS, shell))


COMMANDS: dict[str, Any] = {
    "register": register,
    "register_series": register_series,
    "propagate": propagate,
    "warp": warp,
    "warp_points": warp_points,
    "compose": compose,
    "invert": invert,
    "jacobian": jacobian,
    "metrics": metrics,
    "compare": {OWN: compare, "tune": compare_tune},
    "table": table,
    "profile": profile,
    "prepare": {
        "chaos": prepare_chaos,
        "echonet": prepare_echonet,
        "camus": prepare_camus,
        "sliver": prepare_sliver,
        "folder": prepare_folder,
        "pairs": prepare_pairs,
        "merge": prepare_merge,
    },
    "download": {"chaos": download_chaos},
    "phantom": {OWN: phantom, "echonet": phantom_echonet},
    "bundle": {"copy": bundle_copy, "export": bundle_export, "zoo": bundle_zoo},
    "publish": publish,
    "demo": demo,
    "completion": completion,
}
