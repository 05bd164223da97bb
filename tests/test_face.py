"""The package's face: light to import, whole when asked, and the same for people and type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import fmirnet_monai
from fmirnet_monai.export import needed_sources

ROOMS = [file.parent for file in sorted(Path(fmirnet_monai.__file__).parent.rglob("__init__.pyi"))]
NAMES = [
    (module, name)
    for module in (".".join(folder.parts[folder.parts.index("fmirnet_monai") :]) for folder in ROOMS)
    for name in import_module(module).__all__
]


def test_import_loads_nothing_heavy() -> None:
    rooms = ", ".join(sorted({module for module, _ in NAMES}))
    code = f"import sys, {rooms}; dir(fmirnet_monai); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "fmirnet_monai.registration" in loaded
    assert not {"torch", "monai", "numpy", "itk"} & set(loaded)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_name_is_there_and_listed(module: str, name: str) -> None:
    room = import_module(module)
    assert getattr(room, name) is not None
    assert name in dir(room)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="fmirnet_monai attribute nothing"):
        fmirnet_monai.nothing  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        exec("from fmirnet_monai import nothing")


@pytest.mark.parametrize("folder", ROOMS, ids=lambda folder: folder.name)
def test_a_stub_lists_what_it_imports(folder: Path) -> None:
    body = ast.parse((folder / "__init__.pyi").read_text()).body
    imported = {alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names}
    (names,) = (node for node in body if isinstance(node, ast.Assign))
    assert set(ast.literal_eval(names.value)) == imported


def test_what_a_name_of_the_face_needs_is_exported_with_it() -> None:
    by_face, by_home = (set(needed_sources([name])) for name in ("fmirnet_monai.Grid", "fmirnet_monai.spatial.Grid"))
    assert by_face == by_home > {"fmirnet_monai.spatial.grid"}
    own = {"fmirnet_monai", *(f"fmirnet_monai.{name}" for name in ("version", "program", "errors", "streams"))}
    assert set(needed_sources(["fmirnet_monai.__version__"])) == own  # what the package itself begins with


def test_of_a_room_that_is_imported_as_a_whole_any_name_may_be_asked_for() -> None:
    name = "fmirnet_monai.losses.MSELoss"
    whole, one = (set(needed_sources(names)) for names in ([name, "fmirnet_monai.losses"], [name]))
    assert "fmirnet_monai.losses.supervised" in whole - one
    assert {"fmirnet_monai.losses", "fmirnet_monai.losses.masked"} < one
