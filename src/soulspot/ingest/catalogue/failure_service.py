"""Writes what a person decides about a file that could not be read: retry it, or ignore it."""

from collections.abc import Container

from soulspot.infrastructure.filesystem import full_path
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.records import FailureQuestion
from soulspot.infrastructure.persistence.repositories import AuditRepository, FileRepository

_NEVER_READ = 0
"""The parser version of a file that is to be read again, whatever it was read by."""


class FailureService:
    """Each verb is one transaction; False where the file is not a failure any more."""

    def __init__(self, database: Database, *, run: str) -> None:
        self._database = database
        self._files = FileRepository(database.session)
        self._audit = AuditRepository(database.session, run=run)

    async def decide(self, verb: str, question: FailureQuestion, folders: Container[str]) -> list[File]:
        """Retry or ignore the failures that are meant in some folders; return those."""
        act = {"retry": self.retry, "ignore": self.ignore}[verb]
        found = [file for file in await self._files.failed(question) if file.folder_id in folders]
        return [file for file in found if await act(file)]

    async def retry(self, file: File) -> bool:
        """Have a file read by the next look at it, although it has not changed."""
        return await self._decide("file_retried", file, status="failed", parser_version=_NEVER_READ)

    async def ignore(self, file: File) -> bool:
        """Count a file as a failure no more, until it changes."""
        return await self._decide("file_ignored", file, status="ignored")

    async def _decide(self, action: str, file: File, **values: object) -> bool:
        async with self._database.transaction():
            row = await self._files.values(file.id)
            if row is None or row["status"] not in {"failed", "ignored"}:
                return False
            changes = {"code": row["error_code"]}
            path = full_path(file.folder.path, row["path"])
            await self._files.set(file.id, **values)
            await self._audit.log_action(action, file.id, path=path, changes=changes)
        return True
