"""The picture at the head of the README: the generated pair of ``fmirnet demo`` before and after.

python benchmarks/picture.py docs/assets/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from fmirnet_monai.demo import run_demo
from fmirnet_monai.report import draw_pairs


def draw(path: str) -> Path:
    """Register the generated pair and draw its middle slice."""
    with TemporaryDirectory() as folder:
        result = run_demo(folder)
    moving, fixed = result.intensity(result.moving), result.intensity(result.fixed)
    case = {
        "title": "",
        "moving": moving[0],
        "fixed": fixed[0],
        "warped": result.intensity(result.warped)[0],
        "moving_label": result.moving_label[0],
        "fixed_label": result.fixed_label[0],
        "warped_label": result.warped_label[0],
        "ddf": result.field.ddf,
    }
    with Image.open(draw_pairs([case], path)) as picture:
        few = picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)  # half the size, no difference to be seen
        few.save(path, optimize=True)
    return Path(path)


if __name__ == "__main__":
    print(draw(sys.argv[1]))
