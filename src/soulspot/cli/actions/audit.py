"""`soulspot audit`: prints the history, and follows it."""

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from soulspot.cli.actions.open_catalogue import catalogue_path, configure, open_catalogue
from soulspot.cli.output.text import local_time, print_json, printable
from soulspot.cli.output.time_spans import moment
from soulspot.cli.rights import find_catalogue
from soulspot.config import Settings, daemon_address
from soulspot.infrastructure.catalogue_changes import CatalogueChanges
from soulspot.infrastructure.persistence.models import AuditEntry
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.queries.audit_tail import AuditTail
from soulspot.ingest.database_retry import retry_database


@dataclass(frozen=True, slots=True)
class AuditQuestion:
    file: str | None
    artist: str | None
    action: str | None
    since: str | None
    limit: int | None


def print_audit(question: AuditQuestion, config: Path | None, *, follow: bool, as_json: bool) -> None:
    try:
        asyncio.run(_audit(question, configure(config), follow=follow, as_json=as_json))
    except KeyboardInterrupt:
        if not follow:
            raise


async def _audit(question: AuditQuestion, settings: Settings, *, follow: bool, as_json: bool) -> None:
    since = moment(question.since, "--since") if question.since else None
    path = catalogue_path(question.file) if question.file else None
    async with open_catalogue(settings) as database:
        log = AuditLogQueries(database.session)
        matching = partial(log.entries, path=path, artist=question.artist, action=question.action)
        last = await log.last_sequence()
        found = await matching(since=since, limit=question.limit)
        print_entries(found, as_json=as_json)
        if not follow:
            return
        tail = AuditTail(log, max([last, *(entry.sequence for entry in found)]))
        find_socket = partial(daemon_address.socket_to_ask, settings, find_catalogue(settings))
        async with CatalogueChanges.of(database, find_socket) as changes:
            while True:
                if numbers := await retry_database(tail.new):
                    print_entries(await retry_database(partial(matching, among=numbers)), as_json=as_json)
                else:
                    await changes.wait()


def print_entries(entries: Iterable[AuditEntry], *, as_json: bool = False) -> None:
    """Print entries of the history, each on a line, at once."""
    for entry in entries:
        if as_json:
            names = ("sequence", "at", "action", "entity_type", "entity_id", "path", "changes", "run")
            print_json({name: getattr(entry, name) for name in names})
        else:
            changes = "; ".join(f"{name}: {_change(value)}" for name, value in (entry.changes or {}).items())
            line = f"{local_time(entry.at)}  {entry.action:<15} {entry.path or entry.entity_id}"
            print(printable(f"{line}  {changes}" if changes else line))
    sys.stdout.flush()


def _change(value: object) -> str:
    before_and_after = value if isinstance(value, list) and len(value) == 2 else [value]  # noqa: PLR2004
    return " → ".join("nothing" if each is None else str(each) for each in before_and_after)
