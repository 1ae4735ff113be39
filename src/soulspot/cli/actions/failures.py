"""`soulspot failures`: lists and explains the files that could not be read, and retries or ignores them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from soulspot.cli.actions.audit import print_entry
from soulspot.cli.actions.open_catalogue import find_file, open_catalogue
from soulspot.cli.actions.purge import places_of
from soulspot.cli.output import logs
from soulspot.cli.output.text import local_time, print_json, print_table, printable
from soulspot.cli.output.time_spans import moment
from soulspot.cli.rights import find_catalogue, get_settings
from soulspot.config import daemon_address
from soulspot.config.paths import database_file
from soulspot.errors import ConfigError, LockHeldError, NotFoundError
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.records import FailureQuestion
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.persistence.schema import require_current
from soulspot.infrastructure.persistence.sqlite.lock_file import writer_lock
from soulspot.ingest.catalogue.failure_service import FailureService
from soulspot.ingest.retry import retry_database
from soulspot.reports.failure_advice import ADVICE

DECISION_LIMIT: Final = 60.0
"""Seconds to wait for the daemon to decide many failures."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which failures the command line selects."""

    path: str | None = None
    code: str | None = None
    older_than: str | None = None
    newer_than: str | None = None
    ignored: bool = False

    def is_of_all(self) -> bool:
        return not (self.path or self.code or self.older_than or self.newer_than)

    def question(self) -> FailureQuestion:
        if self.code is not None and self.code not in ADVICE:
            msg = f"--code {self.code} is unknown: the codes are {', '.join(ADVICE)}"
            raise ConfigError(msg)
        return FailureQuestion(
            code=self.code,
            path=path_to_text(str(Path(self.path).absolute())) if self.path else None,
            before=moment(self.older_than, "--older-than") if self.older_than else None,
            since=moment(self.newer_than, "--newer-than") if self.newer_than else None,
            ignored=self.ignored,
        )


def print_list(asked: Asked, config: Path | None, *, limit: int | None, as_json: bool) -> None:
    asyncio.run(_print_list(asked, config, limit=limit, as_json=as_json))


def show(asked: str, config: Path | None, *, as_json: bool) -> None:
    asyncio.run(_show(asked, config, as_json=as_json))


def decide(verb: str, asked: Asked, config: Path | None, *, of_all: bool, as_json: bool) -> None:
    """Retry or ignore the selected failures."""
    if asked.is_of_all() and not of_all:
        msg = f"name a file or folder, a --code or an age, or use `failures {verb} --all`"
        raise ConfigError(msg)
    asyncio.run(_decide(verb, asked, config, as_json=as_json))


async def _print_list(asked: Asked, config: Path | None, *, limit: int | None, as_json: bool) -> None:
    question = asked.question()
    async with open_catalogue(config) as (database, _url):
        found = await FileRepository(database.session).failed(question, limit)
    if as_json:
        for file in found:
            print_json(_as_json(file))
        return
    print_table(("code", "last tried", "file", "reason"), [_row(file) for file in found])


async def _show(asked: str, config: Path | None, *, as_json: bool) -> None:
    async with open_catalogue(config) as (database, _url):
        file = await find_file(database, asked)
        entries = await AuditLogQueries(database.session).entries(entities=[file.id])
    if file.error_code is None:
        msg = f"{printable(file.full_path)} is not a failure: see `soulspot track`"
        raise NotFoundError(msg)
    if as_json:
        history = [{"at": entry.at, "action": entry.action, "changes": entry.changes} for entry in entries]
        print_json(_as_json(file) | {"history": history})
        return
    described = _as_json(file)
    for name, value in (
        ("file", described["path"]),
        ("status", file.status),
        ("code", file.error_code),
        ("reason", file.error_text),
        ("advice", described["advice"]),
        ("tried", f"{file.attempts} times, last {local_time(file.failed_at)}" if file.failed_at else file.attempts),
        ("size", f"{file.size} bytes"),
        ("id", file.id),
    ):
        print(f"{name:<8}{printable(str(value))}")
    for entry in entries:
        print_entry(entry, as_json=False)


async def _decide(verb: str, asked: Asked, config: Path | None, *, as_json: bool) -> None:
    question = asked.question()
    decided = _decide_by_daemon(verb, question, config)
    then = "the daemon reads them again now"
    if decided is None:
        then = "the next scan or start of the daemon reads them again"
        async with _open_for_writing(config, f"failures {verb}") as database:
            found, run = await FileRepository(database.session).failed(question), new_id()
            failures, folders = FailureService(database, run=run), {file.folder_id for file in found}
            async with database.backend.lock_folders(
                places_of(found), f"failures {verb}", node=socket.gethostname(), run=run
            ):
                files = await retry_database(failures.decide, verb, question, folders)
        decided = [{"id": file.id, "path": file.full_path, "code": file.error_code} for file in files]
    if as_json:
        for each in decided:
            print_json(each)
    elif decided:
        for each in decided:
            print(f"{verb}\t{printable(each['path'])}")
        if verb == "retry":
            print(then)
    if not decided:
        msg = "no failure matches: `soulspot failures list` shows them all"
        raise NotFoundError(msg)


def _decide_by_daemon(verb: str, question: FailureQuestion, config: Path | None) -> list[dict[str, Any]] | None:
    """Let the running daemon decide, as it holds the lock; return its decisions, None if none runs."""
    settings = get_settings(config_file=config)
    asked = {"verb": verb, "which": msgspec.to_builtins(question)}
    url = find_catalogue(settings)
    answer = daemon_address.ask(settings, url, "failures", within=DECISION_LIMIT, **asked)
    if answer is not None and "error" in answer:
        raise LockHeldError(answer["error"])
    if answer is None or not (answer["decided"] or database_file(url)):
        return None  # on PostgreSQL it decides only about folders that it watches
    return list(answer["decided"])


def _as_json(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "path": file.full_path,
        "status": file.status,
        "code": file.error_code,
        "reason": file.error_text,
        "advice": ADVICE.get(file.error_code or ""),
        "attempts": file.attempts,
        "failed_at": file.failed_at,
        "size": file.size,
        "track_id": file.track_id,
    }


def _row(file: File) -> Sequence[object]:
    last = local_time(file.failed_at) if file.failed_at else None
    return file.error_code, last, file.full_path, file.error_text


@asynccontextmanager
async def _open_for_writing(config: Path | None, command: str) -> AsyncIterator[Database]:
    """Open the existing catalogue for writing.

    Raises LockHeldError, which names the process that holds the lock.
    """
    settings = get_settings(config_file=config)
    logs.set_up(settings.log.level, settings.log.format)
    url = find_catalogue(settings)
    file = database_file(url)
    with writer_lock(file, command) if file else nullcontext():
        async with Database(url, synchronous=settings.database.synchronous) as database:
            await require_current(database)
            yield database
