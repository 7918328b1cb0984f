"""The comparison of int8 with float32: what the validation images can show."""

import math

import numpy as np
import pytest

from container.training.output.comparison import SIGNIFICANCE, Comparison, losses_of


def compared(
    images: int, lost: int, gained: int, max_drop: float = 0.005, *, loss: float = 0.0
) -> Comparison:
    """Compare the networks; each image whose class changes loses the probability `loss`."""
    labels = np.zeros(images, np.int64)
    wrong = np.ones(lost + gained, np.int64)
    float32, int8 = labels.copy(), labels.copy()
    int8[:lost] = wrong[:lost]
    float32[lost : lost + gained] = wrong[lost:]
    return Comparison.of(labels, float32, int8, np.where(float32 != int8, loss, 0.0), max_drop)


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [
        # Tails of the binomial distribution with 1/2.
        (0, 0, 1),
        (0, 5, 1),
        (1, 0, 1 / 2),
        (5, 0, 1 / 32),
        (5, 1, 7 / 64),
        (3, 3, 42 / 64),
    ],
)
def test_without_an_allowed_drop_it_is_mcnemars_exact_test(
    lost: int, gained: int, p_value: float
) -> None:
    assert compared(100, lost, gained, 0).p_value == pytest.approx(p_value)


def test_p_value_of_an_allowed_drop_is_that_of_simulated_images() -> None:
    random = np.random.default_rng(0)
    # 10 of 2,000 images are lost on average, net.
    found = compared(2000, 30, 10)

    lost = random.binomial(40, (1 + 10 / 40) / 2, 100_000)

    assert found.p_value == pytest.approx(np.mean(lost >= 30), abs=0.005)


def test_one_image_of_few_does_not_decide() -> None:
    assert not compared(90, 1, 0).has_larger_drop
    assert not compared(90, 3, 1).has_larger_drop
    assert compared(90, 8, 1).has_larger_drop


def test_many_images_show_a_drop_slightly_above_the_allowed_one() -> None:
    assert not compared(4000, 40, 20).has_larger_drop
    assert compared(4000, 60, 20).has_larger_drop


@pytest.mark.parametrize("images", [1, 3, 4, 20, 90, 300, 4000])
@pytest.mark.parametrize("max_drop", [0, 0.005, 0.1])
def test_detectable_drop_is_the_smallest_that_is_rejected(images: int, max_drop: float) -> None:
    found = compared(images, 0, 0, max_drop).detectable_drop

    if found is None:
        assert not compared(images, images, 0, max_drop).has_larger_drop
    else:
        lost = round(found * images)
        assert compared(images, lost, 0, max_drop).has_larger_drop
        assert not compared(images, lost - 1, 0, max_drop).has_larger_drop
    assert (found is None) == (images <= 3)


def test_everything_is_accepted_if_every_drop_is_allowed() -> None:
    found = compared(10, 10, 0, 1)

    assert found.is_accurate
    assert found.detectable_drop is None
    assert "no drop is detectable" in found.reason


def test_reason_states_what_so_many_images_can_show() -> None:
    reason = compared(90, 2, 1).reason

    assert "97.78 % and of float32 98.89 % (2 lost, 1 gained)" in reason
    assert reason.startswith("the expected drop of int8's accuracy plus its standard error, ")
    assert " is at most 0.5 % (max_accuracy_drop); on 90 validation images" in reason
    assert "which does not show a larger drop than allowed (p=" in reason
    assert compared(90, 9, 0).reason.startswith("on 90 validation images the accuracy of int8")
    assert "with 90 images, drops from 4.4 % on are detectable" in reason
    assert math.isclose(4 / 90, compared(90, 2, 1).detectable_drop or 0)
    assert SIGNIFICANCE == 0.1


def test_losses_are_the_probabilities_between_both_classes() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25]], np.float32)
    # The class of the last one is not the most probable: runtimes round differently.
    float32, int8 = np.array([0, 1, 1]), np.array([1, 1, 0])

    found = losses_of(probabilities, float32, int8)

    assert found == pytest.approx([0.3, 0, 0])


def test_expected_drop_and_its_error_are_those_of_the_losses() -> None:
    found = compared(100, 3, 1, loss=0.2)

    assert found.expected_drop == pytest.approx(4 * 0.2 / 100)
    # One more image whose class changes is counted.
    variance = np.var([0.2] * 4 + [0.0] * 96) / 100 + (0.1 / 100) ** 2
    assert found.expected_drop_error == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize(
    ("images", "changed", "loss", "is_accurate"),
    [
        # Without any change of a class, 20 images are enough.
        (20, 0, 0.0, True),
        (19, 0, 0.0, False),
        # One of 90 images changes to a class that is about as probable, or to another one.
        (90, 1, 0.02, True),
        (90, 1, 0.4, False),
        # 4 % of the images change, and lose 0.4 or 0.2 % together.
        (300, 12, 0.1, False),
        (300, 12, 0.05, True),
        (4000, 160, 0.1, True),
    ],
)
def test_expected_drop_decides(
    images: int, changed: int, loss: float, *, is_accurate: bool
) -> None:
    found = compared(images, changed // 2, changed - changed // 2, loss=loss)

    assert not found.has_larger_drop
    assert found.is_accurate is is_accurate


def test_labels_that_show_a_larger_drop_contradict_the_expected_one() -> None:
    assert compared(300, 2, 2, loss=0.01).is_accurate
    assert not compared(300, 9, 0, loss=0.01).is_accurate
