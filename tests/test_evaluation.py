"""Evaluation of a classifier, compared with values computed by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from container.networks.network import Classifier
from container.training.data.images import ImageSet
from container.training.evaluation import evaluation, inference
from container.training.evaluation.evaluation import (
    Evaluation,
    confusion_matrix,
    evaluate,
    evaluation_of,
    logits_of,
    wilson,
)
from container.training.evaluation.inference import to_images
from container.training.sagemaker.stop import Stopped, StopRequest
from tests.test_features import FLOAT32

# 10 images of class 0, 5 of class 1, none of class 2, which is predicted once.
CONFUSION = np.array([[8, 1, 1], [2, 3, 0], [0, 0, 0]])


class Fixed(nn.Module):
    """Return the mean of each color as logits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


def test_confusion_matrix_has_true_classes_in_rows() -> None:
    labels, predicted = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2])

    found = confusion_matrix(labels, predicted, 4)

    assert found.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_metrics_are_macro_averages_over_the_classes_that_occur() -> None:
    metrics = Evaluation(0.5, CONFUSION).metrics()

    assert metrics == pytest.approx(
        {
            "val_loss": 0.5,
            "val_accuracy": 11 / 15,
            "val_balanced_accuracy": (8 / 10 + 3 / 5) / 2,
            "val_precision": (8 / 10 + 3 / 4 + 0) / 3,
            "val_recall": (8 / 10 + 3 / 5 + 0) / 3,
            "val_f1": (16 / 20 + 6 / 9 + 0) / 3,
        }
    )


def test_class_that_neither_occurs_nor_is_predicted_is_left_out() -> None:
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])

    assert Evaluation(0.0, confusion).metrics()["val_recall"] == pytest.approx((0.75 + 1) / 2)


def test_metrics_of_another_channel_have_its_prefix() -> None:
    found = Evaluation(0.5, CONFUSION)

    names = [name.removeprefix("val_") for name in found.metrics()]
    assert list(found.metrics("test")) == [f"test_{name}" for name in names]


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_equal_published_ones(
    right: int, total: int, low: float, high: float
) -> None:
    assert wilson(right / total, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_no_images_is_0_to_1() -> None:
    assert wilson([0.0, 0.5], [0, 0]).tolist() == [[0, 1], [0, 1]]


def test_loss_is_the_mean_over_all_images() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (600, 4, 4, 3), np.uint8)
    labels = random.integers(0, 3, 600)
    images = ImageSet(pixels, labels, (Path("x"),) * 600, "")

    found = evaluate(Classifier(Fixed()), images, FLOAT32, 3, StopRequest())

    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    logits = ((pixels / 255 - mean) / std).mean(axis=(1, 2))
    exponentials = np.exp(logits)
    shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(-np.log(shares[range(600), labels]).mean(), rel=1e-5)
    assert found.accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean())


def test_logits_are_in_the_order_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8)
    images = ImageSet(pixels, np.zeros(7, np.int64), (Path("x"),) * 7, "")
    classifier = Classifier(Fixed())
    whole = logits_of(classifier, images, FLOAT32, StopRequest())
    monkeypatch.setitem(inference.BATCH_SIZES, "cpu", 3)

    parts = logits_of(classifier, images, FLOAT32, StopRequest())

    assert whole.dtype == np.float32
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    expected = (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(whole, expected.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_stop_request_interrupts_an_evaluation() -> None:
    images = ImageSet(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1, np.int64), (Path("x"),), "")

    stop = StopRequest(requested=True)

    with pytest.raises(Stopped):
        evaluate(Classifier(Fixed()), images, FLOAT32, 3, stop)


def test_evaluation_in_parts_has_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 2, (50, 3)).astype(np.float32), random.integers(0, 3, 50)
    whole = evaluation_of(logits, labels, 3)
    monkeypatch.setattr(evaluation, "PART_VALUES", 21)

    parts = evaluation_of(logits, labels, 3)

    assert parts.loss == pytest.approx(whole.loss)
    assert parts.confusion.tolist() == whole.confusion.tolist()


def test_pixels_become_planes_of_the_same_values() -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)

    images = to_images(pixels, torch.device("cpu"))

    assert images.shape == (2, 3, 4, 5)
    assert images[1, 2, 3, 4] == pixels[1, 3, 4, 2]
