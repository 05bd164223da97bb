"""What commands print of what was done."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import fmirnet_monai as fm

if TYPE_CHECKING:
    from fmirnet_monai.registration import Verdict
    from fmirnet_monai.spatial.roundtrip import Inversion


def print_values(values: Mapping[str, float]) -> None:
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:{width}s}  {value:.4f}")


def say_inversion(inversion: Inversion | None) -> None:
    """How well inverting went; None where it went exactly."""
    if inversion is None:
        return
    if inversion.missing < inversion.inside.numel():
        print(f"inverse: solved to within {inversion.residual:.4f} voxels")
    total = inversion.inside.numel()
    print(f"no inverse: {inversion.missing:,} of {total:,} voxels, which no point is mapped to")


def say_verdict(verdict: Verdict) -> None:
    print(f"verdict: {verdict.grade}")
    for reason in verdict.reasons:
        print(f"- {reason}")


def say_verdicts(counts: Mapping[str, int]) -> None:
    print(f"verdict: {', '.join(f'{counts.get(grade, 0)} {grade}' for grade in fm.registration.GRADES)}")


def note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
