"""Finds images that are the same, re-encoded or resized, in near-linear time.

A perceptual hash finds candidates: the signs of a small image's lowest 63 frequencies
(Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"). All pairs of
hashes that differ by up to 7 bits are found by multi-index hashing (Norouzi, Punjani, Fleet 2012,
"Fast Search in Hamming Space with Multi-Index Hashing"). A comparison of 16 x 16 pixel thumbnails
decides.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from container.classifier.preprocessing import Pixels

THUMBNAIL_SIZE = 16

# Size of the image whose frequencies are computed, and the number of frequencies per axis.
HASH_SIZE, FREQUENCIES = 32, 8

# The lowest frequencies of the discrete cosine transform, (8, 32).
_ANGLES = np.pi * (2 * np.arange(HASH_SIZE) + 1) * np.arange(FREQUENCIES)[:, None] / (2 * HASH_SIZE)
_COSINES = np.cos(_ANGLES).astype(np.float32)

# Contains 99.9 % of the copies of 5,000 images in JPEG of quality 30 or at half the size.
MAX_DISTANCE = 7

# Four parts of 16 bits: if at most 7 bits differ, at most one differs in one of the parts.
PARTS, PART_BITS = 4, 16

# Neighboring frequencies are correlated; spread over the parts, each part discriminates better.
_ORDER = np.arange(64).reshape(-1, PARTS).T.ravel()

# Mean differences of two thumbnails in gray and in color, in levels of 255. Copies of quality 30
# have up to 2.7, the two most similar of 2,500 different hands 3.3; strong colors lose more.
MAX_DIFFERENCE, MAX_COLOR_DIFFERENCE = 3.0, 6.0

# Separates nearly blank images, whose mean difference is always small.
MIN_CORRELATION = 0.9

# Pairs that are compared at a time, to bound the memory.
PAIR_BLOCK, THUMBNAIL_BLOCK = 1 << 17, 1 << 12

# Different images with the same hash that are compared; more are blank images and the like.
MAX_ROUNDS = 32

Indices = npt.NDArray[np.int64]


def perceptual_hash(pixels: Pixels) -> np.uint64:
    """Return the hash of RGB pixels (height, width, 3)."""
    image = Image.fromarray(pixels).convert("L")
    gray = image.resize((HASH_SIZE, HASH_SIZE), Image.Resampling.BILINEAR)
    frequencies = (_COSINES @ np.asarray(gray, np.float32) @ _COSINES.T).ravel()
    signs = frequencies > np.median(frequencies[1:])
    # The mean brightness does not describe the structure.
    signs[0] = False
    return np.uint64(np.packbits(signs[_ORDER]).view(np.uint64)[0])


def clusters(hashes: npt.NDArray[np.uint64], thumbnails: Pixels) -> Indices:
    """Group N images that are the same.

    Args:
        hashes: (N,)
        thumbnails: (N, 16, 16, 3)

    Returns:
        (N,): the index of the first image in each image's cluster.
    """
    pairs: list[tuple[int, int]] = []
    representatives: list[int] = []
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
    for same_hash in np.split(order, starts[1:]):
        representatives += _pair_same_hash(same_hash, thumbnails, pairs)
    compared = np.array(sorted(representatives), dtype=np.int64)
    for first, second in near_pairs(hashes[compared]):
        candidates = np.stack([compared[first], compared[second]])
        pairs += candidates[:, _is_same(thumbnails, *candidates)].T.tolist()
    return connected(len(hashes), pairs)


def connected(count: int, pairs: Sequence[tuple[int, int]]) -> Indices:
    """Return (count,): the smallest index in the connected component of each index."""
    parents = list(range(count))

    def root(index: int) -> int:
        while parents[index] != index:
            # Halves the path, so that later searches are short.
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for pair in pairs:
        low, high = sorted(map(root, pair))
        parents[high] = low
    return np.array([root(index) for index in range(count)], dtype=np.int64)


def _pair_same_hash(
    indices: Indices, thumbnails: Pixels, pairs: list[tuple[int, int]]
) -> list[int]:
    """Add the pairs of same images among those of one hash; return one image of each cluster."""
    representatives: list[int] = []
    while len(indices) and len(representatives) < MAX_ROUNDS:
        first, others = int(indices[0]), indices[1:]
        representatives.append(first)
        is_same = _is_same(thumbnails, np.full(len(others), first), others)
        pairs += [(first, index) for index in others[is_same].tolist()]
        indices = others[~is_same]
    return representatives


def near_pairs(hashes: npt.NDArray[np.uint64]) -> Iterator[tuple[Indices, Indices]]:
    """Find all pairs of N hashes within the largest distance; some of them several times.

    Yields:
        Blocks of first and second indices.
    """
    for part in range(PARTS):
        shift = np.uint64(part * PART_BITS)
        keys = ((hashes >> shift) & np.uint64((1 << PART_BITS) - 1)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for flip in (0, *(1 << bit for bit in range(PART_BITS))):
            flipped = keys ^ flip
            # Pairs with a flipped bit are searched only from the hash whose bit is 0.
            queries = np.flatnonzero(flipped >= keys)
            starts = np.searchsorted(ordered, flipped[queries], "left")
            counts = np.searchsorted(ordered, flipped[queries], "right") - starts
            for first, second in _expand(queries, starts, counts, order):
                distances = np.bitwise_count(hashes[first] ^ hashes[second])
                # With equal keys each pair is found twice, and each index with itself.
                near = (distances <= MAX_DISTANCE) & ((first < second) | (flip != 0))
                if near.any():
                    yield first[near], second[near]


def _expand(
    queries: Indices, starts: Indices, counts: Indices, order: Indices
) -> Iterator[tuple[Indices, Indices]]:
    """Pair every query with `counts` entries of `order` from `starts` on, in blocks."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for begin in range(0, total, PAIR_BLOCK):
        numbers = np.arange(begin, min(begin + PAIR_BLOCK, total))
        which = np.searchsorted(ends, numbers, "right")
        offsets = numbers - (ends[which] - counts[which])
        yield queries[which], order[starts[which] + offsets]


def _is_same(thumbnails: Pixels, first: Indices, second: Indices) -> npt.NDArray[np.bool_]:
    """Return for each pair whether its thumbnails are the same except for compression."""
    found = np.zeros(len(first), dtype=bool)
    for begin in range(0, len(first), THUMBNAIL_BLOCK):
        block = slice(begin, begin + THUMBNAIL_BLOCK)
        left, right = (
            thumbnails[indices[block]].astype(np.float32).reshape(len(indices[block]), -1, 3)
            for indices in (first, second)
        )
        colors = np.abs(left - right).mean(axis=(1, 2))
        gray = np.abs(left.mean(axis=2) - right.mean(axis=2)).mean(axis=1)
        left -= left.mean(axis=1, keepdims=True)
        right -= right.mean(axis=1, keepdims=True)
        norms = np.sqrt((left**2).sum(axis=(1, 2)) * (right**2).sum(axis=(1, 2)))
        correlation = (left * right).sum(axis=(1, 2)) / np.maximum(norms, 1e-6)
        found[block] = (
            (gray <= MAX_DIFFERENCE)
            & (colors <= MAX_COLOR_DIFFERENCE)
            & (correlation >= MIN_CORRELATION)
        )
    return found
