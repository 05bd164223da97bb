"""From slices or subjects to pairs, and from pairs to a training, validation and test set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from typing import Any

import numpy as np

SECTIONS = ("training", "validation", "test")
Pair = dict[str, Any]


@dataclass(frozen=True)
class Pairing:
    """How volumes become pairs, and pairs a datalist; checked when made.

    Attributes:
        spatial_dims: 2 pairs axial slices of one volume, in groups; 3 pairs volumes of different subjects, in order.
        r: annotated fraction of the slices in (0, 1], see :py:func:`slice_groups`; 2-D only.
        split: ``"subject"`` or ``"pair"``, see :py:func:`split_pairs`.
        fractions: of training, validation and test.
        seed: of the split.
        min_label_area: slices with less labelled area, in mm², are left out where a volume has a label; 2-D only.
        partners: each volume is the moving image of so many pairs in its section, None for all; 3-D only.
        sections: section of each subject, see :py:func:`read_sections`; then ``fractions`` and ``seed`` don't count.
        neighbours: pair each slice with the next so many, in place of groups; 2-D only.
        annotated: so many annotated slices of each volume, in place of ``r``; 2-D only.
    """

    spatial_dims: int = 2
    r: float = 0.15
    split: str = "subject"
    fractions: Sequence[float] = (0.7, 0.2, 0.1)
    seed: int = 0
    min_label_area: float = 500.0
    partners: int | None = None
    sections: Mapping[str, str] | None = field(default=None, repr=False)
    neighbours: int | None = None
    annotated: int | None = None

    def __post_init__(self) -> None:
        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {self.spatial_dims}.")
        for name in ("partners", "neighbours", "annotated"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}.")
        if self.neighbours is not None and self.annotated is not None:
            raise ValueError("annotated: divides a volume into groups, which neighbours takes the place of.")
        if self.sections is not None and self.split != "subject":
            raise ValueError(f'sections: are of subjects, so split must be "subject", got {self.split!r}.')
        if wrong := set((self.sections or {}).values()) - set(SECTIONS):
            raise ValueError(f"sections: each must be one of {', '.join(SECTIONS)}, got {sorted(wrong)}.")
        slice_groups(1, self.r)
        split_pairs([], self)

    def properties(self) -> dict[str, Any]:
        """The fields as a datalist notes them; of those that divide the subjects only the ones that did."""
        unused = {"sections"} if self.sections is None else {"split", "fractions", "seed"}
        unused |= {name for name in ("neighbours", "annotated") if getattr(self, name) is None}
        unused |= {"r"} if {"neighbours", "annotated"} - unused else set()
        return {name: value for name, value in asdict(self).items() if name not in unused}


def slice_groups(num_slices: int, r: float, annotated: int | None = None) -> list[tuple[int, list[int]]]:
    """Divide slices, in order, into ``n = round(r * num_slices)`` groups; the middle one of each is annotated.

    Args:
        num_slices: number of slices, at least 1.
        r: annotated fraction of the slices, in (0, 1].
        annotated: n itself, in place of ``r``.

    Returns:
        per group the index of the moving (annotated) slice and those of the fixed slices, which are the others.

    Raises:
        ValueError: when r lies outside (0, 1].
    """
    if not 0 < r <= 1:
        raise ValueError(f"r is the annotated fraction of the slices and must lie in (0, 1], got {r}.")
    groups = np.array_split(np.arange(num_slices), annotated or max(1, round(r * num_slices)))
    return [
        (int(group[len(group) // 2]), [int(i) for i in np.delete(group, len(group) // 2)])
        for group in groups
        if len(group)
    ]


def slice_pairs(num_slices: int, pairing: Pairing) -> list[dict[str, int]]:
    """The pairs of a volume's slices: ``moving`` and ``fixed``, numbers, and the ``group`` where there are groups."""
    if pairing.neighbours is not None:
        reach = range(1, pairing.neighbours + 1)
        return [{"moving": i, "fixed": i + d} for i in range(num_slices) for d in reach if i + d < num_slices]
    groups = enumerate(slice_groups(num_slices, pairing.r, pairing.annotated))
    return [{"moving": moving, "fixed": i, "group": n} for n, (moving, others) in groups for i in others]


def volume_pairs(subjects: Sequence[str]) -> list[tuple[str, str]]:
    """All ordered pairs (moving, fixed) of different subjects."""
    return list(permutations(subjects, 2))


def limit_partners(pairs: Sequence[Pair], partners: int) -> list[Pair]:
    """Keep of each moving volume's pairs those with the next volumes in the order of the list, cyclically."""
    moving = list(dict.fromkeys(pair["moving"] for pair in pairs))
    place = {file: number for number, file in enumerate(moving)}
    return [p for p in pairs if (place[p["fixed"]] - place[p["moving"]]) % len(moving) <= partners]


def split_counts(total: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers that share ``total`` in the given fractions; none with a fraction stays empty if it can be helped.

    Raises:
        ValueError: unless there are three fractions >= 0 that sum to 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"fractions must be three numbers (training, validation, test) that sum to 1, got {tuple(fractions)}."
        )
    exact = np.array(fractions) * total
    counts = np.floor(exact).astype(int)
    for i in np.argsort(counts - exact)[: total - counts.sum()]:
        counts[i] += 1
    for i in range(3):
        if fractions[i] > 0 and counts[i] == 0 and counts.max() > 1:
            counts[counts.argmax()] -= 1
            counts[i] += 1
    return [int(c) for c in counts]


def assign_sections(items: Sequence[Any], fractions: Sequence[float], seed: int) -> dict[Any, str]:
    """Draw a section for each item (a subject, or the index of a pair) at random, the same for the same seed."""
    shuffled = np.random.default_rng(seed).permutation(len(items))
    sections = np.repeat(SECTIONS, split_counts(len(items), fractions))
    return {items[int(i)]: str(section) for i, section in zip(shuffled, sections, strict=True)}


def require_sections(subjects: Collection[str], sections: Mapping[str, str]) -> None:
    """Raise ValueError when one of the subjects has no section."""
    if missing := [subject for subject in subjects if subject not in sections]:
        raise ValueError(
            f"sections: {len(missing)} of {len(subjects)} subjects of the data have none, the first {missing[0]}; name "
            "them in a JSON file of your own, or let sections be drawn by fractions."
        )


def split_pairs(pairs: Sequence[Pair], pairing: Pairing) -> dict[str, list[Pair]]:
    """Divide pairs into the sections of a datalist.

    ``split="subject"`` keeps each subject in one section, drawn at random or given, and drops pairs across sections;
    ``"pair"`` draws pairs at random, as the FMIRNet paper does, so that slices of one subject stand on both sides.

    Args:
        pairs: items whose ``"subject"`` is a name, or a list of the names of both subjects.
        pairing: its ``split``, ``fractions``, ``seed`` and ``sections`` count here.

    Returns:
        ``{"training": […], "validation": […], "test": […]}`` in the given order of pairs.

    Raises:
        ValueError: for another split, fractions that don't sum to 1, or a subject that ``sections`` does not name.
    """
    split, fractions, seed = pairing.split, pairing.fractions, pairing.seed
    if split not in ("subject", "pair"):
        raise ValueError(f'split must be "subject" or "pair", got {split!r}.')
    result: dict[str, list[Pair]] = {section: [] for section in SECTIONS}
    names = [set(np.atleast_1d(pair["subject"]).tolist()) for pair in pairs]
    if split == "pair":
        drawn = assign_sections(range(len(pairs)), fractions, seed)
        for i, pair in enumerate(pairs):
            result[drawn[i]].append(pair)
        return result
    members = sorted(set().union(*names))
    section_of = assign_sections(members, fractions, seed) if pairing.sections is None else pairing.sections
    require_sections(members, section_of)
    for pair, subjects in zip(pairs, names, strict=True):
        sections = {section_of[name] for name in subjects}
        if len(sections) == 1:
            result[sections.pop()].append(pair)
    return result
