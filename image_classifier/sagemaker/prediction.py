"""`predict`: send images to the endpoint. `transform`: classify a folder of images on S3."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from container.classifier.environment import PAYLOAD_VARIABLE
from container.classifier.media_types import ANY_IMAGE, IMAGE_MEDIA_TYPES
from image_classifier.sagemaker import deployment, endpoint_requests, invocation
from image_classifier.sagemaker.aws import Aws, Response
from image_classifier.sagemaker.invocation import RejectedImageError
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.inference import PAYLOAD_MB, Endpoint
from image_classifier.settings.settings_file import SettingsFile

MIB = 2**20


def predict(
    aws: Aws,
    file: SettingsFile,
    images: Sequence[Path],
    *,
    model: str | None = None,
    top: int | None = None,
) -> Iterator[tuple[Path, Response]]:
    """Yield every image with its response, or with an error if it is rejected.

    Args:
        aws: the account.
        file: the settings.
        images: image files.
        model: one of a multi-model endpoint's models.
        top: number of the most probable classes in a response; None: all classes.

    Raises:
        UserError: the endpoint does not respond, or rejects every request.
    """
    file.require("predict")
    settings = file.settings
    for image in images:
        try:
            if aws.is_dry and not image.is_file():
                aws.show_placeholder(f"{image}, which does not exist", "an empty JPEG file")
                body, media_type = b"", "image/jpeg"
            else:
                body, media_type = read_image(image, settings.endpoint)
            response = invocation.invoke(aws, settings, body, media_type, model=model, top=top)
        except RejectedImageError as error:
            response = error.document
        # Empty in a dry run.
        if response:
            yield image, response


def transform(
    aws: Aws, file: SettingsFile, images: str, *, job: str | None = None, wait: bool = True
) -> str:
    """Classify all images below an S3 prefix with a transform job; return the output's prefix.

    Raises:
        UserError: AWS rejected a request, or the job failed.
    """
    file.require("transform")
    settings = file.settings
    source = S3Uri.parse(images)
    name = deployment.create_single_model(aws, settings, job, is_for_transform=True)
    request = endpoint_requests.transform_job(settings, name, name, str(source))
    aws.send("CreateTransformJob", request)
    output = f"{settings.output}/{name}"
    if wait and not aws.is_dry:
        aws.wait("DescribeTransformJob", name, f"; finished predictions are in {output}")
    return output


def read_image(path: Path, endpoint: Endpoint) -> tuple[bytes, str]:
    """Return an image file's content and its media type.

    The server recognizes images without a known suffix by their content.

    Raises:
        RejectedImageError: the file cannot be read, or is too large for an endpoint.
    """
    if path.is_dir():
        raise RejectedImageError("a folder: name its images, or use `transform`")
    media_type = IMAGE_MEDIA_TYPES.get(path.suffix.lower(), ANY_IMAGE)
    try:
        megabytes, limit = path.stat().st_size / MIB, endpoint.max_request_mb
        if megabytes <= limit:
            return path.read_bytes(), media_type
    except OSError as error:
        raise RejectedImageError(f"cannot be read: {error.strerror}") from None
    is_servers = limit < PAYLOAD_MB[endpoint.kind]
    remedy = f"raise {PAYLOAD_VARIABLE} in [endpoint.environment]" if is_servers else "shrink it"
    raise RejectedImageError(
        f"the file has {math.ceil(megabytes * 10) / 10:g} MB, and {endpoint.kind} endpoints accept "
        f"{limit}: {remedy}, or use `transform`"
    )
