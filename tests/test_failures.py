"""Files that could not be read: their reasons, the advice, and how to retry or ignore them."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.conftest import Soulspot, both, until, write_song
from tests.support.tagged_catalogue import Catalogue

import soulspot.infrastructure.tags
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.records import FailureQuestion
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.persistence.sqlite.lock_file import writer_lock
from soulspot.infrastructure.tags import Failure
from soulspot.infrastructure.tags.model import FAILURE_CODES
from soulspot.reports.failure_advice import ADVICE


def failed(soulspot: Soulspot, *arguments: str) -> set[str]:
    lines = soulspot.run("failures", "list", "--json", *arguments).stdout.splitlines()
    return {Path(json.loads(line)["path"]).name for line in lines}


def write_broken(soulspot: Soulspot) -> None:
    (soulspot.music / "a").mkdir()
    (soulspot.music / "a" / "corrupt.mp3").write_bytes(b"no audio at all" * 100)
    (soulspot.music / "corrupt.flac").write_bytes(b"no audio at all" * 90)
    (soulspot.music / "empty.mp3").touch()


def test_every_failure_code_has_advice() -> None:
    sources = Path(soulspot.infrastructure.tags.__file__).parent.rglob("*.py")
    used = {code for source in sources for code in re.findall(r'Failure\(\s*"([\w-]+)"', source.read_text())}

    assert used <= FAILURE_CODES
    assert FAILURE_CODES - {"vanished", "changed"} == set(ADVICE)


@both
def test_failures_are_listed_and_shown_with_reason_and_advice(soulspot: Soulspot) -> None:
    write_broken(soulspot)
    soulspot.scan()
    before = soulspot.dump()

    assert failed(soulspot, "--newer-than", "1h", "--code", "corrupt", str(soulspot.music)) == {
        "corrupt.mp3",
        "corrupt.flac",
    }
    shown = soulspot.run("failures", "show", str(soulspot.music / "empty.mp3")).stdout
    assert "the file is empty" in shown
    assert ADVICE["empty"] in shown
    assert "file_failed" in shown
    assert soulspot.dump() == before


@pytest.mark.parametrize(
    ("question", "paths"),
    [
        (FailureQuestion(), ["a/1", "a/2", "b"]),
        (FailureQuestion(code="empty"), ["a/2"]),
        (FailureQuestion(path="/music"), ["a/1", "a/2", "b"]),
        (FailureQuestion(path="/"), ["a/1", "a/2", "b"]),
        (FailureQuestion(path="/music/a"), ["a/1", "a/2"]),
        (FailureQuestion(path="/music/a/1"), ["a/1"]),
        (FailureQuestion(path="/mus"), []),
        (FailureQuestion(path="/elsewhere/a"), []),
        (FailureQuestion(before=datetime(2000, 1, 1, tzinfo=UTC)), []),
        (FailureQuestion(since=datetime(2000, 1, 1, tzinfo=UTC), code="corrupt"), ["a/1", "b"]),
        (FailureQuestion(ignored=True), []),
    ],
)
async def test_failures_can_be_selected_by_code_path_and_age(
    catalogue: Catalogue, question: FailureQuestion, paths: list[str]
) -> None:
    for path, code in (("b", "corrupt"), ("a/2", "empty"), ("a/1", "corrupt")):
        await catalogue.service.reject(catalogue.found(path), Failure(code, "bad"), None)
    await catalogue.put("good", "A")

    found = await FileRepository(catalogue.database.session).failed(question)

    assert [file.path for file in found] == paths


def test_an_invalid_selection_of_failures_is_refused(soulspot: Soulspot) -> None:
    write_broken(soulspot)
    soulspot.scan()

    wrong_code = soulspot.run("failures", "list", "--code", "corupt")
    no_filter = soulspot.run("failures", "ignore")
    no_match = soulspot.run("failures", "retry", str(soulspot.music / "none"))

    assert (wrong_code.returncode, no_filter.returncode, no_match.returncode) == (78, 78, 1)
    assert "the codes are empty, truncated" in wrong_code.stderr
    assert "--all" in no_filter.stderr
    assert soulspot.actions("file_ignored") == 0


@both
def test_a_retried_failure_is_read_again_once(soulspot: Soulspot) -> None:
    write_broken(soulspot)
    soulspot.scan()

    retried = soulspot.run("failures", "retry", "--code", "corrupt", "--json")
    again = json.loads(soulspot.scan("--json").stdout)
    after = soulspot.dump()
    soulspot.scan()

    assert len(retried.stdout.splitlines()) == 2
    assert (again["failed"], again["unchanged"]) == (2, 1)
    assert (soulspot.actions("file_retried"), soulspot.actions("file_failed")) == (2, 5)
    assert soulspot.rows("SELECT attempts FROM files ORDER BY path") == [(2,), (2,), (1,)]
    assert soulspot.dump() == after


@both
def test_an_ignored_failure_is_not_counted_until_its_file_changes(soulspot: Soulspot) -> None:
    write_broken(soulspot)
    soulspot.scan()

    soulspot.run("failures", "ignore", str(soulspot.music))
    soulspot.scan()
    status = json.loads(soulspot.run("status", "--json").stdout)
    write_song(soulspot.music / "empty.mp3", title="Whole")
    (soulspot.music / "corrupt.flac").write_bytes(b"no audio at all" * 80)
    soulspot.scan()

    assert (status["failures"], status["folders"][0]["ignored"]) == ({}, 3)
    assert failed(soulspot) == {"corrupt.flac"}
    assert failed(soulspot, "--ignored") == {"corrupt.mp3"}
    assert soulspot.tracks() == {("empty.mp3", "Whole")}
    assert soulspot.actions("file_ignored") == 3


@both
def test_a_running_daemon_retries_failures_at_once(soulspot: Soulspot) -> None:
    write_broken(soulspot)
    soulspot.watch()
    until(lambda: len(failed(soulspot)) == 3)

    retried = soulspot.run("failures", "retry", "--code", "corrupt", "--newer-than", "1h", str(soulspot.music))

    assert retried.returncode == 0, retried.stderr
    assert retried.stdout.splitlines()[-1] == "the daemon reads them again now"
    until(lambda: soulspot.rows("SELECT attempts FROM files ORDER BY path") == [(2,), (2,), (1,)], 5)
    assert (soulspot.actions("file_retried"), soulspot.actions("file_failed")) == (2, 5)


@both
def test_a_running_daemon_ignores_failures_on_command(soulspot: Soulspot) -> None:
    write_broken(soulspot)
    soulspot.watch()
    until(lambda: len(failed(soulspot)) == 3)

    ignored = soulspot.run("failures", "ignore", "--code", "empty", "--json")
    nothing = soulspot.run("failures", "ignore", "--code", "timeout")

    assert [Path(json.loads(line)["path"]).name for line in ignored.stdout.splitlines()] == ["empty.mp3"]
    assert failed(soulspot, "--ignored") == {"empty.mp3"}
    assert (nothing.returncode, nothing.stdout) == (1, "")


def test_failures_can_be_listed_but_not_retried_while_a_scan_runs(soulspot: Soulspot) -> None:
    write_broken(soulspot)
    soulspot.scan()

    with writer_lock(soulspot.database, "scan"):
        refused = soulspot.run("failures", "retry", "--all")

    assert refused.returncode == 75
    assert "`soulspot scan`" in refused.stderr
    assert len(failed(soulspot)) == 3


@pytest.mark.parametrize("message", [{}, {"verb": "burn", "which": {}}, {"verb": "retry", "which": {"code": 3}}])
def test_an_invalid_decision_about_failures_returns_an_error(soulspot: Soulspot, message: dict[str, Any]) -> None:
    write_broken(soulspot)
    soulspot.watch()
    until(lambda: len(failed(soulspot)) == 3)

    answer = control_socket.ask(control_socket.socket_of(soulspot.database), "failures", **message) or {}

    assert "invalid arguments" in answer["error"]
    assert soulspot.actions("file_retried") == 0


async def test_an_ignored_file_stays_ignored_under_a_newer_reader(catalogue: Catalogue) -> None:
    file = catalogue.found("a.mp3")
    await catalogue.service.reject(file, Failure("corrupt", "bad"), None)
    async with catalogue.database.transaction() as session:
        await session.execute(text("UPDATE files SET status = 'ignored', parser_version = 0"))
    known = await catalogue.known("a.mp3")

    outcome = await catalogue.service.reject(file, Failure("truncated", "worse"), known)

    assert outcome.kind == "unchanged"
    assert await catalogue.rows("SELECT status, error_code FROM files") == [("ignored", "truncated")]
    assert (await catalogue.actions()).count("file_failed") == 1


async def test_a_failed_track_recovers_when_its_file_is_read_again(catalogue: Catalogue) -> None:
    await catalogue.put("a.mp3", "A")
    await catalogue.service.reject(catalogue.found("a.mp3"), Failure("corrupt", "bad"), await catalogue.known("a.mp3"))
    assert await catalogue.rows("SELECT status, failed_at IS NULL FROM files") == [("failed", 0)]

    await catalogue.put("a.mp3", "A")

    assert await catalogue.rows("SELECT status, error_code, failed_at FROM files") == [("catalogued", None, None)]
    assert await catalogue.rows("SELECT count(*) FROM tracks") == [(1,)]
