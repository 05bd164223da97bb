"""Labels carried through a volume: exact where it can be known, and refused where it can't work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from fmirnet_monai.registration import Annotation, DenseOptimizer, Registrar, propagate
from fmirnet_monai.registration.propagation import signed_distance

DEPTH, SIZE = 21, 64


def tube(bend: float = 14.0) -> tuple[MetaTensor, MetaTensor]:
    """A bent tube (label 3) with a thinner one (label 7) beside it that ends, in an image that shows both."""
    x, y, z = torch.meshgrid(*(torch.arange(n, dtype=torch.float) for n in (SIZE, SIZE, DEPTH)), indexing="ij")
    centre = 30 + bend * torch.sin(torch.pi * z / (DEPTH - 1))
    near = ((x - centre) ** 2 + (y - 34) ** 2).sqrt()
    beside = ((x - centre + 20) ** 2 + (y - 34) ** 2).sqrt()
    label = torch.where(near < 11, 3, torch.where((beside < 6) & (z <= 12), 7, 0))
    shade = torch.sigmoid(11 - near) + 0.6 * torch.sigmoid(6 - beside) * torch.sigmoid(2 * (12.5 - z))
    affine = torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0], dtype=torch.double))
    return MetaTensor(shade[None], affine=affine), MetaTensor(label[None].int(), affine=affine)


def every(label: Tensor, step: int, axis: int = 2) -> MetaTensor:
    """The label on every ``step``-th slice only."""
    kept = torch.zeros_like(label)
    index = [slice(None)] * 4
    index[axis + 1] = slice(None, None, step)
    kept[tuple(index)] = label[tuple(index)]
    return kept


def registrar() -> Registrar:
    return Registrar(
        optimizer=DenseOptimizer(nn.MSELoss(), (20, 20), update_sigma=2.0),
        spatial_dims=2,
        intensity=lambda image: image,
    )


def dice(found: Tensor, label: Tensor, value: int, slices: list[int]) -> float:
    a, b = ((torch.as_tensor(t)[0][..., slices] == value).double() for t in (found, label))
    return float(2 * (a * b).sum() / (a.sum() + b.sum()))


def test_registration_beats_interpolation_where_a_structure_bends() -> None:
    image, label = tube()
    sparse = every(label, 10)
    annotation = Annotation.find(sparse)
    assert annotation == Annotation(2, (0, 10, 20))
    between = [z for z in range(DEPTH) if z % 10]
    plain = propagate(image, sparse, annotation)
    followed = propagate(image, sparse, annotation, registrar())
    assert dice(plain.label, label, 3, between) < 0.9
    assert dice(followed.label, label, 3, between) > 0.95
    assert dice(followed.label, label, 7, list(range(1, 10))) > 0.85
    for result in (plain, followed):
        torch.testing.assert_close(result.label[..., ::10].as_tensor(), label[..., ::10].as_tensor())
        np.testing.assert_allclose(result.label.affine, label.affine)
    wrong = (followed.label != label)[0][..., between].as_tensor()
    confidence = followed.confidence[0][..., between].as_tensor()
    assert confidence.min() >= 0 and confidence.max() <= 1
    assert confidence[wrong].mean() < 0.65 and confidence[~wrong].mean() > 0.9


def test_the_same_along_any_axis() -> None:
    image, label = tube()
    along_z = propagate(image, every(label, 10), Annotation(2, (0, 10, 20)))
    turned = [
        MetaTensor(t.as_tensor().movedim(3, 1), affine=torch.diag(torch.tensor([3.0, 1, 1, 1]))) for t in (image, label)
    ]
    sparse = every(turned[1], 10, axis=0)
    along_x = propagate(turned[0], sparse, Annotation.find(sparse))
    assert along_x.annotation.axis == 0
    torch.testing.assert_close(along_x.label.as_tensor().movedim(1, 3), along_z.label.as_tensor())


def test_a_structure_that_one_neighbour_lacks_ends_halfway() -> None:
    label = torch.zeros(1, 20, 20, 9, dtype=torch.int)
    label[:, 5:15, 5:15, 0] = 1
    result = propagate(torch.rand(1, 20, 20, 9), label, Annotation(2, (0, 8)))
    assert [bool(result.label[..., z].any()) for z in range(9)] == [True] * 4 + [False] * 5


def test_signed_distance_of_a_square() -> None:
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[2:7, 2:7] = True
    distance = signed_distance(mask, np.array([2.0, 2.0]))
    assert distance[4, 4] == pytest.approx(5.0)  # the outline runs between voxels of 2 mm
    assert distance[2, 4] == pytest.approx(1.0) and distance[1, 4] == pytest.approx(-1.0)
    assert torch.isinf(signed_distance(torch.zeros(4, 4, dtype=torch.bool), np.ones(2))).all()
    assert signed_distance(torch.ones(4, 4, dtype=torch.bool), np.ones(2)).max() == pytest.approx(1.5)


def test_slices_beyond_the_outermost_are_empty_and_said() -> None:
    image, label = tube()
    sparse = torch.zeros_like(label)
    sparse[..., [5, 9]] = label[..., [5, 9]]
    annotation = Annotation.find(sparse)
    result = propagate(image, sparse, annotation)
    assert annotation.describe(DEPTH) == "annotated along axis 2: 5, 9; left empty, as beyond them: 0-4, 10-20"
    outside = [*range(5), *range(10, DEPTH)]
    assert not result.label[..., outside].any() and not result.confidence[..., outside].any()
    assert (result.confidence[..., [5, 9]] == 1).all()


def test_an_empty_annotated_slice_counts_when_it_is_named() -> None:
    _, label = tube()
    sparse = every(label, 10)
    sparse[..., 20] = 0
    assert Annotation.find(sparse).slices == (0, 10)
    assert Annotation.find(sparse, 2, [20, 0, 10]).slices == (0, 10, 20)


@pytest.mark.parametrize(
    ("drawn", "options", "message"),
    [
        ([4], {}, "only slice 4 along axis 2 is annotated"),
        ([4, 5, 6], {"axis": 2}, "no slice is left between the annotated ones, 4-6"),
        ([4, 8], {"axis": 3}, "axis must be 0, 1 or 2"),
        ([4, 8], {"axis": 2, "slices": [4, 12]}, "slices: 8 along axis 2 carry labels but are not among"),
        ([4, 8], {"axis": 2, "slices": [4, 8, 21]}, "slices: 21 is none of the 21 slices"),
    ],
)
def test_what_cannot_work_is_refused(drawn: list[int], options: dict, message: str) -> None:
    _, label = tube()
    sparse = torch.zeros_like(label)
    sparse[..., drawn] = label[..., drawn]
    with pytest.raises(ValueError, match=message):
        Annotation.find(sparse, **options)
