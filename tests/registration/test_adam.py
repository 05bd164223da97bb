"""Adam's steps, against torch's own class."""

from __future__ import annotations

import subprocess
import sys

import torch

from fmirnet_monai.registration.adam import Adam


def test_steps_are_those_of_torch() -> None:
    starts = [torch.rand(3, generator=torch.Generator().manual_seed(i)).double() for i in range(2)]
    theirs, ours = ([start.clone().requires_grad_() for start in starts] for _ in range(2))
    adam, reference = Adam(ours, epsilon=1e-3), torch.optim.Adam(theirs, lr=0.1, eps=1e-3)
    for _ in range(20):
        reference.zero_grad()
        sum((p**2).sum() for p in theirs).backward()
        reference.step()
        adam.step(torch.autograd.grad(sum((p**2).sum() for p in ours), ours), 0.1)
    torch.testing.assert_close(ours, theirs)


def test_torch_s_compiler_is_not_loaded() -> None:
    code = """
import sys, torch
from fmirnet_monai.registration import AffineOptimizer
image = torch.rand(1, 1, 20, 20)
AffineOptimizer("mse", (2,))(image, image.roll(1, 2))
print(*(name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()
