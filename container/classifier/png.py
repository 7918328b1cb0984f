"""PNG files without the chunks that do not change their pixels."""

import zlib
from collections.abc import Iterator

from container.classifier.errors import ImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# A chunk's length, name and checksum.
CHUNK_BYTES = 12

CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
TRANSPARENCY_AND_EXIF = frozenset({b"tRNS", b"eXIf"})

# ImageMagick stores EXIF as text.
TEXT, EXIF_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"}), b"Raw profile type exif\0"

# 25 MB have two million of the shortest chunks.
MAX_CHUNKS = 200_000


def without_metadata(data: bytes) -> bytes:
    """Remove color profiles, texts and so on, and ancillary chunks with a wrong checksum.

    Pillow would reject an image for their size or checksum; browsers show it.

    Raises:
        ImageError: there are too many chunks.
    """
    return b"".join((PNG_SIGNATURE, *_kept(data)))


def _kept(data: bytes) -> Iterator[bytes]:
    position = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        length = int.from_bytes(data[position : position + 4])
        name = data[position + 4 : position + 8]
        end = position + CHUNK_BYTES + length
        if end > len(data) or not name.isalpha():
            # Truncated or damaged: Pillow reports it.
            yield data[position:]
            return
        if name in CRITICAL or _is_used(data[position + 4 : end]):
            yield data[position:end]
        if name == b"IEND":
            return
        position = end
    raise ImageError(f"the image has more than {MAX_CHUNKS} chunks")


def _is_used(chunk: bytes) -> bool:
    """Return whether an ancillary chunk, without its length, is sound and used."""
    name, content = chunk[:4], chunk[4:-4]
    if name in TRANSPARENCY_AND_EXIF or (name in TEXT and content.startswith(EXIF_TEXT)):
        return zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:])
    return False
