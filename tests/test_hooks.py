"""Hooks: each batch is told once, by a command or a POST; one that fails or hangs costs nobody else anything."""

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


def happened(*names: str, kind: str = "added", detail: str = "") -> list[FileEvent]:
    return [FileEvent(datetime.now(UTC), Outcome(kind, f"/music/{name}", "id", detail)) for name in names]


def told(batch: Batch) -> dict[str, Any]:
    loaded = json.loads(batch.payload(run="run", node="node", number=1, roots=["/music", "/other"]))
    assert isinstance(loaded, dict)
    return loaded


# What a batch holds.


def test_a_batch_names_what_changed_and_where() -> None:
    batch = Batch(limit=10)
    batch.add(
        EventBatch(happened("a/1.mp3", "a/2.mp3") + happened("b/3.mp3", kind="moved", detail="from /music/c/3.mp3"))
    )
    batch.add(EventBatch(happened("x.mp3", kind="unchanged")))

    payload = told(batch)

    assert payload | {"began": 0, "ended": 0, "changes": 0} == {
        "version": 1, "event": "batch", "node": "node", "run": "run", "batch": 1, "began": 0, "ended": 0,
        "counts": {"added": 2, "moved": 1}, "library": ["/music"], "folders": ["/music/a", "/music/b", "/music/c"],
        "changes": 0, "cut": False,
    }  # fmt: skip
    assert payload["began"] <= payload["ended"]
    assert [(each["kind"], each["path"], each["track_id"]) for each in payload["changes"]] == [
        ("added", "/music/a/1.mp3", "id"), ("added", "/music/a/2.mp3", "id"), ("moved", "/music/b/3.mp3", "id")
    ]  # fmt: skip


def test_a_batch_that_is_too_long_is_cut_and_says_so() -> None:
    batch = Batch(limit=2)
    batch.add(EventBatch(happened("a/1.mp3", "b/2.mp3", "c/3.mp3", "d/4.mp3")))

    payload = told(batch)

    assert (payload["counts"], len(payload["changes"]), len(payload["folders"])) == ({"added": 4}, 2, 2)
    assert payload["cut"] is True


def test_what_there_was_no_room_for_is_told_as_cut() -> None:
    batch = Batch(limit=2)
    assert not batch
    batch.add(EventBatch((), lost=3))

    assert batch
    assert told(batch)["cut"] is True


def test_what_could_not_be_told_goes_before_what_came_later() -> None:
    first, later = Batch(limit=3), Batch(limit=3)
    first.add(EventBatch(happened("a/1.mp3", "a/2.mp3")))
    later.add(EventBatch(happened("b/3.mp3", "b/4.mp3")))

    first.merge(later)

    payload = told(first)
    assert payload["counts"] == {"added": 4}
    assert [each["path"] for each in payload["changes"]] == ["/music/a/1.mp3", "/music/a/2.mp3", "/music/b/3.mp3"]
    assert payload["folders"] == ["/music/a", "/music/b"]
    assert payload["cut"] is True


def test_a_folder_whose_name_begins_like_another_is_another() -> None:
    batch = Batch(limit=3)
    batch.add(EventBatch([FileEvent(datetime.now(UTC), Outcome("added", "/music2/song.mp3"))]))

    assert told(batch)["library"] == []


# When it is told.


class Told:
    """What a hook delivered, and whether that is to work."""

    def __init__(self) -> None:
        self.payloads: list[dict[str, Any]] = []
        self.wrong: str | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = self.most_at_once = 0

    async def __call__(self, payload: bytes) -> str | None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            if self.wrong is None:
                self.payloads.append(json.loads(payload))
            return self.wrong
        finally:
            self.at_once -= 1

    @property
    def counts(self) -> list[int]:
        return [sum(payload["counts"].values()) for payload in self.payloads]


class Running:
    """A hook that listens to a feed."""

    def __init__(self, quiet: float = 0.2, longest: float = 60.0) -> None:
        self.feed, self.told = EventFeed(), Told()
        self.hook = Hook("command", "it", self.told, quiet=quiet, longest=longest, paths=1000)
        self.hook.sender = Sender("run", ["/music"], "node")
        self._subscribed = self.feed.subscribe(hooks.HOOK_BUFFER)
        self.subscription: Subscription = self._subscribed.__enter__()
        self.task = asyncio.create_task(self.hook.run(self.subscription))

    def tell(self, *names: str) -> None:
        for each in happened(*names):
            self.feed.publish(each.outcome)

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, self.told.payloads
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        await hooks.end([(self.hook, self.subscription)], [self.task])


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Running]]:
    monkeypatch.setattr(hooks, "COLLECT_INTERVAL", 0.01)
    monkeypatch.setattr(hooks, "FIRST_RETRY", 0.05)
    running: list[Running] = []

    def begin(**times: float) -> Running:
        running.append(Running(**times))
        return running[-1]

    yield begin
    for each in running:
        each.task.cancel()
        await asyncio.gather(each.task, return_exceptions=True)


Start = Callable[..., Running]


async def test_many_changes_are_one_batch_once_it_is_quiet(start: Start) -> None:
    running = start()
    for number in range(10):
        running.tell(f"{number}.mp3")
        await asyncio.sleep(0.02)

    await running.until(lambda: running.told.payloads)
    running.tell("later.mp3")
    await running.until(lambda: len(running.told.payloads) == 2)

    assert running.told.counts == [10, 1]
    assert [payload["batch"] for payload in running.told.payloads] == [1, 2]


async def test_changes_without_an_end_are_told_all_the_same(start: Start) -> None:
    running = start(quiet=60.0, longest=0.3)
    began = time.monotonic()

    while len(running.told.payloads) < 3:
        running.tell("song.mp3")
        await asyncio.sleep(0.01)

    assert time.monotonic() - began > 0.8


async def test_one_is_told_at_a_time_and_what_comes_meanwhile_is_the_next_batch(start: Start) -> None:
    running = start(quiet=0.0)
    running.told.gate.clear()
    running.tell("1.mp3")
    await running.until(lambda: running.told.at_once)
    for number in range(5):
        running.tell(f"more{number}.mp3")
        await asyncio.sleep(0.02)

    running.told.gate.set()

    await running.until(lambda: sum(running.told.counts) == 6)
    assert (running.told.counts, running.told.most_at_once) == ([1, 5], 1)


async def test_one_that_fails_is_tried_again_with_what_came_since_and_said_once(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = start(quiet=0.0)
    running.told.wrong = "it is away"
    running.tell("1.mp3")
    await running.until(lambda: running.hook.failed >= 2)
    running.tell("2.mp3")
    await running.until(lambda: running.hook.failed >= 4)
    assert (running.hook.error, running.hook.waiting) == ("it is away", 2)

    running.told.wrong = None

    await running.until(lambda: running.told.payloads)
    assert (running.told.counts, running.told.payloads[0]["batch"]) == ([2], 1)
    assert (running.hook.error, running.hook.waiting, running.hook.delivered) == (None, 0, 1)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["the hook it fails (it is away): retrying until it works", "the hook it works again"]


async def test_what_is_left_is_told_when_the_daemon_stops(start: Start) -> None:
    running = start(quiet=60.0)
    running.tell("1.mp3")

    await running.end()

    assert running.told.counts == [1]


async def test_one_that_hangs_holds_the_stop_up_for_its_time_and_no_longer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "STOP_LIMIT", 0.3)
    running = start(quiet=60.0)
    running.told.gate.clear()
    running.tell("1.mp3", "2.mp3")
    began = time.monotonic()

    await running.end()

    assert time.monotonic() - began < 2
    assert running.hook.waiting == 2


async def test_what_one_was_not_told_goes_to_the_one_in_its_place(start: Start) -> None:
    before, after = start(quiet=0.0), start(quiet=0.0)
    before.told.wrong = "the URL is wrong"
    before.tell("1.mp3")
    await before.until(lambda: before.hook.failed)

    after.hook.requeue(before.hook.undelivered)

    await after.until(lambda: after.told.payloads)
    assert after.told.counts == [1]


# What runs a program.


async def run(*argv: str, text: bytes = b"", within: float = 10.0) -> str | None:
    return await commands.run(argv, text, within=within, environment=commands.plain_environment())


async def python(program: str, text: bytes = b"", within: float = 10.0) -> str | None:
    return await run(sys.executable, "-c", program, text=text, within=within)


async def test_a_program_gets_the_text_and_a_plain_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("SOULSPOT_ON_BATCH__URL", "http://secret@host/")
    written = tmp_path / "written"

    wrong = await run("sh", "-c", f"cat >{written}; env >>{written}", text=b"hello\n" * 100_000)

    assert wrong is None
    text = written.read_text()
    assert text.startswith("hello\n" * 100_000)
    assert "PATH=" in text
    assert "NOTIFY_SOCKET" not in text
    assert "SOULSPOT" not in text


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; print('no music here', file=sys.stderr); sys.exit(3)", "exit code 3: no music here"),
        ("import sys; sys.exit(4)", "exit code 4"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("print('x' * 5_000_000); raise SystemExit(5)", f"exit code 5: {'x' * (commands.KEPT_OUTPUT - 1)}"),
        ("import os; os.write(2, b'\\xff\\n'); raise SystemExit(6)", "exit code 6: \ufffd"),
    ],
)
async def test_what_went_wrong_is_the_last_line(program: str, said: str) -> None:
    assert await python(program) == said


async def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert await run(str(tmp_path / "none")) == f"{tmp_path}/none cannot be run: no such file or directory"


async def test_a_program_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = f"trap '' TERM; sleep 300 & echo $! >{pid}; wait; sleep 300"
    began = time.monotonic()

    assert await run("sh", "-c", program, within=0.5) == "it took longer than 0.5 s"

    assert time.monotonic() - began < 5
    await asyncio.to_thread(until, lambda: not _lives(int(pid.read_text())))


async def test_what_a_program_leaves_behind_is_not_waited_for() -> None:
    began = time.monotonic()

    assert await run("sh", "-c", "sleep 20 & exit 0") is None

    assert time.monotonic() - began < 5


async def test_a_run_that_is_cancelled_leaves_no_program_and_no_descriptor(tmp_path: Path) -> None:
    pid, before = tmp_path / "pid", len(os.listdir("/proc/self/fd"))
    running = asyncio.create_task(run("sh", "-c", f"echo $$ >{pid}; exec sleep 300"))
    await asyncio.to_thread(until, lambda: pid.exists() and pid.read_text())

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    await asyncio.to_thread(until, lambda: not _lives(int(pid.read_text())))
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# What sends a POST.


def post(url: str, *headers: str, within: float = 10.0) -> Callable[[bytes], Awaitable[str | None]]:
    return hooks.url_hook(url, headers, within=within, quiet=0, longest=1, paths=1)._deliver


async def test_a_post_carries_the_batch_the_headers_and_the_user() -> None:
    with recording_server() as posted:
        url = posted.url.replace("http://", "http://me:p%40ss@") + "?u=1&t=token"

        assert await post(url, "X-Token: abc:def")(b'{"a": "\xc3\xa9"}') is None

    [(path, headers, body)] = posted.requests
    assert (path, body) == ("/refresh?u=1&t=token", '{"a": "é"}')
    assert (headers["Content-Type"], headers["X-Token"]) == ("application/json", "abc:def")
    assert headers["Authorization"] == "Basic bWU6cEBzcw=="


async def test_whatever_is_no_success_is_said_without_the_secrets_in_the_url() -> None:
    with recording_server() as posted:
        posted.status = 401
        assert await post(posted.url)(b"{}") == "the answer is 401 Unauthorized"
        posted.status, posted.location = 302, posted.url
        assert await post(posted.url)(b"{}") == "the answer is 302 Found"
        assert len(posted.requests) == 2  # a token is for the place that it was given for
    assert await post(posted.url)(b"{}") == "connection refused"
    assert await post("http://no.such.machine.invalid/?token=abc")(b"{}") is not None
    assert "abc" not in (await post("http://no.such.machine.invalid/?token=abc")(b"{}") or "")


async def test_a_server_that_never_answers_is_given_up() -> None:
    with recording_server(stuck=True) as posted:
        assert re.search("timed out|took longer", await post(posted.url, within=0.5)(b"{}") or "")


# The whole of it.


@both
def test_a_command_hears_of_each_batch_and_of_what_is_left_at_the_end(soulspot: Soulspot) -> None:
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
    assert {each["track_id"] for told in (first, second) for each in told["changes"]} == ids


def test_a_server_that_is_away_is_told_when_it_is_back_and_no_secret_is_shown(soulspot: Soulspot) -> None:
    with recording_server() as posted:
        posted.status = 503
        secrets = {
            "SOULSPOT_ON_BATCH__URL": posted.url.replace("http://", "http://me:s3cret@") + "?token=s3cret",
            "SOULSPOT_ON_BATCH__HEADERS": '["X-Token: s3cret"]',
        }
        soulspot.watch(SOULSPOT_ON_BATCH__QUIET="0", **secrets)
        write_song(soulspot.music / "song.mp3")
        until(lambda: b"fails (the answer is 503" in soulspot.log.read_bytes())
        [hook] = json.loads(soulspot.run("status", "--json").stdout)["hooks"]
        assert (hook["error"], hook["waiting"], hook["delivered"]) == ("the answer is 503 Service Unavailable", 1, 0)
        assert "failing (the answer is 503" in soulspot.run("status").stdout

        posted.status = 200

        until(lambda: b"works again" in soulspot.log.read_bytes())
        assert json.loads(posted.requests[-1][2])["counts"] == {"added": 1}
        shown = soulspot.run("config", "show", **secrets).stdout + soulspot.run("config", "check", **secrets).stdout
        wrong = soulspot.run("config", "check", SOULSPOT_ON_BATCH__URL="ftp://host/?token=s3cret").stderr
        assert "is ***: it must be a URL" in wrong
        assert "s3cret" not in shown + wrong + soulspot.log.read_text() + soulspot.run("status", "--json").stdout


def test_a_hook_that_hangs_keeps_no_file_waiting_and_the_stop_short(soulspot: Soulspot) -> None:
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


def test_a_wrong_url_is_corrected_by_a_reload_and_nothing_is_untold(soulspot: Soulspot) -> None:
    file = soulspot.music.parent / "config.toml"
    soulspot.environment["SOULSPOT_CONFIG"] = str(file)
    with recording_server() as posted:
        settings = f'[library]\nfolders = ["{soulspot.music}"]\n[on_batch]\nquiet = 0\nurl = "{{}}"\n'
        file.write_text(settings.format("http://127.0.0.1:1/"))
        soulspot.start_watching(folders=False)
        until(lambda: soulspot.log.exists() and b"watching" in soulspot.log.read_bytes())
        write_song(soulspot.music / "song.mp3")
        until(lambda: b"fails (connection refused)" in soulspot.log.read_bytes())

        file.write_text(settings.format(posted.url))
        assert soulspot.run("reload").returncode == 0

        until(lambda: posted.requests)
        assert json.loads(posted.requests[0][2])["counts"] == {"added": 1}
