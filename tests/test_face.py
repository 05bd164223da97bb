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

STUB = Path(fmirnet_monai.__file__).with_suffix(".pyi")


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, fmirnet_monai; dir(fmirnet_monai); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "fmirnet_monai" in loaded
    assert not {"torch", "monai", "numpy", "itk"} & set(loaded)
    assert not [name for name in loaded if name.startswith("fmirnet_monai.")]


@pytest.mark.parametrize("name", fmirnet_monai.__all__)
def test_every_name_is_there_and_listed(name: str) -> None:
    home = import_module(f"fmirnet_monai.{fmirnet_monai.HOMES[name]}")
    assert getattr(fmirnet_monai, name) is getattr(home, name)
    assert name in dir(fmirnet_monai)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fmirnet_monai' has no attribute 'nothing'"):
        fmirnet_monai.nothing  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        exec("from fmirnet_monai import nothing")


def test_the_stub_names_the_same() -> None:
    nodes = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in nodes for alias in node.names} == fmirnet_monai.HOMES
    (names,) = (node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.Assign))
    assert set(ast.literal_eval(names.value)) == set(fmirnet_monai.__all__)


def test_what_a_name_of_the_face_needs_is_exported_with_it() -> None:
    by_face, by_home = (set(needed_sources([name])) for name in ("fmirnet_monai.Grid", "fmirnet_monai.spatial.Grid"))
    assert by_face == by_home > {"fmirnet_monai.spatial.grid"}
    assert set(needed_sources(["fmirnet_monai.__version__"])) == {"fmirnet_monai"}
