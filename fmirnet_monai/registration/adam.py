"""Adam for a few parameters. The first of torch's optimizer classes to be made loads torch's compiler, for seconds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam:
    """Steps of :py:class:`torch.optim.Adam` at its defaults, in place.

    Args:
        parameters: leaves that want a gradient.
        epsilon: added to the root of the second moment; may be set before the first step.
    """

    def __init__(self, parameters: Sequence[Tensor], epsilon: float = 1e-8) -> None:
        self.parameters = list(parameters)
        self.epsilon = epsilon
        self._means, self._squares = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        self._steps = [torch.zeros(()) for _ in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """Go down the gradients, by about ``rate`` in each parameter."""
        adam(
            self.parameters,
            list(gradients),
            self._means,
            self._squares,
            [],
            self._steps,
            foreach=False,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=self.epsilon,
            maximize=False,
        )
