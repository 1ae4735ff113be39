"""Copies of an SQLite catalogue: made through SQLite's backup API while it is in use, checked, on disk before named.

A copy is one file that only its owner may read. PostgreSQL has tools of its own for this (pg_dump, pg_restore).
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from soulspot.errors import CatalogueError
from soulspot.infrastructure.private_files import hand_over, open_private

if TYPE_CHECKING:
    from soulspot.infrastructure.persistence.database import Database

_PRIVATE: Final = 0o600
_COMPANIONS: Final = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did; `kept` is where the catalogue is that was there before."""

    file: Path
    kept: Path | None


async def copy(database: "Database", target: Path) -> Path:
    """Write a copy to a path that nothing is at; raises CatalogueError when what was copied is damaged."""
    partial = target.with_name(target.name + ".part")
    partial.unlink(missing_ok=True)
    try:
        _make_private(partial)
        written = sqlite3.connect(partial, check_same_thread=False, isolation_level=None)
        try:
            await database.copy_into(written)
            verdict = await asyncio.to_thread(_close_to_one_file, written)
        finally:
            written.close()
        if verdict != "ok":
            msg = f"{database.url.database} is damaged ({verdict}): restore a copy; {partial} is what could be read"
            raise CatalogueError(msg)
        await asyncio.to_thread(_give_name, partial, target)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        msg = f"{database.url.database} could not be copied to {target}: {error}"
        raise CatalogueError(msg) from error
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


def keep_newest(found: Sequence[Path], keep: int) -> list[Path]:
    """Delete all but the newest backups; return those deleted."""
    old = list(found[:-keep])
    for each in old:
        each.unlink()
    return old


def put_in_place(copied: Path, file: Path) -> Restored:
    """Give a copy the catalogue's name; what had that name is kept beside it, with its write-ahead log; blocks."""
    kept = file.with_name(f"{file.name}.before-restore-{_moment()}")
    was_there = file.exists()
    descriptor = open_private(copied, os.O_RDWR)
    try:
        hand_over(descriptor, copied.parent)
        os.fchmod(descriptor, file.stat().st_mode & 0o777 if was_there else 0o640)
    finally:
        os.close(descriptor)
    for ending in _COMPANIONS:
        # Left where it is, a log of the old catalogue would be played into the new one.
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{file}{ending}", f"{kept}{ending}")
    if was_there:
        file.rename(kept)
    copied.rename(file)
    _sync_folder(file.parent)
    return Restored(file, kept if was_there else None)


def _close_to_one_file(written: sqlite3.Connection) -> str:
    verdict = str(written.execute("PRAGMA quick_check").fetchone()[0])
    written.execute("PRAGMA journal_mode=DELETE")  # it came with the mode of its source, which takes files beside it
    return verdict


def _make_private(partial: Path) -> None:
    descriptor = open_private(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE)
    try:
        hand_over(descriptor, partial.parent)
    finally:
        os.close(descriptor)


def _give_name(partial: Path, target: Path) -> None:
    descriptor = open_private(partial, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.rename(target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _moment() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
