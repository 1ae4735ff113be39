"""The Prometheus metrics, built on each scrape from what the daemon knows anyway.

They cost nothing between two scrapes. Counts that only the catalogue has, such as failed files by reason, are queried
at most once a minute, and only during a scrape.
"""

import asyncio
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.registry import Collector

from soulspot import __version__
from soulspot.daemon.counters import LATENCY_BOUNDS
from soulspot.daemon.health import STATES
from soulspot.daemon.state import DaemonState
from soulspot.daemon.status import current_health
from soulspot.infrastructure.tags.model import FAILURE_CODES
from soulspot.ingest.disk.walker import Root

logger = logging.getLogger(__name__)

COUNTS_MAX_AGE: Final = 60.0
"""Seconds for which the catalogue's counts are reused."""
COUNTS_TIMEOUT: Final = 2.0
"""Seconds that a scrape waits for new counts; after that it gets the previous ones."""


class Metrics:
    """Writes the metrics as text; `with_process` adds the kernel's metrics of this process."""

    def __init__(self, state: DaemonState, *, with_process: bool) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._catalogue = _Catalogue(state)
        self._registry.register(_Daemon(state))
        self._registry.register(self._catalogue)
        if with_process:
            ProcessCollector(registry=self._registry)

    async def text(self, accepted: str = "") -> tuple[bytes, str]:
        """Return the metrics in the best format that the client accepts, and its media type."""
        await self._catalogue.refresh()
        encoder, kind = choose_encoder(accepted)
        return encoder(self._registry), kind

    async def write_to(self, file: str, interval: float) -> None:
        """Write the metrics to a file every `interval` seconds, atomically, until cancelled; then remove the file."""
        is_failing = False
        try:
            while True:
                await self._catalogue.refresh()
                try:
                    await asyncio.to_thread(_write, file, generate_latest(self._registry))
                    is_failing = False
                except OSError as error:
                    if not is_failing:
                        logger.warning("the metrics cannot be written to %s (%s)", file, error.strerror)
                    is_failing = True
                await asyncio.sleep(interval)
        finally:
            with suppress(OSError):
                os.unlink(file)  # a file left behind would keep reporting a healthy daemon


def _write(file: str, text: bytes) -> None:
    # Collectors ignore the suffix ".new", and run as another user, who must be able to read the file.
    descriptor, path = tempfile.mkstemp(prefix=f"{os.path.basename(file)}.", suffix=".new", dir=os.path.dirname(file))
    try:
        with open(descriptor, "wb") as stream:
            stream.write(text)
            os.fchmod(descriptor, 0o644)
        os.replace(path, file)
    except BaseException:
        os.unlink(path)
        raise


@dataclass(eq=False, slots=True)
class _Daemon(Collector):
    """Collects the daemon's own metrics."""

    state: DaemonState

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("soulspot_build_info", "The running version; always 1.", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield GaugeMetricFamily("soulspot_start_time_seconds", "Start time.", self.state.since.timestamp())
        health = current_health(self.state).state
        yield _gauges(
            "soulspot_health", "1 for the current health.", "state", {each: each == health for each in STATES}
        )
        yield from self._files()
        yield from self._queue()
        yield from self._watching()
        yield from self._folders()
        yield from self._hooks()

    def _files(self) -> Iterator[Metric]:
        counters = self.state.counters
        files = CounterMetricFamily("soulspot_files", "Files since the start, by outcome.", labels=["outcome"])
        for kind, count in counters.kinds.items():
            files.add_metric([kind], count)
        yield files
        ends = [*(f"{bound:g}" for bound in LATENCY_BOUNDS), "+Inf"]
        buckets = list(zip(ends, accumulate(counters.within), strict=True))
        meaning = "Time from a file's last change, while soulspot watched, to the commit of its outcome."
        yield HistogramMetricFamily("soulspot_close_to_commit_seconds", meaning, buckets, counters.seconds)

    def _queue(self) -> Iterator[Metric]:
        stats = self.state.pipeline.stats() if self.state.pipeline is not None else None
        in_hand, settling, oldest = (stats.in_hand, stats.settling, stats.oldest) if stats is not None else (0, 0, 0.0)
        queued = {"in_hand": in_hand, "settling": settling}
        yield _gauges("soulspot_queue_files", "Files in progress, or still being written.", "state", queued)
        yield GaugeMetricFamily("soulspot_oldest_pending_seconds", "Time that the oldest of them has waited.", oldest)
        paused = {
            "database": stats is not None and stats.paused is not None,
            "person": self.state.pauses.gate.paused is not None,
        }
        yield _gauges("soulspot_paused", "1 while ingest is paused, by the cause of the pause.", "by", paused)

    def _watching(self) -> Iterator[Metric]:
        watcher, polling = self.state.watcher, self.state.polling
        missed = polling.missed_by_watcher if polling is not None else 0
        overflows, restarts, is_falling_back = (
            (watcher.overflows, watcher.restarts, watcher.is_falling_back) if watcher is not None else (0, 0, False)
        )
        yield CounterMetricFamily("soulspot_watcher_missed", "Changes without an event, found by polling.", missed)
        yield CounterMetricFamily("soulspot_watcher_overflows", "Event storms that may have overflowed.", overflows)
        yield CounterMetricFamily("soulspot_watcher_restarts", "Restarts of the watch.", restarts)
        yield GaugeMetricFamily("soulspot_watcher_deaf", "1 while polling replaces the watch.", is_falling_back)

    def _folders(self) -> Iterator[Metric]:
        if (pipeline := self.state.pipeline) is None:
            return

        def by_folder(name: str, meaning: str, value: Callable[[Root], float | None]) -> Metric:
            return _gauges(name, meaning, "folder", {root.id: value(root) for root in self.state.roots})

        unreadable, unwatched = pipeline.folders.unreadable, pipeline.unwatched
        reconciled, events = pipeline.reconciled, self.state.last_event
        yield by_folder(
            "soulspot_folder_online", "1 for a watched folder that is online.", lambda root: root not in pipeline.faults
        )
        yield by_folder(
            "soulspot_folder_held_files",
            "Files that are gone, held until a person confirms the loss.",
            lambda root: pipeline.held.get(root, 0),
        )
        yield by_folder(
            "soulspot_folder_unreadable_places",
            "Files and folders that cannot be examined.",
            lambda root: len(unreadable.get(root, ())),
        )
        yield by_folder(
            "soulspot_folder_unwatched_folders",
            "Folders in it that are polled every second.",
            lambda root: len(unwatched.get(root, ())),
        )
        yield by_folder(
            "soulspot_folder_last_reconcile_timestamp_seconds",
            "Time of its last full scan.",
            lambda root: _timestamp(reconciled.get(root)),
        )
        yield by_folder(
            "soulspot_folder_last_event_timestamp_seconds",
            "Time of its last event.",
            lambda root: _timestamp(events.get(root)),
        )

    def _hooks(self) -> Iterator[Metric]:
        if not (hooks := self.state.hooks):
            return
        tries = CounterMetricFamily(
            "soulspot_hook_deliveries", "Tries to deliver a batch, by result.", labels=["hook", "result"]
        )
        for hook in hooks:
            tries.add_metric([hook.kind, "delivered"], hook.delivered)
            tries.add_metric([hook.kind, "failed"], hook.failed)
        yield tries
        failing: Mapping[str, bool] = {hook.kind: hook.error is not None for hook in hooks}
        yield _gauges("soulspot_hook_failing", "1 if the hook's last try failed.", "hook", failing)
        waiting: Mapping[str, int] = {hook.kind: hook.waiting for hook in hooks}
        yield _gauges("soulspot_hook_waiting_files", "Changes not delivered yet.", "hook", waiting)


@dataclass(eq=False, slots=True)
class _Catalogue(Collector):
    """Collects the catalogue's counts, as of the last query."""

    state: DaemonState

    async def refresh(self) -> None:
        """Query again if the counts are old, and wait up to `COUNTS_TIMEOUT` for the result."""
        if (querying := self.state.totals.refresh(self.state.database, max_age=COUNTS_MAX_AGE)) is not None:
            await asyncio.wait([querying], timeout=COUNTS_TIMEOUT)

    def collect(self) -> Iterator[Metric]:
        if (totals := self.state.totals.newest) is not None:
            files = dict.fromkeys(("catalogued", "failed", "missing", "ignored"), 0) | totals.by_status
            failed = dict.fromkeys(sorted(FAILURE_CODES), 0) | totals.by_code
            yield _gauges("soulspot_catalogue_files", "Files in the catalogue, by status.", "status", files)
            yield _gauges("soulspot_failed_files", "Files that could not be read, by reason.", "code", failed)
            meaning = "Time of the count of these."
            yield GaugeMetricFamily("soulspot_catalogue_counted_timestamp_seconds", meaning, totals.at)


def _gauges(name: str, meaning: str, label: str, values: Mapping[str, float | None]) -> Metric:
    """Return a gauge with a value for each value of a label; None leaves one out."""
    metric = GaugeMetricFamily(name, meaning, labels=[label])
    for key, value in values.items():
        if value is not None:
            metric.add_metric([key], value)
    return metric


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
