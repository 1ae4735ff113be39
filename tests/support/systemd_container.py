"""A container that boots a real systemd, with the built wheel installed in it as an admin would install it."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import SHARED, Soulspot
from tests.support.deadlines import load_factor

HERE = Path(__file__).parents[2]
TOOL = SHARED / "tools" / "sdbox.sh"
PYTHON = Path("/usr/bin/python3")
"""The Python in the container: one that users other than root can run."""


def why_no_systemd() -> str | None:
    """Return what this machine lacks to boot one, None when it lacks nothing."""
    if os.geteuid() != 0:
        return "booting a systemd takes root"
    if not TOOL.exists():
        return "the tool that boots a systemd is not beside this checkout"
    programs = {name: shutil.which(name) for name in ("systemctl", "unshare", "nsenter", "dbus-daemon")}
    missing = [name for name, path in programs.items() if path is None]
    if missing or not Path("/lib/systemd/systemd").exists():
        return f"{', '.join(missing) or 'systemd'} is not installed"
    newest = "import sys; sys.exit(sys.version_info < (3, 11))"
    if not PYTHON.exists() or subprocess.run([PYTHON, "-c", newest], check=False).returncode:
        return f"{PYTHON} is not Python 3.11 or newer"
    return None


def install_wheel(shared_by_workers: Path) -> Path:
    """Build the wheel and install it into an environment of its own, once for all of pytest-xdist's workers."""
    target = shared_by_workers / "installed"
    with (shared_by_workers / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            wheels, unfinished = shared_by_workers / "wheels", shared_by_workers / "installing"
            pip: list[str | Path] = [sys.executable, "-m", "pip"]
            subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, HERE], check=True)
            subprocess.run([PYTHON, "-m", "venv", "--without-pip", unfinished], check=True)
            [wheel] = wheels.glob("*.whl")
            pip += ["--python", unfinished / "bin" / "python"]
            pip += ["install", "--quiet", "--constraint", HERE / "constraints.txt", f"{wheel}[metrics,web]"]
            subprocess.run(pip, check=True)
            script = unfinished / "bin" / "soulspot"  # names its Python: by the path inside the container
            script.write_text(script.read_text().replace(str(unfinished), "/opt/soulspot"))
            unfinished.rename(target)
    return target


class SystemdContainer(Soulspot):
    """A container whose music folder and catalogue can be seen from outside."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._place = place / "container"
        self.state = place / "state"
        self.state.mkdir()

    @contextmanager
    def booted(self, installed: Path) -> Iterator[None]:
        units = HERE / "systemd"
        binds = {
            installed: "/opt/soulspot",
            installed.with_name("wheels"): "/opt/built",
            units: "/opt/units",
            self.music: "/srv/music",
            self.state: "/var/lib/soulspot",
        }
        bound = " ".join(f"{here}:{there}" for here, there in binds.items())
        subprocess.run(
            [TOOL, "up", self._place],
            env=os.environ | {"SDBOX_BIND": bound, "SDBOX_NET": "1"},
            check=True,
            timeout=90 * load_factor(),
        )
        try:
            self.shell("rm -rf /root/.local/share/soulspot")  # the host's, which the container sees
            self.shell("ln -s /opt/soulspot/bin/soulspot /usr/local/bin/soulspot")
            yield
        finally:
            subprocess.run([TOOL, "down", self._place], check=True, timeout=60 * load_factor())

    def shell(self, command: str, *, fails: bool = False, seconds: float = 120) -> str:
        """Run a command as root in the container; return its output and its errors."""
        line: list[str | Path] = [TOOL, "run", self._place, "sh", "-c", command]
        result = subprocess.run(line, capture_output=True, text=True, timeout=seconds * load_factor(), check=False)
        output = result.stdout + result.stderr
        assert bool(result.returncode) is fails, output
        return output

    def write(self, path: str, text: str) -> None:
        line: list[str | Path] = [TOOL, "run", self._place, "sh", "-c", f"mkdir -p $(dirname {path}) && cat >{path}"]
        subprocess.run(line, input=text, text=True, timeout=60, check=True)

    def unit(self, name: str = "soulspot.service") -> dict[str, str]:
        """Return the properties of a unit, as `systemctl show` prints them."""
        lines = self.shell(f"systemctl show {name}").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def journal(self, unit: str = "soulspot.service") -> str:
        return self.shell(f"journalctl --sync; journalctl --no-pager --output=cat --unit={unit}")


def skip_without_systemd() -> None:
    if (reason := why_no_systemd()) is not None:
        pytest.skip(reason)
