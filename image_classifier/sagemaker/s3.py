"""Objects on S3."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from botocore.exceptions import ClientError

from container.classifier.errors import UserError
from image_classifier.sagemaker.aws import Aws, refusal

_PLACE = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/?(?P<key>.*)")

# What delete_objects takes.
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """An object, or all whose keys begin with its key."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an s3:// address.

        Raises:
            UserError: it is none.
        """
        match = _PLACE.fullmatch(text)
        if match is None:
            message = f"expected s3://bucket/prefix, got {text!r}"
            raise UserError(message)
        return cls(match["bucket"], match["key"])

    def __str__(self) -> str:
        """Return the address."""
        return f"s3://{self.bucket}/{self.key}"

    def write(self, aws: Aws, body: bytes) -> None:
        """Make the object; in a dry run say so."""
        if aws.is_dry:
            aws.show(f"PutObject {self}: {len(body)} bytes")
            return
        aws.ask("PutObject", {"Bucket": self.bucket, "Key": self.key, "Body": body}, "s3")

    def read(self, aws: Aws) -> bytes | None:
        """Return the object, or None where there is none.

        Raises:
            UserError: AWS refuses it.
        """
        try:
            answer = aws.client("s3").get_object(Bucket=self.bucket, Key=self.key)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"NoSuchKey", "404"}:
                return None
            raise UserError(refusal("GetObject", error)) from None
        body: bytes = answer["Body"].read()
        return body

    def download(self, aws: Aws, path: Path) -> None:
        """Write the object to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        answer = aws.ask("GetObject", {"Bucket": self.bucket, "Key": self.key}, "s3")
        with path.open("wb") as file:
            for chunk in answer["Body"].iter_chunks(1 << 20):
                file.write(chunk)

    def copy(self, aws: Aws, to: "Place") -> None:
        """Copy the object within S3; in a dry run say so."""
        if aws.is_dry:
            aws.show(f"CopyObject {self} to {to}")
            return
        request = {
            "Bucket": to.bucket,
            "Key": to.key,
            "CopySource": {"Bucket": self.bucket, "Key": self.key},
        }
        aws.ask("CopyObject", request, "s3")

    def below(self, aws: Aws) -> Iterator["Place"]:
        """Yield every object whose key begins with this one's."""
        pages = aws.pages("ListObjectsV2", {"Bucket": self.bucket, "Prefix": self.key}, "s3")
        for page in pages:
            for each in page.get("Contents", []):
                yield Place(self.bucket, each["Key"])


def remove(aws: Aws, places: list[Place]) -> None:
    """Remove objects of one bucket.

    Raises:
        UserError: AWS keeps some of them.
    """
    for start in range(0, len(places), BATCH):
        batch = places[start : start + BATCH]
        request = {
            "Bucket": batch[0].bucket,
            "Delete": {"Objects": [{"Key": place.key} for place in batch], "Quiet": True},
        }
        answer = aws.ask("DeleteObjects", request, "s3")
        if errors := answer.get("Errors"):
            message = (
                f"S3 keeps {len(errors)} objects, such as {errors[0]['Key']}: {errors[0]['Code']}"
            )
            raise UserError(message)
