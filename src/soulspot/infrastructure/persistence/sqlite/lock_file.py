"""Keeps a second writer out of an SQLite catalogue: the lock file beside it, held for the life of the process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from soulspot.errors import CatalogueError, LockHeldError
from soulspot.infrastructure.private_files import NotPrivateError, hand_over, open_private
from soulspot.infrastructure.privileges import acting_as


@contextmanager
def writer_lock(database_file: Path, command: str) -> Iterator[None]:
    """Hold `<database>.lock`; the kernel releases it when the process ends, however it ends.

    Raises LockHeldError, naming the holder, and CatalogueError if the folder cannot be written.
    """
    path = _lock_file(database_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_private(path, os.O_RDWR | os.O_CREAT, 0o640)
        hand_over(descriptor, path.parent)
    except NotPrivateError as error:
        msg = f"{path} is not the lock of a catalogue: {error.strerror}"
        raise CatalogueError(msg) from error
    except OSError as error:
        user = f" as {acting_as()}, the owner of the catalogue" if acting_as() else ""
        raise CatalogueError(
            f"cannot write {path.parent}{user} ({error.strerror}): fix the folder's permissions, or set another"
            " database.url"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another soulspot"
            raise LockHeldError(
                f"{database_file} is being written by {holder}: stop it first, or let it do the work"
            ) from error
        with suppress(OSError):  # a full disk: hold the lock without a name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"`soulspot {command}` (pid {os.getpid()})\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder_of(database_file: Path) -> str | None:
    """Return the command and pid that hold the lock, None if it is free or unreadable."""
    try:
        descriptor = open_private(_lock_file(database_file), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 200, 0).decode(errors="replace").strip()
    finally:
        os.close(descriptor)
    return None


def _lock_file(database_file: Path) -> Path:
    return database_file.with_name(database_file.name + ".lock")
