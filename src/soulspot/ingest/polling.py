"""What is looked at without an event: the folders themselves, what is mounted, and from time to time everything.

The watcher is the fast way in; these are the ways that do not depend on it. Each is cheap, and the look at every folder
spaces itself so that it never takes more than a small share of one core, however large the library.
"""

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from soulspot.infrastructure.filesystem import mount_table, path_to_text
from soulspot.infrastructure.memory import give_back
from soulspot.infrastructure.watching.watcher import Watcher, limit, why_unwatchable
from soulspot.ingest.disk.folder_index import Changes
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.pipeline import Pipeline

logger = logging.getLogger(__name__)

ROOT_LOOK = 2.0
"""Seconds between two looks at whether a watched folder is still the one that is watched."""
OFFLINE_LOOK = 10.0
"""Seconds between two looks at whether an offline folder is well again."""
FOLDER_LOOK = 5.0
"""Seconds between two looks at the mtimes of all folders, and more where these take long."""
POLLED_LOOK = 1.0
"""The same for folders that cannot be watched, and for all while the watcher is deaf."""
SHARE = 1 / 500
"""The share of one core that looking at folders may take."""
BUSY_LIMIT = 60.0
"""Seconds for which a busy pipeline puts a look at all folders off."""
MANY = 200
"""Changed folders from which on a walk of everything is cheaper than a look into each."""
STALL = 1.0
"""Seconds that this process may have stood still (stopped, suspended) before everything is looked at again."""
RESTART_REST = 60.0
"""Seconds in which a watcher that misses things is begun anew once at most."""
SHOWN = 5
TIDY_AFTER = 1000
"""Files after which an import is worth tidying up behind."""


def _awake() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Rounds:
    """Looks at folders again and again, for as long as `run` runs.

    Args:
        reconcile_interval: seconds between two comparisons of everything.
        poll_interval: the same for what lies on file systems that inotify does not see.
        awake: seconds that go on while the machine sleeps.

    """

    def __init__(  # noqa: PLR0913 - the composition root fills this in once, by name
        self,
        pipeline: Pipeline,
        watcher: Watcher,
        roots: Sequence[Root],
        *,
        reconcile_interval: float,
        poll_interval: float,
        awake: Callable[[], float] = _awake,
    ) -> None:
        self._pipeline = pipeline
        self._watcher = watcher
        self._roots = roots
        self._reconcile_interval = reconcile_interval
        self._poll_interval = poll_interval
        self._awake = awake
        self._blind: asyncio.Queue[tuple[Root, list[str]]] = asyncio.Queue()
        self._has_told_limit = False
        self._restarted_at = -RESTART_REST
        self.missed = Counter[Root]()
        """Changes that a look at the folders found, and that no event had told of."""

    @property
    def missed_by_watcher(self) -> int:
        return self.missed.total()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for loop in (self._look_at_roots, self._look_at_folders, self._look_at_polled_folders, self._mend):
                group.create_task(loop())
            group.create_task(self._reconcile())
            group.create_task(self._poll())

    def look_everywhere(self) -> None:
        for root in self._roots:
            self._pipeline.look_again(root, [""])

    def cover(self, root: Root, folders: list[str]) -> None:
        """Take up folders that the watcher does not watch."""
        self._blind.put_nowait((root, folders))

    async def _look_at_roots(self) -> None:
        """Notice a folder that was unmounted, replaced or came back: no event tells of any of these."""
        before = await asyncio.to_thread(_identities, self._roots)
        last, checked = self._awake(), self._awake()
        while True:
            await asyncio.sleep(ROOT_LOOK)
            now = await asyncio.to_thread(_identities, self._roots)
            if now != before:
                self._watcher.restart()
                self.look_everywhere()
            before = now
            stalled, last = self._awake() - last - ROOT_LOOK, self._awake()
            if stalled > STALL:
                logger.info("this process stood still for %.0f s: everything is looked at", stalled)
                self.look_everywhere()
            if last - checked > OFFLINE_LOOK:
                checked = last
                for root in list(self._pipeline.faults):
                    self._pipeline.look_again(root, [""])

    async def _look_at_folders(self) -> None:
        """Find what no event told of, by the mtimes of all folders."""
        pause, looked, tidied = FOLDER_LOOK, time.monotonic(), 0
        while True:
            await asyncio.sleep(POLLED_LOOK if self._watcher.is_falling_back else pause)
            if self._pipeline.is_quiet and self._pipeline.taken_in - tidied > TIDY_AFTER:
                tidied = self._pipeline.taken_in
                await asyncio.to_thread(give_back)
            if self._pipeline.is_paused or (not self._pipeline.is_quiet and time.monotonic() - looked < BUSY_LIMIT):
                continue
            looked = time.monotonic()
            cost = 0.0
            for root in self._roots:
                cost += await self._look_at_folders_of(root, None)
            pause = max(FOLDER_LOOK, cost / SHARE)

    async def _look_at_polled_folders(self) -> None:
        """Look more often at the folders that cannot be watched."""
        while True:
            await asyncio.sleep(POLLED_LOOK)
            for root, folders in () if self._pipeline.is_paused else list(self._pipeline.unwatched.items()):
                await self._look_at_folders_of(root, sorted(folders))

    async def _look_at_folders_of(self, root: Root, only: list[str] | None) -> float:
        """Look at folders of one root, and into those that changed; return the seconds that the look took."""
        if root in self._pipeline.faults:
            return 0.0
        changes, seconds = await asyncio.to_thread(_timed_look, self._pipeline, root, only)
        missed = 0
        if len(changes.changed) > MANY:
            self._pipeline.look_again(root, [""])
        else:
            for path in changes.changed:
                missed += await self._pipeline.look_into(root, path)
        for path in changes.gone:
            self._pipeline.folders.forget(root, path)
        self._pipeline.look_again(root, [path for path in changes.gone if path])
        if missed and only is None and not self._watcher.is_falling_back:
            self._note_missed(root, missed)
        return seconds

    def _note_missed(self, root: Root, missed: int) -> None:
        self.missed[root] += missed
        logger.info("%d changes were found that no event told of", missed)
        if time.monotonic() - self._restarted_at > RESTART_REST:
            self._restarted_at = time.monotonic()
            self._watcher.restart()

    async def _reconcile(self) -> None:
        while True:
            await asyncio.sleep(self._reconcile_interval * random.uniform(0.9, 1.1))  # noqa: S311 - not a secret
            self._pipeline.unwatched.clear()  # the limit may have been raised
            self.look_everywhere()

    async def _poll(self) -> None:
        """Look at all that lies on file systems whose changes inotify does not see."""
        while True:
            await asyncio.sleep(self._poll_interval)
            for root in self._roots:
                self._pipeline.look_again(root, sorted(root.remote) if root.trusts_inodes else [""])

    async def _mend(self) -> None:
        """Have unwatched folders watched; those that cannot be are looked at often instead."""
        while True:
            root, folders = await self._blind.get()
            reasons = await asyncio.to_thread(_why_unwatchable, root, folders)
            watchable = {root.full(path): path for path, reason in reasons.items() if reason is None}
            in_vain = [watchable[full] for full in self._watcher.add_watches(watchable)]
            refused = [path for path, reason in reasons.items() if reason not in {None, "gone", "limit"}]
            limited = [path for path, reason in reasons.items() if reason == "limit"]
            self._pipeline.unwatched.setdefault(root, set()).update(in_vain, refused, limited)
            if limited:
                self._tell_limit(len(limited))
            for path in (in_vain + refused)[:SHOWN]:
                why = reasons[path] or "the watch does not hold"
                shown = path_to_text(root.full(path))
                logger.warning("%s cannot be watched (%s): it is looked at every second instead", shown, why)

    def _tell_limit(self, unwatched: int) -> None:
        if self._has_told_limit:
            return
        self._has_told_limit = True
        needed, allowed = len(self._pipeline.folders), limit("max_user_watches", 0)
        logger.error(
            "%d folders need an inotify watch each, and the kernel allows this user %d in all programs: %d are looked"
            " at every second instead. Allow more with: sudo sysctl fs.inotify.max_user_watches=%d",
            needed,
            allowed,
            unwatched,
            1 << (2 * max(needed, allowed)).bit_length(),
        )


def _why_unwatchable(root: Root, folders: Iterable[str]) -> dict[str, str | None]:
    return {path: why_unwatchable(root.full(path)) for path in folders}


def _timed_look(pipeline: Pipeline, root: Root, only: list[str] | None) -> tuple[Changes, float]:
    began = time.thread_time()
    changes = pipeline.folders.look(root, only)
    return changes, time.thread_time() - began


def _identities(roots: Iterable[Root]) -> tuple[object, ...]:
    found: list[object] = [mount_table()]
    for root in roots:
        try:
            status = os.stat(root.path)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return tuple(found)
