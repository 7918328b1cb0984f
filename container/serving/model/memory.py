"""Memory that is free within this process."""

import ctypes
import gc


def release_memory() -> None:
    """Return to the system what is free; glibc's allocator would keep it."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
