"""Whether a folder, and each file system mounted below it, can be believed."""

import os
from collections.abc import Iterable

from soulspot.infrastructure.filesystem import FileSystem, file_system_of
from soulspot.ingest.disk.walker import Root


def fault_of(root: Root, known_identity: str, some_known_paths: Iterable[str]) -> str | None:
    """Return why nothing may be concluded from what a folder does not hold, None where all is well; blocks.

    A folder on another file system than before is taken for the same library where a known file is still there.
    """
    known_paths = list(some_known_paths)
    try:
        with os.scandir(root.path) as entries:
            is_empty = next(entries, None) is None
    except FileNotFoundError:
        return "it is not there: is its disk mounted?"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if not known_paths:
        return None
    if is_empty:
        return "it is empty, and the catalogue knows files in it: is its disk mounted?"
    identity = file_system_of(root.path).identity
    if identity != known_identity and not any(os.path.lexists(root.full(path)) for path in known_paths):
        return f"it lies on another file system ({identity}, before {known_identity}) that holds none of its files"
    return None


def mount_fault_of(identity: str, now: FileSystem | None, some_known_files: Iterable[str]) -> str | None:
    """Return why nothing may be concluded from what is not found where a file system was mounted; blocks.

    `now` is what is mounted there, None for nothing; known files that are there say that it is the same library.
    """
    known = list(some_known_files)
    if not known or (now is not None and now.identity == identity) or any(map(os.path.lexists, known)):
        return None
    if now is None:
        return f"the file system that was mounted there ({identity}) is not"
    return f"another file system is mounted there ({now.identity}, before {identity}) that holds none of its files"
