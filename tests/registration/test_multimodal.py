"""Registration of images whose intensities mean different things: MIND-SSC and mutual information as named terms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.losses import GlobalMutualInformationLoss
from torch import Tensor, nn

from fmirnet_monai.data import read_image
from fmirnet_monai.losses import MINDSSCLoss, RegistrationLoss
from fmirnet_monai.registration import DenseOptimizer, Guidance, Method, Registrar
from fmirnet_monai.registration.intensity import Percentiles
from fmirnet_monai.registration.optimise import FieldOptimizer
from fmirnet_monai.registration.registrar import default_optimizer
from fmirnet_monai.spatial import warp

TERMS: dict[str, nn.Module] = {
    "mse": nn.MSELoss(),
    "mind": MINDSSCLoss(),
    "mi": GlobalMutualInformationLoss(),
}
MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "inverted": lambda image: 1 - image,
    "remapped": lambda image: (1 - image.sqrt()) * (0.4 + 0.6 * (3 * image).sin().abs()),
}


def smooth_field(size: tuple[int, int], amplitude: float = 4.0) -> Tensor:
    """A known deformation, ``(1, 2, *size)`` in voxels."""
    x, y = torch.meshgrid(*(torch.linspace(0, 2 * torch.pi, n) for n in size), indexing="ij")
    return amplitude * torch.stack([torch.sin(x / 2 + 0.5) * torch.cos(y / 2), torch.cos(x / 2) * torch.sin(y)])[None]


@pytest.fixture(params=["acdc", "chaos_mr_t2spir"])
def image(request: pytest.FixtureRequest, real_data: Path) -> Tensor:
    """The middle slice of a real volume, scaled to [0, 1]."""
    files = sorted(path for path in (real_data / request.param).rglob("*.nii.gz") if "label" not in path.name)
    volume = read_image(next(path for path in files if "_gt" not in path.name))
    middle = Percentiles()(volume[..., volume.shape[-1] // 2]).float()[None]
    return nn.functional.interpolate(middle, (128, 128), mode="bilinear", align_corners=False).clamp(0, 1)


def error(optimizer: FieldOptimizer, moving: Tensor, fixed: Tensor, truth: Tensor) -> float:
    """Mean distance in voxels from the known field, where there is tissue and no border."""
    field = optimizer(moving, fixed)
    tissue = warp(moving, truth)[0, 0] > 0.1
    tissue[:8] = tissue[-8:] = False
    tissue[:, :8] = tissue[:, -8:] = False
    return float((field - truth)[0].norm(dim=0)[tissue].mean())


@pytest.mark.parametrize("change", MAPS)
@pytest.mark.parametrize("term", ["mind", "mi"])
def test_known_deformation_of_a_real_slice_is_found_in_other_intensities(image: Tensor, term: str, change: str) -> None:
    truth = smooth_field((128, 128))
    fixed = MAPS[change](warp(image, truth))
    terms = (RegistrationLoss({name: TERMS[name]}).dissimilarity for name in (term, "mse"))
    found, blind = (error(DenseOptimizer(loss, step=0.25, update_sigma=3.0), image, fixed, truth) for loss in terms)
    assert found < 1.0 and found < 0.5 * blind


@pytest.mark.parametrize("name", ["mind", "mi"])
def test_what_the_command_minimises_finds_it_too(image: Tensor, name: str) -> None:
    truth = smooth_field((128, 128))
    fixed = MAPS["remapped"](warp(image, truth))
    found, blind = (error(default_optimizer(2, measure), image, fixed, truth) for measure in (name, "auto"))
    assert found < 1.5 and found < 0.6 * blind


@pytest.mark.parametrize(
    ("shape", "options", "parts", "learned"),
    [
        ((40, 40), {}, {}, True),
        ((40, 40, 8), {}, {}, True),
        ((40, 40, 24), {}, {}, False),
        ((40, 40, 24), {"slices": True}, {}, True),
        ((40, 40), {"bundle": "none"}, {}, False),
        ((40, 40), {"similarity": "lncc"}, {}, False),
        ((40, 40), {"optimizer": "affine"}, {}, False),
        ((40, 40), {}, {"fixed_mask": torch.ones(1, 40, 40)}, False),
        ((40, 40), {}, {"moving_channels": [torch.ones(1, 40, 40)]}, False),
        ((40, 40), {}, {"moving_channels": []}, True),
        ((40, 40), {"guidance": Guidance(labels=1.0)}, {}, False),
        ((40, 40), {"refine": 5}, {"fixed_mask": torch.ones(1, 40, 40)}, True),
        ((40, 40), {"bundle": "fmirnet_chaos"}, {"fixed_mask": torch.ones(1, 40, 40)}, True),
    ],
)
def test_slices_take_the_network_unless_more_than_the_images_says_where_they_fit(
    shape: tuple[int, ...],
    options: dict[str, Any],
    parts: dict[str, Any],
    learned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[Registrar] = []
    monkeypatch.setattr(Registrar, "register", lambda registrar, *images, **given: built.append(registrar))
    Method(**options).register(*(MetaTensor(torch.rand(1, *shape)) for _ in range(2)), **parts)
    assert (built[0].network is not None) is learned


def test_hounsfield_units_are_seen_through_a_window() -> None:
    """Slices through that of soft tissue; a volume, which may show the lung, by its percentiles."""
    said = {}
    for name, shape, low in (("CT", (40, 40), -500), ("grey", (40, 40), 0), ("volume", (24, 24, 24), -500)):
        pair = [MetaTensor(torch.rand(1, *shape) * 1000 + low) for _ in range(2)]
        said[name] = Method().registrar(*pair).settings["intensity"].split()[0]
    assert said == {"CT": "window", "grey": "percentiles", "volume": "percentiles"}


def test_modalities_that_differ_are_registered_without_a_network_unless_one_is_named() -> None:
    pair = [MetaTensor(torch.rand(1, 40, 40) * 1000 - 500) for _ in range(2)]
    assert Method().registrar(*pair).network is not None
    multimodal = Method(similarity="mi").registrar(*pair)
    assert multimodal.network is None and multimodal.optimizer.similarity == "mi"
    named = Method("fmirnet_chaos", similarity="mind").registrar(*pair)
    assert named.network is not None and named.optimizer.similarity == "mind"
    with pytest.raises(ValueError, match="similarity must be one of auto, mse, ssim, lncc, mi, mind, got 'nmi'"):
        Method(similarity="nmi")
