"""The terms that a bundle's weights come under, told where they are used for the first time."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from platformdirs import user_state_path

from fmirnet_monai.errors import one_line
from fmirnet_monai.utils import read_object

FREE = ("Apache-2.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0")  # any use is allowed, with credit at most
KEY = "weights_license"  # of a bundle's metadata.json


def weights_license(bundle_dir: str | Path) -> str:
    """The licence of a bundle's own weights by its SPDX name, as its ``metadata.json`` states it; empty for none."""
    file = Path(bundle_dir) / "configs" / "metadata.json"
    return str(read_object(file).get(KEY, "")) if file.is_file() else ""


def tell_terms(weights: Path) -> None:
    """Say on stderr, once to each user, under which terms weights come that are a bundle's and not free for any use.

    That it was said is kept in the user's folder of programs' states; where that can't be written it is said again.
    """
    folder = weights.absolute().parents[1]
    terms = weights_license(folder)
    if not terms or terms in FREE:
        return
    name = re.sub(r"[^\w.-]", "_", f"{folder.name}-{terms}", flags=re.ASCII)  # both may come from elsewhere
    said = user_state_path("fmirnet") / "terms" / name[:100]
    if said.exists():
        return
    use = "for research and other non-commercial use, " if "-NC" in terms else ""
    page = folder / "docs" / "data_license.txt"
    where = page if page.is_file() else folder / "configs" / "metadata.json"
    told = f"the weights of {folder.name} come under {terms}: {use}see {where}. This is said once."
    print(f"note: {one_line(told)}", file=sys.stderr)
    try:
        said.parent.mkdir(parents=True, exist_ok=True)
        said.touch()
    except OSError:
        return
