"""What `soulspot doctor` looks at: each thing that an admin can get wrong, with the line that mends it. Writes nothing.

A check is a function that yields findings; one that cannot look says so by a finding too.
"""

import os
import pwd
import re
import resource
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from sqlalchemy import text

from soulspot.cli.rights import act_as_owner_of
from soulspot.config import Settings, daemon_address, get_settings
from soulspot.config.catalogue import find_catalogue
from soulspot.config.library_check import check_library
from soulspot.config.paths import database_file
from soulspot.config.sources import SYSTEM_CONFIG, variable
from soulspot.daemon.monitoring import endpoints
from soulspot.errors import CatalogueError, ConfigError, UnreachableError
from soulspot.infrastructure.filesystem import file_system_of, has_writer, text_to_path
from soulspot.infrastructure.net.control_socket import Answer
from soulspot.infrastructure.net.sockets import is_this_machine
from soulspot.infrastructure.persistence import schema
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.queries import integrity
from soulspot.infrastructure.persistence.sqlite.lock_file import holder_of

Level = Literal["OK", "WARN", "FAIL"]

PROC: Final = Path("/proc/sys")
UNIT: Final = "soulspot.service"
FEW_FILES: Final = 256
LITTLE_ROOM: Final = 200 << 20
NO_ROOM: Final = 20 << 20
# Before these, a race of two connections that checkpoint can damage a database in WAL mode ("the WAL-reset bug").
WAL_RACE_FIXED: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen; `cure` is what to do about it, empty where all is well."""

    check: str
    level: Level
    text: str
    cure: str = ""


async def diagnose(config_file: Path | None) -> AsyncIterator[Finding]:
    """Yield what there is to say, the settings first: without them there is no more to look at."""
    try:
        settings = get_settings(config_file=config_file)
    except ConfigError as error:
        yield Finding("settings", "FAIL", str(error), "correct it; `soulspot config check` looks again")
        return
    yield Finding("settings", "OK", "they can all be meant")
    settings, told = _as_it_runs(settings)
    for finding in _daemon(settings, told):
        yield finding
    unit = _unit()
    for finding in _secrets(settings, config_file):
        yield finding
    for finding in _folders(settings, unit):
        yield finding
    for finding in _leases(settings, unit):
        yield finding
    for finding in _outlets(settings, unit):
        yield finding
    for finding in (*_sqlite_version(settings), *_limits(), *_place_of_database(settings)):
        yield finding
    async for found in _database(settings):
        yield found


def _as_it_runs(settings: Settings) -> tuple[Settings, Answer]:
    """Return the settings with the catalogue that is there, and with the folders of the daemon that keeps it.

    With them what that daemon says of itself, nothing where none answers.
    """
    try:
        url = find_catalogue(settings)
    except CatalogueError:
        return settings, {}
    told = daemon_address.ask(settings, url, "status") or {}
    settings = settings.model_copy(update={"database": settings.database.model_copy(update={"url": url})})
    if not settings.library.folders and told:
        settings = settings.with_folders([Path(text_to_path(path)) for path in told["folders"]])
    return settings, told


def _daemon(settings: Settings, told: Answer) -> Iterator[Finding]:
    if not told:
        return
    who = f"the daemon (pid {told['pid']})"
    watched = {Path(text_to_path(path)) for path in told["folders"]}
    if told["folders"] and watched != set(settings.library.folders):
        cure = "systemctl reload soulspot, or name the folders in one place: on its command line or in the settings"
        yield Finding("daemon", "WARN", f"{who} watches other folders than the settings name", cure)
    if told["health"] == "ok":
        yield Finding("daemon", "OK", f"{who} is well")
    for reason in told["reasons"]:
        yield Finding("daemon", "WARN", f"{who} says: {reason}", "docs/operations.md has the words, and what to do")


def _secrets(settings: Settings, config_file: Path | None) -> Iterator[Finding]:
    if ":***@" not in re.sub(r":[^:/@]+@", ":***@", settings.database.url):
        return
    if variable("database.url") in os.environ:
        yield Finding(
            "secrets", "WARN", f"a password stands in the environment, in {variable('database.url')}",
            f"put it into {SYSTEM_CONFIG}, which others may not read, or into ~/.pgpass",
        )  # fmt: skip
    file = config_file or SYSTEM_CONFIG
    if file.exists() and file.stat().st_mode & stat.S_IROTH:
        yield Finding("secrets", "WARN", f"everybody may read the password in {file}", f"chmod o-r {file}")


def _folders(settings: Settings, unit: Mapping[str, str]) -> Iterator[Finding]:
    folders = settings.library.folders
    try:
        check_library(settings)
    except ConfigError as error:
        yield Finding("folders", "FAIL", *_said_and_cure(str(error)))
    needed = 0
    for folder in folders:
        if (hidden := _hidden_by(folder, unit)) is not None:
            yield Finding("sandbox", "FAIL", f"{hidden} in {UNIT} hides {folder} from the service", _cure_of(hidden))
        if (user := unit.get("User")) and not _may_read(folder, user):
            cure = f"give it the right: setfacl -R -m u:{user}:rX {folder}, or SupplementaryGroups= in a drop-in"
            yield Finding("folders", "FAIL", f"the service's user {user} may not read {folder}", cure)
        if not folder.is_dir():
            continue
        kind = file_system_of(str(folder))
        needed += sum(1 for _folder in os.walk(folder))
        if kind.is_remote:
            every = settings.library.poll_interval
            told = (
                f"{folder} is on {kind.kind}, where no event tells what others write: it is looked at every {every:g} s"
            )
            yield Finding("folders", "WARN", told, f"to find it sooner, lower {variable('library.poll_interval')}")
        else:
            yield Finding("folders", "OK", f"{folder} is there, on {kind.kind}")
    yield from _watches(needed)


def _watches(needed: int) -> Iterator[Finding]:
    try:
        allowed = int((PROC / "fs/inotify/max_user_watches").read_text())
    except OSError as error:
        yield Finding(
            "watches", "WARN", f"the limit on watches cannot be read ({error.strerror})", "drop ProcSubset=pid"
        )
        return
    told = f"{needed} folders need a watch each, and {allowed} are allowed to one user"
    cure = (
        f"echo fs.inotify.max_user_watches={max(needed * 2, 524288)} >/etc/sysctl.d/60-soulspot.conf; sysctl --system"
    )
    level: Level = "FAIL" if needed > allowed else "WARN" if needed > allowed * 0.8 else "OK"
    yield Finding("watches", level, told, "" if level == "OK" else cure)


def _leases(settings: Settings, unit: Mapping[str, str]) -> Iterator[Finding]:
    library = settings.library
    price = f"each file is taken in {library.quiet_period:g} s after its last change, and not at its last byte"
    if library.quiet_period == 0:
        told = "with a quiet period of 0 a file counts as complete at once where no lease can be had"
        yield Finding("leases", "WARN", told, f"set {variable('library.quiet_period')}=2")
    if not library.leases:
        yield Finding("leases", "WARN", f"leases are switched off: {price}", f"set {variable('library.leases')}=true")
    elif unit and ("cap_lease" not in unit.get("AmbientCapabilities", "") or unit.get("PrivateUsers") == "yes"):
        cure = f"AmbientCapabilities=CAP_LEASE and PrivateUsers=no in a drop-in of {UNIT}"
        yield Finding("leases", "WARN", f"{UNIT} may not lease files of other users: {price}", cure)
    elif (refused := next((file for file in _samples(settings) if _writer(file) is None), None)) is not None:
        told = f"no lease can be had on {refused}: {price}"
        yield Finding("leases", "WARN", told, "run soulspot as the files' owner, or by its unit, which has CAP_LEASE")
    else:
        yield Finding("leases", "OK", "the kernel tells when a file is complete")


def _outlets(settings: Settings, unit: Mapping[str, str]) -> Iterator[Finding]:
    """Find what a setting asks for and the service cannot do: its unit gives it no network and nothing to write."""
    listen, textfile, hook = settings.metrics.listen, settings.metrics.textfile, settings.on_batch
    try:
        endpoints.check(settings)
    except ConfigError as error:
        yield Finding("metrics", "FAIL", *_said_and_cure(str(error)))
    drop_in = f"copy the example drop-in {{}} to /etc/systemd/system/{UNIT}.d/, then systemctl daemon-reload"
    has_no_network = unit.get("PrivateNetwork") == "yes"
    if listen and not listen.startswith("/") and has_no_network:
        told = f"{UNIT} has no network, so nobody reaches the metrics at {listen}"
        yield Finding("metrics", "WARN", told, f"{drop_in.format('loopback.conf')}; or set a path: a socket needs none")
    if textfile and unit.get("ProtectSystem") == "strict" and not _may_write(Path(textfile).parent, unit):
        told = f"{UNIT} may not write the metrics to {textfile}"
        yield Finding("metrics", "WARN", told, drop_in.format("textfile.conf"))
    if (host := urlsplit(hook.url.get_secret_value()).hostname) is not None:
        is_here = is_this_machine(host)
        if has_no_network or (not is_here and unit.get("IPAddressDeny")):
            told = f"{UNIT} has no way to {host}, to which on_batch.url sends"
            cure = drop_in.format("loopback.conf" if is_here else "network-hooks.conf")
            yield Finding("hooks", "WARN", told, cure)
    if hook.command and shutil.which(hook.command[0]) is None:
        told = f"there is no program {hook.command[0]}, which on_batch.command names"
        yield Finding("hooks", "WARN", told, "install it, name its whole path, or give its arguments as a list")


def _may_write(folder: Path, unit: Mapping[str, str]) -> bool:
    return any(folder.is_relative_to(each.lstrip("-+")) for each in unit.get("ReadWritePaths", "").split())


def _sqlite_version(settings: Settings) -> Iterator[Finding]:
    if database_file(settings.database.url) is None:
        return
    version = sqlite3.sqlite_version_info
    fixed = version >= WAL_RACE_FIXED[-1] or any(version[:2] == each[:2] and version >= each for each in WAL_RACE_FIXED)
    told = f"SQLite {sqlite3.sqlite_version}"
    if fixed:
        yield Finding("sqlite", "OK", told)
    else:
        told += " can damage a database when two programs checkpoint it at once; soulspot by itself does not"
        yield Finding("sqlite", "WARN", told, "do not write to the catalogue by other programs, or use SQLite 3.51.3")


def _limits() -> Iterator[Finding]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < FEW_FILES:
        yield Finding("limits", "WARN", f"only {files} files may be open at once", f"ulimit -n {FEW_FILES * 4}")
    else:
        yield Finding("limits", "OK", f"{files} files may be open at once")


def _place_of_database(settings: Settings) -> Iterator[Finding]:
    file = database_file(settings.database.url)
    if file is None:
        return
    place = next(each for each in file.parents if each.exists())
    room = shutil.disk_usage(place).free
    level: Level = "FAIL" if room < NO_ROOM else "WARN" if room < LITTLE_ROOM else "OK"
    cure = "" if level == "OK" else f"free some, or move the catalogue by {variable('database.url')}"
    yield Finding("room", level, f"{room >> 20} MB are free at {place}", cure)
    kind = file_system_of(str(place))
    if kind.is_remote:
        told = f"the catalogue is on {kind.kind}, where SQLite's locks and its write-ahead log cannot be trusted"
        yield Finding("place", "FAIL", told, f"set {variable('database.url')} to a place on a disk of this machine")
    wrong = next((each for each in (file, place) if each.exists() and not os.access(each, os.W_OK)), None)
    if wrong is not None and place == file.parent:
        yield Finding("place", "FAIL", f"{wrong} cannot be written by this user", f"chown soulspot: {wrong}")


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    file = database_file(settings.database.url)
    if file is not None and not file.exists():
        yield Finding("database", "OK", f"there is no catalogue at {file} yet: the first start makes it")
        return
    act_as_owner_of(settings.database.url)
    async with Database(settings.database.url, read_only=True) as database:
        try:
            revision = await schema.current_revision(database)
            if revision is not None:
                schema.require_known(database, revision)
        except CatalogueError as error:
            yield Finding("database", "FAIL", *_said_and_cure(str(error)))
            return
        except UnreachableError as error:
            cure = f"start the server, or correct {variable('database.url')}"
            yield Finding("database", "FAIL", str(error), cure)
            return
        if revision != schema.REVISION:
            told = f"the schema is {revision or 'none'}, and this soulspot needs {schema.REVISION}"
            yield Finding("schema", "WARN", told, "soulspot db upgrade")
            return
        if faults := await integrity.faults(database):
            yield Finding("database", "FAIL", "; ".join(faults), "soulspot db restore")
            return
        yield Finding("database", "OK", "it is sound, and its schema is the one that is needed")
        async for finding in _state_of(database, file):
            yield finding


async def _state_of(database: Database, file: Path | None) -> AsyncIterator[Finding]:
    async with database.session() as session:
        newest = await session.scalar(text("SELECT max(at) FROM audit_log"))
        mode = await session.scalar(text("PRAGMA journal_mode")) if database.is_sqlite else "wal"
    if mode != "wal":
        told = f"the journal mode is {mode}: who reads and who writes wait for each other"
        yield Finding("journal", "WARN", told, f"sqlite3 {file} 'PRAGMA journal_mode=WAL', or the next start does it")
    if newest is not None:
        last = datetime.fromisoformat(newest) if isinstance(newest, str) else newest
        last = last if last.tzinfo else last.replace(tzinfo=UTC)
        if last > datetime.now(UTC) + timedelta(minutes=1):
            told = f"the newest entry in the history is of {last:%Y-%m-%d %H:%M} UTC, which is still to come"
            yield Finding("clock", "WARN", told, "timedatectl set-ntp true")
        else:
            yield Finding("clock", "OK", "it is not behind the history")
    if file is not None:
        holder = holder_of(file)
        yield Finding(
            "writer", "OK", f"{holder} writes the catalogue" if holder else "no soulspot writes the catalogue"
        )


def _unit() -> dict[str, str]:
    """Return what systemd has of the service, nothing where it is not installed."""
    command = ["systemctl", "show", UNIT]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return {}
    properties = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    return properties if properties.get("LoadState") == "loaded" else {}


def _hidden_by(folder: Path, unit: Mapping[str, str]) -> str | None:
    """Return the directive that keeps the service from seeing a folder."""
    bound = [line.split(":")[0] for line in unit.get("BindReadOnlyPaths", "").split()]
    if any(folder.is_relative_to(each) for each in bound) and unit.get("ProtectHome") != "yes":
        return None
    if unit.get("ProtectHome") in {"yes", "tmpfs"} and folder.parts[:2] in {("/", "home"), ("/", "root")}:
        return f"ProtectHome={unit['ProtectHome']}"
    if unit.get("PrivateTmp") == "yes" and (folder.is_relative_to("/tmp") or folder.is_relative_to("/var/tmp")):  # noqa: S108
        return "PrivateTmp=yes"
    for directive in ("InaccessiblePaths", "TemporaryFileSystem"):
        for each in unit.get(directive, "").split():
            if folder.is_relative_to(each.lstrip("-+").split(":")[0]):
                return f"{directive}={each}"
    return None


def _cure_of(hidden: str) -> str:
    directive = hidden.split("=", maxsplit=1)[0]
    if directive == "ProtectHome":
        return f"copy the example drop-in home.conf to /etc/systemd/system/{UNIT}.d/, then systemctl daemon-reload"
    without = "PrivateTmp=no" if directive == "PrivateTmp" else f"{directive}="
    return f"systemctl edit soulspot, and write there [Service] and {without}, or move the music elsewhere"


def _may_read(folder: Path, user: str) -> bool:
    """Whether a user may list and enter a folder; it takes root to find out about another."""
    if os.geteuid() != 0 or not folder.is_dir():
        return True
    try:
        account = pwd.getpwnam(user)
        groups = os.getgrouplist(user, account.pw_gid)
        looked = subprocess.run(  # noqa: S603
            ["test", "-r", folder, "-a", "-x", folder],  # noqa: S607
            user=account.pw_uid, group=account.pw_gid, extra_groups=groups, check=False,
        )  # fmt: skip
    except (KeyError, OSError, subprocess.SubprocessError):
        return True
    return looked.returncode == 0


def _samples(settings: Settings) -> Iterator[str]:
    """Yield a file of each folder, if it has one at its top or one level below."""
    for folder in settings.library.folders:
        found = (each for pattern in ("*", "*/*") for each in folder.glob(pattern) if each.is_file())
        if (sample := next(found, None)) is not None:
            yield str(sample)


def _writer(file: str) -> bool | None:
    try:
        return has_writer(file)
    except OSError:
        return False


def _said_and_cure(message: str) -> tuple[str, str]:
    """Split one of our sentences into what is wrong and what to do."""
    said, _, cure = message.rpartition(": ")
    return said, cure
