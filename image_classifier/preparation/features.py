"""Features of small copies of images: edges by direction and place, and colors.

They need no network and no weights. A linear model of them classifies simple images.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from container.classifier.preprocessing import Pixels

# Cells of 8 x 8 pixels, and directions of the edges in them.
CELL, CELLS, DIRECTIONS = 8, 6, 8
EDGES_SHAPE = (CELLS, CELLS, DIRECTIONS)

Edges: TypeAlias = npt.NDArray[np.float16]
Features: TypeAlias = npt.NDArray[np.float32]

# Added to the strength of edges and colors, so that noise in plain areas counts little.
_NOISE, _COLOR_NOISE = 50.0, 0.01

# (6, 48): sums the rows of each cell. A product is faster than a sum over short axes.
_CELL_SUMS = np.kron(np.eye(CELLS, dtype=np.float32), np.ones((1, CELL), np.float32))


def edges_of(pixels: Pixels) -> Edges:
    """Sum the edges of an image (48, 48, 3) in each cell, by their direction: (6, 6, 8)."""
    gray = pixels.astype(np.float32) @ np.full(3, 1 / 3, np.float32)
    across, down = np.zeros((2, *gray.shape), np.float32)
    across[:, 1:-1] = gray[:, 2:] - gray[:, :-2]
    down[1:-1] = gray[2:] - gray[:-2]
    diagonals = np.stack([across + down, across - down]) * np.float32(np.sqrt(0.5))
    straight = np.stack([across, down, *diagonals])
    strength = np.maximum(np.concatenate([straight, -straight]), 0)
    sums = _CELL_SUMS @ strength @ _CELL_SUMS.T
    found: Edges = sums.transpose(1, 2, 0).astype(np.float16)
    return found


def simple_features(edges: Edges, thumbnails: Pixels) -> Features:
    """Return the features (N, 1376) of N images.

    Args:
        edges: (N, 6, 6, 8)
        thumbnails: (N, 16, 16, 3)
    """
    count, sums = len(edges), edges.astype(np.float32)
    # As in HOG (Dalal and Triggs 2005): blocks of 2 x 2 cells, relative to all edges in them.
    squares = (sums**2).sum(axis=3)
    side = CELLS - 1
    corners = [(down, right) for down in (0, 1) for right in (0, 1)]
    energy = sum(squares[:, y : y + side, x : x + side] for y, x in corners)
    norms = np.sqrt(energy)[..., None] + _NOISE
    blocks = [np.sqrt(sums[:, y : y + side, x : x + side] / norms) for y, x in corners]
    # Integers: exact, and faster than the mean and the standard deviation of short axes.
    levels = thumbnails.astype(np.int32)
    averages = _halved(levels).astype(np.float32) / (4 * 255)
    total, total_of_squares = (_halved(_halved(item)) for item in (levels, levels**2))
    spread = np.sqrt((16 * total_of_squares - total**2).astype(np.float32)) / (16 * 255)
    parts = [*blocks, averages, spread, np.log1p(sums), np.log(spread + _COLOR_NOISE)]
    return np.concatenate([part.reshape(count, -1) for part in parts], axis=1)


def _halved(levels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Add the levels of 2 x 2 neighbors in N images (N, height, width, 3)."""
    rows = levels[:, ::2] + levels[:, 1::2]
    found: npt.NDArray[np.int32] = rows[:, :, ::2] + rows[:, :, 1::2]
    return found
