"""`upload` and `check`, against moto's S3 server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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


def test_only_missing_and_changed_files_are_uploaded(
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


def test_dry_run_lists_the_files_and_sends_nothing(
    s3: Any,  # noqa: ANN401
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert upload(folder, "--dry-run") == 0

    printed = capsys.readouterr().out
    assert "would send train/ant/7.png\n" in printed
    assert "would send 40 of 40 files" in printed
    assert keys(s3) == []


def test_check_lists_every_difference(
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


def test_object_without_md5_and_checksum_is_uploaded_again(
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

    # Objects sent in parts have no checksum of the whole.
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
        ("s3://none-of-mine/x", "AWS rejected ListObjectsV2: NoSuchBucket"),
        ("bucket/x", "expected s3://BUCKET/PREFIX"),
    ],
)
def test_unknown_bucket_and_invalid_address_are_rejected(
    s3: Any,  # noqa: ANN401
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    address: str,
    words: str,
) -> None:
    assert main(["upload", str(folder), address, "--quiet"]) == 2
    assert words in capsys.readouterr().err
    assert keys(s3) == []


def test_symbolic_links_are_not_uploaded(
    s3: Any,  # noqa: ANN401
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "train" / "secret.png").symlink_to("/etc/hostname")

    assert upload(folder, "--quiet") == 2
    assert "is a link" in capsys.readouterr().err
    assert keys(s3) == []


def test_upload_without_credentials_is_rejected(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    # Sessions keep the credentials of earlier tests.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    assert upload(folder, "--quiet") == 2
    assert "no AWS credentials" in capsys.readouterr().err
