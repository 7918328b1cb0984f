"""The final assessment of a training: metrics with intervals, calibration, worst mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from container.classifier.checked_files import Json
from container.classifier.errors import UserError
from container.classifier.label_issues import Predictions, label_issues
from container.networks.network import Classifier
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.evaluation import bootstrap
from container.training.evaluation.bootstrap import Intervals
from container.training.evaluation.calibration import (
    Calibration,
    fitting_images,
    helpful_temperature,
    predictions_of,
)
from container.training.evaluation.evaluation import Evaluation, evaluation_of, logits_of
from container.training.evaluation.progress import Best
from container.training.sagemaker.stop import Stop, Stopped

MAX_MISTAKES = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """An image that is classified incorrectly."""

    index: int
    """Index of the image within its channel."""
    label: int
    predicted: int
    probability: float
    """Probability of the predicted class."""
    is_label_issue: bool = False
    """Whether the label is probably wrong."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The performance of the saved weights on a channel's images."""

    part: str
    """`val` or `test`, the prefix of the metrics' names."""

    evaluation: Evaluation
    intervals: Intervals
    calibration: Calibration | None
    """None if the job was stopped."""

    @classmethod
    def of(cls, part: str, evaluation: Evaluation, calibration: Calibration | None) -> Self:
        """Add the confidence intervals to an evaluation."""
        return cls(part, evaluation, bootstrap.intervals(evaluation), calibration)

    def metrics(self, class_names: Sequence[str]) -> dict[str, Json]:
        """Return every metric and its confidence interval, by name."""
        return {
            **self.evaluation.metrics(self.part),
            **{
                f"{self.part}_{name}_interval_95": interval.tolist()
                for name, interval in self.intervals.averages.items()
            },
            "classes": dict(self.per_class(class_names)),
            "calibration": dict(self.calibration.metrics()) if self.calibration else None,
        }

    def sentence(self) -> str:
        """Return the accuracy with its confidence interval, in percent."""
        low, high = self.intervals.averages["accuracy"]
        name = "validation" if self.part == "val" else self.part
        return (
            f"accuracy {self.evaluation.accuracy:.1%} (95 % confidence: {low:.1%} to {high:.1%}) "
            f"on {self.evaluation.confusion.sum()} {name} images"
        )

    def per_class(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return precision, recall, F1, their intervals and the number of images per class."""
        counts = self.evaluation.counts
        scores, intervals = counts.scores(), self.intervals.by_class
        return {
            class_name: {
                **{name: float(values[label]) for name, values in scores.items()},
                "images": int(counts.actual[label]),
                **{f"{name}_interval_95": intervals[name][label].tolist() for name in scores},
            }
            for label, class_name in enumerate(class_names)
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Assessment:
    """The performance of the saved weights; of a stopped job, its best evaluation."""

    epoch: int
    """The epoch of the weights, from 1."""

    temperature: float
    """1 if calibration would not help."""
    validation: Outcome
    test: Outcome | None
    """None without a `test` channel."""

    mistakes: Sequence[Mistake]
    """The worst mistakes on the validation images, the worst first."""

    predicted: npt.NDArray[np.int64]
    """Predicted classes of the validation images, of shape (N,); empty if the job was stopped."""

    is_final: bool
    """Whether the job finished: a stopped job is neither calibrated nor tested."""

    served: str = ""
    """Which precision the server uses, and its accuracy if that is int8's, as a sentence."""

    def metrics(self, class_names: Sequence[str]) -> dict[str, Json]:
        """Return the manifest's metrics."""
        return {
            "epoch": self.epoch,
            **self.validation.metrics(class_names),
            "test": self.test.metrics(class_names) if self.test else None,
        }

    def averages(self) -> dict[str, float]:
        """Return the metrics of the saved weights over all classes, by name."""
        tested = self.test.evaluation.metrics("test") if self.test else {}
        return {
            "best_epoch": self.epoch,
            **self.validation.evaluation.metrics("best_val"),
            **tested,
        }

    def sentences(self) -> list[str]:
        """Return what is served, and the accuracy on each channel with its confidence interval."""
        outcomes = [outcome.sentence() for outcome in (self.validation, self.test) if outcome]
        return [self.served, *outcomes] if self.served else outcomes

    def reaches(self, min_accuracy: float) -> bool:
        """Return whether the test accuracy, or else the validation accuracy, is high enough."""
        return (self.test or self.validation).evaluation.accuracy >= min_accuracy

    def check_accuracy(self, min_accuracy: float | None, report: Path) -> None:
        """Check the accuracy of a job that finished.

        Raises:
            UserError: the accuracy is below `min_accuracy`.
        """
        if min_accuracy is None or not self.is_final or self.reaches(min_accuracy):
            return
        outcome = self.test or self.validation
        low, high = outcome.intervals.averages["accuracy"]
        raise UserError(
            f"the accuracy on the {'test' if self.test else 'validation'} images is "
            f"{outcome.evaluation.accuracy:.4g} (95 % confidence: {low:.3f} to {high:.3f}), less "
            f"than min_accuracy={min_accuracy:g}: {report} shows the mistakes"
        )


def assess(
    classifier: Classifier,
    device: torch.device,
    best: Best,
    *,
    validation: ImageSet,
    test: ImageSet | None,
    stop: Stop,
) -> Assessment:
    """Assess a classifier that has the saved weights; the test images influence nothing.

    The computation is in float32, with which all other precisions are compared.
    """
    arithmetic = Arithmetic(device, torch.float32)
    channels = {"val": validation} if test is None else {"val": validation, "test": test}
    try:
        logits = {
            part: logits_of(classifier, images, arithmetic, stop)
            for part, images in channels.items()
        }
    except Stopped:
        return Assessment(
            epoch=best.epoch,
            temperature=1.0,
            validation=Outcome.of("val", best.evaluation, None),
            test=None,
            mistakes=(),
            predicted=np.empty(0, np.int64),
            is_final=False,
        )
    fitting = fitting_images(validation.labels)
    temperature = helpful_temperature(logits["val"][fitting], validation.labels[fitting])
    # Few images both fit the temperature and measure its error.
    measuring = {"val": fitting if fitting.all() else ~fitting}
    outcomes = {}
    for part, images in channels.items():
        measured = measuring.get(part, slice(None))
        outcomes[part] = Outcome.of(
            part,
            evaluation_of(logits[part], images.labels, len(best.evaluation.confusion)),
            Calibration.of(logits[part][measured], images.labels[measured], temperature),
        )
    predictions = predictions_of(logits["val"], validation.labels, temperature)
    return Assessment(
        epoch=best.epoch,
        temperature=temperature,
        validation=outcomes["val"],
        test=outcomes.get("test"),
        mistakes=worst_mistakes(predictions, validation.labels),
        predicted=predictions.predicted,
        is_final=True,
    )


def worst_mistakes(predictions: Predictions, labels: npt.NDArray[np.int64]) -> tuple[Mistake, ...]:
    """Return the mistakes with the lowest probability of the true class, the worst first."""
    wrong = np.flatnonzero(predictions.predicted != labels)
    worst = wrong[np.argsort(-predictions.loss[wrong], kind="stable")][:MAX_MISTAKES]
    is_label_issue = label_issues(predictions, labels)
    return tuple(
        Mistake(
            index=int(index),
            label=int(labels[index]),
            predicted=int(predictions.predicted[index]),
            probability=float(predictions.probability[index]),
            is_label_issue=bool(is_label_issue[index]),
        )
        for index in worst
    )
