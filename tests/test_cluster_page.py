"""What the page on clusters gives to copy: manifests, settings, and the job that they make."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
import yaml
from commands import REPOSITORY
from dask_jobqueue import SLURMCluster

from fmirnet_monai.cli import _checked_words
from fmirnet_monai.commands import COMMANDS

PAGE = (REPOSITORY / "docs" / "how-to" / "cluster.md").read_text()


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def manifests() -> dict[str, Any]:
    return {found["kind"]: found for found in map(yaml.safe_load, fences("yaml")) if "kind" in found}


@contextmanager
def job_script(**options: Any) -> Iterator[str]:
    """What would be given to SLURM; nothing is."""
    with SLURMCluster(**options, scheduler_options={"dashboard_address": None, "host": "127.0.0.1"}) as cluster:
        yield cluster.job_script()


def options_in(program: str) -> dict[str, Any]:
    """What a program gives to ``SLURMCluster``, without the network that only a cluster has."""
    calls = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)]
    (call,) = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "SLURMCluster")
    return {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg not in (None, "interface")}


def test_the_program_and_the_settings_make_the_same_job() -> None:
    (settings,) = (found for found in map(yaml.safe_load, fences("yaml")) if "jobqueue" in found)
    assert settings["jobqueue"]["slurm"].pop("interface")
    (program,) = (text for text in fences("python") if "SLURMCluster(" in text)
    with job_script(**options_in(program)) as script:
        assert all(
            line in script.splitlines()
            for line in ("#SBATCH -p normal", "#SBATCH --cpus-per-task=8", "#SBATCH -t 04:00:00", "#SBATCH --mem=30G",
                         "export OMP_NUM_THREADS=2")
        ), script  # fmt: skip
        assert "--nthreads 1 " in script and "--nworkers 4 " in script
        own = [line for line in script.splitlines() if "tcp://" not in line]
    with dask.config.set(dask.config.merge(dask.config.config, settings)), job_script() as script:  # as of a file
        assert [line for line in script.splitlines() if "tcp://" not in line] == own


def test_a_job_for_each_gpu() -> None:
    (text,) = re.findall(r"`(SLURMCluster\(.+\))`", PAGE)
    with job_script(**options_in(text)) as script:
        assert "#SBATCH --gres=gpu:1" in script.splitlines()
        assert "--nthreads 1 " in script and "--nworkers" not in script


def test_workers_and_command_of_kubernetes_see_one_volume_and_one_scheduler() -> None:
    cluster, job = manifests()["DaskCluster"], manifests()["Job"]
    worker, scheduler = (cluster["spec"][part]["spec"] for part in ("worker", "scheduler"))
    command = job["spec"]["template"]["spec"]
    for one in (worker, command):
        (container,) = one["containers"]
        (mount,) = container["volumeMounts"]
        (volume,) = one["volumes"]
        assert mount["name"] == volume["name"] and mount["mountPath"] == "/data"
        assert volume["persistentVolumeClaim"]["claimName"] == "data"
    assert worker["containers"][0]["args"][:2] == ["--name", "$(DASK_WORKER_NAME)"]
    ports = {port["name"]: port["containerPort"] for port in scheduler["containers"][0]["ports"]}
    service = cluster["spec"]["scheduler"]["service"]
    assert service["selector"]["dask.org/cluster-name"] == cluster["metadata"]["name"]
    assert {port["targetPort"] for port in service["ports"]} == set(ports)
    given = command["containers"][0]["args"]
    address = given[given.index("--scheduler") + 1]
    assert address == f"tcp://{cluster['metadata']['name']}-scheduler:{ports['tcp-comm']}"
    assert _checked_words(COMMANDS["register"], given)


def test_commands_and_lists_of_the_page_are_understood() -> None:
    commands = [
        line.split()[1:] for text in fences("bash") for line in text.splitlines() if line.startswith("fmirnet ")
    ]
    assert len(commands) > 3
    for name, *words in commands:
        assert _checked_words(COMMANDS[name], words)
    (listed,) = map(json.loads, fences("json"))
    assert all(set(item) == {"image", "label"} for item in listed["test"])
