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

from fmirnet_monai.metrics import NCCMetric, NMIMetric, SSIMMetric

SIZES = [(24, 31), (14, 17, 13)]


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


@pytest.mark.parametrize("metric", [SSIMMetric(), NCCMetric(), NMIMetric()], ids=lambda m: type(m).__name__)
def test_metrics_are_symmetric_and_one_for_the_same_image(metric: monai.metrics.RegressionMetric) -> None:
    x, y = image_pair((24, 31), cases=2)
    torch.testing.assert_close(metric(x, y), metric(y, x))
    torch.testing.assert_close(metric(x, x), torch.ones(2, 1))
    assert (metric(x, y) < 0.95).all()


@pytest.mark.parametrize("metric", [SSIMMetric(), NCCMetric(), NMIMetric()], ids=lambda m: type(m).__name__)
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


@pytest.mark.parametrize("metric", [SSIMMetric(), NCCMetric(), NMIMetric()], ids=lambda m: type(m).__name__)
def test_images_of_two_shapes_are_refused(metric: monai.metrics.RegressionMetric) -> None:
    with pytest.raises(ValueError, match="shape"):
        metric(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 17))
