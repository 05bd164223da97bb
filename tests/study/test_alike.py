"""All methods of a case are measured in one region: what every one of them sees, in the masks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from fmirnet_monai.baselines import IdentityRegistrar
from fmirnet_monai.data import read_image, write_image
from fmirnet_monai.registration.intensity import Percentiles, seen_intensities
from fmirnet_monai.registration.measure import image_metrics
from fmirnet_monai.spatial import DisplacementField, Grid, resample, smooth
from fmirnet_monai.study import Cases, Context, MethodSpec, compare, methods

SHIFT = 9


@dataclass(kw_only=True)
class ShiftRegistrar(IdentityRegistrar):
    """Leads nine columns of the image out of view."""

    name: str = "shift"

    def deform(self, pair: Tensor, inside: Tensor, grid: Grid, timings: dict[str, float]) -> DisplacementField:
        ddf = torch.zeros(grid.dims, *grid.shape)
        ddf[0] = SHIFT
        return DisplacementField(ddf, grid)


@pytest.fixture
def cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cases:
    """The same pair without and with masks; the moving image ends four rows early."""
    monkeypatch.setitem(methods.CLASSICAL, "demons", ShiftRegistrar)
    generator = torch.Generator().manual_seed(0)
    image = 100 * smooth(torch.rand(1, 1, 48, 40, generator=generator), 1.5)[0]
    affine = torch.diag(torch.tensor([1.5, 1.2, 1.0])).double()
    write_image(MetaTensor(image[..., :36], affine=affine), tmp_path / "moving.nii.gz")
    fixed = image + 2 * torch.randn(image.shape, generator=generator)
    write_image(MetaTensor(fixed, affine=affine), tmp_path / "fixed.nii.gz")
    mask = torch.ones(1, 48, 40, dtype=torch.uint8)
    mask[:, :12] = 0
    write_image(MetaTensor(mask, affine=affine), tmp_path / "mask.nii.gz")
    entry = {"moving": "moving.nii.gz", "fixed": "fixed.nii.gz", "subject": "a"}
    pairs = [entry, {**entry, "fixed_mask": "mask.nii.gz"}, {**entry, "moving_mask": "mask.nii.gz"}]
    (tmp_path / "datalist.json").write_text(json.dumps({"test": pairs}))
    return Cases(str(tmp_path / "datalist.json"))


def test_all_methods_of_a_case_are_measured_in_one_region(cases: Cases, tmp_path: Path) -> None:
    rows = [MethodSpec("demons", "shift"), MethodSpec("identity")]
    compare(cases, rows, tmp_path / "out", Context(intensity="percentiles"), pictures=0)
    table = pd.read_csv(tmp_path / "out" / "comparison.csv", dtype={"case": str}).set_index(["method", "case"])
    moving, fixed = read_image(tmp_path / "moving.nii.gz"), read_image(tmp_path / "fixed.nii.gz")
    mask = torch.as_tensor(read_image(tmp_path / "mask.nii.gz"))
    grid = Grid.of(fixed)
    shift = DisplacementField(torch.zeros(2, *grid.shape), grid)
    shift.ddf[0] = SHIFT
    maps = {"shift": shift, "identity": DisplacementField.identity(grid)}
    for case in ("0000", "0001", "0002"):
        views = {}
        for name, found in maps.items():
            values, inside = resample(moving, grid, found)
            if case == "0001":
                inside = inside & (mask[0] > 0)
            if case == "0002":
                inside = inside & (resample(mask, grid, found, grid=grid, mode="nearest")[0][0] > 0)
            views[name] = values, inside
        common = views["shift"][1] & views["identity"][1]
        assert common.sum() < views["identity"][1].sum()
        for name, (values, inside) in views.items():
            row = table.loc[(name, case)]
            counted = (
                (mask[0] > 0).sum() if case == "0001" else common.numel()
            )  # of the fixed image's mask, where it has one
            assert row["inside"] == pytest.approx(100 * float(common.sum() / counted), abs=1e-3)
            image = seen_intensities(Percentiles(), values, inside)
            counted = mask[0] > 0 if case == "0001" else torch.ones(grid.shape, dtype=torch.bool)
            expected = image_metrics(image, seen_intensities(Percentiles(), fixed, counted), common)
            for figure in ("ssim", "ncc", "nmi"):
                assert row[figure] == pytest.approx(expected[figure], abs=2e-3)
    assert table.loc[("identity", "0000"), "ncc"] > 0.9 > table.loc[("shift", "0000"), "ncc"]
    assert np.isfinite(table["ncc"]).all()
