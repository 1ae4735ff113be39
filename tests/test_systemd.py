"""The service under a real systemd: its notifications, sandbox, restarts and installation."""

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
from tests.support.systemd_container import HERE, SystemdContainer, install_wheel, skip_without_systemd
from tests.support.web_client import picture
from tests.test_documents import marked
from tests.test_persistence import revisions

from soulspot.infrastructure.persistence.schema import REVISION

pytestmark = pytest.mark.timeout(900)


P = ParamSpec("P")
CLASSICAL = "sqlite+aiosqlite:////var/lib/soulspot/classical/soulspot.db"
CONSTRAINTS = "/tmp/constraints.txt"
MINE = "sqlite+aiosqlite:////home/me/.config/soulspot/soulspot.db"
"""Where systemd 252 keeps the state of a user's unit; later versions use .local/state."""


def in_a_box(test: Callable[P, None]) -> Callable[P, None]:
    return pytest.mark.systemd(pytest.mark.root(test))


RECEIVER = """
import http.server
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).decode(), flush=True)
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 9999), Receiver).serve_forever()
"""


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdContainer]:
    skip_without_systemd()
    own = tmp_path_factory.getbasetemp()
    installed = install_wheel(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)
    container = SystemdContainer(tmp_path_factory.mktemp("machine"))
    with container.booted(installed):
        put_units(container)
        yield container


def put_units(container: SystemdContainer) -> None:
    """Install the units by hand, as a packager would."""
    container.shell(
        "cp /opt/units/*.service /opt/units/*.timer /opt/units/*.socket /etc/systemd/system &&"
        "cp -r /opt/units/sysusers.d /opt/units/tmpfiles.d /etc && cp /opt/units/user/* /etc/systemd/user &&"
        "systemd-sysusers && systemd-tmpfiles --create soulspot.conf && systemctl daemon-reload"
    )


@pytest.fixture
def put_back(booted: SystemdContainer) -> Iterator[None]:
    """Restore the parts of the service that a test removes, even if it fails."""
    yield
    booted.shell("ln -sf /opt/soulspot/bin/soulspot /usr/local/bin/soulspot")
    put_units(booted)


@pytest.fixture
def container(booted: SystemdContainer) -> Iterator[SystemdContainer]:
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


def drop_in(container: SystemdContainer, *lines: str) -> None:
    container.write("/etc/systemd/system/soulspot.service.d/test.conf", "\n".join(["[Service]", *lines, ""]))
    container.shell("systemctl daemon-reload")


def copies(container: SystemdContainer, count: int) -> None:
    song = write_song(container.music / "0.mp3")
    for number in range(1, count):
        shutil.copyfile(song, container.music / f"{number}.mp3")


def test_systemd_gets_ready_only_once_inotify_watches(new_soulspot: Soulspot) -> None:
    address = new_soulspot.music.parent / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        daemon = new_soulspot.start_watching(NOTIFY_SOCKET=str(address))
        while b"READY=1" not in (received := manager.recv(4096)).split(b"\n"):
            pass
        daemon.send_signal(signal.SIGSTOP)
        marks = "".join(file.read_text() for file in Path(f"/proc/{daemon.pid}/fdinfo").iterdir())
        daemon.send_signal(signal.SIGCONT)

    assert new_soulspot.music.stat().st_ino in {
        int(each, 16) for each in re.findall(r"inotify .*?ino:([0-9a-f]+)", marks)
    }
    assert f"STATUS=watching {new_soulspot.music}".encode() in received


UNITS = ["soulspot.service", "soulspot@.service", "soulspot-backup.service", "soulspot-web.service"]


@in_a_box
def test_systemd_finds_no_fault_with_the_units(container: SystemdContainer) -> None:
    named = " ".join(f"/etc/systemd/system/{unit}" for unit in [*UNITS, "soulspot-backup.timer", "soulspot-web.socket"])

    assert container.shell(f"systemd-analyze verify --recursive-errors=no --man=no {named}") == ""
    assert "Next elapse" in container.shell("systemd-analyze calendar daily")


@in_a_box
def test_the_user_unit_is_valid_and_runs_as_a_user(container: SystemdContainer) -> None:
    container.shell(
        "useradd --create-home me; loginctl enable-linger me; mkdir -p ~me/.local/bin ~me/.config/soulspot ~me/Music"
    )
    container.shell("ln -sf /usr/local/bin/soulspot ~me/.local/bin/soulspot")
    container.write("/home/me/.config/soulspot/config.toml", '[library]\nfolders = ["~/Music"]\n')
    container.shell("chown -R me: ~me")
    as_me = "runuser -u me -- env XDG_RUNTIME_DIR=/run/user/$(id -u me) HOME=/home/me"

    until(lambda: container.shell("systemctl is-active user@$(id -u me) || true").strip() == "active")
    output = container.shell(
        f"{as_me} systemd-analyze --user verify --recursive-errors=no /etc/systemd/user/soulspot.service"
    )
    container.shell(f"{as_me} systemctl --user start soulspot")
    write_song(container.music / "song.mp3")
    container.shell("cp /srv/music/song.mp3 ~me/Music/ && chown me: ~me/Music/song.mp3")

    assert output == ""
    until(lambda: "song" in container.shell(f"SOULSPOT_DATABASE__URL={MINE} soulspot tracks"), 10)
    container.shell(f"{as_me} systemctl --user stop soulspot")


@in_a_box
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_has_a_low_exposure_score(container: SystemdContainer, unit: str) -> None:
    output = container.shell(f"systemd-analyze security --offline=yes --threshold=6 /etc/systemd/system/{unit}")

    assert re.search(r"Overall exposure level for \S+: 0\.[0-6] SAFE", output)


def test_all_units_have_the_same_restrictions() -> None:
    marked = [(HERE / "systemd" / unit).read_text().partition("# What the service may not do")[2] for unit in UNITS]

    assert len({text.partition("[Install]")[0].strip() for text in marked}) == 1


@in_a_box
def test_a_ready_service_notices_a_dropped_file(container: SystemdContainer) -> None:
    container.shell("systemctl start soulspot.service")
    write_song(container.music / "song.mp3", title="Dropped")

    until(lambda: container.tracks() == {("song.mp3", "Dropped")}, 5)
    unit = container.unit()
    assert (unit["ActiveState"], unit["Type"], unit["NRestarts"]) == ("active", "notify", "0")
    assert unit["StatusText"].startswith("watching /srv/music")


@in_a_box
def test_the_service_stops_quickly_and_cleanly_during_an_import(container: SystemdContainer) -> None:
    copies(container, 2000)
    container.shell("systemctl start soulspot.service")
    until(container.tracks)

    began = time.monotonic()
    container.shell("systemctl stop soulspot.service")

    assert time.monotonic() - began < 10
    unit = container.unit()
    assert (unit["ActiveState"], unit["Result"], unit["ExecMainStatus"]) == ("inactive", "success", "0")
    tracks = len(container.tracks())
    assert 0 < tracks < 2000
    assert container.actions("track_added") == tracks
    container.shell("systemctl start soulspot.service")
    until(lambda: len(container.tracks()) == 2000, 60)
    assert container.actions("track_added") == 2000


@in_a_box
def test_a_wrong_setting_fails_the_start_without_a_restart(container: SystemdContainer) -> None:
    container.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\nquiet = 3\n')

    container.shell("systemctl start soulspot.service", fails=True)

    unit = container.unit()
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == ("failed", "78", "0")
    assert "/etc/soulspot/config.toml, line 3: there is no setting library.quiet" in container.journal()


@in_a_box
def test_a_killed_service_restarts_and_loses_and_duplicates_nothing(container: SystemdContainer) -> None:
    copies(container, 300)
    container.shell("systemctl start soulspot.service")
    until(container.tracks)

    container.shell("systemctl kill --signal=KILL soulspot.service")
    shutil.copyfile(container.music / "0.mp3", container.music / "while-down.mp3")

    until(lambda: container.unit()["NRestarts"] == "1", 10)
    until(lambda: len(container.tracks()) == 301, 60)
    assert container.rows("SELECT count(*), count(DISTINCT entity_id) FROM audit_log WHERE action = 'track_added'") == [
        (301, 301)
    ]
    assert container.rows("PRAGMA integrity_check") == [("ok",)]


@in_a_box
def test_the_service_takes_leases_on_the_files_of_other_users(container: SystemdContainer) -> None:
    container.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\nquiet_period = 60\n')
    container.shell("systemctl start soulspot.service")

    song = write_song(container.music / "song.mp3")

    assert song.owner() == "root"
    until(lambda: len(container.tracks()) == 1, 5)


@in_a_box
def test_the_journal_has_the_priority_of_each_line(container: SystemdContainer) -> None:
    container.shell("systemctl start soulspot.service")
    (container.music / "broken.mp3").write_bytes(b"no audio at all" * 100)

    until(lambda: "failed /srv/music/broken.mp3" in container.journal())
    warnings = container.shell("journalctl --output=cat --unit=soulspot.service --priority=warning")
    assert "failed /srv/music/broken.mp3" in warnings
    assert "watching /srv/music" not in warnings


@in_a_box
def test_the_watchdog_restarts_a_service_with_a_blocked_loop(container: SystemdContainer) -> None:
    drop_in(container, "WatchdogSec=2", "TimeoutAbortSec=1")
    container.shell("systemctl start soulspot.service")
    time.sleep(3)
    assert container.unit()["NRestarts"] == "0"

    container.shell("systemctl kill --kill-whom=main --signal=STOP soulspot.service")
    write_song(container.music / "song.mp3")

    until(lambda: len(container.tracks()) == 1, 20)
    assert container.unit()["NRestarts"] == "1"
    assert "Watchdog timeout (limit 2s)!" in container.journal()


@in_a_box
@pytest.mark.parametrize("example", ["no-capability", "quieter-disks", "network-database", "loopback", "network-hooks"])
def test_the_service_runs_with_each_example_drop_in(container: SystemdContainer, example: str) -> None:
    container.shell(
        "mkdir /etc/systemd/system/soulspot.service.d &&"
        f"cp /opt/units/drop-ins/{example}.conf /etc/systemd/system/soulspot.service.d && systemctl daemon-reload"
    )
    container.shell("systemctl start soulspot.service")

    write_song(container.music / "song.mp3")

    until(lambda: len(container.tracks()) == 1, 10)


@in_a_box
def test_a_folder_in_home_is_refused_until_a_drop_in_exposes_it(container: SystemdContainer) -> None:
    container.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/home/me/Music"]\n')
    container.shell("mkdir -p /home/me/Music")
    container.shell("systemctl start soulspot.service", fails=True)
    assert container.unit()["ExecMainStatus"] == "78"

    drop_in(container, *(HERE / "systemd" / "drop-ins" / "home.conf").read_text().splitlines()[3:])
    container.shell("systemctl reset-failed; systemctl start soulspot.service")
    write_song(container.music / "song.mp3")
    container.shell("cp /srv/music/song.mp3 /home/me/Music")

    until(lambda: len(container.tracks()) == 1, 10)


def configure(container: SystemdContainer, text: str, *examples: str) -> None:
    """Write settings in addition to the music folder, install example drop-ins, and start the service."""
    container.write("/etc/soulspot/config.toml", f'[library]\nfolders = ["/srv/music"]\n{text}')
    container.shell("mkdir -p /etc/systemd/system/soulspot.service.d")
    for example in examples:
        container.shell(f"cp /opt/units/drop-ins/{example}.conf /etc/systemd/system/soulspot.service.d")
    container.shell("systemctl daemon-reload && systemctl start soulspot.service")


@in_a_box
def test_metrics_on_a_unix_socket_need_no_drop_in(container: SystemdContainer) -> None:
    configure(container, '[metrics]\nlisten = "/var/lib/soulspot/metrics.socket"\n')

    assert (
        container.shell("curl -s --unix-socket /var/lib/soulspot/metrics.socket http://localhost/readyz") == "ready\n"
    )
    assert container.shell("SOULSPOT_DATABASE__URL= soulspot health") == "ok\n"


@in_a_box
def test_metrics_on_a_port_need_the_drop_in_for_localhost(container: SystemdContainer) -> None:
    container.write(
        "/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\n[metrics]\nlisten = "[::1]:9842"\n'
    )
    container.shell("systemctl start soulspot.service", fails=True)
    assert container.unit()["ExecMainStatus"] == "78"
    assert "check whether the unit needs the drop-in loopback.conf" in container.journal()
    container.shell("systemctl reset-failed")

    configure(container, '[metrics]\nlisten = "127.0.0.1:9842"\n', "loopback")

    assert "soulspot_build_info" in container.shell("curl -s http://127.0.0.1:9842/metrics")


@in_a_box
def test_the_textfile_is_written_where_the_drop_in_allows_it(container: SystemdContainer) -> None:
    folder = "/var/lib/prometheus/node-exporter"
    container.shell(f"mkdir -p {folder} && chown soulspot {folder}")

    configure(container, f'[metrics]\ntextfile = "{folder}/soulspot.prom"\n', "textfile")

    until(lambda: "soulspot_build_info" in container.shell(f"cat {folder}/soulspot.prom || true"), 10)


@in_a_box
def test_a_sandboxed_hook_reaches_localhost_with_the_drop_in(container: SystemdContainer) -> None:
    program = "cat >/var/lib/soulspot/batch; touch /srv/music/x 2>/dev/null; curl -s http://127.0.0.1:9999/ || exit 1"
    configure(
        container, f'[on_batch]\nquiet = 0\ncommand = ["sh", "-c", "{program}"]\nurl = "http://127.0.0.1:9999/"\n'
    )
    write_song(container.music / "song.mp3")
    until(lambda: container.journal().count("fails (") == 2, 20)
    assert '"counts": {"added": 1}' in (container.state / "batch").read_text()
    assert not (container.music / "x").exists()

    container.write("/srv/receiver.py", RECEIVER)
    container.shell("systemd-run --quiet --unit=receiver python3 /srv/receiver.py; systemctl stop soulspot.service")
    configure(container, '[on_batch]\nquiet = 0\nurl = "http://127.0.0.1:9999/"\n', "loopback")
    write_song(container.music / "other.mp3")

    until(lambda: '"counts": {"added": 1}' in container.shell("journalctl --no-pager --output=cat --unit=receiver"), 20)
    container.shell("systemctl stop receiver")


@in_a_box
def test_each_instance_has_its_own_catalogue(container: SystemdContainer) -> None:
    container.write("/etc/soulspot/classical.toml", '[library]\nfolders = ["/srv/music"]\n')
    write_song(container.music / "song.mp3")

    container.shell("systemctl start soulspot@classical.service")

    until((container.state / "classical" / "soulspot.db").exists)
    until(lambda: "song" in container.shell("SOULSPOT_DATABASE__URL=$URL soulspot tracks".replace("$URL", CLASSICAL)))
    container.shell("systemctl stop soulspot@classical.service")


@in_a_box
def test_a_tag_reader_keeps_its_memory_limit_in_the_sandbox(container: SystemdContainer) -> None:
    container.shell("systemctl start soulspot.service")

    def limits() -> set[str]:
        readers = container.shell("pgrep -u soulspot -f soulspot.infrastructure.tags.readers.reader_process").split()
        return {container.shell(f"grep 'Max address space' /proc/{reader}/limits").split()[3] for reader in readers}

    until(lambda: limits() == {str(512 << 20)}, 10)
    assert container.unit()["NRestarts"] == "0"


@in_a_box
def test_a_reload_applies_settings_and_a_wrong_one_keeps_the_old(
    container: SystemdContainer,
) -> None:
    container.shell("mkdir -p /srv/more && systemctl start soulspot.service")
    before = container.unit()["MainPID"]

    container.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music", "/srv/nowhere"]\n')
    refused = container.shell("systemctl reload soulspot.service", fails=True)
    write_song(container.music / "one.mp3")
    until(lambda: len(container.tracks()) == 1, 10)
    container.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music", "/srv/more"]\n')
    container.shell("systemctl reload soulspot.service && cp /srv/music/one.mp3 /srv/more/two.mp3")

    until(lambda: len(container.tracks()) == 2, 10)
    assert "failed" in refused
    assert "the music folder /srv/nowhere does not exist" in container.journal()
    unit = container.unit()
    assert (unit["ActiveState"], unit["MainPID"], unit["NRestarts"]) == ("active", before, "0")
    assert unit["StatusText"].startswith("watching /srv/music, /srv/more")
    assert "health    ok" in container.shell("STATE_DIRECTORY=/var/lib/soulspot soulspot status")


@in_a_box
def test_the_timer_backs_up_while_the_service_runs(container: SystemdContainer) -> None:
    write_song(container.music / "song.mp3")
    container.shell("systemctl start soulspot.service")
    until(container.tracks, 10)

    container.shell("systemctl start soulspot-backup.service")

    made = container.shell("stat -c '%a %U %n' /var/backups/soulspot/*").split()
    assert made[:2] == ["600", "soulspot"]


@in_a_box
@pytest.mark.usefixtures("put_back")
def test_one_command_installs_the_service_and_another_removes_it(container: SystemdContainer) -> None:
    container.shell(
        "rm /etc/systemd/system/soulspot* /etc/soulspot/config.toml /etc/sysusers.d/soulspot.conf;"
        "systemctl daemon-reload"
    )
    soulspot = "/opt/soulspot/bin/soulspot"

    shown = container.shell(f"echo n | {soulspot} service install", fails=True)
    assert "write   /etc/systemd/system/soulspot.service" in shown
    container.shell("! test -e /etc/systemd/system/soulspot.service")
    container.shell(f"{soulspot} service install --yes")
    assert container.shell("realpath $(man --where soulspot soulspot.toml)").split() == [
        "/usr/local/share/man/man1/soulspot.1",
        "/usr/local/share/man/man5/soulspot.toml.5",
    ]
    assert container.unit("soulspot-backup.timer")["UnitFileState"] == "enabled"
    container.shell("sed -i 's|#folders = .*|folders = [\"/srv/music\"]|' /etc/soulspot/config.toml")
    container.shell("systemctl start soulspot")
    write_song(container.music / "song.mp3")
    until(lambda: len(container.tracks()) == 1, 10)
    assert soulspot in container.unit()["ExecStart"]
    container.shell(f"{soulspot} service uninstall --yes")

    assert container.unit()["LoadState"] == "not-found"
    container.shell("! man --where soulspot")
    assert len(container.tracks()) == 1


ASK = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8337/{}').read().decode())"


def page(container: SystemdContainer, path: str = "") -> str:
    return container.shell(f'python3 -c "{ASK.format(path)}"')


@in_a_box
def test_a_visit_starts_the_page_which_exits_when_idle(container: SystemdContainer) -> None:
    unit = "/etc/systemd/system/soulspot-web.service.d/test.conf"
    container.write(unit, "[Service]\nExecStart=\nExecStart=/usr/local/bin/soulspot web --idle 2\n")
    write_song(container.music / "song.mp3", title="On the page")
    container.shell("systemctl daemon-reload; systemctl start soulspot.service soulspot-web.socket")
    until(container.tracks, 10)
    assert container.unit("soulspot-web.service")["ActiveState"] == "inactive"

    for health in ("watching", "no soulspot is watching"):
        shown = page(container)
        assert "On the page" in shown
        assert health in shown
        until(lambda: container.unit("soulspot-web.service")["ActiveState"] == "inactive", 20)
        container.shell("systemctl stop soulspot.service")

    assert container.unit("soulspot-web.service")["Result"] == "success"
    assert container.unit("soulspot-web.socket")["ActiveState"] == "active"


@in_a_box
def test_the_page_has_no_network_cannot_write_and_shows_covers(container: SystemdContainer) -> None:
    song = write_song(container.music / "Album" / "song.mp3", title="Song")
    (song.parent / "cover.png").write_bytes(picture())
    container.shell("systemctl start soulspot.service soulspot-web.socket")
    until(container.tracks, 10)

    link = re.search(r'"(/cover/[^"]+)"', page(container))
    assert link is not None
    size = container.shell(
        f"python3 -c \"import urllib.request as r; print(len(r.urlopen('http://127.0.0.1:8337{link[1]}').read()))\""
    )

    assert int(size) == len(picture())
    pid = container.unit("soulspot-web.service")["MainPID"]
    inside = f"nsenter --target {pid} --mount --net --"
    assert container.shell(f"{inside} ip -brief link || {inside} cat /proc/net/dev").count("lo") == 1
    assert "Read-only" in container.shell(f"{inside} touch /srv/music/x", fails=True)
    assert container.shell("stat -c '%a %U' /var/lib/soulspot/soulspot.db.web-token").split() == ["600", "soulspot"]
    token = container.shell("STATE_DIRECTORY=/var/lib/soulspot soulspot web --show-token").splitlines()[0]
    assert token == container.shell("cat /var/lib/soulspot/soulspot.db.web-token").strip()


@in_a_box
@pytest.mark.usefixtures("put_back")
def test_the_page_is_installed_with_the_service_on_request(container: SystemdContainer) -> None:
    container.shell("rm /etc/systemd/system/soulspot*; systemctl daemon-reload")

    container.shell("/opt/soulspot/bin/soulspot service install --web --yes")
    assert container.unit("soulspot-web.socket")["ActiveState"] == "active"
    container.shell("/opt/soulspot/bin/soulspot service uninstall --yes")

    assert container.unit("soulspot-web.socket")["LoadState"] == "not-found"


@in_a_box
@pytest.mark.usefixtures("put_back")
def test_the_documented_commands_lead_to_a_catalogued_file(container: SystemdContainer) -> None:
    lines = marked("docs/install.md", "install") + marked("docs/install.md", "start")
    lines = re.sub(r"```\w*\n", "", lines).replace("/opt/soulspot", "/opt/fresh")
    lines = lines.replace("--quiet soulspot", f"--quiet --constraint {CONSTRAINTS} /opt/built/*.whl")
    lines = lines.replace("soulspot doctor", "soulspot doctor || test $? = 1")  # it warns about Debian's SQLite
    container.write("/tmp/constraints.txt", (HERE / "constraints.txt").read_text())
    container.shell("rm /etc/systemd/system/soulspot* /etc/sysusers.d/soulspot.conf /usr/local/bin/soulspot")
    write_song(container.music / "song.mp3")

    container.shell(f"set -e\n{lines}", seconds=600)

    until(lambda: len(container.tracks()) == 1, 10)
    container.shell("rm -r /opt/fresh")


@in_a_box
def test_a_command_hidden_from_the_service_is_not_installed(container: SystemdContainer) -> None:
    container.shell("cp -r /opt/soulspot /root/soulspot")

    refused = container.shell("/root/soulspot/bin/python -m soulspot service install --yes", fails=True)

    assert "is in /root, which is hidden from the service" in refused


AS_THE_SERVICE = "runuser -u soulspot -- env STATE_DIRECTORY=/var/lib/soulspot"
BEFORE = revisions()[-2]


def content(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table and view."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = [table for table in tables if not table.startswith(("sqlite_", "alembic_"))]
        found = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in tables}
    connection.close()
    return found


def left_by_the_version_before(container: SystemdContainer, *statements: str) -> None:
    """Leave a catalogue of twenty songs and a failure, with the schema of the previous version."""
    copies(container, 20)
    (container.music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    container.shell("systemctl start soulspot.service")
    until(lambda: len(container.tracks()) == 20 and container.actions("file_failed") == 1)
    container.shell("systemctl stop soulspot.service")
    container.shell(f"{AS_THE_SERVICE} soulspot db downgrade {BEFORE} && rm /var/lib/soulspot/*.before-upgrade-*")
    for statement in statements:
        container.change(statement)


@in_a_box
def test_the_start_upgrades_an_old_catalogue_and_a_backup_restores_it(
    container: SystemdContainer,
) -> None:
    left_by_the_version_before(container)
    before = content(container.state / "soulspot.db")

    container.shell("systemctl start soulspot.service")

    [copy] = container.state.glob("soulspot.db.before-upgrade-*")
    assert f"upgrading the schema from {BEFORE} to {REVISION}; a copy from before is" in container.journal()
    assert container.shell(f"stat -c '%a %U' /var/lib/soulspot/{copy.name}").split() == ["600", "soulspot"]
    assert content(copy) == content(container.state / "soulspot.db") == before
    assert container.rows("SELECT version_num FROM alembic_version") == [(REVISION,)]
    assert container.rows("SELECT count(*) FROM catalogue_tracks") == [(20,)]
    write_song(container.music / "after.mp3", title="After")
    until(lambda: len(container.tracks()) == 21, 10)
    container.shell("systemctl stop soulspot.service")

    restored = container.shell(f"{AS_THE_SERVICE} soulspot db restore /var/lib/soulspot/{copy.name}")

    assert f"its schema {BEFORE} is older than this soulspot needs ({REVISION}): the next start upgrades it" in restored
    assert content(container.state / "soulspot.db") == before
    container.shell("systemctl start soulspot.service")
    until(lambda: len(container.tracks()) == 21, 10)
    assert container.unit()["NRestarts"] == "0"


@in_a_box
def test_a_disabled_upgrade_is_refused_and_changes_nothing(container: SystemdContainer) -> None:
    left_by_the_version_before(container)
    container.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\n[database]\nupgrade = false\n')
    before = content(container.state / "soulspot.db")

    container.shell("systemctl start soulspot.service", fails=True)

    assert (container.unit()["ExecMainStatus"], container.unit()["NRestarts"]) == ("78", "0")
    assert "run `soulspot db upgrade` yourself" in container.journal()
    assert content(container.state / "soulspot.db") == before
    assert list(container.state.glob("*.before-*")) == []


@in_a_box
def test_systemd_waits_for_an_upgrade_longer_than_its_start_limit(container: SystemdContainer) -> None:
    slowly = "SELECT count(*) FROM slow a, slow b, slow c WHERE c.x < 120 AND a.x + b.x + c.x > 5"
    left_by_the_version_before(
        container,
        "CREATE TABLE slow AS WITH n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 1000) SELECT * FROM n",
        "UPDATE files SET failed_at = NULL",
        f"CREATE TRIGGER slow_file AFTER UPDATE OF failed_at ON files BEGIN {slowly}; END",
    )
    drop_in(container, "TimeoutStartSec=5")

    container.shell("systemctl start soulspot.service")

    unit = container.unit()
    took = int(unit["ActiveEnterTimestampMonotonic"]) - int(unit["InactiveExitTimestampMonotonic"])
    assert took > 5_000_000
    assert (unit["ActiveState"], unit["NRestarts"]) == ("active", "0")
    assert container.rows("SELECT version_num FROM alembic_version") == [(REVISION,)]


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
def test_doctor_names_the_directive_that_prevents_access(
    container: SystemdContainer, directives: list[str], folder: str, finding: str, cure: str
) -> None:
    container.shell(
        f"mkdir -p {folder} && touch {folder}/a.mp3 && mkdir -p -m 700 /srv/private && chmod 700 /srv/private"
    )
    container.write("/etc/soulspot/config.toml", f'[library]\nfolders = ["{folder}"]\n')
    if directives:
        drop_in(container, *directives)

    output = container.shell("soulspot doctor || true")

    assert re.search(rf"^{re.escape(finding)}.*\n +→ .*{re.escape(cure)}", output, re.MULTILINE), output
