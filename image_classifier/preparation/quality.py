"""Images of poor quality: dark, bright, blurry, with little content, of an odd shape or size.

The definitions follow the package cleanvision (https://github.com/cleanlab/cleanvision), on gray
levels, without the border, where its filter finds edges, and with a factor for odd sizes.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

from image_classifier.preparation.findings import Finding

# Levels of 255: 99 % of a dark image's pixels are below the first, 95 % of a bright one's above the
# second.
DARK, BRIGHT = 0.32 * 255, 0.95 * 255

# Bits: of the distribution of an image's levels in all three channels.
MIN_ENTROPY = 3.0

# The standard deviation of the edges in a copy whose longer side has at most 64 pixels. Photographs
# have more, and most have less after a blur of a twentieth of their side.
BLUR_SIZE, MIN_EDGES = 64, 6.0

# An image with a shorter side has only border pixels.
MIN_SIDE = 2

# Shorter to longer side.
MIN_ASPECT_RATIO = 0.35

# Interquartile ranges from the quartiles of all sizes; and the factor from their median, because
# the sizes of most images can be equal.
SIZE_RANGES, SIZE_FACTOR = 3.0, 2.0

# A property of more images than this is one of the data set.
MAX_PREVALENCE = 0.5


@dataclass(frozen=True, slots=True)
class Quality:
    """What the quality of a decoded image is judged by."""

    width: int
    height: int
    low: int
    """5th percentile of the gray levels, 0 to 255."""

    high: int
    """99th percentile."""

    entropy: float
    """In bits."""

    edges: float
    """Standard deviation, in levels."""

    @classmethod
    def of(cls, image: Image.Image) -> Self:
        """Measure an RGB image."""
        gray = image.convert("L")
        cumulative = np.cumsum(gray.histogram())
        low, high = np.searchsorted(cumulative, [0.05 * cumulative[-1], 0.99 * cumulative[-1]])
        small = gray.reduce(max(1, math.ceil(max(image.size) / BLUR_SIZE)))
        return cls(*image.size, int(low), int(high), image.entropy(), _edges(small))

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield the kinds of findings, and their details."""
        if self.high < DARK:
            yield "dark", f"99 % of the pixels have a brightness of at most {self.high} of 255"
        elif self.low > BRIGHT:
            yield "bright", f"95 % of the pixels have a brightness of at least {self.low} of 255"
        elif self.entropy < MIN_ENTROPY:
            yield "low-information", f"the entropy of the colors is {self.entropy:.1f} bits"
        elif self.edges < MIN_EDGES:
            yield "blurry", f"the edges have a standard deviation of {self.edges:.0f} levels"
        if min(self.width, self.height) < MIN_ASPECT_RATIO * max(self.width, self.height):
            yield "odd-aspect-ratio", f"{self.width} x {self.height} pixels"


def _edges(gray: Image.Image) -> float:
    """Return the standard deviation of the edges: each pixel's excess over its eight neighbors."""
    levels = np.asarray(gray, np.int16)
    if min(levels.shape) <= MIN_SIDE:
        return math.inf
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return float((9 * levels[1:-1, 1:-1] - around).clip(0, 255).std())


def find(names: Sequence[str], qualities: Sequence[Quality | None]) -> Iterator[Finding]:
    """Find images of poor quality; what more than half of them have is one finding.

    `qualities` has None for images that are not judged.
    """
    judged = {n: item for n, item in zip(names, qualities, strict=True) if item is not None}
    found = [Finding(kind, n, text) for n, item in judged.items() for kind, text in item.faults()]
    counts = Counter(finding.kind for finding in found)
    common = {kind for kind, count in counts.items() if count > MAX_PREVALENCE * len(judged)}
    for kind in common:
        text = f"{counts[kind]} of {len(names)} images: it is usual in this data set"
        yield Finding(kind, None, text)
    yield from (finding for finding in found if finding.kind not in common)
    yield from _odd_sizes(judged)


def _odd_sizes(judged: Mapping[str, Quality]) -> Iterator[Finding]:
    if not judged:
        return
    lengths = {name: math.sqrt(item.width * item.height) for name, item in judged.items()}
    first, median, third = np.percentile([*lengths.values()], [25, 50, 75])
    margin = SIZE_RANGES * (third - first)
    for name, length in lengths.items():
        is_far = not first - margin <= length <= third + margin
        if is_far and max(length / median, median / length) > SIZE_FACTOR:
            size = f"{judged[name].width} x {judged[name].height} pixels"
            text = f"{size}; the median is {median:.0f} x {median:.0f}"
            yield Finding("odd-size", name, text)
