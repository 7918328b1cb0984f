"""The last word on a training: how the kept weights do, how sure that is, and what they mistake."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from container.classifier.artifact_files import Json
from container.classifier.errors import UserError
from container.networks.network import Classifier
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.evaluation import bootstrap
from container.training.evaluation.bootstrap import Intervals
from container.training.evaluation.calibration import Answers, Calibration, answers, fit_temperature
from container.training.evaluation.evaluation import Evaluation, evaluation_of, logits_of, per_class
from container.training.evaluation.progress import Best
from container.training.sagemaker.stop import Stop, Stopped

MAX_MISTAKES = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """An image that is answered incorrectly."""

    index: int
    """Of the image within its channel."""
    label: int
    predicted: int
    probability: float
    """Of the predicted class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How the kept weights do on a channel's images."""

    part: str
    """`val` or `test`, as in the metrics' names."""

    evaluation: Evaluation
    intervals: Intervals
    calibration: Calibration | None
    """None of a job that was stopped."""

    @classmethod
    def of(cls, part: str, evaluation: Evaluation, calibration: Calibration | None) -> Self:
        """Add the intervals."""
        return cls(
            part=part,
            evaluation=evaluation,
            intervals=bootstrap.intervals(evaluation),
            calibration=calibration,
        )

    def metrics(self, class_names: Sequence[str]) -> dict[str, Json]:
        """Return every figure with its interval, under its name."""
        classes = per_class(self.evaluation.counts, class_names)
        for label, figures in enumerate(classes.values()):
            for name, interval in self.intervals.by_class.items():
                figures[f"{name}_interval_95"] = interval[label].tolist()
        return {
            **self.evaluation.metrics(self.part),
            **{
                f"{self.part}_{name}_interval_95": interval.tolist()
                for name, interval in self.intervals.averages.items()
            },
            "classes": dict(classes),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Assessment:
    """How the kept weights do; of a job that was stopped, as its last evaluations found them."""

    epoch: int
    """Whose weights they are, from 1."""

    temperature: float
    validation: Outcome
    test: Outcome | None
    """None without such a channel."""

    mistakes: Sequence[Mistake]
    """The worst of the validation images, the worst first."""

    predicted: npt.NDArray[np.int64]
    """Of shape (N,): the classes of the validation images; of a job that was stopped, none."""

    is_final: bool
    """Whether the job came to its end: a stopped one has no time to calibrate and to test."""

    def metrics(self, class_names: Sequence[str]) -> dict[str, Json]:
        """Return what the manifest says of the kept weights."""
        return {
            "epoch": self.epoch,
            **self.validation.metrics(class_names),
            "calibration": self._calibration(self.validation),
            "test": self._test(class_names),
        }

    def suffices(self, least: float) -> bool:
        """Tell whether the accuracy is at least so much: on the test channel where there is one."""
        return (self.test or self.validation).evaluation.accuracy >= least

    def check_accuracy(self, least: float | None, report: Path) -> None:
        """Refuse the result where the accuracy is less than asked; of a stopped job nothing is.

        Raises:
            UserError: it is less.
        """
        if least is None or not self.is_final or self.suffices(least):
            return
        outcome = self.test or self.validation
        low, high = outcome.intervals.averages["accuracy"]
        message = (
            f"the accuracy on the {'test' if self.test else 'validation'} images is "
            f"{outcome.evaluation.accuracy:.4g} (95 % confidence: {low:.3f} to {high:.3f}), less "
            f"than min_accuracy={least:g}: {report} shows the mistakes"
        )
        raise UserError(message)

    def _test(self, class_names: Sequence[str]) -> Json:
        if self.test is None:
            return None
        return {
            **self.test.metrics(class_names),
            "calibration": self._calibration(self.test),
        }

    def _calibration(self, outcome: Outcome) -> Json:
        if outcome.calibration is None:
            return None
        return {
            "temperature": self.temperature,
            "ece_before": outcome.calibration.before.error,
            "ece_after": outcome.calibration.after.error,
        }


def judge(
    classifier: Classifier,
    device: torch.device,
    best: Best,
    *,
    validation: ImageSet,
    test: ImageSet | None,
    stop: Stop,
) -> Assessment:
    """Judge a classifier that has the kept weights; the test images decide nothing.

    In float32, whatever training computed in: it is what all other precisions are compared with.
    """
    arithmetic = Arithmetic(device, torch.float32)
    channels = {"val": validation} if test is None else {"val": validation, "test": test}
    try:
        logits = {
            part: logits_of(classifier, images, arithmetic, stop)
            for part, images in channels.items()
        }
    except Stopped:
        return _unfinished(best)
    temperature = fit_temperature(logits["val"], validation.labels)
    outcomes = {
        part: Outcome.of(
            part,
            evaluation_of(logits[part], images.labels, len(best.evaluation.confusion)),
            Calibration.of(logits[part], images.labels, temperature),
        )
        for part, images in channels.items()
    }
    given = answers(logits["val"], validation.labels, temperature)
    return Assessment(
        epoch=best.epoch,
        temperature=temperature,
        validation=outcomes["val"],
        test=outcomes.get("test"),
        mistakes=worst_mistakes(given, validation.labels),
        predicted=given.predicted,
        is_final=True,
    )


def worst_mistakes(given: Answers, labels: npt.NDArray[np.int64]) -> tuple[Mistake, ...]:
    """Return the wrong answers to which the truth seemed least likely, the worst first."""
    wrong = np.flatnonzero(given.predicted != labels)
    worst = wrong[np.argsort(-given.loss[wrong], kind="stable")][:MAX_MISTAKES]
    return tuple(
        Mistake(
            index=int(index),
            label=int(labels[index]),
            predicted=int(given.predicted[index]),
            probability=float(given.probability[index]),
        )
        for index in worst
    )


def _unfinished(best: Best) -> Assessment:
    return Assessment(
        epoch=best.epoch,
        temperature=1.0,
        validation=Outcome.of("val", best.evaluation, None),
        test=None,
        mistakes=(),
        predicted=np.empty(0, np.int64),
        is_final=False,
    )
