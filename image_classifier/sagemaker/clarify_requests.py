"""The request that lets SageMaker Clarify explain a model, where the account still has it."""

from collections.abc import Sequence

from image_classifier.sagemaker.request_fields import key, tags, vpc
from image_classifier.settings.schema import HOUR, Settings
from image_classifier.settings.service_model import Request


def clarify_config(settings: Settings, model_name: str, class_names: Sequence[str]) -> Request:
    """Return the analysis_config.json that SageMaker Clarify reads."""
    explain = settings.explain
    image = {
        "model_type": "IMAGE_CLASSIFICATION",
        "num_segments": explain.num_segments,
        "feature_extraction_method": "segmentation",
        "segment_compactness": 5,
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
            # Every class's probability in order, which is all that Clarify wants to know.
            "accept_type": "text/csv",
            "label_headers": list(class_names),
        },
    }


def clarify_job(settings: Settings, name: str, *, image: str, config: str, images: str) -> Request:
    """Return CreateProcessingJob; `config` and `images` are on S3."""
    explain = settings.explain
    request: Request = {
        "ProcessingJobName": name,
        "RoleArn": settings.aws.role,
        "AppSpecification": {"ImageUri": image},
        "ProcessingInputs": [
            _processing_input("analysis_config", config),
            _processing_input("dataset", images),
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "analysis_result",
                    "S3Output": {
                        "S3Uri": f"{settings.output}/{name}",
                        "LocalPath": "/opt/ml/processing/output",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        }
        | key(settings),
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceType": explain.instance_type,
                "InstanceCount": explain.instance_count,
                "VolumeSizeInGB": 30,
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 24 * HOUR},
        "Tags": tags(settings),
    }
    if settings.aws.subnets:
        request["NetworkConfig"] = vpc(settings)
    return request


def _processing_input(name: str, source: str) -> Request:
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": source,
            "LocalPath": f"/opt/ml/processing/input/{'data' if name == 'dataset' else 'config'}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
            "S3DataDistributionType": "FullyReplicated",
            "S3CompressionType": "None",
        },
    }
