"""The daemon: watches, compares now and then, answers, and goes on with other settings when it is told to."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta

from soulspot.bootstrap import Ingest, Report, drain, open_ingest, stop_on_signals, writer_lock_for
from soulspot.config import Settings
from soulspot.config.daemon_address import place_to_serve
from soulspot.config.library_check import check_library
from soulspot.daemon import health
from soulspot.daemon.control.server import controlled
from soulspot.daemon.hooks import hook as hooks
from soulspot.daemon.monitoring import endpoints
from soulspot.daemon.pause import Pauses
from soulspot.daemon.pause import place_of as pause_place
from soulspot.daemon.state import Change, State
from soulspot.daemon.supervision import look_at_the_database, tell_systemd
from soulspot.daemon.web_activation import page_served
from soulspot.errors import SoulspotError
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.systemd import notify
from soulspot.ingest.catalogue.audit_retention import Retention
from soulspot.ingest.outcome import Outcome
from soulspot.ingest.scan_requests import Requests

logger = logging.getLogger(__name__)


async def watch(read: Callable[[], Settings], *, report: Report) -> None:
    """Keep the folders and the catalogue equal until SIGTERM or SIGINT; a second signal ends at once.

    `read` returns the settings, at the start and whenever the control socket is told to reload. What is wrong then, or
    turns out to be when the new settings are used, leaves the old ones in force.
    """
    settings, stop, changes = read(), stop_on_signals(), asyncio.Queue[Change]()
    state = State(settings, Pauses(pause_place(settings.database.url)))

    def tell(outcome: Outcome) -> None:
        report(outcome)
        state.hear(outcome)

    check_library(settings, settings.library.folders)  # before anything is made: what is absent is judged later
    with writer_lock_for(settings, "watch"):
        async with controlled(lambda: place_to_serve(settings), state, read, changes):
            change: Change | None = None
            while True:
                try:
                    following = await _watch_with(state, stop, changes, change, tell)
                except SoulspotError as error:
                    if change is None or change.done.done():
                        raise
                    logger.error("the settings from before stay in force: %s", error)  # noqa: TRY400 - one sentence
                    change.done.set_result({"error": str(error)})
                    state.settings, change = change.before, None
                    continue
                if following is None:
                    endpoints.say_what_was_not_told(state)
                    return
                state.settings, change = following.settings, following


async def _watch_with(
    state: State, stop: asyncio.Event, changes: asyncio.Queue[Change], change: Change | None, report: Report
) -> Change | None:
    """Watch until told to stop, or to go on with other settings: these are returned."""
    settings = state.settings

    async with (
        endpoints.listening(state),
        page_served(settings),
        open_ingest(
            settings,
            "watch",
            report=report,
            warm=True,
            watch=True,
            last_event=state.last_event,
            gate=state.pauses.gate,
        ) as ingest,
        endpoints.hooked(state, ingest.run, ingest.roots) as hooked,
    ):
        assert ingest.watching is not None
        watcher, polling = ingest.watching.watcher, ingest.watching.polling
        state.pipeline, state.roots, state.database = ingest.pipeline, ingest.roots, ingest.database
        state.asked = Requests(ingest.pipeline, ingest.roots)
        state.watchdog = health.Watchdog(settings.tags.time_limit)
        state.watcher, state.rounds = watcher, polling
        async with asyncio.TaskGroup() as group:
            telling = [group.create_task(hook.run(listener), name=f"hook: {hook.kind}") for hook, listener in hooked]
            pipeline = group.create_task(ingest.pipeline.run(), name="pipeline")
            others = [
                group.create_task(watcher.run(), name="watcher"),
                group.create_task(polling.run(), name="polling"),
                group.create_task(look_at_the_database(ingest.database), name="check of the database file"),
                group.create_task(state.pauses.run(), name="pause"),
                group.create_task(state.requests.run(), name="requested scans"),
                group.create_task(endpoints.write_textfile(state), name="metrics textfile"),
            ]
            await watcher.is_live.wait()
            others.append(group.create_task(tell_systemd(state, ingest.pipeline), name="systemd status"))
            if settings.audit.keep_days:
                others.append(group.create_task(_retention(settings, ingest).run(), name="audit retention"))
            notify("READY=1", f"STATUS=watching {', '.join(path_to_text(root.path) for root in ingest.roots)}")
            state.is_watching.set()
            for root in ingest.roots:
                logger.info("watching %s", path_to_text(root.path))
            if change is not None:
                change.done.set_result({"changed": True})
            following = await _stop_or_change(stop, changes)
            state.is_watching.clear()
            if following is None:
                notify("STOPPING=1", "STATUS=stopping: the files in hand are ended")
                logger.info("stopping")
            else:
                notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=taking new settings")
                logger.info("taking new settings")
            for task in others:
                task.cancel()
            await drain(ingest, pipeline)
            await hooks.end(hooked, telling)
    state.pipeline = state.asked = state.database = None
    return following


async def _stop_or_change(stop: asyncio.Event, changes: asyncio.Queue[Change]) -> Change | None:
    stopped, changed = asyncio.create_task(stop.wait()), asyncio.create_task(changes.get())
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
