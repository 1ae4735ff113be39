"""The metrics of Prometheus, made from what the daemon knows anyway when it is scraped.

They cost nothing between two scrapes. What only the catalogue knows (how many files have failed, by reason) is queried
at most once a minute, and only during a scrape.
"""

import asyncio
import logging
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from soulspot import __version__
from soulspot.daemon.counters import LATENCY_BOUNDS
from soulspot.daemon.health import STATES
from soulspot.daemon.state import DaemonState
from soulspot.daemon.status import current_health
from soulspot.errors import SoulspotError
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags.model import FAILURE_CODES

logger = logging.getLogger(__name__)

COUNT_EVERY: Final = 60.0
"""Seconds for which what the catalogue was asked is not asked again."""
COUNT_WITHIN: Final = 2.0
"""Seconds for which a scraper waits for that; after them it is told what the catalogue said before."""


class Metrics:
    """Writes what there is to tell as text. `with_process`: what the kernel knows of this process too."""

    def __init__(self, state: DaemonState, *, with_process: bool) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._catalogue = _Catalogue(state)
        self._registry.register(_Daemon(state))
        self._registry.register(self._catalogue)
        if with_process:
            ProcessCollector(registry=self._registry)

    async def text(self, accepted: str = "") -> tuple[bytes, str]:
        """Return the metrics in the best form of those that a client accepts, and its media type."""
        await self._catalogue.refresh()
        encoder, kind = choose_encoder(accepted)
        return encoder(self._registry), kind

    async def write_to(self, file: str, every: float) -> None:
        """Write them into a file again and again, which is whole at any moment; take it away at the end."""
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
                await asyncio.sleep(every)
        finally:
            with suppress(OSError):
                os.unlink(file)  # a file that stays would go on telling that all is well


def _write(file: str, text: bytes) -> None:
    # Under another name first, which no collector reads; and whoever collects is another user.
    descriptor, place = tempfile.mkstemp(prefix=f"{os.path.basename(file)}.", suffix=".new", dir=os.path.dirname(file))
    try:
        with open(descriptor, "wb") as written:
            written.write(text)
            os.fchmod(descriptor, 0o644)
        os.replace(place, file)
    except BaseException:
        os.unlink(place)
        raise


class _Daemon(Collector):
    """What the daemon knows of itself."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state
        told = {"version": __version__, "python": platform.python_version()}
        yield _labelled("soulspot_build_info", "The version that runs; always 1.", told, 1)
        yield _gauge("soulspot_start_time_seconds", "When it was started.", state.since.timestamp())
        yield _states(
            "soulspot_health", "How it is: 1 for the state that it is in.", STATES, current_health(state).state
        )
        yield from self._files()
        yield from self._queue()
        yield from self._watching()
        yield from self._folders()
        yield from self._hooks()

    def _files(self) -> Iterator[Metric]:
        counters = self._state.counters
        files = CounterMetricFamily(
            "soulspot_files", "Files since the start, by what became of them.", labels=["outcome"]
        )
        for kind, count in counters.kinds.items():
            files.add_metric([kind], count)
        yield files
        waited = HistogramMetricFamily(
            "soulspot_close_to_commit_seconds",
            "Time from a file's last change, while soulspot watched, to the commit of what became of it.",
        )
        ends = [*(f"{bound:g}" for bound in LATENCY_BOUNDS), "+Inf"]
        waited.add_metric([], list(zip(ends, accumulate(counters.within), strict=True)), counters.seconds)
        yield waited

    def _queue(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily(
            "soulspot_queue_files",
            "Files on their way: in hand, or settling while others write them.",
            labels=["state"],
        )
        vitals = self._state.pipeline.stats() if self._state.pipeline is not None else None
        queue.add_metric(["in_hand"], vitals.in_hand if vitals else 0)
        queue.add_metric(["settling"], vitals.settling if vitals else 0)
        yield queue
        oldest = vitals.oldest if vitals else 0
        yield _gauge("soulspot_oldest_pending_seconds", "Time that one of them has been on its way.", oldest)
        paused = GaugeMetricFamily("soulspot_paused", "1 while everything waits, by what it waits for.", labels=["by"])
        paused.add_metric(["database"], vitals is not None and vitals.paused is not None)
        paused.add_metric(["person"], self._state.pauses.gate.paused is not None)
        yield paused

    def _watching(self) -> Iterator[Metric]:
        state = self._state
        missed = state.polling.missed_by_watcher if state.polling is not None else 0
        yield _counter("soulspot_watcher_missed", "Changes that no event told of, found by a look at folders.", missed)
        watcher = state.watcher
        overflows, restarts = (watcher.overflows, watcher.restarts) if watcher is not None else (0, 0)
        yield _counter("soulspot_watcher_overflows", "Storms of events that may have run over.", overflows)
        yield _counter("soulspot_watcher_restarts", "Times that watching was begun anew.", restarts)
        is_falling_back = watcher is not None and watcher.is_falling_back
        yield _gauge(
            "soulspot_watcher_deaf", "1 while no event comes at all and folders are looked at instead.", is_falling_back
        )

    def _folders(self) -> Iterator[Metric]:
        pipeline = self._state.pipeline
        if pipeline is None:
            return
        online = _of_folders("soulspot_folder_online", "1 for a watched folder that is there, by its id.")
        held = _of_folders("soulspot_folder_held_files", "Files that are not there and not believed to be gone.")
        unreadable = _of_folders("soulspot_folder_unreadable_places", "Files and folders that cannot be looked at.")
        unwatched = _of_folders("soulspot_folder_unwatched_folders", "Folders in it that are looked at every second.")
        reconciled = _of_folders(
            "soulspot_folder_last_reconcile_timestamp_seconds", "When all of it was compared with the catalogue last."
        )
        event = _of_folders("soulspot_folder_last_event_timestamp_seconds", "When something was said of it last.")
        for root in self._state.roots:
            online.add_metric([root.id], root not in pipeline.faults)
            held.add_metric([root.id], pipeline.held.get(root, 0))
            unreadable.add_metric([root.id], len(pipeline.folders.unreadable.get(root, ())))
            unwatched.add_metric([root.id], len(pipeline.unwatched.get(root, ())))
            _add_moment(reconciled, root.id, pipeline.reconciled.get(root))
            _add_moment(event, root.id, self._state.last_event.get(root))
        yield from (online, held, unreadable, unwatched, reconciled, event)

    def _hooks(self) -> Iterator[Metric]:
        if not (hooks := self._state.hooks):
            return
        tries = CounterMetricFamily(
            "soulspot_hook_deliveries", "Batches handed to a hook, and how that went.", labels=["hook", "result"]
        )
        failing = GaugeMetricFamily("soulspot_hook_failing", "1 since a hook's last try failed.", labels=["hook"])
        waiting = GaugeMetricFamily("soulspot_hook_waiting_files", "Changes not told to it yet.", labels=["hook"])
        for hook in hooks:
            tries.add_metric([hook.kind, "delivered"], hook.delivered)
            tries.add_metric([hook.kind, "failed"], hook.failed)
            failing.add_metric([hook.kind], hook.error is not None)
            waiting.add_metric([hook.kind], hook.waiting)
        yield from (tries, failing, waiting)


class _Catalogue(Collector):
    """What only the catalogue knows, as it was when it was asked last."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._asked = -COUNT_EVERY
        self._asking: asyncio.Task[None] | None = None
        self._at: float | None = None
        self._files: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    async def refresh(self) -> None:
        """Ask the catalogue, unless that was done of late, and wait a moment for the answer, or have that of before."""
        if (database := self._state.database) is None:
            return
        if time.monotonic() - self._asked > COUNT_EVERY and (self._asking is None or self._asking.done()):
            self._asked = time.monotonic()
            self._asking = asyncio.create_task(self._count(database), name="metrics: count the catalogue")
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=COUNT_WITHIN)

    async def _count(self, database: Database) -> None:
        try:
            counts = await FileRepository(database.session).counts()
        except (SQLAlchemyError, SoulspotError) as error:
            logger.debug("the catalogue was not counted: %s", error)
            return
        self._at = time.time()
        self._files = Counter(dict.fromkeys(("catalogued", "failed", "missing", "ignored"), 0))
        self._failed = Counter(dict.fromkeys(sorted(FAILURE_CODES), 0))
        for (_folder, status, code), count in counts.items():
            self._files[status] += count
            if status == "failed" and code is not None:
                self._failed[code] += count

    def collect(self) -> Iterator[Metric]:
        if self._at is None:
            return
        files = GaugeMetricFamily("soulspot_catalogue_files", "Files in the catalogue, by status.", labels=["status"])
        for status, count in self._files.items():
            files.add_metric([status], count)
        failed = GaugeMetricFamily("soulspot_failed_files", "Files that could not be read, by reason.", labels=["code"])
        for code, count in self._failed.items():
            failed.add_metric([code], count)
        yield from (files, failed)
        yield _gauge("soulspot_catalogue_counted_timestamp_seconds", "When these were counted.", self._at)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)


def _labelled(name: str, meaning: str, labels: dict[str, str], value: float) -> Metric:
    metric = GaugeMetricFamily(name, meaning, labels=list(labels))
    metric.add_metric(list(labels.values()), value)
    return metric


def _states(name: str, meaning: str, states: Iterable[str], current: str) -> Metric:
    metric = GaugeMetricFamily(name, meaning, labels=["state"])
    for state in states:
        metric.add_metric([state], state == current)
    return metric


def _of_folders(name: str, meaning: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=["folder"])


def _add_moment(metric: GaugeMetricFamily, folder: str, moment: datetime | None) -> None:
    if moment is not None:
        metric.add_metric([folder], moment.timestamp())
