"""One page for any registration: right way up, whole, honest in its warnings, and with nothing outside itself."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image

from fmirnet_monai.registration import Registration
from fmirnet_monai.report.page import FOLDED, find_warnings, write_report
from fmirnet_monai.report.planes import choose_planes, resized
from fmirnet_monai.spatial import Affine, DisplacementField, Grid
from fmirnet_monai.spatial.roundtrip import Inversion

SHAPES = {"2-D": (40, 30), "3-D": (24, 20, 12), "one slice": (24, 20, 1)}
SPACING = (1.0, 1.5, 4.0)
PICTURES = 7  # PNGs a plane: three images, two differences, determinant, displacement
VOID = {"meta", "input"}


def make_affine(dims: int, spacing: Iterable[float] = SPACING) -> NDArray[np.float64]:
    """Of an image as ITK gives it, with directions along LPS."""
    return np.diag([*(s * sign for s, sign in zip(spacing, (-1, -1, 1), strict=False)), 1.0][:dims] + [1.0])


def make_registration(
    shape: tuple[int, ...] = SHAPES["3-D"],
    labels: bool = False,
    points: bool = False,
    ddf: NDArray | None = None,
    name: str = "fixed.nii.gz",
    affine: NDArray | None = None,
    **options: Any,
) -> Registration:
    rng = np.random.default_rng(0)
    dims = len(shape)
    grid = Grid(shape, make_affine(dims) if affine is None else affine)

    def image(values: NDArray, name: str) -> MetaTensor:
        return MetaTensor(torch.from_numpy(values[None]), torch.from_numpy(grid.affine), {"filename_or_obj": name})

    images = [image(rng.uniform(0, 1, shape).astype(np.float32), n) for n in ("/some/moving.nii.gz", name)]
    if labels:
        for k, key in enumerate(("moving_label", "fixed_label")):
            values = np.zeros(shape, dtype=np.int32)
            values[tuple(slice(n // 4 + k * (n > 8), n // 4 + max(1, n // 3)) for n in shape)] = 1
            options[key] = image(values, "")
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


def pictures(page: str) -> list[Image.Image]:
    found = re.findall(r'href="data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data, validate=True))) for data in found]


def is_well_formed(page: str) -> bool:
    """Whether the tags that HTML does not let stay open are closed in order."""
    optional = {"tr", "th", "td", "p"}
    stack: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in VOID | optional:
                stack.append(tag)

        def handle_startendtag(self, tag: str, attrs: Any) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            if tag not in optional:
                assert stack.pop() == tag

    Parser().feed(page)
    return not stack


# --- the page ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extras", [True, False], ids=["labels and points", "images only"])
@pytest.mark.parametrize("kind", SHAPES)
def test_whole_page_with_nothing_outside_itself(tmp_path: Path, kind: str, extras: bool) -> None:
    page = page_of(make_registration(SHAPES[kind], labels=extras, points=extras), tmp_path)
    assert is_well_formed(page)
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page)
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    ids = set(re.findall(r' id="?([\w-]+)', page))
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    assert set(re.findall(r'get\("(\w+)"\)', page)) - ids <= {"lines"}
    planes = 3 if kind == "3-D" else 1
    assert len(pictures(page)) == PICTURES * planes
    assert ("Axial" in page) == (kind != "2-D") and ("Coronal" in page) == (kind == "3-D")
    for overlay in ('<path class="outline fixed"', '<circle class="dot fixed"', "id=lines"):
        assert (overlay in page) == extras
    for text in ("moving.nii.gz", "fixed.nii.gz", "a method", "torch", "monai", "itk", "Python"):
        assert text in page
    assert "/some/" not in page and page.isascii()


@pytest.mark.parametrize("kind", SHAPES)
def test_pictures_have_the_shape_of_the_body(tmp_path: Path, kind: str) -> None:
    shape = SHAPES[kind]
    x, y, z = (n * s for n, s in zip((*shape, 1)[:3], SPACING, strict=True))
    wanted = {"2-D": [x / y], "one slice": [x / y], "3-D": [x / y, x / z, y / z]}[kind]
    page = page_of(make_registration(shape), tmp_path)
    found = pictures(page)
    for k, ratio in enumerate(wanted):
        for picture in found[k * PICTURES : (k + 1) * PICTURES]:
            assert picture.width / picture.height == pytest.approx(ratio, rel=0.06)
            assert max(picture.size) <= 500
    boxes = [w / h for w, h in (map(float, b) for b in re.findall(r'viewBox="0 0 (\S+) (\S+)"', page))]
    assert {round(box, 3) for box in boxes} == {round(ratio, 3) for ratio in wanted}


def test_large_images_stay_small(tmp_path: Path) -> None:
    path = write_report(make_registration((1100, 700)), tmp_path / "report.html")
    assert pictures(path.read_text())[0].size == (500, round(500 * 700 * 1.5 / 1100))
    assert path.stat().st_size < 6e6


def test_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)<script>&\"'.nii"
    registration = make_registration(name=evil, settings={"method": evil, evil: evil}, timings={evil: 1.0})
    registration.metrics[evil] = 1.0
    page = page_of(registration, tmp_path)
    assert page.count("<script>") == 1
    assert page.count("&lt;script&gt;alert(1)&lt;script&gt;&amp;&quot;&#x27;") >= 6
    assert is_well_formed(page)


def test_image_without_a_name(tmp_path: Path) -> None:
    registration = make_registration()
    registration.fixed.meta.pop("filename_or_obj")
    assert "fixed image" in page_of(registration, tmp_path)


def test_missing_and_nan_metrics_are_dashes(tmp_path: Path) -> None:
    metrics = {"before_ssim": 0.5, "ssim": float("nan"), "folding": 0.25, "before_hd95": 3.0, "hd95": 4.0}
    page = page_of(make_registration(metrics=metrics), tmp_path)
    assert "<th>SSIM<td>0.500<td>&#8211;</td>" in page
    assert "<th>Folding (%)<td>&#8211;<td>0.250</td>" in page
    assert '<th>HD95 (mm)<td>3.00<td>4.00</td><td class="worse">' in page
    assert not re.search(r"\bnan\b", page.partition("</style>")[2].partition("<h2>Pictures")[0].lower())


def test_headline_numbers(tmp_path: Path) -> None:
    metrics = {
        "before_ncc": 0.5,
        "ncc": 0.75,
        "before_dice": 0.25,
        "dice": 0.5,
        "before_tre_mean": 9.0,
        "tre_mean": 2.0,
    }
    page = page_of(make_registration(metrics=metrics | {"folding": 0.125}), tmp_path)
    for text in ("NCC 0.500 &#8594; 0.750", "Dice 0.250 &#8594; 0.500", "9.00 &#8594; 2.00", "residual 0.10 voxels"):
        assert text in page
    assert "no warning" in page and "Warning:" not in page and 'class="verdict good"' in page


def test_write_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "report.html"
    assert write_report(make_registration((16, 16)), path) == path
    before = path.read_text()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(make_registration((20, 20)), path)
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


# --- warnings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metrics", "residual", "folded", "said"),
    [
        ({"before_ssim": 0.5, "ssim": 0.6, "folding": 0.5, "digital_folding": 0.5}, 1.0, 0.0, []),
        ({"before_ssim": 0.6, "ssim": 0.5}, 0.0, 0.0, ["SSIM"]),
        ({"before_ncc": 0.6, "ncc": 0.5}, 0.0, 0.0, ["NCC"]),
        ({"before_dice": 0.6, "dice": 0.5}, 0.0, 0.0, ["Dice"]),
        ({"before_dice_7": 0.6, "dice_7": 0.5}, 0.0, 0.0, ["Dice, label 7"]),
        ({"before_tre_mean": 1.0, "tre_mean": 2.0}, 0.0, 0.0, ["TRE, mean"]),
        ({"before_tre_mean": 2.0, "tre_mean": 1.0}, 0.0, 0.0, []),
        ({"before_ssim": 0.60004, "ssim": 0.60001}, 0.0, 0.0, []),
        ({"before_ssim": 0.6, "ssim": float("nan")}, 0.0, 0.0, []),
        ({"ssim": 0.1, "before_hd95": 1.0, "hd95": 2.0}, 0.0, 0.0, []),
        ({"folding": 0.51}, 0.0, 0.0, ["folds"]),
        ({"folding": 0.0, "digital_folding": 0.6}, 0.0, 0.0, ["folds"]),
        ({"folding": 0.1}, 0.0, 5.0, []),
        ({}, 0.0, 0.6, ["folds"]),
        ({"folding": 0.0}, 1.01, 0.0, ["inverse"]),
        ({"folding": 0.0}, float("nan"), 0.0, ["inverse"]),
        ({"before_nmi": 2.0, "nmi": 1.0, "folding": 3.0}, 2.0, 0.0, ["NMI", "folds", "inverse"]),
    ],
)
def test_warnings_exactly_when_due(metrics: dict[str, float], residual: float, folded: float, said: list[str]) -> None:
    found = find_warnings(metrics, residual, folded)
    assert len(found) == len(said)
    assert all(word in text for word, text in zip(said, found, strict=True))


def test_warnings_are_on_the_page(tmp_path: Path) -> None:
    page = page_of(make_registration(inverse_residual=3.0, metrics={"folding": 2.0}), tmp_path)
    assert page.count("<p class=warning>") == 2 and "2 warnings" in page and 'class="verdict bad"' in page


# --- the field ---------------------------------------------------------------------------------------------------


def test_folded_voxels_are_counted_and_marked(tmp_path: Path) -> None:
    ddf = np.zeros((2, 40, 30))
    # x + ddf runs … 19, 20, 18, 16, 23, 24 …: central differences (18-19)/2, (16-20)/2 are negative, (23-18)/2 is not
    ddf[0, 21], ddf[0, 22] = -3, -6
    registration = make_registration((40, 30), ddf=ddf)
    count = int((registration.deformable.jacobian_determinant() <= 0).sum())
    assert count == 2 * 30
    page = page_of(registration, tmp_path)
    assert "folded (&#8804; 0): 60 of 1,200 voxels, 60 in this slice" in page
    assert "folds in up to 5.00 %" in page
    shown = (np.asarray(pictures(page)[5].convert("RGB")) == FOLDED).all(-1)
    assert shown.mean() == pytest.approx(count / 1200, rel=0.02)
    assert (np.flatnonzero(shown.any(0)).mean() + 0.5) / shown.shape[1] == pytest.approx(21 / 40, abs=0.01)
    assert not (np.asarray(pictures(page_of(make_registration((40, 30)), tmp_path))[5]) == FOLDED).all(-1).any()


def test_single_folded_voxel_of_a_large_image_is_not_lost() -> None:
    plane = choose_planes(Grid((1500, 1500), np.eye(3)), (0, 0))[0]
    mask = np.zeros((1500, 1500))
    mask[701, 302] = 1
    assert (resized(mask, plane, smooth=False) > 0).any()


def test_folds_off_the_shown_slice_are_counted_too(tmp_path: Path) -> None:
    ddf = np.zeros((3, 24, 20, 12))
    ddf[0, 11, :, 2] = -5
    registration = make_registration(labels=True, ddf=ddf)
    folded = registration.deformable.jacobian_determinant().numpy() <= 0
    page = page_of(registration, tmp_path)
    assert f"{folded.sum()} of 5,760 voxels, 0 in this slice" in page


def test_displacement_is_in_mm(tmp_path: Path) -> None:
    ddf = np.zeros((3, 24, 20, 12))
    ddf[2] = 2.0
    assert "<span>8.0 mm</span>" in page_of(make_registration(ddf=ddf), tmp_path)


def test_warped_grid_follows_the_field_as_shown(tmp_path: Path) -> None:
    def first_line(affine: NDArray, ddf: NDArray) -> NDArray:
        page = page_of(make_registration((40, 30), affine=affine, ddf=ddf), tmp_path)
        line = re.search(r'class="grid" d="M([^M]+)M', page)
        assert line
        return np.array([point.split(",") for point in line[1].split()], dtype=float)

    ddf = np.zeros((2, 40, 30))
    ddf[0] = 3.0
    for affine, sign in ((np.diag([-2.0, -1, 1]), 1), (np.diag([2.0, -1, 1]), -1)):
        moved = first_line(affine, ddf) - first_line(affine, np.zeros_like(ddf))
        np.testing.assert_allclose(moved, np.broadcast_to([sign * 6.0, 0], moved.shape), atol=0.11)


def test_moving_image_is_taken_from_its_own_grid_to_the_plane(tmp_path: Path) -> None:
    registration = make_registration()
    moved = Grid.of(registration.moving).affine.copy()
    moved[:3, 3] += 3 * moved[:3, 0]
    values = torch.zeros_like(registration.moving.as_tensor())
    values[0, 5:9] = 1.0  # on the fixed grid 8..11 along x
    registration.moving = MetaTensor(values, torch.from_numpy(moved))
    axial = np.asarray(pictures(page_of(registration, tmp_path))[1])
    columns = np.flatnonzero((axial > 200).all(0)) / axial.shape[1] * 24
    assert columns.min() == pytest.approx(8, abs=0.6) and columns.max() == pytest.approx(11.5, abs=0.8)


def test_what_the_moving_image_does_not_show_is_hatched_and_said(tmp_path: Path) -> None:
    whole = page_of(make_registration(), tmp_path)
    assert 'class="unseen' not in whole and "Hatched" not in whole and "not seen" not in whole
    registration = make_registration()
    cut = registration.moving.as_tensor()[..., :9]  # the last 3 of 12 slices
    registration.moving = MetaTensor(cut, registration.moving.affine)
    page = page_of(registration, tmp_path)
    assert "25.0 % not seen in the moving image" in page and "Hatched" in page
    hatched = re.findall(r'class="unseen (\w+)" d="M([^"]+)Z"', page)
    assert {name for name, _ in hatched} == {"moving", "warped"}
    heights = [float(point.split(",")[1]) for _, path in hatched for point in path.replace("ZM", " ").split()]
    assert min(heights) == pytest.approx(0, abs=0.3) and max(heights) == pytest.approx(3 * SPACING[2], abs=2.1)


def test_a_page_without_metrics_and_inverse(tmp_path: Path) -> None:
    registration = make_registration()
    del registration.metrics, registration.inversion
    page = write_report(registration, tmp_path / "report.html", metrics=False, inverse=False).read_text()
    assert "<h2>Metrics" not in page and "inverse residual" not in page
    assert not {"metrics", "inversion", "after"} & set(vars(registration))
