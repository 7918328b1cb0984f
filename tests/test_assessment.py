"""The last word on a training: what it looks at, and what may change it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from container.classifier.errors import UserError
from container.networks.network import Classifier
from container.training.data.images import ImageSet
from container.training.evaluation.assessment import (
    MAX_MISTAKES,
    Assessment,
    Outcome,
    judge,
    worst_mistakes,
)
from container.training.evaluation.calibration import Answers
from container.training.evaluation.evaluation import Evaluation
from container.training.evaluation.progress import Best
from container.training.sagemaker.stop import StopRequest

CPU = torch.device("cpu")
LAST_EPOCH = Evaluation(0.7, np.array([[5, 1], [2, 4]]))


class Brightness(nn.Module):
    """Takes bright images for class 1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = 5 * images.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


def squares(seed: int, count: int = 40, wrong: int = 6) -> ImageSet:
    """Make dark images of class 0 and bright ones of class 1, some with the other's label."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    shades = np.where(labels, 150, 60)[:, None, None, None]
    pixels = (shades + random.integers(0, 50, (count, 4, 4, 3))).astype(np.uint8)
    labels[:wrong] = 1 - labels[:wrong]
    return ImageSet(pixels, labels, tuple(Path(f"{n}.png") for n in range(count)), str(seed))


def judged(
    test: ImageSet | None = None, *, validation: ImageSet | None = None, is_stopped: bool = False
) -> Assessment:
    return judge(
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


def test_it_is_of_the_weights_that_are_kept_not_of_the_epochs_record() -> None:
    found = judged()

    assert found.validation.evaluation.confusion.tolist() == [[17, 3], [3, 17]]
    assert found.is_final
    assert found.epoch == 3


def test_the_test_channel_changes_nothing_but_what_is_said_of_it() -> None:
    without, with_test = judged().metrics(("a", "b")), judged(squares(1)).metrics(("a", "b"))

    assert without.pop("test") is None
    said = with_test.pop("test")
    assert with_test == without
    assert isinstance(said, dict)
    assert said["test_accuracy"] == pytest.approx(34 / 40)
    assert said["calibration"] != without["calibration"]


def test_the_temperature_is_fitted_to_the_validation_images() -> None:
    # Logits of -5 and 5 or so, and a label of seven wrong: it is far too sure.
    found = judged()

    assert 4 < found.temperature < 6
    assert found.metrics(("a", "b"))["calibration"] == {
        "temperature": found.temperature,
        "ece_before": found.validation.calibration and found.validation.calibration.before.error,
        "ece_after": found.validation.calibration and found.validation.calibration.after.error,
    }


def test_a_stop_leaves_what_the_last_evaluation_found() -> None:
    found = judged(squares(1), is_stopped=True)
    metrics = found.metrics(("a", "b"))

    assert found.temperature == 1
    assert not found.is_final
    assert metrics["val_accuracy"] == pytest.approx(9 / 12)
    assert metrics["val_accuracy_interval_95"] == list(LAST_EPOCH.accuracy_interval())
    assert metrics["calibration"] is None
    assert metrics["test"] is None


def test_every_figure_has_its_interval() -> None:
    metrics = judged().metrics(("a", "b"))

    shares = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
    figures = [(metrics, f"val_{name}") for name in shares]
    assert isinstance(metrics["classes"], dict)
    for by_class in metrics["classes"].values():
        assert isinstance(by_class, dict)
        figures += [(by_class, name) for name in ("precision", "recall", "f1")]
    for values, name in figures:
        interval = values[f"{name}_interval_95"]
        assert isinstance(interval, list)
        low, high = map(float, interval)  # type: ignore[arg-type]
        assert 0 <= low < float(values[name]) < high <= 1  # type: ignore[arg-type]


def test_the_worst_mistakes_are_those_of_the_unlikeliest_truth() -> None:
    given = Answers(
        predicted=np.array([0, 1, 1, 0, 1]),
        probability=np.array([0.9, 0.8, 0.6, 0.99, 0.7]),
        loss=np.array([0.1, 1.6, 0.9, 4.6, 0.4]),
    )

    found = worst_mistakes(given, np.array([0, 0, 0, 1, 1]))

    assert [mistake.index for mistake in found] == [3, 1, 2]
    assert (found[0].label, found[0].predicted, found[0].probability) == (1, 0, 0.99)


def test_of_many_mistakes_the_worst_are_kept() -> None:
    count = MAX_MISTAKES + 10
    given = Answers(np.ones(count, np.int64), np.full(count, 0.9), np.arange(count, dtype=float))

    found = worst_mistakes(given, np.zeros(count, np.int64))

    assert [mistake.index for mistake in found] == list(range(count - 1, 9, -1))


def test_too_low_an_accuracy_is_refused_with_what_was_found_asked_and_written() -> None:
    found = assessment(outcome("val", 81, 263 - 81))

    with pytest.raises(UserError) as refusal:
        found.check_accuracy(0.5, Path("/opt/ml/output/data/report.html"))

    assert str(refusal.value) == (
        "the accuracy on the validation images is 0.308 (95 % confidence: 0.255 to 0.366), less "
        "than min_accuracy=0.5: /opt/ml/output/data/report.html shows the mistakes"
    )


def test_the_accuracy_that_counts_is_that_of_the_test_channel() -> None:
    good, bad = outcome("val", 9, 1), outcome("test", 6, 4)

    with pytest.raises(UserError, match=r"accuracy on the test images is 0\.6 "):
        assessment(good, bad).check_accuracy(0.8, Path("report.html"))
    assessment(bad, good).check_accuracy(0.8, Path("report.html"))


@pytest.mark.parametrize("least", [None, 0.0, 0.9])
def test_as_much_as_was_asked_for_is_enough(least: float | None) -> None:
    assessment(outcome("val", 9, 1)).check_accuracy(least, Path("report.html"))


def test_what_was_stopped_is_not_judged_by_its_accuracy() -> None:
    assessment(outcome("val", 1, 9), is_final=False).check_accuracy(0.9, Path("report.html"))
