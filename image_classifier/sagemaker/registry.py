"""The model registry: numbered versions of a model, which are approved before they are deployed.

A version has its own copy of the artifact, so it outlives the job and `delete`.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from container.classifier.errors import ArtifactError, UserError
from container.classifier.manifest import MANIFEST, Manifest
from container.classifier.media_types import IMAGE_MEDIA_TYPES, IMAGE_SUFFIXES, RESPONSE_MEDIA_TYPES
from image_classifier.sagemaker import artifact, deployment
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.request_fields import new_name, tags
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request
from image_classifier.settings.settings_file import SettingsFile

APPROVED, PENDING, REJECTED = "Approved", "PendingManualApproval", "Rejected"

# Metrics of a class, averaged with the numbers of its images under SageMaker's name.
_AVERAGES = {"precision": "weighted_precision", "recall": "weighted_recall", "f1": "weighted_f1"}


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the model."""

    number: int
    status: str
    arn: str

    def __str__(self) -> str:
        """Return number and status."""
        return f"version {self.number} ({self.status})"


def register(aws: Aws, file: SettingsFile, *, job: str | None = None) -> int | None:
    """Create a version of a job's model; return its number, or None in a dry run.

    `job` is a training job's name or a model.tar.gz on S3; by default the newest job's model.

    Raises:
        UserError: AWS rejected a request, or the model is not an artifact of our training.
    """
    file.require("register")
    settings = file.settings
    source = S3Uri.parse(deployment.find_model(aws, settings, job))
    folder = f"s3://{settings.aws.bucket}/{settings.name}/registry/{new_name(settings)}"
    if aws.is_dry:
        aws.show_placeholder("the metrics and golden images", f"those of {source}")
        manifest, golden = None, b""
    else:
        manifest, golden = _read(aws, source)
    quality = None if manifest is None else model_quality(manifest)
    samples = f"{folder}/golden.tar.gz"
    source.copy(aws, S3Uri.parse(f"{folder}/model.tar.gz"))
    S3Uri.parse(samples).write(aws, golden)
    request = model_package(settings, f"{folder}/model.tar.gz", manifest)
    request |= {"SamplePayloadUrl": samples, "MetadataProperties": {"GeneratedBy": str(source)}}
    if quality is not None:
        S3Uri.parse(f"{folder}/model-quality.json").write(aws, json.dumps(quality).encode())
        statistics = {"ContentType": "application/json", "S3Uri": f"{folder}/model-quality.json"}
        request["ModelMetrics"] = {"ModelQuality": {"Statistics": statistics}}
    create_group(aws, settings)
    aws.send("CreateModelPackage", request)
    if aws.is_dry:
        return None
    made = next(version for version in versions(aws, settings) if version.status == PENDING)
    accuracy = (quality or {}).get("multiclass_classification_metrics", {}).get("accuracy")
    shown = f", accuracy {accuracy['value']:.1%}" if accuracy else ""
    aws.show(f"version {made.number} of {settings.name}: {source}{shown}")
    return made.number


def create_group(aws: Aws, settings: Settings) -> None:
    """Create the group of all versions, unless it exists."""
    if aws.is_dry or not _has_group(aws, settings):
        group = {"ModelPackageGroupName": settings.name, "Tags": tags(settings)}
        aws.send("CreateModelPackageGroup", group)


def approve(
    aws: Aws, settings: Settings, number: int | None = None, *, is_rejected: bool = False
) -> int | None:
    """Approve a version, by default the newest, or reject it; return its number.

    Raises:
        UserError: AWS rejected the request, or there is no such version.
    """
    version = find(aws, settings, number)
    status = REJECTED if is_rejected else APPROVED
    request = {"ModelPackageArn": version.arn, "ModelApprovalStatus": status}
    aws.send("UpdateModelPackage", request)
    if aws.is_dry:
        return None
    aws.show(f"version {version.number} of {settings.name}: {status}")
    return version.number


def find_approved(aws: Aws, settings: Settings, number: int) -> str:
    """Return the ARN of a version that may be deployed with these settings.

    Raises:
        UserError: there is no such version, it is not approved, or is for other processors.
    """
    if settings.endpoint.kind == "multi-model":
        raise UserError(
            "a multi-model endpoint serves the models of endpoint.models: remove --version"
        )
    version = find(aws, settings, number)
    if aws.is_dry:
        return version.arn
    if version.status != APPROVED:
        raise UserError(
            f"version {number} of {settings.name} is {version.status}: "
            f"`image-classifier approve SETTINGS --version {number}` approves it"
        )
    described = aws.query("DescribeModelPackage", {"ModelPackageName": version.arn})
    registered = described.get("CustomerMetadataProperties", {}).get("architecture")
    needed = _architecture(settings)
    if registered not in {None, needed}:
        raise UserError(
            f"version {number} was registered for {registered}, and endpoint.instance_type "
            f"{settings.endpoint.instance_type} is {needed}: register it with these settings"
        )
    return version.arn


def find(aws: Aws, settings: Settings, number: int | None = None) -> Version:
    """Return a version, by default the newest; in a dry run a placeholder.

    Raises:
        UserError: there is no such version.
    """
    if aws.is_dry:
        region = aws.client("sagemaker").meta.region_name
        arn = f"arn:aws:sagemaker:{region}:111122223333:model-package/{settings.name}/{number or 1}"
        aws.show_placeholder("the version", arn)
        return Version(number or 1, APPROVED, arn)
    listed = list(versions(aws, settings))
    for version in listed:
        if number in {None, version.number}:
            return version
    if not listed:
        raise UserError(f"{settings.name} has no versions: `image-classifier register` makes one")
    numbers = ", ".join(str(version.number) for version in listed[:10])
    raise UserError(f"{settings.name} has no version {number}: the newest are {numbers}")


def versions(aws: Aws, settings: Settings) -> Iterator[Version]:
    """Yield all versions, newest first."""
    if not _has_group(aws, settings):
        return
    request = {
        "ModelPackageGroupName": settings.name,
        "SortBy": "CreationTime",
        "SortOrder": "Descending",
    }
    found = [
        Version(
            int(summary["ModelPackageVersion"]),
            str(summary["ModelApprovalStatus"]),
            str(summary["ModelPackageArn"]),
        )
        for page in aws.pages("ListModelPackages", request)
        for summary in page["ModelPackageSummaryList"]
    ]
    # Several can have the same time.
    yield from sorted(found, key=lambda version: -version.number)


def model_package(settings: Settings, artifact: object, manifest: Manifest | None) -> Request:
    """Return CreateModelPackage of an artifact on S3; its address can be a pipeline's variable.

    It has no tags: SageMaker takes those of the group.
    """
    endpoint = settings.endpoint
    container = {
        "Image": settings.serve_image,
        "ModelDataUrl": artifact,
        "Environment": dict(endpoint.environment),
    }
    properties = {"architecture": _architecture(settings)}
    request: Request = {
        "ModelPackageGroupName": settings.name,
        "ModelApprovalStatus": PENDING,
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": sorted(set(IMAGE_MEDIA_TYPES.values())),
            "SupportedResponseMIMETypes": list(RESPONSE_MEDIA_TYPES),
        },
        "Domain": "COMPUTER_VISION",
        "Task": "IMAGE_CLASSIFICATION",
        "CustomerMetadataProperties": properties,
    }
    if manifest is not None:
        properties |= {"network": manifest.network, "classes": str(len(manifest.class_names))}
        given = manifest.provenance
        for key in ("training_data_sha256", "code_version", "training_job_name"):
            if given.get(key):
                properties[key] = str(given[key])
    return request


def model_quality(manifest: Manifest) -> dict[str, Any] | None:
    """Return the metrics of a model in SageMaker's format of model quality.

    They are those of the test images, or else of the validation images; None if the manifest has
    neither. The averages are weighted by the number of images of each class.
    """
    test = manifest.metrics.get("test")
    part, metrics = ("test", test) if isinstance(test, dict) else ("val", manifest.metrics)
    accuracy, classes = metrics.get(f"{part}_accuracy"), metrics.get("classes")
    if not (isinstance(accuracy, int | float) and isinstance(classes, dict)):
        return None
    values = {"accuracy": accuracy, **_weighted(classes)}
    # What SageMaker writes without repeated evaluations.
    measured = {name: {"value": v, "standard_deviation": "NaN"} for name, v in values.items()}
    return {"multiclass_classification_metrics": measured}


def _weighted(classes: Mapping[str, Any]) -> dict[str, float]:
    images = sum(scores["images"] for scores in classes.values())
    return {
        name: sum(scores[metric] * scores["images"] for scores in classes.values()) / images
        for metric, name in _AVERAGES.items()
    }


def _architecture(settings: Settings) -> str:
    return "arm64" if settings.endpoint.is_arm64 else "amd64"


def _has_group(aws: Aws, settings: Settings) -> bool:
    return any(
        group["ModelPackageGroupName"] == settings.name
        for page in aws.pages("ListModelPackageGroups", {"NameContains": settings.name})
        for group in page["ModelPackageGroupSummaryList"]
    )


def _read(aws: Aws, source: S3Uri) -> tuple[Manifest, bytes]:
    """Return the manifest of an artifact on S3, and a tar.gz of its golden images."""
    try:
        files = artifact.read(aws, source)
        manifest = Manifest.from_json(json.loads(files[MANIFEST]))
    except KeyError:
        raise UserError(f"{source} cannot be registered: it has no {MANIFEST}") from None
    except (UserError, ArtifactError, ValueError) as error:
        raise UserError(f"{source} cannot be registered: {error}") from None
    samples = io.BytesIO()
    with tarfile.open(fileobj=samples, mode="w:gz") as archive:
        for name in sorted(files):
            path = PurePosixPath(name)
            if path.suffix in IMAGE_SUFFIXES:
                member = tarfile.TarInfo(path.name)
                member.size = len(files[name])
                archive.addfile(member, io.BytesIO(files[name]))
    return manifest, samples.getvalue()
