"""Drops root's privileges for those of the owner of a catalogue.

The owner could plant links beside the catalogue (instead of a lock, the write-ahead log or the database itself) that
make root open, write or hand over any file of the machine. So a command that root runs switches to the owner before it
opens anything there, and can do nothing that the owner could not do.

If only root can read the installation of soulspot, the owner cannot start tag readers. Then root remains the real user
of the process, with which no file is opened; each reader starts as root, and switches to the owner before it reads.
"""

import contextlib
import errno
import importlib
import os
import pkgutil
import pwd
import stat
import sys
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from soulspot.errors import CatalogueError

SAME_USER: Final = "-"
_NOT_IMPORTED: Final = frozenset(
    ("antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "this", "tkinter", "turtle")
) | frozenset(("turtledemo", "venv"))
"""Modules that no command needs: some open a window or use the network, some print a joke, some are tests."""
_LINKS_LIMIT: Final = 40
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Account:
    """The user and groups that a process acts as; `keeps_root` if root remains the real user."""

    user: int
    group: int
    groups: tuple[int, ...]
    name: str
    keeps_root: bool = False


_acting: list[Account] = []


def acting_as() -> str:
    """Return the name of the user that this process switched to from root, "" if it has not."""
    return _acting[0].name if _acting else ""


def act_as_owner(file: Path, prepare: Callable[[], None]) -> None:
    """Switch from root to the owner of a catalogue; do nothing if root owns it, or this process is not root.

    If the owner cannot read this program, `prepare` is called first: it must load everything needed later.
    Raises CatalogueError if the owner cannot reach the catalogue.
    """
    if os.geteuid() != 0 or (owner := owner_of(file)) == 0:
        return
    account = _account(owner, file)
    try:
        os.setgroups(account.groups)
        os.setresgid(account.group, account.group, account.group)
        os.seteuid(account.user)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EINVAL}:
            raise
        return  # root without capabilities, as in some containers, has no privileges to drop
    if _can_read_program():
        os.setresuid(account.user, account.user, account.user)
    else:
        os.seteuid(0)
        prepare()
        os.seteuid(account.user)
        account = Account(account.user, account.group, account.groups, account.name, keeps_root=True)
    _acting.append(account)
    try:
        os.stat(file)
    except PermissionError as error:
        msg = f"{file} belongs to {account.name}, who cannot reach it; root acts as the owner of the catalogue"
        raise CatalogueError(msg) from error
    except OSError:  # the command itself reports it
        return


def child_user() -> dict[str, Any]:
    """Return the arguments of `subprocess` that start a program as the user that this process switched to."""
    return {"user": _acting[0].user} if _acting and _acting[0].keeps_root else {}


def reader_user() -> tuple[dict[str, Any], str]:
    """Return the arguments of `subprocess` for a tag reader, and the user for its `become`, or `SAME_USER`."""
    if not _acting or not _acting[0].keeps_root:
        return {}, SAME_USER
    account = _acting[0]
    return {"user": 0}, f"{account.user}:{account.group}:{','.join(map(str, account.groups))}"


def become(account: str) -> None:
    """Switch irrevocably to the user, group and groups that the parent process passed."""
    user, group, groups = account.split(":")
    os.setgroups([int(each) for each in groups.split(",") if each])
    os.setresgid(int(group), int(group), int(group))
    os.setresuid(int(user), int(user), int(user))


def import_everything(*packages: ModuleType) -> None:
    """Import the standard library and packages with all their modules, so that their files are no longer needed."""
    with warnings.catch_warnings(action="ignore"):  # some modules are deprecated
        for name in sorted(sys.stdlib_module_names - _NOT_IMPORTED):
            if not name.startswith("_"):
                _import_with_submodules(name)
        for package in packages:
            _import_with_submodules(package.__name__)


def _import_with_submodules(name: str) -> None:
    with contextlib.suppress(ImportError, OSError):  # missing here: modules of Windows, optional libraries
        module = importlib.import_module(name)
        for each in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
            if not each.name.endswith(("__main__", "_process", ".testing", ".test", ".tests", ".migrations")):
                _import_with_submodules(each.name)


def owner_of(file: Path) -> int:
    """Return the owner of a catalogue: the user whose files beside it root must not trust.

    That is the owner of its folder; or of a link on the way there, unless that is root. If root owns the folder but
    others can write to it, it is the owner of the file itself.
    """
    try:
        folder, owner = _resolved(str(file.parent))
        if owner:
            return owner
        status = os.stat(folder)
        if status.st_uid == 0 and status.st_mode & _OTHERS_WRITE:
            return os.lstat(os.path.join(folder, file.name)).st_uid
    except OSError:  # does not exist yet; or a loop of links, which the command itself reports
        return 0
    return status.st_uid


def _resolved(path: str) -> tuple[str, int]:
    """Return the folder that a path leads to, as far as it exists, and 0; or a link of another user, and its owner."""
    found, links = "/", 0
    parts = deque(path.split("/"))
    while parts:
        name = parts.popleft()
        if name in {"", "."}:
            continue
        full = os.path.dirname(found) if name == ".." else os.path.join(found, name)
        try:
            status = os.lstat(full)
        except FileNotFoundError:
            break
        if stat.S_ISLNK(status.st_mode):
            if status.st_uid != 0:
                return full, status.st_uid
            links += 1
            if links > _LINKS_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(full)
            found = "/" if target.startswith("/") else found
            parts.extendleft(reversed(target.split("/")))
        else:
            found = full
    return found, 0


def _account(user: int, file: Path) -> Account:
    try:
        known = pwd.getpwuid(user)
    except KeyError:  # a user of another machine or of a container
        group = next(each for each in file.parents if each.exists()).stat().st_gid
        return Account(user, group, (group,), str(user))
    groups = os.getgrouplist(known.pw_name, known.pw_gid)
    return Account(user, known.pw_gid, tuple(groups), known.pw_name)


def _can_read_program() -> bool:
    return all(os.access(path, os.R_OK, effective_ids=True) for path in (sys.executable, os.__file__, __file__))
