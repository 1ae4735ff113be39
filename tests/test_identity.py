"""A track keeps its id through renames, moves and retags; a copy is another track. On each database."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import mutagen
import pytest
from tests.conftest import write_song
from tests.support.in_process import InProcessDaemon
from tests.support.tagged_catalogue import Catalogue

from soulspot.infrastructure.filesystem import Signature
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.tags import TrackTags
from soulspot.ingest.activity import Pending
from soulspot.ingest.disk.hints import HALF_BATCH
from soulspot.ingest.disk.walker import FoundFile
from soulspot.ingest.intake import intake
from soulspot.ingest.intake.intake import Intake
from soulspot.ingest.missing import missing_files
from soulspot.ingest.outcome import Outcome, StaleError

Change = Callable[[Path], object]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    return folder


@pytest.fixture(params=["watched", "scanned after the daemon was down"])
def apply(
    request: pytest.FixtureRequest, catalogue_url: str, music: Path, other: Path
) -> Iterator[Callable[[Change], InProcessDaemon]]:
    """Change a catalogued library, under the watcher or while the daemon is down."""
    started: list[InProcessDaemon] = []

    def change(act: Change) -> InProcessDaemon:
        watching = request.param == "watched"
        daemon = InProcessDaemon(catalogue_url, music, other, watching=watching, missing_after=0.3)
        daemon.start()
        daemon.scan()
        if not watching:
            daemon.stop()
        act(music)
        if not watching:
            daemon.start()
            daemon.scan()
        started.append(daemon)
        daemon.settled()
        return daemon

    yield change
    for daemon in started:
        daemon.stop()


@pytest.fixture
def watched(catalogue_url: str, music: Path, other: Path) -> Iterator[InProcessDaemon]:
    """Two watched folders with two songs; a scan reaches the second folder last."""
    write_song(music / "album" / "old.mp3", title="old")
    write_song(music / "stays.flac", title="stays")
    with InProcessDaemon(catalogue_url, music, other) as running:
        running.until(lambda: len(titles(running)) == 2)
        running.settled()
        yield running


def songs(music: Path, *names: str) -> dict[str, Path]:
    return {name: write_song(music / f"{name}.mp3", title=name) for name in names}


def titles(daemon: InProcessDaemon) -> dict[str, str]:
    query = "SELECT f.path, t.title FROM files f JOIN tracks t ON t.id = f.track_id WHERE f.status = 'catalogued'"
    return dict(daemon.rows(query))


def tracks(daemon: InProcessDaemon) -> dict[str, str]:
    """Return the id of each title; every song has its own title."""
    return dict(daemon.rows("SELECT title, id FROM tracks"))


def added(daemon: InProcessDaemon) -> dict[str, str]:
    """Return the id that each title was added with."""
    query = "SELECT changes->>'title', entity_id FROM audit_log WHERE action = 'track_added'"
    return dict(daemon.rows(query))


@pytest.mark.parametrize(
    ("names", "act", "expected"),
    [
        pytest.param("a", lambda m: (m / "a.mp3").rename(m / "b.mp3"), {"b.mp3": "a"}, id="rename"),
        pytest.param("a", lambda m: (m / "a.mp3").rename(m / "A.mp3"), {"A.mp3": "a"}, id="case-only rename"),
        pytest.param("a", lambda m: _into(m / "x" / "y", m / "a.mp3"), {"x/y/a.mp3": "a"}, id="into a new folder"),
        pytest.param("ab", lambda m: _swap(m / "a.mp3", m / "b.mp3"), {"a.mp3": "b", "b.mp3": "a"}, id="swap"),
        pytest.param(
            "abc",
            lambda m: [(m / f"{old}.mp3").rename(m / f"{new}.mp3") for old, new in ("cd", "bc", "ab")],
            {"d.mp3": "c", "c.mp3": "b", "b.mp3": "a"},
            id="chain",
        ),
        pytest.param(
            "abc",
            lambda m: [(m / f"{old}.mp3").rename(m / f"{new}.mp3") for old, new in ("ct", "bc", "ab", "ta")],
            {"a.mp3": "c", "b.mp3": "a", "c.mp3": "b"},
            id="ring of three",
        ),
    ],
)
def test_a_moved_file_is_the_same_track(
    apply: Callable[[Change], InProcessDaemon], music: Path, names: str, act: Change, expected: dict[str, str]
) -> None:
    songs(music, *names)

    daemon = apply(act)

    assert titles(daemon) == expected
    assert tracks(daemon) == added(daemon)
    assert daemon.actions().count("track_added") == len(names)
    assert daemon.actions().count("track_moved") == len(names)
    assert not daemon.paths("missing")


def test_a_move_between_two_watched_folders_keeps_the_track(
    apply: Callable[[Change], InProcessDaemon], music: Path, other: Path
) -> None:
    songs(music, "a", "b")

    daemon = apply(lambda m: (m / "a.mp3").rename(other / "a.mp3"))

    assert titles(daemon) == {"a.mp3": "a", "b.mp3": "b"}
    assert daemon.actions() == ["track_added", "track_added", "track_moved"]


def test_a_moved_folder_keeps_its_tracks(apply: Callable[[Change], InProcessDaemon], music: Path) -> None:
    for name in "abcdef":
        write_song(music / "old" / name / f"{name}.flac", title=name)

    daemon = apply(lambda m: (m / "old").rename(m / "new"))

    assert titles(daemon) == {f"new/{name}/{name}.flac": name for name in "abcdef"}
    assert tracks(daemon) == added(daemon)


def test_a_file_replaced_by_rename_is_the_same_track(apply: Callable[[Change], InProcessDaemon], music: Path) -> None:
    songs(music, "a")

    daemon = apply(lambda m: os.replace(write_song(m.parent / "new.mp3", title="better"), m / "a.mp3"))

    assert titles(daemon) == {"a.mp3": "better"}
    assert daemon.actions() == ["track_added", "track_updated"]


def test_a_known_file_that_replaces_another_keeps_its_own_track(
    apply: Callable[[Change], InProcessDaemon], music: Path
) -> None:
    songs(music, "a", "b")

    daemon = apply(lambda m: os.replace(m / "b.mp3", m / "a.mp3"))

    assert titles(daemon) == {"a.mp3": "b"}
    assert tracks(daemon) == added(daemon)
    assert daemon.ids("missing") == {"a.mp3": tracks(daemon)["a"]}


def test_a_copy_is_another_track(apply: Callable[[Change], InProcessDaemon], music: Path) -> None:
    songs(music, "a")

    daemon = apply(lambda m: shutil.copy2(m / "a.mp3", m / "copy.mp3"))

    assert titles(daemon) == {"a.mp3": "a", "copy.mp3": "a"}
    assert daemon.actions() == ["track_added", "track_added"]


def test_a_hard_link_is_another_track(apply: Callable[[Change], InProcessDaemon], music: Path) -> None:
    songs(music, "a")

    daemon = apply(lambda m: os.link(m / "a.mp3", m / "link.mp3"))

    assert titles(daemon) == {"a.mp3": "a", "link.mp3": "a"}
    assert len(set(daemon.ids().values())) == 2


def test_a_file_whose_old_path_reappears_before_commit_has_not_moved(
    apply: Callable[[Change], InProcessDaemon], music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs(music, "a")
    act, linked = Intake._act, list[Known]()

    async def act_after_a_link(self: Intake, pending: Pending) -> Outcome | None:
        if not linked and pending.work.moved_from is not None:
            linked.append(pending.work.moved_from)
            os.link(pending.work.file.full_path, music / "a.mp3")
        return await act(self, pending)

    monkeypatch.setattr(intake, "CHECK_HOLDS", -1.0)  # otherwise the check at the match counts for a second
    monkeypatch.setattr(Intake, "_act", act_after_a_link)

    daemon = apply(lambda m: (m / "a.mp3").rename(m / "b.mp3"))

    assert [origin.path for origin in linked] == ["a.mp3"]
    assert titles(daemon) == {"a.mp3": "a", "b.mp3": "a"}
    assert len(set(daemon.ids().values())) == 2
    assert "track_moved" not in daemon.actions()


def test_a_reused_inode_is_not_a_move(apply: Callable[[Change], InProcessDaemon], music: Path) -> None:
    freed = [f"a{number}" for number in range(16)]  # many, because other writers to this disk take some
    songs(music, *freed, "b")

    def reuse(folder: Path) -> None:
        paths = [folder / f"{name}.mp3" for name in freed]
        inodes = {path.stat().st_ino for path in paths}
        for path in paths:
            path.unlink()
        for number in range(5000):  # the file system soon gives a freed inode to a new file
            path = folder / f".{number}.flac"
            path.touch()
            if path.stat().st_ino in inodes:
                path.write_bytes(write_song(folder / ".song.flac", title="new").read_bytes())
                path.rename(folder / "new.flac")
                return
        pytest.fail("no new file got one of the freed inodes")

    daemon = apply(reuse)

    assert titles(daemon) == {"b.mp3": "b", "new.flac": "new"}
    assert daemon.paths("missing") == {f"{name}.mp3" for name in freed}
    assert "track_moved" not in daemon.actions()


def test_a_missing_file_that_reappears_elsewhere_is_the_same_track(catalogue_url: str, music: Path) -> None:
    songs(music, "a", "b")
    away = music.parent / "away.mp3"

    with InProcessDaemon(catalogue_url, music) as daemon:
        daemon.settled()
        (music / "a.mp3").rename(away)
        daemon.until(lambda: daemon.paths("missing") == {"a.mp3"})
        away.rename(music / "elsewhere.mp3")
        daemon.until(lambda: titles(daemon) == {"elsewhere.mp3": "a", "b.mp3": "b"})

        assert tracks(daemon) == added(daemon)
        assert daemon.actions() == ["track_added", "track_added", "track_missing", "track_moved"]


@pytest.mark.parametrize("extension", ["mp3", "flac", "ogg", "opus", "m4a"])
def test_a_moved_and_retagged_file_is_the_same_track(
    apply: Callable[[Change], InProcessDaemon], music: Path, extension: str
) -> None:
    write_song(music / f"a.{extension}", title="old")
    write_song(music / "stays.mp3", title="stays")

    def move_and_tag(folder: Path) -> None:
        (folder / f"a.{extension}").rename(folder.parent / f"tagged.{extension}")
        tag(folder.parent / f"tagged.{extension}", title="new", artist="someone")
        (folder / "someone").mkdir()
        (folder.parent / f"tagged.{extension}").rename(folder / "someone" / f"new.{extension}")

    daemon = apply(move_and_tag)

    assert titles(daemon) == {f"someone/new.{extension}": "new", "stays.mp3": "stays"}
    assert tracks(daemon)["new"] == added(daemon)["old"]
    assert daemon.actions() == ["track_added", "track_added", "track_moved", "track_updated"]


@pytest.mark.parametrize("target", ["music", "other"])
@pytest.mark.parametrize("order", ["tagged, moved", "removed, written", "written, removed"])
def test_a_moved_and_retagged_file_is_the_same_track_in_any_order(
    apply: Callable[[Change], InProcessDaemon], music: Path, target: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_files, "COPY_YOUNGER_BY", timedelta(0))
    old = write_song(music / "old.mp3", title="old")
    write_song(music / "stays.flac", title="stays")  # other audio, because it is as new as the moved file
    new = music.with_name(target) / "someone" / "new.mp3"

    def move_and_tag(folder: Path) -> None:
        if order == "tagged, moved":
            tag(old, title="new")
            new.parent.mkdir()
            old.rename(new)
            return
        written = write_song(folder.parent / "new.mp3", title="new")
        if order == "removed, written":
            old.unlink()
        new.parent.mkdir()
        written.rename(new)
        old.unlink(missing_ok=True)

    daemon = apply(move_and_tag)
    daemon.until(lambda: titles(daemon) == {"someone/new.mp3": "new", "stays.flac": "stays"})
    daemon.until(lambda: not daemon.paths("missing") and tracks(daemon)["new"] == added_first(daemon)["old"])

    assert daemon.rows("SELECT count(*) FROM tracks") == [(2,)]


def test_a_moved_and_retagged_file_is_known_before_its_old_path_is_checked(
    watched: InProcessDaemon, music: Path, other: Path
) -> None:
    watched.tamper = lambda paths: [path for path in paths if "album" not in path]

    tag(music / "album" / "old.mp3", title="new")
    (music / "album" / "old.mp3").rename(other / "new.mp3")
    watched.until(lambda: titles(watched) == {"new.mp3": "new", "stays.flac": "stays"})

    assert watched.actions() == ["track_added", "track_added", "track_moved", "track_updated"]


def test_a_rewritten_file_is_known_while_the_hint_at_its_old_path_waits(
    watched: InProcessDaemon, music: Path, other: Path
) -> None:
    watched.tamper = lambda _paths: []
    written = write_song(music.parent / "new.mp3", title="new")

    shutil.rmtree(music / "album")
    written.rename(other / "new.mp3")
    # More hints than one turn takes; the newest and the oldest go first.
    others = [str(music / f"{number}.txt") for number in range(6 * HALF_BATCH)]
    watched.hint([*others, str(music / "album"), *(f"{path}.txt" for path in others), str(other / "new.mp3")])
    watched.until(lambda: titles(watched) == {"new.mp3": "new", "stays.flac": "stays"})

    assert watched.actions() == ["track_added", "track_added", "track_moved", "track_updated"]


def test_a_file_first_added_as_new_gets_its_old_track_after_a_scan(
    watched: InProcessDaemon, music: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_files, "COPY_YOUNGER_BY", timedelta(0))
    watched.tamper = lambda paths: [path for path in paths if "album" not in path]
    written = write_song(music.parent / "new.mp3", title="new")

    (music / "album" / "old.mp3").unlink()
    written.rename(other / "new.mp3")
    watched.until(lambda: len(titles(watched)) == 3)
    watched.scan()

    assert titles(watched) == {"new.mp3": "new", "stays.flac": "stays"}
    assert tracks(watched)["new"] == added_first(watched)["old"]


def test_neither_of_two_copies_takes_over_a_removed_file(
    watched: InProcessDaemon, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_files, "COPY_YOUNGER_BY", timedelta(0))
    song = music / "album" / "old.mp3"
    for name in ("b.mp3", "c.mp3"):
        shutil.copyfile(song, music / name)
    watched.until(lambda: len(titles(watched)) == 4)
    before = watched.ids()

    song.unlink()
    watched.until(lambda: watched.paths("missing"))

    assert watched.ids() | watched.ids("missing") == before


def test_a_retagged_copy_is_another_track_despite_hints_at_its_original(
    watched: InProcessDaemon, music: Path, other: Path
) -> None:
    song = music / "album" / "old.mp3"
    copy = music.parent / "copy.mp3"
    shutil.copyfile(song, copy)
    tag(copy, title="copy")
    watched.tamper = lambda _paths: []

    copy.rename(other / "copy.mp3")
    watched.hint([str(song), str(song.parent), str(other / "copy.mp3")])
    watched.until(lambda: "copy.mp3" in titles(watched))

    assert watched.actions() == ["track_added"] * 3


def test_a_retagged_copy_is_another_track(apply: Callable[[Change], InProcessDaemon], music: Path) -> None:
    songs(music, "a")

    def copy_and_tag(folder: Path) -> None:
        shutil.copy2(folder / "a.mp3", folder.parent / "copy.mp3")
        tag(folder.parent / "copy.mp3", title="copy")
        (folder.parent / "copy.mp3").rename(folder / "copy.mp3")

    daemon = apply(copy_and_tag)

    assert titles(daemon) == {"a.mp3": "a", "copy.mp3": "copy"}
    assert daemon.actions() == ["track_added", "track_added"]


def test_a_folder_moved_to_another_disk_keeps_its_tracks(
    apply: Callable[[Change], InProcessDaemon], music: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `mv` does it: copy everything, then remove everything."""
    monkeypatch.setattr(missing_files, "COPY_YOUNGER_BY", timedelta(0))
    for number, name in enumerate(("flac", "ogg", "opus")):
        write_song(music / "album" / f"{number}.{name}", title=name)
    write_song(music / "stays.mp3")

    def move(folder: Path) -> None:
        shutil.copytree(folder / "album", other / "album")
        time.sleep(0.5)
        shutil.rmtree(folder / "album")

    daemon = apply(move)
    daemon.until(lambda: len(titles(daemon)) == 4 and not daemon.paths("missing"))

    assert set(daemon.paths()) == {"album/0.flac", "album/1.ogg", "album/2.opus", "stays.mp3"}
    assert tracks(daemon) == {title: added_first(daemon)[title] for title in tracks(daemon)}
    assert daemon.rows("SELECT count(*) FROM track_artists")[0] == (4,)


def added_first(daemon: InProcessDaemon) -> dict[str, str]:
    entries = daemon.rows(
        "SELECT changes->>'title', entity_id FROM audit_log WHERE action = 'track_added' ORDER BY sequence DESC"
    )
    return dict(entries)


async def test_a_move_is_refused_once_the_track_has_another_file(catalogue: Catalogue) -> None:
    """The model test found this: two files swap, and one first looks like a replacement."""
    service, root = catalogue.service, catalogue.root
    first, second = (FoundFile(root, "a.mp3", Signature(1, 2, 3, inode)) for inode in (10, 20))
    await service.ingest(first, TrackTags(title="first", artist="A"), None)
    before = await catalogue.known("a.mp3")
    assert before is not None
    await service.ingest(second, TrackTags(title="second", artist="A"), before)

    with pytest.raises(StaleError):
        await service.move(FoundFile(root, "b.mp3", first.signature), before, None)


def tag(path: Path, **tags: str) -> None:
    song = mutagen.File(path, easy=True)
    if song.tags is None:
        song.add_tags()
    for name, value in tags.items():
        song[name] = value
    song.save()


def _into(folder: Path, song: Path) -> None:
    folder.mkdir(parents=True)
    song.rename(folder / song.name)


def _swap(one: Path, other: Path) -> None:
    between = one.with_name("between.mp3")
    one.rename(between)
    other.rename(one)
    between.rename(other)
