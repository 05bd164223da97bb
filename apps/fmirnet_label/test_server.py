"""The real server, asked over its REST interface as 3D Slicer and OHIF do; ``make test-label`` runs this."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from requests_toolbelt.multipart.decoder import MultipartDecoder
from sample import write_studies

APP = Path(__file__).parent
BUNDLES = APP.parents[1] / "bundles"
SECONDS = 180  # that the server may take to start


class Client:
    """Requests to one server."""

    def __init__(self, address: str, studies: Path, truth: Path) -> None:
        self.address = address
        self.studies = studies
        self.truth = truth

    def infer(self, model: str, image: str, output: str = "image", **params: Any) -> requests.Response:
        options = {"image": image, "output": output}
        return requests.post(f"{self.address}/infer/{model}", params=options, data={"params": json.dumps(params)})

    def submit(self, image: str, label: Path) -> None:
        params = {"label_info": [{"name": "liver", "idx": 1}]}
        with label.open("rb") as file:
            done = requests.put(
                f"{self.address}/datastore/label",
                params={"image": image, "tag": "final"},
                files={"label": file},
                data={"params": json.dumps(params)},
            )
        assert done.status_code == 200, done.text

    def dice(self, answer: Any, image: str, folder: Path, kind: type = np.uint8) -> float:
        """Dice of the label map in an answer or a part of one, which must lie on the image's own grid."""
        assert getattr(answer, "status_code", 200) == 200, answer.text
        (folder / "answer.nii.gz").write_bytes(answer.content)
        found, scan = nib.load(folder / "answer.nii.gz"), nib.load(self.studies / f"{image}.nii.gz")
        assert found.shape == scan.shape and found.get_data_dtype() == kind
        np.testing.assert_allclose(found.affine, scan.affine, atol=1e-3)
        a, b = (np.asarray(i.dataobj) > 0 for i in (found, nib.load(self.truth / f"{image}.nii.gz")))
        return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@dataclass(frozen=True)
class Studies:
    """Generated studies, of which two are labelled, and the labels of all."""

    images: Path
    truth: Path


def make_studies(folder: Path) -> Studies:
    names = write_studies(folder / "studies")
    write_studies(folder / "all", labelled=len(names))
    return Studies(folder / "studies", folder / "all" / "labels" / "final")


@contextmanager
def server(app: Path, studies: Studies, *conf: str, before: str = "") -> Iterator[Client]:
    """A server in a process of its own, on a free port, as long as the block lasts.

    Args:
        app: the MONAI Label app.
        studies: to serve.
        conf: names and values of the server's settings.
        before: Python to run first.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"{before}\nimport runpy; runpy.run_module('monailabel.main', run_name='__main__')"
    command = [sys.executable, "-c", program, "start_server", "--app", str(app), "--studies", str(studies.images)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for name, value in (("sam2", "false"), *zip(conf[::2], conf[1::2], strict=True)):
        command += ["--conf", name, value]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "MONAI_LABEL_SERVER_PORT": str(port)}
    file = app.parent / "server.log"
    with file.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        client = Client(f"http://127.0.0.1:{port}", studies.images, studies.truth)
        try:
            for _ in range(SECONDS):
                try:
                    requests.get(f"{client.address}/info/", timeout=5)
                    break
                except requests.ConnectionError:
                    assert process.poll() is None, file.read_text()[-2000:]
                    time.sleep(1)
            yield client
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("label")
    app = folder / "app"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("model", "__pycache__", "logs", "bin"))
    with server(app, make_studies(folder)) as client:
        yield client


def test_info_names_models_options_and_labelled_studies(client: Client) -> None:
    info = requests.get(f"{client.address}/info/").json()
    assert set(info["models"]) == {"runet_chaos", "rfcn_chaos", "registration", "slice_propagation"}
    assert set(info["trainers"]) == {"runet_chaos", "rfcn_chaos"}
    assert info["models"]["registration"]["config"]["moving"] == ["phantom_1", "phantom_2"]
    assert info["datastore"]["total"] == 4 and info["datastore"]["completed"] == 2


@pytest.mark.parametrize("model", ["runet_chaos", "rfcn_chaos"])
def test_segmentation_of_a_study(client: Client, model: str, tmp_path: Path) -> None:
    assert client.dice(client.infer(model, "phantom_3"), "phantom_3", tmp_path) > 0.5


def test_label_of_another_study_is_carried_over(client: Client, tmp_path: Path) -> None:
    answer = client.infer("registration", "phantom_3", moving="phantom_2")
    assert client.dice(answer, "phantom_3", tmp_path) > 0.7


def test_rest_of_a_few_slices_that_were_submitted(client: Client, tmp_path: Path) -> None:
    whole = nib.load(client.truth / "phantom_4.nii.gz")
    values = np.asarray(whole.dataobj)
    labelled = np.flatnonzero(values.any((0, 1)))
    drawn = np.zeros_like(values)
    slices = sorted({*range(labelled[0], labelled[-1], 4), labelled[-1]})
    drawn[..., slices] = values[..., slices]
    nib.save(nib.Nifti1Image(drawn, whole.affine), tmp_path / "drawn.nii.gz")
    client.submit("phantom_4", tmp_path / "drawn.nii.gz")
    answer = client.infer("slice_propagation", "phantom_4", output="all")
    parts = {
        part.headers[b"Content-Disposition"].split(b'"')[1]: part
        for part in MultipartDecoder.from_response(answer).parts
    }
    assert client.dice(parts[b"image"], "phantom_4", tmp_path) > 0.9
    said = json.loads(parts[b"params"].text)
    assert said["annotated"] == [int(i) for i in slices] and said["label_names"] == {"liver": 1}


def test_fine_tuning_on_the_submitted_labels(client: Client, tmp_path: Path) -> None:
    before = client.dice(client.infer("runet_chaos", "phantom_3"), "phantom_3", tmp_path)
    client.submit("phantom_4", client.truth / "phantom_4.nii.gz")
    params = {"max_epochs": 1, "val_split": 0.3}
    done = requests.post(f"{client.address}/train/runet_chaos", params={"run_sync": True}, json=params)
    assert done.status_code == 200, done.text
    after = client.dice(client.infer("runet_chaos", "phantom_3"), "phantom_3", tmp_path)
    assert after != before and after > 0.8


@pytest.mark.parametrize(
    ("model", "image", "params", "status", "said"),
    [
        ("runet_chaos", "nobody", {}, 404, "the studies hold no 'nobody'"),
        ("nothing", "phantom_3", {}, 404, "there is no 'nothing', but registration"),
        ("registration", "phantom_3", {"moving": "phantom_3"}, 400, "no other image with a label"),
        ("registration", "phantom_3", {"affine": "some"}, 400, "affine"),
        ("registration", "phantom_3", {"moving": "nobody"}, 400, "those with a label are phantom_1"),
        ("slice_propagation", "phantom_3", {}, 400, "phantom_3: has no label; draw two or more slices"),
    ],
)
def test_wrong_requests_are_answered_and_the_server_lives_on(
    client: Client, model: str, image: str, params: dict[str, Any], status: int, said: str
) -> None:
    answer = client.infer(model, image, **params)
    assert answer.status_code == status and said in answer.json()["detail"]
    assert requests.get(f"{client.address}/info/").status_code == 200


def test_bundles_load_in_the_stock_app(tmp_path: Path) -> None:
    app = tmp_path / "monaibundle"
    shutil.copytree(Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle", app)
    bundles = {path.parts[-3]: path.parents[1] for path in BUNDLES.glob("*/models/model.pt")}
    for name, folder in bundles.items():
        shutil.copytree(folder, app / "model" / name, ignore=shutil.ignore_patterns("sample", "runs", "eval"))
    conf = ("models", ",".join(bundles), "zoo_source", "ngc", "skip_trainers", "true")
    # the stock app does not look after a CPU build of PyTorch
    first = f"import sys; sys.path.insert(0, {str(APP / 'lib')!r}); import torchvision_ops"
    with server(app, make_studies(tmp_path), *conf, before=first) as client:
        info = requests.get(f"{client.address}/info/").json()
        assert set(info["models"]) == set(bundles) >= {"fmirnet_chaos", "runet_chaos", "rfcn_chaos"}
        assert client.dice(client.infer("runet_chaos", "phantom_3"), "phantom_3", tmp_path, np.float32) > 0.5
        assert client.infer("fmirnet_chaos", "phantom_3").status_code == 500  # it takes two images, the app gives one
        assert requests.get(f"{client.address}/info/").status_code == 200
