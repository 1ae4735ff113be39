"""A file system that fails on request: it shows what a folder holds, and answers chosen operations with an error.

It is a real FUSE mount, so each error comes from the kernel, to whoever asks. `faulty_filesystem_server.py` serves it
in a process of its own, and reads the rules from a file before each operation.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from ctypes.util import find_library
from pathlib import Path

from tests.support.deadlines import Deadline, load_factor

SERVER = Path(__file__).with_name("faulty_filesystem_server.py")
READING = ("getattr", "readdir", "open", "read")
WRITING = ("write", "create", "truncate", "fsync", "unlink", "rename", "mkdir")


def why_no_faulty_filesystem() -> str | None:
    """Return what this machine lacks to mount one, None when it lacks nothing."""
    if os.geteuid() != 0:
        return "mounting a file system takes root"
    if not Path("/dev/fuse").exists() or shutil.which("fusermount3") is None or find_library("fuse3") is None:
        return "FUSE (Debian's package fuse3) is not on this machine"
    return None


class FaultyFilesystem:
    """Shows `source` at `mount_point`; it works until `fail` adds a rule."""

    def __init__(self, source: Path, mount_point: Path) -> None:
        self.source, self.mount_point = source, mount_point
        self._rules = mount_point.with_name(f"{mount_point.name}.rules")
        self._server: subprocess.Popen[bytes] | None = None

    def mount(self) -> None:
        self.recover()
        for folder in (self.source, self.mount_point):
            folder.mkdir(exist_ok=True)
        # mfusepy prefers libfuse 2 where both are installed, and that refuses to mount over a folder that is not empty.
        environment = os.environ | {"FUSE_LIBRARY_PATH": str(find_library("fuse3"))}
        self._server = subprocess.Popen(
            [sys.executable, SERVER, self.source, self.mount_point, self._rules],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        deadline = Deadline(20)
        while not os.path.ismount(self.mount_point):
            assert not deadline.has_passed()
            assert self._server.poll() is None
            time.sleep(0.01)

    def fail(self, error: str, *operations: str, below: str = "*", start: int = 0, end: int = 1 << 62) -> None:
        """Answer operations on matching paths with an error ("EIO"), or never ("hangs").

        A read or write fails only where it touches the bytes from `start` to `end`.
        """
        rules = json.loads(self._rules.read_text() or "[]")
        rules.append({"error": error, "operations": operations, "below": below, "start": start, "end": end})
        self._write(rules)

    def recover(self) -> None:
        """Drop all rules."""
        self._write([])

    def kill_server(self) -> None:
        """Kill the process that serves it: each operation fails with ENOTCONN, as when sshfs is killed."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def unmount(self) -> None:
        self.recover()
        subprocess.run(["umount", "--lazy", self.mount_point], check=True)
        if self._server is not None:
            self._server.wait(timeout=20 * load_factor())

    def _write(self, rules: list[dict[str, object]]) -> None:
        new = self._rules.with_suffix(".new")
        new.write_text(json.dumps(rules))
        new.rename(self._rules)
