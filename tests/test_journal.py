"""A file that crashes the readers and the daemon with them is recorded, and set aside after three crashes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Soulspot, both, write_song

from soulspot.infrastructure.tags.readers.crash_journal import Journal, Slot
from soulspot.infrastructure.tags.readers.pool import TagReaders

# Reading a file of this name kills the whole process group, as the kernel does with a service that is out of memory.
DEADLY = """
import os, signal, sys
real = os.open
def deadly(path, *arguments, **options):
    if os.fsdecode(path).endswith("deadly.mp3") and sys.argv[0].endswith("reader_process.py"):
        os.killpg(0, signal.SIGKILL)
    return real(path, *arguments, **options)
os.open = deadly
"""


@both
def test_a_file_that_kills_the_process_is_set_aside_after_three_times(soulspot: Soulspot, tmp_path: Path) -> None:
    for name in ("a", "deadly", "z"):
        write_song(soulspot.music / f"{name}.mp3", title=name)
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    command = [sys.executable, "-m", "soulspot", "scan", str(soulspot.music), "--json"]
    environment = soulspot.environment | {"PYTHONPATH": str(tmp_path)}

    def scan() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, env=environment, capture_output=True, check=False, start_new_session=True)

    deaths = [scan().returncode for _number in range(3)]
    survived = scan()
    again = scan()

    assert deaths == [-9, -9, -9]
    assert json.loads(survived.stdout)["failed"] == 1
    assert soulspot.rows("SELECT path, error_code FROM files WHERE status = 'failed'") == [
        ("deadly.mp3", "crashed-parser")
    ]
    assert soulspot.tracks() == {("a.mp3", "a"), ("z.mp3", "z")}
    assert json.loads(again.stdout)["unchanged"] == 3


async def test_a_file_noted_at_a_crash_of_another_is_read_and_cleared(tmp_path: Path) -> None:
    song, file = write_song(tmp_path / "song\udce9.mp3", title="One"), str(tmp_path / "x.db.reading")
    Journal(file).close()
    Slot(file, 1).write(bytes(song))

    async with TagReaders(1, journal=file) as readers:
        reading = await readers.read(str(song))

    assert reading.tags is not None
    assert reading.tags.title == "One"
    assert Journal(file).crashes == {}


def test_each_start_counts_a_crash_on_a_noted_file_once(tmp_path: Path) -> None:
    file = str(tmp_path / "x.db.reading")
    Journal(file).close()

    for _number in range(3):
        Slot(file, 0).write(b"/music/\xe9.mp3")
        Journal(file).close()
    Journal(file).close()

    assert Journal(file).crashes == {"/music/\udce9.mp3": 3}


def test_a_second_process_cannot_open_the_journal_of_the_first(tmp_path: Path) -> None:
    """Two daemons on one machine may share a server."""
    file = str(tmp_path / "x.reading")
    first = Journal(file)
    Slot(file, 0).write(b"/music/in work.mp3")

    with pytest.raises(OSError, match="another soulspot process holds it"):
        Journal(file)
    first.close()

    assert Journal(file).crashes == {"/music/in work.mp3": 1}


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\0" * 64 * 8192 + b'{"a": [', b"\0" * 64 * 8192 + b"[1]"])
def test_a_damaged_journal_does_not_prevent_a_start(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.db.reading"
    file.write_bytes(content)

    Journal(str(file)).close()
    Journal(str(file)).close()

    assert all(count == 1 for count in Journal(str(file)).crashes.values())


async def test_readers_work_without_a_journal_if_it_cannot_be_written(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.mp3", title="One")

    async with TagReaders(1, journal=str(tmp_path / "nowhere" / "x.reading")) as readers:
        reading = await readers.read(str(song))

    assert reading.tags is not None
