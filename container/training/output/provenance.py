"""The provenance of a model: data, code, packages, random seed and hardware."""

import dataclasses
import os
import platform
from importlib import metadata

import torch

from container.classifier.artifact_files import Json
from container.classifier.vocabulary import JOB_NAME_VARIABLE
from container.training.device import Arithmetic
from container.training.fitting.task import Task

PACKAGES = ("torch", "torchvision", "onnx", "numpy", "pillow")


def of(task: Task, arithmetic: Arithmetic) -> dict[str, Json]:
    """Return the provenance for the manifest."""
    return {
        "pretrained_weights": task.weights_source,
        "training_data_sha256": task.training.sha256,
        "validation_data_sha256": task.validation.sha256,
        "test_data_sha256": task.test.sha256 if task.test else None,
        "hyperparameters": dataclasses.asdict(task.hyperparameters),
        "training_job_name": os.environ.get(JOB_NAME_VARIABLE),
        "code_version": os.environ.get("CODE_VERSION"),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "hardware": _hardware(arithmetic.device),
        "arithmetic": str(arithmetic),
    }


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores"
