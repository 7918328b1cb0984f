"""Sample data: images of hands that hold up 0 to 5 fingers, drawn from a seed.

Like Kaggle's "Fingers": 128x128 gray PNG, palm towards the viewer, the class in the file name
(`<uuid>_3L.png`). The thumb of a left hand is on the left, that of a right hand on the right, for
0 fingers too, so that a mirrored image is an image of the other class.
"""

import math
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

IMAGE_SIZE = 128
CLASS_NAMES = tuple(f"{fingers}{side}" for fingers in range(6) for side in "LR")

# Drawn larger, then reduced by averaging, because Pillow's polygons have hard edges.
SUPERSAMPLING = 3

Point = tuple[float, float]


class Finger(NamedTuple):
    """One finger of a left hand in palm widths: x to the right, y up, the palm's center at 0."""

    knuckle: Point
    length: float
    """From the knuckle to the tip."""
    angle: float
    """Degrees from straight up, positive away from the thumb."""
    radius: float


# Index, middle, ring, little: the order in which people raise them when they count.
FINGERS = (
    Finger((-0.34, 0.44), 0.78, -13.0, 0.115),
    Finger((-0.11, 0.50), 0.90, -3.0, 0.120),
    Finger((0.13, 0.46), 0.82, 8.0, 0.115),
    Finger((0.34, 0.34), 0.66, 22.0, 0.098),
)
PALM = ((-0.45, 0.42), (-0.12, 0.56), (0.15, 0.54), (0.43, 0.38), (0.40, -0.30), (0.24, -0.66))
THUMB_SIDE_OF_PALM = ((-0.22, -0.66), (-0.40, -0.34), (-0.47, 0.0))
THUMB_ROOT = (-0.30, -0.30)
THUMB_RADIUS = 0.130


class Brush:
    """Draws the parts of a hand, each with a dark rim and a light middle to separate them."""

    def __init__(self, side: str, rng: np.random.Generator) -> None:
        """Choose position, size, rotation and brightness of the hand."""
        self.background = rng.uniform(30, 70)
        self.skin = self.background + rng.uniform(85, 130)
        self._scale = rng.uniform(35, 44) * SUPERSAMPLING
        turn = math.radians(rng.uniform(-18, 18))
        self._cosine, self._sine = math.cos(turn), math.sin(turn)
        self._mirror = 1 if side == "L" else -1
        middle = IMAGE_SIZE / 2 + np.array([0.0, 12.0]) + rng.uniform(-8, 8, size=2)
        self._x, self._y = middle * SUPERSAMPLING
        size = IMAGE_SIZE * SUPERSAMPLING
        self.image = Image.new("L", (size, size), round(self.background))
        self._draw = ImageDraw.Draw(self.image)

    def tube(self, points: Sequence[Point], radius: float) -> None:
        """Draw a line with round ends and joints: a finger, or a part of one."""
        for scale, brightness in ((1.0, 0.62), (0.84, 0.93), (0.45, 1.04)):
            self.line(points, radius * scale, brightness)

    def area(self, points: Sequence[Point], rim: float) -> None:
        """Draw a filled shape with rounded corners that extends `rim` beyond its points."""
        for scale, brightness in ((1.0, 0.62), (0.6, 0.97)):
            self.line((*points, points[0]), rim * scale, brightness)
            self._draw.polygon([self._pixel(p) for p in points], fill=self._gray(brightness))

    def line(self, points: Sequence[Point], radius: float, brightness: float) -> None:
        """Draw a line: a crease if it is darker than the skin, a shine if it is lighter."""
        pixels = [self._pixel(point) for point in points]
        reach = radius * self._scale
        gray = self._gray(brightness)
        self._draw.line(pixels, fill=gray, width=max(1, round(2 * reach)))
        for x, y in pixels:
            self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=gray)

    def _pixel(self, point: Point) -> Point:
        x, y = self._mirror * point[0], -point[1]
        return (
            self._x + self._scale * (self._cosine * x - self._sine * y),
            self._y + self._scale * (self._sine * x + self._cosine * y),
        )

    def _gray(self, brightness: float) -> int:
        return min(255, round(self.skin * brightness))


def draw_hand(class_name: str, rng: np.random.Generator) -> Image.Image:
    """Draw one hand; the class has the number of raised fingers and the side.

    Returns a gray image of IMAGE_SIZE x IMAGE_SIZE; the same state of `rng` gives the same pixels.
    """
    raised, side = int(class_name[0]), class_name[1]
    brush = Brush(side, rng)
    for finger in FINGERS[:raised]:
        _raise(brush, finger, rng)
    thumb_is_up = raised > len(FINGERS)
    if thumb_is_up:
        _spread_thumb(brush, rng)
    _palm(brush)
    for finger in reversed(FINGERS[raised:]):
        _curl(brush, finger, rng)
    if not thumb_is_up:
        _fold_thumb(brush, raised, rng)
    return _photograph(brush.image, rng)


def _towards(start: Point, length: float, degrees: float) -> Point:
    """Return the point at distance `length` from `start`, `degrees` from straight up."""
    angle = math.radians(degrees)
    return start[0] + length * math.sin(angle), start[1] + length * math.cos(angle)


def _raise(brush: Brush, finger: Finger, rng: np.random.Generator) -> None:
    angle = finger.angle + rng.normal(0, 3)
    length = finger.length * rng.uniform(0.92, 1.06)
    root = _towards(finger.knuckle, -0.15, angle)
    middle = _towards(finger.knuckle, 0.5 * length, angle)
    tip = _towards(middle, 0.5 * length - finger.radius, angle + rng.normal(0, 3))
    brush.tube((root, middle, tip), finger.radius)
    for position in (0.36, 0.68):
        joint = _towards(finger.knuckle, position * length, angle)
        ends = (_towards(joint, reach, angle + 90) for reach in (-0.06, 0.06))
        brush.line(tuple(ends), 0.01, 0.75)


def _curl(brush: Brush, finger: Finger, rng: np.random.Generator) -> None:
    """Draw a folded finger, with the knuckle above and the tip on the palm."""
    x, y = finger.knuckle
    top = (x, y + rng.uniform(0.02, 0.07))
    tip = (0.82 * x, y - rng.uniform(0.30, 0.36))
    brush.tube((top, tip), finger.radius * 1.06)
    brush.line((_towards(top, 0.15, 95), _towards(top, 0.15, -95)), 0.01, 0.72)


def _spread_thumb(brush: Brush, rng: np.random.Generator) -> None:
    angle = -58 + rng.normal(0, 5)
    joint = _towards(THUMB_ROOT, 0.48, angle)
    tip = _towards(joint, 0.34, angle + 14 + rng.normal(0, 4))
    brush.area(((-0.44, 0.30), (0.0, 0.0), (-0.24, -0.62), joint), 0.10)
    brush.tube((THUMB_ROOT, joint, tip), THUMB_RADIUS)


def _fold_thumb(brush: Brush, raised: int, rng: np.random.Generator) -> None:
    """Draw the thumb across the palm, over the folded fingers."""
    joint = (-0.44 + rng.normal(0, 0.02), -0.02 + rng.normal(0, 0.02))
    reach = 0.34 + 0.05 * raised + rng.normal(0, 0.02)
    tip = _towards(joint, reach, 78 + 4 * raised + rng.normal(0, 5))
    brush.tube((THUMB_ROOT, joint, tip), THUMB_RADIUS)
    nail = (_towards(tip, -0.05, 80), _towards(tip, 0.05, 80))
    brush.line(nail, 0.04, 1.16)


def _palm(brush: Brush) -> None:
    brush.area((*PALM, *THUMB_SIDE_OF_PALM), 0.07)
    # The ball of the thumb, the edge of the hand, and the lines between them.
    brush.line(((-0.24, -0.28), (-0.22, -0.10)), 0.17, 1.03)
    brush.line(((0.22, -0.38), (0.24, 0.08)), 0.13, 1.03)
    brush.line(((-0.40, 0.12), (-0.08, -0.04), (0.02, -0.46)), 0.011, 0.84)
    brush.line(((-0.34, 0.26), (0.04, 0.17), (0.36, -0.02)), 0.011, 0.86)


def _photograph(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Shrink and blur the drawing; add an uneven background and camera noise."""
    small = image.reduce(SUPERSAMPLING).filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 0.9)))
    pixels = np.asarray(small, dtype=np.float32)
    cloth = rng.normal(0, 6, size=(16, 16)).astype(np.float32)
    folds = Image.fromarray(cloth).resize(small.size, Image.Resampling.BICUBIC)
    pixels = pixels + np.asarray(folds)
    pixels += rng.normal(0, rng.uniform(1.5, 4), size=pixels.shape).astype(np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def generate(count: int, seed: int, channel: str) -> Iterator[tuple[str, Image.Image]]:
    """Yield `count` images with their file names, cycling through the classes.

    Deterministic in seed and channel; two channels of one seed share no image.
    """
    rng = np.random.default_rng([seed, *channel.encode()])
    for number in range(count):
        class_name = CLASS_NAMES[number % len(CLASS_NAMES)]
        name = uuid.UUID(bytes=rng.bytes(16), version=4)
        yield f"{name}_{class_name}.png", draw_hand(class_name, rng)


def write_images(directory: Path, count: int, seed: int) -> None:
    """Write `count` images into a new `directory`, which has the name of a channel."""
    directory.mkdir()
    for name, image in generate(count, seed, directory.name):
        image.save(directory / name)
