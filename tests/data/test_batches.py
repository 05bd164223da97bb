from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler

from fmirnet_monai.data import DeviceBatches, pair_sampler, sides
from fmirnet_monai.transforms import RandSwapBatch


class Items(Dataset):
    """Items that count how often they are read."""

    def __init__(self, items: Sequence[dict[str, Tensor]]) -> None:
        self.stored = items
        self.reads = 0

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        self.reads += 1
        return self.stored[number]


def numbered(count: int) -> Items:
    image = [torch.full((2, 4, 5), n, dtype=torch.half) for n in range(count)]
    return Items([{"image": value, "labels": value.byte()} for value in image])


def test_every_item_once_an_epoch_in_another_order_and_read_once() -> None:
    dataset = numbered(10)
    loader = DeviceBatches(dataset, batch_size=4)
    assert len(loader) == 3
    torch.manual_seed(0)
    orders = []
    for _ in range(2):
        batches = list(loader)
        assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
        for batch in batches:
            assert batch["image"].dtype == torch.float
            assert batch["labels"].dtype == torch.uint8
            assert torch.equal(batch["image"], batch["labels"].float())
        orders.append(torch.cat([batch["image"][:, 0, 0, 0] for batch in batches]).tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    assert orders[0] != orders[1]
    assert dataset.reads == 10


def test_an_image_of_several_pairs_is_read_once() -> None:
    pairs = [{"moving": "a", "fixed": "b"}, {"moving": "b", "fixed": "c"}, {"moving": "c", "fixed": "a"}]
    images, numbers = sides(pairs, labelled=False)
    assert images == [{"image": name} for name in "abc"]
    dataset = Items([{"image": torch.full((1, 2, 2), float(ord(side["image"])))} for side in images])
    loader = DeviceBatches(dataset, 2, sampler=SequentialSampler(pairs), pairs=numbers)
    seen = [chr(int(value)) for batch in loader for value in batch["image"][:, :, 0, 0].flatten()]
    assert seen == ["a", "b", "b", "c", "c", "a"] and dataset.reads == 3 and len(loader) == 2
    labelled = [{**pair, "moving_label": "x", "fixed_label": "y"} for pair in pairs]
    assert sides(labelled, labelled=True)[0][:2] == [{"image": "a", "labels": "x"}, {"image": "b", "labels": "y"}]
    assert len(DeviceBatches(dataset, 1, pairs=numbers)) == 3


def test_reading_leaves_the_random_numbers_as_they_are() -> None:
    loader = DeviceBatches(numbered(10), batch_size=4)

    def draw() -> list[float]:
        torch.manual_seed(0)
        return torch.cat([batch["image"][:, 0, 0, 0] for batch in loader]).tolist()

    assert draw() == draw()


def test_sampler_and_transform_are_followed() -> None:
    items = [{"image": torch.tensor([n, 10.0 + n]).view(2, 1, 1).expand(2, 3, 3)} for n in range(4)]
    dataset = Items(items)
    batches = list(DeviceBatches(dataset, 3, transform=RandSwapBatch("image"), sampler=SequentialSampler(dataset)))
    assert [batch["image"][:, 0, 0, 0].tolist() for batch in batches] == [[10, 11, 12], [13]]
    assert torch.equal(items[0]["image"][0, 0], torch.zeros(3))


def test_bad_items_are_named() -> None:
    with pytest.raises(ValueError, match=r"image.*\(2, 3, 3\).*\(2, 4, 3\)"):
        list(DeviceBatches(Items([{"image": torch.zeros(2, 3, 3)}, {"image": torch.zeros(2, 4, 3)}]), 2))
    with pytest.raises(ValueError, match=r"labels: all items"):
        half = [{"image": torch.zeros(2, 3, 3), "labels": torch.zeros(2, 3, 3)}, {"image": torch.zeros(2, 3, 3)}]
        list(DeviceBatches(Items(half), 2))
    with pytest.raises(ValueError, match=r"batch_size.*0"):
        DeviceBatches(numbered(2), 0)


def test_pairs_are_drawn_by_their_weights() -> None:
    torch.manual_seed(0)
    pairs = [{"moving": "a", "weight": 3.0}, {"moving": "b", "weight": 1.0}, {"moving": "c", "weight": 0.0}]
    drawn = list(pair_sampler(pairs, 4000))
    assert len(drawn) == 4000
    assert 2880 < drawn.count(0) < 3120  # 3000 expected, four standard deviations are 110
    assert drawn.count(2) == 0
    assert sorted(pair_sampler([{"moving": name} for name in "abc"])) == [0, 1, 2]
    assert len(list(pair_sampler([{"moving": name} for name in "abc"], 7))) == 7
