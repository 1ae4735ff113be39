"""The installed command and `python -m soulspot`."""

import gc
import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

GARBAGE = (20_000, 20, 100)
"""Objects, and passes, after which rings of garbage are looked for: to start makes hundreds of thousands that stay."""


def main() -> None:
    gc.set_threshold(*GARBAGE)
    from soulspot.cli.app import run

    try:
        run()
    except SystemExit as end:
        _end(end)


def _end(end: SystemExit) -> NoReturn:
    """End at once: the interpreter would take itself apart for longer than most commands take."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


if __name__ == "__main__":
    main()
