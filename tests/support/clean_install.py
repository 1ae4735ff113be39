"""A bare Debian to install into: its essential packages and apt, what is named with what it needs, and nothing else.

    python tests/support/clean_install.py

prints how long the README's line takes there, from nothing to the first catalogued file. Takes root. The tree is made
of the files that this machine's own packages hold; what pip installs is fetched before: no network is measured.
"""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conftest import until, write_song

HERE = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
PYTHON_PACKAGE = "python3-venv"
EACH_HAS = "apt"
"""No Debian is without it, though it is not marked as essential; it brings libstdc++, which greenlet needs."""


def why_no_tree() -> str | None:
    """Return what is missing for a bare tree, None where one can be made."""
    if os.geteuid() != 0:
        return "a tree of its own takes root"
    if missing := [name for name in ("dpkg-query", "chroot", "unshare", "git") if shutil.which(name) is None]:
        return f"{', '.join(missing)} is not installed: is this a Debian?"
    asked = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", PYTHON_PACKAGE]
    if subprocess.run(asked, capture_output=True, text=True, check=False).stdout != "installed":
        return f"{PYTHON_PACKAGE} is not installed"
    newest = [PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    return f"{PYTHON} is older than 3.11" if subprocess.run(newest, check=False).returncode else None


class Tree:
    """A root folder to run commands in."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self, *packages: str) -> None:
        """Copy the files of packages, of what these depend on, and of what each Debian has."""
        for folder in ("bin", "sbin", "lib", "lib64"):
            (self.root / "usr" / folder).mkdir(parents=True)
            (self.root / folder).symlink_to(f"usr/{folder}")
        for folder in ("proc", "dev", "root", "tmp", "run", "srv", "usr/local/bin"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "tmp").chmod(0o1777)
        listed = _output("dpkg-query", "--listfiles", *_with_what_they_need(packages)).splitlines()
        files = sorted({file[1:] for file in listed if os.path.lexists(file) and not os.path.isdir(file)})
        packing = ["tar", "--create", "--directory=/", "--no-recursion", "--null", "--files-from=-"]
        packed = subprocess.run(packing, input="\0".join(files).encode(), stdout=subprocess.PIPE, check=True)
        unpacking = ["tar", "--extract", "--keep-directory-symlink", f"--directory={self.root}"]
        subprocess.run(unpacking, input=packed.stdout, check=True)
        for name in ("passwd", "group"):  # what base-passwd makes when it is set up
            shutil.copyfile(self.root / f"usr/share/base-passwd/{name}.master", self.root / f"etc/{name}")
        self.run("ldconfig")

    def command(self, line: str, *, user: str = "0:0", **environment: str) -> list[str]:
        """Return the command that runs a shell's line in here, alone and without a network."""
        inside = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        told = [f"{name}={value}" for name, value in (inside | environment).items()]
        enter = 'mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec chroot "$@"'
        shell = [
            "sh",
            "-c",
            enter,
            str(self.root),
            f"--userspec={user}",
            str(self.root),
            "env",
            "-i",
            *told,
            "sh",
            "-ec",
            line,
        ]
        return ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", *shell]

    def run(self, line: str, *, user: str = "0:0", **environment: str) -> str:
        command = self.command(line, user=user, **environment)
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    @contextmanager
    def running(
        self, line: str, log: Path, *, user: str = "0:0", **environment: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Have a line run, its errors written to a file outside, and end it."""
        command = self.command(line, user=user, **environment)
        with log.open("wb") as errors, subprocess.Popen(command, stderr=errors) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGKILL)  # and with it the whole namespace


def fetch_wheels(target: Path) -> None:
    """Build this project's wheel and fetch what it needs, for the tree's own Python."""
    environment = target.with_name("fetching")
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", environment], check=True)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]
    wanted = [f"{HERE}[postgresql,metrics]", "hatchling>=1.26"]
    pip += ["wheel", "--quiet", "--constraint", HERE / "constraints.txt", "--wheel-dir", target]
    subprocess.run([*pip, *wanted], check=True)


def offline(wheels: str) -> dict[str, str]:
    """Return the variables by which pip takes everything from a folder in the tree."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def copy_source(target: Path) -> None:
    """Copy what a clone of this repository holds."""
    listed = _output("git", "-C", str(HERE), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        with suppress(FileNotFoundError):  # deleted, and not committed yet
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(HERE / name, place)


def readme_line() -> str:
    """Return the README's line that installs soulspot and starts it."""
    blocks = re.findall(r"```sh\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
    return next(block.strip() for block in blocks if "soulspot watch" in block)


def install_as_the_readme_says(tree: Tree, wheels: Path, log: Path) -> tuple[float, float]:
    """Run the README's line; return the seconds until soulspot watches, and until a dropped file is catalogued."""
    copy_source(tree.root / "root" / "soulspot")
    shutil.copytree(wheels, tree.root / "wheels")
    catalogue = tree.root / "root/.local/share/soulspot/soulspot.db"
    began = time.monotonic()
    with tree.running(f"cd /root/soulspot\n{readme_line()}", log, **offline("/wheels")) as process:
        until(lambda: process.poll() is not None or "watching /root/Music" in log.read_text(), 300)
        assert process.poll() is None, log.read_text()
        ready = time.monotonic() - began
        write_song(tree.root / "root/Music/song.mp3", title="The first")
        until(lambda: titles(catalogue) == ["The first"])
        return ready, time.monotonic() - began


def titles(catalogue: Path) -> list[str]:
    """Return the titles in a catalogue; none while it is not made yet."""
    found: list[str] = []
    if catalogue.exists():
        connection = sqlite3.connect(f"file:{catalogue}?mode=ro", uri=True)
        with suppress(sqlite3.OperationalError):
            found += [title for (title,) in connection.execute("SELECT title FROM tracks")]
        connection.close()
    return found


def _with_what_they_need(packages: Sequence[str]) -> list[str]:
    """Return the names of packages, of the essential ones, and of what they all depend on, as installed here."""
    form = "${Package}\t${Essential}\t${Provides}\t${Pre-Depends}, ${Depends}\n"
    todo, needs, providers = [EACH_HAS, *packages], dict[str, str](), dict[str, str]()
    for line in _output("dpkg-query", "--show", f"--showformat={form}").splitlines():
        name, essential, provides, needs[name] = line.split("\t")
        todo += [name] if essential == "yes" else []
        providers |= dict.fromkeys(_names(provides), name) | {name: name}
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        for clause in needs[name].split(","):
            todo += [providers[each] for each in _names(clause.replace("|", ",")) if each in providers][:1]
    return sorted(found)


def _names(relation: str) -> list[str]:
    """Return the names in "libc6 (>= 2.36), python3:any"."""
    return [match[1] for part in relation.split(",") if (match := re.match(r"\s*([\w.+-]+)", part))]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    if (reason := why_no_tree()) is not None:
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        began = time.monotonic()
        fetch_wheels(place / "wheels")
        fetched = time.monotonic() - began
        tree = Tree(place / "tree")
        tree.root.mkdir()
        tree.make(PYTHON_PACKAGE)
        ready, done = install_as_the_readme_says(tree, place / "wheels", place / "log")
    print(f"fetched what pip installs in {fetched:.1f} s, by this machine's network")
    print(f"the README's line, in a Debian with nothing but {PYTHON_PACKAGE}, without a network:")
    print(f"  {ready:.1f} s until it watches, {done:.1f} s until the first file is catalogued")


if __name__ == "__main__":
    main()
