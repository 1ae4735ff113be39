"""The commands of the control socket; each gets the daemon's state and the client's arguments."""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

import msgspec
from sqlalchemy.exc import DBAPIError

from soulspot.config.library_check import check_library
from soulspot.daemon.answers import (
    decided_message,
    error_message,
    pause_message,
    scan_accepted_message,
    scan_progress_message,
    scan_result_message,
)
from soulspot.daemon.control.live import follow, live
from soulspot.daemon.state import DaemonState, SettingsChange
from soulspot.daemon.status import daemon_status
from soulspot.errors import SoulspotError
from soulspot.infrastructure.filesystem import path_to_text, text_to_path
from soulspot.infrastructure.net.control_socket import Answer, Arguments, Commands, Reply, Stream
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.records import FailureQuestion
from soulspot.ingest.catalogue.failure_service import FailureService
from soulspot.ingest.disk.walker import Root, covers, why_left_alone
from soulspot.ingest.scan_requests import Request

PROGRESS_INTERVAL: Final = 0.25
"""Seconds between two lines of progress."""
START_TIMEOUT: Final = 30.0
"""Seconds that a scan waits while the daemon starts or applies new settings."""


async def status(state: DaemonState, _arguments: Arguments) -> Answer:
    return daemon_status(state)


async def scan(state: DaemonState, arguments: Arguments) -> AsyncIterator[Answer]:
    """Scan all folders or some paths; with `wait`, report progress and the result."""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await state.is_watching.wait()
    except TimeoutError:
        yield error_message("the daemon is still starting, and will scan everything when it has started")
        return
    parts, refusal = _parts(state.roots, arguments.get("paths"))
    if refusal is not None:
        yield refusal
        return
    request = Request(parts, confirm_missing=arguments.get("confirm_missing") is True)
    assert state.requests is not None
    state.requests.submit(request)
    scanning = [root.catalogue_path(path).rstrip("/") for root, paths in parts.items() for path in paths]
    yield scan_accepted_message(scanning, state.pauses.gate.paused)
    if arguments.get("wait") is True:
        async for progress in _progress(request):
            yield progress


async def pause(state: DaemonState, arguments: Arguments) -> Answer:
    seconds = arguments.get("seconds")
    if not (seconds is None or (isinstance(seconds, int | float) and 0 < seconds < timedelta.max.total_seconds())):
        return error_message("seconds must be a number above 0, or null to pause until a resume")
    answer: Answer = {"pid": os.getpid(), "was_paused": state.pauses.gate.paused is not None, "remembered": True}
    try:
        state.pauses.pause(arguments["caller"].user, None if seconds is None else timedelta(seconds=seconds))
    except (OSError, OverflowError) as error:
        answer |= {"remembered": False, "reason": str(error)}
    return answer | {"paused": pause_message(state.pauses.gate.paused)}


async def resume(state: DaemonState, arguments: Arguments) -> Answer:
    try:
        before = state.pauses.resume(f"{arguments['caller'].user} has ended the pause")
    except OSError as error:
        return error_message(f"still paused: the file of the pause cannot be removed ({error})")
    return {"pid": os.getpid(), "was_paused": pause_message(before)}


async def failures(state: DaemonState, arguments: Arguments) -> Answer:
    """Retry or ignore failures in the watched folders; retried files are read at once."""
    if (pipeline := state.pipeline) is None or state.database is None:
        return error_message("the daemon is starting")
    folders = {root.id: root for root in state.roots}
    try:
        question = msgspec.convert(arguments.get("which"), FailureQuestion)
        decided = await FailureService(state.database, run=new_id()).decide(
            str(arguments.get("verb")), question, folders
        )
    except (KeyError, msgspec.ValidationError) as error:
        return error_message(f"invalid arguments: {error}")
    except DBAPIError as error:
        return error_message(f"the database refuses ({error.orig}): try again when it answers")
    for file in decided:
        pipeline.queue.enqueue(folders[file.folder_id], [file.path])
    return decided_message(decided)


async def reload(state: DaemonState, _arguments: Arguments) -> Answer:
    """Read the settings again; answer once the new settings are active."""
    before = state.settings
    try:
        settings = state.read_settings()
        check_library(settings, before.library.folders)
    except SoulspotError as error:
        return error_message(str(error))
    if (settings.database, settings.control) != (before.database, before.control):
        return error_message("the database and control settings need a restart: systemctl restart soulspot")
    if settings == before:
        return {"changed": False}
    change = SettingsChange(settings, before, asyncio.get_running_loop().create_future())
    state.changes.put_nowait(change)
    return await change.done


COMMANDS: Final[Commands[DaemonState]] = {
    "status": Reply(status),
    "follow": Stream(follow),
    "live": Stream(live),
    "scan": Stream(scan, privileged=True),
    "pause": Reply(pause, privileged=True),
    "resume": Reply(resume, privileged=True),
    "failures": Reply(failures, privileged=True),
    "reload": Reply(reload, privileged=True),
}


async def _progress(request: Request) -> AsyncIterator[Answer]:
    reported = 0
    while not request.ended.is_set():
        new_failures = request.failed[reported:]
        reported += len(new_failures)
        yield scan_progress_message(request, new_failures)
        with suppress(TimeoutError):
            async with asyncio.timeout(PROGRESS_INTERVAL):
                await request.ended.wait()
    yield scan_result_message(request, request.failed[reported:])


def _parts(roots: Sequence[Root], paths: object) -> tuple[dict[Root, list[str]], Answer | None]:
    """Return the paths to scan by folder, or an error message."""
    parts = defaultdict[Root, list[str]](list)
    if paths is None or paths == []:
        return {root: [""] for root in roots}, None
    if not isinstance(paths, list) or not all(isinstance(path, str) and path.startswith("/") for path in paths):
        return {}, error_message("the paths of a scan must be a list of absolute paths")
    elsewhere = []
    for path in paths:
        if (found := _find(roots, text_to_path(path))) is None:
            elsewhere.append(path)
        elif (below := found[1]) and (reason := why_left_alone(found[0], below.rstrip("/"))) is not None:
            return {}, error_message(f"{path} is ignored: {reason}")
        else:
            parts[found[0]].append(below)
    if elsewhere:
        watched = ", ".join(path_to_text(root.path) for root in roots)
        return {}, error_message(f"{', '.join(elsewhere)}: not in a watched folder ({watched})", elsewhere=elsewhere)
    return {root: _topmost(below) for root, below in parts.items()}, None


def _find(roots: Sequence[Root], path: str) -> tuple[Root, str] | None:
    """Return the watched folder that contains a path, directly or through a link, and the path within it."""
    for full in (os.path.normpath(path), os.path.realpath(path)):
        for root in roots:
            if (below := root.relative(full)) is not None:
                return root, f"{below}/" if below and os.path.isdir(full) else below
    return None


def _topmost(paths: list[str]) -> list[str]:
    """Drop the paths that other paths cover."""
    return [path for path in dict.fromkeys(paths) if not any(covers(other, path) for other in paths if other != path)]
