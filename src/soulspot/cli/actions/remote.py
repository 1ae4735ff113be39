"""The commands that the running daemon carries out: scan, pause, resume, reload."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from soulspot.cli.output.progress import shown_progress
from soulspot.cli.output.text import local_time, print_json, printable
from soulspot.cli.rights import act_as_owner_of
from soulspot.config import Settings, daemon_address, get_settings
from soulspot.config.catalogue import find_catalogue
from soulspot.daemon.pause import pause_file, remove_pause
from soulspot.errors import CatalogueError, ConfigError, SoulspotError
from soulspot.infrastructure.filesystem import path_to_text, text_to_path
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.net.control_socket import Answer
from soulspot.scan import ScanResult

RELOAD_TIMEOUT: Final = 60.0
"""Seconds that a reload may take: the daemon first finishes the files in progress."""


def reload(config: Path | None) -> None:
    settings = get_settings(config_file=config)
    answer = daemon_address.ask(settings, find_catalogue(settings), "reload", within=RELOAD_TIMEOUT)
    if answer is None:
        raise CatalogueError("no running daemon to reload: see `soulspot status`")
    if "error" in answer:
        raise ConfigError(answer["error"])
    print("the new settings are active" if answer["changed"] else "the settings have not changed")


def pause(config: Path | None, span: timedelta | None, *, as_json: bool) -> None:
    settings = get_settings(config_file=config)
    seconds = None if span is None else span.total_seconds()
    answer = _checked(daemon_address.ask(settings, find_catalogue(settings), "pause", seconds=seconds))
    if answer is None:
        raise SoulspotError("no soulspot is watching, so there is nothing to pause")
    if as_json:
        print_json(answer)
        return
    until = answer["paused"]["until"]
    end = f"until {local_time(datetime.fromisoformat(until))}" if until else "until `soulspot resume`"
    print(f"paused {end}: pid {answer['pid']} keeps noting changes, and processes them afterwards")
    if not answer["remembered"]:
        print(f"the pause will not survive a restart: it could not be saved ({printable(answer['reason'])})")


def resume(config: Path | None, *, as_json: bool) -> None:
    settings = get_settings(config_file=config)
    url = find_catalogue(settings)
    answer = _checked(daemon_address.ask(settings, url, "resume")) or {"pid": None, "was_paused": _remove_pause(url)}
    if as_json:
        print_json(answer)
    elif not answer["was_paused"]:
        print("it was not paused")
    elif answer["pid"] is None:
        print("no soulspot is watching; the next one does not start paused")
    else:
        print(f"pid {answer['pid']} processes the changes noted meanwhile")


def _remove_pause(url: str) -> bool:
    act_as_owner_of(url)
    file = pause_file(url)
    try:
        return remove_pause(file)
    except OSError as error:
        raise SoulspotError(f"cannot remove {file}, which keeps soulspot paused ({error.strerror})") from error


def scan_by_daemon(
    settings: Settings, paths: Sequence[Path], *, confirm_missing: bool, wait: bool, as_json: bool
) -> ScanResult | None:
    """Let the running daemon scan; with `wait` return its result. Return None if no daemon can scan.

    Raises SystemExit if the daemon scans and `wait` is false.
    """
    socket, is_ours = _daemon_to_ask(settings)
    if socket is None:
        return None
    named = [path_to_text(os.path.abspath(path)) for path in paths]
    arguments = {"paths": named, "confirm_missing": confirm_missing, "wait": wait}
    return asyncio.run(_scan_by_daemon(socket, arguments, is_ours=is_ours, as_json=as_json))


def folders_of_the_daemon(settings: Settings) -> Sequence[Path]:
    """Return the folders that the running daemon watches, none without a daemon."""
    socket, _is_ours = _daemon_to_ask(settings)
    status = control_socket.ask(socket, "status") if socket is not None else None
    return [Path(text_to_path(path)) for path in (status or {}).get("folders", {})]


def _daemon_to_ask(settings: Settings) -> tuple[Path | None, bool]:
    """Return the daemon's socket, and whether that daemon certainly keeps the catalogue of these settings."""
    own = daemon_address.socket_to_ask(settings, settings.database.url)
    if own is not None or "url" in settings.database.model_fields_set:
        return own, settings.database.url.startswith("sqlite")
    try:
        return daemon_address.socket_to_ask(settings, find_catalogue(settings)), False
    except CatalogueError:
        return None, False


async def _scan_by_daemon(socket: Path, arguments: Answer, *, is_ours: bool, as_json: bool) -> ScanResult | None:
    try:
        async with aclosing(control_socket.stream_answers(socket, "scan", **arguments)) as answers:
            first = await anext(answers, None)
            if first is None or ("elsewhere" in first and not is_ours):
                return None
            _checked(first)
            if arguments["wait"]:
                return await _wait_for_result(first, answers)
            _print_accepted(first, as_json=as_json)
            raise SystemExit(0)
    except OSError:  # the daemon has ended, or refuses this user: the lock names its owner
        return None


def _print_accepted(first: Answer, *, as_json: bool) -> None:
    if as_json:
        print_json(first)
        return
    verb, when = ("will scan", " after `soulspot resume` (paused now)") if first["paused"] else ("scans", "")
    print(f"pid {first['pid']} {verb} {printable(', '.join(first['scanning']))}{when}")
    print("`soulspot scan --wait` waits for the end, `soulspot audit --follow` shows the changes")


async def _wait_for_result(first: Answer, answers: AsyncIterator[Answer]) -> ScanResult:
    """Show the daemon's progress until the scan is done."""
    before = Counter[str]()
    with shown_progress() as progress:
        if first["paused"]:
            progress.warn(f"pid {first['pid']} is paused: it scans when it is resumed")
        async for line in answers:
            for each in line["failed"]:
                progress.warn(f"failed {each['path']}: {each['detail']}")
            counts = Counter[str](line["counts"])
            progress.count(counts - before)
            before = counts
            if line.get("total") is not None:
                progress.expect(line["total"])
            if line.get("done"):
                return ScanResult(counts, line["still_written"], line["offline"], line["held"])
    raise SoulspotError("the daemon stopped before the scan was done: its next start scans all folders")


def _checked(answer: Answer | None) -> Answer | None:
    """Return an answer; raise SoulspotError if it is an error."""
    if answer is not None and "error" in answer:
        raise SoulspotError(printable(answer["error"]))
    return answer
