"""Where a model comes from: data, code, packages, random seed and hardware."""

import dataclasses
import hashlib
import os
import platform
from importlib import metadata

import torch

from container.classifier.artifact_files import Json
from container.classifier.vocabulary import JOB_NAME_VARIABLE
from container.training.data.images import ImageSet
from container.training.fitting.loop import Trainer

PACKAGES = ("torch", "torchvision", "onnx", "numpy", "pillow")


def of(trainer: Trainer, test: ImageSet | None, weights_source: str | None) -> dict[str, Json]:
    """Return what the manifest says of a model's making."""
    return {
        "pretrained_weights": weights_source,
        "training_data_sha256": trainer.training.sha256,
        "validation_data_sha256": trainer.validation.sha256,
        "test_data_sha256": test.sha256 if test else None,
        "hyperparameters": dataclasses.asdict(trainer.hyperparameters),
        "training_job_name": os.environ.get(JOB_NAME_VARIABLE),
        "code_version": os.environ.get("CODE_VERSION"),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "hardware": _hardware(trainer.arithmetic.device),
        "arithmetic": str(trainer.arithmetic),
    }


def fingerprint(trainer: Trainer, weights_source: str | None) -> str:
    """Return what a checkpoint must share with the job that continues from it.

    Raises:
        UserError: the hosts of the job do not share it.
    """
    # How often checkpoints are written, how the end is judged, or who watches, changes nothing that
    # is learned.
    settings = dataclasses.replace(
        trainer.hyperparameters,
        checkpoint_interval_seconds=1,
        min_accuracy=None,
        quantize="none",
        max_accuracy_drop=0,
        debug="off",
        debug_rules=None,
    )
    shapes = [(name, *value.shape) for name, value in trainer.classifier.state_dict().items()]
    data = (trainer.training.sha256, trainer.validation.sha256)
    parts = (settings, weights_source, shapes, data, trainer.cluster.world_size)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores"
