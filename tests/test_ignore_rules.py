"""Rules in `.soulspotignore` files mean the same as in git, and none of them can stall the ingest."""

import errno
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Soulspot, until, write_song
from tests.support import fuzz_ignore_rules
from tests.support.faulty_filesystem import FaultyFilesystem, why_no_faulty_filesystem
from tests.support.fuzz_ignore_rules import SLOW

from soulspot.ingest.disk import ignore_rules
from soulspot.ingest.disk.glob_automaton import Automaton, Glob
from soulspot.ingest.disk.ignore_rules import (
    FILE_LIMIT,
    FOLDER_LIMIT,
    IGNORE_FILE,
    RULE_LIMIT,
    RULES_LIMIT,
    Ignoring,
    ignoring_rule,
)
from soulspot.ingest.disk.walker import Root, walk

MINUTE = 60.0


def excluding_rule(folder: Path, path: str, *, is_folder: bool = False) -> str | None:
    """Return the rule that excludes a path below a folder, as a scan of its parent folder finds it."""
    above = f"{path.rpartition('/')[0]}/".removeprefix("/")
    return ignoring_rule(Ignoring().chain(str(folder), above), path, is_folder=is_folder)


def cpu_time(act: Callable[[], object]) -> float:
    start = time.thread_time()
    act()
    return time.thread_time() - start


@pytest.mark.timeout(180)
def test_random_rules_match_as_in_git() -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"python tests/support/fuzz_ignore_rules.py --seed {seed}")  # noqa: T201 - shown when it fails

    found = fuzz_ignore_rules.run(10_000, seed=seed, seconds=MINUTE)

    assert found.wrong == [], f"seed {seed}"
    assert found.verdicts > 10_000
    assert found.ignored > found.files


@pytest.mark.parametrize(
    ("rule", "matched", "not_matched"),
    [
        (b"*.ogg", ["a.ogg", "b/a.ogg", "a\nb.ogg", "\udcff.ogg"], ["a.oggs", "ogg"]),
        (b"/a", ["a"], ["b/a", "ab"]),
        (b"a/*", ["a/b"], ["c/a/b", "a"]),
        (b"**/a/b", ["a/b", "x/a/b", "x/y/a/b"], ["xa/b"]),
        (b"a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        (b"a/**", ["a/b", "a/b/c"], ["a", "b/a/c"]),
        (b"foo**/bar", ["foobar", "foox/bar", "foo/x/bar"], ["bar"]),  # like git, unlike its manual
        (b"?", ["a"], ["é", ""]),  # one byte, like git
        (b"[[:digit:]-]x", ["1x", "-x"], ["ax"]),
        (b"[!a-c]", ["d"], ["a", "dd"]),
        (b"\\#a\\ ", ["#a "], ["#a"]),
        (b"a  ", ["a"], ["a  "]),
        (b"a\r", ["a"], ["a\r"]),
    ],
)
def test_a_pattern_matches_as_in_git(tmp_path: Path, rule: bytes, matched: list[str], not_matched: list[str]) -> None:
    (tmp_path / IGNORE_FILE).write_bytes(rule + b"\n")
    chain = Ignoring().chain(str(tmp_path), "")

    assert [name for name in matched if ignoring_rule(chain, name, is_folder=False) is None] == []
    assert [name for name in not_matched if ignoring_rule(chain, name, is_folder=False) is not None] == []


@pytest.mark.parametrize("rule", [b"[c-a]", b"[[:x:]]", b"a[", b"a\\", b"/", b"!", b"[a-"])
def test_an_invalid_rule_is_logged_and_does_not_affect_others(
    tmp_path: Path, rule: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / IGNORE_FILE).write_bytes(b"*.tmp\n" + rule + b"\n*.bak\n")

    assert excluding_rule(tmp_path, "a.tmp")
    assert excluding_rule(tmp_path, "a.bak")
    if rule != b"[c-a]":  # valid, but an empty set
        assert f"ignoring an invalid rule: {tmp_path}/{IGNORE_FILE}, line 2" in caplog.text


@pytest.mark.parametrize(
    "pattern", [b"*a" * 14 + b"*b", b"**/" * 300 + b"b", b"*?" * 400, b"[!b]*" * 200 + b"/**/" * 5]
)
def test_no_pattern_takes_long_to_match(tmp_path: Path, pattern: bytes) -> None:
    (tmp_path / IGNORE_FILE).write_bytes(pattern)
    chain = Ignoring().chain(str(tmp_path), "")

    for name in ("a" * 240 + ".ogg", "a/" * 2000 + "a", "b" * 255):
        assert cpu_time(lambda name=name: ignoring_rule(chain, name, is_folder=False)) < SLOW  # type: ignore[misc]


def test_the_largest_allowed_set_of_rules_matches_a_name_quickly(tmp_path: Path) -> None:
    dice = random.Random(1)
    depths = FOLDER_LIMIT // FILE_LIMIT
    for depth in range(depths):
        folder = tmp_path.joinpath(*["d"] * depth)
        folder.mkdir(exist_ok=True)
        lines = (bytes(dice.choices(b"ab*?/", k=FILE_LIMIT // RULES_LIMIT - 2)) for _rule in range(RULES_LIMIT))
        (folder / IGNORE_FILE).write_bytes(b"\n".join(lines))
    chain = Ignoring().chain(str(tmp_path), "d/" * (depths - 1))

    assert len(chain) == depths
    for name in ("d/" * (depths - 1) + "ab" * 120, "d/" * 2000 + "ab" * 40):
        assert cpu_time(lambda name=name: ignoring_rule(chain, name, is_folder=False)) < SLOW  # type: ignore[misc]


def test_matching_takes_time_linear_in_the_length_of_the_name() -> None:
    automaton = Automaton([(0, Glob.parse(b"*a" * 500 + b"*b"))])

    def time_of(length: int) -> float:
        return min(cpu_time(lambda: automaton.read(automaton.start, b"a" * length)) for _run in range(5))

    assert time_of(40_000) < 20 * time_of(4_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"*.ogg\n" + b"# long\n" * FILE_LIMIT, "an ignore file of more than 32768 bytes"),
        (b"*.ogg\n" + b"a\n" * RULES_LIMIT, "more than 1000 rules: ignoring all from"),
        (b"*.ogg\n" + b"a" * (RULE_LIMIT + 1), "line 2: aaaa"),
    ],
    ids=["file", "rules", "rule"],
)
def test_rules_beyond_a_limit_are_ignored_with_one_warning(
    tmp_path: Path, content: bytes, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / IGNORE_FILE).write_bytes(content)

    assert excluding_rule(tmp_path, "a.ogg")
    assert message in caplog.text
    assert len(caplog.records) == 1
    assert len(caplog.text) < 1000


def test_the_rules_of_nested_folders_are_limited_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = b"\n".join(b"%04d" % number + b"x" * 96 for number in range(300)) + b"\n*.ogg"
    folder = tmp_path
    for _depth in range(10):
        (folder / IGNORE_FILE).write_bytes(full)
        folder /= "d"
        folder.mkdir()
    ignoring = Ignoring()

    chains = [ignoring.chain(str(tmp_path), "d/" * 10) for _run in range(2)]

    assert [sum(rules.size for rules in chain) <= FOLDER_LIMIT for chain in chains] == [True, True]
    assert ignoring_rule(chains[0], "d/" * 10 + "a.ogg", is_folder=False)
    assert caplog.text.count("rules of more than") == 8  # one line for each file, not for each scan


def test_a_megabyte_of_rules_is_cut_and_matches_quickly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / IGNORE_FILE).write_text("\n".join(f"*{number:05x}*" for number in range(149_000)))
    ignoring = Ignoring()

    assert cpu_time(lambda: ignoring.chain(str(tmp_path), "")) < 1.0
    chain = ignoring.chain(str(tmp_path), "")
    assert cpu_time(lambda: ignoring_rule(chain, "s1.ogg", is_folder=False)) < SLOW
    assert len(caplog.records) == 1 + 1  # one for its size, one for the number of its rules


def test_many_ignore_files_take_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignore_rules, "_CACHE_LIMIT", 1 << 20)
    root = Root("", str(tmp_path))
    for number in range(100):
        (tmp_path / f"{number}").mkdir()
        write_song(tmp_path / f"{number}" / "a.ogg")
        (tmp_path / f"{number}" / IGNORE_FILE).write_bytes(b"".join(b"%03da\n" % rule for rule in range(200)))

    found = [path for batch in walk(root) for path in batch.files]

    assert len(found) == 100
    assert root.ignoring._cached_bytes <= 1 << 20
    assert len(root.ignoring._known) < 10


def test_an_ignore_file_is_compiled_once_for_each_version(tmp_path: Path) -> None:
    file, ignoring = tmp_path / IGNORE_FILE, Ignoring()
    file.write_text("a\n")
    first = ignoring.chain(str(tmp_path), "")

    assert ignoring.chain(str(tmp_path), "")[0] is first[0]
    file.write_text("b\n")
    assert ignoring_rule(ignoring.chain(str(tmp_path), ""), "b", is_folder=False)
    file.unlink()
    assert ignoring.chain(str(tmp_path), "") == ()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


def make_device(path: Path) -> None:
    os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero never ends


def make_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.filterwarnings("ignore:unclosed <socket")
@pytest.mark.parametrize(
    "make",
    [
        make_fifo,
        make_link,
        make_link_to_a_fifo,
        make_socket,
        make_folder,
        pytest.param(make_device, marks=pytest.mark.root),
    ],
)
def test_an_ignore_file_that_is_not_a_regular_file_is_not_read(
    soulspot: Soulspot, make: Callable[[Path], None]
) -> None:
    soulspot.watch(SOULSPOT_LIBRARY__QUIET_PERIOD="0.1")
    (soulspot.music / "evil").mkdir()
    make(soulspot.music / "evil" / IGNORE_FILE)
    write_song(soulspot.music / "evil" / "one.ogg")
    write_song(soulspot.music / "good" / "two.mp3")

    until(lambda: len(soulspot.tracks()) == 2)

    assert f"cannot read the rules in {soulspot.music}/evil/{IGNORE_FILE}" in soulspot.log.read_text()
    soulspot.running[0].terminate()
    assert soulspot.running[0].wait(10) == 0


def test_a_pattern_with_many_stars_does_not_delay_ingest(soulspot: Soulspot) -> None:
    (soulspot.music / "evil").mkdir()
    (soulspot.music / "evil" / IGNORE_FILE).write_text("*a" * 14 + "*b")
    write_song(soulspot.music / "evil" / f"{'a' * 240}.ogg")
    write_song(soulspot.music / "later.ogg")

    soulspot.scan()

    assert len(soulspot.tracks()) == 2


def test_a_reversed_range_matches_nothing(soulspot: Soulspot) -> None:
    (soulspot.music / IGNORE_FILE).write_text("[c-a]\n")
    write_song(soulspot.music / "a.ogg")

    soulspot.scan()

    assert len(soulspot.tracks()) == 1


def test_rules_apply_below_a_folder_with_a_newline_in_its_name(soulspot: Soulspot) -> None:
    for folder in ("a\nb/c", "plain/c"):
        write_song(soulspot.music / folder / "x.ogg")
        write_song(soulspot.music / folder / "x.mp3")
    (soulspot.music / IGNORE_FILE).write_text("*.ogg\n")

    soulspot.scan()

    assert {path for path, _title in soulspot.tracks()} == {"a\nb/c/x.mp3", "plain/c/x.mp3"}


def test_a_scan_does_not_wait_for_an_ignore_file_under_a_lease(tmp_path: Path) -> None:
    """The owner of a file may hold a lease on it, and the kernel lets others wait until it is released."""
    hold_a_lease = (
        "import fcntl, os, signal, sys, time\n"
        "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
        f"file = os.open({str(tmp_path / IGNORE_FILE)!r}, os.O_RDWR | os.O_CREAT)\n"
        "fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "print(flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", hold_a_lease], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        start = time.monotonic()

        with pytest.raises(BlockingIOError):
            Ignoring().chain(str(tmp_path), "")

        assert time.monotonic() - start < 5
        holder.kill()


@pytest.mark.root
def test_a_hanging_ignore_file_makes_only_its_own_folder_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (reason := why_no_faulty_filesystem()) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(ignore_rules, "READ_LIMIT", 0.5)
    disk = FaultyFilesystem(tmp_path / "below", tmp_path / "music")
    disk.mount()
    try:
        for folder in ("failing", "healthy"):
            write_song(disk.source / folder / "a.ogg")
            (disk.source / folder / IGNORE_FILE).write_text("*.mp3\n")
        disk.fail("hangs", "open", "read", below=f"/failing/{IGNORE_FILE}")
        root = Root("", str(disk.mount_point))

        batches = [list(walk(root)) for _scan in range(3)]
        threads = [each for each in threading.enumerate() if each.name.startswith("read ")]
        disk.recover()
        until(lambda: not any(each.is_alive() for each in threads))
        [batch] = walk(root)

        assert [(set(each.files), each.unreadable) for [each] in batches] == [
            ({"healthy/a.ogg"}, {"failing": os.strerror(errno.ETIMEDOUT)})
        ] * 3
        assert len(threads) == 1
        assert set(batch.files) == {"failing/a.ogg", "healthy/a.ogg"}
    finally:
        disk.unmount()
