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
from itertools import chain
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from sqlalchemy import func, select

from soulspot.cli.rights import act_as_owner_of
from soulspot.config import Settings, daemon_address, database_file, get_settings
from soulspot.config.catalogue import find_catalogue
from soulspot.config.library_check import check_library
from soulspot.config.sources import SYSTEM_CONFIG, variable
from soulspot.daemon.monitoring import endpoints
from soulspot.errors import CatalogueError, ConfigError, UnreachableError
from soulspot.infrastructure.filesystem import file_system_of, has_writer, text_to_path
from soulspot.infrastructure.net.control_socket import Answer
from soulspot.infrastructure.net.sockets import is_this_machine
from soulspot.infrastructure.persistence import schema
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import AuditEntry
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
    unit, file = _unit(), database_file(settings.database.url)
    for finding in chain(
        _daemon(settings, answer),
        _secrets(settings, config_file),
        _folders(settings, unit),
        _leases(settings, unit),
        _outlets(settings, unit),
        _sqlite_version() if file else (),
        _limits(),
        _place_of_database(file) if file else (),
    ):
        yield finding
    async for finding in _database(settings):
        yield finding


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
    try:
        check_library(settings)
    except ConfigError as error:
        yield Finding("folders", "FAIL", *_split_cure(str(error)))
    needed = 0
    for folder in settings.library.folders:
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
            yield Finding(
                "folders", "WARN",
                f"{folder} is on {kind.kind}, which reports no changes by other machines: polling every"
                f" {settings.library.poll_interval:g} s",
                f"to find changes sooner, lower {variable('library.poll_interval')}",
            )  # fmt: skip
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
    yield _judged(
        "watches",
        f"{needed} folders need one inotify watch each; the limit per user is {allowed}",
        f"echo fs.inotify.max_user_watches={max(needed * 2, 524288)} >/etc/sysctl.d/60-soulspot.conf; sysctl --system",
        fails=needed > allowed,
        warns=needed > allowed * 0.8,
    )


def _leases(settings: Settings, unit: Mapping[str, str]) -> Iterator[Finding]:
    library = settings.library
    price = f"files are read {library.quiet_period:g} s after their last change, not as soon as they are closed"
    if library.quiet_period == 0:
        yield Finding(
            "leases", "WARN", "with a quiet period of 0, a file without a lease counts as complete at once",
            f"set {variable('library.quiet_period')}=2",
        )  # fmt: skip
    if not library.leases:
        yield Finding("leases", "WARN", f"leases are disabled: {price}", f"set {variable('library.leases')}=true")
    elif unit and ("cap_lease" not in unit.get("AmbientCapabilities", "") or unit.get("PrivateUsers") == "yes"):
        yield Finding(
            "leases", "WARN", f"{UNIT} cannot lease files of other users: {price}",
            f"AmbientCapabilities=CAP_LEASE and PrivateUsers=no in a drop-in of {UNIT}",
        )  # fmt: skip
    elif (refused := next(filter(_refuses_lease, _samples(settings)), None)) is not None:
        yield Finding(
            "leases", "WARN", f"cannot get a lease on {refused}: {price}",
            "run soulspot as the owner of the files, or by its unit, which has CAP_LEASE",
        )  # fmt: skip
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
        yield Finding(
            "metrics", "WARN", f"{UNIT} has no network, so the metrics at {listen} are unreachable",
            f"{drop_in.format('loopback.conf')}; or set the path of a socket, which needs no network",
        )  # fmt: skip
    if textfile and unit.get("ProtectSystem") == "strict" and not _may_write(Path(textfile).parent, unit):
        cure = drop_in.format("textfile.conf")
        yield Finding("metrics", "WARN", f"{UNIT} cannot write the metrics to {textfile}", cure)
    if (host := urlsplit(hook.url.get_secret_value()).hostname) is not None:
        is_here = is_this_machine(host)
        if has_no_network or (not is_here and unit.get("IPAddressDeny")):
            cure = drop_in.format("loopback.conf" if is_here else "network-hooks.conf")
            yield Finding("hooks", "WARN", f"{UNIT} cannot reach {host}, the host of on_batch.url", cure)
    if hook.command and shutil.which(hook.command[0]) is None:
        yield Finding(
            "hooks", "WARN", f"on_batch.command names {hook.command[0]}, which is not installed",
            "install it, give its full path, or write its arguments as a list",
        )  # fmt: skip


def _may_write(folder: Path, unit: Mapping[str, str]) -> bool:
    return any(folder.is_relative_to(each.lstrip("-+")) for each in unit.get("ReadWritePaths", "").split())


def _sqlite_version() -> Iterator[Finding]:
    version, name = sqlite3.sqlite_version_info, f"SQLite {sqlite3.sqlite_version}"
    if version >= WAL_RACE_FIXED[-1] or any(version[:2] == each[:2] and version >= each for each in WAL_RACE_FIXED):
        yield Finding("sqlite", "OK", name)
    else:
        yield Finding(
            "sqlite", "WARN",
            f"{name} can damage a database that two programs checkpoint at once; soulspot alone is safe",
            "do not write to the catalogue with other programs, or use SQLite 3.51.3",
        )  # fmt: skip


def _limits() -> Iterator[Finding]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < FEW_FILES:
        yield Finding("limits", "WARN", f"at most {files} files can be open at once", f"ulimit -n {FEW_FILES * 4}")
    else:
        yield Finding("limits", "OK", f"{files} files can be open at once")


def _place_of_database(file: Path) -> Iterator[Finding]:
    place = next(each for each in file.parents if each.exists())
    room = shutil.disk_usage(place).free
    cure = f"free some space, or move the catalogue with {variable('database.url')}"
    yield _judged("room", f"{room >> 20} MB free at {place}", cure, fails=room < NO_ROOM, warns=room < LITTLE_ROOM)
    if (kind := file_system_of(str(place))).is_remote:
        yield Finding(
            "place", "FAIL",
            f"the catalogue is on {kind.kind}, where SQLite's locks and write-ahead log are unreliable",
            f"set {variable('database.url')} to a path on a local disk",
        )  # fmt: skip
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
            yield Finding("database", "FAIL", str(error), f"start the server, or correct {variable('database.url')}")
            return
        if revision != schema.REVISION:
            problem = f"the schema is {revision or 'none'}, but this soulspot needs {schema.REVISION}"
            yield Finding("schema", "WARN", problem, "soulspot db upgrade")
        elif faults := await integrity.faults(database):
            yield Finding("database", "FAIL", "; ".join(faults), "soulspot db restore")
        else:
            yield Finding("database", "OK", "no faults found, and the schema is current")
            async for finding in _state_of(database, file):
                yield finding


async def _state_of(database: Database, file: Path | None) -> AsyncIterator[Finding]:
    async with database.session() as session:
        last = await session.scalar(select(func.max(AuditEntry.at)))
        mode = await database.backend.journal_mode(session)
    if mode not in {None, "wal"}:
        yield Finding(
            "journal", "WARN", f"the journal mode is {mode}: readers and writers block each other",
            f"sqlite3 {file} 'PRAGMA journal_mode=WAL', or start soulspot, which sets it",
        )  # fmt: skip
    if last is not None:
        if last > datetime.now(UTC) + timedelta(minutes=1):
            problem = f"the newest entry of the history is dated {last:%Y-%m-%d %H:%M} UTC, in the future"
            yield Finding("clock", "WARN", problem, "timedatectl set-ntp true")
        else:
            yield Finding("clock", "OK", "not behind the history")
    if file is not None:
        yield Finding("writer", "OK", f"{holder_of(file) or 'no soulspot'} holds the write lock")


def _judged(check: str, text: str, cure: str, *, fails: bool, warns: bool) -> Finding:
    level: Level = "FAIL" if fails else "WARN" if warns else "OK"
    return Finding(check, level, text, "" if level == "OK" else cure)


def _unit() -> dict[str, str]:
    """Return systemd's properties of the service, empty if it is not installed."""
    try:
        result = subprocess.run(  # noqa: S603
            ["systemctl", "show", UNIT], capture_output=True, text=True, timeout=10, check=False  # noqa: S607
        )  # fmt: skip
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
    hiding = (
        f"{directive}={each}"
        for directive in ("InaccessiblePaths", "TemporaryFileSystem")
        for each in unit.get(directive, "").split()
        if folder.is_relative_to(each.lstrip("-+").split(":")[0])
    )
    return next(hiding, None)


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
        return subprocess.call(  # noqa: S603
            ["test", "-r", folder, "-a", "-x", folder],  # noqa: S607
            user=account.pw_uid, group=account.pw_gid, extra_groups=groups,
        ) == 0  # fmt: skip
    except (KeyError, OSError, subprocess.SubprocessError):
        return True


def _samples(settings: Settings) -> Iterator[str]:
    """Yield one file of each folder that has any in its top two levels."""
    for folder in settings.library.folders:
        found = (each for pattern in ("*", "*/*") for each in folder.glob(pattern) if each.is_file())
        if (sample := next(found, None)) is not None:
            yield str(sample)


def _refuses_lease(file: str) -> bool:
    try:
        return has_writer(file) is None
    except OSError:
        return False


def _split_cure(message: str) -> tuple[str, str]:
    """Split one of our messages into the problem and the cure."""
    problem, _, cure = message.rpartition(": ")
    return problem, cure
