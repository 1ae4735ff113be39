"""Times the README's install command in a bare Debian, from nothing to the first catalogued file.

    python tests/support/clean_install.py

Needs root. The bare Debian is a folder to chroot into: the essential packages, apt, python3-venv and what they need,
copied from this machine's own packages. What pip installs is fetched before the clock starts, so the network is not
measured.
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
ALWAYS_THERE = "apt"
"""On every Debian, though not marked essential; it brings libstdc++, which greenlet needs."""


def why_no_debian() -> str | None:
    """Return what this machine lacks to make one, None when it lacks nothing."""
    if os.geteuid() != 0:
        return "chroot takes root"
    if missing := [name for name in ("dpkg-query", "chroot", "unshare", "git") if shutil.which(name) is None]:
        return f"{', '.join(missing)} is not installed: is this a Debian?"
    asked = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", PYTHON_PACKAGE]
    if subprocess.run(asked, capture_output=True, text=True, check=False).stdout != "installed":
        return f"{PYTHON_PACKAGE} is not installed"
    newest = [PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    return f"{PYTHON} is older than 3.11" if subprocess.run(newest, check=False).returncode else None


class BareDebian:
    """A root folder with few packages, to run commands in."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self, *packages: str) -> None:
        """Copy the files of packages, of their dependencies, and of the essential packages."""
        for folder in ("bin", "sbin", "lib", "lib64"):
            (self.root / "usr" / folder).mkdir(parents=True)
            (self.root / folder).symlink_to(f"usr/{folder}")
        for folder in ("proc", "dev", "root", "tmp", "run", "srv", "usr/local/bin"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "tmp").chmod(0o1777)
        listed = _output("dpkg-query", "--listfiles", *_with_dependencies(packages)).splitlines()
        files = sorted({file[1:] for file in listed if os.path.lexists(file) and not os.path.isdir(file)})
        packing = ["tar", "--create", "--directory=/", "--no-recursion", "--null", "--files-from=-"]
        packed = subprocess.run(packing, input="\0".join(files).encode(), stdout=subprocess.PIPE, check=True)
        unpacking = ["tar", "--extract", "--keep-directory-symlink", f"--directory={self.root}"]
        subprocess.run(unpacking, input=packed.stdout, check=True)
        for name in ("passwd", "group"):  # as base-passwd's installation does
            shutil.copyfile(self.root / f"usr/share/base-passwd/{name}.master", self.root / f"etc/{name}")
        self.run("ldconfig")

    def command(self, line: str, *, user: str = "0:0", **environment: str) -> list[str]:
        """Return the command that runs a line of shell in here, in namespaces of its own and without a network."""
        inside = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        variables = [f"{name}={value}" for name, value in (inside | environment).items()]
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
            *variables,
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
        """Run a line in the background, its stderr in a file outside, and kill it at the end of the block."""
        command = self.command(line, user=user, **environment)
        with log.open("wb") as errors, subprocess.Popen(command, stderr=errors) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGKILL)  # ends its whole namespace


def fetch_wheels(target: Path) -> None:
    """Build this project's wheel and fetch its dependencies, for the Python in the bare Debian."""
    environment = target.with_name("fetching")
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", environment], check=True)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]
    wanted = [f"{HERE}[postgresql,metrics]", "hatchling>=1.26"]
    pip += ["wheel", "--quiet", "--constraint", HERE / "constraints.txt", "--wheel-dir", target]
    subprocess.run([*pip, *wanted], check=True)


def offline(wheels: str) -> dict[str, str]:
    """Return the variables that make pip install from a folder only."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def copy_source(target: Path) -> None:
    """Copy what a clone of this repository would hold."""
    listed = _output("git", "-C", str(HERE), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        with suppress(FileNotFoundError):  # deleted, and not committed yet
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(HERE / name, place)


def readme_commands() -> str:
    """Return the README's commands that install soulspot and start it."""
    blocks = re.findall(r"```sh\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
    return next(block.strip() for block in blocks if "soulspot watch" in block)


def install_as_the_readme_says(debian: BareDebian, wheels: Path, log: Path) -> tuple[float, float]:
    """Run the README's commands; return the seconds until soulspot watches, and until a dropped file is catalogued."""
    copy_source(debian.root / "root" / "soulspot")
    shutil.copytree(wheels, debian.root / "wheels")
    catalogue = debian.root / "root/.local/share/soulspot/soulspot.db"
    began = time.monotonic()
    with debian.running(f"cd /root/soulspot\n{readme_commands()}", log, **offline("/wheels")) as process:
        until(lambda: process.poll() is not None or "watching /root/Music" in log.read_text(), 300)
        assert process.poll() is None, log.read_text()
        ready = time.monotonic() - began
        write_song(debian.root / "root/Music/song.mp3", title="The first")
        until(lambda: titles(catalogue) == ["The first"])
        return ready, time.monotonic() - began


def titles(catalogue: Path) -> list[str]:
    """Return the titles in a catalogue; none before it exists."""
    found: list[str] = []
    if catalogue.exists():
        connection = sqlite3.connect(f"file:{catalogue}?mode=ro", uri=True)
        with suppress(sqlite3.OperationalError):
            found += [title for (title,) in connection.execute("SELECT title FROM tracks")]
        connection.close()
    return found


def _with_dependencies(packages: Sequence[str]) -> list[str]:
    """Return the names of packages, of the essential ones, and of all their dependencies, as installed here."""
    form = "${Package}\t${Essential}\t${Provides}\t${Pre-Depends}, ${Depends}\n"
    todo, needs, providers = [ALWAYS_THERE, *packages], dict[str, str](), dict[str, str]()
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
    if (reason := why_no_debian()) is not None:
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        began = time.monotonic()
        fetch_wheels(place / "wheels")
        fetched = time.monotonic() - began
        debian = BareDebian(place / "debian")
        debian.root.mkdir()
        debian.make(PYTHON_PACKAGE)
        ready, done = install_as_the_readme_says(debian, place / "wheels", place / "log")
    print(f"fetched what pip installs in {fetched:.1f} s")
    print(f"the README's commands, in a Debian with nothing but {PYTHON_PACKAGE}, without a network:")
    print(f"  {ready:.1f} s until it watches, {done:.1f} s until the first file is catalogued")


if __name__ == "__main__":
    main()
