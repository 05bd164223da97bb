"""The commands on files: what they write, what they refuse, and that nothing half-written stays."""

import hashlib
import json
import re
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from commands import REPOSITORY
from monai.data import MetaTensor

from fmirnet_monai import datalist_files
from fmirnet_monai.cli import main
from fmirnet_monai.data import Points, read_image, read_label, read_points, write_image, write_points
from fmirnet_monai.registration import Method
from fmirnet_monai.spatial import Grid, smooth
from fmirnet_monai.spatial.files import read_displacement


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small 2-D pair with labels and points; the fixed image is the moving one, a little further on."""
    folder = tmp_path_factory.mktemp("pair")
    image = smooth(torch.rand(1, 1, 60, 52, generator=torch.Generator().manual_seed(0)), 2.0)[0]
    image = 100 * (image - image.min()) / (image.max() - image.min())
    affine = torch.tensor([[0.0, -1.2, 5.0], [0.8, 0.0, -9.0], [0.0, 0.0, 1.0]], dtype=torch.double)
    paths = {}
    for name, shift in (("moving", 0), ("fixed", 2)):
        tensor = MetaTensor(image.roll(-shift, 1), affine=affine)
        paths[name] = str(write_image(tensor, folder / f"{name}.nii.gz"))
        paths[f"{name}_label"] = str(write_image(tensor > 60, folder / f"{name}_label.mha"))
        voxels = np.array([[20.0, 30.0], [35.0, 15.0]]) - [shift, 0]
        world = voxels @ affine[:2, :2].numpy().T + affine[:2, 2].numpy()
        paths[f"{name}_points"] = str(write_points(Points(world, ["a", "b"]), folder / f"{name}.csv"))
    return paths


@pytest.fixture(scope="module")
def registered(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out") / "pair"
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    main(["register", *options, "--output_dir", str(output), "--affine", "translation", "--refine", "5"])
    return output


def test_register_writes_everything(registered: Path, files: dict[str, str]) -> None:
    names = ["displacement.nii.gz", "inside.nii.gz", "inverse_displacement.nii.gz", "metrics.json", "report.html"]
    names += ["transform.h5", "warped.nii.gz", "warped_label.nii.gz", "warped_points.csv"]
    assert sorted(path.name for path in registered.iterdir()) == names
    assert list(registered.parent.iterdir()) == [registered]
    content = json.loads((registered / "metrics.json").read_text())
    assert content["metrics"]["tre_mean"] < 0.5 * content["metrics"]["before_tre_mean"]
    assert content["metrics"]["dice"] > content["metrics"]["before_dice"]
    assert content["settings"]["method"] == "fmirnet_universal" and content["pair"]["moving"] == files["moving"]
    moved, target = (
        read_points(path, 2).positions for path in (registered / "warped_points.csv", files["fixed_points"])
    )
    assert np.linalg.norm(moved - target, axis=1).mean() < 1.0


def test_metrics_json_is_as_documented(registered: Path, files: dict[str, str]) -> None:
    content = json.loads((registered / "metrics.json").read_text())
    documented = set(re.findall(r"`(\w+)`", (REPOSITORY / "docs" / "background" / "metrics.md").read_text()))
    metrics = {name.removeprefix("before_") for name in content["metrics"]}
    for keys in (content, metrics, content["seconds"], content["settings"], content["versions"]):
        assert set(keys) <= documented
    assert content["schema"] == 1 and content["pair"] == files
    assert content["verdict"] in ("good", "look", "failed") and 0 <= content["verdict_risk"] <= 1
    assert all(text.endswith(".") for text in content["verdict_reasons"])
    assert bool(content["verdict_reasons"]) or content["verdict"] == "good"
    assert content["files"] == sorted(path.name for path in registered.iterdir())
    assert content["sha256"] == {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files.values()}
    weights = REPOSITORY / "bundles" / "fmirnet_universal" / "models" / "model.pt"
    assert content["settings"]["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_the_same_command_gives_the_same_bits(registered: Path, files: dict[str, str], tmp_path: Path) -> None:
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    main(["register", *options, "--output_dir", str(tmp_path / "b"), "--affine", "translation", "--refine", "5"])
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (registered, tmp_path / "b"))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    for name in ("warped.nii.gz", "displacement.nii.gz", "inverse_displacement.nii.gz"):
        one, other = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name))) for folder in (registered, tmp_path / "b")
        )
        np.testing.assert_array_equal(one, other)


def test_warp_command_and_simpleitk_repeat_the_result(registered: Path, files: dict[str, str], tmp_path: Path) -> None:
    main(["warp", "--image", files["moving"], "--transform", str(registered / "displacement.nii.gz"), "--output",
          str(tmp_path / "again.nii.gz")])  # fmt: skip
    again, first = read_image(tmp_path / "again.nii.gz"), read_image(registered / "warped.nii.gz")
    assert np.allclose(again, first, atol=1e-2)
    vectors = sitk.ReadImage(str(registered / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    moving, reference = sitk.ReadImage(files["moving"]), sitk.ReadImage(files["fixed"])
    transform = sitk.DisplacementFieldTransform(vectors)
    resampled = sitk.GetArrayFromImage(sitk.Resample(moving, reference, transform, sitk.sitkLinear)).T
    inside = resampled > 0
    assert inside.mean() > 0.8 and np.abs(resampled - np.asarray(first)[0])[inside].max() < 0.1


def test_points_go_there_and_back(registered: Path, files: dict[str, str], tmp_path: Path) -> None:
    for transform, source, target in (
        ("displacement.nii.gz", files["fixed_points"], tmp_path / "there.csv"),
        ("inverse_displacement.nii.gz", tmp_path / "there.csv", tmp_path / "back.csv"),
    ):
        main(["warp_points", "--points", str(source), "--transform", str(registered / transform), "--output",
              str(target)])  # fmt: skip
    start, back = read_points(files["fixed_points"], 2), read_points(tmp_path / "back.csv", 2)
    assert np.abs(start.positions - back.positions).max() < 0.05 and back.names == ["a", "b"]


def test_invert_compose_jacobian_metrics(registered: Path, files: dict[str, str], tmp_path: Path,
                                         capsys: pytest.CaptureFixture) -> None:  # fmt: skip
    field = str(registered / "displacement.nii.gz")
    main(["invert", "--transform", field, "--output", str(tmp_path / "inverse.nrrd")])
    main(["compose", "--transforms", f"{field},{tmp_path / 'inverse.nrrd'}", "--output", str(tmp_path / "none.mha")])
    assert read_displacement(tmp_path / "none.mha").ddf[:, 8:-8, 8:-8].abs().max() < 0.02  # the inverse, then the field
    main(["jacobian", "--transform", field, "--output", str(tmp_path / "jacobian.nii.gz")])
    determinant = read_image(tmp_path / "jacobian.nii.gz")
    assert determinant.shape == (1, 60, 52) and 0.8 < determinant.mean() < 1.2
    capsys.readouterr()
    main(["metrics", "--label", str(registered / "warped_label.nii.gz"), "--fixed_label", files["fixed_label"],
          "--moving_points", files["moving_points"], "--fixed_points", files["fixed_points"], "--transform", field,
          "--output", str(tmp_path / "m.json")])  # fmt: skip
    values, expected = (json.loads(path.read_text()) for path in (tmp_path / "m.json", registered / "metrics.json"))
    for name in ("dice", "assd", "tre_mean"):
        assert values[name] == pytest.approx(expected["metrics"][name], abs=1e-3)


def test_a_verdict_and_local_uncertainty_where_asked_for(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["register", f"--moving={files['moving']}", f"--fixed={files['fixed']}", f"--output_dir={tmp_path}/out"]
    main([*words, "--report=false", "--inverse=false", "--uncertainty"])
    assert re.search(r"^verdict: (good|look|failed)$", capsys.readouterr().out, re.MULTILINE)
    uncertainty = read_image(tmp_path / "out" / "uncertainty.nii.gz")
    assert Grid.of(uncertainty).matches(Grid.of(read_image(files["fixed"]))) and float(uncertainty.min()) >= 0
    main([*words, "--report=false", "--inverse=false", "--metrics=false"])
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert not any(name.startswith("verdict") for name in (*content, *content["seconds"]))
    assert "verdict:" not in capsys.readouterr().out and not (tmp_path / "out" / "uncertainty.nii.gz").exists()


def test_a_batch_has_a_page_that_links_each_pairs_own(files: dict[str, str], tmp_path: Path) -> None:
    pairs = [
        {"moving": "missing.nii.gz", "fixed": files["fixed"]},
        {"moving": files["moving"], "fixed": files["fixed"]},
    ]
    (tmp_path / "pairs.json").write_text(json.dumps({"test": pairs}))
    words = ["register", "--datalist", str(tmp_path / "pairs.json"), "--output_dir", str(tmp_path / "out")]
    pages = []
    for more in ([], ["--overwrite", "false"]):
        with pytest.raises(SystemExit):
            main([*words, "--refine", "0", *more])
        pages.append((tmp_path / "out" / "report.html").read_text())
    assert pages[0] == pages[1]  # what was done before is shown as it was
    (link,) = re.findall(r'href="([^"]+report.html)"', pages[0])
    pair = (tmp_path / "out" / link).read_text()
    (thumbnail,) = re.findall(r'<img src="(data:image/webp;base64,[^"]+)"', pages[0])
    assert f'<link rel="icon" href="{thumbnail}">' in pair
    assert "missing.nii.gz; check the path." in pages[0]
    assert pages[0].index("0000_missing") < pages[0].index("0001_moving")  # what failed comes first


def test_datalist_goes_on_and_reports_what_failed(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [
        {"moving": files["moving"], "fixed": files["fixed"]},
        {"moving": "missing.nii.gz", "fixed": files["fixed"]},
    ]
    (tmp_path / "pairs.json").write_text(json.dumps({"test": pairs}))
    words = ["register", "--datalist", str(tmp_path / "pairs.json"), "--output_dir", str(tmp_path / "out")]
    words += ["--refine", "0", "--report", "false"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert len(table) == 2 and "missing.nii.gz" in table["error"][1] and pd.isna(table["error"][0])
    assert table["verdict"][0] in ("good", "look", "failed") and pd.isna(table["verdict"][1])
    assert re.search(r"^verdict: (1 good, 0 look|0 good, 1 look), 0 failed$", capsys.readouterr().out, re.MULTILINE)
    done = tmp_path / "out" / "0000_moving_to_fixed" / "metrics.json"
    before = done.stat().st_mtime_ns
    assert not (done.parent / "report.html").exists() and not (tmp_path / "out" / "report.html").exists()
    with pytest.raises(SystemExit):
        main(words)
    assert done.stat().st_mtime_ns == before
    with pytest.raises(SystemExit):
        main([*words, "--overwrite"])
    assert done.stat().st_mtime_ns > before


def test_a_datalist_whose_process_is_killed_says_how_it_goes_on(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise ChildProcessError("registering: one of 2 processes was killed.")

    monkeypatch.setattr(datalist_files, "at_a_time", killed)
    (tmp_path / "pairs.json").write_text(json.dumps({"test": [{key: files[key] for key in ("moving", "fixed")}]}))
    with pytest.raises(SystemExit):
        main(["register", "--datalist", str(tmp_path / "pairs.json"), "--output_dir", str(tmp_path / "out")])
    assert "killed. What is done is kept: start the command again." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--moving", "nowhere.nii.gz"], "no such image: nowhere.nii.gz"),
        (["--moving", "{volume}"], "3-D and .*2-D; both must be the same"),
        (["--moving", "{far}"], "no overlap in space"),
        (["--moving_points", "{off}"], "2 of 2 points lie off the image"),
        (["--affine", "bspline"], "affine must be one of"),
        (["--refine", "-3"], "refine must be at least 0, got -3"),
        (["--intensity", "high"], "intensity must be auto, bundle, percentiles or LOW,HIGH"),
        (["--bundle", "resnet"], "bundle: resnet is no bundle"),
        (["--refin", "3"], "did you mean --refine"),
        (["--device", "tpu9"], "device"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    options: list[str], message: str, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    far = torch.eye(3, dtype=torch.double)
    far[:2, 2] = 900
    names = {
        "volume": write_image(MetaTensor(torch.rand(1, 9, 9, 9)), tmp_path / "v.nii.gz"),
        "far": write_image(MetaTensor(torch.rand(1, 20, 20), affine=far), tmp_path / "f.nii.gz"),
        "off": write_points(Points(np.full((2, 2), 5000.0), ["a", "b"]), tmp_path / "off.csv"),
    }
    given = dict(zip(options[::2], options[1::2], strict=True))
    words = {"--moving": files["moving"], "--fixed": files["fixed"], "--output_dir": str(tmp_path / "out"), **given}
    with pytest.raises(SystemExit) as stopped:
        main(["register", *[word.format(**names) for item in words.items() for word in item]])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert pd.Series([error]).str.contains(message).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.nii.gz", "off.csv", "v.nii.gz"]


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A volume with a moving ball of two labels, and its label on three slices only."""
    folder = tmp_path_factory.mktemp("volume")
    x, y, z = torch.meshgrid(torch.arange(48.0), torch.arange(40.0), torch.arange(9.0), indexing="ij")
    distance = ((x - 18 - z) ** 2 + (y - 20) ** 2).sqrt()
    label = torch.where(distance < 6, 5, torch.where(distance < 11, 2, 0)).int()
    image = 200 * torch.sigmoid(11 - distance) + 300 * torch.sigmoid(6 - distance) + x
    affine = torch.diag(torch.tensor([-1.5, 1.5, 5.0, 1.0], dtype=torch.double))
    sparse = label.clone()
    sparse[..., [1, 2, 3, 5, 6, 7]] = 0
    tensors = {"image": image, "label": label, "sparse": sparse}
    return {
        name: write_image(MetaTensor(tensor[None], affine=affine), folder / f"{name}.nii.gz")
        for name, tensor in tensors.items()
    }


def test_propagate_takes_the_weights_for_slices_unless_these_cannot_do_it(
    volume: dict[str, Path],
) -> None:
    image = read_image(volume["image"])
    for named, learned in (({}, True), ({"bundle": "none"}, False), ({"similarity": "lncc"}, False)):
        _, registrar = Method(**named).slice_registrar(image)
        assert registrar.settings.get("bundle", "").endswith("fmirnet_universal") == learned
        assert (registrar.network is not None) == learned


@pytest.mark.parametrize("bundle", ["none", "fmirnet_chaos", "fmirnet_universal"])
def test_propagate_labels_the_slices_between(
    volume: dict[str, Path], tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--image", str(volume["image"]), "--label", str(volume["sparse"])]
    main(["propagate", *files, "--output", str(tmp_path / "full.nii.gz"), "--bundle", bundle])
    said = capsys.readouterr().out
    assert "annotated along axis 2: 0, 4, 8\n" in said and str(tmp_path / "full.nii.gz") in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full.nii.gz", "full_confidence.nii.gz"]
    found, truth = read_label(tmp_path / "full.nii.gz"), read_label(volume["label"])
    np.testing.assert_allclose(found.affine, truth.affine)
    for value in (2, 5):
        a, b = found == value, truth == value
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.93
    confidence = read_image(tmp_path / "full_confidence.nii.gz")
    assert confidence.min() >= 0.3 and confidence.max() <= 1 and (confidence[..., [0, 4, 8]] == 1).all()


def test_propagate_takes_the_labels_that_are_named(volume: dict[str, Path], tmp_path: Path) -> None:
    files = ["--image", str(volume["image"]), "--label", str(volume["sparse"]), "--output", str(tmp_path / "full.mha")]
    main(["propagate", *files, "--label_ids", "5", "--confidence", str(tmp_path / "sure.nrrd")])
    assert set(read_label(tmp_path / "full.mha").unique().tolist()) == {0, 5} and (tmp_path / "sure.nrrd").is_file()


def test_what_is_propagated_is_written_before_a_network_learns_it(
    volume: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmirnet_monai.registration.relabel", Mock(side_effect=KeyboardInterrupt))
    files = ["--image", str(volume["image"]), "--label", str(volume["sparse"]), "--output", str(tmp_path / "full.mha")]
    with pytest.raises(SystemExit, match="130"):
        main(["propagate", *files, "--train_epochs", "2"])
    assert set(read_label(tmp_path / "full.mha").unique().tolist()) == {0, 2, 5}
    assert (tmp_path / "full_confidence.mha").is_file()


def test_propagate_with_a_network_that_learns_the_volume(volume: dict[str, Path], tmp_path: Path) -> None:
    files = ["--image", str(volume["image"]), "--label", str(volume["sparse"]), "--output", str(tmp_path / "full.mha")]
    main(["propagate", *files, "--train_epochs", "2"])
    found, truth = read_label(tmp_path / "full.mha"), read_label(volume["label"])
    assert set(found.unique().tolist()) == {0, 2, 5} and (found[..., [0, 4, 8]] == truth[..., [0, 4, 8]]).all()
    assert (tmp_path / "full_confidence.mha").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "whole"}, r"label\.nii\.gz: no slice is left between the annotated ones"),
        ({"label": "other"}, r"other\.nii\.gz: lies on another grid than .*: it has \(48, 40, 8\) voxels, not"),
        ({"label": "empty"}, r"empty\.nii\.gz: all of it is background"),
        ({"label_ids": "5,9"}, r"has no label 9; it holds 2, 5"),
        ({"slices": "0,4"}, r"8 along axis 2 carry labels but are not among"),
        ({"output": "full.jpg"}, "unknown suffix"),
        ({"intensity": "bundle"}, "the bundle has no window of its own"),
        ({"train_epochs": "-1"}, "train_epochs must be at least 0, got -1"),
    ],
)
def test_propagate_refuses_what_cannot_work(
    volume: dict[str, Path], tmp_path: Path, options: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse = read_label(volume["sparse"])
    if options.get("label") == "whole":
        options = {"label": str(volume["label"])}
    elif options.get("label") == "other":
        options = {"label": str(write_image(sparse[..., :8], tmp_path.parent / "other.nii.gz"))}
    elif options.get("label") == "empty":
        options = {"label": str(write_image(sparse * 0, tmp_path.parent / "empty.nii.gz"))}
    words = {"image": volume["image"], "label": volume["sparse"], "output": tmp_path / "full.nii.gz", **options}
    if "output" in options:
        words["output"] = tmp_path / options["output"]
    with pytest.raises(SystemExit):
        main(["propagate", *(word for name, value in words.items() for word in (f"--{name}", str(value)))])
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
