"""Comparison on the small generated sample: what it measures, and how it goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from faults.inputs import texture, write, write_list
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from fmirnet_monai.baselines import DemonsRegistrar, IdentityRegistrar
from fmirnet_monai.data import LoadedPair, load_pairs, read_image
from fmirnet_monai.registration import PairRegistrar
from fmirnet_monai.registration.intensity import Percentiles
from fmirnet_monai.spatial import Grid
from fmirnet_monai.study import Cases, Context, MethodSpec, compare, parse_methods, running
from fmirnet_monai.study.running import resample_pair
from fmirnet_monai.utils import save_checkpoint

BUNDLE = Path(__file__).parents[2] / "bundles" / "fmirnet_chaos"
FILES = {"": "image", "_label": "label"}
METHODS = ["identity", "demons", "fmirnet", "fmirnet+refine"]


@pytest.fixture(scope="module")
def table(cases: Cases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    compare(cases, parse_methods(METHODS), folder, title="All", pictures=1)
    return folder


def test_one_table_one_figure_every_case(table: Path) -> None:
    content = json.loads((table / "comparison.json").read_text())
    rows = {name: row["metrics"] for name, row in content["rows"].items()}
    assert list(rows) == METHODS and content["n"] == 6 and content["subjects"] == 1
    assert rows["demons"]["dice"]["mean"] > rows["identity"]["dice"]["mean"]
    assert rows["demons"]["digital_folding"]["n"] == 6 and rows["identity"]["digital_folding"]["mean"] == 0
    assert rows["fmirnet+refine"]["ncc"]["mean"] > rows["fmirnet"]["ncc"]["mean"] > rows["identity"]["ncc"]["mean"]
    every = pd.read_csv(table / "comparison.csv", index_col=["method", "case"])
    assert len(every) == 24
    for name, row in rows.items():
        assert every.loc[name, "dice"].mean() == pytest.approx(row["dice"]["mean"], abs=1e-5)
        assert every.loc[name, "dice"].std() == pytest.approx(row["dice"]["sd"], abs=1e-5)
    text = (table / "comparison.md").read_text()
    assert text.startswith("# All\n") and "No case failed" in text and "| demons | 6 |" in text
    assert (table / "comparison.png").stat().st_size > 20_000


def test_single_labels_have_columns_where_asked(tmp_path: Path) -> None:
    label = np.zeros((16, 16, 1), np.uint8)
    label[4:8, 4:12], label[8:12, 4:12] = 1, 2
    for name, values in {"image": 50 * label, "label": label}.items():
        nib.save(nib.Nifti1Image(values.astype(np.uint8), np.eye(4)), tmp_path / f"{name}.nii.gz")
    pair = {f"{side}{kind}": f"{name}.nii.gz" for side in ("moving", "fixed") for kind, name in FILES.items()}
    (tmp_path / "datalist.json").write_text(json.dumps({"test": [{**pair, "subject": "a"}]}))
    cases = Cases(str(tmp_path / "datalist.json"))
    text = compare(cases, parse_methods(["identity", "demons"]), tmp_path, pictures=0, labels={"2": "spleen"})
    assert (
        "| Dice | Dice, spleen | HD95 (mm) |" in text
        and "| NMI | Dice | Dice, spleen |" in text.split("p of")[1]
        and "| NMI | Compared (%) | Dice |" in text
        and "| demons | – |" in text.split("95 % bootstrap")[1]  # of one subject
    )


def test_twice_the_same_numbers_and_nothing_is_run_again(
    table: Path, cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(cases, parse_methods(METHODS), tmp_path, pictures=0)
    first, second = (pd.read_csv(f / "comparison.csv").drop(columns="seconds") for f in (table, tmp_path))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    before = (tmp_path / "comparison.json").read_text()
    monkeypatch.setattr(MethodSpec, "build", lambda *_: pytest.fail("run again"))
    compare(cases, parse_methods(METHODS), tmp_path, pictures=0)
    assert (tmp_path / "comparison.json").read_text() == before


def test_goes_on_after_an_interruption(cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate, calls = IdentityRegistrar.estimate, []

    def stop_at_the_fourth(self: IdentityRegistrar, *images: torch.Tensor) -> object:
        calls.append(1)
        if len(calls) == 5:  # the first one warms up
            raise KeyboardInterrupt
        return estimate(self, *images)

    monkeypatch.setattr(IdentityRegistrar, "estimate", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        compare(cases, parse_methods(["identity"]), tmp_path, pictures=0)
    assert len(pd.read_csv(tmp_path / "cases" / "identity.csv")) == 3
    compare(cases, parse_methods(["identity"]), tmp_path, pictures=0)
    assert len(pd.read_csv(tmp_path / "cases" / "identity.csv")) == 6 and len(calls) == 5 + 1 + 3


def test_failed_case_is_marked_and_the_rest_is_done(
    cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deform, calls = DemonsRegistrar.deform, []

    def fail_once(self: DemonsRegistrar, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("no way")
        return deform(self, *arguments)

    monkeypatch.setattr(DemonsRegistrar, "deform", fail_once)
    text = compare(cases, parse_methods(["identity", "demons"]), tmp_path, pictures=0)
    assert "demons: 1 of 6 failed" in text and "[n = 5]" in text and "no way" in caplog.text
    row = json.loads((tmp_path / "comparison.json").read_text())["rows"]["demons"]
    assert row["failed"] == 1 and row["metrics"]["dice"]["n"] == 5


def test_unreadable_file_is_a_failed_case(small_sample: Path, tmp_path: Path) -> None:
    """Even the first one; the others are done."""
    pairs = load_pairs(small_sample / "datalist.json", "test")[:3]
    pairs[0]["moving"] = str(tmp_path / "broken.nii.gz")
    Path(pairs[0]["moving"]).write_bytes(b"nothing")
    (tmp_path / "list.json").write_text(json.dumps({"test": pairs}))
    cases = Cases(str(tmp_path / "list.json"), spatial_size=48)
    text = compare(cases, parse_methods(["identity"]), tmp_path / "out", pictures=0)
    assert "identity: 1 of 3 failed" in text
    assert "can't be read as an image" in pd.read_csv(tmp_path / "out" / "comparison.csv")["error"][0]


def test_cases_of_other_settings_are_not_mixed_in(table: Path, cases: Cases) -> None:
    other = [MethodSpec("demons", settings={"field_sigma": 3.0})]
    with pytest.raises(ValueError, match=r"demons\.csv: holds cases of other settings"):
        compare(cases, other, table)
    with pytest.raises(ValueError, match=r"identity\.csv: holds cases of other settings"):
        compare(replace(cases, spatial_size=40), parse_methods(["identity"]), table)


def test_resampled_pair_keeps_its_place() -> None:
    affine = np.diag([0.5, 0.25, 2.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    ramp = torch.from_numpy(Grid((40, 60, 8), affine).points()[:, 1].reshape(1, 40, 60, 8)).float()
    image = MetaTensor(ramp, affine=torch.from_numpy(affine))
    label = MetaTensor((ramp > 27).int(), affine=image.affine)
    coarse = resample_pair(LoadedPair(image, image, fixed_label=label), 10)
    grid = Grid.of(coarse.fixed)
    assert grid.shape == (10, 8, 8) and np.allclose(grid.spacing, [2, 1.875, 2])
    inside = grid.points()[:, 1].reshape(grid.shape)[:, 2:-2]
    assert np.abs(coarse.fixed[0].numpy()[:, 2:-2] - inside).max() < 0.01  # millimetres, but for the smoothed border
    assert coarse.fixed_label is not None
    assert abs(float(coarse.fixed_label.float().mean()) - float(label.float().mean())) < 0.1


def test_memory_is_measured_where_it_is_missing(cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "peak_memory", lambda _: 7.0)
    methods, few = parse_methods(["identity"]), replace(cases, count=2)
    text = compare(few, methods, tmp_path, pictures=0)
    assert "Peak memory" not in text
    monkeypatch.setattr(running, "run_case", lambda *_: pytest.fail("run again"))
    assert "7.0 [n = 1]" in compare(few, methods, tmp_path, pictures=0, memory=True)
    monkeypatch.setattr(running, "peak_memory", lambda _: pytest.fail("measured again"))
    assert "7.0 [n = 1]" in compare(few, methods, tmp_path, pictures=0, memory=True)


@pytest.fixture(scope="module")
def hearts(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datalist of real heart slices, end-diastole to end-systole."""
    from fmirnet_monai.cli import main

    base, data = real_data / "acdc", tmp_path_factory.mktemp("hearts")
    main(["prepare", "pairs", "--source_dir", str(base), "--moving", "patient00*_ED.nii.gz", "--fixed",
          "patient00*_ES.nii.gz", "--moving_label", "patient00*_ED_gt.nii.gz", "--fixed_label",
          "patient00*_ES_gt.nii.gz", "--spatial_dims", "2", "--min_label_area", "500", "--output_dir", str(data),
          "--fractions", "0.8,0.1,0.1"])  # fmt: skip
    return data / "datalist.json"


def overlaps(folder: Path) -> dict[str, float]:
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    return {name: row["metrics"]["dice"]["mean"] for name, row in rows.items()}


@pytest.mark.realdata
def test_every_classical_method_registers_a_real_pair(hearts: Path, tmp_path: Path) -> None:
    names = ["identity", "affine", "elastix", "syn", "lddmm", "demons", "optimise", "fmirnet", "fmirnet+refine"]
    cases = Cases(str(hearts), "test", spatial_size=96, count=1)
    compare(cases, parse_methods(names), tmp_path, Context(intensity="percentiles"), pictures=1)
    dice = overlaps(tmp_path)
    assert all(dice[name] > dice["identity"] + 0.05 for name in names[2:]), dice


@pytest.mark.realdata
def test_every_network_registers_a_real_pair_once_it_has_learnt_it(hearts: Path, tmp_path: Path) -> None:
    """Each network of the bundle's variants, trained on one pair for some steps, is compared on that pair."""
    cases = Cases(str(hearts), "test", spatial_size=64, count=1)
    loaded = cases.read(cases.load()[0])
    pair = Percentiles()(torch.cat([loaded.moving, loaded.fixed]))[None]
    variants = {file.stem for file in (BUNDLE / "configs" / "variants").glob("*.json")}
    names = sorted(variants - {"flownet"})  # which learns from known fields, not from the pair
    for name in names:
        torch.manual_seed(0)
        config = ConfigParser()
        config.read_config([BUNDLE / "configs" / "train.json", BUNDLE / "configs" / "variants" / f"{name}.json"])
        network, loss = (config.get_parsed_content(key) for key in ("network_def", "loss"))
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)  # 3e-3 loses some starts
        for _ in range(60):
            optimizer.zero_grad()
            loss(network(pair), pair).backward()
            optimizer.step()
        save_checkpoint(tmp_path / "models" / name / "model.pt", network.state_dict())
    context = Context(intensity="percentiles", models_dir=str(tmp_path / "models"))
    overrides = {"overrides": {"spatial_size": [64, 64]}}
    specs = [MethodSpec("identity"), *(MethodSpec(name, settings=overrides) for name in names)]
    compare(cases, specs, tmp_path / "out", context, pictures=0)
    dice = overlaps(tmp_path / "out")
    assert all(dice[name] > dice["identity"] + 0.05 for name in names), dice


def test_a_case_whose_files_have_changed_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datalist, last = write_list(tmp_path / "in", 3)
    cases, run_case, ran = Cases(str(datalist)), running.run_case, []

    def counted(registrar: PairRegistrar, loaded: LoadedPair) -> object:
        ran.append(float(loaded.moving.mean()))
        return run_case(registrar, loaded)

    monkeypatch.setattr(running, "run_case", counted)
    compare(cases, parse_methods(["identity"]), tmp_path / "out", pictures=0)
    compare(cases, parse_methods(["identity"]), tmp_path / "out", pictures=0)
    assert len(ran) == 3
    changed = write(last, texture((32, 28), 9))
    compare(cases, parse_methods(["identity"]), tmp_path / "out", pictures=0)
    assert ran[3:] == [pytest.approx(float(read_image(changed).mean()))]
    stored = tmp_path / "out" / "cases" / "identity.csv"  # of a version without keys: taken for unchanged
    pd.read_csv(stored, dtype=str).drop(columns="key").to_csv(stored, index=False)
    write(last, texture((32, 28), 10))
    compare(cases, parse_methods(["identity"]), tmp_path / "out", pictures=0)
    assert len(ran) == 4
