"""Opens the files that soulspot keeps beside a catalogue, without following links.

The folder may belong to a user that the process must not trust: the service's user, when root runs a command. So each
file is opened through the descriptor of its folder, and refused unless it is a regular file with a single name. Its
owner and mode are set through its own descriptor. All functions block, for as long as a local disk does.
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
"""Maximum bytes of a soulspot file; a longer file is refused."""


class NotPrivateError(OSError):
    """Not a soulspot file: a link, a file with several names, a folder, pipe, socket or device."""


def open_private(path: str | Path, flags: int, mode: int = 0o600) -> int:
    """Open a soulspot file and return its descriptor.

    Raises:
        NotPrivateError: the path is not a regular file with a single name.
        OSError: as `open` does.

    """
    with _opened_folder(path) as (folder, name):
        return _opened(folder, name, str(path), flags, mode)


def read_private(path: str | Path) -> bytes:
    """Return the content of a soulspot file; raises as `open_private` does."""
    descriptor = open_private(path, os.O_RDONLY)
    try:
        content = b""
        while more := os.read(descriptor, READ_LIMIT):
            content += more
            if len(content) > READ_LIMIT:
                raise NotPrivateError(errno.EFBIG, "it is longer than any soulspot file", str(path))
        return content
    finally:
        os.close(descriptor)


def write_private(path: str | Path, content: bytes, mode: int = 0o600) -> None:
    """Create or replace a soulspot file atomically; it gets the owner of its folder."""
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
    """Give a file that root created to the owner of its folder, so that the service can use it."""
    if os.geteuid() == 0:
        owner = os.stat(folder)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def make_folder(path: str | Path, mode: int = 0o700) -> None:
    """Create a soulspot folder and its parents; it gets the owner of its parent folder."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.mkdir(path, mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        hand_over(descriptor, os.path.dirname(path))
    finally:
        os.close(descriptor)


def set_socket_rights(path: Path, *, mode: int, group: int | None) -> os.stat_result:
    """Set the group and mode of a socket; return its status. Raises as `open_private` does."""
    with _opened_folder(path) as (folder, name):
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISSOCK(status.st_mode):
            raise NotPrivateError(errno.EEXIST, "it is no longer a socket", str(path))
        own_path = f"/proc/self/fd/{descriptor}"  # fchown and fchmod refuse a descriptor of O_PATH
        if group is not None:
            os.chown(own_path, -1, group)
        os.chmod(own_path, mode)
        return status
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
        if error.errno in {
            errno.ELOOP,
            errno.ENXIO,
            errno.EISDIR,
        }:  # a link, a socket, a folder, an unread pipe
            raise _refused(path) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise _refused(path)
    return descriptor


def _refused(path: str) -> NotPrivateError:
    return NotPrivateError(errno.EPERM, "it is a link, or not a regular file: remove it", path)
