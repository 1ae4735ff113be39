"""Owns watchfiles: a fast source of hints, and never of truth.

What it says is handed on as paths; what kind of event it was, and in what order, does not matter, because the scanner
looks at the disk. It loses files in folders that are being made, swallows overflows and dies on a name that is not
UTF-8 (each measured), so `watched` tells which folders the kernel really watches, and whoever walks a folder compares.
"""

import asyncio
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence

from watchfiles import awatch

logger = logging.getLogger(__name__)

STEP_MS = 5
DEBOUNCE_MS = 20
_FIRST_REST = 0.05
_LONGEST_REST = 10.0
_WATCH = re.compile(rb"ino:([0-9a-f]+) sdev:([0-9a-f]+)")
_MINOR_BITS = 20  # of the kernel's own device numbers


class Watcher:
    """Watches folders and everything below them for as long as `run` runs.

    Args:
        folders: absolute paths; one that is not there is left out until the next `restart`.
        on_hint: called with the paths of each batch.
        on_blindness: called when watching begins, and begins anew: anything may have happened before.

    """

    def __init__(
        self, folders: Sequence[str], on_hint: Callable[[Iterable[str]], None], on_blindness: Callable[[], None]
    ) -> None:
        self._folders = folders
        self._on_hint = on_hint
        self._on_blindness = on_blindness
        self._restart = asyncio.Event()
        self.is_live = asyncio.Event()
        self.restarts = 0
        logging.getLogger("watchfiles").setLevel(logging.WARNING)

    def restart(self) -> None:
        """Watch anew: a folder was replaced, or is back."""
        self._restart.set()

    async def run(self) -> None:
        """Watch for ever; a watch that ends is begun anew, after a rest that grows while that keeps happening."""
        rest = _FIRST_REST
        while True:
            began = asyncio.get_running_loop().time()
            await self._watch_until_it_ends()
            self.restarts += 1
            rest = _FIRST_REST if asyncio.get_running_loop().time() - began > _LONGEST_REST else rest * 2
            await asyncio.sleep(min(rest, _LONGEST_REST))

    def watched(self) -> frozenset[tuple[int, int]]:
        """Return device and inode of every folder that the kernel watches for this process; blocks.

        From /proc/self/fdinfo, where the kernel lists the marks of an inotify instance (proc(5)).
        """
        watched: set[tuple[int, int]] = set()
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}") != "anon_inode:inotify":
                    continue
                with open(f"/proc/self/fdinfo/{name}", "rb") as marks:
                    found = _WATCH.findall(marks.read())
            except FileNotFoundError:
                continue  # closed meanwhile
            watched.update((int(device, 16), int(inode, 16)) for inode, device in found)
        minor = (1 << _MINOR_BITS) - 1
        return frozenset((os.makedev(device >> _MINOR_BITS, device & minor), inode) for device, inode in watched)

    async def _watch_until_it_ends(self) -> None:
        folders = [folder for folder in self._folders if os.path.isdir(folder)]
        self._restart.clear()
        watching = asyncio.create_task(self._watch(folders))
        proving = asyncio.create_task(self._prove(folders))
        restarting = asyncio.create_task(self._restart.wait())
        try:
            await asyncio.wait([watching, restarting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (watching, proving, restarting):
                task.cancel()
            ended = await asyncio.gather(watching, return_exceptions=True)
        if isinstance(ended[0], Exception):
            logger.warning("the watch ended (%s) and begins anew", _first_line(ended[0]))

    async def _watch(self, folders: Sequence[str]) -> None:
        if not folders:
            await asyncio.Event().wait()
        # One folder that may not be read must not keep the others from being watched; who walks finds what is not.
        hints = awatch(*folders, watch_filter=None, step=STEP_MS, debounce=DEBOUNCE_MS, ignore_permission_denied=True)
        async for changes in hints:
            self._on_hint([path for _change, path in changes])

    async def _prove(self, folders: Sequence[str]) -> None:
        """Wait until the kernel watches every folder, then say that what happened before was not seen."""
        while not await asyncio.to_thread(self._watches_all, folders):  # noqa: ASYNC110 - the kernel sets no Event
            await asyncio.sleep(0.005)
        self.is_live.set()
        self._on_blindness()

    def _watches_all(self, folders: Sequence[str]) -> bool:
        watched = self.watched()
        return all((status.st_dev, status.st_ino) in watched for status in map(os.stat, folders))


def _first_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error).partition("\n")[0] or type(error).__name__
