"""What a bundle's network takes: arithmetic, seconds and memory of a prediction and of a training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fmirnet_monai.bundle import find_bundle, read_config
from fmirnet_monai.bundle_config import BundleConfig
from fmirnet_monai.losses import SupervisedLoss
from fmirnet_monai.memory import peak_memory
from fmirnet_monai.networks import StructureNetwork, StructureTraining

PREDICTION, TRAINING = "prediction", "training step"


@dataclass(frozen=True)
class Workload:
    """One prediction or training step on random pairs; called, it prepares, and gives what does it.

    Attributes:
        bundle: name or folder of a registration bundle.
        size: of the images, by default the bundle's ``spatial_size``.
        batch: pairs at a time.
        what: ``"prediction"`` or ``"training step"``: forward, loss, backward and optimiser.
        variant: config in the bundle's ``configs/variants``.
        amp: mixed precision (float16 on CUDA, bfloat16 elsewhere).
        device: of all.
        trust_bundle: run what the bundle's configs say, in place of reading them as data.

    Raises:
        ValueError: for a size of a wrong number of axes, or a batch below 1.
    """

    bundle: str
    size: tuple[int, ...] | None = None
    batch: int = 1
    what: str = PREDICTION
    variant: str | None = None
    amp: bool = False
    device: str = "cpu"
    trust_bundle: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch}.")

    def __call__(self) -> Callable[[], object]:
        """Network, loss, optimiser and a random pair; the function returned works on them."""
        network = self.network()
        if self.what == TRAINING and isinstance(network, StructureNetwork):
            network = StructureTraining(network)
        network = network.to(self.device)
        size = self.spatial_size()
        pair = torch.rand(self.batch, 2 * self._channels(), *size, device=self.device)
        kind = torch.device(self.device).type
        amp = torch.autocast(kind, torch.float16 if kind == "cuda" else torch.bfloat16, enabled=self.amp)
        if self.what == PREDICTION:
            network.eval()

            @torch.no_grad()
            def predict() -> Tensor:
                with amp:
                    return network(pair)

            return predict
        loss: nn.Module = self._config("train").get("loss")
        target: Tensor | tuple[Tensor, Tensor, Tensor] = pair
        if isinstance(loss, SupervisedLoss):
            labels = torch.randint(0, 5, (self.batch, 2, *size), device=self.device)
            target = pair, labels, torch.rand(self.batch, len(size), *size, device=self.device)
        optimizer = torch.optim.Adam(network.parameters())

        def step() -> None:
            optimizer.zero_grad()
            with amp:
                prediction = network(pair)
            loss(prediction, target).backward()
            optimizer.step()

        return step

    def network(self) -> nn.Module:
        """The bundle's network, without weights."""
        network: nn.Module = self._config("inference").get("network_def")
        return network

    def spatial_size(self) -> tuple[int, ...]:
        """Size of the images."""
        own: Sequence[int] = self._config("inference").get("spatial_size")
        size = self.size or own
        size = tuple(size) * len(own) if len(size) == 1 else tuple(size)
        if len(size) != len(own) or min(size) < 16:
            raise ValueError(f"spatial_size must be one or {len(own)} numbers of at least 16, got {list(size)}.")
        return size

    def _config(self, name: str) -> BundleConfig:
        return read_config(find_bundle(self.bundle), name, self.variant, trusted=self.trust_bundle)

    def _channels(self) -> int:
        network: Any = self._config("inference").content["network_def"]
        return int(network.get("in_channels", 1))


def profile(workload: Workload, repeats: int = 3) -> dict[str, float]:
    """Measure one piece of work.

    Args:
        workload: what.
        repeats: timed repetitions, after one that is not timed.

    Returns:
        ``parameters``; ``gflop``, 10⁹ operations of convolutions and matrix products; ``seconds``, the median; and
        ``mib``, the memory at its peak beyond what is held before, see :py:func:`peak_memory`.
    """
    run = workload()
    with FlopCounterMode(display=False) as counter:
        run()
    seconds = []
    for _ in range(repeats):
        _wait(workload.device)
        begin = time.perf_counter()
        run()
        _wait(workload.device)
        seconds.append(time.perf_counter() - begin)
    network: nn.Module = workload.network()
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflop": counter.get_total_flops() / 1e9,
        "seconds": sorted(seconds)[len(seconds) // 2],
        "mib": peak_memory(workload),
    }


def profile_table(workloads: Sequence[Workload], repeats: int = 3) -> str:
    """A row a workload, as Markdown."""
    lines = ["| | images | pairs | parameters | GFLOP | seconds | peak MiB |", "|---|---|---|---|---|---|---|"]
    for workload in workloads:
        size = " x ".join(map(str, workload.spatial_size()))
        found = profile(workload, repeats)
        name = workload.what + (", mixed precision" if workload.amp else "")
        lines.append(
            f"| {name} | {size} | {workload.batch} | {found['parameters']} | {found['gflop']:.1f} | "
            f"{found['seconds']:.3f} | {found['mib']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _wait(device: str) -> None:
    """Until the GPU has done what it was told."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
