"""Types of command-line arguments: each function parses a text for argparse."""

import re
from argparse import ArgumentTypeError

_BYTES = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

# Docker's least memory of a container.
_MIN_MEMORY = 6 * 2**20


def port(text: str) -> int:
    """Parse a TCP port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:  # noqa: PLR2004 - TCP's highest
        raise ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    """Parse NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def memory(text: str) -> int:
    """Parse a size as Docker does: a number of bytes, or one with a unit."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([bkmgt]?)b?", text.lower())
    if match is not None and (size := int(float(match[1]) * _BYTES[match[2]])) >= _MIN_MEMORY:
        return size
    raise ArgumentTypeError(f"{text[:50]!r} is not a size of 6m or more, such as 4g or 512m")
