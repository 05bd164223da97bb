"""Read thousands of damaged files of every kind, and say which readers crash, hang or take too much memory.

::

    python benchmarks/fuzz.py [--count 20000] [--seed 0] [--source_dir ../shared/data] [--only mha] [--case 123]

The seeds are small files made in code and, with ``--source_dir``, real ones: small files as they are, crops of large
ones. The number of a case decides which seed it is and how that is damaged, so each can be made again by ``--case``.
A process reads them; one that takes more than 10 s, or grows by more than four times the decompressed content and
64 MiB, is ended. A reader should read or refuse: ValueError or OSError in one line that names the file. What does
neither is kept in ``--output_dir``; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from faults.readers import Seed
from faults.real import real
from faults.seeds import generated
from faults.trial import GOOD, Reader, damaged, keep


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20000, help="of damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--source_dir", type=Path, help="folder of real images")
    parser.add_argument("--output_dir", type=Path, default=Path(tempfile.gettempdir()) / "fuzz", help="of failures")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--case", type=int, help="this one alone, which is written to output_dir")
    options = parser.parse_args()
    seeds = generated() + (real(options.source_dir) if options.source_dir else [])
    seeds = [seed for seed in seeds if options.only in seed.kind]
    numbers = range(options.count) if options.case is None else [options.case]
    begin = time.monotonic()
    counts, spent = run(seeds, numbers, options.seed, options.output_dir, options.case is not None)
    print(table(counts, spent))
    failed = sum(count for found in counts.values() for result, count in found.items() if result not in GOOD)
    print(f"\n{len(numbers)} damaged files, {len(seeds)} seeds, {failed} failures, {time.monotonic() - begin:.0f} s")
    sys.exit(1 if failed else 0)


def run(
    seeds: list[Seed], numbers: range | list[int], seed: int, output_dir: Path, keep_all: bool = False
) -> tuple[dict[str, Counter[str]], dict[str, float]]:
    """How often what became of each kind, and the longest that a case of it took."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    longest: dict[str, float] = defaultdict(float)
    with Reader(seeds) as reader, tempfile.TemporaryDirectory() as temporary:
        for number in tqdm(numbers, unit="file"):
            case = damaged(seeds, number, seed)
            folder = Path(temporary) / f"case_{number}"
            case.write(folder)
            found = reader.read(case, folder)
            counts[case.kind][found.result] += 1
            longest[case.kind] = max(longest[case.kind], found.seconds)
            if found.result not in GOOD or keep_all:
                keep(case, found, output_dir / f"{number:06d}_{found.result}")
            _remove(folder)
    return counts, longest


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()


def table(counts: dict[str, Counter[str]], longest: dict[str, float]) -> str:
    """Of each kind how many were read, refused, or neither."""
    bad = ("crash", "hang", "memory", "message")
    lines = [f"| kind | files | read | refused | {' | '.join(bad)} | longest (s) |", "|---" * 9 + "|"]
    total: Counter[str] = sum(counts.values(), Counter())
    for kind, found in [*sorted(counts.items()), ("all", total)]:
        cells = [found.total(), *(found[result] for result in (*GOOD, *bad))]
        most = longest[kind] if kind in counts else max(longest.values())
        lines.append(f"| {kind} | {' | '.join(map(str, cells))} | {most:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
