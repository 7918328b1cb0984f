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


def edges_of(pixels: Pixels) -> Edges:
    """Sum the edges of an image (48, 48, 3) in each cell, by their direction: (6, 6, 8)."""
    gray = pixels.mean(axis=2, dtype=np.float32)
    across, down = np.zeros((2, *gray.shape), np.float32)
    across[:, 1:-1] = gray[:, 2:] - gray[:, :-2]
    down[1:-1] = gray[2:] - gray[:-2]
    diagonals = np.stack([across + down, across - down]) * np.float32(np.sqrt(0.5))
    straight = np.stack([across, down, *diagonals])
    strength = np.maximum(np.concatenate([straight, -straight]), 0)
    sums = strength.reshape(DIRECTIONS, CELLS, CELL, CELLS, CELL).sum(axis=(2, 4))
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
    colors = thumbnails.astype(np.float32) / 255
    averages = colors.reshape(count, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    spread = colors.reshape(count, 4, 4, 4, 4, 3).std(axis=(2, 4))
    parts = [*blocks, averages, spread, np.log1p(sums), np.log(spread + _COLOR_NOISE)]
    return np.concatenate([part.reshape(count, -1) for part in parts], axis=1)
