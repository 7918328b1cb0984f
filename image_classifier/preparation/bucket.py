"""A folder here and a prefix in S3: what differs, and sending it."""

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tqdm import tqdm

from container.classifier.channel import is_ignored
from container.classifier.errors import UserError

ADDRESS = re.compile(r"^s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?$")

THREADS = 16

# Sent but not yet answered for, at most: an interruption waits for these alone.
AHEAD = 2 * THREADS


@dataclass(frozen=True, slots=True)
class Local:
    """A file here."""

    path: Path
    size_bytes: int
    md5: str
    sha256: str
    """In hexadecimal digits, both."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a folder and a prefix do not have in common; names as they are in the folder."""

    missing: tuple[str, ...]
    """Here, and not there."""

    changed: tuple[str, ...]
    """There with other contents."""

    surplus: tuple[str, ...]
    """There, and not here."""

    @property
    def is_none(self) -> bool:
        """Whether all is equal."""
        return not (self.missing or self.changed or self.surplus)


class Prefix:
    """A prefix in a bucket; credentials, region and endpoint come from the usual places."""

    def __init__(self, address: str) -> None:
        """Take an address such as s3://bucket/some/prefix.

        Raises:
            UserError: it is none.
        """
        match = ADDRESS.match(address)
        if not match:
            message = f"expected s3://BUCKET/PREFIX, got {address!r}"
            raise UserError(message)
        self.bucket, prefix = match["bucket"], (match["prefix"] or "").strip("/")
        self.prefix = f"{prefix}/" if prefix else ""
        with _refusals(self.bucket):
            config = Config(
                max_pool_connections=THREADS, retries={"mode": "standard", "total_max_attempts": 6}
            )
            self._client = boto3.client("s3", config=config)

    def compare(self, folder: Mapping[str, Local], *, quiet: bool = False) -> Difference:
        """Compare files with objects, by size and hash.

        Raises:
            UserError: the bucket cannot be read.
        """
        with _refusals(self.bucket):
            there = self._listed(quiet=quiet)
            both = sorted(folder.keys() & there.keys())
            changed = [name for name in both if not self._is_same(name, folder[name], there[name])]
        return Difference(
            tuple(sorted(folder.keys() - there.keys())),
            tuple(changed),
            tuple(sorted(there.keys() - folder.keys())),
        )

    def send(self, folder: Mapping[str, Local], names: Sequence[str], *, quiet: bool) -> None:
        """Send files in parallel; S3 refuses what does not arrive as it was sent.

        Raises:
            UserError: S3 refuses. What was sent stays, and need not be sent again.
        """
        total = sum(folder[name].size_bytes for name in names)
        bar = tqdm(total=total, desc="upload", unit="B", unit_scale=True, disable=quiet or None)
        with _refusals(self.bucket), bar, ThreadPoolExecutor(THREADS) as pool:
            left = iter(names)
            sent: dict[Future[None], str] = {}
            while True:
                for name in islice(left, AHEAD - len(sent)):
                    sent[pool.submit(self._put, name, folder[name])] = name
                if not sent:
                    return
                for done in wait(sent, return_when=FIRST_COMPLETED).done:
                    bar.update(folder[sent.pop(done)].size_bytes)
                    done.result()

    def _put(self, name: str, file: Local) -> None:
        with file.path.open("rb") as body:
            self._client.put_object(
                Bucket=self.bucket,
                Key=self.prefix + name,
                Body=body,
                ChecksumSHA256=base64.b64encode(bytes.fromhex(file.sha256)).decode(),
            )

    def _listed(self, *, quiet: bool) -> dict[str, Mapping[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix
        )
        bar = tqdm(desc="list", unit=" pages", disable=quiet or None)
        found = {}
        with bar:
            for page in pages:
                bar.update()
                for item in page.get("Contents", ()):
                    # A folder that S3's console has made.
                    if not item["Key"].endswith("/"):
                        found[item["Key"].removeprefix(self.prefix)] = item
        return found

    def _is_same(self, name: str, file: Local, there: Mapping[str, Any]) -> bool:
        if there["Size"] != file.size_bytes:
            return False
        etag = there["ETag"].strip('"')
        if etag == file.md5:
            return True
        # Encrypted with a key of KMS, an object has an ETag that says nothing.
        head = self._client.head_object(
            Bucket=self.bucket, Key=self.prefix + name, ChecksumMode="ENABLED"
        )
        sha256 = base64.b64decode(head.get("ChecksumSHA256", "").partition("-")[0]).hex()
        return bool(sha256) and sha256 == file.sha256


def hashed(folder: Path, *, quiet: bool = False) -> dict[str, Local]:
    """Read all files of a folder but litter, and return them by their paths in it.

    Raises:
        UserError: there is none, or a link, which would send what lies elsewhere.
    """
    names = []
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in [*files, *folders]:
            if Path(directory, name).is_symlink():
                message = f"{Path(directory, name)} is a link: put the file itself there"
                raise UserError(message)
        names += [Path(directory, name) for name in sorted(files) if not is_ignored(name)]
    if not names:
        message = f"{folder} is no folder with files"
        raise UserError(message)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = pool.map(_hash, names)
        bar = tqdm(read, total=len(names), desc="hash", unit=" files", disable=quiet or None)
        return {file.path.relative_to(folder).as_posix(): file for file in bar}


def _hash(path: Path) -> Local:
    data = path.read_bytes()
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Local(path, len(data), md5, hashlib.sha256(data).hexdigest())


@contextmanager
def _refusals(bucket: str) -> Iterator[None]:
    """Make sentences of what boto3 raises."""
    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        message = (
            f"S3 refuses {error.operation_name} in {bucket}: {said.get('Code')} "
            f"({said.get('Message')}); are the bucket, the region and the role right?"
        )
        raise UserError(message) from error
    except BotoCoreError as error:
        message = f"S3 cannot be reached: {error}; are AWS credentials and a region set?"
        raise UserError(message) from error
