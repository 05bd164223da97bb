"""The self-contained form of a bundle runs without this package, and every exported network equals the bundle's own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import BUNDLES, ENVIRONMENT, bundle_words, run

from fmirnet_monai.bundle import load_network
from fmirnet_monai.data import load_pairs, read_image
from fmirnet_monai.export import check_onnx, check_torchscript, export_onnx, needed_sources
from fmirnet_monai.networks import FMIRNet
from fmirnet_monai.study.methods import Context

pytestmark = pytest.mark.slow

NAME = "fmirnet_chaos"
# an interpreter that starts with this on its path has no fmirnet_monai, wherever it is installed
WITHOUT_PACKAGE = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "fmirnet_monai":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    result = run([sys.executable, "-m", "fmirnet_monai", "bundle", "export", NAME, "--output_dir", str(folder)])
    assert result.returncode == 0, result.stderr
    path = Path(result.stdout.strip().splitlines()[-1])
    version = json.loads((BUNDLES / NAME / "configs" / "metadata.json").read_text())["version"]
    assert path == folder / f"{NAME}_v{version}.zip" and list(folder.iterdir()) == [path]
    return path


@pytest.fixture(scope="module")
def unpacked(archive: Path) -> Path:
    with zipfile.ZipFile(archive) as content:
        content.extractall(archive.parent)
    return archive.parent / NAME


def test_archive_is_whole_and_names_no_machine(archive: Path, unpacked: Path) -> None:
    assert archive.stat().st_size < 25e6
    assert (unpacked / "scripts" / "data" / "subjects.json").is_file()  # what a module reads is carried with it
    for line in (unpacked / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((unpacked / name).read_bytes()).hexdigest() == digest
    for file in unpacked.rglob("*"):
        assert file.is_dir() or str(BUNDLES.parent).encode() not in file.read_bytes(), file
    metadata = json.loads((unpacked / "configs" / "metadata.json").read_text())
    assert {"itk", "nibabel", "pytorch-ignite"} < set(metadata["required_packages_version"])
    assert "fmirnet_monai" not in metadata["required_packages_version"]


def test_inference_without_the_package_gives_the_same_field(unpacked: Path, small_sample: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_PACKAGE)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    blocked = [sys.executable, "-c", "import fmirnet_monai"]
    assert subprocess.run(blocked, env=environment, capture_output=True, check=False).returncode != 0
    for name, root, settings in (("ours", BUNDLES / NAME, os.environ), ("theirs", unpacked, environment)):
        options = {"dataset_dir": small_sample, "output_dir": tmp_path / name}
        words = bundle_words("configs/inference.json", **options)
        done = subprocess.run(words, cwd=root, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    fields = sorted((tmp_path / "ours").rglob("*_displacement.nii.gz"))
    assert fields
    for file in fields:
        other = tmp_path / "theirs" / file.relative_to(tmp_path / "ours")
        ours, theirs = (nib.load(path).get_fdata() for path in (file, other))
        assert np.abs(ours).max() > 1
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_exported_files_give_the_field_of_the_network(unpacked: Path, small_sample: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = load_network(BUNDLES / NAME)
    session = onnxruntime.InferenceSession(str(unpacked / "models" / "model.onnx"))
    scripted = torch.jit.load(unpacked / "models" / "model.ts")
    scale = Context(NAME).scale()
    for pair in load_pairs(small_sample / "datalist.json", "test")[:3]:
        image = torch.cat([scale(read_image(pair[key]))[None] for key in ("moving", "fixed")], dim=1).as_tensor()
        image = image[..., 1:, :-2].contiguous()  # an odd size, not that of the export
        with torch.no_grad():
            field = network(image)
            assert field.abs().max() > 1
            torch.testing.assert_close(scripted(image), field, rtol=0, atol=1e-4)
            found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        torch.testing.assert_close(found, field, rtol=0, atol=1e-4)


def test_example_without_pytorch_runs(unpacked: Path, small_sample: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    text = (BUNDLES.parent / "docs" / "how-to" / "onnx.md").read_text()
    (tmp_path / "example.py").write_text(text.split("```python\n")[1].split("```")[0])
    pair = load_pairs(small_sample / "datalist.json", "test")[0]
    words = [unpacked / "models" / "model.onnx", pair["moving"], pair["fixed"], "warped.nii.gz"]
    code = "import runpy, sys; sys.modules['torch'] = None; sys.argv.pop(0); runpy.run_path(sys.argv[0])"
    command = [sys.executable, "-c", code, "example.py", *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    scale = Context(NAME).scale()
    fixed, moving, warped = (scale(read_image(f)) for f in (pair["fixed"], pair["moving"], tmp_path / "warped.nii.gz"))
    assert (warped - fixed).square().mean() < 0.5 * (moving - fixed).square().mean()


FORMS: dict[str, dict[str, Any]] = {
    "composed, diffeomorphic, 3-D": {"spatial_dims": 3, "combine": "compose", "integration_steps": 3},
    "added, spatial and channel attention, 2-D": {"spatial_dims": 2, "attention": "spatial+channel"},
}


@pytest.mark.parametrize("form", FORMS)
def test_onnx_in_both_dimensions_and_any_size(form: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = FMIRNet(channels=(4, 8), num_scales=2, **FORMS[form]).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # an untrained field is next to nothing
            parameter.add_(0.05 * torch.randn_like(parameter))
    dims = network.spatial_dims
    export_onnx(network, [2, *[32] * dims], tmp_path / "n.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "n.onnx"))
    for size in ((1, 2, 33, 50, 21)[: dims + 2], (3, 2, 16, 20, 24)[: dims + 2]):
        image = torch.rand(size)
        field = network(image).detach()
        assert field.abs().max() > 0.01
        found = session.run(None, {"image": image.numpy()})[0]
        np.testing.assert_allclose(found, field.numpy(), rtol=0, atol=1e-4)


def test_an_export_that_differs_is_refused(unpacked: Path) -> None:
    other = load_network(BUNDLES / NAME)
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    for check, file in ((check_onnx, "model.onnx"), (check_torchscript, "model.ts")):
        with pytest.raises(ValueError, match=f"{file}: its output differs by"):
            check(other, unpacked / "models" / file, [2, 128, 128])


def test_needed_sources_are_what_importing_loads() -> None:
    found = needed_sources(["fmirnet_monai.losses.JointLoss"])
    assert "fmirnet_monai.losses.joint" in found and "fmirnet_monai.spatial.field" in found
    assert "fmirnet_monai.cli" not in found and "fmirnet_monai.study" not in found
    code = "import sys, fmirnet_monai.losses; print(*[m for m in sys.modules if m.startswith('fmirnet_monai')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= set(found)
