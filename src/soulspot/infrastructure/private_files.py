"""Opens the files that soulspot keeps beside a catalogue: no link is followed, and nothing else is touched.

The folder may belong to somebody whom the process must not trust: the service's user, when root runs a command. So
each file is opened by the descriptor of its folder, is a regular file with one name or is refused, and gets its owner
and its mode by its own descriptor. Everything here blocks for no longer than a local disk does.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ALWAYS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
READ_LIMIT: Final = 1 << 20
"""Bytes that are read of a file of ours at most; one that is longer is none."""


class NotPrivateError(OSError):
    """A link, a file with other names, a folder, pipe, socket or device where a file of ours was expected."""


def open_private(path: str | Path, flags: int, mode: int = 0o600) -> int:
    """Open a file of ours and return its descriptor.

    Raises:
        NotPrivateError: what is there is none.
        OSError: as `open` does.

    """
    with _opened_folder(path) as (folder, name):
        return _opened(folder, name, str(path), flags, mode)


def read_private(path: str | Path) -> bytes:
    """Return what a file of ours holds; raises as `open_private` does."""
    descriptor = open_private(path, os.O_RDONLY)
    try:
        content = b""
        while more := os.read(descriptor, READ_LIMIT):
            content += more
            if len(content) > READ_LIMIT:
                raise NotPrivateError(errno.EFBIG, "it is longer than any file of ours", str(path))
        return content
    finally:
        os.close(descriptor)


def write_private(path: str | Path, content: bytes, mode: int = 0o600) -> None:
    """Put a file of ours in place, whole or not at all, and whatever was there before; it gets the folder's owner."""
    with _opened_folder(path) as (folder, name):
        unfinished = f"{name}.{os.urandom(4).hex()}.new"
        descriptor = _opened(folder, unfinished, str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with open(descriptor, "wb") as file:
                hand_over(file.fileno(), folder)
                os.fchmod(file.fileno(), mode)
                file.write(content)
            os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished, dir_fd=folder)
            raise


def hand_over(descriptor: int, folder: int | str | Path) -> None:
    """Give what root has made to the owner of its folder: the service could not use it otherwise."""
    if os.geteuid() == 0:
        owner = os.stat(folder)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def make_folder(path: str | Path, mode: int = 0o700) -> None:
    """Make a folder of ours, with those above it; it gets the owner of the one that it is in."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.mkdir(path, mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        hand_over(descriptor, os.path.dirname(path))
    finally:
        os.close(descriptor)


def set_socket_rights(path: Path, *, mode: int, group: int | None) -> os.stat_result:
    """Give a socket its group and mode, and return what it is; raises as `open_private` does."""
    with _opened_folder(path) as (folder, name):
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        made = os.fstat(descriptor)
        if not stat.S_ISSOCK(made.st_mode):
            raise NotPrivateError(errno.EEXIST, "it is no socket by now", str(path))
        itself = f"/proc/self/fd/{descriptor}"  # neither fchown nor fchmod takes a socket that has a name
        if group is not None:
            os.chown(itself, -1, group)
        os.chmod(itself, mode)
        return made
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened_folder(path: str | Path) -> Iterator[tuple[int, str]]:
    above, name = os.path.split(os.path.abspath(path))
    folder = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder, name
    finally:
        os.close(folder)


def _opened(folder: int, name: str, path: str, flags: int, mode: int) -> int:
    try:
        descriptor = os.open(name, flags | _ALWAYS, mode, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:  # a link; a socket, or a pipe that nobody reads
            raise _refused(path) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise _refused(path)
    return descriptor


def _refused(path: str) -> NotPrivateError:
    return NotPrivateError(errno.EPERM, "it is a link, or not a regular file: remove it", path)
