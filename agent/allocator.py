"""Has the C library keep the memory of all threads in one heap."""

from __future__ import annotations

import ctypes
import sys

#: glibc's name for what is set (malloc.h).
M_ARENA_MAX = -8


def share_heap() -> bool:
    """Call it before threads are started. Else glibc gives each thread a heap of its own, and what pictures leave there
    no other one fills: a quarter of the peak with many callers. False where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_ARENA_MAX, 1))
