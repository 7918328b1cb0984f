"""The parts of a picture's file, counted before a decoder takes time or memory for each one."""

import re

from classifier.errors import ImageError

# Every scan of a progressive JPEG goes over all of its pixels. Encoders write about ten; a file of
# 200 KB with thousands would take minutes.
MAX_SCANS = 100

# Of a JPEG: tables, profiles and the like: a large profile has a hundred. Pillow puts the parts of
# EXIF together in a time that grows with the square of their number.
MAX_SEGMENTS = 1000
START_OF_IMAGE, START_OF_SCAN, END_OF_IMAGE = b"\xff\xd8", b"\xda", b"\xd9"

# What has a length. Of others there are a stuffed 255 and restarts, which are within a scan, and
# those that Pillow or libjpeg skip by themselves.
MARKER = re.compile(rb"\xff([^\x00-\xbf\xc8\xd0-\xd8\xf0-\xfd\xff])", re.DOTALL)

# Of a GIF's comments and the like, up to 255 bytes each. Pillow keeps an object for each one: 25 MB
# of the shortest became 1.1 GB.
MAX_GIF_PARTS = 10_000
GIF, GIF_HEAD_BYTES = b"GIF8", 13
EXTENSION = b"!"

# An extension, a frame or the end; Pillow skips whatever else is between them, byte by byte.
GIF_PART = re.compile(rb"[!,;]")


def check_segments(data: bytes) -> None:
    """Count the parts of a picture's file that come before its pixels, and a JPEG's scans.

    Raises:
        ImageError: there are too many.
    """
    if data.startswith(START_OF_IMAGE):
        _check_jpeg(data)
    elif data.startswith(GIF):
        _check_gif(data)


def _check_jpeg(data: bytes) -> None:
    """Count segments and scans; what follows a JPEG's end, such as a film, does not count."""
    segments, scans, place = 0, 0, len(START_OF_IMAGE)
    while match := MARKER.search(data, place):
        if match[1] == END_OF_IMAGE:
            if scans:
                return
            # Before there is a picture, Pillow reads on.
            place = match.end()
            continue
        segments += 1
        scans += match[1] == START_OF_SCAN
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            kind, most = ("scans", MAX_SCANS) if scans > MAX_SCANS else ("segments", MAX_SEGMENTS)
            message = f"the picture has more than {most} {kind}"
            raise ImageError(message)
        # Each has its length first: what is within, such as a small picture, is skipped.
        place = match.end() + max(2, int.from_bytes(data[match.end() : match.end() + 2]))


def _check_gif(data: bytes) -> None:
    """Count the blocks and stray bytes that come before a GIF's first frame."""
    if len(data) < GIF_HEAD_BYTES:
        return
    flags = data[10]
    place = GIF_HEAD_BYTES + (3 << (flags & 7) + 1 if flags & 128 else 0)
    parts = 0
    while place < len(data):
        match = GIF_PART.search(data, place)
        start = match.start() if match else len(data)
        parts += 1 + start - place
        # After its label come blocks, each with its length first, until one of no length.
        place = start + 2
        is_extension = data[start : start + 1] == EXTENSION
        while is_extension and place < len(data) and data[place] and parts <= MAX_GIF_PARTS:
            place += 1 + data[place]
            parts += 1
        place += 1
        if parts > MAX_GIF_PARTS:
            message = f"the picture has more than {MAX_GIF_PARTS} blocks before its first frame"
            raise ImageError(message)
        if not is_extension:
            return
