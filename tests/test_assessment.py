"""The final assessment of a training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from container.classifier.errors import UserError
from container.classifier.label_issues import Predictions, label_issues
from container.networks.network import Classifier
from container.training.data.images import ImageSet
from container.training.evaluation.assessment import (
    MAX_MISTAKES,
    Assessment,
    Outcome,
    assess,
    worst_mistakes,
)
from container.training.evaluation.bootstrap import intervals
from container.training.evaluation.evaluation import Evaluation
from container.training.evaluation.progress import Best
from container.training.sagemaker.stop import StopRequest

CPU = torch.device("cpu")
LAST_EPOCH = Evaluation(0.7, np.array([[5, 1], [2, 4]]))


class Brightness(nn.Module):
    """Classify bright images as class 1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = 5 * images.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


def squares(seed: int, count: int = 40, wrong: int = 6) -> ImageSet:
    """Return dark images of class 0 and bright ones of class 1, some with the wrong label."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    shades = np.where(labels, 150, 60)[:, None, None, None]
    pixels = (shades + random.integers(0, 50, (count, 4, 4, 3))).astype(np.uint8)
    labels[:wrong] = 1 - labels[:wrong]
    return ImageSet(pixels, labels, tuple(Path(f"{n}.png") for n in range(count)), str(seed))


def assessed(
    test: ImageSet | None = None, *, validation: ImageSet | None = None, is_stopped: bool = False
) -> Assessment:
    return assess(
        Classifier(Brightness()),
        CPU,
        Best(3, {}, LAST_EPOCH),
        validation=validation or squares(0),
        test=test,
        stop=StopRequest(requested=is_stopped),
    )


def outcome(part: str, right: int, wrong: int) -> Outcome:
    return Outcome.of(part, Evaluation(0.1, np.array([[right, wrong], [0, 0]])), None)


def assessment(
    validation: Outcome, test: Outcome | None = None, *, is_final: bool = True
) -> Assessment:
    return Assessment(
        epoch=1,
        temperature=1.0,
        validation=validation,
        test=test,
        mistakes=(),
        predicted=np.empty(0, np.int64),
        is_final=is_final,
    )


def test_assessment_evaluates_the_saved_weights_again() -> None:
    found = assessed()

    assert found.validation.evaluation.confusion.tolist() == [[17, 3], [3, 17]]
    assert found.is_final
    assert found.epoch == 3


def test_test_channel_only_adds_its_own_metrics() -> None:
    without, with_test = assessed().metrics(("a", "b")), assessed(squares(1)).metrics(("a", "b"))

    assert without.pop("test") is None
    test_metrics = with_test.pop("test")
    assert with_test == without
    assert isinstance(test_metrics, dict)
    assert test_metrics["test_accuracy"] == pytest.approx(34 / 40)
    assert test_metrics["calibration"] != without["calibration"]


def test_temperature_is_fitted_to_the_validation_images() -> None:
    # Logits of about -5 and 5, with one label in seven wrong: the network is overconfident.
    found = assessed()

    assert 4 < found.temperature < 6
    assert found.metrics(("a", "b"))["calibration"] == {
        "temperature": found.temperature,
        "ece_before": found.validation.calibration and found.validation.calibration.before.error,
        "ece_after": found.validation.calibration and found.validation.calibration.after.error,
    }


def test_half_of_many_validation_images_measures_the_calibration() -> None:
    few, many = (assessed(validation=squares(0, count, count // 7)) for count in (998, 1000))

    assert few.validation.calibration is not None
    assert many.validation.calibration is not None
    assert few.validation.calibration.image_count == 998
    assert many.validation.calibration.image_count == 500
    assert many.validation.evaluation.confusion.sum() == 1000
    assert many.temperature == pytest.approx(few.temperature, rel=0.2)


def test_stopped_assessment_keeps_the_best_epochs_evaluation() -> None:
    found = assessed(squares(1), is_stopped=True)
    metrics = found.metrics(("a", "b"))

    assert found.temperature == 1
    assert not found.is_final
    assert metrics["val_accuracy"] == pytest.approx(9 / 12)
    assert (
        metrics["val_accuracy_interval_95"] == intervals(LAST_EPOCH).averages["accuracy"].tolist()
    )
    assert metrics["calibration"] is None
    assert metrics["test"] is None


def test_every_metric_has_an_interval() -> None:
    metrics = assessed().metrics(("a", "b"))

    names = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
    scores = [(metrics, f"val_{name}") for name in names]
    assert isinstance(metrics["classes"], dict)
    for by_class in metrics["classes"].values():
        assert isinstance(by_class, dict)
        scores += [(by_class, name) for name in ("precision", "recall", "f1")]
    for values, name in scores:
        interval = values[f"{name}_interval_95"]
        assert isinstance(interval, list)
        low, high = map(float, interval)  # type: ignore[arg-type]
        assert 0 <= low < float(values[name]) < high <= 1  # type: ignore[arg-type]


def test_worst_mistakes_have_the_least_likely_true_class() -> None:
    predictions = Predictions(
        predicted=np.array([0, 1, 1, 0, 1]),
        probability=np.array([0.9, 0.8, 0.6, 0.99, 0.7]),
        loss=np.array([0.1, 1.6, 0.9, 4.6, 0.4]),
    )

    found = worst_mistakes(predictions, np.array([0, 0, 0, 1, 1]))

    assert [mistake.index for mistake in found] == [3, 1, 2]
    assert (found[0].label, found[0].predicted, found[0].probability) == (1, 0, 0.99)


def test_number_of_worst_mistakes_is_limited() -> None:
    count = MAX_MISTAKES + 10
    predictions = Predictions(
        np.ones(count, np.int64), np.full(count, 0.9), np.arange(count, dtype=float)
    )

    found = worst_mistakes(predictions, np.zeros(count, np.int64))

    assert [mistake.index for mistake in found] == list(range(count - 1, 9, -1))


def test_scores_of_a_class_are_returned_by_name() -> None:
    confusion = np.array([[4, 1, 0], [1, 3, 1], [0, 0, 5]])

    scores = Outcome.of("val", Evaluation(0.0, confusion), None).per_class("abc")["b"]

    intervals = {name: scores.pop(f"{name}_interval_95") for name in ("precision", "recall", "f1")}
    assert scores == pytest.approx({"precision": 3 / 4, "recall": 3 / 5, "f1": 6 / 9, "images": 5})
    assert all(isinstance(interval, list) for interval in intervals.values())


def test_accuracy_below_the_minimum_is_rejected() -> None:
    found = assessment(outcome("val", 81, 263 - 81))

    with pytest.raises(UserError) as rejection:
        found.check_accuracy(0.5, Path("/opt/ml/output/data/report.html"))

    assert str(rejection.value) == (
        "the accuracy on the validation images is 0.308 (95 % confidence: 0.255 to 0.366), less "
        "than min_accuracy=0.5: /opt/ml/output/data/report.html shows the mistakes"
    )


def test_minimum_accuracy_applies_to_the_test_channel() -> None:
    good, bad = outcome("val", 9, 1), outcome("test", 6, 4)

    with pytest.raises(UserError, match=r"accuracy on the test images is 0\.6 "):
        assessment(good, bad).check_accuracy(0.8, Path("report.html"))
    assessment(bad, good).check_accuracy(0.8, Path("report.html"))


@pytest.mark.parametrize("minimum", [None, 0.0, 0.9])
def test_accuracy_equal_to_the_minimum_is_enough(minimum: float | None) -> None:
    assessment(outcome("val", 9, 1)).check_accuracy(minimum, Path("report.html"))


def test_minimum_accuracy_does_not_apply_to_stopped_jobs() -> None:
    assessment(outcome("val", 1, 9), is_final=False).check_accuracy(0.9, Path("report.html"))


def test_confident_contradictions_of_labels_are_label_issues() -> None:
    found = assessed(validation=squares(0, count=60, wrong=5))

    assert {mistake.index for mistake in found.mistakes if mistake.is_label_issue} == {*range(5)}


def test_a_label_issue_needs_the_confidence_of_the_class() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1, 0])
    predicted = np.array([0, 0, 1, 1, 0, 0, 1])
    probability = np.array([0.95, 0.85, 0.75, 0.75, 0.8, 0.6, 0.6])
    own = np.where(predicted == labels, probability, 1 - probability)
    predictions = Predictions(predicted, probability, -np.log(own))

    found = label_issues(predictions, labels)

    # The averages are 0.73 and 0.53: the network is confident of the fifth and the last image.
    assert np.flatnonzero(found).tolist() == [4, 6]


def test_a_class_without_images_has_no_label_issues() -> None:
    predictions = Predictions(np.array([2, 0]), np.array([0.99, 0.9]), np.array([4.0, 0.1]))

    assert not label_issues(predictions, np.array([0, 0])).any()
