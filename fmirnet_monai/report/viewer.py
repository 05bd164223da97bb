"""What the pictures of a page are drawn from: volumes, labels, landmarks and the field, as shown and small enough."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fmirnet_monai.data.orientation import has_orientation, has_spacing
from fmirnet_monai.spatial import Grid, resample
from fmirnet_monai.spatial.geometry import flip

from .display import Display, choose_voxel
from .pack import LOSSLESS, Scale, choose_quality, coarser, factors, pack, weight

if TYPE_CHECKING:  # the registration package reads bundles and configurations, a page only its result
    from fmirnet_monai.registration.result import Registration

ROOM = 3_700_000  # bytes of all volumes
LABEL_ROOM = 1_200_000  # of those, of label maps
LONGEST = {2: 1024, 3: 256}  # pixels of an image's side, of a slice and of a volume
LONGEST_MAP = {2: 512, 3: 128}  # of Jacobian determinant, displacement and uncertainty
LONGEST_FIELD = {2: 128, 3: 64}  # nodes along a side of the field that the warped grid is drawn from
MAP_QUALITY = 80
SLAB = 3.0  # landmarks so many of the finest voxel's sides from a slice are shown on it
LABELS = 255  # that a page tells apart, the largest ones
THUMBNAIL = 96  # pixels of its longest side


class Viewer:
    """A registration as its page shows it.

    Attributes:
        display: which way up.
        planes: what can be scrolled through.
        mm: whether distances are known in mm, not in pixels alone.
    """

    def __init__(self, r: Registration, names: Mapping[int, str] | None = None) -> None:
        self.r = r
        self.names = names or {}
        grid = Grid.of(r.fixed)
        self.mm, oriented = place_known(r.fixed)
        self.display = Display(grid, oriented and grid.dims == 3)
        self.determinant = r.determinant.cpu().numpy()
        self.distance = r.field.length().cpu().numpy()
        shift = self.distance if r.field is r.deformable else r.deformable.length().cpu().numpy()
        label = r.fixed_label if r.fixed_label is not None else r.warped_label
        self.planes = self.display.planes(choose_voxel(None if label is None else array(label), shift, array(r.fixed)))
        self.dims = 3 if min(self.display.shape) > 1 else 2

    @cached_property
    def images(self) -> dict[str, NDArray]:
        """Intensities ``(Z, Y, X)`` of the fixed image and, on its grid, of the moving one before and after."""
        found = {"fixed": self.r.fixed, "moving": self.r.unregistered[0], "warped": self.r.warped}
        by = factors(self.display.shape, LONGEST[self.dims])
        return {name: coarser(self.display.take(array(image)), by) for name, image in found.items()}

    @cached_property
    def scales(self) -> dict[str, Scale]:
        """Of each image; before and after have that of the moving image."""
        fixed, moving = Scale(array(self.r.fixed)), Scale(array(self.r.moving))
        return {"fixed": fixed, "moving": moving, "warped": moving}

    @cached_property
    def unseen(self) -> dict[str, NDArray[np.bool_]]:
        """Where the moving image isn't seen, ``(Z, Y, X)``, before and after, of those where there is such a place."""
        known = {"moving": self.r.unregistered[1], "warped": self.r.inside}
        found = {name: ~self.display.take(where.cpu().numpy()) for name, where in known.items()}
        return {name: where for name, where in found.items() if where.any()}

    @cached_property
    def labels(self) -> dict[str, NDArray]:
        """Label maps ``(Z, Y, X)`` of those images that have one."""
        r = self.r
        found: dict[str, Tensor | None] = {"fixed": r.fixed_label, "warped": r.warped_label}
        if r.moving_label is not None:
            found["moving"] = resample(r.moving_label, Grid.of(r.fixed), mode="nearest")[0]
        return {name: self.display.take(array(label)) for name, label in found.items() if label is not None}

    @cached_property
    def label_ids(self) -> list[int]:
        """Labels that are shown."""
        sizes: Counter[int] = Counter()
        for label in self.labels.values():
            sizes.update(dict(zip(*(found.tolist() for found in np.unique(label, return_counts=True)), strict=True)))
        del sizes[0]
        return sorted(number for number, _ in sizes.most_common(LABELS))

    @property
    def label_names(self) -> list[str]:
        """Of :py:attr:`label_ids`."""
        return [self.names.get(i, f"label {i}") for i in self.label_ids] if self.labels else []

    @property
    def points(self) -> dict[str, NDArray[np.float64]]:
        """Landmarks as displayed voxels ``(N, 3)``: where the headers place the moving ones, and registered."""
        r = self.r
        found = {"fixed": r.fixed_points, "moving": r.moving_points, "warped": r.warped_points}
        return {name: self.display.place(points) for name, points in found.items() if points is not None}

    @cached_property
    def gap(self) -> float:
        """Difference of images in [0, 1] at the ends of its scale: the 99.5th percentile."""
        some = {
            name: self.scales[name].unit(image.ravel()[:: max(1, image.size // 500_000)])
            for name, image in self.images.items()
        }
        apart = np.abs(np.concatenate([some["fixed"] - some[name] for name in ("moving", "warped")]))
        return max(0.01, float(np.percentile(apart, 99.5)))

    @cached_property
    def volume_change(self) -> float:
        """Factor at the ends of the scale of the Jacobian determinant."""
        logs = np.abs(np.log2(np.maximum(self.determinant, 1e-6)))
        return 2 ** float(np.clip(np.percentile(logs, 99.5), 0.1, 2))

    @cached_property
    def lengths(self) -> dict[str, NDArray]:
        """Lengths in mm, ``(*spatial)``, each shown as a map: the displacement, and the uncertainty where asked for."""
        found = {"displacement": self.distance}
        if self.r.checks.uncertainty is not None:
            found["uncertainty"] = self.r.checks.uncertainty.cpu().numpy()
        return found

    def farthest(self, name: str) -> float:
        """End of the scale of a map of lengths."""
        return max(float(self.lengths[name].max()), 1e-3)

    @property
    def folded(self) -> int:
        """Folded voxels."""
        return int((self.determinant <= 0).sum())

    @property
    def lossy(self) -> bool:
        """Whether the images are compressed with loss."""
        return sum(image.size for image in self.images.values()) > LOSSLESS

    def data(self) -> dict[str, Any]:
        """All of it, for ``viewer.js``."""
        d = self.display
        volumes = self._maps() | self._label_maps()
        volumes |= self._image_volumes(ROOM - sum(weight(volume) for volume in volumes.values()))
        return {
            "shape": d.shape,
            "spacing": d.spacing if self.mm else [1.0, 1.0, 1.0],
            "distance": "mm" if self.mm else "pixels",
            "planes": [dataclasses.asdict(plane) | {"folded": self._folded_in(plane.across)} for plane in self.planes],
            "volumes": volumes,
            "scales": {name: scale.values for name, scale in self.scales.items()},
            "gap": self.gap,
            "unseen": sorted(self.unseen),
            "labels": {"of": sorted(self.labels), "names": self.label_names},
            "points": {name: np.round(points, 2).tolist() for name, points in self.points.items()},
            "near": SLAB * min(s for s, n in zip(d.spacing, d.shape, strict=True) if n > 1),
            "shift": self._shift,
        }

    def thumbnail(self) -> str:
        """Data URI of the first plane: fixed in green and warped in magenta, grey where both agree."""
        plane = self.planes[0]
        at = min(plane.start // self._factor[plane.across], self.images["fixed"].shape[plane.across] - 1)
        fixed, warped = (
            self.scales[name].unit(self.images[name].take(at, axis=plane.across)) for name in ("fixed", "warped")
        )
        picture = Image.fromarray((255 * np.stack([warped, fixed, warped], axis=-1)).round().astype(np.uint8))
        sides = [self.display.shape[axis] * self.display.spacing[axis] for axis in (plane.columns, plane.rows)]
        width, height = (max(1, round(THUMBNAIL * side / max(sides))) for side in sides)
        buffer = io.BytesIO()
        picture.resize(
            (width, height), Image.Resampling.BOX if width < picture.width else Image.Resampling.BILINEAR
        ).save(buffer, format="WEBP", quality=60)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

    @property
    def _factor(self) -> tuple[int, ...]:
        return factors(self.display.shape, LONGEST[self.dims])

    def _image_volumes(self, room: int) -> dict[str, Any]:
        codes = {name: self.scales[name].encode(image) for name, image in self.images.items()}
        quality = choose_quality([*codes.values()], room)
        return {name: pack(volume, self._factor, quality) for name, volume in codes.items()}

    def _label_maps(self) -> dict[str, Any]:
        by = self._factor
        found = {
            f"unseen {name}": pack(coarser(where, by, "first").astype(np.uint8), by)
            for name, where in self.unseen.items()
        }
        if not self.labels:
            return found
        ids = np.array(self.label_ids)
        while True:
            packed = {}
            for name, label in self.labels.items():
                some = coarser(label, by, "first")
                code = np.searchsorted(ids, some).clip(max=len(ids) - 1)
                packed[f"label {name}"] = pack(np.where(ids[code] == some, code + 1, 0).astype(np.uint8), by)
            if sum(map(weight, packed.values())) <= LABEL_ROOM:
                return found | packed
            by = tuple(min(2 * f, n) for f, n in zip(by, self.display.shape, strict=True))

    def _maps(self) -> dict[str, Any]:
        d, by = self.display, factors(self.display.shape, LONGEST_MAP[self.dims])
        limit = math.log2(self.volume_change)
        logs = np.log2(np.maximum(coarser(d.take(self.determinant), by), 1e-6))
        maps = {"determinant": 128 + 127 * np.clip(logs / limit, -1, 1)}
        maps |= {name: 255 * coarser(d.take(mm), by) / self.farthest(name) for name, mm in self.lengths.items()}
        quality = None if logs.size <= 2**18 else MAP_QUALITY
        found = {name: pack(np.rint(values).astype(np.uint8), by, quality) for name, values in maps.items()}
        if self.folded:
            folds = coarser(d.take(self.determinant <= 0), self._factor, "max").astype(np.uint8)
            found["folded"] = pack(folds, self._factor)
        step = factors(d.shape, LONGEST_FIELD[self.dims])
        for axis, part in enumerate(d.vectors(self.r.deformable.ddf.cpu().numpy(), step)):
            if d.shape[axis] > 1:
                code = 128 + 127 * part / self._shift
                found[f"field {axis}"] = pack(np.rint(code).astype(np.uint8), step)
        return found

    @cached_property
    def _shift(self) -> float:
        """Voxels at the ends of the field's codes."""
        return max(float(self.r.deformable.ddf.abs().max()), 1e-3)

    def _folded_in(self, across: int) -> list[int]:
        where = self.display.take(self.determinant <= 0)
        return where.sum(axis=tuple(axis for axis in range(3) if axis != across)).tolist()


def place_known(image: Tensor) -> tuple[bool, bool]:
    """Whether an image's spacing is known in mm, and whether it is known where the patient's sides are.

    A picture knows neither, nor does a tensor without a place; a file says so itself. Axes along LPS or RAS from an
    origin of exactly 0 are what tools write where they know nothing, so that they don't tell.
    """
    if not hasattr(image, "affine"):
        return False, False
    affine = Grid.of(image).affine
    turn = affine[:-1, :-1] / np.linalg.norm(affine[:-1, :-1], axis=0)
    usual = not affine[:-1, -1].any() and any(
        np.array_equal(turn, axes) for axes in (np.eye(len(turn)), flip(len(turn)))
    )
    file = getattr(image, "meta", {}).get("filename_or_obj")
    if not file:
        return True, not usual
    return has_spacing(str(file)), not usual and image.dim() == 4 and has_orientation(str(file))


def array(image: Tensor) -> NDArray:
    """``(1, *spatial)`` to ``(*spatial)``."""
    return np.asarray(image.detach().cpu()[0])
