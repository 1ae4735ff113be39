"""The daemon: watches, reconciles on a timer, serves its clients, and applies new settings on a reload."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta

from soulspot.bootstrap import Ingest, Report, drain, open_ingest, stop_on_signals, writer_lock_for
from soulspot.config import Settings
from soulspot.config.library_check import check_library
from soulspot.daemon import health
from soulspot.daemon.control.server import serve_control_socket
from soulspot.daemon.hooks import hook as hooks
from soulspot.daemon.monitoring import endpoints
from soulspot.daemon.pause import Pauses, pause_file
from soulspot.daemon.state import DaemonState, SettingsChange
from soulspot.daemon.supervision import report_to_systemd, watch_database_file
from soulspot.daemon.web_activation import web_activation
from soulspot.errors import SoulspotError
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.systemd import notify
from soulspot.ingest.catalogue.audit_retention import Retention
from soulspot.ingest.outcome import Outcome
from soulspot.ingest.scan_requests import Requests

logger = logging.getLogger(__name__)


async def watch(read: Callable[[], Settings], *, report: Report) -> None:
    """Keep the catalogue in step with the folders until SIGTERM or SIGINT; a second signal ends at once.

    `read` returns the settings, at the start and on each reload. If the new settings are invalid, or fail in use, the
    previous settings stay active.
    """
    settings, stop = read(), stop_on_signals()
    state = DaemonState(settings, Pauses(pause_file(settings.database.url)), read)

    def on_outcome(outcome: Outcome) -> None:
        report(outcome)
        state.on_outcome(outcome)

    check_library(settings, settings.library.folders)  # before anything is created; missing folders are handled later
    with writer_lock_for(settings, "watch"):
        async with serve_control_socket(state):
            change: SettingsChange | None = None
            while True:
                try:
                    following = await _watch_with(state, stop, change, on_outcome)
                except SoulspotError as error:
                    if change is None or change.done.done():
                        raise
                    logger.error("reload failed, keeping the previous settings: %s", error)  # noqa: TRY400 - no traceback
                    change.done.set_result({"error": str(error)})
                    state.settings, change = change.before, None
                    continue
                if following is None:
                    endpoints.warn_about_undelivered(state)
                    return
                state.settings, change = following.settings, following


async def _watch_with(
    state: DaemonState, stop: asyncio.Event, change: SettingsChange | None, report: Report
) -> SettingsChange | None:
    """Watch until stopped, or until a reload; return the reload's settings."""
    settings = state.settings
    async with (
        endpoints.serve_monitoring(state),
        web_activation(settings),
        open_ingest(
            settings, "watch", report=report, warm=True, watch=True, last_event=state.last_event, gate=state.pauses.gate
        ) as ingest,
        endpoints.subscribe_hooks(state, ingest.run, ingest.roots) as subscribed,
    ):
        assert ingest.watching is not None
        state.watcher, state.polling = watcher, polling = ingest.watching.watcher, ingest.watching.polling
        state.pipeline, state.roots, state.database = ingest.pipeline, ingest.roots, ingest.database
        state.requests = requests = Requests(ingest.pipeline, ingest.roots)
        state.watchdog = health.Watchdog(settings.tags.time_limit)
        async with asyncio.TaskGroup() as group:
            delivering = [group.create_task(hook.run(each), name=f"hook {hook.kind}") for hook, each in subscribed]
            pipeline = group.create_task(ingest.pipeline.run(), name="pipeline")
            others = [
                group.create_task(watcher.run(), name="watcher"),
                group.create_task(polling.run(), name="polling"),
                group.create_task(watch_database_file(ingest.database), name="watch the database file"),
                group.create_task(state.pauses.run(), name="end of a pause"),
                group.create_task(requests.run(), name="scan requests"),
                group.create_task(endpoints.write_textfile(state), name="metrics textfile"),
            ]
            await watcher.is_live.wait()
            others.append(group.create_task(report_to_systemd(state, ingest.pipeline), name="report to systemd"))
            if settings.audit.keep_days:
                others.append(group.create_task(_retention(settings, ingest).run(), name="audit retention"))
            notify("READY=1", f"STATUS=watching {', '.join(path_to_text(root.path) for root in ingest.roots)}")
            state.is_watching.set()
            for root in ingest.roots:
                logger.info("watching %s", path_to_text(root.path))
            if change is not None:
                change.done.set_result({"changed": True})
            following = await _stop_or_change(stop, state.changes)
            state.is_watching.clear()
            if following is None:
                notify("STOPPING=1", "STATUS=stopping: finishing the files in progress")
                logger.info("stopping")
            else:
                notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=applying new settings")
                logger.info("applying new settings")
            for task in others:
                task.cancel()
            await drain(ingest, pipeline)
            await hooks.end(subscribed, delivering)
    state.pipeline = state.requests = state.database = None
    return following


async def _stop_or_change(stop: asyncio.Event, changes: asyncio.Queue[SettingsChange]) -> SettingsChange | None:
    stopped = asyncio.create_task(stop.wait(), name="wait for a signal")
    changed = asyncio.create_task(changes.get(), name="wait for a reload")
    await asyncio.wait([stopped, changed], return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, changed):
        task.cancel()
    return None if stop.is_set() else changed.result()


def _retention(settings: Settings, ingest: Ingest) -> Retention:
    return Retention(
        ingest.database,
        keep=timedelta(days=settings.audit.keep_days),
        run=ingest.run,
        is_quiet=lambda: ingest.pipeline.is_quiet,
    )
