"""Properties of groups, pairs and splits over many sizes and fractions."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from fmirnet_monai.data import Pairing, slice_groups, split_pairs
from fmirnet_monai.data.pairing import SECTIONS, limit_partners, split_counts, volume_pairs
from fmirnet_monai.data.pairing import slice_pairs as cut

FRACTIONS = [(0.7, 0.2, 0.1), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33), (0.98, 0.01, 0.01), (1, 0, 0), (0.8, 0, 0.2)]
Pairs = list[dict[str, Any]]


def slice_pairs(subjects: int, each: int) -> Pairs:
    return [{"subject": f"s{i}", "number": j} for i in range(subjects) for j in range(each)]


def ordered_pairs(subjects: int) -> Pairs:
    return [{"subject": [m, f], "moving": m, "fixed": f} for m, f in volume_pairs([f"s{i}" for i in range(subjects)])]


# --- groups of slices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [0.001, 0.05, 0.1, 0.15, 0.3, 0.5, 0.75, 1.0])
def test_groups_divide_the_slices(r: float) -> None:
    for n in range(1, 60):
        groups = slice_groups(n, r)
        assert len(groups) == max(1, round(r * n))
        members = [sorted([moving, *fixed]) for moving, fixed in groups]
        assert [i for group in members for i in group] == list(range(n))  # each once, contiguous, in order
        assert max(map(len, members)) - min(map(len, members)) <= 1
        for (moving, fixed), group in zip(groups, members, strict=True):
            below, above = sum(i < moving for i in fixed), sum(i > moving for i in fixed)
            assert abs(below - above) <= 1, (n, r, group, moving)


@pytest.mark.parametrize("r", [0, -0.1, 1.0001, 2, float("nan"), float("inf")])
def test_r_outside_its_range(r: float) -> None:
    for function in (lambda: slice_groups(10, r), lambda: Pairing(r=r)):
        with pytest.raises(ValueError, match=r"r is the annotated fraction.*\(0, 1\], got"):
            function()


def test_neighbours_replace_the_groups() -> None:
    pairs = cut(6, Pairing(neighbours=2))
    assert pairs == [{"moving": i, "fixed": j} for i in range(6) for j in range(6) if 1 <= j - i <= 2]
    assert "r" not in Pairing(neighbours=2).properties()
    assert [pair["group"] for pair in cut(6, Pairing(r=0.5))] == [0, 1, 2]
    assert "neighbours" not in Pairing(r=0.5).properties()
    with pytest.raises(ValueError, match=r"neighbours.*0"):
        Pairing(neighbours=0)


def test_so_many_slices_of_each_volume_can_be_annotated() -> None:
    for count in (1, 2, 4, 40):
        pairing = Pairing(annotated=count)
        annotated = {pair["moving"] for pair in cut(30, pairing)}
        assert len(annotated) == count if count < 15 else not annotated  # each slice by itself
        assert pairing.properties()["annotated"] == count and "r" not in pairing.properties()
    assert {pair["moving"] for pair in cut(30, Pairing(annotated=2))} == {7, 22}
    for wrong in ({"annotated": 0}, {"annotated": 2, "neighbours": 1}):
        with pytest.raises(ValueError, match="annotated"):
            Pairing(**wrong)


def test_volume_pairs_are_all_ordered_pairs() -> None:
    names = ["a", "b", "c", "d"]
    assert sorted(volume_pairs(names)) == [(m, f) for m, f in product(names, names) if m != f]
    assert volume_pairs(["alone"]) == []


# --- shares of the sections --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fractions", FRACTIONS)
def test_counts_share_the_total(fractions: tuple[float, ...]) -> None:
    wanted = [f > 0 for f in fractions]
    for total in range(80):
        counts = split_counts(total, fractions)
        assert sum(counts) == total and min(counts) >= 0
        assert not any(count and not want for count, want in zip(counts, wanted, strict=True))
        if total >= sum(wanted):
            assert all(count for count, want in zip(counts, wanted, strict=True) if want)
        if all(f * total >= 1 for f in fractions if f):  # nothing to lift from zero: plain rounding
            assert np.abs(np.array(counts) - np.array(fractions) * total).max() < 1


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.2), (0.7, 0.2, 0.2), (7, 2, 1), (1.1, -0.2, 0.1), (0.4, 0.3, 0.2, 0.1), ()]
)
def test_bad_fractions(fractions: tuple[float, ...]) -> None:
    for function in (lambda: split_counts(10, fractions), lambda: Pairing(fractions=fractions)):
        with pytest.raises(ValueError, match=r"fractions must be three numbers .*sum to 1"):
            function()


@pytest.mark.parametrize("split", ["subjects", "random", ""])
def test_bad_split(split: str) -> None:
    with pytest.raises(ValueError, match=rf"split must be \"subject\" or \"pair\", got '{split}'"):
        Pairing(split=split)


@pytest.mark.parametrize("spatial_dims", [0, 1, 4])
def test_bad_spatial_dims(spatial_dims: int) -> None:
    with pytest.raises(ValueError, match=f"spatial_dims must be 2 or 3, got {spatial_dims}"):
        Pairing(spatial_dims=spatial_dims)


# --- splits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_subject_split_keeps_subjects_apart(seed: int) -> None:
    pairs = slice_pairs(subjects=11, each=4)
    sections = split_pairs(pairs, Pairing(split="subject", seed=seed))
    subjects = {name: {pair["subject"] for pair in content} for name, content in sections.items()}
    assert list(sections) == list(SECTIONS) and all(subjects.values())
    assert sum(map(len, subjects.values())) == len(set.union(*subjects.values())) == 11
    assert [p for content in sections.values() for p in content] != pairs  # drawn at random, not in file order
    for content in sections.values():
        assert content == [pair for pair in pairs if pair in content]  # the given order is kept


def test_subject_split_loses_no_pair_of_one_subject() -> None:
    pairs = slice_pairs(subjects=7, each=3)
    sections = split_pairs(pairs, Pairing())
    assert sum(map(len, sections.values())) == len(pairs)


@pytest.mark.parametrize("fractions", FRACTIONS)
def test_pair_split_matches_the_fractions_and_mixes_subjects(fractions: tuple[float, ...]) -> None:
    pairs = slice_pairs(subjects=5, each=40)
    sections = split_pairs(pairs, Pairing(split="pair", fractions=fractions))
    sizes = [len(sections[name]) for name in SECTIONS]
    assert sum(sizes) == len(pairs)
    assert np.abs(np.array(sizes) - np.array(fractions) * len(pairs)).max() < 1
    if fractions[2] >= 0.1:
        shared = {p["subject"] for p in sections["training"]} & {p["subject"] for p in sections["test"]}
        assert shared


@pytest.mark.parametrize("seed", range(3))
def test_pairs_of_volumes_across_sections_are_dropped(seed: int) -> None:
    pairs = ordered_pairs(12)
    sections = split_pairs(pairs, Pairing(3, fractions=(0.5, 0.25, 0.25), seed=seed))
    subjects = [{name for pair in content for name in pair["subject"]} for content in sections.values()]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == 12
    for content, names in zip(sections.values(), subjects, strict=True):
        assert {(p["moving"], p["fixed"]) for p in content} == set(volume_pairs(sorted(names)))


@pytest.mark.parametrize("split", ["subject", "pair"])
def test_the_seed_decides(split: str) -> None:
    pairs = slice_pairs(subjects=20, each=2)
    draws = [split_pairs(pairs, Pairing(split=split, seed=seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_draw_does_not_depend_on_the_order_in_which_subjects_are_read() -> None:
    pairs = slice_pairs(subjects=9, each=2)
    there, back = (split_pairs(order, Pairing(seed=3)) for order in (pairs, pairs[::-1]))
    for section in SECTIONS:
        assert there[section] == back[section][::-1]


def test_partners_are_limited_for_every_moving_volume() -> None:
    pairs = [{"moving": a, "fixed": b} for a, b in volume_pairs("abcdef")]
    kept = limit_partners(pairs, 2)
    assert [(p["moving"], p["fixed"]) for p in kept if p["moving"] in "ae"] == [
        ("a", "b"),
        ("a", "c"),
        ("e", "a"),
        ("e", "f"),
    ]
    assert len(kept) == 12 and limit_partners(pairs, 5) == pairs
    with pytest.raises(ValueError, match="partners must be at least 1, got 0"):
        Pairing(3, partners=0)
