"""The control socket: the status of the running daemon, its events, and a reload of its settings."""

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
    """Settings in a file, as an admin keeps them."""
    configure(soulspot, [soulspot.music])
    soulspot.environment["SOULSPOT_CONFIG"] = str(soulspot.music.parent / "config.toml")
    return soulspot


def configure(soulspot: Soulspot, folders: list[Path]) -> None:
    (soulspot.music.parent / "config.toml").write_text(
        f"[library]\nfolders = {json.dumps([str(each) for each in folders])}\n"
    )


def start_configured(soulspot: Soulspot) -> int:
    daemon = soulspot.start_watching(folders=False)
    until(lambda: soulspot.log.exists() and "watching" in soulspot.log.read_text())
    return daemon.pid


def test_status_comes_from_the_running_daemon(soulspot: Soulspot) -> None:
    daemon = soulspot.watch()
    write_song(soulspot.music / "song.mp3")
    until(soulspot.tracks)

    report = status(soulspot)

    assert (report["health"], report["reasons"], report["pid"]) == ("ok", [], daemon.pid)
    assert report["queue"] == {"in_hand": 0, "settling": 0, "oldest_seconds": 0}
    [folder] = report["folders"]
    assert folder["watched"] == "inotify"
    assert folder["last_event"] > report["since"]
    assert folder["last_reconcile"] > report["since"]
    assert [folder[name] for name in ("missed_by_watcher", "unwatched_folders", "unreadable")] == [0, 0, 0]
    assert report["watcher"] == {"is_deaf": False, "overflows": 0, "restarts": 0}
    assert "watcher   0 overflows, 0 restarts" in soulspot.run("status").stdout


def test_status_without_a_daemon_comes_from_the_catalogue(soulspot: Soulspot) -> None:
    soulspot.scan()

    report = status(soulspot)

    assert (report["health"], report["reasons"]) == ("degraded", ["no soulspot is watching"])
    assert "health    degraded\n          no soulspot is watching\n" in soulspot.run("status").stdout


def test_an_offline_folder_degrades_the_health(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3")
    soulspot.scan()
    soulspot.watch()

    soulspot.music.rename(soulspot.music.parent / "unmounted")

    until(lambda: status(soulspot)["health"] == "degraded", 20)
    assert "is offline" in status(soulspot)["reasons"][0]


def test_the_control_socket_is_group_writable_and_removed_at_the_stop(soulspot: Soulspot) -> None:
    daemon = soulspot.watch()
    place = control_socket.socket_of(soulspot.database)

    assert stat.S_IMODE(place.stat().st_mode) == 0o660
    daemon.terminate()
    daemon.wait()
    assert not place.exists()


def test_an_unknown_socket_command_returns_an_error(soulspot: Soulspot) -> None:
    soulspot.watch()
    place = control_socket.socket_of(soulspot.database)

    assert "unknown command 'sing'" in (control_socket.ask(place, "sing") or {})["error"]
    for bad_request in (b"x" * 100_000, b"[1]\n", b'{"ask": []}\n', b"\xff\n", b"\n"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))
            client.sendall(bad_request)
    assert (control_socket.ask(place, "status") or {})["health"] == "ok"


async def test_the_outcome_of_a_file_reaches_every_follower(soulspot: Soulspot) -> None:
    soulspot.watch()
    place = control_socket.socket_of(soulspot.database)
    followers = [control_socket.stream_answers(place, "follow") for _number in range(2)]
    for follower in followers:
        assert await anext(follower) == {"following": True}

    write_song(soulspot.music / "song.mp3")

    for follower in followers:
        event = await asyncio.wait_for(anext(follower), 5)
        assert (event["lost"], [(each["kind"], Path(each["path"]).name) for each in event["happened"]]) == (
            0,
            [("added", "song.mp3")],
        )
        await follower.aclose()


def test_new_settings_are_in_force_once_reload_returns(configured: Soulspot) -> None:
    more = configured.music.parent / "more"
    more.mkdir()
    pid = start_configured(configured)

    configure(configured, [configured.music, more])
    result = configured.run("reload")
    write_song(more / "song.mp3")

    assert result.stdout == "the new settings are active\n"
    until(lambda: configured.tracks() == {("song.mp3", "song")}, 5)
    assert status(configured)["pid"] == pid
    assert configured.run("reload").stdout == "the settings have not changed\n"


@pytest.mark.parametrize(
    "fault", ["[library]\nfolder = 1\n", "[tags]\nworkers = -1\n", "[library]\nfolders = ['/no']\n"]
)
def test_reload_refuses_wrong_settings_and_keeps_the_old_ones(configured: Soulspot, fault: str) -> None:
    start_configured(configured)

    (configured.music.parent / "config.toml").write_text(fault)
    result = configured.run("reload")
    write_song(configured.music / "song.mp3")

    assert result.returncode == 78
    assert len(result.stderr.splitlines()) == 1
    until(lambda: configured.tracks() == {("song.mp3", "song")}, 5)


def test_reload_without_a_daemon_is_refused(configured: Soulspot) -> None:
    configured.run("scan")

    result = configured.run("reload")

    assert result.returncode == 78
    assert "no running daemon" in result.stderr


def test_the_path_mode_and_group_of_the_socket_can_be_set(soulspot: Soulspot, tmp_path: Path) -> None:
    place = tmp_path / "socket"
    group = os.getgroups()[0] if os.geteuid() else 65534
    settings = {
        "SOULSPOT_CONTROL__SOCKET": str(place),
        "SOULSPOT_CONTROL__MODE": "0600",
        "SOULSPOT_CONTROL__GROUP": str(group),
    }
    daemon = soulspot.watch(**settings)

    report = json.loads(soulspot.run("status", "--json", **settings).stdout)

    assert report["pid"] == daemon.pid
    assert (stat.S_IMODE(place.stat().st_mode), place.stat().st_gid) == (0o600, group)


def test_a_configured_socket_that_cannot_be_created_is_refused(soulspot: Soulspot, tmp_path: Path) -> None:
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


def test_a_second_daemon_does_not_take_over_the_socket_of_the_first(soulspot: Soulspot, tmp_path: Path) -> None:
    first = soulspot.watch(SOULSPOT_CONTROL__SOCKET=f"{tmp_path}/socket")
    other = {"SOULSPOT_DATABASE__URL": f"sqlite+aiosqlite:///{tmp_path}/other.db"}

    refused = soulspot.run("watch", str(soulspot.music), SOULSPOT_CONTROL__SOCKET=f"{tmp_path}/socket", **other)
    same = soulspot.run("watch", str(soulspot.music))

    assert f"another soulspot (pid {first.pid}) answers at {tmp_path}/socket" in refused.stderr
    assert (same.returncode, f"(pid {first.pid})" in same.stderr) == (75, True)
    assert (control_socket.ask(tmp_path / "socket", "status") or {})["pid"] == first.pid


@pytest.mark.postgresql
def test_on_postgresql_commands_find_the_daemon_by_the_database_name(
    postgres_soulspot: Soulspot, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    daemon = postgres_soulspot.watch(RUNTIME_DIRECTORY=str(tmp_path))

    report = json.loads(postgres_soulspot.run("status", "--json", RUNTIME_DIRECTORY=str(tmp_path)).stdout)
    second = postgres_soulspot.run("watch", str(postgres_soulspot.music), RUNTIME_DIRECTORY=str(tmp_path))

    assert report["pid"] == daemon.pid
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
        while True:  # polls until it finds the daemon
            try:
                await asyncio.wait_for(wait(), 1.5)
            except TimeoutError:
                break

        write_song(soulspot.music / "song.mp3")
        await asyncio.wait_for(wait(), 3)

        daemon.kill()
        for _poll in range(3):
            await asyncio.wait_for(wait(), 3)


def test_audit_follow_continues_when_daemons_stop_and_start(soulspot: Soulspot, tmp_path: Path) -> None:
    write_song(soulspot.music / "before.mp3")
    soulspot.scan()
    printed = tmp_path / "printed"
    with printed.open("wb") as output:
        command = [*soulspot.command, "audit", "--follow", "--json", "--action", "track_added"]
        follower = subprocess.Popen(command, env=soulspot.environment, stdout=output)
    soulspot.running.append(follower)

    def followed() -> list[str]:
        return [Path(json.loads(line)["path"]).name for line in printed.read_text().splitlines()]

    until(lambda: followed() == ["before.mp3"])
    for number in range(2):
        write_song(soulspot.music / f"scanned {number}.mp3")
        soulspot.scan()
        until(lambda: followed()[-1:] == [f"scanned {number}.mp3"])  # noqa: B023 - runs in this turn of the loop
        daemon = soulspot.watch()
        write_song(soulspot.music / f"dropped {number}.mp3")
        until(lambda: followed()[-1:] == [f"dropped {number}.mp3"])  # noqa: B023 - runs in this turn of the loop
        daemon.kill()
        daemon.wait()

    assert len(followed()) == 5
