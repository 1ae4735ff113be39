"""A state machine that changes a music folder as people, tools and machines do, with an oracle for the catalogue.

The daemon's real parts keep a catalogue of a real folder. Whenever the folder is quiet, four things must hold:

- the catalogue holds what an independent walk with mutagen finds;
- the history, replayed, leads to the catalogue;
- nothing in the music folder was touched;
- another scan finds nothing to do.
"""

import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import IO, Any, ClassVar

import mutagen
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.conftest import AUDIO
from tests.support.deadlines import Deadline
from tests.support.in_process import InProcessDaemon

FOLDERS = ("", "a", "b", "a/deep", "c d")
NAMES = ("one.mp3", "two.mp3", "Two.mp3", "caf\u00e9.mp3", "new\nline.mp3", "three.mp3")
paths = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES)).map(lambda each: os.path.join(*each))
folders = st.sampled_from(FOLDERS[1:])
_TEMPLATE = (AUDIO / "tone.mp3").read_bytes()
_number = itertools.count(1)


def make_song(path: Path) -> None:
    """Write a song with unique audio and a unique title."""
    number = next(_number)
    content = bytearray(_TEMPLATE)
    content[-60:-52] = number.to_bytes(8, "big")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{number}.part")
    unfinished.write_bytes(content)
    tag(unfinished, f"song {number}")
    unfinished.rename(path)


def tag(path: Path, title: str) -> None:
    song = mutagen.File(path, easy=True)
    if song.tags is None:
        song.add_tags()
    song["title"] = title
    song.save()


def run_settings(*, examples: int, steps: int) -> settings:
    """Return Hypothesis settings for one run: steps may be slow, and a failure prints how to repeat it."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        database=None,
    )


class LibraryStateMachine(RuleBasedStateMachine):
    """With the watcher and the periodic scans; events may be dropped, doubled and reversed."""

    watching: ClassVar[bool] = True
    polling: ClassVar[bool] = True
    done: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="soulspot-model-"))
        self.music, self.away = self.place / "music", self.place / "away"
        self.writers: dict[str, tuple[IO[bytes], bytes]] = {}
        self.skew = 0.0
        self.is_running = False
        self.is_mounted = True
        self.lost_events = False

    @initialize()
    def begin(self) -> None:
        self.music.mkdir()
        self.away.mkdir()
        for path in ("anchor.mp3", "one.mp3", "a/one.mp3", "a/two.mp3", "a/deep/three.mp3", "c d/one.mp3"):
            make_song(self.music / path)  # anchor.mp3 stays: an empty folder counts as unmounted
        self.daemon = InProcessDaemon(
            self.catalogue(),
            self.music,
            watching=self.watching,
            polling=self.polling,
            clock=lambda: time.monotonic() + self.skew,
            quiet_period=0.05,
        )
        self._start()

    def catalogue(self) -> Path | str:
        """Return where the catalogue goes: a folder, or the URL of an empty database on a server."""
        return self.place / "state"

    # What people and tools do

    @rule(path=paths)
    def create(self, path: str) -> None:
        if not self._is_taken(path):
            make_song(self.music / path)

    @rule(path=paths)
    def start_writing(self, path: str) -> None:
        if self._is_taken(path) or path in self.writers:
            return
        make_song(self.place / "whole.mp3")
        content = (self.place / "whole.mp3").read_bytes()
        (self.music / path).parent.mkdir(parents=True, exist_ok=True)
        file = (self.music / path).open("wb", buffering=0)
        file.write(content[: len(content) // 2])
        self.writers[path] = (file, content[len(content) // 2 :])

    @precondition(lambda self: self.writers)
    @rule()
    def finish_writing(self) -> None:
        _path, (file, rest) = self.writers.popitem()
        file.write(rest)
        file.close()

    @rule(path=paths, with_other_audio=st.booleans())
    def replace(self, path: str, *, with_other_audio: bool) -> None:
        if (old := self._song(path)) is None:
            return
        new = self.place / "new.mp3"
        if with_other_audio:
            make_song(new)
        else:
            shutil.copyfile(old, new)
            tag(new, f"song {next(_number)}")
        new.replace(old)

    @rule(path=paths)
    def tag_in_place(self, path: str) -> None:
        if (song := self._song(path)) is not None:
            tag(song, f"song {next(_number)}")

    @rule(old=paths, new=paths)
    def rename(self, old: str, new: str) -> None:
        if (song := self._song(old)) is not None and not (self.music / new).is_dir() and new not in self.writers:
            (self.music / new).parent.mkdir(parents=True, exist_ok=True)
            song.rename(self.music / new)

    @rule(one=paths, other=paths)
    def swap(self, one: str, other: str) -> None:
        first, second = self._song(one), self._song(other)
        if first is None or second is None or first == second:
            return
        first.rename(self.music / "between.mp3")
        second.rename(first)
        (self.music / "between.mp3").rename(second)

    @rule(path=paths, new=paths)
    def link(self, path: str, new: str) -> None:
        if (song := self._song(path)) is not None and not self._is_taken(new):
            (self.music / new).parent.mkdir(parents=True, exist_ok=True)
            os.link(song, self.music / new)

    @rule(path=paths)
    def change_mode(self, path: str) -> None:
        if (song := self._song(path)) is not None:
            song.chmod(0o600 if song.stat().st_mode & 0o077 else 0o644)

    @rule(path=paths)
    def delete(self, path: str) -> None:
        if (song := self._song(path)) is not None:
            song.unlink()

    @rule(folder=folders)
    def delete_folder(self, folder: str) -> None:
        if self._is_free(folder):
            shutil.rmtree(self.music / folder)

    @rule(folder=folders, new=folders)
    def rename_folder(self, folder: str, new: str) -> None:
        inside = f"{new}/".startswith(f"{folder}/")
        if self._is_free(folder) and not (self.music / new).exists() and not inside:
            (self.music / new).parent.mkdir(parents=True, exist_ok=True)
            (self.music / folder).rename(self.music / new)

    @rule(folder=folders, new=folders)
    def copy_folder(self, folder: str, new: str) -> None:
        inside = f"{new}/".startswith(f"{folder}/")
        if self._is_free(folder) and not (self.music / new).exists() and not inside:
            shutil.copytree(self.music / folder, self.music / new)

    @rule(folder=folders)
    def move_out(self, folder: str) -> None:
        if self._is_free(folder) and not (self.away / "tree").exists():
            (self.music / folder).rename(self.away / "tree")

    @rule(folder=folders)
    def move_in(self, folder: str) -> None:
        if self.is_mounted and (self.away / "tree").exists() and not (self.music / folder).exists():
            (self.music / folder).parent.mkdir(parents=True, exist_ok=True)
            (self.away / "tree").rename(self.music / folder)

    # What machines do

    @rule()
    def restart(self) -> None:
        self._stop()
        self._start()

    @rule()
    def stop(self) -> None:
        self._stop()

    @rule()
    def drop_events(self) -> None:
        self.daemon.tamper = lambda _paths: []
        self.lost_events = True

    @rule()
    def double_and_reverse_events(self) -> None:
        self.daemon.tamper = lambda paths: [*reversed(paths), *paths]

    @rule(seconds=st.sampled_from((-3600.0, 60.0, 86400.0)))
    def clock_jumps(self, seconds: float) -> None:
        """Jump ahead only: the monotonic clock never goes back, and nothing that counts uses the wall clock."""
        self.skew += max(seconds, 0.0)

    @rule()
    def unmount(self) -> None:
        if self.is_mounted and not self.writers:
            self.music.rename(self.place / "unmounted")
            self.is_mounted = False
            self.daemon.scan_everything() if self.is_running else None

    @rule()
    def mount(self) -> None:
        if not self.is_mounted:
            (self.place / "unmounted").rename(self.music)
            self.is_mounted = True
            self.lost_events = True

    # What has to be true

    @rule()
    def catalogue_is_true_when_quiet(self) -> None:
        self._settle()
        before = self._listing()
        self._converge()
        self.daemon.settled()
        audited = self.daemon.changes()
        self.daemon.scan()
        assert self.daemon.changes() == audited, "another scan found something to do"
        self._check_history()
        assert self._listing() == before, "the music folder was touched"
        self.done["checks"] += 1

    def teardown(self) -> None:
        try:
            if self.music.exists() or not self.is_mounted:
                self.catalogue_is_true_when_quiet()
        finally:
            if self.is_running:
                self._stop()
            shutil.rmtree(self.place)

    def _converge(self) -> None:
        if not self.watching:
            self.daemon.scan()
        elif self.lost_events:
            self.daemon.scan_everything()
            self.lost_events = False
        expected = self._expected()
        deadline = Deadline(20)
        while self._catalogued() != expected:
            assert not deadline.has_passed(), self._difference(expected)
            self.daemon.raise_failure()
            time.sleep(0.01)

    def _difference(self, expected: dict[str, str]) -> str:
        found = self._catalogued()
        differing = {path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path)}
        rows = self.daemon.rows("SELECT path, status, inode, track_id FROM files")
        history = self.daemon.rows("SELECT action, path FROM audit_log ORDER BY sequence")
        shown = [(path, expected.get(path), found.get(path)) for path in sorted(differing)]
        return f"{shown} differ; {rows}; {history}; {self._state()}"

    def _state(self) -> str:
        """Describe what the pipeline is at, for a failure that cannot be reproduced."""
        pipeline = self.daemon.pipeline
        return (
            f"quiet: {pipeline.is_quiet}, {pipeline.stats()}, in progress: {pipeline.in_progress(9)},"
            f" to scan: {bool(pipeline.queue)}, offline: {pipeline.faults}, held: {pipeline.held}"
        )

    def _settle(self) -> None:
        while self.writers:
            self.finish_writing()
        self.mount()
        self.daemon.tamper = list
        if not self.is_running:
            self._start()

    def _start(self) -> None:
        if not self.is_mounted or self.is_running:
            return
        self.daemon.tamper = list
        self.daemon.start()
        self.is_running = True

    def _stop(self) -> None:
        if self.is_running:
            self.daemon.stop()
            self.is_running = False

    def _song(self, path: str) -> Path | None:
        full = self.music / path
        return full if self.is_mounted and path not in self.writers and full.is_file() else None

    def _is_taken(self, path: str) -> bool:
        return not self.is_mounted or (self.music / path).exists() or len(list(self.music.rglob("*.mp3"))) > 40

    def _is_free(self, folder: str) -> bool:
        written = any(path.startswith(f"{folder}/") for path in self.writers)
        return self.is_mounted and (self.music / folder).is_dir() and not written

    def _expected(self) -> dict[str, str]:
        """Return the title of each song, as an independent walk finds it."""
        found = {}
        for folder, _folders, names in os.walk(self.music):
            for name in names:
                full = os.path.join(folder, name)
                found[os.path.relpath(full, self.music)] = mutagen.File(full, easy=True)["title"][0]
        return found

    def _catalogued(self) -> dict[str, str]:
        query = "SELECT f.path, t.title FROM files f JOIN tracks t ON t.id = f.track_id WHERE f.status = 'catalogued'"
        return dict(self.daemon.rows(query))

    def _listing(self) -> dict[str, tuple[Any, ...]]:
        found = {}
        for path in sorted(self.music.rglob("*")):
            status = path.stat()
            digest = hashlib.blake2b(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path)] = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, digest)
        return found

    def _check_history(self) -> None:
        """Replay the history: it must lead to what the catalogue holds, and add each track once."""
        where: dict[str, str | None] = {}
        query = "SELECT action, entity_id, path, changes FROM audit_log WHERE entity_type = 'track' ORDER BY sequence"
        for action, track, path, _changes in self.daemon.rows(query):
            if action == "track_added":
                assert track not in where, "a track was added twice"
            else:
                assert track in where, f"{action} of a track that was never added"
            if action == "track_missing":
                assert where[track] is not None, "a track went missing twice"
                where[track] = None
            else:
                where[track] = path
        rows = self.daemon.rows("SELECT track_id, path, status FROM files WHERE track_id IS NOT NULL")
        prefix = f"{self.music}/"
        now = {track: None if status == "missing" else prefix + path for track, path, status in rows}
        assert now == where, "the history does not lead to the catalogue"


class ScanOnlyStateMachine(LibraryStateMachine):
    """Without the watcher: scans alone make the catalogue true."""

    watching = False
    polling = False


class WatchOnlyStateMachine(LibraryStateMachine):
    """Without scans: counts what the watcher and its repairs miss."""

    polling = False

    def drop_events(self) -> None:
        """Drop none."""

    def _converge(self) -> None:
        self.daemon.settled()
        time.sleep(0.3)
        self.daemon.settled()
        expected, found = self._expected(), self._catalogued()
        self.done["songs"] += len(expected)
        self.done["missed"] += len({path for path in expected if expected[path] != found.get(path)})
        self.daemon.scan()
