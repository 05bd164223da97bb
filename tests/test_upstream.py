"""What is handed to other projects runs as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from commands import REPOSITORY

UPSTREAM = REPOSITORY / "upstream"
NOTEBOOK = json.loads((UPSTREAM / "registration_in_a_pipeline" / "registerd.ipynb").read_text())
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"]]


def test_the_notebook_has_the_form_of_monais_tutorials() -> None:
    kinds = [cell["cell_type"] for cell in NOTEBOOK["cells"]]
    assert CELLS[0].startswith("Copyright (c) MONAI Consortium  \n") and "\n# " in CELLS[0]
    assert [CELLS[1], CELLS[3]] == ["## Setup environment", "## Setup imports"] and CELLS[4].endswith("print_config()")
    assert kinds[:5] == ["markdown", "markdown", "code", "markdown", "code"]
    for kind, text, cell in zip(kinds, CELLS, NOTEBOOK["cells"], strict=True):
        assert not cell.get("outputs") and not text.endswith("\n")
        assert kind == "markdown" or text is CELLS[4] or not re.search("^(import|from) ", text, re.MULTILINE)


def test_notebook_and_answer_register(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    last = len(CELLS) - 1
    with mpl.rc_context({"backend": "agg"}):
        for index, cell in enumerate(NOTEBOOK["cells"]):
            if cell["cell_type"] == "code" and index not in (2, last):
                exec(compile(CELLS[index], f"cell {index}", "exec"), names)
    said = capsys.readouterr().out
    before, after = map(float, re.findall(r"Dice before (\S+), after (\S+)", said)[0])
    assert before < 0.8 and after > 0.95
    found = re.findall(r"in pre: \[\[(.*?)\]\]", said)[0].split()
    assert [float(part) for part in found] == pytest.approx([22, 24, 26], abs=0.6)  # moved by (-4, -1, 4)
    monkeypatch.chdir(names["folder"])
    (block,) = re.findall(r"```python\n(.*?)```", (UPSTREAM / "monai-issue-9008.md").read_text(), re.DOTALL)
    answer: dict[str, Any] = {}
    exec(compile(block, "answer", "exec"), answer)
    assert answer["data"]["pre"].shape == names["data"]["post"].shape
    exec(CELLS[last], names)
    assert not Path(names["folder"]).exists()
