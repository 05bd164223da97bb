"""Pictures of registered pairs: a legible PNG for any case, and the grid of the field where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fmirnet_monai.report import draw_pairs

SHAPES = pytest.mark.parametrize("shape", [(24, 18), (24, 18, 7)], ids=["2-D", "3-D"])
GRID = 5  # column of the grid


def make_case(shape: tuple[int, ...], labels: bool = True, ddf: NDArray | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    case: dict[str, Any] = {name: rng.uniform(0, 1, shape) for name in ("moving", "fixed", "warped")}
    case |= {"title": "subject 3", "ddf": np.zeros((len(shape), *shape)) if ddf is None else ddf}
    if labels:
        label = np.zeros(shape, dtype=np.uint8)
        label[6:18, 4:12] = 1
        case |= {f"{name}_label": np.roll(label, k, 0) for k, name in enumerate(("moving", "fixed", "warped"))}
    return case


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[list[Axes]]]:
    """Draw cases and give the axes of the picture, row by row."""

    def draw(*cases: dict[str, Any]) -> list[list[Axes]]:
        figures: list[Figure] = []
        with monkeypatch.context() as patch:

            def keep(figure: Figure, path: Path, **options: Any) -> None:
                figures.append(figure)
                path.touch()

            patch.setattr(Figure, "savefig", keep)
            draw_pairs(cases, tmp_path / "unused.png")
        axes = figures[0].axes
        return [axes[k : k + len(axes) // len(cases)] for k in range(0, len(axes), len(axes) // len(cases))]

    return draw


def green(path: Path) -> int:
    """Pixels of the colour of the fixed contour."""
    red, strong, blue = np.asarray(Image.open(path).convert("RGB")).astype(int).transpose(2, 0, 1)
    return int(((strong > 200) & (red < 100) & (blue < 100)).sum())


@SHAPES
@pytest.mark.parametrize("labels", [True, False], ids=["labels", "no labels"])
def test_picture_of_a_sensible_size(tmp_path: Path, shape: tuple[int, ...], labels: bool) -> None:
    cases = [make_case(shape, labels) for _ in range(2)]
    path = draw_pairs(cases, tmp_path / "new" / "pairs.png")
    assert path == tmp_path / "new" / "pairs.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
        assert np.asarray(picture.convert("L")).std() > 10
    assert 6 * 120 < width < 4000 and 2 * 120 < height < 2000
    assert (green(path) > 50) == labels


def test_one_row_per_case_and_all_columns_named(drawn: Callable[..., list[list[Axes]]]) -> None:
    rows = drawn(*(make_case((24, 18)) for _ in range(3)))
    assert len(rows) == 3
    assert [axis.get_title() for axis in rows[0]][:3] == ["moving", "fixed", "warped"]
    assert all(axis.get_title() for axis in rows[0]) and rows[2][0].get_ylabel() == "subject 3"


@SHAPES
def test_images_are_shown_with_x_to_the_right(drawn: Callable[..., list[list[Axes]]], shape: tuple[int, ...]) -> None:
    case = make_case(shape)
    row = drawn(case)[0]
    middle = (..., shape[2] // 2) if len(shape) == 3 else (...,)
    for axis, name in zip(row, ("moving", "fixed", "warped"), strict=False):
        np.testing.assert_array_equal(axis.images[0].get_array(), case[name][middle].T)
    for axis, other in zip(row[3:5], ("moving", "warped"), strict=True):
        np.testing.assert_allclose(axis.images[0].get_array(), (case["fixed"] - case[other])[middle].T)
        low, high = axis.images[0].get_clim()
        assert low == -high  # no difference is white


def test_images_share_one_grey_scale(drawn: Callable[..., list[list[Axes]]]) -> None:
    case = make_case((24, 18))
    case["moving"] = case["moving"] * 3
    assert len({axis.images[0].get_clim() for axis in drawn(case)[0][:3]}) == 1


@SHAPES
def test_identity_field_gives_a_regular_grid(drawn: Callable[..., list[list[Axes]]], shape: tuple[int, ...]) -> None:
    lines = drawn(make_case(shape))[0][GRID].lines
    across = [line for line in lines if np.ptp(np.asarray(line.get_ydata(), dtype=float)) == 0]
    down = [line for line in lines if np.ptp(np.asarray(line.get_xdata(), dtype=float)) == 0]
    assert len(across) + len(down) == len(lines) and len(across) > 5 and len(down) > 5
    np.testing.assert_array_equal(across[0].get_xdata(), np.arange(shape[0]))
    np.testing.assert_array_equal(down[0].get_ydata(), np.arange(shape[1]))
    for heights in ([line.get_ydata()[0] for line in across], [line.get_xdata()[0] for line in down]):
        assert len(set(np.diff(np.array(heights, dtype=float)))) == 1


@SHAPES
def test_first_component_of_the_field_moves_the_grid_along_x(
    drawn: Callable[..., list[list[Axes]]], shape: tuple[int, ...]
) -> None:
    ddf = np.zeros((len(shape), *shape))
    ddf[0] = 2.5
    still, moved = (drawn(make_case(shape, ddf=field))[0][GRID].lines for field in (np.zeros_like(ddf), ddf))
    for before, after in zip(still, moved, strict=True):
        np.testing.assert_allclose(np.asarray(after.get_xdata()), np.asarray(before.get_xdata()) + 2.5)
        np.testing.assert_array_equal(after.get_ydata(), before.get_ydata())


def test_large_images_get_a_grid_that_is_not_black(drawn: Callable[..., list[list[Axes]]]) -> None:
    lines = drawn(make_case((300, 260), labels=False))[0][GRID].lines
    assert 20 < len(lines) < 120


def test_empty_label_and_flat_image_do_no_harm(tmp_path: Path) -> None:
    case = make_case((24, 18))
    case["fixed_label"] = np.zeros((24, 18))
    case["moving"] = case["warped"] = np.zeros((24, 18))
    assert draw_pairs([case], tmp_path / "p.png").is_file()


def test_no_figure_stays_open(tmp_path: Path) -> None:
    draw_pairs([make_case((24, 18))], tmp_path / "p.png")
    assert not plt.get_fignums()
