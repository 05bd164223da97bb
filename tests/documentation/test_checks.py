"""What is wrong on a page is found, though its block isn't run."""

from __future__ import annotations

from pathlib import Path

import pytest
from documentation.blocks import REPOSITORY, Block, blocks, command_lines
from documentation.code import check_code
from documentation.options import check_commands

CHAOS = "bundles/fmirnet_chaos/configs"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fmirnet warp --image a --transform t", "missing --output"),
        ("fmirnet invert --transform t --output u --refrence r", "did you mean --reference"),
        ("srun fmirnet register --moving a --fixed b --output_dir c --refine soon", "refine: expected a whole number"),
        ("docker run --rm -v x:/data fmirnet register --moving a", "missing --output_dir"),
        ("fmirnet prepare", "group of commands"),
        ("fmirnet polish", "unknown command 'polish'"),
        (f"python -m monai.bundle run --config_file {CHAOS}/train.jso", "no such config"),
        (f"python -m monai.bundle run --config_file {CHAOS}/train.json --max_epoch 3", "max_epoch is no key"),
        (f"python -m monai.bundle run --config_file {CHAOS}/train.json --network_def#shape 3", "shape is no key"),
        ("make tabels", "no such target"),
        ("pip install '.[elastic]'", "are not in setup.cfg"),
        ("python benchmarks/none.py", "no such target or file"),
        ("dask worker tcp://node1:8786 --nworker 8", "No such option '?--nworker"),
        ("dask sheduler", "no such command of dask"),
        ("wormhole a", "nothing is known about 'wormhole'"),
    ],
)
def test_a_command_that_would_be_refused(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_commands(Block(REPOSITORY / "README.md", 1, "bash", line, "data"), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from fmirnet_monai import Registrars", "Registrars"),
        ("from fmirnet_monai import Registrar\nRegistrar(refines=3)", "refines"),
        ("from fmirnet_monai import Registrar\nr = Registrar()\nr.register(1, 2, moving_lable=3)", "moving_lable"),
        ("from fmirnet_monai import Registrar\nRegistrar.from_bundel('x')", "from_bundel"),
        ("from fmirnet_monai import read_image, Grid\nGrid.of(read_image('a')).spacings()", "spacings"),
    ],
)
def test_code_that_would_fail(text: str, said: str) -> None:
    with pytest.raises((ValueError, ImportError), match=said):
        check_code(text, {}, "page")


@pytest.mark.parametrize(
    "text", ["<!-- needs: luck -->\n```bash\nls\n```", "<!-- needs: data -->\n\nSome text.\n\n```bash\nls\n```"]
)
def test_a_marker_that_marks_nothing(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="needs"):
        blocks(page)


def test_lines_of_a_shell() -> None:
    text = "run='a b'\nfor x in 1 2; do\n  $run --k#j $x \\\n    --l \"# 3\"  # why\ndone\n"
    assert command_lines(text) == [["a", "b", "--k#j", "1", "--l", "# 3"]]
