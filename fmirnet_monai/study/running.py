"""Run methods on cases: each case of each method once, kept in a table a method as it is done."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from fmirnet_monai.data import PATH_KEYS, LoadedPair, load_pairs, read_pair
from fmirnet_monai.memory import peak_memory
from fmirnet_monai.parallel import at_a_time
from fmirnet_monai.registration import PairRegistrar, Registration
from fmirnet_monai.resume import KEY, files_in, result_key
from fmirnet_monai.spatial import Grid, resample, resize
from fmirnet_monai.spatial.image import Image, on_grid, plain
from fmirnet_monai.utils import digest, named_device, replacing, save_checkpoint, write_text
from fmirnet_monai.workers import Workers

from .methods import Context, MethodSpec

logger = logging.getLogger(__name__)
SUBJECTS = " & "  # between the two of a pair
FORM = 2  # of what is stored of a case
DEPTH = 65535  # grey levels of a stored image
TIMING, MEMORY = "seconds", "memory"  # the columns that differ from run to run


@dataclass(frozen=True)
class Cases:
    """The pairs of a comparison and how they are prepared.

    Attributes:
        datalist: JSON datalist of pairs.
        section: of the datalist.
        spatial_size: longest side in voxels that both images are resampled to, with square or cubic voxels; None
            registers and measures on the images' own grids.
        count: take only so many pairs, spread evenly over the section; None takes all.
    """

    datalist: str
    section: str = "test"
    spatial_size: int | None = None
    count: int | None = None

    def load(self) -> list[dict[str, Any]]:
        """The pairs as in the datalist, with a ``case`` that names each."""
        pairs = load_pairs(self.datalist, self.section)
        chosen = range(len(pairs))
        if self.count is not None and self.count < len(pairs):
            chosen = np.linspace(0, len(pairs) - 1, self.count).round().astype(int).tolist()
        return [{**pairs[i], "case": f"{i:04d}"} for i in chosen]

    def read(self, pair: Mapping[str, Any]) -> LoadedPair:
        """Images, labels and points of a pair, resampled where asked."""
        loaded = read_pair({key: value for key, value in pair.items() if key in PATH_KEYS})
        return loaded if self.spatial_size is None else resample_pair(loaded, self.spatial_size)


def resample_pair(pair: LoadedPair, size: int) -> LoadedPair:
    """Both images, each over its own extent, with voxels of equal sides and ``size`` of them along the longest axis.

    Images are smoothed where they shrink, labels and masks take the nearest voxel; axes of one voxel stay.
    """
    parts: dict[str, Any] = {"moving_points": pair.moving_points, "fixed_points": pair.fixed_points}
    for side in ("moving", "fixed"):
        image = getattr(pair, side)
        grid = Grid.of(image).with_longest_side(size)
        parts[side] = Image(resize(plain(image)[None], grid.shape)[0], grid.affine, image.meta)
        parts[f"{side}_channels"] = getattr(pair, f"{side}_channels")
        for key in (f"{side}_label", f"{side}_mask"):
            if (label := getattr(pair, key)) is not None:
                parts[key] = on_grid(resample(label, grid, mode="nearest")[0], grid)
    return LoadedPair(**parts)


def run_case(registrar: PairRegistrar, loaded: LoadedPair) -> tuple[dict[str, float], Registration]:
    """The figures of one pair, timed, and the registration."""
    result = registrar.register(**loaded.arguments())
    seconds = sum(result.timings.values())  # of the map alone, nothing else has been asked for
    return {**result.after, TIMING: seconds}, result


Item = tuple[MethodSpec, Mapping[str, Any]]  # a method, and a pair as of :py:meth:`Cases.load`
Row = tuple[str, str, dict[str, Any]]  # the method's row, the case, and its figures


def run(
    methods: Sequence[MethodSpec],
    pairs: Sequence[Mapping[str, Any]],
    cases: Cases,
    context: Context,
    folder: Path,
    shown: Collection[str],
    workers: Workers | None,
) -> dict[str, pd.DataFrame]:
    """The cases of each method, one row each, from its CSV as far as they are there."""
    tables, setups = {}, {}
    keys = {spec.row: _keys(spec, pairs, context) for spec in methods}
    for spec in methods:
        setups[spec.row] = {
            "form": FORM, "method": asdict(spec), "cases": asdict(cases), "context": context.settings()
        }  # fmt: skip
        table = read_cases(_file(folder, spec.row), setups[spec.row])
        if len(table):
            same = table[KEY].eq("") | table[KEY].eq(pd.Series(keys[spec.row]).reindex(table.index))
            table = table[same & table["error"].eq("")]  # what failed may have been mended since
        tables[spec.row] = table
    todo = [(spec, pair) for spec in methods for pair in pairs if pair["case"] not in tables[spec.row].index]

    def store(done: Row) -> None:
        row, case, figures = done
        if figures["error"]:
            logger.warning("%s, case %s failed: %s", row, case, figures["error"])
        figures = {**figures, KEY: keys[row][case]}
        new = pd.DataFrame([figures], index=pd.Index([case], name="case"))
        tables[row] = pd.concat([tables[row], new])
        _write_table(folder, row, tables[row])

    at_a_time(
        _CaseWork(cases, context.anywhere(), folder.absolute(), frozenset(shown)),
        [(spec.anywhere(), pair) for spec, pair in todo],
        named_device(context.device),
        "comparing",
        "case",
        said=store,
        alone=True,
        workers=workers,
        folder=folder,
        lost=_lost,
    )
    order = [pair["case"] for pair in pairs]
    for row in dict.fromkeys(spec.row for spec, _ in todo):
        _write_table(folder, row, tables[row].reindex(order))  # where one is run again, it stands last
    # with its digits, or a second run's p-values would be others
    return {spec.row: read_cases(_file(folder, spec.row), setups[spec.row]) for spec in methods}


def measure_memory(
    methods: Sequence[MethodSpec],
    tables: Mapping[str, pd.DataFrame],
    pairs: Sequence[Mapping[str, Any]],
    cases: Cases,
    context: Context,
    folder: Path,
) -> None:
    """Put each method's peak memory into its table where it isn't there, of the first case that did not fail."""
    for spec in methods:
        table = tables[spec.row]
        done = [pair for pair in pairs if table.loc[pair["case"], "error"] == ""]
        if done and (MEMORY not in table or table[MEMORY].isna().all()):
            value = peak_memory(partial(_first_case, spec, done[0], cases, context))
            table.loc[done[0]["case"], MEMORY] = float(f"{value:.6g}")  # as it is read again
            _write_table(folder, spec.row, table)


@dataclass(frozen=True)
class _CaseWork:
    """Registers and measures one case of one method; the registrar of the method at work stays."""

    cases: Cases
    context: Context
    folder: Path
    shown: frozenset[str]
    _held: dict[str, PairRegistrar] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, item: Item) -> Row:
        spec, pair = item
        row = _empty(pair)
        loaded = registrar = None
        try:
            loaded = self.cases.read(pair)
            registrar = self._registrar(spec, loaded)
            values, result = run_case(registrar, loaded)
            row |= values
            _keep_warped(warped_file(self.folder, spec.row, pair["case"]), *result.seen)
            if pair["case"] in self.shown:
                save_checkpoint(field_file(self.folder, spec.row, pair["case"]), result.field.ddf.half().cpu())
        except (ValueError, RuntimeError, OSError) as error:
            if loaded is not None and registrar is None:
                raise  # nothing can be run with these settings
            row["error"] = " ".join(str(error).split())
        return spec.row, pair["case"], row

    def _registrar(self, spec: MethodSpec, loaded: LoadedPair) -> PairRegistrar:
        if spec.row not in self._held:
            registrar = spec.build(self.context, loaded.fixed.dim() - 1)
            registrar.estimate(loaded.moving, loaded.fixed)  # the first pass warms up
            self._held.clear()
            self._held[spec.row] = registrar
            return registrar
        return self._held[spec.row]


def _empty(pair: Mapping[str, Any]) -> dict[str, Any]:
    return {"subject": SUBJECTS.join(subjects_of(pair)), "error": ""}


def _lost(item: Item, reason: str) -> Row:
    return item[0].row, item[1]["case"], {**_empty(item[1]), "error": reason}


def _keys(spec: MethodSpec, pairs: Sequence[Mapping[str, Any]], context: Context) -> dict[str, str]:
    """What each case of a method is known by: the contents of its files and of the method's weights."""
    content, sha256 = {"weights": spec.content(context)}, dict[str, str]()
    keys = {}
    for pair in pairs:
        files = {key: value for key, value in pair.items() if key in PATH_KEYS}
        sha256 |= {file: digest(file) for file in files_in(files) if file not in sha256}
        keys[pair["case"]] = result_key(files, sha256, content)
    return keys


def _first_case(spec: MethodSpec, pair: Mapping[str, Any], cases: Cases, context: Context) -> Callable[[], object]:
    """One registration, all but it done: modules that load at the first call are there after a pair of tiny images."""
    loaded = cases.read(pair)
    registrar = spec.build(context, loaded.fixed.dim() - 1)
    tiny = resample_pair(loaded, 32)
    registrar.estimate(tiny.moving, tiny.fixed)
    return partial(registrar.estimate, loaded.moving, loaded.fixed)


def warped_file(folder: Path, row: str, case: str) -> Path:
    return folder / "warped" / f"{slug(row)}_{case}.npz"


def _keep_warped(path: Path, image: Tensor, region: Tensor) -> None:
    """Store a warped image in [0, 1] and where it counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = (image.clamp(0, 1) * DEPTH).round().cpu().numpy().astype(np.uint16)
    with replacing(path) as partial:
        np.savez_compressed(partial, image=values, region=np.packbits(region.cpu().numpy()))


def field_file(folder: Path, row: str, case: str) -> Path:
    """The field of a case that is shown."""
    return folder / "fields" / f"{slug(row)}_{case}.pt"


def _file(folder: Path, row: str) -> Path:
    return folder / "cases" / f"{slug(row)}.csv"


def _write_table(folder: Path, row: str, table: pd.DataFrame) -> None:
    write_text(_file(folder, row), table.to_csv(float_format="%.6g"))


def read_cases(path: Path, setup: Mapping[str, Any]) -> pd.DataFrame:
    """Cases that are done; the settings stand beside them, so that no others are mixed in."""
    beside = path.with_suffix(".json")
    text = json.dumps(setup, indent=1, default=str) + "\n"
    if not path.is_file():
        write_text(beside, text)
        return pd.DataFrame(index=pd.Index([], name="case"))
    if not beside.is_file() or beside.read_text() != text:
        raise ValueError(
            f"{path}: holds cases of other settings, see {beside.name} beside it; give another --output_dir, or "
            "remove both files to run the method again."
        )
    text_columns = ("case", "subject", "error", KEY)
    table = pd.read_csv(path, dtype=dict.fromkeys(text_columns, str)).set_index("case")
    if KEY not in table:  # of a version that took all for unchanged
        table[KEY] = ""
    return table.fillna({"error": "", "subject": "", KEY: ""})


def subjects_of(pair: Mapping[str, Any]) -> list[str]:
    """Names of the one subject of a pair, or of both."""
    names = pair.get("subject", "")
    return [str(name) for name in names] if isinstance(names, list) else [str(names)]


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())
