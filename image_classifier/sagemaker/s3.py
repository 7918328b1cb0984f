"""Objects on S3; files are transferred by boto3's transfer manager."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager

from container.classifier.errors import UserError
from image_classifier.sagemaker.aws import TRANSFER_THREADS, Aws, Response, explained

_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/?(?P<key>.*)")

# Limit of DeleteObjects.
_BATCH = 1000

# Files are sent whole, up to S3's limit: objects in parts have neither MD5 nor SHA-256.
_TRANSFERS = TransferConfig(
    multipart_threshold=5 * 1024**3,
    max_concurrency=TRANSFER_THREADS,
    preferred_transfer_client="classic",
)


@dataclass(frozen=True, slots=True)
class S3Uri:
    """An object, or all objects whose keys begin with its key."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an s3:// URI.

        Raises:
            UserError: the text is not one.
        """
        match = _URI.fullmatch(text)
        if match is None:
            raise UserError(f"expected s3://BUCKET/PREFIX, got {text!r}")
        return cls(match["bucket"], match["key"])

    def __str__(self) -> str:
        """Return the URI."""
        return f"s3://{self.bucket}/{self.key}"

    def write(self, aws: Aws, body: bytes) -> None:
        """Create the object; in a dry run print the operation."""
        if aws.is_dry:
            aws.show(f"PutObject {self}: {len(body)} bytes")
            return
        aws.query("PutObject", {"Bucket": self.bucket, "Key": self.key, "Body": body}, "s3")

    def read(self, aws: Aws) -> bytes | None:
        """Return the object's content, or None if it does not exist.

        Raises:
            UserError: AWS rejected the request.
        """
        request = {"Bucket": self.bucket, "Key": self.key}
        response = aws.query_unless({"NoSuchKey", "404"}, "GetObject", request, "s3")
        if response is None:
            return None
        body: bytes = response["Body"].read()
        return body

    def etag(self, aws: Aws) -> str:
        """Return a fingerprint of the object's content; an empty string in a dry run.

        Raises:
            UserError: the object does not exist, or AWS rejected the request.
        """
        if aws.is_dry:
            return ""
        with explained(f"reading {self}"):
            response = aws.client("s3").head_object(Bucket=self.bucket, Key=self.key)
        return str(response["ETag"])

    def download(self, aws: Aws, path: Path) -> None:
        """Write the object to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with explained(f"downloading {self}"):
            aws.client("s3").download_file(self.bucket, self.key, str(path))

    def copy(self, aws: Aws, target: "S3Uri") -> None:
        """Copy the object within S3; in a dry run print the operation."""
        if aws.is_dry:
            aws.show(f"CopyObject {self} to {target}")
            return
        source = {"Bucket": self.bucket, "Key": self.key}
        with explained(f"copying {self}"):
            aws.client("s3").copy(source, target.bucket, target.key)

    def objects(self, aws: Aws) -> Iterator[Response]:
        """Yield key, size and ETag of every object whose key begins with this one's."""
        request = {"Bucket": self.bucket, "Prefix": self.key}
        for page in aws.pages("ListObjectsV2", request, "s3"):
            yield from page.get("Contents", [])


def upload(aws: Aws, targets: Mapping[Path, S3Uri], progress: Callable[[int], object]) -> None:
    """Upload files in parallel; `progress` is called with numbers of bytes.

    Raises:
        UserError: S3 rejected a file, or received other content. Uploaded files stay.
    """
    options = {
        "extra_args": {"ChecksumAlgorithm": "SHA256"},
        "subscribers": [ProgressCallbackInvoker(progress)],
    }
    with explained("PutObject"), create_transfer_manager(aws.client("s3"), _TRANSFERS) as manager:
        futures = [
            manager.upload(str(path), target.bucket, target.key, **options)
            for path, target in targets.items()
        ]
        for future in futures:
            future.result()


def delete(aws: Aws, objects: list[S3Uri]) -> None:
    """Delete objects of one bucket.

    Raises:
        UserError: S3 kept some of them.
    """
    for start in range(0, len(objects), _BATCH):
        batch = objects[start : start + _BATCH]
        request = {
            "Bucket": batch[0].bucket,
            "Delete": {"Objects": [{"Key": uri.key} for uri in batch], "Quiet": True},
        }
        if errors := aws.query("DeleteObjects", request, "s3").get("Errors"):
            first = f"{errors[0]['Key']}: {errors[0]['Code']}"
            raise UserError(f"S3 did not delete {len(errors)} objects, such as {first}")
