"""`upload` and `check`, against moto's S3 server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest

from image_classifier.preparation.__main__ import main
from tests.accounts import IGNORE_OPEN_CONNECTIONS, client, get, keys, put

pytestmark = IGNORE_OPEN_CONNECTIONS

ADDRESS = "s3://my-bucket/birds/v1"


@pytest.fixture(autouse=True)
def _region(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert account
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


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


def upload(folder: Path, *options: str) -> int:
    return main(["upload", str(folder), ADDRESS, *options])


def test_only_missing_and_changed_files_are_uploaded(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(folder) == 0
    assert "sent 40 of 40 files" in capsys.readouterr().out
    assert len(keys()) == 40
    assert "birds/v1/train/ant/7.png" in keys()
    assert get("birds/v1/train/ant/7.png") == b"train 7"

    assert upload(folder) == 0
    assert "sent 0 of 40 files, 0.0 MB" in capsys.readouterr().out

    (folder / "train/ant/7.png").write_bytes(b"trAin 7")
    assert upload(folder) == 0
    assert "sent 1 of 40 files" in capsys.readouterr().out
    assert get("birds/v1/train/ant/7.png") == b"trAin 7"


def test_dry_run_lists_the_files_and_sends_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(folder, "--dry-run") == 0

    printed = capsys.readouterr().out
    assert "would send train/ant/7.png\n" in printed
    assert "would send 40 of 40 files" in printed
    assert keys() == set()


def test_check_lists_every_difference(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upload(folder, "--quiet")
    assert main(["check", str(folder), ADDRESS]) == 0
    assert f"{ADDRESS} has the same 40 files" in capsys.readouterr().out
    client("s3").delete_object(Bucket="my-bucket", Key="birds/v1/train/ant/1.png")
    # Of the same size.
    put("birds/v1/train/ant/2.png", b"train X")
    put("birds/v1/train/bee/1.png", b"train")

    assert main(["check", str(folder), ADDRESS]) == 1

    assert capsys.readouterr().out == (
        "missing: train/ant/1.png\nchanged: train/ant/2.png\nsurplus: train/bee/1.png\n"
    )
    assert upload(folder, "--quiet") == 0
    assert "has 1 files that are not here, such as train/bee/1.png" in capsys.readouterr().err


def test_object_without_md5_and_checksum_is_uploaded_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(folder, "--quiet")
    key = "birds/v1/train/ant/3.png"
    s3 = client("s3")
    started = s3.create_multipart_upload(Bucket="my-bucket", Key=key)["UploadId"]
    part = {"Bucket": "my-bucket", "Key": key, "UploadId": started}
    etag = s3.upload_part(**part, PartNumber=1, Body=b"train 3")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(**part, MultipartUpload=parts)
    capsys.readouterr()

    # Objects sent in parts have no checksum of the whole.
    assert upload(folder) == 0
    assert "sent 1 of 40 files" in capsys.readouterr().out


def test_an_interrupted_upload_continues(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1500):
        (folder / "train" / "ant" / f"more{number}.png").write_bytes(b"%d" % number)
    command = [sys.executable, "-m", "image_classifier.preparation", "upload", str(folder), ADDRESS]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while len(keys()) < 50:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1]
    assert process.returncode == 2
    assert "stopped" in error
    sent = len(keys())
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
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    address: str,
    words: str,
) -> None:
    assert main(["upload", str(folder), address, "--quiet"]) == 2
    assert words in capsys.readouterr().err
    assert keys() == set()


def test_symbolic_links_are_not_uploaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "train" / "secret.png").symlink_to("/etc/hostname")

    assert upload(folder, "--quiet") == 2
    assert "is a link" in capsys.readouterr().err
    assert keys() == set()


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
