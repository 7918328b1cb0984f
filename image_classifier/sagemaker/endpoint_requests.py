"""Requests that create models, endpoints and transform jobs, from settings alone."""

from container.classifier.environment import ERROR_RECORDS_VARIABLE
from image_classifier.sagemaker.request_fields import kms_key, tags, volume_key, vpc
from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request

# The server is ready in seconds; pulling a large container image takes longer.
STARTUP_SECONDS = 600

VARIANT = "AllTraffic"

# Memory that a copy of an inference component reserves. It may use all of its instance's memory,
# of which SageMaker lets a component reserve a part only.
COPY_MB = 1024

# Without it one image that cannot be decoded would fail the whole transform job.
TRANSFORM_ENVIRONMENT = {ERROR_RECORDS_VARIABLE: "true"}


def model(
    settings: Settings,
    name: str,
    artifact: str,
    *,
    is_single: bool = False,
    is_for_transform: bool = False,
) -> Request:
    """Return CreateModel.

    `artifact` is a model.tar.gz on S3, a prefix of several, or the ARN of a version in the model
    registry; with `is_single` the model is for a job, not for a multi-model endpoint. Transform
    jobs run on amd64 processors only.
    """
    container: Request = {"Environment": dict(settings.endpoint.environment)}
    if artifact.startswith("arn:"):
        # The version has its container image.
        container["ModelPackageName"] = artifact
    else:
        container["Image"] = settings.images.serve if is_for_transform else settings.serve_image
        container["ModelDataUrl"] = artifact
    if settings.endpoint.kind == "multi-model" and not is_single:
        container["Mode"] = "MultiModel"
    request: Request = {
        "ModelName": name,
        "ExecutionRoleArn": settings.aws.role,
        "PrimaryContainer": container,
        "EnableNetworkIsolation": settings.aws.network_isolation,
        "Tags": tags(settings),
    }
    return request | vpc(settings)


def endpoint_config(settings: Settings, name: str) -> Request:
    """Return CreateEndpointConfig with one variant, the model of the same name.

    The model of an inference component is not in the variant.
    """
    endpoint = settings.endpoint
    variant: Request = {"ModelName": name, "VariantName": VARIANT}
    request: Request = {
        "EndpointConfigName": name,
        "ProductionVariants": [variant],
        "Tags": tags(settings),
    }
    if endpoint.kind == "serverless":
        variant["ServerlessConfig"] = {
            "MemorySizeInMB": endpoint.memory_mb,
            "MaxConcurrency": endpoint.max_concurrency,
        }
    else:
        variant |= {
            "InstanceType": endpoint.instance_type,
            "InitialInstanceCount": endpoint.instance_count,
            "InitialVariantWeight": 1,
            "ContainerStartupHealthCheckTimeoutInSeconds": STARTUP_SECONDS,
        }
        request |= kms_key(settings)
    if endpoint.has_component:
        del variant["ModelName"], variant["InitialVariantWeight"]
        variant["ManagedInstanceScaling"] = _instance_scaling(settings)
        # Otherwise those of the model.
        request |= {
            "ExecutionRoleArn": settings.aws.role,
            "EnableNetworkIsolation": settings.aws.network_isolation,
        } | vpc(settings)
    if endpoint.kind == "asynchronous":
        output = {
            "S3OutputPath": f"{settings.output}/asynchronous/answers",
            "S3FailurePath": f"{settings.output}/asynchronous/failures",
        }
        request["AsyncInferenceConfig"] = {"OutputConfig": output | kms_key(settings)}
    if endpoint.capture is not None:
        modes = {"Input": endpoint.capture.requests, "Output": endpoint.capture.answers}
        request["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": endpoint.capture.percent,
            "DestinationS3Uri": f"{settings.output}/captured",
            "CaptureOptions": [{"CaptureMode": mode} for mode, is_on in modes.items() if is_on],
            # Other content is stored in base64.
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        } | kms_key(settings)
    return request


def _instance_scaling(settings: Settings) -> Request:
    scaling = settings.endpoint.scaling
    most = 1 if scaling is None else scaling.max_instances
    return {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": most}


def inference_component(settings: Settings, model: str) -> Request:
    """Return UpdateInferenceComponent: copies of a model on the instances of the endpoint.

    Each copy reserves just more than half of an instance's CPUs, so that each instance has one.
    """
    endpoint = settings.endpoint
    resources: Request = {
        "NumberOfCpuCoresRequired": _cpus(endpoint.instance_type) / 2 + 0.25,
        "MinMemoryRequiredInMb": COPY_MB,
    }
    if endpoint.has_gpu:
        resources["NumberOfAcceleratorDevicesRequired"] = 1
    return {
        "InferenceComponentName": settings.name,
        "Specification": {
            "ModelName": model,
            "StartupParameters": {"ContainerStartupHealthCheckTimeoutInSeconds": STARTUP_SECONDS},
            "ComputeResourceRequirements": resources,
        },
        "RuntimeConfig": {"CopyCount": endpoint.instance_count},
    }


def new_inference_component(settings: Settings, model: str) -> Request:
    """Return CreateInferenceComponent."""
    where = {"EndpointName": settings.name, "VariantName": VARIANT, "Tags": tags(settings)}
    return inference_component(settings, model) | where


def _cpus(instance_type: str) -> int:
    size = instance_type.rpartition(".")[2]
    if size.endswith("xlarge"):
        return 4 * int(size.removesuffix("xlarge") or 1)
    return {"large": 2}.get(size, 1)


def update(settings: Settings) -> Request:
    """Return the fields of UpdateEndpoint that CreateEndpoint lacks."""
    request = deployment_config(settings)
    scaling = settings.endpoint.scaling
    if scaling is not None and scaling.min_instances:
        # The number of instances that the requests need now, not that of a new endpoint.
        others = ("DesiredWeight", "DataCaptureConfig")
        request["RetainAllVariantProperties"] = True
        request["ExcludeRetainedVariantProperties"] = [
            {"VariantPropertyType": kind} for kind in others
        ]
    return request


def deployment_config(settings: Settings) -> Request:
    """Return the field DeploymentConfig of UpdateEndpoint, if the settings have a rollout."""
    rollout = settings.endpoint.rollout
    if rollout is None:
        return {}
    routing: Request = {
        "Type": rollout.traffic.upper().replace("-", "_"),
        "WaitIntervalInSeconds": rollout.wait_minutes * 60,
    }
    field = {"canary": "CanarySize", "linear": "LinearStepSize"}.get(rollout.traffic)
    if field is not None:
        routing[field] = {"Type": "CAPACITY_PERCENT", "Value": rollout.step_percent}
    policy = {
        "TrafficRoutingConfiguration": routing,
        "TerminationWaitInSeconds": rollout.keep_minutes * 60,
        "MaximumExecutionTimeoutInSeconds": rollout.max_minutes * 60,
    }
    config: Request = {"BlueGreenUpdatePolicy": policy}
    if rollout.alarms:
        alarms = [{"AlarmName": name} for name in rollout.alarms]
        config["AutoRollbackConfiguration"] = {"Alarms": alarms}
    return {"DeploymentConfig": config}


def transform_job(settings: Settings, name: str, model_name: str, images: str) -> Request:
    """Return CreateTransformJob for all objects below `images` on S3."""
    transform = settings.transform
    split = "Line" if transform.strategy == "MultiRecord" else "None"
    return {
        "TransformJobName": name,
        "ModelName": model_name,
        "BatchStrategy": transform.strategy,
        "MaxPayloadInMB": transform.max_payload_mb,
        "Environment": dict(TRANSFORM_ENVIRONMENT),
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": images}},
            "ContentType": transform.content_type,
            "SplitType": split,
            "CompressionType": "None",
        },
        "TransformOutput": {
            "S3OutputPath": f"{settings.output}/{name}",
            "Accept": transform.accept_header,
            "AssembleWith": split,
        }
        | kms_key(settings),
        "TransformResources": {
            "InstanceType": transform.instance_type,
            "InstanceCount": transform.instance_count,
        }
        | volume_key(settings, transform.instance_type),
        "Tags": tags(settings),
    }
