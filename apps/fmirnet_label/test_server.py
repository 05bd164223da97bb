"""The real server, asked over its REST interface as 3D Slicer and OHIF do; ``make test-label`` runs this."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pydicom_seg
import pytest
import requests
import SimpleITK as sitk  # noqa: N813
from dicomweb_client import DICOMwebClient
from pydicom.uid import generate_uid
from requests_toolbelt.multipart.decoder import MultipartDecoder
from sample import write_studies

APP = Path(__file__).parent
BUNDLES = APP.parents[1] / "bundles"
TESTS = APP.parents[1] / "tests"
SECONDS = 180  # that the server may take to start


class Client:
    """Requests to one server."""

    def __init__(self, address: str, process: subprocess.Popen, studies: Path, truth: Path) -> None:
        self.address = address
        self.process = process
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(
    command: list[str], address: str, log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """A process as long as the block lasts, which begins once its address answers; fails with what it wrote."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        try:
            for _ in range(SECONDS):
                try:
                    requests.get(address, timeout=5)
                    break
                except requests.ConnectionError:
                    assert process.poll() is None, log.read_text()[-2000:]
                    time.sleep(1)
            else:
                pytest.fail(log.read_text()[-2000:])
            yield process
        finally:
            process.terminate()
            process.wait()


def copy_of_app(folder: Path) -> Path:
    ignore = shutil.ignore_patterns("model", "__pycache__", "logs", "bin")
    return Path(shutil.copytree(APP, folder / "app", ignore=ignore))


@contextmanager
def server(app: Path, source: Path | str, studies: Studies, *conf: str, before: str = "") -> Iterator[Client]:
    """A server in a process of its own, on a free port, as long as the block lasts.

    Args:
        app: the MONAI Label app.
        source: folder or DICOMweb address of what it serves.
        studies: what it serves, as files.
        conf: names and values of the server's settings.
        before: Python to run first.
    """
    port = free_port()
    program = f"{before}\nimport runpy; runpy.run_module('monailabel.main', run_name='__main__')"
    command = [sys.executable, "-c", program, "start_server", "--app", str(app), "--studies", str(source)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for name, value in (("sam2", "false"), *zip(conf[::2], conf[1::2], strict=True)):
        command += ["--conf", name, value]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "MONAI_LABEL_SERVER_PORT": str(port)}
    address = f"http://127.0.0.1:{port}"
    with running(command, f"{address}/info/", app.parent / "server.log", environment) as process:
        yield Client(address, process, studies.images, studies.truth)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("label")
    studies = make_studies(folder)
    with server(copy_of_app(folder), studies.images, studies) as client:
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


def test_no_file_of_the_servers_disk_can_be_named(client: Client, tmp_path: Path) -> None:
    secret = str(shutil.copyfile(client.truth / "phantom_3.nii.gz", tmp_path / "secret.nii.gz"))
    for model, image, params in (
        ("slice_propagation", secret, {}),
        ("runet_chaos", secret, {}),
        ("registration", "../../etc/passwd", {}),
        ("slice_propagation", "phantom_3", {"label": secret}),
        ("slice_propagation", "phantom_3", {"image": secret}),
        ("runet_chaos", "phantom_3", {"model_filename": secret}),
        ("registration", "phantom_3", {"moving": secret}),
    ):
        form = {"params": json.dumps(params)}
        answer = requests.post(f"{client.address}/infer/{model}", params={"image": image}, data=form)
        assert answer.status_code == 400, (model, image, params)
        assert re.search("no study of this server|a file of the server", answer.json()["detail"])
    assert requests.get(f"{client.address}/info/").status_code == 200


def damage(kind: str, source: Path, file: Path) -> None:
    """A study that can't be segmented, registered or labelled."""
    values = nib.load(source).get_fdata().astype(np.float32)
    if kind in ("empty", "truncated", "unreadable"):
        content = source.read_bytes()
        damaged = {"empty": b"", "truncated": content[: len(content) // 2], "unreadable": b"no image" * 100}
        file.write_bytes(damaged[kind])
        return
    values[10:20] = np.nan if kind == "NaN" else values[10:20]
    nib.save(nib.Nifti1Image(values[..., None].repeat(2, 3) if kind == "dimension" else values, np.eye(4)), file)


@pytest.mark.parametrize("model", ["runet_chaos", "registration", "slice_propagation"])
@pytest.mark.parametrize("kind", ["empty", "truncated", "unreadable", "NaN", "dimension"])
def test_a_damaged_upload_is_named_and_the_server_lives_on(
    client: Client, kind: str, model: str, tmp_path: Path
) -> None:
    damage(kind, client.studies / "phantom_3.nii.gz", tmp_path / "scan.nii.gz")
    with (tmp_path / "scan.nii.gz").open("rb") as file:
        whole = client.truth / "phantom_3.nii.gz"
        upload = {"file": ("scan.nii.gz", file), "label": ("label.nii.gz", whole.read_bytes())}
        answer = requests.post(f"{client.address}/infer/{model}", params={"output": "image"}, files=upload)
    assert answer.status_code == 400, answer.text
    assert ".nii.gz" in answer.json()["detail"] and "\n" not in answer.json()["detail"]
    assert requests.get(f"{client.address}/info/").status_code == 200


def test_an_uploaded_image_is_taken(client: Client, tmp_path: Path) -> None:
    with (client.studies / "phantom_3.nii.gz").open("rb") as file:
        upload = {"file": ("scan.nii.gz", file)}
        answer = requests.post(f"{client.address}/infer/runet_chaos", params={"output": "image"}, files=upload)
    assert client.dice(answer, "phantom_3", tmp_path) > 0.5


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "..", "a/b"])
def test_names_lead_nowhere_else(client: Client, name: str) -> None:
    before = set(client.studies.parent.rglob("*"))
    for way, key, options in (("", "file", {"image": name}), ("label", "label", {"image": "phantom_3", "tag": name})):
        with (client.truth / "phantom_3.nii.gz").open("rb") as file:
            done = requests.put(f"{client.address}/datastore/{way}", params=options, files={key: file})
        assert done.status_code == 400 and "is no name" in done.json()["detail"], done.text
    assert set(client.studies.parent.rglob("*")) == before


def test_a_bundle_without_weights_is_answered_and_the_server_lives_on(tmp_path: Path) -> None:
    app, studies = copy_of_app(tmp_path), make_studies(tmp_path)
    ignore = shutil.ignore_patterns("models", "sample", "runs", "eval")
    shutil.copytree(BUNDLES / "rfcn_chaos", app / "model" / "rfcn_chaos", ignore=ignore)
    with server(app, studies.images, studies) as client:
        assert "rfcn_chaos" not in requests.get(f"{client.address}/info/").json()["models"]
        answer = client.infer("rfcn_chaos", "phantom_3")
        assert answer.status_code == 404 and "model: rfcn_chaos has no weights; train it" in answer.json()["detail"]
        assert client.dice(client.infer("runet_chaos", "phantom_3"), "phantom_3", tmp_path) > 0.5


def test_missing_rights_are_named_and_a_killed_server_has_lost_nothing(tmp_path: Path) -> None:
    app, studies = copy_of_app(tmp_path), make_studies(tmp_path)
    image = studies.images / "phantom_3.nii.gz"
    before = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); from faults.circumstances import ordinary_user; "
        "sys.path.pop(0); held = ordinary_user(); held.__enter__()"
    )
    with server(app, studies.images, studies, before=before) as client:
        image.chmod(0o000)
        for model in ("runet_chaos", "registration"):
            answer = client.infer(model, "phantom_3")
            assert answer.status_code == 400, answer.text
            assert "phantom_3.nii.gz" in answer.json()["detail"] and "ermission" in answer.json()["detail"]
        image.chmod(0o644)
        client.submit("phantom_3", studies.truth / "phantom_3.nii.gz")
        client.process.kill()
        client.process.wait()
    with server(app, studies.images, studies) as client:
        assert requests.get(f"{client.address}/info/").json()["datastore"]["completed"] == 3
        assert client.dice(client.infer("runet_chaos", "phantom_4"), "phantom_4", tmp_path) > 0.5


def test_bundles_load_in_the_stock_app(tmp_path: Path) -> None:
    app = tmp_path / "monaibundle"
    shutil.copytree(Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle", app)
    bundles = {path.parts[-3]: path.parents[1] for path in BUNDLES.glob("*/models/model.pt")}
    for name, folder in bundles.items():
        shutil.copytree(folder, app / "model" / name, ignore=shutil.ignore_patterns("sample", "runs", "eval"))
    conf = ("models", ",".join(bundles), "zoo_source", "ngc", "skip_trainers", "true")
    # the stock app does not look after a CPU build of PyTorch
    first = f"import sys; sys.path.insert(0, {str(APP / 'lib')!r}); import torchvision_ops"
    studies = make_studies(tmp_path)
    with server(app, studies.images, studies, *conf, before=first) as client:
        info = requests.get(f"{client.address}/info/").json()
        assert set(info["models"]) == set(bundles) == {path.name for path in BUNDLES.iterdir()}
        assert client.dice(client.infer("runet_chaos", "phantom_3"), "phantom_3", tmp_path, np.float32) > 0.5
        assert client.infer("fmirnet_chaos", "phantom_3").status_code == 500  # it takes two images, the app gives one
        assert requests.get(f"{client.address}/info/").status_code == 200


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[str]:
    """Address of an empty DICOMweb server."""
    program, plugin = shutil.which("Orthanc"), Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    if not program or not plugin.is_file():
        pytest.skip("no DICOMweb server: install the packages orthanc and orthanc-dicomweb")
    ports = [free_port(), free_port()]
    settings = {"StorageDirectory": str(tmp_path / "pacs"), "HttpPort": ports[0], "DicomPort": ports[1]}
    settings |= {"AuthenticationEnabled": False, "Plugins": [str(plugin)], "DicomWeb": {"Root": "/dicom-web/"}}
    (tmp_path / "pacs.json").write_text(json.dumps(settings))
    address = f"http://127.0.0.1:{ports[0]}/dicom-web"
    with running([program, str(tmp_path / "pacs.json")], f"{address}/series", tmp_path / "pacs.log"):
        yield address


def store_series(address: str, image: sitk.Image, folder: Path) -> str:
    """Write an image as a CT series, store it on a DICOMweb server, and give its UID."""
    folder.mkdir()
    series, writer = generate_uid(), sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    directions = [image.GetDirection()[i] for i in (0, 3, 6, 1, 4, 7)]
    shared = {"0008|0060": "CT", "0010|0020": series[-8:], "0020|000d": generate_uid(), "0020|000e": series}
    shared |= {"0020|0052": generate_uid(), "0020|0037": "\\".join(map(str, directions))}
    for number in range(image.GetDepth()):
        part = image[:, :, number]
        position = image.TransformIndexToPhysicalPoint((0, 0, number))
        own = {"0020|0032": "\\".join(map(str, position)), "0020|0013": str(number), "0008|0018": generate_uid()}
        for tag, value in {**shared, **own}.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{number}.dcm"))
        writer.Execute(part)
    DICOMwebClient(address).store_instances([pydicom.dcmread(file) for file in folder.iterdir()])
    return str(series)


def overlap(found: sitk.Image, truth: Path) -> float:
    """Dice of two label maps in space, whatever the order of their axes."""
    label = sitk.Resample(sitk.ReadImage(str(truth)), found, interpolator=sitk.sitkNearestNeighbor)
    a, b = (sitk.GetArrayFromImage(image) > 0 for image in (found, label))
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_dicom_series_in_and_dicom_seg_out(pacs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = make_studies(tmp_path)
    names = ("phantom_3", "phantom_4")
    images = [sitk.ReadImage(str(studies.images / f"{name}.nii.gz")) for name in names]
    first, second = (store_series(pacs, image, tmp_path / name) for image, name in zip(images, names, strict=True))
    monkeypatch.setenv("HOME", str(tmp_path))  # where MONAI Label keeps what it fetched
    with server(copy_of_app(tmp_path), pacs, studies) as client:
        assert requests.get(f"{client.address}/info/").json()["datastore"]["total"] == 2
        answer = client.infer("runet_chaos", first, output="dicom_seg", label_info=[{"name": "liver", "idx": 1}])
        assert answer.status_code == 200, answer.text
        segmentation = pydicom.dcmread(BytesIO(answer.content))
        assert segmentation.Modality == "SEG" and segmentation.SegmentSequence[0].SegmentLabel == "liver"
        assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == first
        found = pydicom_seg.MultiClassReader().read(segmentation).image
        assert overlap(found, studies.truth / "phantom_3.nii.gz") > 0.5

        client.submit(first, studies.truth / "phantom_3.nii.gz")
        stored = requests.get(f"{pacs}/series", params={"Modality": "SEG"}).json()
        assert len(stored) == 1
        answer = client.infer("registration", second)
        assert answer.status_code == 200, answer.text
        (tmp_path / "answer.nii.gz").write_bytes(answer.content)
        assert overlap(sitk.ReadImage(str(tmp_path / "answer.nii.gz")), studies.truth / "phantom_4.nii.gz") > 0.7
