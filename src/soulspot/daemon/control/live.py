"""The streams of the control socket: `follow` sends events, `live` the data of `soulspot top`."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from soulspot.daemon.answers import (
    arriving_message,
    batch_message,
    totals_message,
    viewer_message,
    walk_message,
)
from soulspot.daemon.catalogue_totals import CatalogueTotals
from soulspot.daemon.events import SUBSCRIBER_BUFFER, EventBatch
from soulspot.daemon.state import DaemonState
from soulspot.daemon.status import daemon_status
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.net.control_socket import Answer, Arguments
from soulspot.ingest.pipeline import Pipeline

STATS_INTERVAL: Final = 0.5
"""Seconds between two lines of statistics."""
EVENTS_INTERVAL: Final = 0.1
"""Seconds between two lines of events."""
VIEWER_BUFFER: Final = 40
"""The most events in one line: the newest."""
SHOWN_ARRIVING: Final = 20
COUNT_WALK_AFTER: Final = 2.0
"""Seconds after which a walk is long enough to count its files ahead, in a second walk."""


async def follow(state: DaemonState, arguments: Arguments) -> AsyncIterator[Answer]:
    """Stream the events from now on; `room` bounds the buffer, for clients that only wait for any event."""
    room = arguments.get("room")
    buffer = min(room, SUBSCRIBER_BUFFER) if isinstance(room, int) and room > 0 else SUBSCRIBER_BUFFER
    with state.feed.subscribe(buffer) as subscription:
        yield {"following": True}
        async for batch in subscription.batches():
            yield batch_message(batch)


async def live(state: DaemonState, arguments: Arguments) -> AsyncIterator[Answer]:
    """Stream statistics twice a second, and events as they come."""
    with state.feed.subscribe(VIEWER_BUFFER) as subscription:
        recent, due = EventBatch(tuple(state.feed.recent)), 0.0
        yield viewer_message(state.since, recent, is_admin=arguments["caller"].is_admin)
        while True:
            if time.monotonic() >= due:
                due = time.monotonic() + STATS_INTERVAL
                yield {"vitals": _stats(state)}
            if (batch := await subscription.next_batch(max(due - time.monotonic(), 0))) is not None:
                yield batch_message(batch)
                await asyncio.sleep(min(EVENTS_INTERVAL, max(due - time.monotonic(), 0)))


def _stats(state: DaemonState) -> dict[str, Any]:
    state.totals.refresh(state.database, outcomes=state.counters.kinds.total())
    stats = daemon_status(state) | {"rates": state.rate.last(60), "totals": totals_message(state.totals.newest)}
    if (pipeline := state.pipeline) is not None:
        for root in state.roots:
            losses = {"offline": pipeline.faults.get(root), "held": pipeline.held.get(root)}
            stats["folders"][path_to_text(root.path)] |= losses
        stats["arriving"] = [arriving_message(*each) for each in pipeline.in_progress(SHOWN_ARRIVING)]
        stats["walks"] = _walks(pipeline, state.totals)
    return stats


def _walks(pipeline: Pipeline, totals: CatalogueTotals) -> list[Answer]:
    """Return the progress of the long walks of whole folders, and count their files."""
    shown = []
    for root, walk in pipeline.walks.items():
        if walk.seconds > COUNT_WALK_AFTER:
            if walk.total is None:
                totals.count_walk(walk, root)
            shown.append(walk_message(root, done=walk.done, total=walk.total, seconds=walk.seconds))
    return shown
