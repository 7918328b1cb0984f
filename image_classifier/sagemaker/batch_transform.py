"""`transform`: classify a folder of images on S3 with a transform job."""

from image_classifier.sagemaker import deployment, endpoint_requests
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.settings_file import SettingsFile


def transform(
    aws: Aws, file: SettingsFile, images: str, *, job: str | None = None, wait: bool = True
) -> str:
    """Classify all images below an S3 prefix; return the prefix of the output.

    Raises:
        UserError: AWS rejected a request, or the job failed.
    """
    file.require("transform")
    settings = file.settings
    source = S3Uri.parse(images)
    name = deployment.create_single_model(aws, settings, job)
    request = endpoint_requests.transform_job(settings, name, name, str(source))
    aws.send("CreateTransformJob", request)
    output = f"{settings.output}/{name}"
    if wait and not aws.is_dry:
        aws.wait("DescribeTransformJob", name, f"; finished predictions are in {output}")
    return output
