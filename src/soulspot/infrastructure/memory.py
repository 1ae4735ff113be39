"""Gives memory back to the system that an import needed and an idle daemon does not."""

import ctypes
import gc


def give_back() -> None:
    """Collect what nobody refers to, and return free pages to the kernel; blocks for some hundredths of a second.

    The C library keeps pages for itself that were free once, in case that they are needed again (malloc_trim(3)).
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return  # another C library, which may not keep any
