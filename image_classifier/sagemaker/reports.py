"""`report`: a training job's pages, fetched from S3 onto this machine."""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from container.classifier.errors import UserError
from image_classifier.sagemaker import models
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.s3 import Place
from image_classifier.settings.settings_file import SettingsFile

# A report is a page of a few megabytes, tensors of Debugger are up to 512 MB.
MAX_BYTES = 4_000_000_000

# What a browser, or a person, reads.
_PAGES = frozenset({".html", ".ipynb", ".json"})


def fetch(aws: Aws, file: SettingsFile, folder: Path, *, job: str | None = None) -> list[Path]:
    """Bring a job's reports into `folder`; return its pages.

    Those of the training program are in its output.tar.gz, those of SageMaker's own rules, where
    the account has them, below `rule-output`.

    Raises:
        UserError: there is no such job, or it has no reports.
    """
    file.require("report")
    settings = file.settings
    name = job or models.newest(aws, settings)
    target = folder / name
    archive = Place.parse(f"{settings.output}/{name}/output/output.tar.gz")
    packed = target / "output.tar.gz"
    archive.download(aws, packed)
    extract(packed, target)
    packed.unlink()
    rules = Place.parse(f"{settings.output}/{name}/rule-output/")
    for place in rules.below(aws):
        relative = PurePosixPath(place.key.removeprefix(rules.key))
        is_inside = not relative.is_absolute() and ".." not in relative.parts
        if is_inside and relative.suffix in _PAGES:
            place.download(aws, target / "rule-output" / relative)
    return sorted(target.rglob("*.html"))


def extract(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder, and nothing out of it.

    Raises:
        UserError: it is none, or far too large.
    """
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, members=_limited(opened), filter="data")
    except (tarfile.TarError, OSError) as error:
        message = f"{archive} cannot be unpacked: {error}"
        raise UserError(message) from None


def _limited(opened: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    total = 0
    for member in opened:
        total += member.size
        if total > MAX_BYTES:
            message = f"output.tar.gz holds more than {MAX_BYTES / 1e9:.0f} GB: no reports"
            raise UserError(message)
        yield member
