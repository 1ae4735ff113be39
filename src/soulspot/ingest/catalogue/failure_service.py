"""Writes a person's decision about a file that could not be read: retry it, or ignore it."""

from collections.abc import Container, Mapping
from typing import Final

from soulspot.infrastructure.filesystem import full_path
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.records import FailureQuestion
from soulspot.infrastructure.persistence.repositories import AuditRepository, FileRepository
from soulspot.ingest.catalogue.columns import Columns

_DECISIONS: Final[Mapping[str, tuple[str, Columns]]] = {
    "retry": ("file_retried", {"status": "failed", "parser_version": 0}),  # no parser's: the next check reads it again
    "ignore": ("file_ignored", {"status": "ignored"}),  # not a failure any more, until it changes
}
"""The audit action and the new values of each verb."""


class FailureService:
    """Applies decisions, each in one transaction."""

    def __init__(self, database: Database, *, run: str) -> None:
        self._database = database
        self._files = FileRepository(database.session)
        self._audit = AuditRepository(database.session, run=run)

    async def decide(self, verb: str, question: FailureQuestion, folders: Container[str]) -> list[File]:
        """Retry or ignore the failures in some folders that match a question; return those that still were failures."""
        found = [file for file in await self._files.failed(question) if file.folder_id in folders]
        return [file for file in found if await self._decide(verb, file)]

    async def _decide(self, verb: str, file: File) -> bool:
        action, values = _DECISIONS[verb]
        async with self._database.transaction():
            row = await self._files.values(file.id)
            if row is None or row["status"] not in {"failed", "ignored"}:
                return False
            path = full_path(file.folder.path, row["path"])
            await self._files.set(file.id, **values)
            await self._audit.log_action(action, file.id, path=path, changes={"code": row["error_code"]})
        return True
