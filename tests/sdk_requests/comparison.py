"""Fields in which the requests of the command and of the SDKs differ, each with its reason."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from image_classifier.sagemaker import endpoint_requests, training_requests
from tests.sdk_requests import settings as common

FOLDER = Path(__file__).parent

# They contain the time.
NAMES = frozenset({"TrainingJobName", "ModelName", "EndpointConfigName"})

# Keys that identify an item of a list.
_ITEMS = ("ChannelName", "Key", "Name", "VariantName")

_ABSENT = "-"

# Patterns of operations with fields.
REASONS: Mapping[str, str] = {
    "*.CheckpointConfig.LocalPath": "the default of the API",
    "*.CheckpointConfig.S3Uri": "the command has a folder for each job",
    "CreateTrainingJob.ProfilerConfig.*": "version 2 always sends it; the command sends settings "
    "of Debugger and profiler only if `debugger.service` is true",
    "*.InputMode": "the default of the API",
    "*.CompressionType": "the default of the API",
    "*.TrainingJobDefinition.EnableInterContainerTrafficEncryption": "the HyperparameterTuner of "
    "version 3 does not send it: traffic between the hosts is **not encrypted**",
    "*.HyperParameterTuningResourceConfig.VolumeKmsKeyId": "the HyperparameterTuner of version 3 "
    "does not send it: disks are **not encrypted** with the key",
    "*.HyperParameterTuningResourceConfig.*": "the newer field; version 3 sends the older one",
    "*.TrainingJobDefinition.ResourceConfig.*": "the older field of the same content",
    "CreateEndpointConfig.ProductionVariants*.ContainerStartupHealthCheckTimeoutInSeconds": "the "
    "ModelBuilder of version 3 was given it, and did not send it",
    "*sagemaker.amazonaws.com/model-source*": "version 3 marks what it may reuse",
}


class Difference(NamedTuple):
    """A field that is not the same in all three requests."""

    operation: str
    field: str
    sdk2: str
    sdk3: str
    command: str

    @property
    def reason(self) -> str | None:
        """Return the reason, or None if it is unknown."""
        name = f"{self.operation}.{self.field}"
        return next((why for pattern, why in REASONS.items() if fnmatch(name, pattern)), None)


def recorded(generation: int) -> dict[str, Any]:
    """Return the version and the recorded requests of an SDK."""
    document: dict[str, Any] = json.loads((FOLDER / f"sdk{generation}.json").read_text("utf-8"))
    return document


def command_requests() -> dict[str, Any]:
    """Return the requests of the command for the same settings."""
    with tempfile.TemporaryDirectory() as folder:
        settings = common.read(Path(folder))
    assert settings.tuning
    name = "hands-1"
    return {
        "CreateTrainingJob": training_requests.training_job(settings, name),
        "CreateHyperParameterTuningJob": training_requests.tuning_job(
            settings, settings.tuning, name
        ),
        "CreateModel": endpoint_requests.model(settings, name, common.ARTIFACT),
        "CreateEndpointConfig": endpoint_requests.endpoint_config(settings, name),
        "CreateTransformJob": endpoint_requests.transform_job(settings, name, name, common.IMAGES),
    }


def differences() -> list[Difference]:
    """Return all differences, in the order of the operations."""
    requests = [recorded(2)["requests"], recorded(3)["requests"], command_requests()]
    found = []
    for operation in common.OPERATIONS:
        fields = [dict(_flat(request[operation])) for request in requests]
        for field in sorted(set().union(*fields)):
            values = [each.get(field, _ABSENT) for each in fields]
            if len(set(values)) > 1:
                found.append(Difference(operation, field, *values))
    return found


def table() -> str:
    """Return the differences as a table of Markdown."""
    rows = ["| field | SDK 2 | SDK 3 | command | reason |", "|---|---|---|---|---|"]
    for each in differences():
        values = (each.sdk2, each.sdk3, each.command)
        cells = [f"`{each.operation}.{each.field}`"]
        cells += ["" if value == _ABSENT else f"`{value}`" for value in values]
        rows.append(f"| {' | '.join(cells)} | {each.reason} |")
    return "\n".join(rows)


def _flat(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted paths and values; items of lists have their names in the path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in NAMES:
                yield from _flat(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for item in value:
            name = next((item[key] for key in _ITEMS if key in item), "")
            yield from _flat(item, f"{path}[{name}]")
    else:
        # Sent, and the same as not sent.
        if value in (False, [], None):
            return
        shown = json.dumps(sorted(map(str, value)) if isinstance(value, list | tuple) else value)
        yield path, shown
