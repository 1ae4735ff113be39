"""Finds changes without events: polls the mtimes of folders and the mounts, and now and then scans everything.

The watcher is fast, and nothing here depends on it. Each check is cheap, and the check of all folders spaces its runs
so that it never takes more than a small share of one core, however large the library.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from soulspot.infrastructure.filesystem import folder_identity, mount_table, path_to_text
from soulspot.infrastructure.memory import give_back
from soulspot.infrastructure.watching.watcher import Watcher, limit, why_unwatchable
from soulspot.ingest.disk.folder_index import FolderIndex
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.disk.watch_coverage import WatchCoverage
from soulspot.ingest.pipeline import Pipeline

logger = logging.getLogger(__name__)

ROOT_CHECK = 2.0
"""Seconds between two checks that each watched folder is still the same folder."""
OFFLINE_CHECK = 10.0
"""Seconds between two checks of an offline folder."""
FOLDER_CHECK = 5.0
"""Seconds between two checks of the mtimes of all folders; more if a check takes long."""
POLLED_CHECK = 1.0
"""The same for folders that cannot be watched, and for all folders while the watcher gets no events."""
SHARE = 1 / 500
"""The share of one core that checking folders may take."""
BUSY_LIMIT = 60.0
"""Seconds for which a busy pipeline delays a check of all folders."""
MANY_CHANGED = 200
"""With more changed folders than this, a full scan is cheaper than a scan of each."""
STALL = 1.0
"""Seconds for which this process may be stopped or suspended before a full scan becomes necessary."""
RESTART_REST = 60.0
"""Seconds between two restarts of a watcher that misses changes."""
MAX_LOGGED_FOLDERS = 5
TIDY_AFTER = 1000
"""Files after which memory is returned to the system."""


def _awake() -> float:
    """Return seconds of a clock that also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Polling:
    """Scans folders at intervals while `run` is running.

    Args:
        reconcile_interval: seconds between two scans of all folders.
        poll_interval: seconds between two scans of file systems whose changes inotify does not report.

    Attributes:
        missed: the number of changes in each root that polling found and no event reported.

    """

    def __init__(  # noqa: PLR0913 - the composition root fills this in once, by name
        self,
        pipeline: Pipeline,
        watcher: Watcher,
        coverage: WatchCoverage,
        roots: Sequence[Root],
        *,
        reconcile_interval: float,
        poll_interval: float,
    ) -> None:
        self._pipeline = pipeline
        self._queue = pipeline.queue
        self._watcher = watcher
        self._coverage = coverage
        self._roots = roots
        self._reconcile_interval = reconcile_interval
        self._poll_interval = poll_interval
        self._has_logged_limit = False
        self._restarted_at = -RESTART_REST
        self.missed = Counter[Root]()

    @property
    def missed_by_watcher(self) -> int:
        return self.missed.total()

    async def run(self) -> None:
        loops = {
            "roots": self._check_roots(),
            "folders": self._check_folders(),
            "polled folders": self._check_polled_folders(),
            "unwatched folders": self._watch_unwatched(),
            "reconcile": self._reconcile(),
            "network file systems": self._poll_network(),
        }
        async with asyncio.TaskGroup() as group:
            for name, loop in loops.items():
                group.create_task(loop, name=f"polling: {name}")

    async def _check_roots(self) -> None:
        """Find folders that were unmounted or replaced, or are back: no event reports any of these."""
        before = await asyncio.to_thread(_identities, self._roots)
        last = checked = _awake()
        while True:
            await asyncio.sleep(ROOT_CHECK)
            now = await asyncio.to_thread(_identities, self._roots)
            if now != before:
                self._watcher.restart()
                self._queue.enqueue_everything()
            before = now
            stalled, last = _awake() - last - ROOT_CHECK, _awake()
            if stalled > STALL:
                logger.info("this process was stopped or suspended for %.0f s: scanning all folders", stalled)
                self._queue.enqueue_everything()
            if last - checked > OFFLINE_CHECK:
                checked = last
                for root in self._pipeline.faults:
                    self._queue.enqueue(root, [""])

    async def _check_folders(self) -> None:
        """Find changes that no event reported, by the mtimes of all folders."""
        pause, checked, tidied = FOLDER_CHECK, time.monotonic(), 0
        while True:
            await asyncio.sleep(POLLED_CHECK if self._watcher.is_falling_back else pause)
            if self._pipeline.is_quiet and self._pipeline.finished - tidied > TIDY_AFTER:
                tidied = self._pipeline.finished
                await asyncio.to_thread(give_back)
            if self._pipeline.is_paused or (not self._pipeline.is_quiet and time.monotonic() - checked < BUSY_LIMIT):
                continue
            checked = time.monotonic()
            cost = sum([await self._check_folders_of(root, None) for root in self._roots])
            pause = max(FOLDER_CHECK, cost / SHARE)

    async def _check_polled_folders(self) -> None:
        """Check more often the folders that cannot be watched."""
        while True:
            await asyncio.sleep(POLLED_CHECK)
            for root, folders in () if self._pipeline.is_paused else list(self._coverage.polled.items()):
                await self._check_folders_of(root, sorted(folders))

    async def _check_folders_of(self, root: Root, only: list[str] | None) -> float:
        """Check `only` these folders of a root, or all; scan those that changed. Return the check's CPU seconds."""
        if root in self._pipeline.faults:
            return 0.0
        folders = self._pipeline.folders
        changed, gone, seconds = await asyncio.to_thread(_timed_check, folders, root, only)
        if len(changed) > MANY_CHANGED:
            self._queue.enqueue(root, [""])
            changed = []
        missed = sum([await self._pipeline.reconciler.scan_folder(root, path) for path in changed])
        for path in gone:
            folders.forget(root, path)
        self._queue.enqueue(root, [path for path in gone if path])
        if missed and only is None and not self._watcher.is_falling_back:
            self.missed[root] += missed
            logger.info("found %d changes without an event", missed)
            if time.monotonic() - self._restarted_at > RESTART_REST:
                self._restarted_at = time.monotonic()
                self._watcher.restart()
        return seconds

    async def _reconcile(self) -> None:
        while True:
            await asyncio.sleep(self._reconcile_interval * random.uniform(0.9, 1.1))  # noqa: S311 - not a secret
            self._coverage.polled.clear()  # the limit may be higher now
            self._queue.enqueue_everything()

    async def _poll_network(self) -> None:
        """Scan the file systems whose changes inotify does not report."""
        while True:
            await asyncio.sleep(self._poll_interval)
            for root in self._roots:
                self._queue.enqueue(root, sorted(root.remote) if root.trusts_inodes else [""])

    async def _watch_unwatched(self) -> None:
        """Have unwatched folders watched, and poll those that cannot be."""
        while True:
            root, folders = await self._coverage.unwatched.get()
            reasons = await asyncio.to_thread(_why_unwatchable, root, folders)
            watchable = {root.full(path): path for path, reason in reasons.items() if reason is None}
            failed = [watchable[full] for full in self._watcher.add_watches(watchable)]
            failed += [path for path, reason in reasons.items() if reason not in {None, "gone", "limit"}]
            limited = [path for path, reason in reasons.items() if reason == "limit"]
            self._coverage.polled.setdefault(root, set()).update(failed, limited)
            if limited and not self._has_logged_limit:
                self._has_logged_limit = True
                self._log_limit(len(limited))
            for path in failed[:MAX_LOGGED_FOLDERS]:
                why, shown = reasons[path] or "its watch was lost at once", path_to_text(root.full(path))
                logger.warning("%s cannot be watched (%s): polling it every second", shown, why)

    def _log_limit(self, unwatched: int) -> None:
        needed, allowed = len(self._pipeline.folders), limit("max_user_watches", 0)
        logger.error(
            "%d folders need an inotify watch each, and the kernel allows this user %d in all programs: polling %d"
            " every second. Allow more with: sudo sysctl fs.inotify.max_user_watches=%d",
            needed,
            allowed,
            unwatched,
            1 << (2 * max(needed, allowed)).bit_length(),
        )


def _why_unwatchable(root: Root, folders: Iterable[str]) -> dict[str, str | None]:
    return {path: why_unwatchable(root.full(path)) for path in folders}


def _timed_check(folders: FolderIndex, root: Root, only: list[str] | None) -> tuple[list[str], list[str], float]:
    began = time.thread_time()
    return *folders.find_changes(root, only), time.thread_time() - began


def _identities(roots: Iterable[Root]) -> tuple[object, ...]:
    return mount_table(), *(folder_identity(root.path) for root in roots)
