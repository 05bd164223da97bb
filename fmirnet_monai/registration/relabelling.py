"""A segmentation network of one volume: it learns the labels propagated through it, and labels its slices again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    RandAffined,
    RandScaleIntensityd,
    RandShiftIntensityd,
    generate_spatial_bounding_box,
)
from torch import Tensor, nn

from fmirnet_monai.engines import EpochSeed, ProgressBar
from fmirnet_monai.spatial import Grid, resize
from fmirnet_monai.spatial.image import on_grid, plain

from .propagation import Propagation

MARGIN = 1 / 16  # of the slice's longest side, around all labels, that the network sees
LONGEST = 192  # pixels of the longer side of what it sees, at most
BATCH = 4
DIVISOR = 8  # of the sides of what the network takes


class _Loss(nn.Module):
    """Cross entropy, each pixel weighted by its confidence and by how rare its class is, plus Dice.

    Args:
        share: of all pixels that each class has.
    """

    def __init__(self, share: Tensor) -> None:
        super().__init__()
        self.rarity = (share[0] / share.clamp(min=1e-6)).sqrt()
        self.dice = DiceLoss(softmax=True, batch=True, include_background=False)

    def forward(self, scores: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        classes, weight = target
        entropy = F.cross_entropy(scores, classes, self.rarity.to(scores), reduction="none")
        return (entropy * weight[:, 0]).sum() / weight.sum() + self.dice(scores, classes)


def relabel(
    image: Tensor,
    propagation: Propagation,
    epochs: int,
    device: torch.device | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Propagation:
    """Train a segmentation network on a propagated label and label the slices with both.

    A UNet sees a slice, the slices beside it, and where each pixel lies; it learns the propagated classes of all
    slices of this one volume, each pixel weighted by its confidence. What is learnt from all slices corrects single
    ones on which the registration went wrong. Its class probabilities are multiplied with those of the propagation.

    Args:
        image: ``(1, X, Y, Z)``, intensities in [0, 1], that the label was propagated through.
        propagation: of its label.
        epochs: passes through the slices from the first annotated one to the last.
        device: of the network.
        seed: of its first weights, order and augmentation.
        progress: show a bar.

    Returns:
        label and confidence; annotated slices stay as they were drawn.

    Raises:
        ValueError: when ``epochs`` is not positive.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}.")
    device = device or torch.device("cpu")
    annotation = propagation.annotation
    axis = annotation.axis
    spacing = np.delete(Grid.of(image).spacing, axis)
    first, last = annotation.slices[0], annotation.slices[-1]
    images, labels, confidence = (
        plain(t)[0].movedim(axis, 0) for t in (image, propagation.label, propagation.confidence)
    )
    ids = torch.cat([labels.new_zeros(1), labels[labels != 0].unique()])
    longest = max(n * s for n, s in zip(images.shape[1:], spacing, strict=True))
    margin = [round(MARGIN * longest / s) for s in spacing]
    start, stop = generate_spatial_bounding_box(labels.amax(0, keepdim=True), margin=margin, allow_smaller=True)
    window = (slice(first, last + 1), *(slice(a, b) for a, b in zip(start, stop, strict=True)))
    drawn = [i - first for i in annotation.slices]

    classes = (labels[window][:, None] == ids.reshape(1, -1, 1, 1)).float()
    sure = confidence[window][:, None].float()
    pictures = images[window].float()
    beside = torch.stack(
        [pictures[[0, *range(len(pictures) - 1)]], pictures, pictures[[*range(1, len(pictures)), -1]]], 1
    )
    size = _working_size(pictures.shape[1:])
    place = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij"))
    inputs, targets, weights = resize(beside, size), resize(classes, size), resize(sure**2, size)
    items = [
        {"image": i, "place": place, "classes": c, "weight": w}
        for i, c, w in zip(inputs, targets, weights, strict=True)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _train(items, len(ids), epochs, device, seed, progress)
    network.eval()
    with torch.no_grad():
        scores = [network(torch.cat([i, place])[None].to(device)).cpu() for i in inputs]
    learnt = resize(torch.cat(scores), pictures.shape[1:]).log_softmax(1)
    others = (1 - sure).clamp(min=1e-3) / max(1, len(ids) - 1)
    known = torch.where(classes > 0, sure.clamp(min=1e-3), others).log()
    probability, best = (learnt + known).softmax(1).max(1)
    found, certain = ids[best], probability
    found[drawn], certain[drawn] = labels[window][drawn], 1.0

    labels, confidence = labels.clone(), confidence.clone()
    labels[window], confidence[window] = found, certain.to(confidence)
    grid = Grid.of(image)
    label, certainty = (on_grid(part.movedim(0, axis)[None], grid, image) for part in (labels, confidence))
    return Propagation(label, certainty, annotation)


def _working_size(shape: torch.Size) -> list[int]:
    """Sides of what the network takes: of the same proportions, multiples of what it can halve."""
    factor = min(1.0, LONGEST / max(shape))
    return [max(2 * DIVISOR, DIVISOR * round(n * factor / DIVISOR)) for n in shape]


def _train(
    items: list[dict[str, Tensor]], classes: int, epochs: int, device: torch.device, seed: int, progress: bool
) -> nn.Module:
    network = UNet(
        spatial_dims=2,
        in_channels=len(items[0]["image"]) + len(items[0]["place"]),
        out_channels=classes,
        channels=(16, 32, 64, 128),
        strides=(2, 2, 2),
        num_res_units=2,
    ).to(device)
    every = ["image", "place", "classes", "weight"]
    augment = Compose(
        [
            RandAffined(
                every,
                prob=0.8,
                rotate_range=0.15,
                scale_range=0.1,
                translate_range=8,
                mode="bilinear",
                padding_mode="border",
            ),
            RandScaleIntensityd("image", factors=0.1, prob=0.5),
            RandShiftIntensityd("image", offsets=0.05, prob=0.5),
        ]
    )
    dataset = Dataset(items, augment)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    handlers: list[Any] = [EpochSeed(seed, dataset), LrScheduleHandler(schedule, print_lr=False)]  # type: ignore[arg-type]
    if progress:
        handlers.append(ProgressBar("learning the propagated labels"))
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=DataLoader(dataset, batch_size=BATCH, shuffle=True),
        network=network,
        optimizer=optimizer,
        loss_function=_Loss(torch.stack([item["classes"].mean((1, 2)) for item in items]).mean(0)),
        prepare_batch=_prepare,
        train_handlers=handlers,
    )
    trainer.logger.setLevel("WARNING")
    trainer.run()
    return network


def _prepare(
    batch: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    image, place, classes, weight = (
        plain(batch[key]).to(device, non_blocking=non_blocking, **kwargs)
        for key in ("image", "place", "classes", "weight")
    )
    return torch.cat([image, place], 1), (classes, weight)
