"""Images are divided into about `num_segments` superpixels, or exactly as in Clarify."""

import numpy as np
import pytest
from skimage.segmentation import slic

from container.classifier.preprocessing import Pixels
from image_classifier.explainer.analysis import Analysis, Predictor
from image_classifier.explainer.image import segment


def grainy(height: int, width: int) -> Pixels:
    """Return a disk on a slope with the grain of a photograph: SLIC makes small regions of it."""
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    disk = 1 / (1 + np.exp(25 * (np.hypot(rows - 0.4, columns - 0.5) - 0.2)))
    colors = np.stack([60 + 120 * disk, 90 + 40 * rows, 70 + 50 * columns], axis=2)
    colors += np.random.default_rng(0).normal(scale=30, size=colors.shape)
    pixels: Pixels = colors.clip(0, 255).astype(np.uint8)
    return pixels


def count(pixels: Pixels, segments: int, samples: int = 500) -> int:
    analysis = Analysis.create(Predictor(), num_segments=segments, num_samples=samples)
    return segment(pixels, analysis.shap).segment_count


@pytest.mark.parametrize("size", [(192, 256), (300, 100), (64, 64)])
@pytest.mark.parametrize("segments", [20, 50])
def test_number_of_superpixels_is_about_the_configured_one(
    size: tuple[int, int], segments: int
) -> None:
    assert 0.75 * segments <= count(grainy(*size), segments) <= 1.25 * segments


def test_samples_suffice_for_the_superpixels() -> None:
    assert count(grainy(192, 256), segments=20, samples=42) <= 20


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (16, 16)])
def test_image_of_few_pixels_has_superpixels(size: tuple[int, int]) -> None:
    assert 1 <= count(grainy(*size), 20) <= size[0] * size[1]


def test_configured_compactness_divides_as_clarify_does() -> None:
    pixels = grainy(192, 256)
    analysis = Analysis.create(Predictor(), segment_compactness=5)

    found = segment(pixels, analysis.shap).segments

    expected = slic(pixels, n_segments=20, compactness=5, start_label=0)
    assert len(np.unique(found)) == len(np.unique(expected)) < 10
    # The same regions under other numbers.
    assert len({*zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True)}) == len(
        np.unique(expected)
    )
