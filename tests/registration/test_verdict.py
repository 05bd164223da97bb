"""The verdict: what it says of maps whose truth is known, and of figures that say something by themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fmirnet_monai.networks import FlipAverage
from fmirnet_monai.registration import Method, Registrar, Registration
from fmirnet_monai.registration.evidence import _quantile, evidence, linear_inverse, spread
from fmirnet_monai.registration.verdict import SIGNS, judge, learnt
from fmirnet_monai.spatial import Affine, DisplacementField, Grid, compose, warp

SOUND = {
    **{"before_ncc": 0.9, "ncc": 0.98, "before_inside": 100.0, "inside": 100.0, "before_lncc": 0.8, "lncc": 0.95},
    **{"lncc_10": 0.9, "residual_99": 0.08, "inverse_consistency": 1.0, "inverse_misses": 0.1},
    **{"jacobian_min": 0.3, "jacobian_p01": 0.6, "jacobian_p99": 1.6, "sd_log_jacobian": 0.15},
    **{"folding": 0.0, "digital_folding": 0.0},
}


def images(seed: int = 0, size: int = 96) -> Tensor:
    """Smooth blobs in [0, 1], ``(1, size, size)``."""
    rng = np.random.default_rng(seed)
    x = torch.stack(torch.meshgrid(*[torch.arange(size, dtype=torch.float32)] * 2, indexing="ij"))
    blobs = torch.zeros(size, size)
    for centre, width, height in zip(
        rng.uniform(0.15, 0.85, (24, 2)) * size, rng.uniform(3, 9, 24), rng.uniform(0.3, 1, 24), strict=True
    ):
        apart = (x - torch.tensor(centre, dtype=torch.float32)[:, None, None]).square().sum(0)
        blobs = torch.maximum(blobs, float(height) * torch.exp(-apart / (2 * float(width) ** 2)))
    return blobs[None]


@pytest.fixture(scope="module")
def method() -> Method:
    return Method(bundle="none")


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    fixed = images()
    ddf = torch.zeros(1, 2, 96, 96)
    ddf[:, 0] = 3 * torch.sin(torch.arange(96) / 96 * 2 * math.pi)
    return warp(fixed[None], ddf)[0], fixed


def test_a_pair_that_fits_is_good_and_another_image_is_not(method: Method, pair: tuple[Tensor, Tensor]) -> None:
    assert method.register(*pair).verdict.grade == "good"
    other = method.register(images(seed=5), pair[1]).verdict
    assert other.grade != "good" and other.reasons and other.risk > 0.2


def test_one_image_twice_is_good(pair: tuple[Tensor, Tensor]) -> None:
    for bundle in ("none", "fmirnet_universal"):
        assert Method(bundle=bundle).register(pair[1], pair[1]).verdict.grade == "good"


def test_what_resampling_takes_is_nothing_worse() -> None:
    lost = {"before_nmi": 1.0, "nmi": 0.8, "before_ncc": 1.0}
    assert judge({**SOUND, **lost, "ncc": 0.999}, volumes=True).grade == "good"
    assert judge({**SOUND, **lost, "ncc": 0.98}, volumes=True).grade == "look"


@pytest.mark.parametrize("similarity", ["mi", "mind"])
def test_intensities_of_different_modalities_say_nothing(similarity: str, pair: tuple[Tensor, Tensor]) -> None:
    moving, fixed = pair
    found = Method(bundle="none", similarity=similarity).register(1 - moving, fixed)
    assert found.metrics["ncc"] < -0.9 and found.verdict.grade == "look"
    assert not any("correlat" in text or "Intensities" in text or "SSIM" in text for text in found.verdict.reasons)


@pytest.mark.parametrize("volumes", [False, True])
def test_different_modalities_are_never_good_and_fail_by_facts(volumes: bool) -> None:
    found = judge(SOUND, volumes, modalities=True)
    assert found.grade == "look" and "modalities" in found.reasons[0]
    unlike = {"before_ncc": 0.1, "ncc": -0.9, "residual_99": 1.0, "lncc": 0.01, "lncc_10": 0.0}
    assert judge({**SOUND, **unlike}, volumes, modalities=True) == found
    assert judge({**SOUND, "digital_folding": 9.0}, volumes, modalities=True).grade == "failed"


def test_what_is_measured_falls_with_the_error_of_the_map(method: Method, pair: tuple[Tensor, Tensor]) -> None:
    found = method.register(*pair)
    grid = found.fixed_grid
    figures = found.checks.figures
    assert figures["inverse_consistency"] < 3.0 and figures["lncc"] > figures["before_lncc"]

    def back(*given: Any) -> Tensor:
        return torch.zeros_like(given[2])

    seen = torch.ones(1, 2, *grid.shape)
    values = torch.cat(pair)[None]
    for error in (0.0, 2.0, 6.0):
        wrong = torch.zeros(1, 2, *grid.shape)
        wrong[:, 1] = error
        measured = evidence(values, seen, wrong, [1.0, 1.0], back)
        assert measured["inverse_consistency"] == pytest.approx(error, abs=0.05)  # nothing leads back


def test_inverse_consistency_is_in_mm_and_misses_in_shares() -> None:
    image = images()[None]
    ddf = torch.zeros(1, 2, 96, 96)
    ddf[:, 0] = 5.0
    measured = evidence(
        image.expand(1, 2, -1, -1), torch.ones(1, 2, 96, 96), ddf, [2.0, 0.5], lambda *given: torch.zeros_like(given[2])
    )
    assert measured["inverse_consistency"] == pytest.approx(10.0, rel=0.01)
    assert measured["inverse_misses"] == 100.0  # 10 mm of 192
    ddf[:, 0] = 3.0
    same = evidence(
        image.expand(1, 2, -1, -1), torch.ones(1, 2, 96, 96), ddf, [2.0, 0.5], lambda *g: -3 / 4 * unit(g[2])
    )
    assert same["inverse_misses"] == 0.0 and same["inverse_consistency"] == pytest.approx(0.0, abs=0.01)


def unit(like: Tensor) -> Tensor:
    """A field of one voxel along the first axis."""
    return torch.stack([torch.ones_like(like[:, 0]), torch.zeros_like(like[:, 0])], dim=1)


def test_nothing_in_common_gives_no_figures() -> None:
    seen = torch.ones(1, 2, 64, 64)
    seen[:, 0] = 0
    pair = torch.rand(1, 2, 64, 64)
    assert evidence(pair, seen, torch.zeros(1, 2, 64, 64), [1.0, 1.0], lambda *given: given[2]) == {}


@pytest.mark.parametrize("dims", [2, 3])
def test_masks_that_have_nothing_in_common_fail(dims: int) -> None:
    image = torch.rand(1, *[24] * dims)
    masks = torch.zeros(2, 1, *[24] * dims, dtype=torch.int32)
    masks[0, :, :8], masks[1, :, 16:] = 1, 1
    found = Method(bundle="none").register(image, image.clone(), moving_mask=masks[0], fixed_mask=masks[1])
    assert found.metrics["inside"] == 0.0 and found.checks.figures == {}
    assert found.verdict.grade == "failed" and "Nothing of the fixed image is seen" in found.verdict.reasons[0]


def test_more_values_than_torch_takes_have_a_quantile() -> None:
    values = torch.linspace(0, 1, (1 << 24) + 3)
    with pytest.raises(RuntimeError, match="too large"):
        values.quantile(0.9)
    assert _quantile(values, 0.9) == pytest.approx(0.9, abs=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def testlinear_inverse_leads_back(dims: int) -> None:
    rng = np.random.default_rng(dims)
    matrix = np.eye(dims + 1)
    matrix[:dims, :dims] += rng.normal(size=(dims, dims)) * 0.1
    matrix[:dims, -1] = rng.normal(size=dims) * 3
    grid = Grid((20, 24, 16)[:dims], np.eye(dims + 1))
    ddf = DisplacementField.of(Affine(matrix), grid)[0].ddf[None]
    expected = DisplacementField.of(Affine(np.linalg.inv(matrix)), grid)[0].ddf[None]
    assert torch.allclose(linear_inverse(ddf), expected, atol=1e-3)
    flat = -torch.stack(torch.meshgrid(*[torch.arange(n).float() for n in grid.shape], indexing="ij"))[None]
    assert not linear_inverse(flat).any()  # all to one point


# --- judging -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("volumes", [False, True])
def test_sound_figures_are_good(volumes: bool) -> None:
    found = judge(SOUND, volumes)
    assert found.grade == "good" and found.reasons == () and found.risk <= learnt()[_kind(volumes)]["good"]


def _kind(volumes: bool) -> str:
    return "volumes" if volumes else "slices"


@pytest.mark.parametrize(
    ("figures", "grade", "said"),
    [
        ({"before_ssim": 0.6, "ssim": 0.5}, "look", ["SSIM got worse, from 0.600 to 0.500."]),
        ({"before_ssim": 0.60004, "ssim": 0.60001}, "good", []),
        ({"before_ssim": 0.6, "ssim": math.nan}, "good", []),
        ({"before_nmi": 0.6, "nmi": 0.5}, "look", ["NMI got worse"]),
        ({"before_dice": 0.9, "dice": 0.895}, "look", ["Dice got worse"]),
        ({"before_dice": 0.6, "dice": 0.5}, "failed", ["Dice got worse"]),
        ({"before_dice_7": 0.6, "dice_7": 0.5}, "failed", ["Dice of label 7 got worse"]),
        ({"before_dice": 0.6, "guided_dice": 0.5}, "failed", ["Dice got worse"]),
        ({"before_tre_mean": 1.0, "tre_mean": 2.0}, "failed", ["TRE (mean) got worse, from 1.000 to 2.000."]),
        ({"before_tre_mean": 1.0, "tre_mean": 1.1}, "look", ["TRE (mean) got worse"]),
        ({"before_tre_95": 1.0, "tre_95": 2.0}, "failed", ["TRE (95th percentile) got worse"]),
        ({"before_tre_mean": 2.0, "tre_mean": 1.0}, "good", []),
        ({"folding": 0.5, "digital_folding": 0.5}, "good", []),
        ({"folding": 0.51}, "look", ["folds in up to 0.51 %"]),
        ({"digital_folding": 7.0}, "failed", ["folds in up to 7.00 %"]),
        ({"jacobian_min": 0.04}, "good", ["The smallest Jacobian determinant is 0.04"]),
        ({"jacobian_p99": 4.5}, "look", ["grows to 4.50 times"]),
        ({"sd_log_jacobian": 0.8}, "look", ["SDlogJ 0.80"]),
    ],
)
@pytest.mark.parametrize("volumes", [False, True])
def test_what_tells_by_itself(figures: dict[str, float], grade: str, said: list[str], volumes: bool) -> None:
    found = judge({**SOUND, **figures}, volumes)
    assert found.grade == grade
    assert len(found.reasons) == len(said) and all(part in text for part, text in zip(said, found.reasons, strict=True))


def test_signs_that_are_bad_together_name_the_heaviest() -> None:
    bad = {**SOUND, "ncc": 0.3, "residual_99": 0.7, "lncc_10": 0.05, "lncc": 0.4, "inverse_misses": 60.0}
    found = judge(bad, volumes=False)
    assert found.grade == "failed" and found.risk > 0.9
    assert any("60 % of the structure" in text for text in found.reasons)


@pytest.mark.parametrize("kind", ["slices", "volumes"])
def test_a_worse_sign_never_lowers_the_risk(kind: str) -> None:
    model = learnt()[kind]
    assert 0 < model["good"] <= model["failed"] < 1
    assert model["signs"].keys() <= SIGNS.keys() and all(sign["weight"] >= 0 for sign in model["signs"].values())
    worse = {"ncc": 0.5, "residual_99": 0.5, "lncc_10": 0.1, "inverse_misses": 50.0, "inside": 40.0, "lncc": 0.7}
    for name, value in worse.items():
        assert judge({**SOUND, name: value}, kind == "volumes").risk >= judge(SOUND, kind == "volumes").risk


def test_what_a_file_has_as_null_says_nothing() -> None:
    known = {name: value for name, value in SOUND.items() if name not in ("ncc", "jacobian_p01")}
    assert judge({**known, "ncc": None, "jacobian_p01": None, "ssim": None}, True) == judge(known, True)


@pytest.mark.parametrize(("residual", "told"), [(0.01, False), (1.0, False), (1.01, True), (math.nan, True)])
def test_an_inverse_that_misses_is_told(
    method: Method, pair: tuple[Tensor, Tensor], residual: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = method.register(*pair)
    made = found.inversion
    del found.inversion
    monkeypatch.setattr("fmirnet_monai.registration.result.invert", lambda *given: replace(made, residual=residual))
    assert found.inversion.residual is residual
    assert [text for text in found.notes if "inverse misses" in text] == (
        [f"the inverse misses by up to {residual:.2f} voxels, more than 1."] if told else []
    )


def test_without_figures_nothing_is_good() -> None:
    for figures in ({}, {"folding": 0.0, "ncc": 0.99}):
        found = judge(figures, volumes=False)
        assert found.grade == "look" and found.reasons == ("Too little was measured to call it good.",)
    assert math.isnan(judge({}, volumes=True).risk)
    assert judge({"folding": 9.0}, volumes=True).grade == "failed"


@pytest.mark.parametrize("volumes", [False, True])
def test_what_is_better_than_usual_makes_up_for_nothing(volumes: bool) -> None:
    still = {"jacobian_min": 1.0, "jacobian_p01": 1.0, "jacobian_p99": 1.0, "sd_log_jacobian": 0.0}
    poor = {"ncc": 0.6, "lncc_10": 0.3, "residual_99": 0.4}
    assert judge({**SOUND, **poor, **still}, volumes).risk == judge({**SOUND, **poor}, volumes).risk
    unrelated = {"ncc": -0.07, "lncc": 0.1, "lncc_10": 0.0, "before_lncc": 0.1, "residual_99": 0.8}
    assert judge({**SOUND, **still, **unrelated, "inverse_misses": 98.0}, volumes).grade == "failed"


# --- uncertainty -------------------------------------------------------------------------------------------------


def test_spread_is_the_root_mean_square_of_what_differs() -> None:
    ddf, back = torch.zeros(2, 8, 9), torch.zeros(2, 8, 9)
    other = torch.zeros(2, 8, 9)
    other[1] = 2.0
    assert torch.allclose(spread(ddf, [other], back, [1.0, 3.0]), torch.full((8, 9), (36 / 2) ** 0.5))
    ddf[0], back[0] = 1.0, -1.0
    assert torch.allclose(spread(ddf, [ddf, ddf], back, [1.0, 1.0])[1:-1], torch.zeros(6, 9), atol=1e-5)
    assert compose(back[None], ddf[None]).abs().max() < 1e-5


def test_uncertainty_is_large_where_nothing_tells(pair: tuple[Tensor, Tensor]) -> None:
    moving, fixed = (image.clone() for image in pair)
    for image in (moving, fixed):
        image[:, :, 48:] = 0.0  # half of it shows nothing
    found = Method(bundle="none", uncertainty=True, checks=False).register(moving, fixed)
    assert found.checks.uncertainty is not None and found.checks.figures == {}
    uncertainty = found.checks.uncertainty
    assert uncertainty.shape == fixed.shape[1:] and bool((uncertainty >= 0).all())
    assert Method(bundle="none").register(moving, fixed).checks.uncertainty is None


class Rightwards(torch.nn.Module):
    """One voxel along the second axis, whatever it sees: mirrored, it is the other way."""

    def forward(self, image: Tensor) -> Tensor:
        ddf = torch.zeros_like(image)
        ddf[:, 1] = 1.0
        return ddf


def test_a_mirrored_pair_counts_for_a_network(pair: tuple[Tensor, Tensor]) -> None:
    registrar = Registrar(Rightwards(), spatial_dims=2, spatial_size=96, uncertain=True)
    uncertainty = registrar.register(*pair).checks.uncertainty
    assert uncertainty is not None
    # there and back misses by 2, along the first axis the mirror image agrees, along the second and both it doesn't
    assert torch.allclose(uncertainty, torch.full((96, 96), ((4 + 0 + 4 + 4) / 4) ** 0.5), atol=1e-5)


def test_mirrored_pairs_count_one_by_one_where_a_network_averages_them(pair: tuple[Tensor, Tensor]) -> None:
    registrar = Registrar(FlipAverage(Rightwards()), spatial_dims=2, spatial_size=96, uncertain=True)
    found = registrar.register(*pair)
    assert found.checks.uncertainty is not None and not found.deformable.ddf.any()
    # the average moves nothing, there and back either, each of the four moves by 1
    assert torch.allclose(found.checks.uncertainty, torch.full((96, 96), (4 / 5) ** 0.5), atol=1e-5)


def test_metrics_hold_the_figures_and_checks_can_be_left_out(pair: tuple[Tensor, Tensor]) -> None:
    found: Registration = Method(bundle="none").register(*pair)
    assert {"jacobian_min", "jacobian_p01", "jacobian_p99", "inverse_misses", "lncc_10"} <= set(found.metrics)
    assert found.metrics["jacobian_min"] == pytest.approx(float(found.determinant.min()))
    assert "verdict" in found.timings
    bare = Method(bundle="none", checks=False).register(*pair)
    assert bare.checks.figures == {} and "verdict" not in bare.timings
    assert replace(bare.verdict, risk=0.0).grade in ("good", "look", "failed")
