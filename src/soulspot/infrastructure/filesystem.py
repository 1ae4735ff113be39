"""Files and file systems: signatures, writers, mounts, and paths as text.

Every function here may block; call them in a thread. Inside soulspot a path is a `str` as `os.fsdecode` returns it
(bytes that are not UTF-8 are lone surrogates). `path_to_text` converts it to text that a database can store and a
person can query, and `text_to_path` converts it back.
"""

import fcntl
import os
import re
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

MOUNT_TABLE = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\(\\|x[0-9a-f]{2})")
_SURROGATE = re.compile(r"[\\\udc80-\udcff]")
_OCTAL = re.compile(r"\\([0-7]{3})")

# inotify does not report what another machine writes there, and the inode numbers are invented.
NETWORK_FILE_SYSTEMS = frozenset(
    ("9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuse3", "fuseblk", "gfs2", "glusterfs", "lustre")
) | frozenset(("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs", "virtiofs"))


class NotRegularFileError(OSError):
    """A folder, pipe, socket, device or symbolic link where a file was expected; nothing was read from it."""


class Signature(NamedTuple):
    """What `stat` returned for a file: equal until the file changes.

    Times are in nanoseconds since 1970. The inode is a signed 64-bit number, as in databases.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        inode = status.st_ino if status.st_ino < 1 << 63 else status.st_ino - (1 << 64)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode)

    def same_content(self, other: "Signature") -> bool:
        """Whether both are one file with unchanged content; a rename or chmod changes only the ctime."""
        return (self.inode, self.size, self.mtime_ns) == (other.inode, other.size, other.mtime_ns)


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system that a path lies on.

    Attributes:
        kind: the kernel's name of its type, such as "ext4", "nfs4" or "fuse.sshfs".
        identity: its UUID or a number derived from it, else the source of the mount. Unlike a device number, it stays
            the same across boots.
        mount_point: where it is mounted.

    """

    kind: str
    identity: str
    mount_point: str

    @property
    def is_remote(self) -> bool:
        """Whether inotify may miss changes, and inode numbers mean nothing."""
        return self.kind.split(".")[0] in NETWORK_FILE_SYSTEMS


def open_regular(path: str) -> int:
    """Open a regular file for reading and return its descriptor; never waits for a pipe, never follows a link.

    Raises NotRegularFileError for anything else, and OSError as `open` does.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {40, 6}:  # ELOOP: a symbolic link; ENXIO: a socket
            raise NotRegularFileError(error.errno, "not a regular file", path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularFileError(22, "not a regular file", path)
    return descriptor


def ignore_lease_signals() -> None:
    """Keep the process alive when another opens a file for writing that this one holds a lease on.

    The kernel then sends SIGIO, which kills by default (fcntl(2), "Leases").
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def has_writer(path: str) -> bool | None:
    """Whether any process has the file open for writing; None if the kernel cannot tell.

    Takes a read lease and returns it at once: the kernel grants one only while no process has the file open for writing
    under any name, or mapped. That needs the file's owner or CAP_LEASE, and a local file system. Raises OSError if the
    file cannot be opened.
    """
    descriptor = open_regular(path)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    else:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    finally:
        os.close(descriptor)


def file_system_of(path: str) -> FileSystem:
    """Return the file system of a path, of kind "unknown" if the kernel's list lacks it."""
    real = os.path.realpath(path)
    best = FileSystem("unknown", "unknown", "/")
    for mount in _mounts():
        inside = real == mount.mount_point or real.startswith(mount.mount_point.rstrip("/") + "/")
        if inside and len(mount.mount_point) >= len(
            best.mount_point
        ):  # of two at one mount point, the later one is on top
            best = mount
    return _identified(best)


def file_systems_below(folder: str) -> dict[str, FileSystem]:
    """Return the file systems that are mounted below a folder, by their paths below it."""
    prefix = os.path.realpath(folder).rstrip("/") + "/"
    below = {mount.mount_point[len(prefix) :]: mount for mount in _mounts() if mount.mount_point.startswith(prefix)}
    return {path: _identified(mount) for path, mount in below.items() if path}


def folder_identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a folder, None if it cannot be examined."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def mount_table() -> str:
    """Return the kernel's list of mounts as text, "" if it is unreadable; it changes with each mount and unmount."""
    try:
        return MOUNT_TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _mounts() -> Iterator[FileSystem]:
    for line in mount_table().splitlines():
        left, _, right = line.partition(" - ")
        mount_point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), left.split(" ")[4])
        kind, source = right.split(" ")[:2]
        yield FileSystem(kind, source, mount_point)


def _identified(mount: FileSystem) -> FileSystem:
    return replace(mount, identity=_uuid_of(mount.identity) or _number_of(mount) or mount.identity)


def _number_of(mount: FileSystem) -> str | None:
    """Return the number of a file system, if it derives from its UUID and not from its device."""
    if mount.kind not in {"ext2", "ext3", "ext4", "btrfs"}:
        return None
    try:
        return f"{mount.kind}:{os.statvfs(mount.mount_point).f_fsid:x}"
    except OSError:
        return None


def _uuid_of(source: str) -> str | None:
    device, folder = os.path.realpath(source), "/dev/disk/by-uuid"
    try:
        return next((name for name in os.listdir(folder) if os.path.realpath(f"{folder}/{name}") == device), None)
    except OSError:
        return None


def full_path(folder: str, path: str) -> str:
    """Join a folder and a path below it, both real or both as text."""
    return f"{folder.rstrip('/')}/{path}"


def path_to_text(path: str) -> str:
    r"""Return a path as valid text: a backslash becomes `\\`, each byte that is not UTF-8 becomes `\xNN`."""
    if "\\" not in path and path.isascii():
        return path
    return _SURROGATE.sub(lambda match: r"\\" if match[0] == "\\" else rf"\x{ord(match[0]) - 0xDC00:02x}", path)


def text_to_path(text: str) -> str:
    """Return the path that `path_to_text` converted to this text."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda match: "\\" if match[1] == "\\" else chr(0xDC00 + int(match[1][1:], 16)), text)
