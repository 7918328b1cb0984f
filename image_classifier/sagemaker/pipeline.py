"""`pipeline`: prepare, train, evaluate and register, as a pipeline on SageMaker.

The steps have the requests of `prepare`, `train` and `register`. The accuracy that the training job
logs is compared with a parameter of the pipeline, so no second job evaluates the model.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from container.classifier.channel_names import SPLITS, TEST, find_folder
from container.classifier.errors import UserError
from image_classifier.sagemaker import registry, resources, training
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.request_fields import (
    INPUTS,
    kms_key,
    processing_input,
    tags,
    volume_key,
    vpc,
)
from image_classifier.settings import service_model
from image_classifier.settings.schema import HOUR, Settings
from image_classifier.settings.service_model import Request
from image_classifier.settings.settings_file import SettingsFile

# The version of SageMaker's schema.
VERSION = "2020-12-01"

# Names of steps and of the parameter.
PREPARE, TRAIN, EVALUATE, REGISTER, FAIL = "Prepare", "Train", "Evaluate", "Register", "Fail"
MIN_ACCURACY = "MinAccuracy"

# Folders of a processing job's container. The data set is in a new folder of the output.
FOLDER, OUTPUT, DATA = "source", "/opt/ml/processing/output", "data"

# The operations that steps call.
_OPERATIONS = {
    "Processing": "CreateProcessingJob",
    "Training": "CreateTrainingJob",
    "RegisterModel": "CreateModelPackage",
}


def definition(aws: Aws, file: SettingsFile) -> Request:
    """Return the pipeline's definition; every request in it is valid.

    Raises:
        UserError: keys of the settings are missing, or SageMaker would reject a request.
    """
    file.require("pipeline")
    settings = file.settings
    hyperparameters = dict(settings.hyperparameters)
    # The pipeline decides: a job that fails would have no model to look at.
    least = hyperparameters.pop("min_accuracy", 0.0)
    settings = settings.model_copy(update={"hyperparameters": hyperparameters})
    steps = [_train(aws, settings), _evaluate(settings)]
    if settings.pipeline.source is not None:
        steps.insert(0, _prepare(aws, settings, settings.pipeline.source))
    for step in _flat(steps):
        _check(step)
    return {
        "Version": VERSION,
        "Parameters": [{"Name": MIN_ACCURACY, "Type": "Float", "DefaultValue": float(str(least))}],
        "Steps": steps,
    }


def create(aws: Aws, file: SettingsFile, *, is_started: bool = False) -> str:
    """Create or update the pipeline, and start it; return its name, or the execution's ARN.

    Raises:
        UserError: AWS rejected a request, or the pipeline belongs to another user.
    """
    settings = file.settings
    document = definition(aws, file)
    exists = not aws.is_dry and resources.find_named(aws, settings, "Pipeline") is not None
    registry.create_group(aws, settings)
    request: Request = {
        "PipelineName": settings.name,
        "PipelineDefinition": json.dumps(document),
        "RoleArn": settings.aws.role,
    }
    if exists:
        aws.send("UpdatePipeline", request)
    else:
        request |= {"ClientRequestToken": uuid.uuid4().hex, "Tags": tags(settings)}
        aws.send("CreatePipeline", request)
    if not is_started:
        return settings.name
    start = {"PipelineName": settings.name, "ClientRequestToken": uuid.uuid4().hex}
    return str(aws.send("StartPipelineExecution", start).get("PipelineExecutionArn", settings.name))


def _prepare(aws: Aws, settings: Settings, source: str) -> Request:
    """Return the step that makes the channels; the training container image has the program."""
    name = "" if source.endswith("/") else PurePosixPath(source).name
    options = settings.pipeline.prepare_options
    arguments = ["prepare", f"{INPUTS}/{FOLDER}/{name}", f"{OUTPUT}/{DATA}", "--quiet", *options]
    # A folder of this execution: images of an earlier one would be in other splits.
    made: Request = {
        "S3Uri": _joined("/", settings.output, _variable("Execution.PipelineExecutionId")),
        "LocalPath": OUTPUT,
        "S3UploadMode": "EndOfJob",
    }
    cluster: Request = {
        "InstanceType": settings.pipeline.instance_type,
        "InstanceCount": 1,
        "VolumeSizeInGB": settings.training.volume_gb,
    }
    cluster |= volume_key(settings, settings.pipeline.instance_type)
    request: Request = {
        "ProcessingJobName": settings.name,
        "RoleArn": settings.aws.role,
        "AppSpecification": {
            "ImageUri": settings.images.train,
            "ContainerEntrypoint": ["python", "-m", "image_classifier.preparation"],
            "ContainerArguments": arguments,
        },
        "ProcessingInputs": [processing_input("source", source, FOLDER)],
        "ProcessingOutputConfig": {
            "Outputs": [{"OutputName": DATA, "S3Output": made}],
            **kms_key(settings),
        },
        "ProcessingResources": {"ClusterConfig": cluster},
        "StoppingCondition": {"MaxRuntimeInSeconds": 24 * HOUR},
        "NetworkConfig": {
            "EnableNetworkIsolation": settings.aws.network_isolation,
            **vpc(settings),
        },
        "Tags": tags(settings),
    }
    return {"Name": PREPARE, "Type": "Processing", "Arguments": aws.tagged(request)}


def _train(aws: Aws, settings: Settings) -> Request:
    request = training.request_of(aws, settings, settings.name)
    if settings.pipeline.source is not None:
        for channel in request["InputDataConfig"]:  # type: ignore[attr-defined]
            folder = find_folder(channel["ChannelName"], SPLITS)
            # `prepare` makes no weights.
            if folder is not None:
                output = f"Steps.{PREPARE}.ProcessingOutputConfig.Outputs['{DATA}'].S3Output.S3Uri"
                address = _joined("", _variable(output), f"/{DATA}/{folder}/")
                channel["DataSource"]["S3DataSource"]["S3Uri"] = address
    if "CheckpointConfig" in request:
        execution = _variable("Execution.PipelineExecutionId")
        address = _joined("/", settings.output, execution, "checkpoints")
        request["CheckpointConfig"] |= {"S3Uri": address}  # type: ignore[operator]
    return {"Name": TRAIN, "Type": "Training", "Arguments": aws.tagged(request)}


def _evaluate(settings: Settings) -> Request:
    """Return the step that compares the accuracy, with the steps that follow it."""
    metric = "test_accuracy" if TEST in settings.data.channels else "val_accuracy"
    accuracy = _variable(f"Steps.{TRAIN}.FinalMetricDataList['{metric}'].Value")
    least = _variable(f"Parameters.{MIN_ACCURACY}")
    artifact = _variable(f"Steps.{TRAIN}.ModelArtifacts.S3ModelArtifacts")
    package = registry.model_package(settings, artifact, None)
    # Values of properties are text.
    package["CustomerMetadataProperties"] |= {metric: _joined("", accuracy)}  # type: ignore[operator]
    words = _joined(" ", f"not registered: {metric} is", accuracy, "and the minimum is", least)
    condition = {"Type": "GreaterThanOrEqualTo", "LeftValue": accuracy, "RightValue": least}
    return {
        "Name": EVALUATE,
        "Type": "Condition",
        "Arguments": {
            "Conditions": [condition],
            "IfSteps": [{"Name": REGISTER, "Type": "RegisterModel", "Arguments": package}],
            "ElseSteps": [{"Name": FAIL, "Type": "Fail", "Arguments": {"ErrorMessage": words}}],
        },
    }


def _variable(name: str) -> Request:
    return {"Get": name}


def _joined(separator: str, *values: object) -> Request:
    return {"Std:Join": {"On": separator, "Values": list(values)}}


def _flat(steps: list[Request]) -> Iterator[Request]:
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            arguments: Mapping[str, list[Request]] = step["Arguments"]  # type: ignore[assignment]
            yield from (*arguments["IfSteps"], *arguments["ElseSteps"])


def _check(step: Request) -> None:
    """Check a step's request, with an address on S3 for each variable.

    Raises:
        UserError: SageMaker would reject it.
    """
    operation = _OPERATIONS.get(str(step["Type"]))
    if operation is None:
        return
    request: Mapping[str, object] = _filled(step["Arguments"])  # type: ignore[assignment]
    try:
        service_model.check(operation, request)
    except UserError as error:
        raise UserError(f"step {step['Name']}: {error}") from None


def _filled(value: object) -> object:
    match value:
        case {"Get": _}:
            return "s3://bucket/key"
        case {"Std:Join": {"On": separator, "Values": values}}:
            return str(separator).join(str(_filled(each)) for each in values)
        case Mapping():
            return {key: _filled(item) for key, item in value.items()}
        case list():
            return [_filled(item) for item in value]
    return value
