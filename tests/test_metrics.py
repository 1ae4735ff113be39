"""Metrics, probes and `soulspot health` report what happened, in every format."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from tests.conftest import Soulspot, until, write_song
from tests.support.http_endpoints import ask, free_port

from soulspot.config import Settings
from soulspot.daemon.counters import LATENCY_BOUNDS, OutcomeCounters
from soulspot.daemon.monitoring import endpoints
from soulspot.errors import ConfigError
from soulspot.ingest.outcome import Outcome

Samples = dict[str, float]


def samples(text: str) -> Samples:
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


class Watched:
    """A daemon whose metrics are on a socket."""

    def __init__(self, soulspot: Soulspot) -> None:
        self.soulspot = soulspot
        self.socket_file = soulspot.music.parent / "metrics.socket"

    def start(self, **settings: str) -> None:
        self.daemon = self.soulspot.watch(SOULSPOT_METRICS__LISTEN=str(self.socket_file), **settings)

    def text(self) -> str:
        return ask(self.socket_file, "/metrics").text

    def scrape(self) -> Samples:
        return samples(self.text())

    def has(self, name: str, value: float) -> bool:
        return self.scrape().get(name) == value


@pytest.fixture
def watched(soulspot: Soulspot) -> Watched:
    return Watched(soulspot)


def test_a_scrape_reports_the_outcomes_of_files(watched: Watched) -> None:
    music = watched.soulspot.music
    write_song(music / "before.mp3")
    (music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    watched.start()
    until(lambda: watched.has('soulspot_files_total{outcome="added"}', 1))
    until(lambda: watched.has('soulspot_files_total{outcome="failed"}', 1))

    write_song(music / "song.mp3")

    until(lambda: watched.has('soulspot_files_total{outcome="added"}', 2))
    scraped = watched.scrape()
    assert scraped["soulspot_close_to_commit_seconds_count"] == 1  # the other files existed before the start
    assert scraped['soulspot_close_to_commit_seconds_bucket{le="10"}'] == 1
    assert scraped['soulspot_health{state="ok"}'] == 1
    assert scraped['soulspot_queue_files{state="in_hand"}'] == 0
    assert 0 < time.time() - scraped["soulspot_start_time_seconds"] < 120
    assert scraped["process_resident_memory_bytes"] > 1e6


def test_catalogue_counts_are_queried_at_each_scrape(watched: Watched) -> None:
    write_song(watched.soulspot.music / "song.mp3")
    (watched.soulspot.music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    watched.soulspot.scan()
    watched.start()

    scraped = watched.scrape()

    assert scraped['soulspot_catalogue_files{status="catalogued"}'] == 1
    assert {name: value for name, value in scraped.items() if name.startswith("soulspot_failed_files") and value} == {
        'soulspot_failed_files{code="corrupt"}': 1
    }


def test_no_label_contains_a_path(watched: Watched) -> None:
    write_song(watched.soulspot.music / "artist" / "song.mp3")
    watched.start(SOULSPOT_ON_BATCH__COMMAND='["true"]')
    until(lambda: watched.has('soulspot_files_total{outcome="added"}', 1))

    labels = re.findall(r'="([^"]*)"', watched.text())

    [folder] = watched.soulspot.rows("SELECT id FROM folders")
    assert folder[0] in labels
    assert not [label for label in labels if "/" in label or "song" in label or "music" in label]


def test_an_offline_folder_shows_in_metrics_probes_and_health(watched: Watched) -> None:
    write_song(watched.soulspot.music / "song.mp3")
    watched.soulspot.scan()
    watched.start()
    until(lambda: ask(watched.socket_file, "/readyz").status == 200)
    [(folder,)] = watched.soulspot.rows("SELECT id FROM folders")
    assert watched.soulspot.run("health").stdout == "ok\n"

    watched.soulspot.music.rename(watched.soulspot.music.parent / "unmounted")

    until(lambda: watched.has(f'soulspot_folder_online{{folder="{folder}"}}', 0), 20)
    assert watched.has('soulspot_health{state="degraded"}', 1)
    ready = ask(watched.socket_file, "/readyz")
    assert ready.status == 200  # the other folders are still watched and ingested
    assert "is offline" in ready.text
    result = watched.soulspot.run("health")
    assert result.returncode == 1
    assert re.fullmatch(r"degraded: folder \S+ is offline: .*\n", result.stdout)


def test_a_daemon_whose_database_refuses_is_alive_but_not_ready(watched: Watched) -> None:
    watched.start()
    assert ask(watched.socket_file, "/livez").text == "ok\n"
    watched.soulspot.change("PRAGMA journal_mode")  # waits until the catalogue exists
    holder = sqlite3.connect(watched.soulspot.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    write_song(watched.soulspot.music / "song.mp3")

    until(lambda: ask(watched.socket_file, "/readyz").status == 503)
    assert "the database refuses" in ask(watched.socket_file, "/readyz").text
    assert ask(watched.socket_file, "/livez").status == 200
    assert watched.has('soulspot_paused{by="database"}', 1)
    result = watched.soulspot.run("health", "--json")
    assert (result.returncode, json.loads(result.stdout)["health"]) == (1, "paused")
    holder.execute("ROLLBACK")
    holder.close()
    until(lambda: ask(watched.socket_file, "/readyz").status == 200)


def test_a_pause_by_a_person_shows_in_metrics_health_and_readiness(watched: Watched) -> None:
    watched.start()
    until(lambda: ask(watched.socket_file, "/readyz").status == 200)

    assert watched.soulspot.run("pause").returncode == 0

    assert watched.has('soulspot_paused{by="person"}', 1)
    assert watched.has('soulspot_paused{by="database"}', 0)
    assert watched.soulspot.run("health").returncode == 1
    assert "paused by" in ask(watched.socket_file, "/readyz").text
    assert watched.soulspot.run("resume").returncode == 0
    until(lambda: ask(watched.socket_file, "/readyz").status == 200)


def test_health_without_a_daemon_is_failed(soulspot: Soulspot) -> None:
    soulspot.scan()

    result = soulspot.run("health")

    assert (result.returncode, result.stdout) == (2, "failed: no soulspot answers\n")


def test_health_of_a_stopped_process_is_failed(watched: Watched) -> None:
    watched.start()
    watched.daemon.send_signal(signal.SIGSTOP)

    result = watched.soulspot.run("health")

    watched.daemon.send_signal(signal.SIGCONT)
    assert (result.returncode, result.stdout) == (2, "failed: no soulspot answers\n")


def test_the_latency_of_a_moved_in_folder_counts_from_the_move(watched: Watched) -> None:
    watched.start()
    song = write_song(watched.soulspot.music.parent / "album" / "song.mp3")
    until(lambda: time.time() - song.stat().st_ctime > 3)

    song.parent.rename(watched.soulspot.music / "album")

    until(lambda: watched.scrape()["soulspot_close_to_commit_seconds_count"] == 1)
    assert watched.scrape()["soulspot_close_to_commit_seconds_sum"] < 2.9


def test_latencies_are_counted_in_the_right_buckets() -> None:
    counters = OutcomeCounters()

    for waited in (0.0, 0.01, 0.0101, 300.0, 301.0, None):
        counters.add(Outcome("added", "/music/song.mp3", waited=waited))
    counters.add(Outcome("unchanged", "/music/song.mp3", waited=1.0))

    assert counters.kinds["added"] == 6
    assert (counters.within[0], counters.within[1], counters.within[len(LATENCY_BOUNDS) - 1], counters.within[-1]) == (
        2,
        1,
        1,
        1,
    )
    assert sum(counters.within) == 5


def test_the_textfile_is_complete_readable_and_removed_at_the_end(soulspot: Soulspot) -> None:
    file = soulspot.music.parent / "soulspot.prom"
    before = os.umask(0o077)
    daemon = soulspot.watch(SOULSPOT_METRICS__TEXTFILE=str(file), SOULSPOT_METRICS__TEXTFILE_INTERVAL="1")
    os.umask(before)
    until(file.exists)
    write_song(soulspot.music / "song.mp3")

    until(lambda: samples(file.read_text()).get('soulspot_files_total{outcome="added"}') == 1)

    assert file.stat().st_mode & 0o777 == 0o644
    assert "process_" not in file.read_text()  # node_exporter exports its own, and rejects duplicates
    daemon.terminate()
    daemon.wait()
    assert [each.name for each in file.parent.iterdir() if ".prom" in each.name] == []


def test_a_textfile_that_cannot_be_written_is_logged_once(soulspot: Soulspot) -> None:
    folder = soulspot.music.parent / "collector"
    folder.mkdir()
    file = folder / "soulspot.prom"
    soulspot.watch(SOULSPOT_METRICS__TEXTFILE=str(file), SOULSPOT_METRICS__TEXTFILE_INTERVAL="1")
    until(file.exists)

    shutil.rmtree(folder)

    until(lambda: b"the metrics cannot be written" in soulspot.log.read_bytes())
    folder.mkdir()
    until(file.exists)
    assert soulspot.log.read_bytes().count(b"the metrics cannot be written") == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SOULSPOT_METRICS__TEXTFILE": "/nowhere/soulspot.prom"}, "the folder /nowhere does not exist"),
        ({"SOULSPOT_METRICS__TEXTFILE": "/tmp/soulspot.txt"}, "a file that ends in .prom"),
        ({"SOULSPOT_METRICS__LISTEN": "/nowhere/metrics.socket"}, "cannot listen at /nowhere/metrics.socket"),
        ({"SOULSPOT_METRICS__LISTEN": "0.0.0.0:9842"}, "a loopback address and port"),
        ({"SOULSPOT_METRICS__LISTEN": "192.168.1.2:9842"}, "a loopback address and port"),
        ({"SOULSPOT_METRICS__LISTEN": "127.0.0.1"}, "a loopback address and port"),
        ({"SOULSPOT_METRICS__LISTEN": "127.0.0.1:70000"}, "a loopback address and port"),
    ],
)
def test_unusable_settings_are_refused_at_the_start(soulspot: Soulspot, settings: dict[str, str], words: str) -> None:
    result = soulspot.run("watch", str(soulspot.music), **settings)

    assert result.returncode == 78
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_without_the_extra_the_start_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "find_spec", lambda name: None if name == "prometheus_client" else True)

    with pytest.raises(ConfigError, match=re.escape("pip install 'soulspot[metrics]'")) as refused:
        endpoints.check(Settings.model_validate({"metrics": {"listen": "127.0.0.1:9842"}}))

    assert refused.value.exit_code == 78


def test_without_metrics_the_extra_is_not_imported() -> None:
    program = "import sys, soulspot.daemon; print(*sorted({'h11', 'prometheus_client'} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == ""


def test_a_reload_enables_metrics_and_a_port_in_use_changes_nothing(soulspot: Soulspot) -> None:
    file, port = soulspot.music.parent / "config.toml", free_port()
    soulspot.environment["SOULSPOT_CONFIG"] = str(file)
    folders = f'[library]\nfolders = ["{soulspot.music}"]\n'
    file.write_text(folders)
    soulspot.start_watching(folders=False)
    until(lambda: soulspot.log.exists() and b"watching" in soulspot.log.read_bytes())

    file.write_text(f'{folders}[metrics]\nlisten = "127.0.0.1:{port}"\n')
    assert soulspot.run("reload").stdout == "the new settings are active\n"
    until(lambda: ask(port, "/readyz").status == 200)

    file.write_text(f'{folders}[metrics]\nlisten = "/nowhere/x.socket"\n')
    result = soulspot.run("reload")
    assert result.returncode == 78
    assert "cannot listen at /nowhere/x.socket" in result.stderr
    until(lambda: ask(port, "/readyz").status == 200)
