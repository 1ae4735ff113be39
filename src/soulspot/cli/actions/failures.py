"""`soulspot failures`: lists and explains the files that could not be read, and retries or ignores them."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from soulspot.cli.actions.audit import print_entries
from soulspot.cli.actions.open_catalogue import (
    catalogue_path,
    configure,
    find_file,
    open_for_writing,
    query_catalogue,
)
from soulspot.cli.actions.purge import places_of
from soulspot.cli.output.text import Row, local_time, print_json, print_rows, printable
from soulspot.cli.output.time_spans import moment
from soulspot.cli.rights import find_catalogue
from soulspot.config import Settings, daemon_address, database_file
from soulspot.errors import ConfigError, LockHeldError, NotFoundError
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.models import AuditEntry, File
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.records import FailureQuestion
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.catalogue.failure_service import FailureService
from soulspot.ingest.database_retry import retry_database
from soulspot.reports.failure_advice import ADVICE

DECISION_LIMIT: Final = 60.0
"""Seconds to wait for the daemon to decide many failures."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The failures that the command line selects."""

    path: str | None = None
    code: str | None = None
    older_than: str | None = None
    newer_than: str | None = None
    ignored: bool = False

    def is_of_all(self) -> bool:
        return not (self.path or self.code or self.older_than or self.newer_than)

    def question(self) -> FailureQuestion:
        if self.code is not None and self.code not in ADVICE:
            raise ConfigError(f"--code {self.code} is unknown: the codes are {', '.join(ADVICE)}")
        return FailureQuestion(
            code=self.code,
            path=catalogue_path(self.path) if self.path else None,
            before=moment(self.older_than, "--older-than") if self.older_than else None,
            since=moment(self.newer_than, "--newer-than") if self.newer_than else None,
            ignored=self.ignored,
        )


def print_list(asked: Asked, config: Path | None, *, limit: int | None, as_json: bool) -> None:
    question = asked.question()
    found = query_catalogue(config, lambda database: FileRepository(database.session).failed(question, limit))
    print_rows(
        map(_as_json, found),
        {"code": "code", "last tried": _last_tried, "file": "path", "reason": "reason"},
        as_json=as_json,
    )


def show(asked: str, config: Path | None, *, as_json: bool) -> None:
    async def read(database: Database) -> tuple[File, Sequence[AuditEntry]]:
        file = await find_file(database, asked)
        return file, await AuditLogQueries(database.session).entries(entities=[file.id])

    file, entries = query_catalogue(config, read)
    if file.error_code is None:
        raise NotFoundError(f"{printable(file.full_path)} is not a failure: see `soulspot track`")
    described = _as_json(file)
    if as_json:
        history = [{"at": entry.at, "action": entry.action, "changes": entry.changes} for entry in entries]
        print_json(described | {"history": history})
        return
    last_tried = _last_tried(described)
    described |= {
        "file": file.full_path,
        "tried": f"{file.attempts} times, last {last_tried}" if last_tried else file.attempts,
        "size": f"{file.size} bytes",
    }
    for name in ("file", "status", "code", "reason", "advice", "tried", "size", "id"):
        print(f"{name:<8}{printable(str(described[name]))}")
    print_entries(entries)


def decide(verb: str, asked: Asked, config: Path | None, *, of_all: bool, as_json: bool) -> None:
    """Retry or ignore the selected failures: by the running daemon, else in this process."""
    if asked.is_of_all() and not of_all:
        raise ConfigError(f"name a file or folder, a --code or an age, or use `failures {verb} --all`")
    question, settings = asked.question(), configure(config)
    by_daemon = _decide_by_daemon(verb, question, settings)
    decided = asyncio.run(_decide(verb, question, settings)) if by_daemon is None else by_daemon
    if not decided:
        raise NotFoundError("no failure matches: `soulspot failures list` shows them all")
    for each in decided:
        if as_json:
            print_json(each)
        else:
            print(f"{verb}\t{printable(each['path'])}")
    if verb == "retry" and not as_json:
        by_next_scan = "the next scan or start of the daemon reads them again"
        print(by_next_scan if by_daemon is None else "the daemon reads them again now")


async def _decide(verb: str, question: FailureQuestion, settings: Settings) -> list[dict[str, Any]]:
    command, run = f"failures {verb}", new_id()
    async with open_for_writing(settings, find_catalogue(settings), command) as database:
        found = await FileRepository(database.session).failed(question)
        async with database.backend.lock_folders(places_of(found), command, node=socket.gethostname(), run=run):
            service, folders = FailureService(database, run=run), {file.folder_id for file in found}
            files = await retry_database(service.decide, verb, question, folders)
    return [{"id": file.id, "path": file.full_path, "code": file.error_code} for file in files]


def _decide_by_daemon(verb: str, question: FailureQuestion, settings: Settings) -> list[dict[str, Any]] | None:
    """Let the running daemon decide, as it holds the lock; return its decisions, None if none runs."""
    asked, url = {"verb": verb, "which": msgspec.to_builtins(question)}, find_catalogue(settings)
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


def _last_tried(failure: Row) -> str | None:
    return local_time(failure["failed_at"]) if failure["failed_at"] else None
