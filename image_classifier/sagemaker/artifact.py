"""The small files of a model.tar.gz on S3: its manifest and its golden images."""

import tarfile
from pathlib import PurePosixPath

from container.classifier.artifact import GOLDEN
from container.classifier.errors import UserError
from container.classifier.manifest import MANIFEST
from image_classifier.sagemaker.aws import Aws, explained
from image_classifier.sagemaker.s3 import S3Uri

# A manifest, and a few images of the network's input size with their probabilities.
MAX_BYTES = 100_000_000


def read(aws: Aws, artifact: S3Uri) -> dict[str, bytes]:
    """Return the content of the manifest and of all files of `golden/`, by path.

    Nothing is written to the disk.

    Raises:
        UserError: the artifact cannot be read, is not an archive, or the files are too large.
    """
    files: dict[str, bytes] = {}
    total = 0
    with explained(f"reading {artifact}"):
        body = aws.client("s3").get_object(Bucket=artifact.bucket, Key=artifact.key)["Body"]
        try:
            with body, tarfile.open(fileobj=body, mode="r|*") as archive:
                for member in archive:
                    name = str(PurePosixPath(member.name))
                    is_small = name == MANIFEST or name.startswith(f"{GOLDEN}/")
                    if not (is_small and member.isfile()):
                        continue
                    total += member.size
                    if total > MAX_BYTES:
                        raise UserError(
                            f"the manifest and golden images of {artifact} have more than "
                            f"{MAX_BYTES / 1e6:g} MB"
                        )
                    opened = archive.extractfile(member)
                    files[name] = opened.read() if opened is not None else b""
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UserError(f"{artifact} is not a tar archive: {error}") from None
    return files
