"""Unpack request bodies in gzip or zstd, within the limit of their size."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "zstd"})

# zlib's code for the gzip format.
GZIP_WINDOW = 31

# A frame may ask for a buffer of 128 MB or more; zstd's levels below 20 use at most 8 MB.
ZSTD_OPTIONS = {int(DecompressionParameter.window_log_max): 23}

# By a body's first bytes. Both classes have the same methods.
UNPACKERS: Mapping[bytes, tuple[str, Callable[[], Any]]] = {
    b"\x1f\x8b": ("gzip", lambda: zlib.decompressobj(GZIP_WINDOW)),
    b"\x28\xb5\x2f\xfd": ("zstd", lambda: ZstdDecompressor(options=ZSTD_OPTIONS)),
}


def check_encoding(encoding: str | None) -> None:
    """Check a Content-Encoding before the body is read.

    Raises:
        UnsupportedMediaType: it is neither gzip nor zstd.
    """
    if (encoding or "").strip().lower() not in ENCODINGS:
        raise UnsupportedMediaType(f"Content-Encoding {encoding!r:.60} is not one of gzip, zstd")


def unpack(data: bytes, max_bytes: int) -> bytes:
    """Unpack a body by its first bytes, because SageMaker does not forward Content-Encoding.

    Raises:
        RequestEntityTooLarge: the unpacked body is longer than `max_bytes`.
        BadRequest: the body is damaged or truncated.
    """
    magic = next(filter(data.startswith, UNPACKERS), None)
    if magic is None:
        return data
    name, create = UNPACKERS[magic]
    unpacker = create()
    try:
        unpacked: bytes = unpacker.decompress(data, max_bytes + 1)
    except (zlib.error, ZstdError) as error:
        raise BadRequest(f"the {name} body is damaged: {error}") from error
    if len(unpacked) > max_bytes:
        raise RequestEntityTooLarge(
            f"the unpacked body is larger than {max_bytes // 2**20} MB "
            "(SAGEMAKER_MAX_PAYLOAD_IN_MB)"
        )
    if not unpacker.eof or unpacker.unused_data:
        raise BadRequest(f"the {name} body is truncated or has more than one part")
    return unpacked
