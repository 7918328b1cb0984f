"""Which images are the same image, re-encoded or resized: in near-linear time.

A perceptual hash finds who may be alike: the signs of a small image's lowest 63 frequencies
(Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"). All pairs of
hashes that differ by up to 7 bits are found by multi-index hashing (Norouzi, Punjani, Fleet 2012,
"Fast Search in Hamming Space with Multi-Index Hashing"). Small copies of 16 x 16 pixels decide.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from container.classifier.preprocessing import Pixels
from image_classifier.preparation.disjoint_sets import DisjointSets

THUMBNAIL_SIZE = 16

# Of the image whose frequencies are taken, and how many of them in either direction.
HASH_SIZE, FREQUENCIES = 32, 8

# Of 5,000 images' copies in JPEG of quality 30 or at half the size 99.9 % are within it.
MAX_DISTANCE = 7

# Four parts of 16 bits: where at most 7 differ, one part has at most one of them.
PARTS, PART_BITS = 4, 16

# Mean differences of two small copies in gray and in colors, in levels of 255. Copies of quality
# 30 have up to 2.7, the two most alike of 2,500 different hands 3.3; strong colors lose more.
MAX_DIFFERENCE, MAX_COLOR_DIFFERENCE = 3.0, 6.0

# In which two nearly blank images differ.
MIN_CORRELATION = 0.9

# Pairs that are compared at a time.
BLOCK = 1 << 17

# Different images of one hash that are told apart; more are blank ones and the like.
MAX_ROUNDS = 32

Places = npt.NDArray[np.int64]


def perceptual_hash(pixels: Pixels) -> np.uint64:
    """Return the hash of RGB pixels (height, width, 3)."""
    image = Image.fromarray(pixels).convert("L")
    gray = image.resize((HASH_SIZE, HASH_SIZE), Image.Resampling.BILINEAR)
    frequencies = (_COSINES @ np.asarray(gray, np.float32) @ _COSINES.T).ravel()
    signs = frequencies > np.median(frequencies[1:])
    # The mean brightness is no structure.
    signs[0] = False
    return np.uint64(np.packbits(signs[_ORDER]).view(np.uint64)[0])


def clusters(hashes: npt.NDArray[np.uint64], thumbnails: Pixels) -> Places:
    """Group N images that are the same.

    Args:
        hashes: (N,)
        thumbnails: (N, 16, 16, 3)

    Returns:
        (N,): the place of the first image of each one's cluster.
    """
    sets = DisjointSets(len(hashes))
    leaders = []
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
    for same in np.split(order, starts[1:]):
        leaders += _lead(same, thumbnails, sets)
    led = np.array(sorted(leaders), dtype=np.int64)
    for first, second in _alike(hashes[led]):
        pairs = np.stack([led[first], led[second]])
        is_same = _same(thumbnails, *pairs)
        for one, other in pairs[:, is_same].T.tolist():
            sets.join(one, other)
    return sets.roots()


def _lead(places: Places, thumbnails: Pixels, sets: DisjointSets) -> list[int]:
    """Join those of one hash that are the same; return one of each."""
    leaders: list[int] = []
    while len(places) and len(leaders) < MAX_ROUNDS:
        leader, rest = places[0], places[1:]
        leaders.append(int(leader))
        same = _same(thumbnails, np.full(len(rest), leader), rest)
        for place in rest[same].tolist():
            sets.join(int(leader), place)
        places = rest[~same]
    return leaders


def _alike(hashes: npt.NDArray[np.uint64]) -> Iterator[tuple[Places, Places]]:
    """Find all pairs of N hashes within the largest distance; some of them several times.

    Yields:
        Blocks of first and second places.
    """
    for part in range(PARTS):
        shift = np.uint64(part * PART_BITS)
        keys = ((hashes >> shift) & np.uint64((1 << PART_BITS) - 1)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for flip in (0, *(1 << bit for bit in range(PART_BITS))):
            wanted = keys ^ flip
            # The pairs of a flipped bit are found from the side that has it not.
            asks = np.flatnonzero(wanted >= keys)
            starts = np.searchsorted(ordered, wanted[asks], "left")
            counts = np.searchsorted(ordered, wanted[asks], "right") - starts
            for first, second in _expanded(asks, starts, counts, order):
                distances = np.bitwise_count(hashes[first] ^ hashes[second])
                # Of equal keys each pair is found from either side, and each place with itself.
                near = (distances <= MAX_DISTANCE) & ((first < second) | (flip != 0))
                if near.any():
                    yield first[near], second[near]


def _expanded(
    asks: Places, starts: Places, counts: Places, order: Places
) -> Iterator[tuple[Places, Places]]:
    """Pair every asking place with the `counts` places from `starts` on in `order`, in blocks."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for begin in range(0, total, BLOCK):
        numbers = np.arange(begin, min(begin + BLOCK, total))
        which = np.searchsorted(ends, numbers, "right")
        within = numbers - (ends[which] - counts[which])
        yield asks[which], order[starts[which] + within]


def _same(thumbnails: Pixels, first: Places, second: Places) -> npt.NDArray[np.bool_]:
    """Tell of each pair whether its small copies are the same but for compression."""
    found = np.zeros(len(first), dtype=bool)
    for begin in range(0, len(first), 1 << 12):
        block = slice(begin, begin + (1 << 12))
        one, other = (
            thumbnails[places[block]].astype(np.float32).reshape(len(places[block]), -1, 3)
            for places in (first, second)
        )
        colors = np.abs(one - other).mean(axis=(1, 2))
        gray = np.abs(one.mean(axis=2) - other.mean(axis=2)).mean(axis=1)
        one -= one.mean(axis=1, keepdims=True)
        other -= other.mean(axis=1, keepdims=True)
        norms = np.sqrt((one**2).sum(axis=(1, 2)) * (other**2).sum(axis=(1, 2)))
        correlation = (one * other).sum(axis=(1, 2)) / np.maximum(norms, 1e-6)
        found[block] = (
            (gray <= MAX_DIFFERENCE)
            & (colors <= MAX_COLOR_DIFFERENCE)
            & (correlation >= MIN_CORRELATION)
        )
    return found


def _cosines() -> npt.NDArray[np.float32]:
    """Return the lowest frequencies of the discrete cosine transform, (8, 32)."""
    pixels, frequencies = np.arange(HASH_SIZE), np.arange(FREQUENCIES)
    angles = np.pi * (2 * pixels + 1) * frequencies[:, None] / (2 * HASH_SIZE)
    return np.cos(angles).astype(np.float32)


_COSINES = _cosines()

# Neighboring frequencies depend on each other; spread over the parts, each part says more.
_ORDER = np.arange(64).reshape(-1, PARTS).T.ravel()
