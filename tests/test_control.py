"""The control socket: what the running daemon says of itself, and how it takes new settings."""

import asyncio
import json
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Soulspot, until, write_song

from soulspot.infrastructure import catalogue_changes
from soulspot.infrastructure.catalogue_changes import CatalogueChanges
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.database import Database


def status(soulspot: Soulspot) -> dict[str, Any]:
    result = soulspot.run("status", "--json")
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


@pytest.fixture
def configured(soulspot: Soulspot) -> Soulspot:
    """Have the settings in a file, as an admin does."""
    configure(soulspot, [soulspot.music])
    soulspot.environment["SOULSPOT_CONFIG"] = str(soulspot.music.parent / "config.toml")
    return soulspot


def configure(soulspot: Soulspot, folders: list[Path], more: str = "") -> None:
    (soulspot.music.parent / "config.toml").write_text(
        f"[library]\nfolders = {json.dumps([str(each) for each in folders])}\n{more}"
    )


def start(soulspot: Soulspot) -> int:
    daemon = soulspot.start_watching(folders=False)
    until(lambda: soulspot.log.exists() and "watching" in soulspot.log.read_text())
    return daemon.pid


def test_the_status_is_that_of_the_running_daemon(soulspot: Soulspot) -> None:
    daemon = soulspot.watch()
    write_song(soulspot.music / "song.mp3")
    until(soulspot.tracks)

    told = status(soulspot)

    assert (told["health"], told["reasons"], told["pid"]) == ("ok", [], daemon.pid)
    assert told["queue"] == {"in_hand": 0, "settling": 0, "oldest_seconds": 0}
    [folder] = told["folders"]
    assert folder["watched"] == "inotify"
    assert folder["last_event"] > told["since"]
    assert folder["last_reconcile"] > told["since"]
    assert [folder[name] for name in ("missed_by_watcher", "unwatched_folders", "unreadable")] == [0, 0, 0]
    assert told["watcher"] == {"is_deaf": False, "overflows": 0, "restarts": 0}
    assert "watcher   0 overflows, 0 restarts" in soulspot.run("status").stdout


def test_without_a_daemon_the_status_is_that_of_the_catalogue(soulspot: Soulspot) -> None:
    soulspot.scan()

    told = status(soulspot)

    assert (told["health"], told["reasons"]) == ("degraded", ["no soulspot is watching"])
    assert "health    degraded\n          no soulspot is watching\n" in soulspot.run("status").stdout


def test_a_folder_that_goes_offline_degrades(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3")
    soulspot.scan()
    soulspot.watch()

    soulspot.music.rename(soulspot.music.parent / "unmounted")

    until(lambda: status(soulspot)["health"] == "degraded", 20)
    assert "is offline" in status(soulspot)["reasons"][0]


def test_only_the_owner_and_the_group_may_ask(soulspot: Soulspot) -> None:
    daemon = soulspot.watch()
    place = control_socket.socket_of(soulspot.database)

    assert stat.S_IMODE(place.stat().st_mode) == 0o660
    daemon.terminate()
    daemon.wait()
    assert not place.exists()


def test_an_unknown_command_is_answered_with_an_error(soulspot: Soulspot) -> None:
    soulspot.watch()
    place = control_socket.socket_of(soulspot.database)

    assert "unknown command 'sing'" in (control_socket.ask(place, "sing") or {})["error"]
    for rudeness in (b"x" * 100_000, b"[1]\n", b'{"ask": []}\n', b"\xff\n", b"\n"):
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(place))
            rude.sendall(rudeness)
    assert (control_socket.ask(place, "status") or {})["health"] == "ok"


async def test_what_becomes_of_a_file_is_told_to_all_who_follow(soulspot: Soulspot) -> None:
    soulspot.watch()
    place = control_socket.socket_of(soulspot.database)
    followers = [control_socket.stream_answers(place, "follow") for _number in range(2)]
    for follower in followers:
        assert await anext(follower) == {"following": True}

    write_song(soulspot.music / "song.mp3")

    for follower in followers:
        told = await asyncio.wait_for(anext(follower), 5)
        assert (told["lost"], [(each["kind"], Path(each["path"]).name) for each in told["happened"]]) == (
            0,
            [("added", "song.mp3")],
        )
        await follower.aclose()


def test_new_settings_are_in_force_when_the_reload_ends(configured: Soulspot) -> None:
    more = configured.music.parent / "more"
    more.mkdir()
    pid = start(configured)

    configure(configured, [configured.music, more])
    result = configured.run("reload")
    write_song(more / "song.mp3")

    assert result.stdout == "the new settings are in force\n"
    until(lambda: configured.tracks() == {("song.mp3", "song")}, 5)
    assert status(configured)["pid"] == pid
    assert configured.run("reload").stdout == "the settings have not changed\n"


@pytest.mark.parametrize(
    "fault", ["[library]\nfolder = 1\n", "[tags]\nworkers = -1\n", "[library]\nfolders = ['/no']\n"]
)
def test_wrong_settings_are_refused_and_those_from_before_stay_in_force(configured: Soulspot, fault: str) -> None:
    start(configured)

    (configured.music.parent / "config.toml").write_text(fault)
    result = configured.run("reload")
    write_song(configured.music / "song.mp3")

    assert result.returncode == 78
    assert len(result.stderr.splitlines()) == 1
    until(lambda: configured.tracks() == {("song.mp3", "song")}, 5)


def test_a_reload_without_a_daemon_says_so(configured: Soulspot) -> None:
    configured.run("scan")

    result = configured.run("reload")

    assert result.returncode == 78
    assert "no running daemon" in result.stderr


def test_mode_and_group_and_place_of_the_socket_are_settings(soulspot: Soulspot, tmp_path: Path) -> None:
    place = tmp_path / "socket"
    group = os.getgroups()[0] if os.geteuid() else 65534
    settings = {
        "SOULSPOT_CONTROL__SOCKET": str(place),
        "SOULSPOT_CONTROL__MODE": "0600",
        "SOULSPOT_CONTROL__GROUP": str(group),
    }
    daemon = soulspot.watch(**settings)

    told = json.loads(soulspot.run("status", "--json", **settings).stdout)

    assert told["pid"] == daemon.pid
    assert (stat.S_IMODE(place.stat().st_mode), place.stat().st_gid) == (0o600, group)


def test_a_socket_that_cannot_be_made_is_named_where_a_person_chose_it(soulspot: Soulspot, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for settings in (
        {"SOULSPOT_CONTROL__SOCKET": f"{tmp_path}/no/socket"},
        {"SOULSPOT_CONTROL__SOCKET": f"{tmp_path}/file"},
        {"SOULSPOT_CONTROL__GROUP": "nobody-has-this"},
    ):
        result = soulspot.run("watch", str(soulspot.music), **settings)

        assert (result.returncode, len(result.stderr.splitlines())) == (78, 1), result.stderr
        assert "set control.socket" in result.stderr
    assert (tmp_path / "file").read_text() == "precious"


def test_a_second_daemon_leaves_the_socket_to_the_first(soulspot: Soulspot, tmp_path: Path) -> None:
    first = soulspot.watch(SOULSPOT_CONTROL__SOCKET=f"{tmp_path}/socket")
    other = {"SOULSPOT_DATABASE__URL": f"sqlite+aiosqlite:///{tmp_path}/other.db"}

    refused = soulspot.run("watch", str(soulspot.music), SOULSPOT_CONTROL__SOCKET=f"{tmp_path}/socket", **other)
    same = soulspot.run("watch", str(soulspot.music))

    assert f"another soulspot (pid {first.pid}) answers at {tmp_path}/socket" in refused.stderr
    assert (same.returncode, f"(pid {first.pid})" in same.stderr) == (75, True)
    assert (control_socket.ask(tmp_path / "socket", "status") or {})["pid"] == first.pid


@pytest.mark.postgresql
def test_with_postgresql_the_daemon_is_found_by_the_name_of_its_database(
    postgres_soulspot: Soulspot, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    daemon = postgres_soulspot.watch(RUNTIME_DIRECTORY=str(tmp_path))

    told = json.loads(postgres_soulspot.run("status", "--json", RUNTIME_DIRECTORY=str(tmp_path)).stdout)
    second = postgres_soulspot.run("watch", str(postgres_soulspot.music), RUNTIME_DIRECTORY=str(tmp_path))

    assert told["pid"] == daemon.pid
    assert (second.returncode, f"(pid {daemon.pid})" in second.stderr.splitlines()[-1]) == (75, True), second.stderr


async def test_follow_uses_the_daemon_and_polls_without_one(
    soulspot: Soulspot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_changes, "DAEMON_CHECK_INTERVAL", 3600.0)
    place = control_socket.socket_of(soulspot.database)
    database = Database(f"sqlite+aiosqlite:///{soulspot.database}")
    async with database, CatalogueChanges.of(database, lambda: place if place.exists() else None) as changes:
        wait = changes.wait
        await asyncio.wait_for(wait(), 1)  # without a daemon it polls
        daemon = await asyncio.to_thread(soulspot.watch)
        while True:  # until it has found the daemon
            try:
                await asyncio.wait_for(wait(), 1.5)
            except TimeoutError:
                break

        write_song(soulspot.music / "song.mp3")
        await asyncio.wait_for(wait(), 3)

        daemon.kill()
        for _look in range(3):
            await asyncio.wait_for(wait(), 3)


def test_follow_goes_on_through_the_end_and_the_start_of_daemons(soulspot: Soulspot, tmp_path: Path) -> None:
    write_song(soulspot.music / "before.mp3")
    soulspot.scan()
    printed = tmp_path / "printed"
    with printed.open("wb") as output:
        command = [*soulspot.command, "audit", "--follow", "--json", "--action", "track_added"]
        follower = subprocess.Popen(command, env=soulspot.environment, stdout=output)
    soulspot.running.append(follower)

    def told() -> list[str]:
        return [Path(json.loads(line)["path"]).name for line in printed.read_text().splitlines()]

    until(lambda: told() == ["before.mp3"])
    for number in range(2):
        write_song(soulspot.music / f"scanned {number}.mp3")
        soulspot.scan()
        until(lambda: told()[-1:] == [f"scanned {number}.mp3"])  # noqa: B023 - at once
        daemon = soulspot.watch()
        write_song(soulspot.music / f"dropped {number}.mp3")
        until(lambda: told()[-1:] == [f"dropped {number}.mp3"])  # noqa: B023 - at once
        daemon.kill()
        daemon.wait()

    assert len(told()) == 5
