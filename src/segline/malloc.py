"""glibc's malloc, told to keep what a process frees: networks take the same memory again a moment later."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MOST_KEPT = 2**31 - 1  # bytes; the most that glibc takes


def keep_freed_memory() -> None:
    """Have the process keep memory that it has freed, where that is glibc's to decide.

    Each training step frees some 50 MB and takes them again, each window of a large image a GB. glibc gives them back
    to the system in between, which then clears every page anew: 13 to 35 % of the time of a step, half of a window's.
    """
    if platform.libc_ver()[0] == "glibc":
        malloc = ctypes.CDLL(None)
        malloc.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
        malloc.mallopt(M_MMAP_MAX, 0)
