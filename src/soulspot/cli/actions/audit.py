"""`soulspot audit`: prints the history, and follows it."""

import asyncio
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from soulspot.cli.actions.open_catalogue import open_catalogue
from soulspot.cli.output.text import local_time, print_json, printable
from soulspot.cli.output.time_spans import moment
from soulspot.cli.rights import get_settings
from soulspot.config import daemon_address
from soulspot.infrastructure.catalogue_changes import CatalogueChanges
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.models import AuditEntry
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.queries.audit_tail import AuditTail
from soulspot.ingest.retry import retry_database


@dataclass(frozen=True, slots=True)
class AuditQuestion:
    file: str | None
    artist: str | None
    action: str | None
    since: str | None
    limit: int | None


def print_audit(question: AuditQuestion, config: Path | None, *, follow: bool, as_json: bool) -> None:
    try:
        asyncio.run(_audit(question, config, follow=follow, as_json=as_json))
    except KeyboardInterrupt:
        if not follow:
            raise


async def _audit(question: AuditQuestion, config: Path | None, *, follow: bool, as_json: bool) -> None:
    since = moment(question.since, "--since") if question.since else None
    path = path_to_text(str(Path(question.file).absolute())) if question.file else None
    asked: dict[str, Any] = {"path": path, "artist": question.artist, "action": question.action}
    async with open_catalogue(config) as (database, url):
        entries = AuditLogQueries(database.session)
        last = await entries.last_sequence()
        for entry in await entries.entries(**asked, since=since, limit=question.limit):
            print_entry(entry, as_json=as_json)
            last = max(last, entry.sequence)
        if follow:
            sys.stdout.flush()
            following = AuditTail(entries, last)
            find_socket = partial(daemon_address.socket_to_ask, get_settings(config_file=config), url)
            async with CatalogueChanges.of(database, find_socket) as changes:
                while True:
                    if not (numbers := await retry_database(following.new)):
                        await changes.wait()
                        continue
                    for entry in await retry_database(partial(entries.entries, **asked, among=numbers)):
                        print_entry(entry, as_json=as_json)
                    sys.stdout.flush()


def print_entry(entry: AuditEntry, *, as_json: bool) -> None:
    if as_json:
        names = ("sequence", "at", "action", "entity_type", "entity_id", "path", "changes", "run")
        print_json({name: getattr(entry, name) for name in names})
    else:
        changes = "; ".join(f"{name}: {_change(value)}" for name, value in (entry.changes or {}).items())
        line = f"{local_time(entry.at)}  {entry.action:<15} {entry.path or entry.entity_id}"
        print(printable(f"{line}  {changes}" if changes else line), flush=True)


def _change(value: object) -> str:
    if isinstance(value, list) and len(value) == 2:  # noqa: PLR2004 - before and after
        return f"{_shown(value[0])} → {_shown(value[1])}"
    return _shown(value)


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)
