"""The checks of `soulspot doctor`: each thing that an admin can get wrong, with the line that fixes it. Writes nothing.

A check is a function that yields findings; a check that cannot run yields a finding too.
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
    """The result of a check; `cure` is what to do about it, empty if all is well."""

    check: str
    level: Level
    text: str
    cure: str = ""


async def diagnose(config_file: Path | None) -> AsyncIterator[Finding]:
    """Yield all findings, the settings first: without valid settings nothing else can be checked."""
    try:
        settings = get_settings(config_file=config_file)
    except ConfigError as error:
        yield Finding("settings", "FAIL", str(error), "correct it, then run `soulspot config check`")
        return
    yield Finding("settings", "OK", "all settings are valid")
    settings, answer = _as_it_runs(settings)
    for finding in _daemon(settings, answer):
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
    """Return the settings with the existing catalogue and the folders of its daemon, and that daemon's status.

    The status is empty if no daemon answers.
    """
    try:
        url = find_catalogue(settings)
    except CatalogueError:
        return settings, {}
    answer = daemon_address.ask(settings, url, "status") or {}
    settings = settings.model_copy(update={"database": settings.database.model_copy(update={"url": url})})
    if not settings.library.folders and answer:
        settings = settings.with_folders([Path(text_to_path(path)) for path in answer["folders"]])
    return settings, answer


def _daemon(settings: Settings, answer: Answer) -> Iterator[Finding]:
    if not answer:
        return
    daemon = f"the daemon (pid {answer['pid']})"
    watched = {Path(text_to_path(path)) for path in answer["folders"]}
    if answer["folders"] and watched != set(settings.library.folders):
        cure = "systemctl reload soulspot, or name the folders in one place: on its command line or in the settings"
        yield Finding("daemon", "WARN", f"{daemon} watches other folders than the settings name", cure)
    if answer["health"] == "ok":
        yield Finding("daemon", "OK", f"{daemon} is healthy")
    for reason in answer["reasons"]:
        yield Finding("daemon", "WARN", f"{daemon} reports: {reason}", "look this message up in docs/operations.md")


def _secrets(settings: Settings, config_file: Path | None) -> Iterator[Finding]:
    if ":***@" not in re.sub(r":[^:/@]+@", ":***@", settings.database.url):
        return
    if variable("database.url") in os.environ:
        yield Finding(
            "secrets", "WARN", f"the environment variable {variable('database.url')} contains a password",
            f"move it to {SYSTEM_CONFIG}, readable by its owner only, or to ~/.pgpass",
        )  # fmt: skip
    file = config_file or SYSTEM_CONFIG
    if file.exists() and file.stat().st_mode & stat.S_IROTH:
        yield Finding("secrets", "WARN", f"every user can read the password in {file}", f"chmod o-r {file}")


def _folders(settings: Settings, unit: Mapping[str, str]) -> Iterator[Finding]:
    folders = settings.library.folders
    try:
        check_library(settings)
    except ConfigError as error:
        yield Finding("folders", "FAIL", *_split_cure(str(error)))
    needed = 0
    for folder in folders:
        if (hidden := _hidden_by(folder, unit)) is not None:
            yield Finding("sandbox", "FAIL", f"{hidden} in {UNIT} hides {folder} from the service", _cure_of(hidden))
        if (user := unit.get("User")) and not _may_read(folder, user):
            cure = f"grant it: setfacl -R -m u:{user}:rX {folder}, or SupplementaryGroups= in a drop-in"
            yield Finding("folders", "FAIL", f"the service user {user} cannot read {folder}", cure)
        if not folder.is_dir():
            continue
        kind = file_system_of(str(folder))
        needed += sum(1 for _folder in os.walk(folder))
        if kind.is_remote:
            every = settings.library.poll_interval
            problem = (
                f"{folder} is on {kind.kind}, which reports no changes by other machines: polling every {every:g} s"
            )
            cure = f"to find changes sooner, lower {variable('library.poll_interval')}"
            yield Finding("folders", "WARN", problem, cure)
        else:
            yield Finding("folders", "OK", f"{folder} is readable, on {kind.kind}")
    yield from _watches(needed)


def _watches(needed: int) -> Iterator[Finding]:
    try:
        allowed = int((PROC / "fs/inotify/max_user_watches").read_text())
    except OSError as error:
        yield Finding(
            "watches", "WARN", f"cannot read the limit on inotify watches ({error.strerror})", "remove ProcSubset=pid"
        )
        return
    problem = f"{needed} folders need one inotify watch each; the limit per user is {allowed}"
    cure = (
        f"echo fs.inotify.max_user_watches={max(needed * 2, 524288)} >/etc/sysctl.d/60-soulspot.conf; sysctl --system"
    )
    level: Level = "FAIL" if needed > allowed else "WARN" if needed > allowed * 0.8 else "OK"
    yield Finding("watches", level, problem, "" if level == "OK" else cure)


def _leases(settings: Settings, unit: Mapping[str, str]) -> Iterator[Finding]:
    library = settings.library
    price = f"files are read {library.quiet_period:g} s after their last change, not as soon as they are closed"
    if library.quiet_period == 0:
        problem = "with a quiet period of 0, a file without a lease counts as complete at once"
        yield Finding("leases", "WARN", problem, f"set {variable('library.quiet_period')}=2")
    if not library.leases:
        yield Finding("leases", "WARN", f"leases are disabled: {price}", f"set {variable('library.leases')}=true")
    elif unit and ("cap_lease" not in unit.get("AmbientCapabilities", "") or unit.get("PrivateUsers") == "yes"):
        cure = f"AmbientCapabilities=CAP_LEASE and PrivateUsers=no in a drop-in of {UNIT}"
        yield Finding("leases", "WARN", f"{UNIT} cannot lease files of other users: {price}", cure)
    elif (refused := next((file for file in _samples(settings) if _writer(file) is None), None)) is not None:
        problem = f"cannot get a lease on {refused}: {price}"
        yield Finding(
            "leases", "WARN", problem, "run soulspot as the owner of the files, or by its unit, which has CAP_LEASE"
        )
    else:
        yield Finding("leases", "OK", "the kernel reports when a file is complete")


def _outlets(settings: Settings, unit: Mapping[str, str]) -> Iterator[Finding]:
    """Find settings that the sandbox of the service blocks: it has no network and may write nothing else."""
    listen, textfile, hook = settings.metrics.listen, settings.metrics.textfile, settings.on_batch
    try:
        endpoints.check(settings)
    except ConfigError as error:
        yield Finding("metrics", "FAIL", *_split_cure(str(error)))
    drop_in = f"copy the example drop-in {{}} to /etc/systemd/system/{UNIT}.d/, then systemctl daemon-reload"
    has_no_network = unit.get("PrivateNetwork") == "yes"
    if listen and not listen.startswith("/") and has_no_network:
        problem = f"{UNIT} has no network, so the metrics at {listen} are unreachable"
        yield Finding(
            "metrics",
            "WARN",
            problem,
            f"{drop_in.format('loopback.conf')}; or set the path of a socket, which needs no network",
        )
    if textfile and unit.get("ProtectSystem") == "strict" and not _may_write(Path(textfile).parent, unit):
        problem = f"{UNIT} cannot write the metrics to {textfile}"
        yield Finding("metrics", "WARN", problem, drop_in.format("textfile.conf"))
    if (host := urlsplit(hook.url.get_secret_value()).hostname) is not None:
        is_here = is_this_machine(host)
        if has_no_network or (not is_here and unit.get("IPAddressDeny")):
            problem = f"{UNIT} cannot reach {host}, the host of on_batch.url"
            cure = drop_in.format("loopback.conf" if is_here else "network-hooks.conf")
            yield Finding("hooks", "WARN", problem, cure)
    if hook.command and shutil.which(hook.command[0]) is None:
        problem = f"on_batch.command names {hook.command[0]}, which is not installed"
        yield Finding("hooks", "WARN", problem, "install it, give its full path, or write its arguments as a list")


def _may_write(folder: Path, unit: Mapping[str, str]) -> bool:
    return any(folder.is_relative_to(each.lstrip("-+")) for each in unit.get("ReadWritePaths", "").split())


def _sqlite_version(settings: Settings) -> Iterator[Finding]:
    if database_file(settings.database.url) is None:
        return
    version = sqlite3.sqlite_version_info
    fixed = version >= WAL_RACE_FIXED[-1] or any(version[:2] == each[:2] and version >= each for each in WAL_RACE_FIXED)
    problem = f"SQLite {sqlite3.sqlite_version}"
    if fixed:
        yield Finding("sqlite", "OK", problem)
    else:
        problem += " can damage a database that two programs checkpoint at once; soulspot alone is safe"
        yield Finding(
            "sqlite", "WARN", problem, "do not write to the catalogue with other programs, or use SQLite 3.51.3"
        )


def _limits() -> Iterator[Finding]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < FEW_FILES:
        yield Finding("limits", "WARN", f"at most {files} files can be open at once", f"ulimit -n {FEW_FILES * 4}")
    else:
        yield Finding("limits", "OK", f"{files} files can be open at once")


def _place_of_database(settings: Settings) -> Iterator[Finding]:
    file = database_file(settings.database.url)
    if file is None:
        return
    place = next(each for each in file.parents if each.exists())
    room = shutil.disk_usage(place).free
    level: Level = "FAIL" if room < NO_ROOM else "WARN" if room < LITTLE_ROOM else "OK"
    cure = "" if level == "OK" else f"free some space, or move the catalogue with {variable('database.url')}"
    yield Finding("room", level, f"{room >> 20} MB free at {place}", cure)
    kind = file_system_of(str(place))
    if kind.is_remote:
        problem = f"the catalogue is on {kind.kind}, where SQLite's locks and write-ahead log are unreliable"
        yield Finding("place", "FAIL", problem, f"set {variable('database.url')} to a path on a local disk")
    wrong = next((each for each in (file, place) if each.exists() and not os.access(each, os.W_OK)), None)
    if wrong is not None and place == file.parent:
        yield Finding("place", "FAIL", f"this user cannot write {wrong}", f"chown soulspot: {wrong}")


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    file = database_file(settings.database.url)
    if file is not None and not file.exists():
        yield Finding("database", "OK", f"there is no catalogue at {file} yet: the first start creates it")
        return
    act_as_owner_of(settings.database.url)
    async with Database(settings.database.url, read_only=True) as database:
        try:
            revision = await schema.current_revision(database)
            if revision is not None:
                schema.require_known(database, revision)
        except CatalogueError as error:
            yield Finding("database", "FAIL", *_split_cure(str(error)))
            return
        except UnreachableError as error:
            cure = f"start the server, or correct {variable('database.url')}"
            yield Finding("database", "FAIL", str(error), cure)
            return
        if revision != schema.REVISION:
            problem = f"the schema is {revision or 'none'}, but this soulspot needs {schema.REVISION}"
            yield Finding("schema", "WARN", problem, "soulspot db upgrade")
            return
        if faults := await integrity.faults(database):
            yield Finding("database", "FAIL", "; ".join(faults), "soulspot db restore")
            return
        yield Finding("database", "OK", "no faults found, and the schema is current")
        async for finding in _state_of(database, file):
            yield finding


async def _state_of(database: Database, file: Path | None) -> AsyncIterator[Finding]:
    async with database.session() as session:
        newest = await session.scalar(text("SELECT max(at) FROM audit_log"))
        mode = await database.backend.journal_mode(session)
    if mode not in {None, "wal"}:
        problem = f"the journal mode is {mode}: readers and writers block each other"
        yield Finding(
            "journal", "WARN", problem, f"sqlite3 {file} 'PRAGMA journal_mode=WAL', or start soulspot, which sets it"
        )
    if newest is not None:
        last = datetime.fromisoformat(newest) if isinstance(newest, str) else newest
        last = last if last.tzinfo else last.replace(tzinfo=UTC)
        if last > datetime.now(UTC) + timedelta(minutes=1):
            problem = f"the newest entry of the history is dated {last:%Y-%m-%d %H:%M} UTC, in the future"
            yield Finding("clock", "WARN", problem, "timedatectl set-ntp true")
        else:
            yield Finding("clock", "OK", "not behind the history")
    if file is not None:
        holder = holder_of(file)
        yield Finding(
            "writer", "OK", f"{holder} holds the write lock" if holder else "no soulspot holds the write lock"
        )


def _unit() -> dict[str, str]:
    """Return systemd's properties of the service, empty if it is not installed."""
    command = ["systemctl", "show", UNIT]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return {}
    properties = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    return properties if properties.get("LoadState") == "loaded" else {}


def _hidden_by(folder: Path, unit: Mapping[str, str]) -> str | None:
    """Return the directive that hides a folder from the service."""
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
    return f"systemctl edit soulspot and add [Service] and {without}, or move the music elsewhere"


def _may_read(folder: Path, user: str) -> bool:
    """Whether a user may list and enter a folder; only root can find out about other users."""
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
    """Yield one file of each folder that has any in its top two levels."""
    for folder in settings.library.folders:
        found = (each for pattern in ("*", "*/*") for each in folder.glob(pattern) if each.is_file())
        if (sample := next(found, None)) is not None:
            yield str(sample)


def _writer(file: str) -> bool | None:
    try:
        return has_writer(file)
    except OSError:
        return False


def _split_cure(message: str) -> tuple[str, str]:
    """Split one of our messages into the problem and the cure."""
    problem, _, cure = message.rpartition(": ")
    return problem, cure
