"""Direct optimisation: a known deformation is found, and the map stays whole."""

import pytest
import torch
from monai.losses import LocalNormalizedCrossCorrelationLoss
from torch import Tensor, nn

from fmirnet_monai.losses import MSELoss
from fmirnet_monai.metrics import FoldingMetric
from fmirnet_monai.registration import AffineOptimizer, DenseOptimizer, optimise
from fmirnet_monai.registration.optimise import FieldOptimizer
from fmirnet_monai.registration.registrar import default_optimizer
from fmirnet_monai.spatial import identity_grid, integrate, resize, resize_field, smooth, warp


def texture(*size: int, seed: int = 0) -> Tensor:
    image = smooth(torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(seed)), 2.0)
    return (image - image.min()) / (image.max() - image.min())


def smooth_field(*size: int, length: float) -> Tensor:
    noise = torch.randn(1, len(size), *size, generator=torch.Generator().manual_seed(1))
    velocity = smooth(noise, 6.0)
    return integrate(velocity * (length / velocity.norm(dim=1).max()), 5)


def pair(*size: int, length: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    moving, truth = texture(*size), smooth_field(*size, length=length)
    return moving, warp(moving, truth), truth


@pytest.mark.parametrize("size", [(64, 56), (40, 36, 32)])
def test_known_deformation_is_found(size: tuple[int, ...]) -> None:
    moving, fixed, truth = pair(*size)
    optimizer = DenseOptimizer(nn.MSELoss(), iterations=(40, 40))
    ddf = optimizer(moving, fixed)
    inner = (slice(None), slice(None), *[slice(6, -6)] * len(size))
    error = (ddf - truth).norm(dim=1, keepdim=True)[inner].mean()
    assert error < 0.4 * truth.norm(dim=1, keepdim=True)[inner].mean()
    assert nn.functional.mse_loss(warp(moving, ddf), fixed) < 0.2 * nn.functional.mse_loss(moving, fixed)
    assert FoldingMetric(digital=True)(ddf).item() == 0


@pytest.mark.parametrize("size", [(64, 56), (40, 36, 32)])
def test_affine_map_is_found_and_is_affine(size: tuple[int, ...]) -> None:
    dims = len(size)
    moving = texture(*size)
    matrix = torch.eye(dims) + 0.05 * torch.randn(dims, dims, generator=torch.Generator().manual_seed(2))
    centred = identity_grid(moving.expand(1, dims, *size)) - torch.tensor(size).reshape(1, -1, *[1] * dims) / 2
    truth = torch.einsum("ij,bj...->bi...", matrix - torch.eye(dims), centred) + 1.5
    ddf = AffineOptimizer(nn.MSELoss())(moving, warp(moving, truth))
    assert (ddf - truth).norm(dim=1).mean() < 0.2 * truth.norm(dim=1).mean()
    for axis in range(2, dims + 2):  # the second difference of an affine map is zero
        assert ddf.diff(n=2, dim=axis).abs().max() < 1e-3


def test_any_monai_loss_serves_across_contrasts() -> None:
    moving, fixed, _ = pair(64, 56)
    loss = LocalNormalizedCrossCorrelationLoss(2, kernel_size=9)
    ddf = DenseOptimizer(loss, iterations=(30, 30))(moving, 0.5 * fixed + 0.2)
    assert loss(warp(moving, ddf), fixed) < 0.3 * loss(moving, fixed) - 0.6


def test_refinement_starts_from_the_field_it_gets() -> None:
    moving, fixed, truth = pair(64, 56, length=6.0)
    near = 0.8 * truth
    optimizer = DenseOptimizer(nn.MSELoss(), iterations=(5,))
    from_near = (optimizer(moving, fixed, near) - truth).norm(dim=1).mean()
    assert from_near < (near - truth).norm(dim=1).mean()
    assert from_near < 0.5 * (optimizer(moving, fixed) - truth).norm(dim=1).mean()


def test_items_of_a_batch_do_not_touch_each_other() -> None:
    first, second = pair(48, 40), pair(48, 40, length=5.0)
    optimizer = DenseOptimizer(nn.MSELoss(reduction="sum"), iterations=(8,))
    both = optimizer(torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]))
    assert torch.allclose(both[:1], optimizer(*first[:2]), atol=1e-4)


@pytest.mark.parametrize("make", [DenseOptimizer, AffineOptimizer])
def test_each_item_converges_and_is_taken_by_itself(make: type) -> None:
    """One that stays as it is beside one that moves; one that can't improve beside one that does."""
    moving, fixed, _ = pair(48, 44)
    optimizer = make(nn.MSELoss(), iterations=(60, 60), tolerance=0.02)
    pairs = [(moving, fixed), (moving, moving), (fixed, moving)]
    alone = [optimizer(*images) for images in pairs]
    together = optimizer(*(torch.cat(side) for side in zip(*pairs, strict=True)))
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-3)
    assert not alone[1].any() and alone[0].any()


def test_a_named_similarity_is_that_of_each_pair_s_dimension() -> None:
    """``auto`` is SSIM in 2-D and local NCC in 3-D, whatever the optimizer saw before."""
    optimizer = DenseOptimizer(iterations=(3,))
    moving, fixed, _ = pair(20, 18, 16)
    optimizer(*pair(24, 20)[:2])
    assert torch.equal(optimizer(moving, fixed), DenseOptimizer(iterations=(3,))(moving, fixed))


@pytest.mark.parametrize("ahead", [{"cpu": 1}, {}])
def test_stops_when_nothing_improves(ahead: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the losses are read at once, or after some iterations as from a GPU."""
    monkeypatch.setattr(optimise, "AHEAD", ahead)
    calls = []

    def counted(warped: Tensor, fixed: Tensor, mask: Tensor | None = None) -> Tensor:
        calls.append(1)
        return MSELoss()(warped, fixed, mask)

    image = texture(40, 40)
    DenseOptimizer(counted, iterations=(500,))(image, image)
    assert len(calls) <= 3 * FieldOptimizer.window + 2
    calls.clear()
    moving, fixed, _ = pair(40, 40)
    DenseOptimizer(counted, iterations=(25,))(moving, fixed)
    assert len(calls) == 25 + 2  # and once before and after


@pytest.mark.parametrize("level", [1.0, -1.0])
def test_convergence_is_the_same_for_losses_of_either_sign(level: float) -> None:
    optimizer = DenseOptimizer(nn.MSELoss(), tolerance=1e-3)
    assert optimizer.converged([level] * 20) and not optimizer.converged([level] * 19)
    assert not optimizer.converged([level] * 10 + [level - 0.002] * 10)
    assert optimizer.converged([level] * 10 + [level - 0.0005] * 10)


def test_identical_images_stay_where_they_are() -> None:
    image = texture(40, 36)
    assert DenseOptimizer(nn.MSELoss(), iterations=(10, 10))(image, image).abs().max() == 0


def test_resized_field_is_the_same_map() -> None:
    linear = 0.1 * identity_grid(torch.zeros(1, 2, 32, 24))
    small = resize_field(linear, (16, 12))
    # a voxel of the small grid is two of the large one, its centre lies half a large voxel further
    expected = 0.1 * (identity_grid(small) + 0.25)
    assert torch.allclose(small[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-5)


def test_shrinking_smooths_first() -> None:
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::2, :] = 1
    assert (resize(stripes, (21, 21))[..., 2:-2, 2:-2] - 0.5).abs().max() < 0.1


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="step must lie between 0 and 1 voxel, got 2"):
        DenseOptimizer(nn.MSELoss(), step=2)
    with pytest.raises(ValueError, match="iterations must be one or more numbers of at least 0"):
        DenseOptimizer(nn.MSELoss(), iterations=())
    with pytest.raises(ValueError, match="starts must be of search, affine, got 'moments'"):
        default_optimizer(3, starts=["moments"])
    with pytest.raises(ValueError, match="one shape"):
        DenseOptimizer(nn.MSELoss())(torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 21))
