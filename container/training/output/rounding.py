"""Rounding of weights to int8 values."""

import numpy as np
import numpy.typing as npt

# int8's largest value; its scales are symmetric.
LARGEST = 127


def diffuse(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Round weights (N, ...) to int8 values, with a scale per channel, by error diffusion.

    The rounding error of each weight is added to the next one (Floyd and Steinberg 1976), so the
    errors of neighboring weights cancel out where neighboring pixels are similar. Rounding to the
    nearest value instead can lose changes by fine-tuning that are below half a step.
    """
    rows = weights.reshape(len(weights), -1).astype(np.float64)
    scales = np.maximum(np.abs(rows).max(axis=1), np.finfo(np.float32).tiny) / LARGEST
    rounded, error = np.empty_like(rows), np.zeros(len(rows))
    for column, values in enumerate((rows / scales[:, np.newaxis]).T):
        wanted = values + error
        rounded[:, column] = np.clip(np.round(wanted), -LARGEST, LARGEST)
        error = wanted - rounded[:, column]
    found: npt.NDArray[np.float32] = (rounded * scales[:, np.newaxis]).astype(np.float32)
    return found.reshape(weights.shape)
