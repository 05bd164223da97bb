"""Download the data sets that may be downloaded without a form: CHAOS, from Zenodo."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from monai.apps.utils import check_hash, extractall
from tqdm import tqdm

CHAOS_RECORD = "https://zenodo.org/api/records/3431873"
CHUNK = 1 << 20


def download_chaos(
    output_dir: str | Path, archive: str = "CHAOS_Train_Sets.zip", record_url: str = CHAOS_RECORD
) -> Path:
    """Download one archive of the CHAOS record, verify its checksum and unpack it.

    A download that broke off goes on where it stopped. Members of the archive that point outside the folder are
    refused. CHAOS is licensed CC BY-NC-SA 4.0; by downloading it you accept its terms.

    Args:
        output_dir: folder to write; it gets the archive and what is in it.
        archive: name of a file of the record.
        record_url: the record in Zenodo's REST API.

    Returns:
        ``output_dir``.

    Raises:
        OSError: when the server can't be reached or the transfer breaks off.
        ValueError: when the record has no such file, or the checksum is wrong (the file is then removed).
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with _open(record_url) as response:
        files = {file["key"]: file for file in json.load(response)["files"]}
    if archive not in files:
        raise ValueError(f"archive: {record_url} has no file {archive!r}; it has {sorted(files)}.")
    target = folder / archive
    kind, checksum = files[archive]["checksum"].split(":")
    if not target.is_file():
        partial = target.with_name(target.name + ".partial")
        _fetch(files[archive]["links"]["self"], partial, files[archive]["size"])
        if not check_hash(partial, checksum, kind):
            partial.unlink()
            raise ValueError(f"{target}: the checksum of the download is wrong; it was removed, start again.")
        partial.rename(target)
    extractall(target, folder)
    return folder


def _fetch(url: str, partial: Path, size: int) -> None:
    """Append to ``partial`` until it has ``size`` bytes."""
    done = partial.stat().st_size if partial.exists() else 0
    if done >= size:
        return
    with _open(url, {"Range": f"bytes={done}-"}) as response:
        if response.status != 206:  # the server does not resume: from the start
            done = 0
        with (
            partial.open("ab" if done else "wb") as file,
            tqdm(total=size, initial=done, unit="B", unit_scale=True, desc=partial.stem) as bar,
        ):
            while block := response.read(CHUNK):
                file.write(block)
                bar.update(len(block))
    if (have := partial.stat().st_size) != size:
        raise OSError(f"{url}: the transfer ended after {have} of {size} bytes; start again to go on from there.")


def _open(url: str, headers: dict[str, str] | None = None) -> Any:
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=60)
    except OSError as error:
        raise OSError(f"{url}: can't be reached ({error}); check the network and start again.") from error
