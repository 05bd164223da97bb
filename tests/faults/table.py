"""The matrix of faults as a Markdown table: ``PYTHONPATH=.:tests python -m faults.table``."""

from __future__ import annotations

from faults import test_bundles, test_matrix, test_signals

NAMES = {"register": "register", "batch": "batch", "compare": "compare", "propagate": "propagate"}
NAMES |= {"export": "export", "prepare folder": "prepare"}  # of an entry, its name among the works that get signals
WORKER = {"batch"}


def rows() -> dict[str, dict[str, str]]:
    """By entry and fault: tested, or why the cell has no meaning."""
    found: dict[str, dict[str, str]] = {}
    for entry, (_, faults) in test_matrix.ENTRIES.items():
        cells = {name: test_matrix.NO_MEANING.get((entry, name), "yes") for name in faults}
        cells |= dict.fromkeys(test_matrix.CIRCUMSTANCES, "yes")
        if (work := NAMES.get(entry, "")) in test_signals.WORKS:
            cells |= _signals(work)
        if entry in WORKER:
            cells["worker dies"] = "yes"
        found[entry] = cells
    for name in ("bundle train", "infer"):
        for victim, faults in test_bundles.VICTIMS.items():
            entry = name if victim == "image" else f"{name}, {victim}"
            found[entry] = {fault: test_bundles.LEGITIMATE.get(fault, "yes") for fault in faults}
        found[name] |= {**dict.fromkeys(test_bundles.CIRCUMSTANCES, "yes"), **_signals(name.split()[-1])}
    return found


def _signals(work: str) -> dict[str, str]:
    return dict.fromkeys((number.name for number in test_signals.signals_of(work)), "yes")


def markdown() -> str:
    """The table, and below it why cells have no meaning."""
    cells = rows()
    faults = list(dict.fromkeys(fault for row in cells.values() for fault in row))
    reasons: list[str] = []
    lines = ["| | " + " | ".join(faults) + " |", "|---" * (len(faults) + 1) + "|"]
    for entry, row in cells.items():
        marks = []
        for fault in faults:
            said = row.get(fault, "")
            if said not in ("", "yes") and said not in reasons:
                reasons.append(said)
            marks.append(f"({reasons.index(said) + 1})" if said in reasons else said or "–")
        lines.append(f"| {entry} | " + " | ".join(marks) + " |")
    return "\n".join([*lines, "", *(f"{number}. {text}" for number, text in enumerate(reasons, 1))])


if __name__ == "__main__":
    print(markdown())
