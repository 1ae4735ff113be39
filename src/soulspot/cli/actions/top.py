"""`soulspot top`: what happens, while it happens; fed by one stream of the control socket."""

import asyncio
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from soulspot.cli.actions.open_catalogue import catalogue, whole_path
from soulspot.cli.output.terminal import Terminal, require_terminal
from soulspot.cli.output.top_view import View, lines
from soulspot.cli.rights import find_catalogue, get_settings
from soulspot.config import Settings, daemon_address
from soulspot.errors import SoulspotError
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.repositories import AuditRepository, FileRepository, FolderRepository

AGAIN_AFTER: Final = 1.0
"""Seconds until a daemon is looked for again."""
TICK: Final = 1.0
"""Seconds after which the picture is drawn anew, though nothing came: times go by."""
LOOK_LIMIT: Final = 1.0
"""Seconds for which whoever quits waits for a look at the catalogue."""
KEYS: Final = {"p": "pause", "r": "resume", "s": "scan"}


def top(config: Path | None) -> None:
    require_terminal("`soulspot status` says how it is, `soulspot audit --follow` what happens, line by line")
    settings = get_settings(config_file=config)
    asyncio.run(_Top(settings, find_catalogue(settings), config).run())


class _Top:
    def __init__(self, settings: Settings, url: str, config: Path | None) -> None:
        self._settings, self._url, self._config = settings, url, config
        self._view = View()
        self._changed = asyncio.Event()
        self._asked: set[asyncio.Task[None]] = set()
        self._look: asyncio.Task[dict[str, Any]] | None = None

    async def run(self) -> None:
        with Terminal(self._on_key, self._changed.set) as terminal:
            self._terminal = terminal
            tasks = [asyncio.create_task(each) for each in (self._listen(), self._draw(), terminal.left.wait())]
            try:
                done, _others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in [*tasks, *self._asked]:
                    task.cancel()
                # A look that is cut short, and again by the end of the loop, may never end (aiosqlite 0.22).
                if self._look is not None:
                    await asyncio.wait([self._look], timeout=LOOK_LIMIT)
            for task in done:
                task.result()

    async def _draw(self) -> None:
        while True:
            self._changed.clear()
            columns, rows = self._terminal.size
            self._terminal.draw(lines(self._view, columns - 1, rows))
            try:
                async with asyncio.timeout(TICK):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _listen(self) -> None:
        """Follow the daemon; where none runs, show what the catalogue has, and look for one again."""
        while True:
            place = daemon_address.place_to_ask(self._settings, self._url)
            if place is not None:
                try:
                    async with aclosing(control_socket.listen(place, "live")) as answers:
                        async for told in answers:
                            self._view.hear(told)
                            self._changed.set()
                except OSError as error:
                    self._view.reason = error.strerror or str(error)
            self._view.lose()
            try:
                self._look = asyncio.create_task(self._catalogue())
                self._view.hear(await asyncio.shield(self._look))
            except SoulspotError as error:
                self._view.reason = str(error)
            self._changed.set()
            await asyncio.sleep(AGAIN_AFTER)

    async def _catalogue(self) -> dict[str, Any]:
        """Return what the catalogue has, in the words of the stream."""
        async with catalogue(self._config) as (database, _url):
            files = FileRepository(database.session)
            counts, failures = await files.counts(), await files.failures(5)
            folders = await FolderRepository(database.session).all()
            entries = await AuditRepository(database.session).entries(limit=20)
        by_state, by_code = Counter[str](), Counter[str]()
        for (_folder, state, code), count in counts.items():
            by_state[state] += count
            by_code[code or "?"] += count if state == "failed" else 0
        last = [{"path": whole_path(each), "code": each.error_code, "detail": each.error_text} for each in failures]
        return {
            "vitals": {
                "folders": {
                    each.path: {
                        "offline": each.status_reason if each.status in {"offline", "unmounted"} else None,
                        "held": each.status_reason if each.status == "held" else None,
                    }
                    for each in folders
                },
                "totals": {"files": dict(by_state), "failures": dict(+by_code), "last_failures": last},
            },
            "happened": [
                {"at": each.at.isoformat(), "kind": each.action, "path": each.path or each.entity_id}
                for each in entries
            ],
        }

    def _on_key(self, key: str) -> None:
        if key in "qQ":
            self._terminal.left.set()
        elif key in KEYS:
            if not self._view.may_steer:
                self._view.say(f"{KEYS[key]}: that is for the user of the daemon, and for root")
                self._changed.set()
                return
            task = asyncio.create_task(self._steer(KEYS[key]))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)

    async def _steer(self, question: str) -> None:
        place = daemon_address.place_to_ask(self._settings, self._url)
        answer = await asyncio.to_thread(control_socket.ask, place, question) if place is not None else None
        said = {
            "pause": "paused, until r is pressed or somebody resumes",
            "resume": "it goes on",
            "scan": "all folders are looked at",
        }
        self._view.say("the daemon did not answer" if answer is None else answer.get("error", said[question]))
        self._changed.set()
