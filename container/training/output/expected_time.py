"""The expected time of what follows a job's last step, which `max_minutes` has to include.

The constants are those of one core without other programs, where a job of `small` starts in 3.6
seconds: the export then takes 2.9, the reports and the exit 1.7, and NNCF 4.5 without its images.
"""

import time
from dataclasses import dataclass
from typing import Self

import torch

from container.networks.network import Classifier
from container.training.evaluation.inference import to_images
from container.training.fitting.task import Task
from container.training.output.quantization import COMPARED_IMAGES, QUANTIZATION_SETTINGS

# Multiples of the program's start time: both are mostly Python code and imports.
RESULTS, QUANTIZATION = 1.3, 1.3

# Forked processes start in no time.
MIN_START_SECONDS = 2.0

# Time of the final float32 assessment, as a multiple of one evaluation.
ASSESSMENT = 1.4

# Time per image of NNCF's calibration and of the int8 comparison, as multiples of a PyTorch
# inference.
CALIBRATION, COMPARISON = 3.5, 0.65

# How PyTorch's inference is measured.
BATCH_SIZE, MEASURED_SECONDS = 8, 0.3


@dataclass(frozen=True, slots=True)
class ExpectedTime:
    """The expected time of the last evaluation, the assessment, the artifact and the reports."""

    fixed_seconds: float
    """Of what does not depend on the number of images."""

    evaluations: float
    """Inferences on the training's device, in evaluations of the validation images."""

    inferences: float
    """Inferences on the CPU, which calibrate int8 and compare it with float32."""

    inference_seconds: float
    """Of an image on the CPU."""

    evaluation_seconds: float
    """Of an evaluation, until one is measured."""

    @classmethod
    def of(cls, task: Task, device: torch.device, start_seconds: float) -> Self:
        """Measure the network on the CPU, before it is moved to `device`.

        Args:
            task: what is trained.
            device: of the training.
            start_seconds: the time that the program took to start.
        """
        validation, test = len(task.validation), len(task.test or ())
        starts, inferences = RESULTS, 0.0
        if task.hyperparameters.quantize == "auto":
            starts += QUANTIZATION
            calibrating = min(QUANTIZATION_SETTINGS[0].calibration_images, len(task.training))
            inferences = CALIBRATION * calibrating
            inferences += COMPARISON * min(COMPARED_IMAGES, validation)
        inference_seconds = _inference_seconds(task)
        return cls(
            fixed_seconds=starts * max(start_seconds, MIN_START_SECONDS),
            evaluations=1 + ASSESSMENT * (1 + test / validation),
            inferences=inferences,
            inference_seconds=inference_seconds,
            evaluation_seconds=validation * inference_seconds if device.type == "cpu" else 0.0,
        )

    def __call__(self, evaluation_seconds: float | None) -> float:
        """Return the expected seconds, given those of the last evaluation, if there was one."""
        if evaluation_seconds is None:
            evaluation_seconds = self.evaluation_seconds
        inferences = self.inferences * self.inference_seconds
        return self.fixed_seconds + self.evaluations * evaluation_seconds + inferences


@torch.inference_mode()
def _inference_seconds(task: Task) -> float:
    """Return the seconds per image of the network on the CPU."""
    classifier = Classifier(task.network.module).eval()
    images = to_images(task.validation.pixels[:BATCH_SIZE], torch.device("cpu"))
    classifier(images)  # the first time takes longer
    start, seconds, count = time.perf_counter(), 0.0, 0
    # The mean, because other programs take their time from the results too.
    while seconds < MEASURED_SECONDS:
        classifier(images)
        count += len(images)
        seconds = time.perf_counter() - start
    return seconds / count
