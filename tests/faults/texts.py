"""Whole tables, lists, settings and landmarks of every form that is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .readers import Seed, one


def tables() -> Iterator[Seed]:
    """Tables, lists and settings, as CSV and JSON."""
    beside = dict.fromkeys(("a.nii.gz", "b.nii.gz", "c.nii.gz"), b".")
    rows = {
        "case table": [{"image": "a.nii.gz", "label": "b.nii.gz", "subject": "1"}, {"image": "c.nii.gz"}],
        "pair table": [
            {"moving": "a.nii.gz", "fixed": "b.nii.gz", "subject": "1"},
            {"moving": "c.nii.gz", "fixed": "a.nii.gz"},
        ],
    }
    for kind, content in rows.items():
        head = list(content[0])
        lines = [",".join(head), *(",".join(row.get(key, "") for key in head) for row in content)]
        for name, text, form in (("t.csv", "\n".join(lines) + "\n", "text"), ("t.json", json.dumps(content), "json")):
            yield Seed(kind, {**beside, name: text.encode()}, name, form, kind, name)
    pair = {"moving": "a.nii.gz", "fixed": ["b.nii.gz"], "moving_label": "c.nii.gz", "subject": "1", "slice": 3}
    lists: dict[str, Any] = {"name": "x", "num_training": 1, "training": [pair], "validation": [], "test": []}
    lists["volumes"] = {"training": [{"image": "a.nii.gz", "label": "b.nii.gz", "subject": "1"}]}
    yield Seed("datalist", {**beside, "d.json": json.dumps(lists).encode()}, "d.json", "json", "datalist", "d.json")
    sections = {"training": ["1", "2"], "validation": ["3"], "test": ["4"]}
    yield from one("sections", "s.json", json.dumps(sections).encode(), "json", "sections")
    tuned = {"methods": {"elastix": {"settings": {"iterations": 50}, "criterion": "dice", "trials": []}}}
    yield from one("tuned settings", "tuned.json", json.dumps(tuned).encode(), "json", "tuned")
    shared = {"prepare": [["prepare", "folder", "--output_dir", "{work}/x"]], "datalist": "x/datalist.json"}
    study = {"data": "data.json", "title": "T", "methods": [{"name": "identity"}, "elastix"], "cases": {"count": 3}}
    files = {"study.json": json.dumps(study).encode(), "data.json": json.dumps(shared).encode()}
    for name in files:
        yield Seed("study", files, name, "json", "study", "study.json")
    config = {
        "imports": ["$import torch"],
        "spatial_dims": 2,
        "network_def": {"_target_": "torch.nn.Conv2d", "in_channels": 1},
    }
    bundle = {"b/configs/inference.json": config, "b/configs/variants/small.json": {"spatial_dims": 3}}
    files = {name: json.dumps(content).encode() for name, content in bundle.items()}
    for name in files:
        yield Seed("bundle config", files, name, "json", "bundle", "b")


def points() -> Iterator[Seed]:
    """Landmarks in every form that is read."""
    places = [(-1.5, 2.25, 3.0, "liver"), (10.0, -20.5, 30.125, "spleen, upper"), (0.0, 0.0, 1.0, "")]
    csv = "x,y,z,name\n" + "".join(f'{x},{y},{z},"{name}"\n' for x, y, z, name in places)
    yield from one("points csv", "p.csv", csv.encode(), "text", "points")
    table = "label,r,a,s,defined,selected\n" + "".join(f'"{n}",{x},{y},{z},1,1\n' for x, y, z, n in places)
    yield from one("points csv", "p.csv", table.encode(), "text", "points")
    fcsv = "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    fcsv += "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label\n"
    fcsv += "".join(f'{i},{x},{y},{z},0,0,0,1,1,1,0,"{n}"\n' for i, (x, y, z, n) in enumerate(places))
    yield from one("points fcsv", "p.fcsv", fcsv.encode(), "text", "points")
    vtk = "# vtk DataFile Version 3.0\npoints SPACE=RAS\nASCII\nDATASET POLYDATA\nPOINTS 3 float\n"
    vtk += "".join(f"{x} {y} {z}\n" for x, y, z, _ in places)
    yield from one("points vtk", "p.vtk", vtk.encode(), "text", "points")
    control = [{"label": n, "position": [x, y, z], "positionStatus": "defined"} for x, y, z, n in places]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": control}
    yield from one("points mrk.json", "p.mrk.json", json.dumps({"markups": [markup]}).encode(), "json", "points")
