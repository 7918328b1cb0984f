"""To S3 and from the web: against moto's server and a real HTTP server."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from image_classifier.preparation.__main__ import main

BUCKET = "images-of-mine"
ADDRESS = f"s3://{BUCKET}/birds/v1"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    for key in keys(client):
        client.delete_object(Bucket=BUCKET, Key=key)
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for split in ("train", "validation"):
        for number in range(20):
            path = root / split / "ant" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{split} {number}".encode())
    (root / ".DS_Store").touch()
    return root


def keys(client: Any) -> list[str]:  # noqa: ANN401 - boto3 has no types
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return [item["Key"] for page in pages for item in page.get("Contents", ())]


def upload(folder: Path, *options: str) -> int:
    return main(["upload", str(folder), ADDRESS, *options])


def test_a_folder_is_sent_once_and_then_only_what_changed(
    s3: Any,  # noqa: ANN401
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert upload(folder) == 0
    assert "sent 40 of 40 files" in capsys.readouterr().out
    assert len(keys(s3)) == 40
    assert "birds/v1/train/ant/7.png" in keys(s3)
    body = s3.get_object(Bucket=BUCKET, Key="birds/v1/train/ant/7.png")["Body"].read()
    assert body == b"train 7"

    assert upload(folder) == 0
    assert "sent 0 of 40 files, 0.0 MB" in capsys.readouterr().out

    (folder / "train/ant/7.png").write_bytes(b"trAin 7")
    assert upload(folder) == 0
    assert "sent 1 of 40 files" in capsys.readouterr().out
    body = s3.get_object(Bucket=BUCKET, Key="birds/v1/train/ant/7.png")["Body"].read()
    assert body == b"trAin 7"


def test_a_dry_run_says_all_and_sends_nothing(
    s3: Any,  # noqa: ANN401
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert upload(folder, "--dry-run") == 0

    said = capsys.readouterr().out
    assert "would send train/ant/7.png\n" in said
    assert "would send 40 of 40 files" in said
    assert keys(s3) == []


def test_the_check_names_every_difference(
    s3: Any,  # noqa: ANN401
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    upload(folder, "--quiet")
    assert main(["check", str(folder), ADDRESS]) == 0
    assert f"{ADDRESS} has the same 40 files" in capsys.readouterr().out
    s3.delete_object(Bucket=BUCKET, Key="birds/v1/train/ant/1.png")
    # Of the same size.
    s3.put_object(Bucket=BUCKET, Key="birds/v1/train/ant/2.png", Body=b"train X")
    s3.put_object(Bucket=BUCKET, Key="birds/v1/train/bee/1.png", Body=b"train")

    assert main(["check", str(folder), ADDRESS]) == 1

    assert capsys.readouterr().out == (
        "missing: train/ant/1.png\nchanged: train/ant/2.png\nsurplus: train/bee/1.png\n"
    )
    assert upload(folder, "--quiet") == 0
    assert "has 1 files that are not here, such as train/bee/1.png" in capsys.readouterr().err


def test_an_object_whose_etag_says_nothing_is_known_by_its_checksum(
    s3: Any,  # noqa: ANN401
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    upload(folder, "--quiet")
    key = "birds/v1/train/ant/3.png"
    started = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    part = {"Bucket": BUCKET, "Key": key, "UploadId": started}
    etag = s3.upload_part(**part, PartNumber=1, Body=b"train 3")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(**part, MultipartUpload=parts)
    capsys.readouterr()

    # It has no checksum of the whole: to be sure it is sent again.
    assert upload(folder) == 0
    assert "sent 1 of 40 files" in capsys.readouterr().out


def test_an_interrupted_upload_continues(
    s3: Any,  # noqa: ANN401
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(1500):
        (folder / "train" / "ant" / f"more{number}.png").write_bytes(b"%d" % number)
    command = [sys.executable, "-m", "image_classifier.preparation", "upload", str(folder), ADDRESS]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while len(keys(s3)) < 50:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1]
    assert process.returncode == 2
    assert "stopped" in error
    sent = len(keys(s3))
    assert 50 <= sent < 1540

    assert upload(folder) == 0

    assert f"sent {1540 - sent} of 1540 files" in capsys.readouterr().out
    assert main(["check", str(folder), ADDRESS, "--quiet"]) == 0


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://none-of-mine/x", "S3 refuses ListObjectsV2 in none-of-mine: NoSuchBucket"),
        ("bucket/x", "expected s3://BUCKET/PREFIX"),
    ],
)
def test_a_bucket_that_is_none_is_said_to_be(
    s3: Any,  # noqa: ANN401
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    address: str,
    words: str,
) -> None:
    assert main(["upload", str(folder), address, "--quiet"]) == 2
    assert words in capsys.readouterr().err
    assert keys(s3) == []


def test_links_are_not_followed_into_a_bucket(
    s3: Any,  # noqa: ANN401
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "train" / "secret.png").symlink_to("/etc/hostname")

    assert upload(folder, "--quiet") == 2
    assert "is a link" in capsys.readouterr().err
    assert keys(s3) == []


def test_without_credentials_a_sentence_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    assert upload(folder, "--quiet") == 2
    assert "are AWS credentials and a region set?" in capsys.readouterr().err


DATA = bytes(range(256)) * 4096
SUM = hashlib.sha256(DATA).hexdigest()


class Web(BaseHTTPRequestHandler):
    """Gives /whole, /half once and then the rest where it is asked for, /page, and 404."""

    ranges: list[str | None]
    breaks: int

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        type(self).ranges.append(asked)
        if self.path == "/none":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.send_header("Content-Type", "text/html" if self.path == "/page" else "application/zip")
        self.end_headers()
        end = len(DATA)
        if self.path == "/half" and type(self).breaks:
            type(self).breaks -= 1
            end //= 2
        self.wfile.write(DATA[start:end])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    Web.ranges, Web.breaks = [], 1
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fetch(url: str, target: Path, *options: str) -> int:
    return main(["download", url, str(target), *options])


def test_a_download_is_checked_and_not_repeated(
    web: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "data.zip"

    assert fetch(f"{web}/whole", target) == 0
    assert capsys.readouterr().out == f"{SUM}  {target}\n"
    assert target.read_bytes() == DATA
    assert fetch(f"{web}/whole", target, "--sha256", SUM) == 0
    assert len(Web.ranges) == 1
    assert [path.name for path in target.parent.iterdir()] == ["data.zip"]


def test_without_a_checksum_a_download_that_broke_off_starts_again(
    web: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(f"{web}/half", tmp_path / "a") == 2
    assert "start again; with --sha256 it would continue" in capsys.readouterr().err
    assert fetch(f"{web}/half", tmp_path / "a") == 0

    assert Web.ranges == [None, None]


def test_another_file_than_was_meant_is_not_kept(
    web: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(f"{web}/whole", tmp_path / "a", "--sha256", "0" * 64) == 2

    assert f"has the SHA-256 {SUM}, not {'0' * 64}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_broke_off_goes_on(
    web: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(f"{web}/half", tmp_path / "a", "--sha256", SUM) == 2
    assert "the same command continues" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()

    assert fetch(f"{web}/half", tmp_path / "a", "--sha256", SUM) == 0

    assert (tmp_path / "a").read_bytes() == DATA
    assert Web.ranges == [None, f"bytes={len(DATA) // 2}-"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["WEB/none"], "answers 404"),
        (["WEB/page"], "is a web page, such as one to log in by"),
        (["file:///etc/hostname"], "begins with https:// or http://"),
        (["http://127.0.0.1:1/x"], "cannot be fetched"),
        (["WEB/whole", "--sha256", "abc"], "expected 64 hexadecimal digits"),
    ],
)
def test_what_cannot_be_fetched_is_said_in_a_sentence(
    web: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    words: str,
) -> None:
    url, *options = command
    assert fetch(url.replace("WEB", web), tmp_path / "a", *options) == 2

    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_that_name_is_not_overwritten(
    web: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_bytes(b"mine")

    assert fetch(f"{web}/whole", tmp_path / "a") == 2

    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "a").read_bytes() == b"mine"
