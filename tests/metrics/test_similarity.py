"""Image similarity, against MONAI, NumPy, scikit-image and scikit-learn."""

from __future__ import annotations

import monai.metrics
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_mutual_information, structural_similarity
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from fmirnet_monai.losses import SSIMLoss
from fmirnet_monai.metrics import NCCMetric, NMIMetric, SSIMMetric
from fmirnet_monai.metrics.image import MaskedMetric

SIZES = [(24, 31), (14, 17, 13)]
METRICS = pytest.mark.parametrize("metric", [SSIMMetric(), NCCMetric(), NMIMetric()], ids=lambda m: type(m).__name__)


def image_pair(size: tuple[int, ...], cases: int = 1, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Smooth images ``(cases, channels, *size)`` in [0, 1], the second related to the first."""
    noise = np.random.default_rng(1).standard_normal((2, cases, channels, *size))
    first, second = gaussian_filter(noise, (0, 0, 0, *[1.5] * len(size)))
    second = np.sin(20 * first) + 2 * second

    def scaled(image: NDArray) -> Tensor:
        return torch.from_numpy((image - image.min()) / (image.max() - image.min())).float()

    return scaled(first), scaled(second)


def binned(image: Tensor, bins: int) -> NDArray[np.intp]:
    """Index of the bin of each voxel, of equal bins between the minimum and the maximum."""
    values = image.double().numpy().ravel()
    return np.digitize(values, np.linspace(values.min(), values.max(), bins + 1)[1:-1])


@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_ssim_equals_monai(size: tuple[int, ...], channels: int, data_range: float) -> None:
    x, y = (data_range * image for image in image_pair(size, cases=2, channels=channels))
    expected = monai.metrics.SSIMMetric(len(size), data_range)(x, y)
    torch.testing.assert_close(SSIMMetric(data_range)(x, y), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_ssim_equals_scikit_image_inside(size: tuple[int, ...]) -> None:
    """scikit-image pads; where the window of 11 fits, both agree."""
    x, y = image_pair(size)
    _, full = structural_similarity(
        x[0, 0].double().numpy(),
        y[0, 0].double().numpy(),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    expected = full[tuple([slice(5, -5)] * len(size))].mean()
    assert SSIMMetric()(x, y).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_ncc_equals_numpy(size: tuple[int, ...]) -> None:
    x, y = image_pair(size, cases=3, channels=2)
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    np.testing.assert_allclose(NCCMetric()(x, y).squeeze(1).numpy(), expected, atol=1e-6)


def test_ncc_of_a_linear_relation_is_its_sign() -> None:
    x = torch.rand(1, 1, 9, 8)
    assert NCCMetric()(x, 3 * x - 7).item() == pytest.approx(1)
    assert NCCMetric()(x, 5 - 0.1 * x).item() == pytest.approx(-1)


def test_ncc_keeps_its_precision_far_from_zero() -> None:
    x, y = image_pair((24, 31))
    expected = np.corrcoef((1000 * x + 30000).double().ravel(), (1000 * y + 30000).double().ravel())[0, 1]
    assert NCCMetric()(1000 * x + 30000, 1000 * y + 30000).item() == pytest.approx(expected, abs=1e-6)


def test_ncc_of_a_constant_image_is_nan_and_left_out() -> None:
    metric = NCCMetric(get_not_nans=True)
    x = torch.rand(1, 1, 8, 8)
    assert metric(torch.ones_like(x), x).isnan().all()
    assert metric(x, torch.zeros_like(x)).isnan().all()
    metric(x, -x)
    mean, count = metric.aggregate()
    assert (mean.item(), count.item()) == (pytest.approx(-1), 1)


@pytest.mark.parametrize("bins", [8, 64])
@pytest.mark.parametrize("size", SIZES)
def test_nmi_equals_scikit_learn(size: tuple[int, ...], bins: int) -> None:
    x, y = image_pair(size, cases=2)
    y = 300 * y - 100  # each image has its own range
    expected = [normalized_mutual_info_score(binned(a, bins), binned(b, bins)) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(NMIMetric(bins)(x, y).squeeze(1).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("bins", [16, 64])
@pytest.mark.parametrize("size", SIZES)
def test_nmi_equals_scikit_image(size: tuple[int, ...], bins: int) -> None:
    """Its value is (H(a) + H(b)) / H(a, b), from 1 to 2."""
    x, y = (image.double() for image in image_pair(size))
    ratio = normalized_mutual_information(x.numpy(), y.numpy(), bins=bins)
    assert NMIMetric(bins)(x, y).item() == pytest.approx(2 * (ratio - 1) / ratio, abs=1e-5)


def test_nmi_of_identical_images_and_of_renamed_intensities_is_one() -> None:
    x = torch.randint(0, 4, (1, 1, 20, 20)).float()
    assert NMIMetric()(x, x).item() == pytest.approx(1)
    renamed = torch.tensor([7.0, 1.0, 90.0, 30.0])[x.long()]
    assert NMIMetric(bins=100)(x, renamed).item() == pytest.approx(1)


def test_nmi_of_independent_images_is_zero() -> None:
    x = torch.arange(8.0).reshape(1, 1, 8, 1).expand(1, 1, 8, 6)
    y = torch.arange(6.0).reshape(1, 1, 1, 6).expand(1, 1, 8, 6)
    assert NMIMetric()(x, y).item() == pytest.approx(0, abs=1e-6)


def test_nmi_of_constant_images() -> None:
    """One constant image tells nothing of the other; of two nothing can be said."""
    x, flat = torch.rand(1, 1, 8, 8), torch.full((1, 1, 8, 8), 3.0)
    assert NMIMetric()(x, flat).item() == pytest.approx(0, abs=1e-6)
    assert NMIMetric()(flat, flat).isnan().all()


@METRICS
def test_metrics_are_symmetric_and_one_for_the_same_image(metric: monai.metrics.RegressionMetric) -> None:
    x, y = image_pair((24, 31), cases=2)
    torch.testing.assert_close(metric(x, y), metric(y, x))
    torch.testing.assert_close(metric(x, x), torch.ones(2, 1))
    assert (metric(x, y) < 0.95).all()


@METRICS
def test_aggregate_is_the_mean_over_cases_of_batches_and_lists(metric: monai.metrics.RegressionMetric) -> None:
    x, y = image_pair((16, 13), cases=3)
    single = torch.cat([metric(a, b) for a, b in zip(x.split(1), y.split(1), strict=True)])
    metric.reset()
    metric(x[:2], y[:2])
    metric([x[2]], [y[2]])
    torch.testing.assert_close(metric.get_buffer(), single)
    torch.testing.assert_close(metric.aggregate().item(), single.mean().item())
    metric.reset()
    metric(x[:1], y[:1])
    torch.testing.assert_close(metric.aggregate().item(), single[0].item())


@pytest.mark.parametrize("size", SIZES)
def test_ncc_under_weights_is_numpys_weighted_correlation(size: tuple[int, ...]) -> None:
    x, y = image_pair(size, cases=2, channels=2)
    weights = torch.rand(2, 1, *size) * (torch.rand(2, 1, *size) > 0.5)
    expected = []
    for a, b, w in zip(x, y, weights.expand_as(x), strict=True):
        covariance = np.cov(a.ravel(), b.ravel(), aweights=w.ravel())
        expected.append(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
    np.testing.assert_allclose(NCCMetric()(x, y, mask=weights)[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_ssim_under_a_mask_is_that_of_the_loss(size: tuple[int, ...]) -> None:
    (x, y), mask = image_pair(size, cases=2, channels=2), torch.rand(2, 1, *size) * (torch.rand(2, 1, *size) > 0.5)
    expected = 1 - SSIMLoss(reduction="none")(x, y, mask)
    torch.testing.assert_close(SSIMMetric()(x, y, mask=mask), expected)
    assert (SSIMMetric()(x, y) - expected).abs().min() > 1e-3


@pytest.mark.parametrize("metric", [NCCMetric(), NMIMetric()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("size", SIZES)
def test_masking_a_box_equals_cropping_it(size: tuple[int, ...], metric: MaskedMetric) -> None:
    x, y = image_pair(size, cases=2)
    box = (..., *[slice(2, -3)] * len(size))
    mask = torch.zeros(2, 1, *size)
    mask[box] = 1
    torch.testing.assert_close(metric(x, y, mask=mask), metric(x[box], y[box]))


@METRICS
def test_what_stands_at_invalid_voxels_has_no_influence(metric: MaskedMetric) -> None:
    (x, y), mask = image_pair((24, 31), cases=2), torch.rand(2, 1, 24, 31) > 0.5
    expected = metric(x, y, mask=mask)
    for junk in (torch.nan, torch.inf, 1e20):
        torch.testing.assert_close(metric(x.where(mask, junk), y.where(mask, -junk), mask=mask), expected)


@METRICS
def test_a_mask_of_ones_changes_nothing(metric: MaskedMetric) -> None:
    x, y = image_pair((24, 31), cases=2, channels=2)
    for ones in (torch.ones(2, 1, 24, 31), torch.ones(2, 1, 24, 31, dtype=torch.bool)):
        torch.testing.assert_close(metric(x, y, mask=ones), metric(x, y), rtol=0, atol=1e-6)


@METRICS
def test_a_case_without_valid_voxels_is_nan_and_left_out(metric: MaskedMetric) -> None:
    x, y = image_pair((24, 31), cases=2)
    mask = torch.ones(2, 1, 24, 31)
    mask[0] = 0
    metric.reset()
    values = metric(x, y, mask=mask)
    assert values.shape == (2, 1) and values[0].isnan() and values[1].isfinite()
    assert metric.aggregate().item() == values[1].item()
    metric.reset()


@METRICS
def test_lists_have_their_own_masks(metric: MaskedMetric) -> None:
    x, y = image_pair((24, 31), cases=2)
    masks = torch.rand(2, 1, 24, 31) > 0.5
    torch.testing.assert_close(metric(list(x), list(y), mask=list(masks)), metric(x, y, mask=masks))
    with pytest.raises(ValueError, match=r"mask must have the shape \[1, 1, 24, 31\].*got \[1, 1, 24, 30\]"):
        metric(list(x), list(y), mask=[mask[..., :30] for mask in masks])


@METRICS
def test_images_of_two_shapes_are_refused(metric: monai.metrics.RegressionMetric) -> None:
    with pytest.raises(ValueError, match="shape"):
        metric(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 17))
