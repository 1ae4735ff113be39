"""A disk, or a server of files, that can be told to be ill: a file system that hands on what a folder holds, and fails.

It is a real one (FUSE), so that each fault comes from the kernel, to whoever asks. The process that serves it is this
file run as a program, and reads before each operation from another file what to answer it with.
"""

import errno
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HANGS = "hangs"
READING = ("getattr", "readdir", "open", "read")
WRITING = ("write", "create", "truncate", "fsync", "unlink", "rename", "mkdir")


def why_no_ill_disk() -> str | None:
    """Return what is missing for such a disk, None where one can be made."""
    if os.geteuid() != 0:
        return "mounting a file system takes root"
    if not Path("/dev/fuse").exists() or shutil.which("fusermount3") is None:
        return "FUSE (Debian's package fuse3) is not on this machine"
    return None


class IllDisk:
    """What lies in `source`, seen at `place` through a file system that is well until it is told otherwise."""

    def __init__(self, source: Path, place: Path) -> None:
        self.source, self.place = source, place
        self._rules = place.with_name(f"{place.name}.rules")
        self._serving: subprocess.Popen[bytes] | None = None

    def mount(self) -> None:
        self.recover()
        for folder in (self.source, self.place):
            folder.mkdir(exist_ok=True)
        self._serving = subprocess.Popen(
            [sys.executable, __file__, self.source, self.place, self._rules], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while not os.path.ismount(self.place):
            assert time.monotonic() < deadline
            assert self._serving.poll() is None
            time.sleep(0.01)

    def fall_ill(self, error: str, *operations: str, below: str = "*", start: int = 0, end: int = 1 << 62) -> None:
        """Answer operations on paths by an error ("EIO"), or never ("hangs"); of reads those of a range of bytes."""
        rules = json.loads(self._rules.read_text() or "[]")
        rules.append({"error": error, "operations": operations, "below": below, "start": start, "end": end})
        self._write(rules)

    def recover(self) -> None:
        self._write([])

    def die(self) -> None:
        """End the process that serves it: each operation is answered that nobody is there, as when sshfs was killed."""
        assert self._serving is not None
        self._serving.kill()
        self._serving.wait()

    def unmount(self) -> None:
        self.recover()
        subprocess.run(["umount", "--lazy", self.place], check=True)
        if self._serving is not None:
            self._serving.wait(timeout=20)

    def _write(self, rules: list[dict[str, object]]) -> None:
        written = self._rules.with_suffix(".new")
        written.write_text(json.dumps(rules))
        written.rename(self._rules)


def serve(source: str, place: str, rules: str) -> None:  # noqa: C901 - one short function for each operation
    import mfusepy

    class Disk(mfusepy.Operations):  # type: ignore[misc]  # it ships no types
        use_ns = True

        def init_with_config(self, _connection: object, config: Any) -> None:
            config.use_ino = 1
            config.attr_timeout = config.entry_timeout = config.negative_timeout = 0.0

        def _at(self, operation: str, path: str, start: int = 0, end: int = 1 << 62) -> str:
            while True:
                with open(rules, encoding="utf-8") as file:
                    fitting = [
                        rule["error"]
                        for rule in json.load(file)
                        if operation in rule["operations"]
                        and fnmatch.fnmatchcase(path, rule["below"])
                        and start < rule["end"]
                        and end > rule["start"]
                    ]
                if HANGS not in fitting:
                    break
                time.sleep(0.05)
            if fitting:
                raise OSError(getattr(errno, fitting[0]), "ill")
            return source + path

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            status = os.fstat(fh) if fh and not self._at("getattr", path) else os.lstat(self._at("getattr", path))
            names = ("mode", "ino", "nlink", "uid", "gid", "size", "blocks")
            told = {f"st_{name}": getattr(status, f"st_{name}") for name in names}
            return told | {f"st_{name}": getattr(status, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}

        def readdir(self, path: str, _fh: int) -> list[tuple[str, dict[str, int], int]]:
            # Without the kind of each entry, which some file systems do not tell: who asks has to look at each.
            return [(entry.name, {"st_ino": entry.inode()}, 0) for entry in os.scandir(self._at("readdir", path))]

        def open(self, path: str, flags: int) -> int:
            return os.open(self._at("open", path), flags)

        def create(self, path: str, mode: int, _info: object = None) -> int:
            return os.open(self._at("create", path), os.O_RDWR | os.O_CREAT, mode)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            self._at("read", path, offset, offset + size)
            return os.pread(fh, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            self._at("write", path, offset, offset + len(data))
            return os.pwrite(fh, data, offset)

        def truncate(self, path: str, length: int, _fh: int | None = None) -> int:
            os.truncate(self._at("truncate", path), length)
            return 0

        def fsync(self, path: str, _datasync: int, fh: int) -> int:
            self._at("fsync", path)
            os.fsync(fh)
            return 0

        def release(self, _path: str, fh: int) -> int:
            os.close(fh)
            return 0

        def unlink(self, path: str) -> int:
            os.unlink(self._at("unlink", path))
            return 0

        def rename(self, old: str, new: str) -> int:
            os.rename(self._at("rename", old), source + new)
            return 0

        def mkdir(self, path: str, mode: int) -> int:
            os.mkdir(self._at("mkdir", path), mode)
            return 0

        def mknod(self, path: str, mode: int, device: int) -> int:
            os.mknod(self._at("mknod", path), mode, device)
            return 0

        def rmdir(self, path: str) -> int:
            os.rmdir(self._at("rmdir", path))
            return 0

        def chmod(self, path: str, mode: int) -> int:
            os.chmod(self._at("chmod", path), mode)
            return 0

        def chown(self, path: str, uid: int, gid: int) -> int:
            os.lchown(self._at("chown", path), uid, gid)
            return 0

        def utimens(self, path: str, times: tuple[int, int]) -> int:
            os.utime(self._at("utimens", path), ns=times, follow_symlinks=False)
            return 0

        def statfs(self, path: str) -> dict[str, int]:
            status = os.statvfs(self._at("statfs", path))
            names = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "frsize", "namemax")
            return {f"f_{name}": getattr(status, f"f_{name}") for name in names}

    mfusepy.FUSE(Disk(), place, foreground=True, fsname="ill", allow_other=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
