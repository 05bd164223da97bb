"""FCN-8s: any size, both dimensions, scripted alike; and three scales reach the result."""

from __future__ import annotations

import pytest
import torch

from fmirnet_monai.networks import FCN


@pytest.mark.parametrize(("dims", "size"), [(2, (64, 64)), (2, (37, 50)), (3, (33, 32, 20))])
def test_scores_have_the_size_of_the_image_and_survive_scripting(dims: int, size: tuple[int, ...]) -> None:
    network = FCN(dims, in_channels=2, out_channels=3, channels=(4, 4, 8, 8, 8)).eval()
    x = torch.rand(2, 2, *size)
    scores = network(x)
    assert scores.shape == (2, 3, *size)
    torch.testing.assert_close(torch.jit.script(network)(x), scores)


def test_each_of_the_three_scores_counts() -> None:
    network = FCN(channels=(4, 4, 8, 8, 8)).eval()
    x = torch.rand(1, 1, 64, 64)
    before = network(x)
    for head in network.scores:
        with torch.no_grad():
            head.bias += 1.0
        after = network(x)
        torch.testing.assert_close(after - before, torch.ones_like(before))
        before = after


def test_it_learns_a_disc() -> None:
    grid = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij"))
    centres = 20 + 24 * torch.rand(8, 2, 1, 1)
    label = ((grid - centres).norm(dim=1) < 12).long()
    image = label[:, None] + 0.3 * torch.randn(8, 1, 64, 64)
    network = FCN(channels=(8, 8, 16, 16, 16))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(image), label).backward()
        optimizer.step()
    found = network.eval()(image).argmax(1)
    assert 2 * (found * label).sum() / (found.sum() + label.sum()) > 0.85


def test_another_number_of_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="five stages"):
        FCN(channels=(8, 16))
