"""The generated files that the blocks of the documentation's pages work on, under the names that the pages use."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from fmirnet_monai.cli import main
from fmirnet_monai.data import (
    Pairing,
    Points,
    Volume,
    find_chaos_cases,
    phantom_clip,
    phantom_volume,
    read_chaos_case,
    read_image,
    write_chaos_layout,
    write_image,
    write_pairs,
    write_phantom,
    write_points,
)
from fmirnet_monai.spatial import Affine, DisplacementField, Grid, Map, resample
from fmirnet_monai.spatial.itk import write_transform

Size = dict[str, tuple[Any, ...]]
PAIR: Size = {"shape": (48, 40, 24), "spacing": (8.0, 8.0, 10.0)}  # voxels and mm
SMALL: Size = {"shape": (64, 56, 14), "spacing": (6.0, 6.0, 9.0)}
ELASTIX = """(Transform "{name}Transform")
(NumberOfParameters {count})
(TransformParameters {values})
(InitialTransformParametersFileName "{initial}")
(HowToCombineTransforms "Compose")
(FixedImageDimension 3)
(MovingImageDimension 3)
(CenterOfRotationPoint 0 0 0)
"""


class Edges(nn.Module):
    """Features of an image: itself and how steep it is along each axis."""

    def forward(self, image: Tensor) -> Tensor:
        steep = [image - image.roll(1, axis) for axis in range(2, image.dim())]
        return torch.cat([image, *steep], dim=1)


def write_examples(folder: Path) -> None:
    """Fill the current folder, which is empty; takes some seconds."""
    _write_pair(folder)
    _write_slices(folder)
    _write_transforms(folder)
    _write_series(folder)
    _write_few_slices(folder)
    _write_pairs(folder)
    _write_sets(folder)


@dataclass(frozen=True, eq=False)
class Moved:
    """A generated volume, and the same after a smooth deformation that is known: image and label of both sides."""

    grid: Grid
    known: DisplacementField
    sides: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, seed: int, shape: tuple[int, ...], spacing: tuple[float, ...]) -> Moved:
        volume = phantom_volume(str(seed), seed, shape, spacing)
        grid, rng = Grid(shape, volume.affine), np.random.default_rng(seed)
        shift = np.stack([gaussian_filter(noise, 5) for noise in rng.normal(size=(3, *shape))])
        known = DisplacementField(torch.from_numpy(shift / np.abs(shift).max() * 2.0).float(), grid)  # 2 voxels at most
        image, label = torch.from_numpy(volume.image)[None], torch.from_numpy(volume.label)[None]
        noise = torch.from_numpy(rng.normal(0, 8, (1, *shape)))
        after = resample(image, grid, known, grid=grid)[0] + noise
        organ = resample(label, grid, known, grid=grid, mode="nearest")[0]
        return cls(grid, known, {"pre": (image, label), "post": (after, organ)})


def _write_pair(folder: Path) -> None:
    pair = Moved.of(1, **PAIR)
    for side, (image, label) in pair.sides.items():
        _write(image, folder / f"{side}.nii.gz", pair.grid)
        write_image(label, folder / f"liver_{side}.nii.gz", pair.grid)
        write_image((image > -500).to(torch.uint8), folder / f"{side}_mask.nii.gz", pair.grid)
        _write(500 * torch.sin(image / 120).abs(), folder / f"t2_{side}.nii.gz", pair.grid)
        write_chaos_layout(Volume(side, image[0].numpy(), pair.grid.affine, label[0].numpy()), folder / side)
        (folder / side / "DICOM_anon").rename(folder / f"{side}_dicom")
        shutil.rmtree(folder / side)
    shutil.copyfile(folder / "pre.nii.gz", folder / "ct.nii.gz")
    shutil.copyfile(folder / "t2_post.nii.gz", folder / "mr.nii.gz")
    _write_landmarks(folder, pair.grid, pair.known)
    torch.jit.trace(Edges(), torch.rand(1, 1, 8, 8, 8)).save(folder / "features.pt")


def _write(values: Tensor, path: Path, grid: Grid) -> None:
    write_image(values.round().to(torch.int16), path, grid)


def _write_landmarks(folder: Path, grid: Grid, known: Map) -> None:
    """Eight of the body, of the fixed image and where the known map finds them in the moving one."""
    middle, step = np.array(grid.shape) / 2, np.array(grid.shape) / 6
    corners = np.stack(np.meshgrid(*[[-1, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    fixed = grid.to_world(middle + corners * step)
    moving = known(torch.from_numpy(fixed))[0].numpy()
    names = [f"L{number}" for number in range(1, len(fixed) + 1)]
    for name, positions in (("pre", moving), ("post", fixed)):
        write_points(Points(positions, names), folder / f"{name}.csv")


def _write_slices(folder: Path) -> None:
    """One slice of each volume of the pair, in twice as many pixels; the images as pictures too."""
    sources = {f"slice_{kind}{side}": f"{kind}{side}" for kind in ("", "liver_", "t2_") for side in ("pre", "post")}
    for name, source in {**sources, "slice_mr": "mr"}.items():
        plane = np.asarray(nib.load(folder / f"{source}.nii.gz").dataobj)[..., 13].repeat(2, 0).repeat(2, 1)
        grid = Grid(plane.shape, np.diag([-4.0, -4.0, 1.0]))
        write_image(torch.from_numpy(plane)[None], folder / f"{name}.nii.gz", grid)
        if source in ("pre", "post"):
            grey = np.clip((plane.astype(float) + 125) / 400 * 255, 0, 255).astype(np.uint8)
            Image.fromarray(grey.T).save(folder / f"{name}.png")


def _write_transforms(folder: Path) -> None:
    grid = Grid.of(read_image(folder / "post.nii.gz"))
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [2, -3, 4], degrees=True).as_matrix()
    turn[:3, 3] = (6, -4, 5)
    rigid = Affine(turn)
    write_transform(rigid, folder / "rigid.tfm")
    for form, name in (("fsl", "flirt.mat"), ("lta", "rigid.lta"), ("afni", "rigid.aff12.1D"), ("fsl", "fnirt.nii.gz")):
        write_transform(rigid, folder / name, grid, form, grid, grid)
    for number, name, values in ((0, "Translation", "4 -3 2"), (1, "Affine", "1.02 0.01 0 0 0.98 0 0 0 1 2 1 -3")):
        initial = "NoInitialTransform" if number == 0 else "TransformParameters.0.txt"
        text = ELASTIX.format(name=name, count=len(values.split()), values=values, initial=initial)
        (folder / f"TransformParameters.{number}.txt").write_text(text)
    labels = ["--moving_label", "liver_pre.nii.gz", "--fixed_label", "liver_post.nii.gz"]
    points = ["--moving_points", "pre.csv", "--fixed_points", "post.csv"]
    main(["register", "--moving", "pre.nii.gz", "--fixed", "post.nii.gz", *labels, *points, "--output_dir", "out"])


def _write_series(folder: Path) -> None:
    clip, traced = phantom_clip(3, 5, 56)
    frames = np.moveaxis(clip, 0, -1)[:, :, None]
    cine = nib.Nifti1Image(frames, np.diag([-2.0, -2.0, 8.0, 1.0]))
    cine.header.set_xyzt_units("mm", "sec")
    cine.header["pixdim"][4] = 0.1
    nib.save(cine, folder / "cine.nii.gz")
    cavity = (frames[..., 0] < 60) & (frames[..., 0] > 0)
    nib.save(nib.Nifti1Image(cavity.astype(np.uint8), cine.affine), folder / "drawn_cine.nii.gz")
    apex = np.array([[-2.0, -2.0, 0.0]]) * [*traced[0, 0, :2], 0.0]
    write_points(Points(apex, ["apex"]), folder / "apex.csv")
    (folder / "phases").mkdir()
    post = read_image(folder / "post.nii.gz")
    grid = Grid.of(post)
    for number in range(4):
        moved = np.eye(4)
        moved[2, 3] = 6.0 * number  # mm towards the head
        frame = resample(post, grid, Affine(moved))[0]
        _write(frame, folder / "phases" / f"t{number}.nii.gz", grid)


def _write_few_slices(folder: Path) -> None:
    volume = phantom_volume("scan", 7, **SMALL)
    grid = Grid(volume.image.shape, volume.affine)
    _write(torch.from_numpy(volume.image)[None], folder / "scan.nii.gz", grid)
    truth = torch.from_numpy(volume.label)[None]
    write_image(truth, folder / "truth.nii.gz", grid)
    shown = truth[0].any(0).any(0).nonzero().flatten()
    drawn = torch.zeros_like(truth)
    for index in {*shown[::5].tolist(), int(shown[-1])}:
        drawn[..., index] = truth[..., index]
    write_image(drawn, folder / "drawn.nii.gz", grid)


def _write_pairs(folder: Path) -> None:
    """Three cases, each of a subject and what has become of it; every section of the datalist has some."""
    target = folder / "pairs"
    target.mkdir()
    sections: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    for number in range(1, 4):
        case = Moved.of(10 + number, **SMALL)
        for side, (image, label) in case.sides.items():
            _write(image, target / f"{number:02d}_{side}.nii.gz", case.grid)
            write_image(label, target / f"{number:02d}_{side}_liver.nii.gz", case.grid)
        names = {"moving": "pre", "fixed": "post", "moving_label": "pre_liver", "fixed_label": "post_liver"}
        pair = {key: f"pairs/{number:02d}_{name}.nii.gz" for key, name in names.items()}
        for section, last in (("training", 2), ("validation", 2), ("test", 3)):
            if number <= last:
                sections[section].append({**pair, "subject": f"{number:02d}"})
    (folder / "pairs.json").write_text(json.dumps(sections, indent=2))


def _write_sets(folder: Path) -> None:
    write_phantom(folder / "CHAOS", subjects=4, seed=5, **SMALL)
    cases = find_chaos_cases(folder / "CHAOS")
    volumes = folder / "volumes"
    volumes.mkdir()
    for number, volume in enumerate(map(read_chaos_case, cases), 1):
        grid = Grid(volume.image.shape, volume.affine)
        _write(torch.from_numpy(volume.image)[None], volumes / f"image_{number}.nii.gz", grid)
        write_image(torch.from_numpy(volume.label)[None], volumes / f"label_{number}.nii.gz", grid)
    write_pairs(map(read_chaos_case, cases), folder / "work", Pairing(r=0.3, fractions=(0.5, 0.25, 0.25)))
