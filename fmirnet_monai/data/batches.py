"""Batches of pairs that are read once, lie on the device and are changed there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from monai.data import DataLoader
from torch import Tensor
from torch.utils.data import Dataset, RandomSampler, Sampler, WeightedRandomSampler
from tqdm import tqdm

from fmirnet_monai.utils import process_rank

from .pairing import Pair

Batch = dict[str, Tensor]


class DeviceBatches:
    """A trainer's data loader: all items lie on the device, so that no file and no worker stands between two steps.

    They are read when the first batch is asked for, and kept in the types that the dataset gives: half precision and
    bytes take half and a quarter of the room.

    Args:
        dataset: items are dictionaries of tensors, of the same keys and shapes.
        batch_size: items a batch; the last one may have fewer.
        device: where they lie.
        transform: changes a batch at random, see :py:mod:`fmirnet_monai.transforms.batch`; floats are in single
            precision by then.
        sampler: of the items' numbers, all in random order by default.
        num_workers: processes that read the items.
        pairs: items that are shown together, their channels one after the other, where the dataset holds single images:
            one that several pairs show is read and kept once. The sampler then draws pairs. See :py:func:`sides`.

    Raises:
        ValueError: when there are no items or the batch has none; on reading, when shapes differ.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        device: str | torch.device = "cpu",
        transform: Callable[[Batch], Batch] | None = None,
        sampler: Sampler[int] | None = None,
        num_workers: int = 0,
        pairs: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.dataset = dataset
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.transform = transform
        numbers = [[number] for number in range(len(dataset))] if pairs is None else pairs  # type: ignore[arg-type]
        self.numbers = torch.tensor(numbers)
        self.sampler: Sampler[int] = RandomSampler(numbers) if sampler is None else sampler
        self.num_workers = num_workers
        self._items: Batch | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.sampler) / self.batch_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        """The batches of an epoch."""
        items = self.items()
        for drawn in torch.tensor(list(self.sampler)).split(self.batch_size):
            chosen = self.numbers[drawn].to(self.device)
            batch = {key: _single(values[chosen].flatten(1, 2)) for key, values in items.items()}
            yield batch if self.transform is None else self.transform(batch)

    def items(self) -> Batch:
        """All items by key, ``(N, C, *spatial)``."""
        if self._items is None:
            own = torch.Generator()  # so that reading draws nothing from the run's
            reader = DataLoader(self.dataset, batch_size=1, num_workers=self.num_workers, generator=own)
            progress = tqdm(reader, desc="reading", disable=process_rank() > 0)
            read: list[Batch] = [{key: torch.as_tensor(value) for key, value in item.items()} for item in progress]
            keys = sorted({key for item in read for key in item})
            shapes = {key: {tuple(item[key].shape[1:]) for item in read if key in item} for key in keys}
            for key, found in shapes.items():
                if len(found) > 1 or any(key not in item for item in read):
                    raise ValueError(f"{key}: all items must have it, of one shape, got {sorted(found)}.")
            self._items = {key: torch.cat([item.pop(key) for item in read]).to(self.device) for key in shapes}
        return self._items


def _single(values: Tensor) -> Tensor:
    return values.float() if values.is_floating_point() else values


def sides(pairs: Sequence[Pair], labelled: bool) -> tuple[list[dict[str, str]], list[tuple[int, int]]]:
    """The images of pairs, each once, for :py:class:`DeviceBatches`.

    Args:
        pairs: of a datalist.
        labelled: take the labels, too.

    Returns:
        the images as ``{"image", "labels"?}``, and the numbers of the moving and the fixed image of each pair.
    """
    found: dict[tuple[str, ...], int] = {}
    numbers = []
    for pair in pairs:
        files = [(pair[side], *([pair[f"{side}_label"]] if labelled else [])) for side in ("moving", "fixed")]
        numbers.append((found.setdefault(files[0], len(found)), found.setdefault(files[1], len(found))))
    return [dict(zip(("image", "labels"), files, strict=False)) for files in found], numbers


def pair_sampler(pairs: Sequence[Pair], count: int | None = None) -> Sampler[int]:
    """What an epoch draws: all pairs in random order, or by their ``weight`` where a datalist has them.

    Args:
        pairs: of a datalist; a pair without ``weight`` has 1.
        count: pairs an epoch draws, by default as many as there are.
    """
    if any("weight" in pair for pair in pairs):
        return WeightedRandomSampler([float(pair.get("weight", 1.0)) for pair in pairs], count or len(pairs))
    return RandomSampler(pairs, num_samples=count)
