"""What people ask the daemon to do: to scan, to pause, to go on, and what becomes of failures."""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from sqlalchemy.exc import DBAPIError

from soulspot.daemon.messages import paused_told
from soulspot.infrastructure.filesystem import path_to_text, text_to_path
from soulspot.infrastructure.net.control_socket import Answer, Arguments, Offers, Once, Stream
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.records import FailureQuestion
from soulspot.ingest.catalogue.failure_service import Failures
from soulspot.ingest.disk.walker import Root, covers, why_left_alone
from soulspot.ingest.scan_requests import Request

if TYPE_CHECKING:
    from soulspot.daemon.state import State

PROGRESS_EVERY: Final = 0.25
"""Seconds between two lines of how far a scan is."""
START_WITHIN: Final = 30.0
"""Seconds that a daemon which is starting, or takes new settings, has until it must have folders to scan."""


def steering(state: "State") -> Offers:
    """Return what steers the daemon."""

    async def scan(asked: Arguments) -> AsyncIterator[Answer]:
        try:
            async with asyncio.timeout(START_WITHIN):
                await state.is_watching.wait()
        except TimeoutError:
            yield {"error": "it is still starting, and looks at everything when it has"}
            return
        parts, refusal = _parts(state, asked.get("paths"))
        if refusal is not None:
            yield refusal
            return
        request = Request(parts, confirm_missing=asked.get("confirm_missing") is True)
        state.requests.ask(request)
        scanned = [_whole(root, path) for root, paths in parts.items() for path in paths]
        yield {"pid": os.getpid(), "scanning": scanned, "paused": paused_told(state.pauses.gate.paused)}
        if asked.get("wait") is True:
            async for progress in _progress(request):
                yield progress

    async def pause(asked: Arguments) -> Answer:
        seconds = asked.get("seconds")
        if not (seconds is None or (isinstance(seconds, int | float) and 0 < seconds < timedelta.max.total_seconds())):
            return {"error": "the seconds of a pause are a number above 0, or null for until somebody resumes"}
        was_paused = state.pauses.gate.paused is not None
        told: Answer = {"pid": os.getpid(), "was_paused": was_paused, "remembered": True}
        try:
            state.pauses.pause(asked["asker"].user, None if seconds is None else timedelta(seconds=seconds))
        except (OSError, OverflowError) as error:
            told |= {"remembered": False, "reason": str(error)}
        return told | {"paused": paused_told(state.pauses.gate.paused)}

    async def resume(asked: Arguments) -> Answer:
        try:
            before = state.pauses.resume(f"{asked['asker'].user} resumed it")
        except OSError as error:
            return {"error": f"that it is paused cannot be forgotten ({error}): it stays paused"}
        return {"pid": os.getpid(), "was_paused": paused_told(before)}

    async def failures(asked: Arguments) -> Answer:
        return await _decide(state, asked)

    return {
        "failures": Once(failures, steers=True),
        "scan": Stream(scan, steers=True),
        "pause": Once(pause, steers=True),
        "resume": Once(resume, steers=True),
    }


async def _decide(state: "State", asked: Arguments) -> Answer:
    """Do what a person decides about failures in the watched folders, and read at once what is to be read again."""
    if (pipeline := state.pipeline) is None or state.database is None:
        return {"error": "it is starting"}
    folders = {root.id: root for root in state.roots}
    try:
        question = msgspec.convert(asked.get("which"), FailureQuestion)
        decided = await Failures(state.database, run=new_id()).decide(str(asked.get("verb")), question, folders)
    except (KeyError, msgspec.ValidationError) as error:
        return {"error": f"that is no decision about failures: {error}"}
    except DBAPIError as error:
        return {"error": f"the database refuses ({error.orig}): try again when it answers"}
    for file in decided:
        pipeline.look_again(folders[file.folder_id], [file.path])
    return {"decided": [{"id": file.id, "path": file.full_path, "code": file.error_code} for file in decided]}


async def _progress(request: Request) -> AsyncIterator[Answer]:
    told = 0
    while not request.ended.is_set():
        before, told = told, len(request.failed)  # and not when the answer was sent: more may have come by then
        yield {"counts": dict(request.counts), "total": request.total, "failed": _failed(request, before)}
        try:
            async with asyncio.timeout(PROGRESS_EVERY):
                await request.ended.wait()
        except TimeoutError:
            continue
    left = {name: getattr(request, name) for name in ("still_written", "offline", "held")}
    yield {"done": request.is_done, "counts": dict(request.counts), "failed": _failed(request, told), **left}


def _failed(request: Request, told: int) -> list[dict[str, str]]:
    """Return what could not be read, but for so many that were told before."""
    return [{"path": each.path, "detail": each.detail} for each in request.failed[told:]]


def _parts(state: "State", paths: object) -> tuple[dict[Root, list[str]], Answer | None]:
    """Return what is to be looked at by folder, or why that cannot be."""
    parts = defaultdict[Root, list[str]](list)
    if paths is None or paths == []:
        return {root: [""] for root in state.roots}, None
    if not isinstance(paths, list) or not all(isinstance(path, str) and path.startswith("/") for path in paths):
        return {}, {"error": "the paths of a scan are a list of absolute paths"}
    elsewhere = []
    for path in paths:
        found = _find(state, text_to_path(path))
        if found is None:
            elsewhere.append(path)
            continue
        root, below = found
        if below and (reason := why_left_alone(root, below.rstrip("/"))) is not None:
            return {}, {"error": f"{path} is left alone: {reason}"}
        parts[root].append(below)
    if elsewhere:
        watched = ", ".join(path_to_text(root.path) for root in state.roots)
        error = f"{', '.join(elsewhere)}: in none of the folders that are watched ({watched})"
        return {}, {"error": error, "elsewhere": elsewhere}
    return {root: _topmost(below) for root, below in parts.items()}, None


def _find(state: "State", path: str) -> tuple[Root, str] | None:
    """Return the watched folder that a path is in, by its name or through a link, and where it is there."""
    for full in (os.path.normpath(path), os.path.realpath(path)):
        for root in state.roots:
            if (below := root.relative(full)) is not None:
                return root, f"{below}/" if below and os.path.isdir(full) else below
    return None


def _topmost(paths: list[str]) -> list[str]:
    """Leave out what another covers."""
    return [path for path in dict.fromkeys(paths) if not any(covers(other, path) for other in paths if other != path)]


def _whole(root: Root, path: str) -> str:
    return f"{path_to_text(root.path).rstrip('/')}/{path}".rstrip("/")
