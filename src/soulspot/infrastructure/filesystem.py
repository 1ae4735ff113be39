"""The disk: what a file is, whether someone still writes it, which file system it lies on, how its name becomes text.

Everything here blocks; the event loop calls it through `asyncio.to_thread`. Inside the program a path is a `str` as
`os.fsdecode` makes it (bytes that are no UTF-8 are lone surrogates); `path_to_text` makes it text that a database keeps
and a person can query, and `text_to_path` brings it back.
"""

import fcntl
import os
import re
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

MOUNT_TABLE = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\(\\|x[0-9a-f]{2})")
_SURROGATE = re.compile(r"[\\\udc80-\udcff]")
_OCTAL = re.compile(r"\\([0-7]{3})")

# Their events do not reach inotify when another machine writes, and their inode numbers are made up.
NETWORK_FILE_SYSTEMS = frozenset(
    ("9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuse3", "fuseblk", "gfs2", "glusterfs", "lustre")
) | frozenset(("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs", "virtiofs"))


class NotRegularFileError(OSError):
    """A folder, pipe, socket, device or symbolic link where a file was expected; nothing was read from it."""


class Signature(NamedTuple):
    """What a file was when we looked: equal for as long as nobody has touched it.

    Times in nanoseconds since 1970. The inode is stored in 64 signed bits, as databases have them.
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
        """Whether both are one file whose bytes have not changed; a rename or chmod changes only its ctime."""
        return (self.inode, self.size, self.mtime_ns) == (other.inode, other.size, other.mtime_ns)


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system that a path lies on.

    Attributes:
        kind: the kernel's name of its type, such as "ext4", "nfs4" or "fuse.sshfs".
        identity: its UUID or what it makes of it, else the source that it was mounted from. Device numbers change from
            boot to boot, this does not.
        mount_point: the path that it is mounted at.

    """

    kind: str
    identity: str
    mount_point: str

    @property
    def is_remote(self) -> bool:
        """Whether changes can happen that inotify does not see, and inode numbers mean nothing."""
        return self.kind.split(".")[0] in NETWORK_FILE_SYSTEMS


def open_regular(path: str) -> int:
    """Open a regular file for reading and return its descriptor; never waits for a pipe, never follows a link.

    Raises NotRegularFileError for anything else, OSError as `open` does.
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
    """Keep the process alive when somebody opens a file for writing while we hold a lease on it.

    The kernel then sends SIGIO, whose default is to kill (fcntl(2), "Leases").
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def has_writer(path: str) -> bool | None:
    """Whether anyone has the file open for writing; None where the kernel does not say.

    Asks for a read lease and gives it back at once: the kernel grants one only while nobody has the file open for
    writing, by any name, a live mapping included. It takes the file's owner or CAP_LEASE, and a local file system.
    Raises OSError when the file cannot be opened.
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
    """Return the file system of a path, from the kernel's list; of kind "unknown" where that does not tell."""
    real = os.path.realpath(path)
    best = FileSystem("unknown", "unknown", "/")
    for mount in _mounts():
        inside = real == mount.mount_point or real.startswith(mount.mount_point.rstrip("/") + "/")
        if inside and len(mount.mount_point) >= len(best.mount_point):  # of two on one place, the later one is on top
            best = mount
    return _identified(best)


def file_systems_below(folder: str) -> dict[str, FileSystem]:
    """Return the file systems that are mounted below a folder, by the path of each below it."""
    prefix = os.path.realpath(folder).rstrip("/") + "/"
    below = {mount.mount_point[len(prefix) :]: mount for mount in _mounts() if mount.mount_point.startswith(prefix)}
    return {path: _identified(mount) for path, mount in below.items() if path}


def mount_table() -> str:
    """Return the kernel's list of what is mounted, as text: the same for as long as nothing is mounted or unmounted."""
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
    identity = _uuid_of(mount.identity) or _number_of(mount) or mount.identity
    return FileSystem(mount.kind, identity, mount.mount_point)


def _number_of(mount: FileSystem) -> str | None:
    """Return the number that a file system gives itself, where that is made of its UUID and not of its device."""
    if mount.kind not in {"ext2", "ext3", "ext4", "btrfs"}:
        return None
    try:
        return f"{mount.kind}:{os.statvfs(mount.mount_point).f_fsid:x}"
    except OSError:
        return None


def _uuid_of(source: str) -> str | None:
    device = os.path.realpath(source)
    try:
        for entry in os.scandir("/dev/disk/by-uuid"):
            if os.path.realpath(entry.path) == device:
                return entry.name
    except OSError:
        return None
    return None


def full_path(folder: str, path: str) -> str:
    """Return the full path of what lies at `path` below a folder, in the form that both have: real or as text."""
    return f"{folder.rstrip('/')}/{path}"


def path_to_text(path: str) -> str:
    r"""Return a path as valid text: a backslash as `\\`, each byte that is no UTF-8 as `\xNN`, all else as it is."""
    if "\\" not in path and path.isascii():
        return path
    return _SURROGATE.sub(lambda match: r"\\" if match[0] == "\\" else rf"\x{ord(match[0]) - 0xDC00:02x}", path)


def text_to_path(text: str) -> str:
    """Return the path that `path_to_text` made this text from."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda match: "\\" if match[1] == "\\" else chr(0xDC00 + int(match[1][1:], 16)), text)
