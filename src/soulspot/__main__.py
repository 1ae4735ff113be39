"""The installed command and `python -m soulspot`."""

import gc
import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

GARBAGE = (20_000, 20, 100)
"""Thresholds of the cyclic garbage collector: the imports create hundreds of thousands of objects that stay."""


def main() -> None:
    gc.set_threshold(*GARBAGE)
    from soulspot.cli.app import run

    try:
        run()
    except SystemExit as end:
        _end(end)


def _end(end: SystemExit) -> NoReturn:
    """Exit at once: finalizing the interpreter would take longer than most commands."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


if __name__ == "__main__":
    main()
