"""Copies an SQLite catalogue through SQLite's backup API while it is in use, checks the copy, and syncs it to disk.

A copy is one file that only its owner may read. PostgreSQL has its own tools for this (pg_dump, pg_restore).
"""

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from soulspot.errors import CatalogueError
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.private_files import hand_over, open_private

_PRIVATE: Final = 0o600
_COMPANIONS: Final = ("-wal", "-shm", "-journal")


async def copy(database: Database, target: Path) -> Path:
    """Write a copy to a path that does not exist; raises CatalogueError if the catalogue turns out to be damaged."""
    partial = target.with_name(target.name + ".part")
    partial.unlink(missing_ok=True)
    try:
        _make_private(partial)
        with closing(sqlite3.connect(partial, check_same_thread=False, isolation_level=None)) as written:
            await database.backend.copy_into(written)
            verdict = await asyncio.to_thread(_close_to_one_file, written)
        if verdict != "ok":
            raise CatalogueError(
                f"{database.url.database} is damaged ({verdict}): restore a copy; {partial} is what could be read"
            )
        await asyncio.to_thread(_sync_and_rename, partial, target)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            partial.unlink()
        raise CatalogueError(f"{database.url.database} could not be copied to {target}: {error}") from error
    return target


def rescue_place(file: Path) -> Path:
    return file.with_name(f"{file.name}.rescued-{_moment()}")


def upgrade_place(file: Path, revision: str) -> Path:
    return file.with_name(f"{file.name}.before-upgrade-{revision}-{_moment()}")


def backup_place(file: Path, folder: Path) -> Path:
    return folder / f"{file.stem}-{_moment()}{file.suffix}"


def backups(file: Path, folder: Path) -> list[Path]:
    """Return the backups of a catalogue in a folder, the oldest first."""
    pattern = f"{file.stem}-{'[0-9]' * 8}T{'[0-9]' * 6}Z{file.suffix}"
    return sorted(folder.glob(pattern)) if folder.is_dir() else []


def keep_newest(found: Sequence[Path], keep: int) -> Sequence[Path]:
    """Delete all but the newest backups; return those deleted."""
    for old in found[:-keep]:
        old.unlink()
    return found[:-keep]


def put_in_place(copied: Path, file: Path) -> Path | None:
    """Give a copy the catalogue's name; keep the previous catalogue beside it, and return its new path. Blocks."""
    kept = file.with_name(f"{file.name}.before-restore-{_moment()}")
    was_there = file.exists()
    descriptor = open_private(copied, os.O_RDWR)
    try:
        hand_over(descriptor, copied.parent)
        os.fchmod(descriptor, file.stat().st_mode & 0o777 if was_there else 0o640)
    finally:
        os.close(descriptor)
    for ending in _COMPANIONS:
        # If it stayed, SQLite would apply the log of the old catalogue to the new one.
        with suppress(FileNotFoundError):
            os.rename(f"{file}{ending}", f"{kept}{ending}")
    if was_there:
        file.rename(kept)
    copied.rename(file)
    _sync(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    return kept if was_there else None


def _close_to_one_file(written: sqlite3.Connection) -> str:
    verdict = str(written.execute("PRAGMA quick_check").fetchone()[0])
    written.execute("PRAGMA journal_mode=DELETE")  # the copy has the mode of its source, which needs companion files
    return verdict


def _make_private(partial: Path) -> None:
    descriptor = open_private(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE)
    try:
        hand_over(descriptor, partial.parent)
    finally:
        os.close(descriptor)


def _sync_and_rename(partial: Path, target: Path) -> None:
    descriptor = open_private(partial, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.rename(target)
    _sync(target.parent, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _moment() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
