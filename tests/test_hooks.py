"""Hooks deliver each batch once, by a command or a POST; one that fails or hangs delays nothing else."""

import asyncio
import json
import logging
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Soulspot, both, until, write_song
from tests.support.http_endpoints import recording_server

from soulspot.daemon.events import EventBatch, EventFeed, FileEvent, Subscription
from soulspot.daemon.hooks import hook as hooks
from soulspot.daemon.hooks.batch import Batch
from soulspot.daemon.hooks.hook import Hook, Sender
from soulspot.infrastructure.processes import run as commands
from soulspot.ingest.outcome import Outcome


def file_events(*names: str, kind: str = "added", detail: str = "") -> list[FileEvent]:
    return [FileEvent(datetime.now(UTC), Outcome(kind, f"/music/{name}", "id", detail)) for name in names]


def payload_of(batch: Batch) -> dict[str, Any]:
    loaded = json.loads(batch.payload(run="run", node="node", number=1, roots=["/music", "/other"]))
    assert isinstance(loaded, dict)
    return loaded


# Batches


def test_a_batch_names_what_changed_and_where() -> None:
    batch = Batch(limit=10)
    batch.add(
        EventBatch(
            file_events("a/1.mp3", "a/2.mp3") + file_events("b/3.mp3", kind="moved", detail="from /music/c/3.mp3")
        )
    )
    batch.add(EventBatch(file_events("x.mp3", kind="unchanged")))

    payload = payload_of(batch)

    assert payload | {"began": 0, "ended": 0, "changes": 0} == {
        "version": 1, "event": "batch", "node": "node", "run": "run", "batch": 1, "began": 0, "ended": 0,
        "counts": {"added": 2, "moved": 1}, "library": ["/music"], "folders": ["/music/a", "/music/b", "/music/c"],
        "changes": 0, "cut": False,
    }  # fmt: skip
    assert payload["began"] <= payload["ended"]
    assert [(each["kind"], each["path"], each["track_id"]) for each in payload["changes"]] == [
        ("added", "/music/a/1.mp3", "id"), ("added", "/music/a/2.mp3", "id"), ("moved", "/music/b/3.mp3", "id")
    ]  # fmt: skip


def test_a_batch_over_its_limit_is_cut_and_marked() -> None:
    batch = Batch(limit=2)
    batch.add(EventBatch(file_events("a/1.mp3", "b/2.mp3", "c/3.mp3", "d/4.mp3")))

    payload = payload_of(batch)

    assert (payload["counts"], len(payload["changes"]), len(payload["folders"])) == ({"added": 4}, 2, 2)
    assert payload["cut"] is True


def test_lost_events_mark_the_batch_as_cut() -> None:
    batch = Batch(limit=2)
    assert not batch
    batch.add(EventBatch((), lost=3))

    assert batch
    assert payload_of(batch)["cut"] is True


def test_undelivered_changes_come_before_later_ones() -> None:
    first, later = Batch(limit=3), Batch(limit=3)
    first.add(EventBatch(file_events("a/1.mp3", "a/2.mp3")))
    later.add(EventBatch(file_events("b/3.mp3", "b/4.mp3")))

    first.merge(later)

    payload = payload_of(first)
    assert payload["counts"] == {"added": 4}
    assert [each["path"] for each in payload["changes"]] == ["/music/a/1.mp3", "/music/a/2.mp3", "/music/b/3.mp3"]
    assert payload["folders"] == ["/music/a", "/music/b"]
    assert payload["cut"] is True


def test_a_path_in_a_folder_with_the_same_prefix_has_no_library() -> None:
    batch = Batch(limit=3)
    batch.add(EventBatch([FileEvent(datetime.now(UTC), Outcome("added", "/music2/song.mp3"))]))

    assert payload_of(batch)["library"] == []


# Delivery


class Receiver:
    """Keeps what a hook delivers; fails with `error`, and blocks while `gate` is closed."""

    def __init__(self) -> None:
        self.payloads: list[dict[str, Any]] = []
        self.error: str | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = self.most_at_once = 0

    async def __call__(self, payload: bytes) -> str | None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            if self.error is None:
                self.payloads.append(json.loads(payload))
            return self.error
        finally:
            self.at_once -= 1

    @property
    def counts(self) -> list[int]:
        return [sum(payload["counts"].values()) for payload in self.payloads]


class RunningHook:
    """A hook that is subscribed to a feed."""

    def __init__(self, quiet: float = 0.2, longest: float = 60.0) -> None:
        self.feed, self.receiver = EventFeed(), Receiver()
        self.hook = Hook("command", "it", self.receiver, quiet=quiet, longest=longest, paths=1000)
        self.hook.sender = Sender("run", ["/music"], "node")
        self._subscribed = self.feed.subscribe(hooks.HOOK_BUFFER)
        self.subscription: Subscription = self._subscribed.__enter__()
        self.task = asyncio.create_task(self.hook.run(self.subscription))

    def publish(self, *names: str) -> None:
        for each in file_events(*names):
            self.feed.publish(each.outcome)

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, self.receiver.payloads
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        await hooks.end([(self.hook, self.subscription)], [self.task])


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., RunningHook]]:
    monkeypatch.setattr(hooks, "COLLECT_INTERVAL", 0.01)
    monkeypatch.setattr(hooks, "FIRST_RETRY", 0.05)
    running: list[RunningHook] = []

    def begin(**times: float) -> RunningHook:
        running.append(RunningHook(**times))
        return running[-1]

    yield begin
    for each in running:
        each.task.cancel()
        await asyncio.gather(each.task, return_exceptions=True)


Start = Callable[..., RunningHook]


async def test_many_changes_become_one_batch_after_a_quiet_time(start: Start) -> None:
    running = start()
    for number in range(10):
        running.publish(f"{number}.mp3")
        await asyncio.sleep(0.02)

    await running.until(lambda: running.receiver.payloads)
    running.publish("later.mp3")
    await running.until(lambda: len(running.receiver.payloads) == 2)

    assert running.receiver.counts == [10, 1]
    assert [payload["batch"] for payload in running.receiver.payloads] == [1, 2]


async def test_endless_changes_are_delivered_after_the_longest_wait(start: Start) -> None:
    running = start(quiet=60.0, longest=0.3)
    began = time.monotonic()

    while len(running.receiver.payloads) < 3:
        running.publish("song.mp3")
        await asyncio.sleep(0.01)

    assert time.monotonic() - began > 0.8


async def test_one_batch_is_sent_at_a_time_and_later_changes_form_the_next(start: Start) -> None:
    running = start(quiet=0.0)
    running.receiver.gate.clear()
    running.publish("1.mp3")
    await running.until(lambda: running.receiver.at_once)
    for number in range(5):
        running.publish(f"more{number}.mp3")
        await asyncio.sleep(0.02)

    running.receiver.gate.set()

    await running.until(lambda: sum(running.receiver.counts) == 6)
    assert (running.receiver.counts, running.receiver.most_at_once) == ([1, 5], 1)


async def test_a_failed_delivery_is_retried_with_newer_changes_and_logged_once(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = start(quiet=0.0)
    running.receiver.error = "it is away"
    running.publish("1.mp3")
    await running.until(lambda: running.hook.failed >= 2)
    running.publish("2.mp3")
    await running.until(lambda: running.hook.failed >= 4)
    assert (running.hook.error, running.hook.waiting) == ("it is away", 2)

    running.receiver.error = None

    await running.until(lambda: running.receiver.payloads)
    assert (running.receiver.counts, running.receiver.payloads[0]["batch"]) == ([2], 1)
    assert (running.hook.error, running.hook.waiting, running.hook.delivered) == (None, 0, 1)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["the hook it fails (it is away): retrying until it works", "the hook it works again"]


async def test_the_last_batch_is_delivered_when_the_daemon_stops(start: Start) -> None:
    running = start(quiet=60.0)
    running.publish("1.mp3")

    await running.end()

    assert running.receiver.counts == [1]


async def test_a_hanging_hook_delays_the_stop_no_longer_than_its_limit(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "STOP_LIMIT", 0.3)
    running = start(quiet=60.0)
    running.receiver.gate.clear()
    running.publish("1.mp3", "2.mp3")
    began = time.monotonic()

    await running.end()

    assert time.monotonic() - began < 2
    assert running.hook.waiting == 2


async def test_a_replacement_hook_takes_over_undelivered_changes(start: Start) -> None:
    before, after = start(quiet=0.0), start(quiet=0.0)
    before.receiver.error = "the URL is wrong"
    before.publish("1.mp3")
    await before.until(lambda: before.hook.failed)

    after.hook.requeue(before.hook.undelivered)

    await after.until(lambda: after.receiver.payloads)
    assert after.receiver.counts == [1]


# Running a program


async def run(*argv: str, text: bytes = b"", within: float = 10.0) -> str | None:
    return await commands.run(argv, text, within=within, environment=commands.plain_environment())


async def python(program: str, text: bytes = b"", within: float = 10.0) -> str | None:
    return await run(sys.executable, "-c", program, text=text, within=within)


async def test_a_program_gets_its_input_and_a_plain_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("SOULSPOT_ON_BATCH__URL", "http://secret@host/")
    written = tmp_path / "written"

    error = await run("sh", "-c", f"cat >{written}; env >>{written}", text=b"hello\n" * 100_000)

    assert error is None
    text = written.read_text()
    assert text.startswith("hello\n" * 100_000)
    assert "PATH=" in text
    assert "NOTIFY_SOCKET" not in text
    assert "SOULSPOT" not in text


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import sys; print('no music here', file=sys.stderr); sys.exit(3)", "exit code 3: no music here"),
        ("import sys; sys.exit(4)", "exit code 4"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("print('x' * 5_000_000); raise SystemExit(5)", f"exit code 5: {'x' * (commands.KEPT_OUTPUT - 1)}"),
        ("import os; os.write(2, b'\\xff\\n'); raise SystemExit(6)", "exit code 6: \ufffd"),
    ],
)
async def test_a_failed_program_is_reported_with_its_exit_code_and_last_line(program: str, error: str) -> None:
    assert await python(program) == error


async def test_a_missing_program_is_an_error(tmp_path: Path) -> None:
    assert await run(str(tmp_path / "none")) == f"{tmp_path}/none cannot be run: no such file or directory"


async def test_a_program_over_its_time_limit_is_killed_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = f"trap '' TERM; sleep 300 & echo $! >{pid}; wait; sleep 300"
    began = time.monotonic()

    assert await run("sh", "-c", program, within=0.5) == "it took longer than 0.5 s"

    assert time.monotonic() - began < 5
    await asyncio.to_thread(until, lambda: not _is_alive(int(pid.read_text())))


async def test_a_run_does_not_wait_for_background_children() -> None:
    began = time.monotonic()

    assert await run("sh", "-c", "sleep 20 & exit 0") is None

    assert time.monotonic() - began < 5


async def test_a_cancelled_run_leaves_no_process_and_no_descriptor(tmp_path: Path) -> None:
    pid, before = tmp_path / "pid", len(os.listdir("/proc/self/fd"))
    running = asyncio.create_task(run("sh", "-c", f"echo $$ >{pid}; exec sleep 300"))
    await asyncio.to_thread(until, lambda: pid.exists() and pid.read_text())

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    await asyncio.to_thread(until, lambda: not _is_alive(int(pid.read_text())))
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def _is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# Sending a POST


def post(url: str, *headers: str, within: float = 10.0) -> Callable[[bytes], Awaitable[str | None]]:
    return hooks.url_hook(url, headers, within=within, quiet=0, longest=1, paths=1)._deliver


async def test_a_post_has_the_batch_the_headers_and_the_credentials() -> None:
    with recording_server() as server:
        url = server.url.replace("http://", "http://me:p%40ss@") + "?u=1&t=token"

        assert await post(url, "X-Token: abc:def")(b'{"a": "\xc3\xa9"}') is None

    [(path, headers, body)] = server.requests
    assert (path, body) == ("/refresh?u=1&t=token", '{"a": "é"}')
    assert (headers["Content-Type"], headers["X-Token"]) == ("application/json", "abc:def")
    assert headers["Authorization"] == "Basic bWU6cEBzcw=="


async def test_a_failed_post_gives_its_reason_without_secrets_of_the_url() -> None:
    with recording_server() as server:
        server.status = 401
        assert await post(server.url)(b"{}") == "the answer is 401 Unauthorized"
        server.status, server.location = 302, server.url
        assert await post(server.url)(b"{}") == "the answer is 302 Found"
        assert len(server.requests) == 2  # no redirect is followed: the token is for this server
    assert await post(server.url)(b"{}") == "connection refused"
    assert await post("http://no.such.machine.invalid/?token=abc")(b"{}") is not None
    assert "abc" not in (await post("http://no.such.machine.invalid/?token=abc")(b"{}") or "")


async def test_a_post_to_a_silent_server_times_out() -> None:
    with recording_server(stuck=True) as server:
        assert re.search("timed out|took longer", await post(server.url, within=0.5)(b"{}") or "")


# End to end


@both
def test_a_command_gets_each_batch_and_the_last_one_at_the_stop(soulspot: Soulspot) -> None:
    written = soulspot.music.parent / "written"
    command = json.dumps(["sh", "-c", f"cat >>{written}; echo >>{written}"])
    daemon = soulspot.watch(SOULSPOT_ON_BATCH__COMMAND=command, SOULSPOT_ON_BATCH__QUIET="1")
    write_song(soulspot.music / "album" / "1.mp3")
    write_song(soulspot.music / "album" / "2.mp3")
    until(written.exists)
    until(lambda: written.read_text().count("\n") == 1)

    write_song(soulspot.music / "album" / "3.mp3")
    until(lambda: len(soulspot.tracks()) == 3)
    daemon.terminate()
    daemon.wait()

    first, second = map(json.loads, written.read_text().splitlines())
    assert (first["counts"], second["counts"]) == ({"added": 2}, {"added": 1})
    assert first["folders"] == [f"{soulspot.music}/album"]
    assert (first["library"], first["cut"]) == ([str(soulspot.music)], False)
    runs = {run for (run,) in soulspot.rows("SELECT DISTINCT run FROM audit_log WHERE action = 'track_added'")}
    assert {first["run"], second["run"]} == runs
    ids = {track for (track,) in soulspot.rows("SELECT track_id FROM files")}
    assert {each["track_id"] for batch in (first, second) for each in batch["changes"]} == ids


def test_a_server_gets_its_batch_after_an_outage_and_no_secret_leaks(soulspot: Soulspot) -> None:
    with recording_server() as server:
        server.status = 503
        secrets = {
            "SOULSPOT_ON_BATCH__URL": server.url.replace("http://", "http://me:s3cret@") + "?token=s3cret",
            "SOULSPOT_ON_BATCH__HEADERS": '["X-Token: s3cret"]',
        }
        soulspot.watch(SOULSPOT_ON_BATCH__QUIET="0", **secrets)
        write_song(soulspot.music / "song.mp3")
        until(lambda: b"fails (the answer is 503" in soulspot.log.read_bytes())
        [hook] = json.loads(soulspot.run("status", "--json").stdout)["hooks"]
        assert (hook["error"], hook["waiting"], hook["delivered"]) == ("the answer is 503 Service Unavailable", 1, 0)
        assert "failing (the answer is 503" in soulspot.run("status").stdout

        server.status = 200

        until(lambda: b"works again" in soulspot.log.read_bytes())
        assert json.loads(server.requests[-1][2])["counts"] == {"added": 1}
        shown = soulspot.run("config", "show", **secrets).stdout + soulspot.run("config", "check", **secrets).stdout
        wrong = soulspot.run("config", "check", SOULSPOT_ON_BATCH__URL="ftp://host/?token=s3cret").stderr
        assert "is ***: it must be a URL" in wrong
        assert "s3cret" not in shown + wrong + soulspot.log.read_text() + soulspot.run("status", "--json").stdout


def test_a_hanging_hook_delays_no_file_and_the_stop_only_briefly(soulspot: Soulspot) -> None:
    daemon = soulspot.watch(SOULSPOT_ON_BATCH__COMMAND='["sleep", "300"]', SOULSPOT_ON_BATCH__QUIET="0")
    write_song(soulspot.music / "1.mp3")
    until(lambda: len(soulspot.tracks()) == 1)
    write_song(soulspot.music / "2.mp3")
    until(lambda: len(soulspot.tracks()) == 2, 5)
    began = time.monotonic()

    daemon.terminate()

    assert daemon.wait(20) == 0
    assert time.monotonic() - began < 10
    assert b"the hook sleep did not get the last 2 changes" in soulspot.log.read_bytes()


def test_changes_are_delivered_once_a_reload_corrects_a_wrong_url(soulspot: Soulspot) -> None:
    file = soulspot.music.parent / "config.toml"
    soulspot.environment["SOULSPOT_CONFIG"] = str(file)
    with recording_server() as server:
        settings = f'[library]\nfolders = ["{soulspot.music}"]\n[on_batch]\nquiet = 0\nurl = "{{}}"\n'
        file.write_text(settings.format("http://127.0.0.1:1/"))
        soulspot.start_watching(folders=False)
        until(lambda: soulspot.log.exists() and b"watching" in soulspot.log.read_bytes())
        write_song(soulspot.music / "song.mp3")
        until(lambda: b"fails (connection refused)" in soulspot.log.read_bytes())

        file.write_text(settings.format(server.url))
        assert soulspot.run("reload").returncode == 0

        until(lambda: server.requests)
        assert json.loads(server.requests[0][2])["counts"] == {"added": 1}
