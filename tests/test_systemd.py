"""The service under a real systemd: what it tells systemd, and what systemd does with it."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec

import pytest
from tests.conftest import Soulspot, until, write_song
from tests.support.systemd_container import HERE, Box, install_wheel, skip_without_a_box
from tests.support.web_client import picture
from tests.test_documents import marked
from tests.test_persistence import revisions

from soulspot.infrastructure.persistence.schema import REVISION

pytestmark = pytest.mark.timeout(900)


P = ParamSpec("P")
CLASSICAL = "sqlite+aiosqlite:////var/lib/soulspot/classical/soulspot.db"
CONSTRAINTS = "/tmp/constraints.txt"
MINE = "sqlite+aiosqlite:////home/me/.config/soulspot/soulspot.db"
"""Where systemd 252 keeps the state of a user's unit; a later one, in .local/state."""


def in_a_box(test: Callable[P, None]) -> Callable[P, None]:
    return pytest.mark.systemd(pytest.mark.root(test))


HEAR = """
import http.server
class Hear(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).decode(), flush=True)
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 9999), Hear).serve_forever()
"""


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    skip_without_a_box()
    own = tmp_path_factory.getbasetemp()
    installed = install_wheel(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)
    box = Box(tmp_path_factory.mktemp("machine"))
    with box.booted(installed):
        put_units(box)
        yield box


def put_units(box: Box) -> None:
    """Install the units by hand, as a packager would."""
    box.shell(
        "cp /opt/units/*.service /opt/units/*.timer /opt/units/*.socket /etc/systemd/system &&"
        "cp -r /opt/units/sysusers.d /opt/units/tmpfiles.d /etc && cp /opt/units/user/* /etc/systemd/user &&"
        "systemd-sysusers && systemd-tmpfiles --create soulspot.conf && systemctl daemon-reload"
    )


@pytest.fixture
def put_back(booted: Box) -> Iterator[None]:
    """Put back what a test takes away of the service, however it ends."""
    yield
    booted.shell("ln -sf /opt/soulspot/bin/soulspot /usr/local/bin/soulspot")
    put_units(booted)


@pytest.fixture
def box(booted: Box) -> Iterator[Box]:
    booted.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\n')
    yield booted
    booted.shell(
        "systemctl stop soulspot-web.socket soulspot-web.service soulspot.service;"
        "rm -rf /etc/systemd/system/soulspot*.service.d; systemctl daemon-reload;"
        "systemctl reset-failed; journalctl --rotate --vacuum-time=1s"
    )
    for folder in (booted.music, booted.state):
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def drop_in(box: Box, *lines: str) -> None:
    box.write("/etc/systemd/system/soulspot.service.d/test.conf", "\n".join(["[Service]", *lines, ""]))
    box.shell("systemctl daemon-reload")


def copies(box: Box, count: int) -> None:
    song = write_song(box.music / "0.mp3")
    for number in range(1, count):
        shutil.copyfile(song, box.music / f"{number}.mp3")


def test_ready_is_said_when_the_kernel_watches_the_folder_and_not_before(new_soulspot: Soulspot) -> None:
    address = new_soulspot.music.parent / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        daemon = new_soulspot.watch_unseen(NOTIFY_SOCKET=str(address))
        while b"READY=1" not in (said := manager.recv(4096)).split(b"\n"):
            pass
        daemon.send_signal(signal.SIGSTOP)
        marks = "".join(file.read_text() for file in Path(f"/proc/{daemon.pid}/fdinfo").iterdir())
        daemon.send_signal(signal.SIGCONT)

    assert new_soulspot.music.stat().st_ino in {
        int(each, 16) for each in re.findall(r"inotify .*?ino:([0-9a-f]+)", marks)
    }
    assert f"STATUS=watching {new_soulspot.music}".encode() in said


UNITS = ["soulspot.service", "soulspot@.service", "soulspot-backup.service", "soulspot-web.service"]


@in_a_box
def test_systemd_has_nothing_to_say_against_the_units(box: Box) -> None:
    named = " ".join(f"/etc/systemd/system/{unit}" for unit in [*UNITS, "soulspot-backup.timer", "soulspot-web.socket"])

    assert box.shell(f"systemd-analyze verify --recursive-errors=no --man=no {named}") == ""
    assert "Next elapse" in box.shell("systemd-analyze calendar daily")


@in_a_box
def test_the_user_unit_is_sound_and_runs_as_a_user(box: Box) -> None:
    box.shell(
        "useradd --create-home me; loginctl enable-linger me; mkdir -p ~me/.local/bin ~me/.config/soulspot ~me/Music"
    )
    box.shell("ln -sf /usr/local/bin/soulspot ~me/.local/bin/soulspot")
    box.write("/home/me/.config/soulspot/config.toml", '[library]\nfolders = ["~/Music"]\n')
    box.shell("chown -R me: ~me")
    as_me = "runuser -u me -- env XDG_RUNTIME_DIR=/run/user/$(id -u me) HOME=/home/me"

    until(lambda: box.shell("systemctl is-active user@$(id -u me) || true").strip() == "active")
    said = box.shell(f"{as_me} systemd-analyze --user verify --recursive-errors=no /etc/systemd/user/soulspot.service")
    box.shell(f"{as_me} systemctl --user start soulspot")
    write_song(box.music / "song.mp3")
    box.shell("cp /srv/music/song.mp3 ~me/Music/ && chown me: ~me/Music/song.mp3")

    assert said == ""
    until(lambda: "song" in box.shell(f"SOULSPOT_DATABASE__URL={MINE} soulspot tracks"), 10)
    box.shell(f"{as_me} systemctl --user stop soulspot")


@in_a_box
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_exposes_little(box: Box, unit: str) -> None:
    told = box.shell(f"systemd-analyze security --offline=yes --threshold=6 /etc/systemd/system/{unit}")

    assert re.search(r"Overall exposure level for \S+: 0\.[0-6] SAFE", told)


def test_the_units_are_held_to_the_same() -> None:
    marked = [(HERE / "systemd" / unit).read_text().partition("# What the service may not do")[2] for unit in UNITS]

    assert len({text.partition("[Install]")[0].strip() for text in marked}) == 1


@in_a_box
def test_the_service_is_ready_when_a_drop_will_be_seen(box: Box) -> None:
    box.shell("systemctl start soulspot.service")
    write_song(box.music / "song.mp3", title="Dropped")

    until(lambda: box.tracks() == {("song.mp3", "Dropped")}, 5)
    unit = box.unit()
    assert (unit["ActiveState"], unit["Type"], unit["NRestarts"]) == ("active", "notify", "0")
    assert unit["StatusText"].startswith("watching /srv/music")


@in_a_box
def test_the_service_stops_at_once_and_well_in_the_middle_of_an_import(box: Box) -> None:
    copies(box, 2000)
    box.shell("systemctl start soulspot.service")
    until(box.tracks)

    began = time.monotonic()
    box.shell("systemctl stop soulspot.service")

    assert time.monotonic() - began < 10
    unit = box.unit()
    assert (unit["ActiveState"], unit["Result"], unit["ExecMainStatus"]) == ("inactive", "success", "0")
    tracks = len(box.tracks())
    assert 0 < tracks < 2000
    assert box.actions("track_added") == tracks
    box.shell("systemctl start soulspot.service")
    until(lambda: len(box.tracks()) == 2000, 60)
    assert box.actions("track_added") == 2000


@in_a_box
def test_a_wrong_setting_fails_the_start_and_is_not_tried_again(box: Box) -> None:
    box.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\nquiet = 3\n')

    box.shell("systemctl start soulspot.service", fails=True)

    unit = box.unit()
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == ("failed", "78", "0")
    assert "/etc/soulspot/config.toml, line 3: there is no setting library.quiet" in box.journal()


@in_a_box
def test_a_killed_service_is_started_again_and_loses_and_doubles_nothing(box: Box) -> None:
    copies(box, 300)
    box.shell("systemctl start soulspot.service")
    until(box.tracks)

    box.shell("systemctl kill --signal=KILL soulspot.service")
    shutil.copyfile(box.music / "0.mp3", box.music / "while-down.mp3")

    until(lambda: box.unit()["NRestarts"] == "1", 10)
    until(lambda: len(box.tracks()) == 301, 60)
    assert box.rows("SELECT count(*), count(DISTINCT entity_id) FROM audit_log WHERE action = 'track_added'") == [
        (301, 301)
    ]
    assert box.rows("PRAGMA integrity_check") == [("ok",)]


@in_a_box
def test_the_service_takes_leases_on_the_files_of_other_users(box: Box) -> None:
    box.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\nquiet_period = 60\n')
    box.shell("systemctl start soulspot.service")

    song = write_song(box.music / "song.mp3")

    assert song.owner() == "root"
    until(lambda: len(box.tracks()) == 1, 5)


@in_a_box
def test_the_journal_knows_how_grave_a_line_is(box: Box) -> None:
    box.shell("systemctl start soulspot.service")
    (box.music / "broken.mp3").write_bytes(b"no audio at all" * 100)

    until(lambda: "failed /srv/music/broken.mp3" in box.journal())
    warnings = box.shell("journalctl --output=cat --unit=soulspot.service --priority=warning")
    assert "failed /srv/music/broken.mp3" in warnings
    assert "watching /srv/music" not in warnings


@in_a_box
def test_a_stuck_loop_is_ended_by_the_watchdog_and_the_service_goes_on(box: Box) -> None:
    drop_in(box, "WatchdogSec=2", "TimeoutAbortSec=1")
    box.shell("systemctl start soulspot.service")
    time.sleep(3)
    assert box.unit()["NRestarts"] == "0"

    box.shell("systemctl kill --kill-whom=main --signal=STOP soulspot.service")
    write_song(box.music / "song.mp3")

    until(lambda: len(box.tracks()) == 1, 20)
    assert box.unit()["NRestarts"] == "1"
    assert "Watchdog timeout (limit 2s)!" in box.journal()


@in_a_box
@pytest.mark.parametrize("example", ["no-capability", "quieter-disks", "network-database", "loopback", "network-hooks"])
def test_the_service_runs_with_each_example_of_a_drop_in(box: Box, example: str) -> None:
    box.shell(
        "mkdir /etc/systemd/system/soulspot.service.d &&"
        f"cp /opt/units/drop-ins/{example}.conf /etc/systemd/system/soulspot.service.d && systemctl daemon-reload"
    )
    box.shell("systemctl start soulspot.service")

    write_song(box.music / "song.mp3")

    until(lambda: len(box.tracks()) == 1, 10)


@in_a_box
def test_a_folder_in_home_is_refused_until_the_drop_in_shows_it(box: Box) -> None:
    box.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/home/me/Music"]\n')
    box.shell("mkdir -p /home/me/Music")
    box.shell("systemctl start soulspot.service", fails=True)
    assert box.unit()["ExecMainStatus"] == "78"

    drop_in(box, *(HERE / "systemd" / "drop-ins" / "home.conf").read_text().splitlines()[3:])
    box.shell("systemctl reset-failed; systemctl start soulspot.service")
    write_song(box.music / "song.mp3")
    box.shell("cp /srv/music/song.mp3 /home/me/Music")

    until(lambda: len(box.tracks()) == 1, 10)


def configure(box: Box, text: str, *examples: str) -> None:
    """Write settings beside the music folder, put examples of drop-ins in force, and start the service."""
    box.write("/etc/soulspot/config.toml", f'[library]\nfolders = ["/srv/music"]\n{text}')
    box.shell("mkdir -p /etc/systemd/system/soulspot.service.d")
    for example in examples:
        box.shell(f"cp /opt/units/drop-ins/{example}.conf /etc/systemd/system/soulspot.service.d")
    box.shell("systemctl daemon-reload && systemctl start soulspot.service")


@in_a_box
def test_metrics_on_a_socket_need_no_drop_in(box: Box) -> None:
    configure(box, '[metrics]\nlisten = "/var/lib/soulspot/metrics.socket"\n')

    assert box.shell("curl -s --unix-socket /var/lib/soulspot/metrics.socket http://localhost/readyz") == "ready\n"
    assert box.shell("SOULSPOT_DATABASE__URL= soulspot health") == "ok\n"


@in_a_box
def test_metrics_on_a_port_are_refused_until_the_drop_in_opens_this_machine(box: Box) -> None:
    box.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\n[metrics]\nlisten = "[::1]:9842"\n')
    box.shell("systemctl start soulspot.service", fails=True)
    assert box.unit()["ExecMainStatus"] == "78"
    assert "see whether the unit needs the drop-in loopback.conf" in box.journal()
    box.shell("systemctl reset-failed")

    configure(box, '[metrics]\nlisten = "127.0.0.1:9842"\n', "loopback")

    assert "soulspot_build_info" in box.shell("curl -s http://127.0.0.1:9842/metrics")


@in_a_box
def test_the_textfile_is_written_where_the_drop_in_allows_it(box: Box) -> None:
    place = "/var/lib/prometheus/node-exporter"
    box.shell(f"mkdir -p {place} && chown soulspot {place}")

    configure(box, f'[metrics]\ntextfile = "{place}/soulspot.prom"\n', "textfile")

    until(lambda: "soulspot_build_info" in box.shell(f"cat {place}/soulspot.prom || true"), 10)


@in_a_box
def test_a_hook_runs_in_the_sandbox_and_reaches_this_machine_with_the_drop_in(box: Box) -> None:
    program = "cat >/var/lib/soulspot/batch; touch /srv/music/x 2>/dev/null; curl -s http://127.0.0.1:9999/ || exit 1"
    configure(box, f'[on_batch]\nquiet = 0\ncommand = ["sh", "-c", "{program}"]\nurl = "http://127.0.0.1:9999/"\n')
    write_song(box.music / "song.mp3")
    until(lambda: box.journal().count("fails (") == 2, 20)
    assert '"counts": {"added": 1}' in (box.state / "batch").read_text()
    assert not (box.music / "x").exists()

    box.write("/srv/hear.py", HEAR)
    box.shell("systemd-run --quiet --unit=hear python3 /srv/hear.py; systemctl stop soulspot.service")
    configure(box, '[on_batch]\nquiet = 0\nurl = "http://127.0.0.1:9999/"\n', "loopback")
    write_song(box.music / "other.mp3")

    until(lambda: '"counts": {"added": 1}' in box.shell("journalctl --no-pager --output=cat --unit=hear"), 20)
    box.shell("systemctl stop hear")


@in_a_box
def test_an_instance_keeps_a_catalogue_of_its_own(box: Box) -> None:
    box.write("/etc/soulspot/classical.toml", '[library]\nfolders = ["/srv/music"]\n')
    write_song(box.music / "song.mp3")

    box.shell("systemctl start soulspot@classical.service")

    until((box.state / "classical" / "soulspot.db").exists)
    until(lambda: "song" in box.shell("SOULSPOT_DATABASE__URL=$URL soulspot tracks".replace("$URL", CLASSICAL)))
    box.shell("systemctl stop soulspot@classical.service")


@in_a_box
def test_a_tag_reader_keeps_its_limit_on_memory_in_the_sandbox(box: Box) -> None:
    box.shell("systemctl start soulspot.service")

    def limits() -> set[str]:
        readers = box.shell("pgrep -u soulspot -f soulspot.infrastructure.tags.readers.reader_process").split()
        return {box.shell(f"grep 'Max address space' /proc/{reader}/limits").split()[3] for reader in readers}

    until(lambda: limits() == {str(512 << 20)}, 10)
    assert box.unit()["NRestarts"] == "0"


@in_a_box
def test_a_reload_waits_for_the_new_settings_and_a_wrong_one_leaves_the_old_in_force(box: Box) -> None:
    box.shell("mkdir -p /srv/more && systemctl start soulspot.service")
    before = box.unit()["MainPID"]

    box.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music", "/srv/nowhere"]\n')
    refused = box.shell("systemctl reload soulspot.service", fails=True)
    write_song(box.music / "one.mp3")
    until(lambda: len(box.tracks()) == 1, 10)
    box.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music", "/srv/more"]\n')
    box.shell("systemctl reload soulspot.service && cp /srv/music/one.mp3 /srv/more/two.mp3")

    until(lambda: len(box.tracks()) == 2, 10)
    assert "failed" in refused
    assert "the music folder /srv/nowhere was never there" in box.journal()
    unit = box.unit()
    assert (unit["ActiveState"], unit["MainPID"], unit["NRestarts"]) == ("active", before, "0")
    assert unit["StatusText"].startswith("watching /srv/music, /srv/more")
    assert "health    ok" in box.shell("STATE_DIRECTORY=/var/lib/soulspot soulspot status")


@in_a_box
def test_the_backup_of_the_timer_is_made_while_the_service_runs(box: Box) -> None:
    write_song(box.music / "song.mp3")
    box.shell("systemctl start soulspot.service")
    until(box.tracks, 10)

    box.shell("systemctl start soulspot-backup.service")

    made = box.shell("stat -c '%a %U %n' /var/backups/soulspot/*").split()
    assert made[:2] == ["600", "soulspot"]


@in_a_box
@pytest.mark.usefixtures("put_back")
def test_the_service_is_installed_by_one_command_and_taken_away_by_another(box: Box) -> None:
    box.shell(
        "rm /etc/systemd/system/soulspot* /etc/soulspot/config.toml /etc/sysusers.d/soulspot.conf;"
        "systemctl daemon-reload"
    )
    soulspot = "/opt/soulspot/bin/soulspot"

    shown = box.shell(f"echo n | {soulspot} service install", fails=True)
    assert "write   /etc/systemd/system/soulspot.service" in shown
    box.shell("! test -e /etc/systemd/system/soulspot.service")
    box.shell(f"{soulspot} service install --yes")
    assert box.shell("realpath $(man --where soulspot soulspot.toml)").split() == [
        "/usr/local/share/man/man1/soulspot.1",
        "/usr/local/share/man/man5/soulspot.toml.5",
    ]
    assert box.unit("soulspot-backup.timer")["UnitFileState"] == "enabled"
    box.shell("sed -i 's|#folders = .*|folders = [\"/srv/music\"]|' /etc/soulspot/config.toml")
    box.shell("systemctl start soulspot")
    write_song(box.music / "song.mp3")
    until(lambda: len(box.tracks()) == 1, 10)
    assert soulspot in box.unit()["ExecStart"]
    box.shell(f"{soulspot} service uninstall --yes")

    assert box.unit()["LoadState"] == "not-found"
    box.shell("! man --where soulspot")
    assert len(box.tracks()) == 1


ASK = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8337/{}').read().decode())"


def page(box: Box, path: str = "") -> str:
    return box.shell(f'python3 -c "{ASK.format(path)}"')


@in_a_box
def test_the_page_is_started_by_who_comes_and_ends_when_nobody_does(box: Box) -> None:
    unit = "/etc/systemd/system/soulspot-web.service.d/test.conf"
    box.write(unit, "[Service]\nExecStart=\nExecStart=/usr/local/bin/soulspot web --idle 2\n")
    write_song(box.music / "song.mp3", title="On the page")
    box.shell("systemctl daemon-reload; systemctl start soulspot.service soulspot-web.socket")
    until(box.tracks, 10)
    assert box.unit("soulspot-web.service")["ActiveState"] == "inactive"

    for health in ("watching", "no soulspot is watching"):
        shown = page(box)
        assert "On the page" in shown
        assert health in shown
        until(lambda: box.unit("soulspot-web.service")["ActiveState"] == "inactive", 20)
        box.shell("systemctl stop soulspot.service")

    assert box.unit("soulspot-web.service")["Result"] == "success"
    assert box.unit("soulspot-web.socket")["ActiveState"] == "active"


@in_a_box
def test_the_page_has_no_network_writes_no_music_and_shows_covers(box: Box) -> None:
    song = write_song(box.music / "Album" / "song.mp3", title="Song")
    (song.parent / "cover.png").write_bytes(picture())
    box.shell("systemctl start soulspot.service soulspot-web.socket")
    until(box.tracks, 10)

    link = re.search(r'"(/cover/[^"]+)"', page(box))
    assert link is not None
    size = box.shell(
        f"python3 -c \"import urllib.request as r; print(len(r.urlopen('http://127.0.0.1:8337{link[1]}').read()))\""
    )

    assert int(size) == len(picture())
    pid = box.unit("soulspot-web.service")["MainPID"]
    inside = f"nsenter --target {pid} --mount --net --"
    assert box.shell(f"{inside} ip -brief link || {inside} cat /proc/net/dev").count("lo") == 1
    assert "Read-only" in box.shell(f"{inside} touch /srv/music/x", fails=True)
    assert box.shell("stat -c '%a %U' /var/lib/soulspot/soulspot.db.web-token").split() == ["600", "soulspot"]
    token = box.shell("STATE_DIRECTORY=/var/lib/soulspot soulspot web --show-token").splitlines()[0]
    assert token == box.shell("cat /var/lib/soulspot/soulspot.db.web-token").strip()


@in_a_box
@pytest.mark.usefixtures("put_back")
def test_the_page_is_installed_with_the_service_where_that_is_wanted(box: Box) -> None:
    box.shell("rm /etc/systemd/system/soulspot*; systemctl daemon-reload")

    box.shell("/opt/soulspot/bin/soulspot service install --web --yes")
    assert box.unit("soulspot-web.socket")["ActiveState"] == "active"
    box.shell("/opt/soulspot/bin/soulspot service uninstall --yes")

    assert box.unit("soulspot-web.socket")["LoadState"] == "not-found"


@in_a_box
@pytest.mark.usefixtures("put_back")
def test_the_lines_of_the_documents_lead_from_nothing_to_a_catalogued_file(box: Box) -> None:
    lines = marked("docs/install.md", "install") + marked("docs/install.md", "start")
    lines = re.sub(r"```\w*\n", "", lines).replace("/opt/soulspot", "/opt/fresh")
    lines = lines.replace("--quiet soulspot", f"--quiet --constraint {CONSTRAINTS} /opt/built/*.whl")
    lines = lines.replace("soulspot doctor", "soulspot doctor || test $? = 1")  # of Debian's SQLite it warns
    box.write("/tmp/constraints.txt", (HERE / "constraints.txt").read_text())
    box.shell("rm /etc/systemd/system/soulspot* /etc/sysusers.d/soulspot.conf /usr/local/bin/soulspot")
    write_song(box.music / "song.mp3")

    box.shell(f"set -e\n{lines}", seconds=600)

    until(lambda: len(box.tracks()) == 1, 10)
    box.shell("rm -r /opt/fresh")


@in_a_box
def test_a_command_that_the_service_cannot_see_is_not_installed(box: Box) -> None:
    box.shell("cp -r /opt/soulspot /root/soulspot")

    refused = box.shell("/root/soulspot/bin/python -m soulspot service install --yes", fails=True)

    assert "is in /root, which is hidden from the service" in refused


AS_THE_SERVICE = "runuser -u soulspot -- env STATE_DIRECTORY=/var/lib/soulspot"
BEFORE = revisions()[-2]


def content(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table, and that of the views that there are."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = [table for table in tables if not table.startswith(("sqlite_", "alembic_"))]
        found = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in tables}
    connection.close()
    return found


def left_by_the_version_before(box: Box, *statements: str) -> None:
    """Have a catalogue of twenty songs and a failure, with the schema of the version before."""
    copies(box, 20)
    (box.music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    box.shell("systemctl start soulspot.service")
    until(lambda: len(box.tracks()) == 20 and box.actions("file_failed") == 1)
    box.shell("systemctl stop soulspot.service")
    box.shell(f"{AS_THE_SERVICE} soulspot db downgrade {BEFORE} && rm /var/lib/soulspot/*.before-upgrade-*")
    for statement in statements:
        box.change(statement)


@in_a_box
def test_the_catalogue_of_the_version_before_is_upgraded_at_the_start_and_can_be_put_back(box: Box) -> None:
    left_by_the_version_before(box)
    before = content(box.state / "soulspot.db")

    box.shell("systemctl start soulspot.service")

    [copy] = box.state.glob("soulspot.db.before-upgrade-*")
    assert f"the schema is upgraded from {BEFORE} to {REVISION}; a copy from before is" in box.journal()
    assert box.shell(f"stat -c '%a %U' /var/lib/soulspot/{copy.name}").split() == ["600", "soulspot"]
    assert content(copy) == content(box.state / "soulspot.db") == before
    assert box.rows("SELECT version_num FROM alembic_version") == [(REVISION,)]
    assert box.rows("SELECT count(*) FROM catalogue_tracks") == [(20,)]
    write_song(box.music / "after.mp3", title="After")
    until(lambda: len(box.tracks()) == 21, 10)
    box.shell("systemctl stop soulspot.service")

    restored = box.shell(f"{AS_THE_SERVICE} soulspot db restore /var/lib/soulspot/{copy.name}")

    assert f"its schema {BEFORE} is older than this soulspot needs ({REVISION}): the next start upgrades it" in restored
    assert content(box.state / "soulspot.db") == before
    box.shell("systemctl start soulspot.service")
    until(lambda: len(box.tracks()) == 21, 10)
    assert box.unit()["NRestarts"] == "0"


@in_a_box
def test_an_upgrade_that_is_not_wanted_is_refused_and_the_catalogue_left_as_it_is(box: Box) -> None:
    left_by_the_version_before(box)
    box.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\n[database]\nupgrade = false\n')
    before = content(box.state / "soulspot.db")

    box.shell("systemctl start soulspot.service", fails=True)

    assert (box.unit()["ExecMainStatus"], box.unit()["NRestarts"]) == ("78", "0")
    assert "run `soulspot db upgrade` yourself" in box.journal()
    assert content(box.state / "soulspot.db") == before
    assert list(box.state.glob("*.before-*")) == []


@in_a_box
def test_systemd_waits_for_an_upgrade_that_takes_longer_than_a_start_may(box: Box) -> None:
    slowly = "SELECT count(*) FROM slow a, slow b, slow c WHERE c.x < 120 AND a.x + b.x + c.x > 5"
    left_by_the_version_before(
        box,
        "CREATE TABLE slow AS WITH n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 1000) SELECT * FROM n",
        "UPDATE files SET failed_at = NULL",
        f"CREATE TRIGGER slow_file AFTER UPDATE OF failed_at ON files BEGIN {slowly}; END",
    )
    drop_in(box, "TimeoutStartSec=5")

    box.shell("systemctl start soulspot.service")

    unit = box.unit()
    took = int(unit["ActiveEnterTimestampMonotonic"]) - int(unit["InactiveExitTimestampMonotonic"])
    assert took > 5_000_000
    assert (unit["ActiveState"], unit["NRestarts"]) == ("active", "0")
    assert box.rows("SELECT version_num FROM alembic_version") == [(REVISION,)]


NO_LEASE = ["AmbientCapabilities=", "CapabilityBoundingSet=", "PrivateUsers=yes"]


@in_a_box
@pytest.mark.parametrize(
    ("directives", "folder", "finding", "cure"),
    [
        ([], "/home/me/Music", "FAIL  sandbox   ProtectHome=yes in soulspot.service hides", "home.conf"),
        ([], "/tmp/Music", "FAIL  sandbox   PrivateTmp=yes in soulspot.service hides", "PrivateTmp=no"),
        (["InaccessiblePaths=/srv"], "/srv/music", "FAIL  sandbox   InaccessiblePaths=/srv", "InaccessiblePaths="),
        (
            ["TemporaryFileSystem=/srv"],
            "/srv/music",
            "FAIL  sandbox   TemporaryFileSystem=/srv",
            "TemporaryFileSystem=",
        ),
        (NO_LEASE, "/srv/music", "WARN  leases", "AmbientCapabilities=CAP_LEASE and PrivateUsers=no"),
        ([], "/root/Music", "FAIL  sandbox   ProtectHome=yes", "home.conf"),
        ([], "/srv/private", "FAIL  folders   the service user soulspot cannot read", "setfacl -R -m u:soulspot:rX"),
    ],
)
def test_the_doctor_names_the_directive_that_is_in_the_way(
    box: Box, directives: list[str], folder: str, finding: str, cure: str
) -> None:
    box.shell(f"mkdir -p {folder} && touch {folder}/a.mp3 && mkdir -p -m 700 /srv/private && chmod 700 /srv/private")
    box.write("/etc/soulspot/config.toml", f'[library]\nfolders = ["{folder}"]\n')
    if directives:
        drop_in(box, *directives)

    told = box.shell("soulspot doctor || true")

    assert re.search(rf"^{re.escape(finding)}.*\n +→ .*{re.escape(cure)}", told, re.MULTILINE), told
