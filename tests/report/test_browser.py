"""The pages in a browser: scrolled, windowed, sorted, and without a word on the console or to a network."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser, complaints, open_page, requests
from report_pages import make_affine, make_registration

from fmirnet_monai.registration import Verdict
from fmirnet_monai.report import write_batch, write_report
from fmirnet_monai.spatial import Grid

SHAPE = (24, 20, 12)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture
def volume(driver: Any, tmp_path: Path) -> Any:
    """The browser at the page of a volume whose k-th slice along z is of intensity k, with two labels and landmarks."""
    values = np.broadcast_to(np.arange(12, dtype=np.float32), SHAPE).copy()
    registration = make_registration(values=values, labels=True)
    registration.fixed_label[0, 12:18, 12:16, 2:10] = 7
    points = np.array([[10.0, 10, 6], [3, 3, 1]])
    grid = Grid.of(registration.fixed)
    registration.fixed_points, registration.moving_points = grid.to_world(points), grid.to_world(points + [3, 0, 0])
    registration.moving = registration.moving[..., :9]  # nothing is seen of the last three slices
    open_page(driver, write_report(registration, tmp_path / "report.html", names={7: "liver"}))
    yield driver
    assert complaints(driver) == [] and requests(driver) == []


def find(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def find_all(driver: Any, selector: str) -> list[Any]:
    return driver.find_elements("css selector", selector)


def press(element: Any, *keys: str) -> None:
    element.send_keys(*keys)


def set_range(driver: Any, selector: str, value: int) -> None:
    """As dragging does; keys move sliders in steps."""
    driver.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        find(driver, selector),
        value,
    )


def middle_grey(driver: Any, view: str = "0", kind: str = "blend", source: str = "") -> int:
    """Of a picture's canvas."""
    picture = f".picture[data-plane='{view}'][data-kind='{kind}'][data-source='{source}'] canvas"
    grey: int = driver.execute_script(
        "const from = arguments[0], context = new OffscreenCanvas(1, 1).getContext('2d');"
        "context.drawImage(from, -from.width / 2, -from.height / 2); return context.getImageData(0, 0, 1, 1).data[0]",
        find(driver, picture),
    )
    return grey


def title(driver: Any, view: str = "0") -> str:
    return str(find(driver, f"figcaption[data-title='{view}']").text)


def test_slices_are_changed_by_keys_slider_and_wheel(volume: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.common.keys import Keys

    view, slider = find(volume, ".view[data-plane='0']"), find(volume, "#slice0")
    press(view, Keys.HOME)
    assert title(volume).startswith("Axial, slice 1 of 12")
    grey = middle_grey(volume)
    press(view, Keys.ARROW_UP, Keys.ARROW_UP)
    assert title(volume).startswith("Axial, slice 3 of 12") and middle_grey(volume) > grey
    assert find(volume, "#status").get_attribute("textContent") == title(volume)
    assert slider.get_attribute("value") == "3" and slider.get_attribute("aria-valuetext") == title(volume)
    press(slider, Keys.ARROW_RIGHT)
    assert title(volume).startswith("Axial, slice 4 of 12")
    assert find(volume, "#panel0").get_attribute("value") == "4"
    press(view, Keys.PAGE_UP)
    assert title(volume).startswith("Axial, slice 12 of 12")
    origin = ScrollOrigin.from_element(view)
    ActionChains(volume).scroll_from_origin(origin, 0, 120).perform()
    number = int(title(volume).split()[2])
    assert number < 12
    ActionChains(volume).scroll_from_origin(origin, 0, -120).perform()
    assert int(title(volume).split()[2]) > number


def test_the_place_said_is_that_of_the_header(volume: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    press(find(volume, ".view[data-plane='0']"), Keys.HOME)
    assert title(volume).endswith("I 20 mm")
    press(find(volume, ".view[data-plane='0']"), Keys.END)
    assert title(volume).endswith("S 24 mm")  # 11 slices of 4 mm
    press(find(volume, ".view[data-plane='1']"), Keys.END, Keys.ARROW_DOWN)
    assert title(volume, "1") == "Coronal, slice 19 of 20, P 17 mm"  # the 18th step of 1.5 mm


def test_window_and_level_change_the_greys(volume: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    press(find(volume, ".view[data-plane='0']"), Keys.HOME, *[Keys.ARROW_UP] * 6)
    usual, said = middle_grey(volume, kind="grey", source="fixed"), find(volume, "#range").text
    assert 0 < usual < 255
    set_range(volume, "#level", 20)
    bright = middle_grey(volume, kind="grey", source="fixed")
    assert bright > usual and find(volume, "#range").text != said
    set_range(volume, "#window", 5)
    assert middle_grey(volume, kind="grey", source="fixed") == 255
    find(volume, "#reset").click()
    assert middle_grey(volume, kind="grey", source="fixed") == usual and find(volume, "#range").text == said
    volume.execute_script("arguments[0].value = 'fixed'", find(volume, "#windowed"))
    set_range(volume, "#level", 20)
    assert middle_grey(volume, kind="grey", source="fixed") == bright
    assert (
        middle_grey(volume, kind="grey", source="warped") == middle_grey(volume, kind="grey", source="moving") < bright
    )
    assert find(volume, "#level").get_attribute("value") == "20"


def test_outlines_are_told_apart_without_colour(volume: Any) -> None:
    styles = {
        name: volume.execute_script(
            "const s = getComputedStyle(arguments[0]); return [s.strokeDasharray, s.strokeWidth]",
            find(volume, f".outline.{name}"),
        )
        for name in ("fixed", "warped", "moving")
    }
    assert len({dashes for dashes, _ in styles.values()}) == 3 and styles["fixed"][0] == "none"
    fixed = find_all(volume, ".picture[data-plane='0'][data-kind='blend'] .outline.fixed")
    assert {line.find_element("css selector", "title").get_attribute("textContent") for line in fixed} == {
        "label 1, fixed",
        "liver, fixed",
    }
    assert len({line.get_attribute("stroke") for line in fixed}) == 2
    find(volume, "[data-label='2']").click()
    assert len(find_all(volume, ".picture[data-plane='0'][data-kind='blend'] .outline.fixed")) == 1
    find(volume, "#outlines").click()
    assert not find_all(volume, ".picture .outline")


def test_outlines_run_round_their_labels(volume: Any) -> None:
    path = find_all(volume, ".picture[data-plane='0'][data-kind='blend'] .outline.fixed")[1].get_attribute("d")
    points = np.array([point.split(",") for point in path.strip("MZ").split(" ")], dtype=float)
    np.testing.assert_allclose(points.min(0), [12, 12 * 1.5])  # voxels of 1 x 1.5 mm
    np.testing.assert_allclose(points.max(0), [18, 16 * 1.5])


def test_before_and_after(volume: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    picture = ".picture[data-plane='0'][data-kind='blend']"
    view = find(volume, ".view[data-plane='0']")
    press(view, Keys.HOME, *[Keys.ARROW_UP] * 6)
    assert find_all(volume, f"{picture} .dot.warped") and not find_all(volume, f"{picture} .dot.moving")
    assert "warped" in find(volume, f"{picture} svg").get_attribute("aria-label")
    press(view, "b")
    assert find_all(volume, f"{picture} .dot.moving") and not find_all(volume, f"{picture} .dot.warped")
    assert find_all(volume, f"{picture} .outline.moving") and not find_all(volume, f"{picture} .outline.warped")
    assert "moving" in find(volume, f"{picture} svg").get_attribute("aria-label")
    line = find(volume, f"{picture} .pair").get_attribute("d")
    start, end = (np.array(point.split(" "), dtype=float) for point in line.strip("M").split("L"))
    np.testing.assert_allclose(end - start, [3, 0], atol=0.02)
    press(view, "c")
    assert find(volume, "#checker").is_selected()


def test_what_is_not_seen_is_hatched(volume: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    view = find(volume, ".view[data-plane='0']")
    press(view, Keys.HOME)
    assert not find_all(volume, ".picture[data-plane='0'] .unseen")
    press(view, Keys.END)
    hatched = find(volume, ".picture[data-plane='0'][data-kind='blend'] .unseen")
    assert hatched.get_attribute("fill").startswith("url(#hatch")
    coronal = find(volume, ".picture[data-plane='1'][data-kind='blend'] .unseen").get_attribute("d")
    heights = [float(point.split(",")[1]) for point in coronal.strip("MZ").split(" ")]
    assert min(heights) == 0 and max(heights) == 3 * 4  # slices of 4 mm, the uppermost


def test_a_click_shows_the_same_place_in_the_other_directions(volume: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    view = find(volume, ".view[data-plane='0']")
    picture = view.find_element("css selector", ".picture")
    width, height = picture.rect["width"], picture.rect["height"]
    ActionChains(volume).move_to_element_with_offset(picture, int(width * 0.27), int(-height * 0.27)).click().perform()
    assert title(volume, "2").startswith("Sagittal, slice 19 of 24")
    assert title(volume, "1").startswith("Coronal, slice 5 of 20")


def test_scale_bar_and_letters(volume: Any, driver: Any, tmp_path: Path) -> None:
    bar = find(volume, ".picture[data-plane='0'] .bar")
    left, right = (
        float(bar.get_dom_attribute("d").split(mark)[1].split(end)[0]) for mark, end in (("M", " "), ("H", "V"))
    )
    length = float(bar.get_attribute("data-length"))
    box = find(volume, ".picture[data-plane='0'] svg").get_dom_attribute("viewBox").split()
    assert box[2:] == ["24", "30"] and 0 < length <= 8
    assert right - left == pytest.approx(length)
    sides = [text.text for text in find_all(volume, ".picture[data-plane='0'][data-kind='blend'] text.side")]
    assert sides == ["R", "L", "A", "P"]
    assert f"{length:g} mm" in [text.text for text in find_all(volume, ".picture[data-plane='0'] text")]
    picture = make_registration((40, 30), name="fixed.png", affine=np.diag([-1.0, -1, 1]))
    open_page(driver, write_report(picture, tmp_path / "picture.html"))
    assert not find_all(driver, "text.side") and not find_all(driver, "input[data-plane]")
    assert find(driver, ".picture text").text == "10 pixels"


def test_readable_without_eyes(volume: Any) -> None:
    assert all(svg.get_attribute("aria-label") for svg in find_all(volume, "svg[role=img]"))
    for control in find_all(volume, "input, select, button"):
        assert control.accessible_name, control.get_attribute("outerHTML")
    assert [h.aria_role for h in find_all(volume, "h1")] == ["heading"]
    levels = [int(h.tag_name[1]) for h in find_all(volume, "h1, h2, h3")]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert find(volume, "#status").get_attribute("aria-live") == "polite"
    assert all(view.get_attribute("tabindex") == "0" and view.accessible_name for view in find_all(volume, ".view"))


def test_printed_without_controls(volume: Any) -> None:
    volume.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not any(element.is_displayed() for element in find_all(volume, ".controls, input[type=range]"))
        assert all(canvas.is_displayed() for canvas in find_all(volume, ".view canvas"))
        assert find(volume, ".verdict").is_displayed()
    finally:
        volume.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.slow
def test_a_large_noisy_volume_takes_less_than_4_mb(driver: Any, tmp_path: Path) -> None:
    shape = (256, 256, 256)
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[-1:1:256j, -1:1:256j, -1:1:256j].astype(np.float32)
    body = (x**2 + y**2 / 0.6 + 0.2 * z**2 < 0.8) * (1 + 0.3 * np.sin(9 * x) * np.cos(8 * y + 3 * z))
    noise = rng.normal(0, 0.05, shape).astype(np.float32)
    registration = make_registration(
        shape, values=(body + noise).astype(np.float32), labels=True, affine=make_affine(3, (1, 1, 1))
    )
    path = write_report(registration, tmp_path / "report.html")
    assert path.stat().st_size < 4e6
    open_page(driver, path)
    assert title(driver).startswith("Axial") and "of 256" in title(driver)
    assert complaints(driver) == [] and requests(driver) == []


@pytest.fixture
def batch(driver: Any, tmp_path: Path) -> Any:
    """The browser at the page of four pairs, one of which failed to register."""
    rows: list[dict[str, Any]] = []
    for k, (grade, risk, dice) in enumerate((("good", 0.1, 0.9), ("failed", 0.8, 0.2), ("look", 0.5, 0.95))):
        registration = make_registration()
        registration.verdict = Verdict(grade, (f"Reason {k}.",), risk)
        write_report(registration, tmp_path / f"pair {k}" / "report.html")
        judged = {"verdict": grade, "verdict_reasons": [f"Reason {k}."], "verdict_risk": risk}
        rows.append({"pair": f"pair {k}", "error": "", **judged, "before_dice": 0.5, "dice": dice, "seconds": 10.0 - k})
    rows.append({"pair": "pair 3", "error": "no such image: <b>&.nii; check the path."})
    open_page(driver, write_batch(rows, tmp_path / "report.html"), ready=False)
    yield driver
    assert complaints(driver) == [] and requests(driver) == []


def order(driver: Any) -> list[str]:
    return [str(row.get_attribute("data-pair"))[-1] for row in find_all(driver, "#pairs tbody tr")]


def test_a_batch_is_sorted_by_verdict_and_on_demand(batch: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    assert order(batch) == ["3", "1", "2", "0"]
    button = find(batch, "[data-column=dice]")
    press(button, Keys.ENTER)
    assert order(batch) == ["1", "0", "2", "3"]  # what has no value comes last
    assert find(batch, "th[aria-sort]").get_attribute("aria-sort") == "ascending"
    button.click()
    assert order(batch) == ["2", "0", "1", "3"]
    heads = find_all(batch, "th[aria-sort]")
    assert len(heads) == 1 and heads[0].get_attribute("aria-sort") == "descending"
    press(find(batch, "[data-column=seconds]"), Keys.SPACE)
    assert order(batch) == ["2", "1", "0", "3"]
    press(find(batch, "[data-column=verdict]"), Keys.SPACE)
    assert order(batch) == ["3", "1", "2", "0"]


def test_a_batch_links_each_pairs_page_and_shows_its_picture(batch: Any) -> None:
    pictures = find_all(batch, ".thumbnail img")
    assert len(pictures) == 3
    assert all(batch.execute_script("return arguments[0].naturalWidth > 0", picture) for picture in pictures)
    assert all(picture.get_attribute("alt") for picture in pictures)
    failed = find(batch, "tr[data-pair='pair 3']")
    assert "Not registered" in failed.text and "no such image: <b>&.nii; check the path." in failed.text
    assert not failed.find_elements("css selector", "a, img")
    find(batch, "[data-grade=look]:not(tr)").click()
    assert not find(batch, "tr[data-pair='pair 2']").is_displayed()
    find(batch, "tr[data-pair='pair 1'] a").click()
    assert batch.title == "moving.nii.gz to fixed.nii.gz"


def test_what_a_ring_encloses_is_drawn_over_it(driver: Any, tmp_path: Path) -> None:
    registration = make_registration((40, 40), labels=True)
    label = registration.fixed_label
    label[:] = 0
    label[0, 10:30, 10:30] = 2
    label[0, 12:28, 12:28] = 1  # larger than the ring round it
    open_page(driver, write_report(registration, tmp_path / "report.html", names={1: "cavity", 2: "wall"}))
    titles = find(driver, ".view svg").find_elements("css selector", ".outline.fixed title")
    assert [title.get_attribute("textContent") for title in titles] == ["wall, fixed", "cavity, fixed"]
