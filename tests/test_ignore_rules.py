"""Rules of `.soulspotignore` files: they mean what git's do, and nobody can stall the ingest with them."""

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
    IGNORE_FILE,
    IN_FORCE_LIMIT,
    RULE_LIMIT,
    RULES_LIMIT,
    Ignoring,
    rule_against,
)
from soulspot.ingest.disk.walker import Root, walk

MINUTE = 60.0


def against(folder: Path, path: str, *, is_folder: bool = False) -> str | None:
    """Return the rule by which a path below a folder is left alone, as its folder's own look finds it."""
    above = f"{path.rpartition('/')[0]}/".removeprefix("/")
    return rule_against(Ignoring().chain(str(folder), above), path, is_folder=is_folder)


def processor_time(act: Callable[[], object]) -> float:
    began = time.thread_time()
    act()
    return time.thread_time() - began


@pytest.mark.timeout(180)
def test_random_rules_mean_what_they_mean_to_git_and_cost_little() -> None:
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
        (b"foo**/bar", ["foobar", "foox/bar", "foo/x/bar"], ["bar"]),  # as git has it, whatever its manual says
        (b"?", ["a"], ["é", ""]),  # a byte, as to git
        (b"[[:digit:]-]x", ["1x", "-x"], ["ax"]),
        (b"[!a-c]", ["d"], ["a", "dd"]),
        (b"\\#a\\ ", ["#a "], ["#a"]),
        (b"a  ", ["a"], ["a  "]),
        (b"a\r", ["a"], ["a\r"]),
    ],
)
def test_a_pattern_means_what_it_means_to_git(
    tmp_path: Path, rule: bytes, matched: list[str], not_matched: list[str]
) -> None:
    (tmp_path / IGNORE_FILE).write_bytes(rule + b"\n")
    chain = Ignoring().chain(str(tmp_path), "")

    assert [name for name in matched if rule_against(chain, name, is_folder=False) is None] == []
    assert [name for name in not_matched if rule_against(chain, name, is_folder=False) is not None] == []


@pytest.mark.parametrize("rule", [b"[c-a]", b"[[:x:]]", b"a[", b"a\\", b"/", b"!", b"[a-"])
def test_a_rule_that_matches_nothing_is_named_and_harms_no_other(
    tmp_path: Path, rule: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / IGNORE_FILE).write_bytes(b"*.tmp\n" + rule + b"\n*.bak\n")

    assert against(tmp_path, "a.tmp")
    assert against(tmp_path, "a.bak")
    if rule != b"[c-a]":  # which is a set that is empty
        assert f"a rule that means nothing is passed over: {tmp_path}/{IGNORE_FILE}, line 2" in caplog.text


@pytest.mark.parametrize(
    "pattern", [b"*a" * 14 + b"*b", b"**/" * 300 + b"b", b"*?" * 400, b"[!b]*" * 200 + b"/**/" * 5]
)
def test_no_single_pattern_takes_long_to_match(tmp_path: Path, pattern: bytes) -> None:
    (tmp_path / IGNORE_FILE).write_bytes(pattern)
    chain = Ignoring().chain(str(tmp_path), "")

    for name in ("a" * 240 + ".ogg", "a/" * 2000 + "a", "b" * 255):
        assert processor_time(lambda name=name: rule_against(chain, name, is_folder=False)) < SLOW  # type: ignore[misc]


def test_as_many_rules_as_are_allowed_take_little_time_a_name(tmp_path: Path) -> None:
    dice = random.Random(1)
    depths = IN_FORCE_LIMIT // FILE_LIMIT
    for depth in range(depths):
        folder = tmp_path.joinpath(*["d"] * depth)
        folder.mkdir(exist_ok=True)
        lines = (bytes(dice.choices(b"ab*?/", k=FILE_LIMIT // RULES_LIMIT - 2)) for _rule in range(RULES_LIMIT))
        (folder / IGNORE_FILE).write_bytes(b"\n".join(lines))
    chain = Ignoring().chain(str(tmp_path), "d/" * (depths - 1))

    assert len(chain) == depths
    for name in ("d/" * (depths - 1) + "ab" * 120, "d/" * 2000 + "ab" * 40):
        assert processor_time(lambda name=name: rule_against(chain, name, is_folder=False)) < SLOW  # type: ignore[misc]


def test_a_pattern_is_matched_in_time_linear_in_the_name() -> None:
    automaton = Automaton([(0, Glob.parse(b"*a" * 500 + b"*b"))])

    def time_of(length: int) -> float:
        return min(processor_time(lambda: automaton.read(automaton.start, b"a" * length)) for _time in range(5))

    assert time_of(40_000) < 20 * time_of(4_000)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"*.ogg\n" + b"# long\n" * FILE_LIMIT, "an ignore file of more than 32768 bytes"),
        (b"*.ogg\n" + b"a\n" * RULES_LIMIT, "more than 1000 rules: those from here on are not in force"),
        (b"*.ogg\n" + b"a" * (RULE_LIMIT + 1), "line 2: aaaa"),
    ],
    ids=["file", "rules", "rule"],
)
def test_each_bound_of_a_file_is_a_warning_and_what_is_within_it_holds(
    tmp_path: Path, content: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / IGNORE_FILE).write_bytes(content)

    assert against(tmp_path, "a.ogg")
    assert words in caplog.text
    assert len(caplog.records) == 1
    assert len(caplog.text) < 1000


def test_rules_of_many_folders_one_in_the_other_have_a_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = b"\n".join(b"%04d" % number + b"x" * 96 for number in range(300)) + b"\n*.ogg"
    folder = tmp_path
    for _depth in range(10):
        (folder / IGNORE_FILE).write_bytes(full)
        folder /= "d"
        folder.mkdir()
    ignoring = Ignoring()

    chains = [ignoring.chain(str(tmp_path), "d/" * 10) for _time in range(2)]

    assert [sum(rules.size for rules in chain) <= IN_FORCE_LIMIT for chain in chains] == [True, True]
    assert rule_against(chains[0], "d/" * 10 + "a.ogg", is_folder=False)
    assert caplog.text.count("rules of more than") == 8  # one line a file, and not one a look


def test_a_megabyte_of_rules_is_no_burden(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / IGNORE_FILE).write_text("\n".join(f"*{number:05x}*" for number in range(149_000)))
    ignoring = Ignoring()

    assert processor_time(lambda: ignoring.chain(str(tmp_path), "")) < 1.0
    chain = ignoring.chain(str(tmp_path), "")
    assert processor_time(lambda: rule_against(chain, "s1.ogg", is_folder=False)) < SLOW
    assert len(caplog.records) == 1 + 1  # its size, and the number of its rules


def test_many_ignore_files_take_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignore_rules, "_KEPT_LIMIT", 1 << 20)
    root = Root("", str(tmp_path))
    for number in range(100):
        (tmp_path / f"{number}").mkdir()
        write_song(tmp_path / f"{number}" / "a.ogg")
        (tmp_path / f"{number}" / IGNORE_FILE).write_bytes(b"".join(b"%03da\n" % rule for rule in range(200)))

    found = [path for batch in walk(root) for path in batch.files]

    assert len(found) == 100
    assert root.ignoring._kept <= 1 << 20
    assert len(root.ignoring._known) < 10


def test_an_ignore_file_is_compiled_once_for_each_version(tmp_path: Path) -> None:
    file, ignoring = tmp_path / IGNORE_FILE, Ignoring()
    file.write_text("a\n")
    first = ignoring.chain(str(tmp_path), "")

    assert ignoring.chain(str(tmp_path), "")[0] is first[0]
    file.write_text("b\n")
    assert rule_against(ignoring.chain(str(tmp_path), ""), "b", is_folder=False)
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
    os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero, which has no end


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
def test_what_is_no_regular_file_holds_no_rules_and_stalls_nothing(
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


def test_a_pattern_with_many_stars_stalls_nothing(soulspot: Soulspot) -> None:
    (soulspot.music / "evil").mkdir()
    (soulspot.music / "evil" / IGNORE_FILE).write_text("*a" * 14 + "*b")
    write_song(soulspot.music / "evil" / f"{'a' * 240}.ogg")
    write_song(soulspot.music / "later.ogg")

    soulspot.scan()

    assert len(soulspot.tracks()) == 2


def test_a_set_that_ends_before_it_begins_ends_nothing_else(soulspot: Soulspot) -> None:
    (soulspot.music / IGNORE_FILE).write_text("[c-a]\n")
    write_song(soulspot.music / "a.ogg")

    soulspot.scan()

    assert len(soulspot.tracks()) == 1


def test_rules_reach_below_a_folder_with_a_newline_in_its_name(soulspot: Soulspot) -> None:
    for folder in ("a\nb/c", "plain/c"):
        write_song(soulspot.music / folder / "x.ogg")
        write_song(soulspot.music / folder / "x.mp3")
    (soulspot.music / IGNORE_FILE).write_text("*.ogg\n")

    soulspot.scan()

    assert {path for path, _title in soulspot.tracks()} == {"a\nb/c/x.mp3", "plain/c/x.mp3"}


def test_an_ignore_file_under_a_lease_is_not_waited_for(tmp_path: Path) -> None:
    """Who owns a file may hold a lease on it, and the kernel has others wait until that is given back."""
    holds = (
        "import fcntl, os, signal, sys, time\n"
        "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
        f"file = os.open({str(tmp_path / IGNORE_FILE)!r}, os.O_RDWR | os.O_CREAT)\n"
        "fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "print(flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", holds], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        began = time.monotonic()

        with pytest.raises(BlockingIOError):
            Ignoring().chain(str(tmp_path), "")

        assert time.monotonic() - began < 5
        holder.kill()


@pytest.mark.root
def test_an_ignore_file_that_the_disk_never_gives_costs_its_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (reason := why_no_faulty_filesystem()) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(ignore_rules, "READ_LIMIT", 0.5)
    disk = FaultyFilesystem(tmp_path / "below", tmp_path / "music")
    disk.mount()
    try:
        for folder in ("ill", "well"):
            write_song(disk.source / folder / "a.ogg")
            (disk.source / folder / IGNORE_FILE).write_text("*.mp3\n")
        disk.fail("hangs", "open", "read", below=f"/ill/{IGNORE_FILE}")
        root = Root("", str(disk.mount_point))

        batches = [list(walk(root)) for _look in range(3)]
        threads = [each for each in threading.enumerate() if each.name.startswith("read ")]
        disk.recover()
        until(lambda: not any(each.is_alive() for each in threads))
        [batch] = walk(root)

        assert [(set(each.files), each.unreadable) for [each] in batches] == [
            ({"well/a.ogg"}, {"ill": os.strerror(errno.ETIMEDOUT)})
        ] * 3
        assert len(threads) == 1
        assert set(batch.files) == {"ill/a.ogg", "well/a.ogg"}
    finally:
        disk.unmount()
