"""The results of a training run: the artifact, metrics.json, plots and the report."""

import dataclasses
import json
import logging
import math
import os
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from container.classifier.checked_files import Json
from container.classifier.environment import JOB_NAME_VARIABLE
from container.classifier.manifest import FLOAT32, Manifest
from container.classifier.metric_lines import log_line
from container.training.device import Arithmetic
from container.training.evaluation.assessment import Assessment, assess
from container.training.evaluation.evaluation import confused_classes
from container.training.fitting.task import Task, TrainingResult
from container.training.output import grad_cam, plots, quantization, report
from container.training.output.export import write_artifact
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import Stop

REPORT = "report.html"

# Their versions are part of the provenance.
PACKAGES = ("torch", "torchvision", "onnx", "numpy", "pillow")

# With more classes, metrics.json lists only the confused classes.
MAX_MATRIX_CLASSES = 100

logger = logging.getLogger(__name__)


def write(
    environment: TrainingEnvironment,
    task: Task,
    result: TrainingResult,
    stop: Stop,
    quantization_seconds: Callable[[], float] = lambda: math.inf,
    *,
    is_failed: bool = False,
) -> Assessment | None:
    """Evaluate the best weights; write the artifact, then its int8 network, then the reports.

    A stopped job has little time, so it writes the metrics of the last evaluation. A failed job
    logs no metrics, because a tuning job would read them. The quantization ends after
    `quantization_seconds`, read when it starts.

    Returns:
        The assessment, or None if no epoch was finished.

    Raises:
        UserError: the disk is full.
    """
    assessment = None
    if result.best is not None:
        assessment = assess(
            result.classifier,
            result.arithmetic.device,
            result.best,
            validation=task.validation,
            test=task.test,
            stop=stop,
        )
        if not is_failed:
            _log(assessment)
    manifest = _manifest(task, result, assessment)
    write_artifact(environment.model_dir, manifest, result.classifier, task.validation.paths)
    if assessment and assessment.is_final and task.hyperparameters.quantize == "auto":
        # After the artifact is complete: a stop or a lack of memory may end the job here.
        manifest = quantization.add_int8(
            environment.model_dir,
            manifest,
            training=task.training,
            validation=task.validation,
            predicted=assessment.predicted,
            max_drop=task.hyperparameters.max_accuracy_drop,
            stop=stop,
            limit_seconds=quantization_seconds(),
        )
    if assessment:
        served = quantization.served(manifest.metrics[quantization.METRICS])
        assessment = dataclasses.replace(assessment, served=served)
        try:
            _write_reports(environment.output_data_dir, task, result, assessment, manifest)
        except OSError as error:
            # The job does not fail, because the model is written.
            logger.warning("not all reports are written: %s", error)
    return assessment


def _manifest(task: Task, result: TrainingResult, assessment: Assessment | None) -> Manifest:
    is_wanted = task.hyperparameters.quantize == "auto"
    reason = quantization.NOT_TRIED if is_wanted else quantization.NOT_WANTED
    metrics: dict[str, Json] = assessment.metrics(task.class_names) if assessment else {}
    return Manifest(
        class_names=tuple(task.class_names),
        network=task.network.name,
        preprocessing=task.preprocessing,
        metrics={**metrics, quantization.METRICS: quantization.verdict(FLOAT32, reason)},
        temperature=assessment.temperature if assessment else 1.0,
        flips=tuple(map(tuple, result.classifier.flips)),
        provenance=_provenance(task, result.arithmetic),
    )


def _provenance(task: Task, arithmetic: Arithmetic) -> dict[str, Json]:
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


def _log(assessment: Assessment) -> None:
    # Last, because a tuning job uses the last value that it reads.
    metrics = assessment.validation.evaluation.metrics()
    logger.info("%s", log_line({"best_epoch": assessment.epoch, **metrics}))
    if calibration := assessment.validation.calibration:
        logger.info("%s", log_line(calibration.metrics()))
    if assessment.test:
        logger.info("%s", log_line(assessment.test.evaluation.metrics("test")))


def _write_reports(
    directory: Path,
    task: Task,
    result: TrainingResult,
    assessment: Assessment,
    manifest: Manifest,
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    confusion = assessment.validation.evaluation.confusion
    document = {
        **manifest.metrics,
        **_confusions("", confusion, task.class_names),
        "history": result.history,
    }
    if assessment.test:
        test = assessment.test.evaluation.confusion
        document |= _confusions("test_", test, task.class_names)
    (directory / "metrics.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    # The history has no epoch 0, which is the trained head's.
    initial = None if assessment.epoch else assessment.validation.evaluation.metrics()
    figures = {
        "learning_curves": plots.learning_curves(result.history, assessment.epoch, initial),
        "confusion_matrix": plots.confusion_matrix(confusion, task.class_names),
    }
    if assessment.validation.calibration:
        figures["reliability"] = plots.reliability(assessment.validation.calibration)
    for name, png in figures.items():
        (directory / f"{name}.png").write_bytes(png)
    page = report.render(
        manifest,
        assessment,
        training=task.training,
        validation=task.validation,
        plots=figures,
        choices=result.recipe.sentences(task.training.labels),
        heat_maps=_heat_maps(task, result, assessment),
    )
    # File names may not be UTF-8.
    (directory / REPORT).write_text(page, encoding="utf-8", errors="backslashreplace")


def _confusions(
    prefix: str, confusion: npt.NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, Json]:
    """Return the confusion matrix, unless it is too large, and the confused classes."""
    is_small = len(class_names) <= MAX_MATRIX_CLASSES
    return {
        f"{prefix}confusion": confusion.tolist() if is_small else None,
        f"{prefix}confused_classes": [
            {"class_name": class_names[true], "predicted": class_names[predicted], "images": images}
            for true, predicted, images in confused_classes(confusion)
        ],
    }


def _heat_maps(
    task: Task, result: TrainingResult, assessment: Assessment
) -> npt.NDArray[np.float32] | None:
    """Return heat maps (N, S, S) of the misclassified images, or None."""
    if not assessment.mistakes:
        return None
    indices = [mistake.index for mistake in assessment.mistakes]
    predicted = [mistake.predicted for mistake in assessment.mistakes]
    try:
        return grad_cam.heat_maps(result.classifier, task.validation.pixels[indices], predicted)
    except RuntimeError as error:
        # The report is written without them, because gradients need memory.
        logger.warning("no heat maps of the mistakes: %s", error)
        return None
