"""Compare a folder on this machine with an S3 prefix, and upload what differs."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from container.classifier.errors import UserError
from container.classifier.image_files import visible_entries
from image_classifier.sagemaker import s3
from image_classifier.sagemaker.aws import Aws, Response
from image_classifier.sagemaker.s3 import S3Uri


@dataclass(frozen=True, slots=True)
class Local:
    """A file on this machine; its hashes are hexadecimal."""

    path: Path
    size_bytes: int
    md5: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between a folder and a prefix; names are relative to both."""

    missing: tuple[str, ...]
    """Only in the folder."""
    changed: tuple[str, ...]
    """In both, with different contents."""
    surplus: tuple[str, ...]
    """Only on S3."""


class Prefix:
    """An S3 prefix; credentials, region and endpoint come from boto3's usual sources."""

    def __init__(self, address: str) -> None:
        """Parse an address such as s3://bucket/some/prefix.

        Raises:
            UserError: the address is invalid.
        """
        uri = S3Uri.parse(address)
        key = uri.key.strip("/")
        self._uri = S3Uri(uri.bucket, f"{key}/" if key else "")
        self._aws = Aws()

    def compare(self, folder: Mapping[str, Local], *, quiet: bool = False) -> Difference:
        """Compare files with objects, by size and hash.

        Raises:
            UserError: the bucket cannot be read.
        """
        objects = self._uri.objects(self._aws)
        remote = {
            item["Key"].removeprefix(self._uri.key): item
            for item in tqdm(objects, desc="list", unit=" files", disable=quiet or None)
            # The S3 console creates objects as folders.
            if not item["Key"].endswith("/")
        }
        both = sorted(folder.keys() & remote.keys())
        changed = [name for name in both if not self._is_same(folder[name], remote[name])]
        return Difference(
            tuple(sorted(folder.keys() - remote.keys())),
            tuple(changed),
            tuple(sorted(remote.keys() - folder.keys())),
        )

    def send(self, folder: Mapping[str, Local], names: Sequence[str], *, quiet: bool) -> None:
        """Upload files in parallel; S3 verifies their hashes.

        Raises:
            UserError: S3 rejected a file. Uploaded files stay, and are not sent again.
        """
        total = sum(folder[name].size_bytes for name in names)
        targets = {folder[n].path: S3Uri(self._uri.bucket, self._uri.key + n) for n in names}
        bar = tqdm(total=total, desc="upload", unit="B", unit_scale=True, disable=quiet or None)
        with bar:
            s3.upload(self._aws, targets, bar.update)

    def _is_same(self, file: Local, remote: Response) -> bool:
        if remote["Size"] != file.size_bytes:
            return False
        if remote["ETag"].strip('"') == file.md5:
            return True
        # With KMS encryption the ETag is not the MD5.
        request = {"Bucket": self._uri.bucket, "Key": remote["Key"], "ChecksumMode": "ENABLED"}
        head = self._aws.query("HeadObject", request, "s3")
        sha256 = base64.b64decode(head.get("ChecksumSHA256", "").partition("-")[0]).hex()
        return bool(sha256) and sha256 == file.sha256


def hashed(folder: Path, *, quiet: bool = False) -> dict[str, Local]:
    """Hash all files of a folder except litter; return them by their relative paths.

    Raises:
        UserError: the folder has no files, or has a symbolic link, whose target may be elsewhere.
    """
    paths = [path for path in visible_entries(folder) if path.is_symlink() or not path.is_dir()]
    if links := [path for path in paths if path.is_symlink()]:
        raise UserError(f"{links[0]} is a link: replace it with the file itself")
    if not paths:
        raise UserError(f"{folder} is not a folder with files")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = pool.map(_hash, paths)
        bar = tqdm(read, total=len(paths), desc="hash", unit=" files", disable=quiet or None)
        return {file.path.relative_to(folder).as_posix(): file for file in bar}


def _hash(path: Path) -> Local:
    data = path.read_bytes()
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Local(path, len(data), md5, hashlib.sha256(data).hexdigest())
