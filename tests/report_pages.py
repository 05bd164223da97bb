"""Registrations to make pages of, and what the pages hold."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image

from fmirnet_monai.registration import Registration
from fmirnet_monai.report import write_report
from fmirnet_monai.spatial import Affine, DisplacementField, Grid
from fmirnet_monai.spatial.roundtrip import Inversion

SHAPES = {"2-D": (40, 30), "3-D": (24, 20, 12), "one slice": (24, 20, 1)}
SPACING = (1.0, 1.5, 4.0)


def make_affine(dims: int, spacing: Iterable[float] = SPACING) -> NDArray[np.float64]:
    """Of an image as ITK gives it, with directions along LPS."""
    affine = np.diag([*(s * sign for s, sign in zip(spacing, (-1, -1, 1), strict=False)), 1.0][:dims] + [1.0])
    affine[:-1, -1] = (12, 10, -20)[:dims]
    return affine


def make_registration(
    shape: tuple[int, ...] = SHAPES["3-D"],
    labels: bool = False,
    points: bool = False,
    ddf: NDArray | None = None,
    name: str = "fixed.nii.gz",
    affine: NDArray | None = None,
    values: NDArray | None = None,
    **options: Any,
) -> Registration:
    """Of noise, or of ``values`` as both images; not measured, but with the metrics that are given."""
    rng = np.random.default_rng(0)
    dims = len(shape)
    grid = Grid(shape, make_affine(dims) if affine is None else affine)

    def image(values: NDArray, name: str) -> MetaTensor:
        return MetaTensor(torch.from_numpy(values[None]), torch.from_numpy(grid.affine), {"filename_or_obj": name})

    noise = [rng.uniform(0, 1, shape).astype(np.float32) if values is None else values for _ in range(2)]
    images = [image(noise[0], "/some/moving.nii.gz"), image(noise[1], name)]
    if labels:
        for k, key in enumerate(("moving_label", "fixed_label")):
            label = np.zeros(shape, dtype=np.int32)
            label[tuple(slice(n // 4 + k * (n > 8), n // 4 + max(1, n // 3)) for n in shape)] = 1
            options[key] = image(label, "")
    if points:
        middle = grid.to_world((np.array(shape)[None] - 1) / 2)
        options |= dict.fromkeys(("moving_points", "fixed_points"), middle)
    field = DisplacementField(torch.from_numpy(np.zeros((dims, *shape)) if ddf is None else ddf).float(), grid)
    metrics, residual = options.pop("metrics", None), options.pop("inverse_residual", 0.1)
    options = {"settings": {"method": "a method"}, **options}
    registration = Registration(*images, Affine.identity(dims), field, lambda image: image, **options)
    registration.metrics = {} if metrics is None else metrics  # in place of what would be measured
    registration.inversion = Inversion(field, torch.ones(shape, dtype=torch.bool), residual)
    return registration


def page_of(registration: Registration, folder: Path) -> str:
    return write_report(registration, folder / "report.html").read_text()


def data_of(page: str) -> dict[str, Any]:
    """What its script draws from."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def unpacked(volume: dict[str, Any]) -> NDArray[np.uint8]:
    """The codes ``(Z, Y, X)`` of a packed volume, as Pillow reads its pictures."""
    count, height, width = (volume["shape"][axis] for axis in volume["order"])
    tiles = []
    for uri in volume["pictures"]:
        data = base64.b64decode(uri.partition("base64,")[2], validate=True)
        sheet = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        rows, columns = sheet.shape[0] // height, sheet.shape[1] // width
        split = sheet.reshape(rows, height, columns, width).swapaxes(1, 2).reshape(-1, height, width)
        assert columns == volume["columns"]
        tiles.append(split[: volume["tiles"]])
    stack = np.concatenate(tiles)[:count]
    return stack.transpose(np.argsort(volume["order"]))
