"""One page for any registration: whole, honest in its verdict, and with nothing outside itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from report_pages import SHAPES, SPACING, data_of, make_registration, page_of, unpacked

from fmirnet_monai.registration import Verdict
from fmirnet_monai.report import write_report
from fmirnet_monai.report.render import FOLDER
from fmirnet_monai.spatial import Grid

VOID = {"meta", "input", "link", "img", "br"}


def is_well_formed(page: str) -> bool:
    """Whether every tag is closed in order."""
    stack: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in VOID:
                stack.append(tag)

        def handle_startendtag(self, tag: str, attrs: Any) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert stack.pop() == tag

    Parser().feed(page)
    return not stack


# --- the page ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extras", [True, False], ids=["labels and points", "images only"])
@pytest.mark.parametrize("kind", SHAPES)
def test_whole_page_with_nothing_outside_itself(tmp_path: Path, kind: str, extras: bool) -> None:
    page = page_of(make_registration(SHAPES[kind], labels=extras, points=extras), tmp_path)
    assert is_well_formed(page)
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page.partition("<script")[0])
    assert links and all(link.startswith("data:image/") for link in links)
    data = data_of(page)
    names = re.findall(r"https?://\S+", page)
    assert set(names) == {'http://www.w3.org/2000/svg",'}  # the name of a kind of element, not an address
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest", page)
    for volume in data["volumes"].values():
        assert all(uri.startswith("data:image/png;base64,") for uri in volume["pictures"])
    assert [plane["name"] for plane in data["planes"]] == {
        "2-D": ["image"],
        "one slice": ["axial"],
        "3-D": ["axial", "coronal", "sagittal"],
    }[kind]
    assert {"fixed", "moving", "warped", "determinant", "displacement"} <= set(data["volumes"])
    assert bool(data["labels"]["of"]) == bool(data["points"]) == extras
    assert ('id="outlines"' in page) == ('id="landmarks"' in page) == extras
    for text in ("moving.nii.gz", "fixed.nii.gz", "a method", "torch", "monai", "itk", "Python"):
        assert text in page
    assert "/some/" not in page and page.isascii()


def test_elements_that_the_scripts_ask_for_are_there(tmp_path: Path) -> None:
    page = page_of(make_registration(labels=True, points=True), tmp_path)
    asked = set(re.findall(r'get\("(\w+)"\)', page))
    assert asked and asked <= set(re.findall(r' id="([\w-]+)"', page))


def test_only_its_own_style_and_script_are_allowed(tmp_path: Path) -> None:
    page = page_of(make_registration(), tmp_path)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy and "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1] and "http" not in policy[1]
    assert not re.search(r'\s(style|on\w+)="', page)  # which such a policy forbids


def test_templates_are_files_of_the_package() -> None:
    files = {file.suffix for file in FOLDER.iterdir()}
    assert files == {".html", ".css", ".js"}
    setup = (Path(__file__).parents[2] / "setup.cfg").read_text()
    assert "report/templates/*" in setup


@pytest.mark.parametrize("kind", SHAPES)
def test_images_are_shown_as_they_are(tmp_path: Path, kind: str) -> None:
    registration = make_registration(SHAPES[kind])
    data = data_of(page_of(registration, tmp_path))
    shape, spacing = (*SHAPES[kind], 1)[:3], SPACING if kind != "2-D" else (*SPACING[:2], 1.0)
    assert data["shape"] == [*shape[::-1]] and data["spacing"] == [*spacing[::-1]]
    values = registration.fixed.numpy()[0].reshape(shape)
    low, high = np.percentile(values, (0.5, 99.5))
    shown = (unpacked(data["volumes"]["fixed"]).astype(float) - 16) / 224
    wanted = (values.transpose(2, 1, 0) - low) / (high - low)  # which lies along LPS, and Z runs downwards
    if kind == "3-D":
        wanted = wanted[::-1]
    inner = (wanted > 0) & (wanted < 1)
    assert inner.mean() > 0.98
    np.testing.assert_allclose(shown[inner], wanted[inner], atol=0.5 / 224 + 1e-6)


def test_large_images_are_small_on_the_page(tmp_path: Path) -> None:
    path = write_report(make_registration((2100, 700)), tmp_path / "report.html")
    data = data_of(path.read_text())
    assert data["shape"] == [1, 700, 2100]
    assert data["volumes"]["fixed"]["shape"] == [1, 700, 700] and data["volumes"]["fixed"]["factor"] == [1, 1, 3]
    assert path.stat().st_size < 4e6


def test_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)<script>&\"'.nii"
    registration = make_registration(
        name=evil, labels=True, settings={"method": evil, evil: evil}, timings={evil: 1.0}, notes=[evil]
    )
    registration.metrics[evil] = 1.0
    registration.verdict = Verdict("look", (evil,))
    page = write_report(registration, tmp_path / "report.html", names={1: evil}).read_text()
    assert page.count("<script>") == 1
    assert page.count("&lt;script&gt;alert(1)&lt;script&gt;&amp;&#34;&#39;") >= 9
    assert is_well_formed(page)
    assert data_of(page)["labels"]["names"] == [evil]


def test_image_without_a_name(tmp_path: Path) -> None:
    registration = make_registration()
    registration.fixed.meta.pop("filename_or_obj")
    assert "fixed image" in page_of(registration, tmp_path)


def rows_of(page: str) -> dict[str, list[str]]:
    """Metric to its cells."""
    table = page.partition('<table class="metrics">')[2].partition("</table>")[0]
    rows = re.findall(r'<tr><th scope="row">([^<]+)</th>(.*?)</tr>', table)
    return {name: re.findall(r"<td[^>]*>([^<]*)</td>", cells) for name, cells in rows}


def test_missing_and_nan_metrics_are_dashes(tmp_path: Path) -> None:
    metrics = {"before_ssim": 0.5, "ssim": float("nan"), "folding": 0.25, "before_hd95": 3.0, "hd95": 4.0}
    page = page_of(make_registration(metrics=metrics, inverse_residual=float("nan")), tmp_path)
    rows = rows_of(page)
    assert rows["SSIM"] == ["0.500", "&#8211;", ""]
    assert rows["Folding (%)"] == ["&#8211;", "0.250", ""]
    assert rows["HD95 (mm)"] == ["3.00", "4.00", "worse"]
    assert not re.search(r"\bnan\b", page.partition("<body>")[2].partition("<script")[0].lower())


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
    for text in ("NCC 0.500 &#8594; 0.750", "Dice 0.250 &#8594; 0.500", "9.00 &#8594; 2.00"):
        assert text in page


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


# --- the verdict -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grade", "said"), [("good", "Good"), ("look", "Look at it"), ("failed", "Failed")])
def test_verdict_and_its_reasons_come_first(tmp_path: Path, grade: str, said: str) -> None:
    registration = make_registration(notes=["A note of what guided it."])
    registration.verdict = Verdict(grade, ("The field folds.", "Dice got worse."))
    page = page_of(registration, tmp_path)
    verdict = page.partition('class="verdict')[2].partition("</section>")[0]
    assert verdict.startswith(f" {grade}") and said in verdict
    reasons = re.findall(r'<li class="reason">([^<]+)</li>', verdict)
    assert reasons == ["The field folds.", "Dice got worse."]
    assert re.findall(r'<li class="note">([^<]+)</li>', verdict) == ["Note: A note of what guided it."]
    assert page.index("Dice got worse.") < page.index('id="compare-title"') < page.index("<table")
    assert "residual" not in verdict  # a solver's tolerance is no inverse consistency


def test_a_page_without_metrics_and_inverse(tmp_path: Path) -> None:
    registration = make_registration()
    del registration.metrics, registration.inversion
    page = write_report(registration, tmp_path / "report.html", metrics=False, inverse=False).read_text()
    assert 'id="metrics-title"' not in page and "Inverse map" not in page
    assert "No verdict: nothing was measured." in page and 'class="grade' not in page
    assert not {"metrics", "inversion", "after", "verdict"} & set(vars(registration))


def test_the_solvers_residual_is_named_as_such(tmp_path: Path) -> None:
    page = page_of(make_registration(inverse_residual=3.0), tmp_path)
    assert "3.00 voxels, where its solver stopped" in page.partition('id="details-title"')[2]


# --- labels, landmarks, geometry ---------------------------------------------------------------------------------


def test_labels_are_shown_by_name_or_number(tmp_path: Path) -> None:
    registration = make_registration(labels=True)
    registration.fixed_label[0, 0, 0, 0] = 70
    page = write_report(registration, tmp_path / "report.html", names={70: "liver"}).read_text()
    data = data_of(page)
    assert data["labels"] == {"of": ["fixed", "moving", "warped"], "names": ["label 1", "liver"]}
    shown = unpacked(data["volumes"]["label fixed"])
    wanted = registration.fixed_label.numpy()[0].transpose(2, 1, 0)[::-1]
    np.testing.assert_array_equal(shown, np.where(wanted == 70, 2, wanted))
    assert 'aria-label="show liver"' in page


def test_landmarks_lie_where_the_header_puts_them(tmp_path: Path) -> None:
    voxels = np.array([[2.0, 3, 4], [20, 15, 1.5]])
    ddf = np.zeros((3, 24, 20, 12))
    ddf[0] = 2.0  # the fixed point x shows the moving one x + 2
    registration = make_registration(ddf=ddf)
    grid = Grid.of(registration.fixed)
    registration.fixed_points, registration.moving_points = grid.to_world(voxels), grid.to_world(voxels + [2, 0, 0])
    points = data_of(page_of(registration, tmp_path))["points"]
    shown = np.array([(11 - z, y, x) for x, y, z in voxels])
    np.testing.assert_allclose(points["fixed"], shown, atol=0.01)
    np.testing.assert_allclose(points["moving"], shown + [0, 0, 2], atol=0.01)
    np.testing.assert_allclose(points["warped"], shown, atol=0.02)


def test_pictures_are_measured_in_pixels_and_have_no_sides(tmp_path: Path) -> None:
    picture = page_of(make_registration((40, 30), name="fixed.png", affine=np.diag([-1.0, -1, 1])), tmp_path)
    assert data_of(picture)["distance"] == "pixels" and data_of(picture)["spacing"] == [1, 1, 1]
    assert "The size of a pixel is not known" in picture and "0.0 pixels</span>" in picture
    assert "come from the fixed" not in picture
    volume = page_of(make_registration(), tmp_path)
    assert data_of(volume)["distance"] == "mm" and "come from the fixed file&#39;s header" in volume
    plain = make_registration()
    plain.fixed = plain.fixed.as_tensor()
    assert data_of(page_of(plain, tmp_path))["distance"] == "pixels"


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1)])
def test_what_tools_write_where_they_know_nothing_gives_no_letters(tmp_path: Path, signs: tuple[int, ...]) -> None:
    affine = np.diag([*(s * sign for s, sign in zip(SPACING, signs, strict=True)), 1.0])
    page = page_of(make_registration(affine=affine), tmp_path)
    assert all(not plane["edges"] for plane in data_of(page)["planes"]) and data_of(page)["distance"] == "mm"
    affine[2, 3] = -20
    page = page_of(make_registration(affine=affine), tmp_path)
    assert all(plane["edges"] for plane in data_of(page)["planes"])


def test_metrics_of_pictures_are_in_pixels(tmp_path: Path) -> None:
    metrics = {"before_hd95": 3.0, "hd95": 2.0}
    registration = make_registration((40, 30), name="fixed.png", affine=np.diag([-1.0, -1, 1]), metrics=metrics)
    assert "HD95 (pixels)" in rows_of(page_of(registration, tmp_path))


# --- the field ---------------------------------------------------------------------------------------------------


def test_folded_voxels_are_counted_and_marked(tmp_path: Path) -> None:
    ddf = np.zeros((2, 40, 30))
    # x + ddf runs … 19, 20, 18, 16, 23, 24 …: central differences (18-19)/2, (16-20)/2 are negative, (23-18)/2 is not
    ddf[0, 21], ddf[0, 22] = -3, -6
    registration = make_registration((40, 30), ddf=ddf)
    count = int((registration.deformable.jacobian_determinant() <= 0).sum())
    assert count == 2 * 30
    page = page_of(registration, tmp_path)
    assert "folded (&#8804; 0): 60 of 1,200 voxels" in page and "folding 5.00 %" in page
    data = data_of(page)
    shown = unpacked(data["volumes"]["folded"])[0]
    assert shown.sum() == count and set(np.flatnonzero(shown.any(0))) == {20, 21}
    assert data["planes"][0]["folded"] == [60]
    assert "folded" not in data_of(page_of(make_registration((40, 30)), tmp_path))["volumes"]


def test_single_folded_voxel_of_a_large_image_is_not_lost(tmp_path: Path) -> None:
    registration = make_registration((1500, 40))
    registration.determinant = torch.ones(1500, 40)
    registration.determinant[701, 32] = -1
    assert unpacked(data_of(page_of(registration, tmp_path))["volumes"]["folded"]).sum() == 1


def test_folds_off_the_shown_slice_are_counted_too(tmp_path: Path) -> None:
    ddf = np.zeros((3, 24, 20, 12))
    ddf[0, 11, :, 2] = -5
    registration = make_registration(labels=True, ddf=ddf)
    folded = registration.deformable.jacobian_determinant().numpy() <= 0
    page = page_of(registration, tmp_path)
    assert f"{folded.sum()} of 5,760 voxels" in page
    axial, coronal, sagittal = (plane["folded"] for plane in data_of(page)["planes"])
    assert axial == folded.sum((0, 1))[::-1].tolist() and axial[9] == folded.sum()
    assert coronal == folded.sum((0, 2)).tolist() and sagittal == folded.sum((1, 2)).tolist()


def test_displacement_is_in_mm(tmp_path: Path) -> None:
    ddf = np.zeros((3, 24, 20, 12))
    ddf[2] = 2.0
    assert "<span>8.0 mm</span>" in page_of(make_registration(ddf=ddf), tmp_path)


def test_warped_grid_is_the_field_as_shown(tmp_path: Path) -> None:
    ddf = np.random.default_rng(0).uniform(-3, 3, (3, 24, 20, 12))
    data = data_of(page_of(make_registration(ddf=ddf), tmp_path))
    for axis, (component, sign) in enumerate(((2, -1), (1, 1), (0, 1))):  # Z runs downwards, Y and X along LPS
        codes = unpacked(data["volumes"][f"field {axis}"]).astype(float)
        wanted = sign * ddf[component].transpose(2, 1, 0)[::-1]
        np.testing.assert_allclose((codes - 128) / 127 * data["shift"], wanted, atol=0.51 * data["shift"] / 127)


def test_moving_image_is_taken_from_its_own_grid(tmp_path: Path) -> None:
    registration = make_registration()
    moved = Grid.of(registration.moving).affine.copy()
    moved[:3, 3] += 3 * moved[:3, 0]
    values = torch.zeros_like(registration.moving.as_tensor())
    values[0, 5:9] = 1.0  # on the fixed grid 8..11 along x
    registration.moving = MetaTensor(values, torch.from_numpy(moved))
    shown = unpacked(data_of(page_of(registration, tmp_path))["volumes"]["moving"])
    assert set(np.flatnonzero((shown > 200).all((0, 1)))) == {8, 9, 10, 11}


def test_what_the_moving_image_does_not_show_is_hatched_and_said(tmp_path: Path) -> None:
    whole = page_of(make_registration(), tmp_path)
    assert data_of(whole)["unseen"] == [] and "Hatched" not in whole and "not seen" not in whole
    registration = make_registration()
    cut = registration.moving.as_tensor()[..., :9]  # the last 3 of 12 slices
    registration.moving = MetaTensor(cut, registration.moving.affine)
    page = page_of(registration, tmp_path)
    assert "25.0 % not seen in the moving image" in page and "Hatched" in page
    data = data_of(page)
    assert data["unseen"] == ["moving", "warped"]
    for name in data["unseen"]:
        hidden = unpacked(data["volumes"][f"unseen {name}"])
        assert hidden[:3].all() and not hidden[3:].any()  # Z runs downwards
