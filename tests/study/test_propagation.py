"""The comparison of label propagation: which slices count, what is written, and that it goes on where it broke off."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from monai.data import MetaTensor

from fmirnet_monai.registration import Annotation
from fmirnet_monai.study import propagation, run_study
from fmirnet_monai.study.propagation import PropagationMethod, every_kth, overlap_between, sparse_label


def cone() -> MetaTensor:
    """A label that shrinks evenly along the last axis, on slices 2 to 18."""
    x, y, z = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), torch.arange(21.0), indexing="ij")
    radius = 16 - 0.6 * z
    return MetaTensor((((x - 20) ** 2 + (y - 20) ** 2).sqrt() < radius)[None].int() * ((z >= 2) & (z <= 18)))


def test_the_first_and_the_last_labelled_slice_are_annotated() -> None:
    label = cone()
    annotation = every_kth(label, 6)
    assert annotation == Annotation(2, (2, 8, 14, 18))
    sparse = sparse_label(label, annotation)
    kept = [z for z in range(21) if sparse[..., z].any()]
    assert kept == [2, 8, 14, 18] and torch.equal(sparse[..., kept], label[..., kept])


def test_only_slices_between_annotated_ones_count() -> None:
    label = cone()
    annotation = every_kth(label, 6)
    assert overlap_between(label, label, annotation) == {1: 1.0}
    found = label.clone()
    found[..., [0, 1, 2, 8, 14, 18, 19, 20]] = 1 - found[..., [0, 1, 2, 8, 14, 18, 19, 20]]
    assert overlap_between(found, label, annotation) == {1: 1.0}
    found[..., 9] = 0
    assert 0.8 < overlap_between(found, label, annotation)[1] < 1.0


@pytest.mark.parametrize("name", ["interpolation", "morphological"])
def test_opponents_know_a_cone(name: str) -> None:
    label = cone()
    annotation = every_kth(label, 8)
    found, seconds = PropagationMethod(name).run(label.float(), sparse_label(label, annotation), annotation)
    assert seconds > 0
    assert found.shape == label.shape and overlap_between(found, label, annotation)[1] > 0.97


def test_methods_that_differ_in_the_training_share_the_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    label = cone()
    annotation = every_kth(label, 8)
    arguments = (label.float(), sparse_label(label, annotation), annotation, {})
    found, seconds = PropagationMethod("registration").run(*arguments)
    monkeypatch.setattr(propagation, "propagate", lambda *_, **__: pytest.fail("registered again"))
    learnt, longer = PropagationMethod("registration", settings={"train_epochs": 1}).run(*arguments)
    assert longer > seconds and not torch.equal(found, learnt)
    assert torch.equal(found, PropagationMethod("registration").run(*arguments)[0])
    with pytest.raises(pytest.fail.Exception, match="registered again"):
        PropagationMethod("registration", settings={"intensity": "percentiles"}).run(*arguments)


def test_labels_beyond_a_byte_keep_their_numbers() -> None:
    label = cone() * 300
    annotation = every_kth(label, 8)
    found, _ = PropagationMethod("morphological").run(label.float(), sparse_label(label, annotation), annotation)
    assert set(found.unique().tolist()) == {0, 300} and overlap_between(found, label, annotation)[300] > 0.97


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="guess is no method of propagation"):
        PropagationMethod("guess")


def test_study_from_raw_data_to_table(raw_phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = {
        "kind": "propagation",
        "title": "Tiny",
        "prepare": [
            ["prepare", "chaos", "--source_dir", "{source}", "--output_dir", "{work}/d", "--volumes"]
            + ["--sections", str(tmp_path / "sections.json")]
        ],
        "volumes": [
            {"set": "one", "datalist": "d/datalist.json", "section": "test"},
            {"set": "two", "datalist": "d/datalist.json", "section": "training"},
        ],
        "every": [4],
        "methods": [
            {"name": "registration", "label": "ours", "settings": {"bundle": "fmirnet_chaos", "refine": 0}},
            {"name": "interpolation"},
        ],
    }
    one, *two = [f"chaos_ct_{number}" for number in (4, 1, 2)]
    (tmp_path / "sections.json").write_text(json.dumps({"training": two, "validation": ["chaos_ct_3"], "test": [one]}))
    (tmp_path / "study.json").write_text(json.dumps(study))
    arguments = (tmp_path / "study.json", raw_phantom, tmp_path / "work", tmp_path / "results")
    text = run_study(*arguments)
    assert "one: n = 1 volume, 1 label." in text and "two: n = 2 volumes, 1 label." in text
    cases = pd.read_csv(tmp_path / "results" / "study.csv")
    assert len(cases) == 6 and cases["dice"].between(0.8, 1).all()
    assert set(json.loads((tmp_path / "results" / "study.json").read_text())["dice"]) == {"ours", "interpolation"}
    monkeypatch.setattr(propagation, "propagate", lambda *_, **__: pytest.fail("run again"))
    assert run_study(*arguments) == text
    study["volumes"] = study["volumes"][:1]
    (tmp_path / "study.json").write_text(json.dumps(study))
    assert "two:" not in run_study(*arguments)  # cases of volumes that are no longer asked for
    study["methods"][0]["settings"]["refine"] = 1
    (tmp_path / "study.json").write_text(json.dumps(study))
    with pytest.raises(ValueError, match="holds cases of ours with other settings"):
        run_study(*arguments)
    (tmp_path / "sections.json").write_text(json.dumps({"training": [one, *two, "chaos_ct_3"]}))
    with pytest.raises(ValueError, match="subject chaos_ct_3 is in 'validation' here and in 'training' of"):
        run_study(*arguments)
