"""Returns memory to the system that a large import needed and an idle daemon does not."""

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """Collect garbage, and return free pages to the kernel. Blocks for a few hundredths of a second.

    glibc keeps freed pages for reuse (malloc_trim(3)); other C libraries may lack that function.
    """
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
