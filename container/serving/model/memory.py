"""Memory that the allocator holds."""

import ctypes
import gc


def release_memory() -> None:
    """Return freed memory to the operating system, which glibc's allocator would keep."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
