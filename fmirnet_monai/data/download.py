"""Download the data sets that may be downloaded without a form: CHAOS, from Zenodo."""

from __future__ import annotations

import json
import shutil
import stat
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from monai.apps.utils import check_hash
from tqdm import tqdm

from fmirnet_monai.utils import reading

CHAOS_RECORD = "https://zenodo.org/api/records/3431873"
CHUNK = 1 << 20
DAMAGED = "can't be unpacked ({}); remove it and download it again."
EXPANSION = 100  # times an archive's size that its members may come to; images shrink to a tenth at best


def download_chaos(
    output_dir: str | Path, archive: str = "CHAOS_Train_Sets.zip", record_url: str = CHAOS_RECORD
) -> Path:
    """Download one archive of the CHAOS record, verify its checksum and unpack it.

    A download that broke off goes on where it stopped. What an archive may not hold is refused, see :py:func:`unpack`.
    CHAOS is licensed CC BY-NC-SA 4.0; by downloading it you accept its terms.

    Args:
        output_dir: folder to write; it gets the archive and what is in it.
        archive: name of a file of the record.
        record_url: the record in Zenodo's REST API.

    Returns:
        ``output_dir``.

    Raises:
        OSError: when the server can't be reached or the transfer breaks off.
        ValueError: when the record has no such file, the checksum is wrong (the file is then removed), or the archive
            can't be unpacked.
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
    unpack(target, folder)
    return folder


def unpack(archive: str | Path, folder: str | Path) -> None:
    """Unpack a zip into a folder, once all its members are known to be in order.

    Raises:
        OSError: when the folder has no room for it, or can't be written.
        ValueError: when it is damaged, is encrypted, or holds a link, a place outside the folder, or far more than
            images shrink to: an archive made to fill a disk.
    """
    source, target = Path(archive), Path(folder)
    with reading(source, DAMAGED), zipfile.ZipFile(source) as content:
        members = [member for member in content.infolist() if not member.is_dir()]
    for member in members:
        _check_member(member, source, target)
    _check_room(sum(member.file_size for member in members), source, target)
    with zipfile.ZipFile(source) as content:
        for member in tqdm(members, "unpacking", unit="file", leave=False):
            file = target / member.filename
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as written:
                for block in _blocks(content, member, source):
                    written.write(block)


def _blocks(content: zipfile.ZipFile, member: zipfile.ZipInfo, archive: Path) -> Iterator[bytes]:
    with reading(archive, DAMAGED), content.open(member) as packed:  # zipfile and its decoders raise what they like
        while block := packed.read(CHUNK):
            yield block


def _check_member(member: zipfile.ZipInfo, archive: Path, folder: Path) -> None:
    """Raise ValueError for one that isn't a plain file below the folder, on any system."""
    places = PurePosixPath(member.filename), PureWindowsPath(member.filename)
    outside = not (folder / member.filename).resolve().is_relative_to(folder.resolve())  # by a link that is there
    if outside or any(place.anchor or ".." in place.parts for place in places):
        raise ValueError(f"{archive}: holds {member.filename!r}, a place outside its folder; don't use this archive.")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ValueError(f"{archive}: holds {member.filename!r}, a link or device; don't use this archive.")


def _check_room(size: int, archive: Path, folder: Path) -> None:
    """Raise where members of this size, beyond which zipfile writes nothing, are no images or have no room."""
    if size > EXPANSION * (packed := archive.stat().st_size):
        raise ValueError(
            f"{archive}: its members come to {size} bytes, {EXPANSION} times its own {packed} at most; don't use it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if size > (free := shutil.disk_usage(folder).free):
        raise OSError(
            f"{folder}: {archive.name} needs {size} bytes, {free} are free; make room or name another folder."
        )


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
    if not url.startswith(("https://", "http://")):  # the record names files of its server, not of this computer
        raise ValueError(f"{url}: is no address of http or https; check the record.")
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=60)  # nosec B310
    except OSError as error:
        raise OSError(f"{url}: can't be reached ({error}); check the network and start again.") from error
