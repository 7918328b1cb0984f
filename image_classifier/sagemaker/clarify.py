"""`explain --clarify`: explain predictions with SageMaker Clarify, if the account has it."""

import json
from collections.abc import Sequence

from image_classifier.sagemaker import deployment
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.request_fields import (
    kms_key,
    processing_input,
    tags,
    volume_key,
    vpc,
)
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.schema import HOUR, Settings
from image_classifier.settings.service_model import Request
from image_classifier.settings.settings_file import SettingsFile

CLARIFY_COMPACTNESS = 5


def explain(
    aws: Aws,
    file: SettingsFile,
    images: str,
    class_names: Sequence[str],
    *,
    job: str | None = None,
    wait: bool = True,
) -> str:
    """Explain the images below an S3 prefix; return the prefix of the output.

    Raises:
        UserError: AWS rejected a request (new accounts have no Clarify), or the job failed.
    """
    file.require("explain --clarify")
    settings = file.settings
    source = S3Uri.parse(images)
    container_image = aws.container_image("clarify")
    name = deployment.create_single_model(aws, settings, job)
    config = S3Uri.parse(f"{settings.output}/{name}/config/analysis_config.json")
    document = _analysis_config(settings, name, class_names)
    config.write(aws, json.dumps(document, indent=2).encode())
    request = _processing_job(settings, name, container_image, str(config), str(source))
    aws.send("CreateProcessingJob", request)
    if wait and not aws.is_dry:
        aws.wait("DescribeProcessingJob", name)
    return f"{settings.output}/{name}"


def _analysis_config(settings: Settings, model_name: str, class_names: Sequence[str]) -> Request:
    """Return the analysis_config.json of SageMaker Clarify."""
    explain = settings.explain
    image = {
        "model_type": "IMAGE_CLASSIFICATION",
        "num_segments": explain.num_segments,
        "feature_extraction_method": "segmentation",
        "segment_compactness": explain.segment_compactness or CLARIFY_COMPACTNESS,
    }
    return {
        "dataset_type": "application/x-image",
        "methods": {
            "shap": {
                "use_logit": False,
                "save_local_shap_values": True,
                "num_samples": explain.num_samples,
                "image_config": image,
            },
            "report": {"name": "report"},
        },
        "predictor": {
            "model_name": model_name,
            "instance_type": settings.endpoint.instance_type,
            "initial_instance_count": settings.endpoint.instance_count,
            "content_type": "image/jpeg",
            # Clarify reads a row of probabilities in the order of the classes.
            "accept_type": "text/csv",
            "label_headers": list(class_names),
        },
    }


def _processing_job(
    settings: Settings, name: str, container_image: str, config: str, images: str
) -> Request:
    """Return CreateProcessingJob; `config` and `images` are URIs on S3."""
    output = {
        "S3Uri": f"{settings.output}/{name}",
        "LocalPath": "/opt/ml/processing/output",
        "S3UploadMode": "EndOfJob",
    }
    cluster = {
        "InstanceType": settings.explain.instance_type,
        "InstanceCount": settings.explain.instance_count,
        "VolumeSizeInGB": 30,
    } | volume_key(settings, settings.explain.instance_type)
    request: Request = {
        "ProcessingJobName": name,
        "RoleArn": settings.aws.role,
        "AppSpecification": {"ImageUri": container_image},
        "ProcessingInputs": [
            processing_input("analysis_config", config, "config"),
            processing_input("dataset", images, "data"),
        ],
        "ProcessingOutputConfig": {
            "Outputs": [{"OutputName": "analysis_result", "S3Output": output}],
            **kms_key(settings),
        },
        "ProcessingResources": {"ClusterConfig": cluster},
        "StoppingCondition": {"MaxRuntimeInSeconds": 24 * HOUR},
        "Tags": tags(settings),
    }
    if settings.aws.subnets:
        request["NetworkConfig"] = vpc(settings)
    return request
