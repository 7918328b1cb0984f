"""Read `.npy` files without `numpy.load`, which allocates any shape that a header claims."""

import io
import math

import numpy as np
from werkzeug.exceptions import UnprocessableEntity

from container.classifier.preprocessing import Pixels

MAGIC = b"\x93NUMPY"
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(data: bytes) -> Pixels:
    """Read uint8 of shape (H, W, 3) or (N, H, W, 3).

    Raises:
        UnprocessableEntity: The array has another type or shape, or is damaged.
    """
    file = io.BytesIO(data)
    try:
        shape, is_fortran, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        # Fails for numbers of thousands of digits, which an error message could not contain.
        np.array(shape, np.int64)
        count = math.prod(shape)
    except Exception as error:
        # NumPy evaluates the header as a Python literal; a damaged one raises any type of error.
        raise UnprocessableEntity("not a NumPy file of version 1.0 or 2.0, or damaged") from error
    # NumPy accepts `True` as a number.
    is_shape = len(shape) in {3, 4} and all(type(size) is int and size > 0 for size in shape)
    if dtype != np.uint8 or not is_shape or shape[-1] != len("RGB"):
        raise UnprocessableEntity(
            "a NumPy array must be uint8 of shape (height, width, 3) or (images, height, "
            f"width, 3), got {dtype} of shape {shape}"
        )
    if len(data) - file.tell() != count:
        raise UnprocessableEntity(
            f"the NumPy file's shape needs {count} bytes, found {len(data) - file.tell()}"
        )
    values = np.frombuffer(data, np.uint8, offset=file.tell())
    return values.reshape(shape, order="F" if is_fortran else "C")
