"""`soulspot top`: the daemon live in a terminal, from one stream of its control socket."""

import asyncio
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Final

from soulspot.cli.actions.open_catalogue import configure, open_catalogue
from soulspot.cli.output.terminal import Terminal, require_terminal
from soulspot.cli.output.top_view import View, screen
from soulspot.cli.rights import find_catalogue
from soulspot.config import Settings, daemon_address
from soulspot.daemon.answers import totals_message
from soulspot.daemon.catalogue_totals import query_totals
from soulspot.errors import SoulspotError
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.repositories import FolderRepository

RECONNECT_SECONDS: Final = 1.0
REDRAW_SECONDS: Final = 1.0
"""Redraw this often even if nothing new came: the ages on the screen grow."""
FRAME_SECONDS: Final = 0.1
"""Never draw more often than this, however much the stream sends."""
QUERY_GRACE_SECONDS: Final = 1.0
"""Seconds that quitting waits for a query that is still running."""
COMMANDS: Final = {
    "p": ("pause", "paused, until you press r or someone resumes"),
    "r": ("resume", "resumed"),
    "s": ("scan", "scanning all folders"),
}
"""The daemon's command for each key, and the message when it is carried out."""


def top(config: Path | None) -> None:
    require_terminal("use `soulspot status` for a report, or `soulspot audit --follow` for each change on a line")
    settings = configure(config)
    asyncio.run(_Top(settings, find_catalogue(settings)).run())


class _Top:
    def __init__(self, settings: Settings, url: str) -> None:
        self._settings, self._url, self._view = settings, url, View()
        self._changed = asyncio.Event()
        self._commands: set[asyncio.Task[None]] = set()
        self._query: asyncio.Task[dict[str, Any]] | None = None

    async def run(self) -> None:
        with Terminal(self._on_key, self._changed.set) as self._terminal:
            tasks = [
                asyncio.create_task(self._follow(), name="top: follow the daemon"),
                asyncio.create_task(self._draw(), name="top: draw"),
                asyncio.create_task(self._terminal.closed.wait(), name="top: wait for the end"),
            ]
            try:
                done, _others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in [*tasks, *self._commands]:
                    task.cancel()
                # A query that is cancelled twice, here and by the end of the loop, may never end (aiosqlite 0.22).
                if self._query is not None:
                    await asyncio.wait([self._query], timeout=QUERY_GRACE_SECONDS)
            for task in done:
                task.result()

    async def _draw(self) -> None:
        while True:
            self._changed.clear()
            columns, rows = self._terminal.size
            self._terminal.draw(screen(self._view, columns - 1, rows))
            await asyncio.sleep(FRAME_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), REDRAW_SECONDS)

    async def _follow(self) -> None:
        """Follow the daemon; while none runs, show what the catalogue holds and try again."""
        while True:
            try:
                if (socket := daemon_address.socket_to_ask(self._settings, self._url)) is not None:
                    async with aclosing(control_socket.stream_answers(socket, "live")) as stream:
                        async for line in stream:
                            self._view.update(line)
                            self._changed.set()
            except OSError as error:
                self._view.reason = error.strerror or str(error)
            self._view.disconnect()
            try:
                self._query = asyncio.create_task(self._read_catalogue(), name="top: read the catalogue")
                self._view.update(await asyncio.shield(self._query))
            except SoulspotError as error:
                self._view.reason = str(error)
            self._changed.set()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _read_catalogue(self) -> dict[str, Any]:
        """Return what the catalogue holds, in the form of a line of the stream."""
        async with open_catalogue(self._settings) as database:
            totals, folders = await query_totals(database), await FolderRepository(database.session).all()
            entries = await AuditLogQueries(database.session).entries(limit=20)
        states = {"offline": "offline", "unmounted": "offline", "held": "held"}
        return {
            "vitals": {
                "folders": {
                    each.path: {states[each.status]: each.status_reason} if each.status in states else {}
                    for each in folders
                },
                "totals": totals_message(totals),
            },
            "happened": [
                {"at": each.at.isoformat(), "kind": each.action, "path": each.path or each.entity_id}
                for each in entries
            ],
        }

    def _on_key(self, key: str) -> None:
        if key in "qQ":
            self._terminal.closed.set()
        elif key in COMMANDS and self._view.is_admin:
            task = asyncio.create_task(self._command(*COMMANDS[key]), name=f"top: {COMMANDS[key][0]}")
            self._commands.add(task)
            task.add_done_callback(self._commands.discard)
        elif key in COMMANDS:
            self._notify(f"{COMMANDS[key][0]}: only the daemon's own user and root may do that")

    async def _command(self, command: str, done: str) -> None:
        answer = await asyncio.to_thread(daemon_address.ask, self._settings, self._url, command)
        self._notify("the daemon did not answer" if answer is None else answer.get("error", done))

    def _notify(self, message: str) -> None:
        self._view.notify(message)
        self._changed.set()
