"""Gives up root's rights for those of the user to whom a catalogue belongs.

What that user plants beside the catalogue (a link in place of a lock, of the write-ahead log or of the database itself)
would else have root open, write or hand over any file of the machine. So a command of root's acts as that user before
it opens anything there, and can do nothing that the user could not do.

Where soulspot itself lies so that only root can read it, that user cannot start its tag readers. Then root stays the
process's real user, which opens no file, and a reader is started as root and acts as the user before it reads anything.
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

NOBODY_ELSE: Final = "-"
_NOT_IMPORTED: Final = frozenset(
    ("antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "this", "tkinter", "turtle")
) | frozenset(("turtledemo", "venv"))
"""What has a window, a network or a joke behind it, and nothing that a command needs."""
_LINKS_LIMIT: Final = 40
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a process acts as, with all its groups; `keeps_root` where root stays the real user."""

    user: int
    group: int
    groups: tuple[int, ...]
    name: str
    keeps_root: bool = False


_acting: list[Account] = []


def acting_as() -> str:
    """Return the name of the user as whom this process acts in place of root, "" where it does not."""
    return _acting[0].name if _acting else ""


def act_as_owner(file: Path, prepare: Callable[[], None]) -> None:
    """Give up root's rights for those of whom a catalogue belongs to; does nothing where that is root, or we are not.

    `prepare` is called first where that user cannot read this program: what is needed of it has to be read by then.
    Raises CatalogueError where that user cannot reach its own catalogue.
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
        return  # a root that may become nobody else has no rights to give up, as in a container without capabilities
    if _reads_this_program():
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
    except OSError:  # the command itself comes to it
        return


def child_user() -> dict[str, Any]:
    """Return as whom a program is to be started, in the words of `subprocess`: not as root, once that was given up."""
    return {"user": _acting[0].user} if _acting and _acting[0].keeps_root else {}


def reader_user() -> tuple[dict[str, Any], str]:
    """Return as whom a tag reader is to be started, and what to tell it: whom it is to `become`, or `NOBODY_ELSE`."""
    if not _acting or not _acting[0].keeps_root:
        return {}, NOBODY_ELSE
    account = _acting[0]
    return {"user": 0}, f"{account.user}:{account.group}:{','.join(map(str, account.groups))}"


def become(told: str) -> None:
    """Act as whom the starter of this process acts as, for good."""
    user, group, groups = told.split(":")
    os.setgroups([int(each) for each in groups.split(",") if each])
    os.setresgid(int(group), int(group), int(group))
    os.setresuid(int(user), int(user), int(user))


def import_everything(*packages: ModuleType) -> None:
    """Import the standard library and packages, with all below them: afterwards their files are needed no more."""
    with warnings.catch_warnings(action="ignore"):  # some of it is deprecated
        for name in sorted(sys.stdlib_module_names - _NOT_IMPORTED):
            if not name.startswith("_"):
                _import_below(name)
        for package in packages:
            _import_below(package.__name__)


def _import_below(name: str) -> None:
    with contextlib.suppress(ImportError, OSError):  # what this machine has not, as Windows' own and optional libraries
        module = importlib.import_module(name)
        for each in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
            if not each.name.endswith(("__main__", "_process", ".testing", ".test", ".tests", ".migrations")):
                _import_below(each.name)


def owner_of(file: Path) -> int:
    """Return the user whom a catalogue belongs to, in whose folder root must not trust what it finds.

    That is the owner of its folder; of a link on the way there, where that is another user than root; and of the file
    itself where several may write to a folder of root's.
    """
    try:
        folder, owner = _resolved(str(file.parent))
        if owner:
            return owner
        status = os.stat(folder)
        if status.st_uid == 0 and status.st_mode & _OTHERS_WRITE:
            return os.lstat(os.path.join(folder, file.name)).st_uid
    except OSError:  # not there yet; or a loop, which the command itself comes to
        return 0
    return status.st_uid


def _resolved(path: str) -> tuple[str, int]:
    """Return the folder that a path leads to, as far as it is there, and the owner of a link that is not root's."""
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
    except KeyError:  # of another machine, or a container's
        group = next(each for each in file.parents if each.exists()).stat().st_gid
        return Account(user, group, (group,), str(user))
    groups = os.getgrouplist(known.pw_name, known.pw_gid)
    return Account(user, known.pw_gid, tuple(groups), known.pw_name)


def _reads_this_program() -> bool:
    return all(os.access(path, os.R_OK, effective_ids=True) for path in (sys.executable, os.__file__, __file__))
