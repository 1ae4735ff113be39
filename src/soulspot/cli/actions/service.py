"""`soulspot service`: installs the systemd units of the package, and removes them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from typing import Final

import typer

from soulspot.config.documentation import example_file
from soulspot.config.sources import SYSTEM_CONFIG
from soulspot.daemon.web_activation import require_extra
from soulspot.errors import ConfigError

SYSTEM: Final = Path("/etc/systemd/system")
MAN: Final = Path("/usr/local/share/man")
UNITS: Final = ("soulspot.service", "soulspot@.service", "soulspot-backup.service", "soulspot-backup.timer")
WEB_UNITS: Final = ("soulspot-web.service", "soulspot-web.socket")


@dataclass(frozen=True, slots=True)
class Plan:
    """The files to write, commands to run and files to remove; `then` is the message printed at the end."""

    written: Sequence[tuple[Path, str]] = ()
    before_removal: Sequence[Sequence[str]] = ()
    removed: Sequence[Path] = ()
    commands: Sequence[Sequence[str]] = ()
    then: str = ""


def install(*, for_user: bool, with_web: bool, without_asking: bool) -> None:
    if with_web:
        if for_user:
            raise ConfigError(
                "there is no user unit for the page: leave out --web, and run `soulspot web` when you need it"
            )
        require_extra()
    _carry_out(_user_plan() if for_user else _system_plan(with_web=with_web), without_asking=without_asking)


def uninstall(*, for_user: bool, without_asking: bool) -> None:
    manager = ["systemctl", "--user"] if for_user else ["systemctl"]
    if for_user:
        installed, names = [_user_folder() / "soulspot.service"], ["soulspot.service"]
    else:
        _require_root()
        installed = [SYSTEM / unit for unit in (*UNITS, *WEB_UNITS)]
        installed += [Path("/etc/sysusers.d/soulspot.conf"), Path("/etc/tmpfiles.d/soulspot.conf")]
        installed += MAN.glob("man?/soulspot.*")
        names = ["soulspot.service", "soulspot-backup.timer"]
        names += [unit for unit in reversed(WEB_UNITS) if (SYSTEM / unit).exists()]
    there = [file for file in installed if file.exists()]
    if not there:
        print("no soulspot unit is installed")
        return
    plan = Plan(
        before_removal=[[*manager, "disable", "--now", *names]],
        removed=there,
        commands=[[*manager, "daemon-reload"]],
        then="kept the catalogue and the settings",
    )
    _carry_out(plan, without_asking=without_asking)


def _system_plan(*, with_web: bool) -> Plan:
    _require_root()
    command = _command(hidden_below=("/home", "/root", "/tmp", "/var/tmp"))  # noqa: S108 - the unit does not see these
    source = _shipped()
    units = (*UNITS, *WEB_UNITS) if with_web else UNITS
    written = [(SYSTEM / unit, _with_command(source / unit, command)) for unit in units]
    others = [f"{folder}/soulspot.conf" for folder in ("sysusers.d", "tmpfiles.d")]
    written += [(Path("/etc") / other, (source / other).read_text()) for other in others]
    written += [(MAN / page.parent.name / page.name, page.read_text(encoding="utf-8")) for page in _pages()]
    if not SYSTEM_CONFIG.exists():
        written.append((SYSTEM_CONFIG, example_file()))
    commands = [
        ("systemd-sysusers", "soulspot.conf"),
        ("systemd-tmpfiles", "--create", "soulspot.conf"),
        ("systemctl", "daemon-reload"),
        ("systemctl", "enable", "soulspot.service", "soulspot-backup.timer"),
    ]
    then = f"name the music folders in {SYSTEM_CONFIG}, then: systemctl start soulspot"
    if with_web:
        commands.append(("systemctl", "enable", "--now", "soulspot-web.socket"))
        then += "; the page is at http://127.0.0.1:8337/"
    return Plan(written=written, commands=commands, then=then)


def _user_plan() -> Plan:
    unit = _with_command(_shipped() / "user" / "soulspot.service", _command())
    return Plan(
        written=[(_user_folder() / "soulspot.service", unit)],
        commands=[("systemctl", "--user", "daemon-reload"), ("systemctl", "--user", "enable", "soulspot.service")],
        then="name the music folders (soulspot config init), then: systemctl --user start soulspot;"
        " to keep it running while you are logged out: loginctl enable-linger",
    )


def _carry_out(plan: Plan, *, without_asking: bool) -> None:
    print(
        *(f"write   {file}" for file, _text in plan.written),
        *(f"run     {' '.join(command)}" for command in (*plan.before_removal, *plan.commands)),
        *(f"remove  {file}" for file in plan.removed),
        sep="\n",
    )
    if not without_asking:
        typer.confirm("Do this?", abort=True)
    for file, text in plan.written:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for command in plan.before_removal:
        _run(command)
    for file in plan.removed:
        file.unlink()
    for command in plan.commands:
        _run(command)
    print(plan.then)


def _run(command: Sequence[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise ConfigError(f"{command[0]} cannot run ({error.strerror}): does this machine use systemd?") from error
    if result.returncode:
        raise ConfigError(f"`{' '.join(command)}` failed: {result.stderr.strip()}")


def _command(hidden_below: Sequence[str] = ()) -> str:
    """Return the full path of the installed command, which a unit needs."""
    neighbour = Path(sys.executable).with_name("soulspot")
    found = str(neighbour) if neighbour.exists() else shutil.which("soulspot")
    if found is None:
        raise ConfigError("the soulspot command is not installed, so no unit can run it: pipx install soulspot")
    if hidden := next((each for each in hidden_below if Path(found).is_relative_to(each)), None):
        raise ConfigError(
            f"{found} is in {hidden}, which is hidden from the service: install soulspot elsewhere, as in "
            f"`python3 -m venv /opt/soulspot && /opt/soulspot/bin/pip install soulspot`, or use --user"
        )
    return found


def _with_command(unit: Path, command: str) -> str:
    return re.sub(r"^(Exec\w+=)\S*/bin/soulspot\b", rf"\g<1>{command}", unit.read_text(), flags=re.MULTILINE)


def _shipped() -> Path:
    """Return the folder of the units, in the installed package or at the top of a checkout."""
    package = Path(__file__).parents[2]
    packaged = package / "systemd"
    return packaged if packaged.is_dir() else package.parents[1] / "systemd"


def _pages() -> list[Path]:
    """Return the man pages that pip put into the environment, where `man` does not look."""
    return [Path(str(file.locate())) for file in files("soulspot") or [] if "share/man/" in str(file)]


def _user_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ConfigError("only root can install a system service: use sudo, or --user for your own service")
