"""Completion, asked of bash itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fmirnet_monai import cli
from fmirnet_monai.completion import SHELLS, completion_script

ASK = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
complete=$(complete -p fmirnet)
function=${{complete##*-F }}
${{function%% *}} fmirnet "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fmirnet warp", {"warp", "warp_points"}),
        ("fmirnet compare tune --max", {"--max_epochs"}),
        ("fmirnet register --moving a.nii.gz --fixed_p", {"--fixed_points"}),
        ("fmirnet register --inverse ''", {"true", "false"}),
        ("fmirnet bundle c", {"copy"}),
        ("fmirnet warp --image {folder}/scan", {"{folder}/scan.nii.gz"}),
    ],
)
def test_bash_completes(words: str, expected: set[str], tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").touch()
    script = tmp_path / "script"
    script.write_text(completion_script(cli.COMMANDS, "bash"))
    text = ASK.format(script=script, words=words.format(folder=tmp_path))
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {word.format(folder=tmp_path) for word in expected}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_every_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["completion", shell])
    script = capsys.readouterr().out
    for word in ("register_series", "trust_bundle"):
        assert word in script


def test_another_shell_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shell must be bash, .*, got 'cmd'"):
        completion_script(cli.COMMANDS, "cmd")
