"""Download against a server on this machine that breaks off, resumes, and serves wrong or wicked archives."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fmirnet_monai.data import download_chaos

NAME = "CHAOS_Train_Sets.zip"


def archive(member: str = "Train_Sets/CT/1/DICOM_anon/i0000.dcm") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(member, bytes(range(256)) * 2000)
    return buffer.getvalue()


class Server(HTTPServer):
    content = archive()
    checksum = hashlib.md5(content).hexdigest()
    cut_after: int | None = None
    resumes = True
    ranges: list[str | None]

    @property
    def record(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/record"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path == "/record":
            link = {"self": self.server.record.replace("record", "content")}
            size = len(self.server.content)
            entry = {"key": NAME, "size": size, "checksum": f"md5:{self.server.checksum}", "links": link}
            self.answer(200, json.dumps({"files": [entry]}).encode())
            return
        self.server.ranges.append(self.headers["Range"])
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if self.server.resumes else 0
        body = self.server.content[start : self.server.cut_after]
        self.server.cut_after = None
        self.answer(206 if self.server.resumes else 200, body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    instance = Server(("127.0.0.1", 0), Handler)
    instance.ranges = []
    Thread(target=instance.serve_forever, daemon=True).start()
    yield instance
    instance.shutdown()
    instance.server_close()


def test_archive_is_verified_and_unpacked(server: Server, tmp_path: Path) -> None:
    download_chaos(tmp_path, record_url=server.record)
    assert (tmp_path / "Train_Sets/CT/1/DICOM_anon/i0000.dcm").read_bytes() == bytes(range(256)) * 2000
    assert (tmp_path / NAME).read_bytes() == server.content


@pytest.mark.parametrize("resumes", [True, False])
def test_broken_download_goes_on(server: Server, tmp_path: Path, resumes: bool) -> None:
    server.cut_after, server.resumes = 100_000, resumes
    with pytest.raises(OSError, match=r"after 100000 of .* start again"):
        download_chaos(tmp_path, record_url=server.record)
    assert not (tmp_path / NAME).exists()
    download_chaos(tmp_path, record_url=server.record)
    assert server.ranges == ["bytes=0-", "bytes=100000-"]
    assert (tmp_path / NAME).read_bytes() == server.content


def test_wrong_checksum_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.checksum = "0" * 32
    with pytest.raises(ValueError, match="checksum"):
        download_chaos(tmp_path, record_url=server.record)
    assert not list(tmp_path.iterdir())


def test_member_outside_the_folder_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = archive("../evil.txt")
    server.checksum = hashlib.md5(server.content).hexdigest()
    with pytest.raises(ValueError, match=r"evil\.txt', a place outside its folder"):
        download_chaos(tmp_path / "inner", record_url=server.record)
    assert not (tmp_path / "evil.txt").exists()


def test_unknown_archive_and_unreachable_server_are_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no file 'other.zip'.*{NAME}"):
        download_chaos(tmp_path, "other.zip", record_url=server.record)
    with pytest.raises(OSError, match=r"127\.0\.0\.1:1/.*start again"):
        download_chaos(tmp_path, record_url="http://127.0.0.1:1/record")


def test_only_addresses_of_the_web_are_asked(tmp_path: Path) -> None:
    (tmp_path / "record").write_text("{}")
    with pytest.raises(ValueError, match="is no address of http or https"):
        download_chaos(tmp_path / "out", record_url=f"file://{tmp_path}/record")
