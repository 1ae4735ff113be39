"""SIGIO wakes the watcher, and never kills the process, whenever it arrives."""

import signal
import subprocess
import sys

WAIT_FOR_AN_EVENT = """
import asyncio, ctypes, os, sys, time
from soulspot.infrastructure.watching.inotify_signal import InotifyWakeup

async def main():
    descriptor = ctypes.CDLL(None).inotify_init1(os.O_NONBLOCK)
    ctypes.CDLL(None).inotify_add_watch(descriptor, os.fsencode(sys.argv[1]), 0x100)  # IN_CREATE
    with InotifyWakeup() as wakeup:
        wakeup.arm([descriptor])
        asyncio.get_running_loop().call_later(0.2, os.mkdir, sys.argv[1] + "/new")
        start = time.monotonic()
        await wakeup.wait(30)
        print(time.monotonic() - start)

asyncio.run(main())
"""
MANY_WAKEUPS = """
import asyncio
from soulspot.infrastructure.watching.inotify_signal import InotifyWakeup
from soulspot.infrastructure.filesystem import ignore_lease_signals

async def main():
    ignore_lease_signals()
    print("ready", flush=True)
    for _turn in range(2000):
        with InotifyWakeup() as wakeup:
            await wakeup.wait(0.0005)

asyncio.run(main())
"""


def test_an_inotify_event_ends_the_wait(tmp_path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WAIT_FOR_AN_EVENT, tmp_path], capture_output=True, text=True, check=False
    )

    assert 0.1 < float(result.stdout) < 10, result.stderr


def test_a_signal_between_two_wakeups_does_not_kill() -> None:
    """SIGIO comes with each event, and when a process opens a file that we hold a lease on; by default it kills."""
    command = [sys.executable, "-c", MANY_WAKEUPS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        while process.poll() is None:
            process.send_signal(signal.SIGIO)
        errors = process.stderr.read()

    assert (process.returncode, errors) == (0, b"")
