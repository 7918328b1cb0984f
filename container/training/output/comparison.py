"""Comparison of an int8 network with the float32 network, image by image."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from container.training.output.onnx_network import NotQuantizedError

# P-value at or below which the labels show a larger drop than allowed.
SIGNIFICANCE = 0.1

# Probability that an image typically loses when its predicted class changes. The standard error
# includes one more such image, so that a few unchanged images do not count as proof.
TYPICAL_LOSS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The predictions of both networks for the same validation images."""

    images: int
    """Number of validation images that both networks classified."""

    float32_accuracy: float
    int8_accuracy: float

    agreement: float
    """Fraction of the images with the same prediction of both networks."""

    lost: int
    """Number of images that only the float32 network classifies correctly."""

    gained: int
    """Number of images that only the int8 network classifies correctly."""

    p_value: float
    """Probability of so many lost images if the accuracy drops by the allowed drop."""

    detectable_drop: float | None
    """Smallest drop that so many images can show, without gained images; None if none can."""

    expected_drop: float
    """Drop of the accuracy that the probabilities of the float32 network predict.

    An image whose predicted class changes loses the difference of the two probabilities.
    """

    expected_drop_error: float
    """Standard error of the expected drop."""

    max_drop: float
    """Allowed drop of the accuracy."""

    @classmethod
    def of(
        cls,
        labels: npt.NDArray[np.int64],
        float32: npt.NDArray[np.int64],
        int8: npt.NDArray[np.int64],
        losses: npt.NDArray[np.float64],
        max_drop: float,
    ) -> Self:
        """Compare the predicted classes (N,) of both networks with the labels (N,).

        `losses` (N,): calibrated probability of the float32 network's class minus that of the int8
        network's class, both by the float32 network.
        """
        float32_correct, int8_correct = float32 == labels, int8 == labels
        lost = int(np.sum(float32_correct & ~int8_correct))
        gained = int(np.sum(int8_correct & ~float32_correct))
        allowed = max_drop * len(labels)
        return cls(
            images=len(labels),
            float32_accuracy=float(np.mean(float32_correct)),
            int8_accuracy=float(np.mean(int8_correct)),
            agreement=float(np.mean(int8 == float32)),
            lost=lost,
            gained=gained,
            p_value=_p_value(lost, gained, allowed),
            detectable_drop=_detectable_drop(len(labels), allowed),
            expected_drop=float(np.mean(losses)),
            expected_drop_error=math.sqrt(
                float(np.sum((losses - np.mean(losses)) ** 2)) + TYPICAL_LOSS**2
            )
            / len(labels),
            max_drop=max_drop,
        )

    @property
    def drop(self) -> float:
        """Drop of the accuracy on these images."""
        return (self.lost - self.gained) / self.images

    @property
    def has_larger_drop(self) -> bool:
        """Whether the labels show a larger drop than the allowed one."""
        return self.p_value <= SIGNIFICANCE

    @property
    def is_accurate(self) -> bool:
        """Whether the expected drop is within the limit, and the labels do not contradict.

        The expected drop varies far less than the counted one: with a few dozen images, the labels
        of the one or two whose class changes decide the latter.
        """
        return self.is_within_limit and not self.has_larger_drop

    @property
    def is_within_limit(self) -> bool:
        """Whether the expected drop plus its standard error is within the limit."""
        # 1e-9: rounding.
        return self.expected_drop + self.expected_drop_error <= self.max_drop + 1e-9

    @property
    def reason(self) -> str:
        """Why int8 is served or not: what decides first, then what so many images can show."""
        drop = self.detectable_drop
        limit = "no drop is" if drop is None else f"drops from {100 * drop:.2g} % on are"
        expected = (
            "the expected drop of int8's accuracy plus its standard error, "
            f"{100 * self.expected_drop:.2f} + {100 * self.expected_drop_error:.2f} %, is "
            f"{'at most' if self.is_within_limit else 'above'} {100 * self.max_drop:g} % "
            "(max_accuracy_drop)"
        )
        counted = (
            f"on {self.images} validation images the accuracy of int8 is "
            f"{100 * self.int8_accuracy:.2f} % and of float32 {100 * self.float32_accuracy:.2f} % "
            f"({self.lost} lost, {self.gained} gained), which "
            f"{'shows' if self.has_larger_drop else 'does not show'} a larger drop than "
            f"allowed (p={self.p_value:.2g}; with {self.images} images, {limit} detectable)"
        )
        sentences = (counted, expected) if self.has_larger_drop else (expected, counted)
        return f"{'; '.join(sentences)}; their predictions agree on {100 * self.agreement:.2f} %"


def losses_of(
    probabilities: npt.NDArray[np.float32],
    float32: npt.NDArray[np.int64],
    int8: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return the probabilities (N,) that images lose by their change from one class to another.

    Args:
        probabilities: those of the float32 network, calibrated, of shape (N, C).
        float32: classes (N,) that it predicts.
        int8: classes (N,) that the int8 network predicts.
    """
    rows = np.arange(len(probabilities))
    lost = probabilities[rows, float32].astype(np.float64) - probabilities[rows, int8]
    # Rounding differs between runtimes.
    return np.maximum(lost, 0.0)


def require_enough_images(count: int, max_drop: float) -> None:
    """Check that an int8 network without a drop would be accepted.

    Raises:
        NotQuantizedError: its standard error alone is above the limit.
    """
    if max_drop == 0:
        raise NotQuantizedError("max_accuracy_drop=0 rejects int8 always")
    # 1e-9: rounding.
    needed = math.ceil(TYPICAL_LOSS / max_drop - 1e-9)
    if count < needed:
        raise NotQuantizedError(
            f"{count} validation images are too few: max_accuracy_drop={max_drop:g} needs {needed}"
        )


def _p_value(lost: int, gained: int, allowed: float) -> float:
    """Return the one-sided p-value of McNemar's exact test (1947) against a drop.

    Only images with different correctness count. Without a drop each of these is lost with
    probability 1/2; with `allowed` more lost than gained images, with a larger one.
    """
    different = lost + gained
    probability = _probability_of_loss(different, allowed)
    if probability == 1 or not lost:
        return 1.0
    terms = (
        math.lgamma(different + 1)
        - math.lgamma(count + 1)
        - math.lgamma(different - count + 1)
        + count * math.log(probability)
        + (different - count) * math.log1p(-probability)
        for count in range(lost, different + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def _detectable_drop(images: int, allowed: float) -> float | None:
    """Return the smallest drop that this number of images can show, if any."""
    for lost in range(1, images + 1):
        if _probability_of_loss(lost, allowed) ** lost <= SIGNIFICANCE:
            return lost / images
    return None


def _probability_of_loss(different: int, allowed: float) -> float:
    return min(1.0, (1 + allowed / different) / 2) if different else 1.0
