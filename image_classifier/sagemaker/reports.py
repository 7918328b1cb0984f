"""`report`: download a training job's reports from S3."""

from pathlib import Path, PurePosixPath

from image_classifier.platform.archives import extract
from image_classifier.sagemaker import resources
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.settings_file import SettingsFile

# Debugger tensors are up to 512 MB, reports a few megabytes.
MAX_BYTES = 4_000_000_000

# Files to read, not tensors.
_REPORTS = frozenset({".html", ".ipynb", ".json"})


def fetch(aws: Aws, file: SettingsFile, folder: Path, *, job: str | None = None) -> list[Path]:
    """Download a job's reports into a folder; return the HTML files.

    The training program's reports are in its output.tar.gz, those of SageMaker Debugger's rules
    below `rule-output`.

    Raises:
        UserError: the job does not exist, or has no reports.
    """
    file.require("report")
    settings = file.settings
    name = job or resources.newest_job(aws, settings)
    target = folder / name
    archive = S3Uri.parse(f"{settings.output}/{name}/output/output.tar.gz")
    packed = target / "output.tar.gz"
    archive.download(aws, packed)
    extract(packed, target, max_bytes=MAX_BYTES)
    packed.unlink()
    rules = S3Uri.parse(f"{settings.output}/{name}/rule-output/")
    for found in rules.objects(aws):
        relative = PurePosixPath(found["Key"].removeprefix(rules.key))
        is_inside = not relative.is_absolute() and ".." not in relative.parts
        if is_inside and relative.suffix in _REPORTS:
            S3Uri(rules.bucket, found["Key"]).download(aws, target / "rule-output" / relative)
    return sorted(target.rglob("*.html"))
