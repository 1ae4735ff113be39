"""Hold the rules of random ignore files against those of git: the same verdict on every name, in little time.

    python tests/support/fuzz_ignore_rules.py [--files 10000] [--names 1000] [--seed 1]

Makes a tree of odd names once, and then, as often as told, writes the same random rules into `.soulspotignore` and
`.gitignore` files in it: all kinds of wildcards, encodings and mistakes, lengths up to the bounds. `git check-ignore`
says what is right; files that git itself takes too long for are only timed. What is wrong is told with its seed.
"""

import argparse
import logging
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from soulspot.ingest.disk import ignore_rules
from soulspot.ingest.disk.ignore_rules import FILE_LIMIT, IGNORE_FILE, RULE_LIMIT, RULES_LIMIT, Ignoring, ignoring_rule

SLOW: float = 0.05
"""Seconds of processor time that one name may take."""
GIT_LIMIT: float = 5.0
PIECES: Sequence[bytes] = (
    b"a", b"b", b"ab", b"c", b"B", b"01", b" ", b"-", b".", b"\xc3\xa9", b"e\xcc\x81", b"\xe9", b"\xff", b"\n", b"\t",
    b"[", b"]", b"\\", b"!", b"#", b"*", b"?", b"~", b"^", b".mp3", b"\x7f", b"\x01",
)  # fmt: skip
SETS: Sequence[bytes] = (
    b"[ab]", b"[a-c]", b"[!a]", b"[^a-b]", b"[]]", b"[]a]", b"[!]a]", b"[a-]", b"[-a]", b"[\\]a]", b"[\\-a]", b"[c-a]",
    b"[a-\\c]", b"[[:alpha:]]", b"[[:digit:][:space:]]", b"[![:alnum:]]", b"[[:punct:]]", b"[[:upper:]]",
    b"[[:cntrl:]]",
    b"[[:print:]]", b"[[:graph:]]", b"[[:xdigit:]-z]", b"[[:bad:]]", b"[[:alpha]", b"[[:alpha:]", b"[", b"[a", b"[]",
    b"[!]", b"[/]", b"[!/]", b"[a/b]", b"[\xc3\xa9]", b"[\x80-\xff]", b"[a-", b"[a\\", b"[[:]", b"[[::]]",
    b"[a-[:digit:]]",
    b"[\\", b"[--a]", b"[a-c-e]", b"[*]", b"[?]", b"[[]", b"[^]", b"[^^]", b"[!-b]",
)  # fmt: skip
WILD: Sequence[bytes] = (
    b"*",
    b"*",
    b"*",
    b"**",
    b"?",
    b"***",
    b"**/",
    b"/**",
    b"/**/",
    b"\\*",
    b"\\a",
    b"\\",
    b"\\/",
    b"**\\/",
)


@dataclass
class Tree:
    """Folders and files to be asked about, each path with whether it is a folder, those above before those below."""

    place: Path
    paths: list[tuple[bytes, bool]] = field(default_factory=list)

    @classmethod
    def made(cls, place: Path, names: int, dice: random.Random) -> "Tree":
        tree = cls(place)
        folders, known = [b""], set[bytes]()
        while len(tree.paths) < names:
            path = dice.choice(folders) + _name(dice)
            is_folder = dice.random() < 0.25
            if path in known or len(path) > 1000:
                continue
            known.add(path)
            full = os.fsencode(place) + b"/" + path
            os.mkdir(full) if is_folder else Path(os.fsdecode(full)).touch()
            tree.paths.append((path, is_folder))
            if is_folder:
                folders.append(path + b"/")
        subprocess.run(["git", "init", "--quiet", place], check=True)
        return tree

    @property
    def folders(self) -> list[bytes]:
        return [b"", *(path + b"/" for path, is_folder in self.paths if is_folder)]


@dataclass
class Found:
    """What a run has seen."""

    files: int = 0
    ignored: int = 0
    verdicts: int = 0
    too_slow_for_git: int = 0
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)


def run(
    files: int, *, names: int = 1000, seed: int, seconds: float = 1e9, on_step: Callable[[Found], None] = lambda _: None
) -> Found:
    """Try `files` ignore files, or as many as `seconds` allow."""
    found, end = Found(), time.monotonic() + seconds
    with _without_warnings(), tempfile.TemporaryDirectory() as folder:
        dice = random.Random(seed)
        tree = Tree.made(Path(folder), names, dice)
        while found.files < files and time.monotonic() < end:
            _try(tree, random.Random(f"{seed} {found.files}"), found, f"--seed {seed}, file {found.files}")
            on_step(found)
    return found


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence the warnings about invalid rules, which most of the files hold."""
    logger = logging.getLogger(ignore_rules.__name__)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _try(tree: Tree, dice: random.Random, found: Found, shown: str) -> None:
    texts = {
        b"" if not number else dice.choice(tree.folders): _file(tree, dice) for number in range(dice.choice((1, 1, 2)))
    }
    for folder, text in texts.items():
        for name in (IGNORE_FILE, ".gitignore"):
            (tree.place / os.fsdecode(folder) / name).write_bytes(text)
    try:
        ours = _by_us(tree, found)
        theirs = _by_git(tree)
    finally:
        for folder in texts:
            for name in (IGNORE_FILE, ".gitignore"):
                (tree.place / os.fsdecode(folder) / name).unlink()
    found.files += len(texts)
    found.ignored += len(ours)
    if theirs is None:
        found.too_slow_for_git += 1
        return
    found.verdicts += len(tree.paths)
    for path in sorted(ours ^ theirs)[:3]:
        by = "us alone" if path in ours else "git alone"
        found.wrong.append(f"{shown}: {path!r} is ignored by {by}; the rules are {texts!r}"[:2000])


def _by_us(tree: Tree, found: Found) -> set[bytes]:
    """Return what is ignored, as a walk finds it out."""
    ignoring, root, ignored = Ignoring(), str(tree.place), set[bytes]()
    for path, is_folder in tree.paths:
        above = path.rpartition(b"/")[0]
        if above in ignored:
            ignored.add(path)
            continue
        chain = ignoring.chain(root, os.fsdecode(above + b"/" if above else b""))
        began = time.thread_time()
        rule = ignoring_rule(chain, os.fsdecode(path), is_folder=is_folder)
        took = time.thread_time() - began
        if took > SLOW:
            found.wrong.append(f"{took * 1000:.0f} ms for {path!r}")
        found.slowest = max(found.slowest, took)
        if rule is not None:
            ignored.add(path)
    return ignored


def _by_git(tree: Tree) -> set[bytes] | None:
    """Return what git ignores; None where it takes too long."""
    command = [
        "git",
        "-C",
        str(tree.place),
        "check-ignore",
        "--no-index",
        "--stdin",
        "-z",
        "--verbose",
        "--non-matching",
    ]
    asked = b"".join(path + b"\0" for path, _is_folder in tree.paths)
    try:
        told = subprocess.run(command, input=asked, capture_output=True, check=False, timeout=GIT_LIMIT)
    except subprocess.TimeoutExpired:
        return None
    assert told.returncode in {0, 1}, told.stderr
    fields = told.stdout.split(b"\0")[:-1]
    assert len(fields) == 4 * len(tree.paths)
    rows = zip(fields[0::4], fields[2::4], fields[3::4], strict=True)
    return {path for source, pattern, path in rows if source and not pattern.startswith(b"!")}


def _name(dice: random.Random) -> bytes:
    length = dice.choice((1, 1, 2, 2, 3, 4, 8, 200))
    name = b"".join(dice.choice(PIECES[:8] if length > 8 else PIECES) for _piece in range(length))[:250]
    return b"x" if name in {b".", b".."} else name


def _file(tree: Tree, dice: random.Random) -> bytes:
    kind = dice.random()
    if kind < 0.9:
        lines = [_line(tree, dice) for _line_ in range(dice.randint(1, 8))]
    elif kind < 0.98:
        lines = [_line(tree, dice) for _line_ in range(dice.randint(1, 200))]
    else:
        lines = [_long(dice) for _line_ in range(dice.randint(1, 40))] + [_line(tree, dice) for _each in range(900)]
    text = dice.choice((b"\n", b"\n", b"\n", b"\r\n")).join(lines[:RULES_LIMIT])
    text = text[:FILE_LIMIT].rpartition(b"\n")[0] if len(text) > FILE_LIMIT else text
    return (
        dice.choice((b"", b"", b"", b"\xef\xbb\xbf")) + text + dice.choice((b"", b"\n"))
        if dice.random() < 0.5
        else text
    )


def _line(tree: Tree, dice: random.Random) -> bytes:
    if dice.random() < 0.5:  # made of a path that is there
        path, _is_folder = dice.choice(tree.paths)
        parts = [bytes([byte]) for byte in path[-dice.choice((1, 3, 10, 60)) :]]
        for _change in range(dice.randint(0, 4)):
            at = dice.randrange(len(parts))
            parts[at : at + dice.randint(0, 4)] = [dice.choice((*WILD, *SETS, b"/", b"\\" + parts[at]))]
            if not parts:
                parts = [b"*"]
        body = b"".join(parts)
    else:
        body = b"".join(dice.choice(dice.choice((PIECES, WILD, SETS, (b"/",)))) for _part in range(dice.randint(1, 7)))
    body = dice.choice((b"", b"", b"", b"/", b"**/", b"!", b"!/", b"\\", b"#", b" ")) + body
    body += dice.choice((b"", b"", b"", b"", b"/", b"/**", b"/*", b" ", b"  ", b"\\ ", b"\\", b"\t", b"\0a", b"*"))
    return body.replace(b"\n", b"?" if dice.random() < 0.8 else b"")[:RULE_LIMIT]


def _long(dice: random.Random) -> bytes:
    length = dice.choice((100, 500, RULE_LIMIT))
    unit = b"".join(
        dice.choice((b"*", b"a", b"?", b"**/", b"[!b]", b"b", b"*/", b"\\a")) for _part in range(dice.randint(1, 4))
    )
    return (unit * length)[:length]


def _report(found: Found) -> None:
    if found.files % 500 < 2:
        print(f"{found.files} files, slowest {found.slowest * 1000:.1f} ms, {len(found.wrong)} wrong", flush=True)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=10_000)
    arguments.add_argument("--names", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    given = arguments.parse_args()
    print(f"--seed {given.seed}")
    found = run(given.files, names=given.names, seed=given.seed, on_step=_report)
    for each in found.wrong[:20]:
        print(each)
    print(
        f"{found.files} ignore files against {given.names} names: {found.verdicts} verdicts held against git's,"
        f" {found.ignored} times ignored, {found.too_slow_for_git} too slow for git,"
        f" slowest name {found.slowest * 1000:.1f} ms, {len(found.wrong)} wrong"
    )
    return int(bool(found.wrong))


if __name__ == "__main__":
    sys.exit(main())
