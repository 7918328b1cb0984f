"""The result of one image, and the types that preprocessing, inference and HTTP share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from werkzeug.exceptions import HTTPException

from container.classifier.preprocessing import Pixels, Preprocessing

Probabilities: TypeAlias = npt.NDArray[np.float32]

Result: TypeAlias = Probabilities | HTTPException
"""An image's probabilities, of shape (classes,), or the error that it failed with."""

ImageDecoder: TypeAlias = Callable[[Preprocessing], Pixels]
"""Decodes one image of a request to uint8 of shape (image_size, image_size, 3).

Raises BadRequest, RequestEntityTooLarge or UnprocessableEntity if the image cannot be read.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """An image's result, and when its steps began and ended, by `time.perf_counter`."""

    result: Result
    began: float
    decoded: float
    ended: float
