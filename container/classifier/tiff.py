"""Limits of a TIFF file that Pillow does not check."""

import struct

from container.classifier.errors import ImageError

# Little and big endian. BigTIFF, for files above 4 GB, has another version than 42.
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}

# Pillow keeps an object for each strip or tile. A few MB of offsets would take minutes and GBs.
MAX_PARTS = 65_536
STRIP_OFFSETS, TILE_OFFSETS = 273, 324
TILE_WIDTH, TILE_LENGTH = 322, 323

# A directory's entry: tag, type, count, value or offset.
ENTRY = "HHII"


def check_parts(data: bytes) -> None:
    """Check the number of strips or tiles of a TIFF's first image; ignore other files.

    Raises:
        ImageError: there are too many, the directory is truncated, or the file is a BigTIFF.
    """
    if data[:2] not in {b"II", b"MM"}:
        return
    order = BYTE_ORDERS.get(data[:4])
    if not order:
        raise ImageError("the image is a BigTIFF or damaged: save it as a TIFF")
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        size = struct.calcsize(order + ENTRY)
        for number in range(count):
            tag, _, parts, _ = struct.unpack_from(order + ENTRY, data, start + 2 + number * size)
            if tag in {STRIP_OFFSETS, TILE_OFFSETS} and parts > MAX_PARTS:
                raise ImageError(f"the image has {parts} strips or tiles, more than {MAX_PARTS}")
    except struct.error as error:
        raise ImageError("the image is damaged: its TIFF directory is truncated") from error
