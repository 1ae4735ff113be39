"""Serves a faulty file system (`faulty_filesystem.py` starts it): passes each operation on, or fails as the rules say.

    python faulty_filesystem_server.py SOURCE MOUNT_POINT RULES

RULES is a JSON file with a list of rules: {"error", "operations", "below", "start", "end"}. FUSE_LIBRARY_PATH names the
libfuse to load.
"""

import errno
import fnmatch
import json
import os
import sys
import time
from typing import Any

import mfusepy

HANGS = "hangs"


class FaultyOperations(mfusepy.Operations):  # type: ignore[misc]  # it ships no types
    """The operations of FUSE, each on the path below `source`."""

    use_ns = True

    def __init__(self, source: str, rules: str) -> None:
        self._source, self._rules = source, rules

    def init_with_config(self, _connection: object, config: Any) -> None:
        config.use_ino = 1
        config.attr_timeout = config.entry_timeout = config.negative_timeout = 0.0

    def _checked(self, operation: str, path: str, start: int = 0, end: int = 1 << 62) -> str:
        """Return the path in `source`; fail, or hang until the rule is dropped, where a rule says so."""
        while HANGS in (errors := self._matching(operation, path, start, end)):
            time.sleep(0.05)
        if errors:
            raise OSError(getattr(errno, errors[0]), "a rule says so")
        return self._source + path

    def _matching(self, operation: str, path: str, start: int, end: int) -> list[str]:
        """Return the errors of the rules that apply."""
        with open(self._rules, encoding="utf-8") as file:
            return [
                rule["error"]
                for rule in json.load(file)
                if operation in rule["operations"]
                and fnmatch.fnmatchcase(path, rule["below"])
                and start < rule["end"]
                and end > rule["start"]
            ]

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        full = self._checked("getattr", path)
        status = os.fstat(fh) if fh else os.lstat(full)
        names = ("mode", "ino", "nlink", "uid", "gid", "size", "blocks")
        found = {f"st_{name}": getattr(status, f"st_{name}") for name in names}
        return found | {f"st_{name}": getattr(status, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}

    def readdir(self, path: str, _fh: int) -> list[tuple[str, dict[str, int], int]]:
        # Without the type of each entry, as on some file systems: the caller has to stat each one.
        return [(entry.name, {"st_ino": entry.inode()}, 0) for entry in os.scandir(self._checked("readdir", path))]

    def open(self, path: str, flags: int) -> int:
        return os.open(self._checked("open", path), flags)

    def create(self, path: str, mode: int, _info: object = None) -> int:
        return os.open(self._checked("create", path), os.O_RDWR | os.O_CREAT, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._checked("read", path, offset, offset + size)
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._checked("write", path, offset, offset + len(data))
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, _fh: int | None = None) -> int:
        os.truncate(self._checked("truncate", path), length)
        return 0

    def fsync(self, path: str, _datasync: int, fh: int) -> int:
        self._checked("fsync", path)
        os.fsync(fh)
        return 0

    def release(self, _path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._checked("unlink", path))
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self._checked("rename", old), self._source + new)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._checked("mkdir", path), mode)
        return 0

    def mknod(self, path: str, mode: int, device: int) -> int:
        os.mknod(self._checked("mknod", path), mode, device)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._checked("rmdir", path))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._checked("chmod", path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.lchown(self._checked("chown", path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int]) -> int:
        os.utime(self._checked("utimens", path), ns=times, follow_symlinks=False)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._checked("statfs", path))
        names = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "frsize", "namemax")
        return {f"f_{name}": getattr(status, f"f_{name}") for name in names}


if __name__ == "__main__":
    source, mount_point, rules = sys.argv[1:]
    operations = FaultyOperations(source, rules)
    mfusepy.FUSE(operations, mount_point, foreground=True, fsname="faulty", allow_other=True)
