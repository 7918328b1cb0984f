"""Detection of images that are re-encoded or resized copies."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from container.classifier.preprocessing import Pixels
from image_classifier.preparation import duplicates
from image_classifier.preparation.duplicates import clusters
from image_classifier.preparation.scan import measure
from tests.planted import drawn, encoded


def small(*files: bytes) -> tuple[npt.NDArray[np.uint64], Pixels]:
    """Return the hashes and thumbnails of image files."""
    copies = [pixels for _, pixels in map(measure, files) if pixels is not None]
    thumbnails = [
        copy.reshape(16, 3, 16, 3, 3).mean(axis=(1, 3)).astype(np.uint8) for copy in copies
    ]
    return np.array([duplicates.perceptual_hash(copy) for copy in copies]), np.stack(thumbnails)


def groups(*files: bytes) -> list[int]:
    found: list[int] = clusters(*small(*files)).tolist()
    return found


@pytest.mark.parametrize("seed", range(5))
def test_image_is_recognized_in_other_sizes_and_formats(seed: int) -> None:
    image = drawn(seed, size=128)
    turned = Image.Exif()
    turned[0x0112] = 3
    files = [
        encoded(image, "PNG"),
        encoded(image, "JPEG", quality=40),
        encoded(image.resize((64, 64), Image.Resampling.LANCZOS), "JPEG", quality=80),
        encoded(image.resize((300, 300), Image.Resampling.BICUBIC), "WEBP", quality=60),
        # Stored upside down, with the EXIF orientation for it.
        encoded(image.rotate(180), "JPEG", quality=90, exif=turned),
    ]

    assert groups(*files) == [0] * 5


def test_different_images_are_not_copies() -> None:
    files = [encoded(drawn(f"d{number}", "one class"), "PNG") for number in range(200)]

    assert groups(*files) == list(range(200))


def test_nearly_blank_images_are_not_copies() -> None:
    random = np.random.default_rng(0)
    files = []
    for _ in range(20):
        noise = random.integers(126, 130, (64, 64, 3)).astype(np.uint8)
        files.append(encoded(Image.fromarray(noise), "PNG"))

    assert groups(*files) == list(range(20))


def test_all_pairs_within_seven_bits_are_found() -> None:
    random = np.random.default_rng(1)
    hashes = random.integers(0, 2**63, 400, dtype=np.uint64)
    for index in range(0, 300, 3):
        bits = random.permutation(64)[: random.integers(0, 12)]
        flips = np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0))
        hashes[index + 1] = hashes[index] ^ flips
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = {(i, j) for i, j in np.argwhere(distances <= 7).tolist() if i < j}

    found = {
        (min(pair), max(pair))
        for first, second in duplicates.near_pairs(hashes)
        for pair in zip(first.tolist(), second.tolist(), strict=True)
    }

    assert found == expected
    assert len(expected) > 50


def test_exif_orientation_is_measured() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn(0).save(file, "JPEG", exif=exif)

    measured, _ = measure(file.getvalue())

    assert (measured.orientation, measured.problem) == (6, "")


def test_no_images_have_no_clusters() -> None:
    none = clusters(np.zeros(0, np.uint64), np.zeros((0, 16, 16, 3), np.uint8))

    assert none.tolist() == []
