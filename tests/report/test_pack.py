"""Packed volumes: what Pillow reads from them is what went in."""

from __future__ import annotations

import numpy as np
import pytest
from report_pages import unpacked

from fmirnet_monai.report import pack as packing
from fmirnet_monai.report.pack import Scale, choose_quality, coarser, factors, pack, weight


@pytest.mark.parametrize("shape", [(1, 30, 40), (12, 30, 40), (30, 12, 40), (30, 40, 12), (7, 300, 5), (50, 60, 70)])
def test_lossless_volumes_come_back(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SIDE", 360)
    volume = np.random.default_rng(0).integers(0, 3, shape, dtype=np.uint8)
    packed = pack(volume, (1, 1, 1))
    np.testing.assert_array_equal(unpacked(packed), volume)
    assert len(packed["pictures"]) == (2 if shape[0] == 50 else 1)
    assert weight(packed) == sum(map(len, packed["pictures"]))


def test_compressed_volumes_stay_near() -> None:
    z, y, x = np.mgrid[:20, :64, :48]
    volume = (128 + 60 * np.sin(x / 7) * np.cos(y / 9) + 2 * z).astype(np.uint8)
    packed = pack(volume, (1, 1, 1), quality=80)
    assert packed["pictures"][0].startswith("data:image/webp;")
    apart = np.abs(unpacked(packed).astype(int) - volume)
    assert apart.mean() < 2 and weight(packed) < volume.size / 4


def test_quality_fits_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LOSSLESS", 1000)
    noise = np.random.default_rng(0).integers(0, 256, (24, 96, 96), dtype=np.uint8)
    assert choose_quality([noise[0, :20, :20]], 10) is None
    for quality in (80, 40, 15):
        room = int(1.1 * weight(pack(noise, (1, 1, 1), quality)))
        chosen = choose_quality([noise], room)
        assert chosen is not None and quality <= chosen < 90
        assert weight(pack(noise, (1, 1, 1), chosen)) < 1.05 * room
    assert choose_quality([noise], 10) == 0


def test_blocks_are_means_largest_or_first_values() -> None:
    volume = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    by = factors((5, 4, 3), 2)
    assert by == (3, 2, 2)
    np.testing.assert_allclose(coarser(volume, by)[0, 0, 0], volume[:3, :2, :2].mean())
    last = [volume[3], volume[4], volume[4]]  # filled up with what is outermost
    np.testing.assert_allclose(coarser(volume, by)[1, 1, 1], np.mean([v[2:, 2] for v in last]))
    assert coarser(volume == volume[4, 1, 2], by, "max").sum() == 1
    np.testing.assert_array_equal(coarser(volume, by, "first"), volume[::3, ::2, ::2])
    assert coarser(volume, (1, 1, 1)) is volume


def test_codes_hold_most_of_an_image_finely_and_all_of_it() -> None:
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.normal(40, 100, 20_000), [-1000, 3000]])
    scale = Scale(image)
    codes = scale.encode(image)
    back = np.interp(codes, packing.CODES, scale.values)
    low, high = np.percentile(image, (0.5, 99.5))
    inner = (image > low) & (image < high)
    assert np.abs(back - image)[inner].max() <= (high - low) / 224 / 2 + 1e-6
    assert codes.min() == 0 and codes.max() == 255
    np.testing.assert_allclose(scale.unit([low, high, -5000, 5000]), [0, 1, 0, 1], atol=1e-9)
    assert np.isfinite(Scale(np.zeros(9)).unit(np.zeros(9))).all()
