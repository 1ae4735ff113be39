"""Checks that the music folders can be watched."""

import errno
import os
from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path

from soulspot.config.paths import database_file
from soulspot.config.sections import Settings
from soulspot.config.sources import variable, why
from soulspot.errors import ConfigError
from soulspot.infrastructure.privileges import acting_as


def check_library(settings: Settings, known: Collection[Path] = ()) -> None:
    """Raise ConfigError unless the music folders can be watched; one in `known` may be absent, and is then offline."""
    folders = settings.library.folders
    if not folders:
        msg = f"no music folder was given: name one on the command line or set {variable('library.folders')}"
        raise ConfigError(msg)
    for folder in folders:
        _check_folder(folder, is_known=folder in known)
    real = [Path(os.path.realpath(folder)) for folder in folders]
    check_nesting(folders, real)
    if (file := database_file(settings.database.url)) is None:
        return
    for folder, place in zip(folders, real, strict=True):
        if Path(os.path.realpath(file)).is_relative_to(place):
            msg = (
                f"the database {file} lies in the music folder {folder}, where each of its own writes would wake the"
                f" watcher: set {variable('database.url')} to a place outside"
            )
            raise ConfigError(msg)


def _check_folder(folder: Path, *, is_known: bool) -> None:
    try:
        with os.scandir(folder):  # the right to list
            os.stat(os.path.join(folder, "."))  # the right to look at what is inside
    except OSError as error:
        if error.errno == errno.ENOTDIR and os.path.exists(folder):
            msg = f"the music folder {folder} is a file: name the folder that holds it"
        elif isinstance(error, PermissionError):
            who = f"{acting_as()}, as whom root's commands act here," if acting_as() else "this user"
            msg = f"the music folder {folder} cannot be read: give {who} the right to read and search it"
        elif is_known:
            return
        elif error.errno in {errno.ENOENT, errno.ENOTDIR}:
            msg = f"the music folder {folder} was never there: create it or correct the path"
        else:
            msg = f"the music folder {folder} cannot be looked at ({why(error)}): mend that or correct the path"
        raise ConfigError(msg) from error


def check_nesting(folders: Sequence[Path], places: Sequence[Path]) -> None:
    """Raise ConfigError when a file could be found by two of the folders; `places` is where each of them is."""
    for (folder, place), (other, elsewhere) in combinations(zip(folders, places, strict=True), 2):
        if folder == other:
            msg = f"the music folder {folder} is named twice: name it once"
        elif place == elsewhere:
            msg = f"the music folders {folder} and {other} are the same one: name one of them"
        elif place.is_relative_to(elsewhere):
            msg = f"the music folder {folder} lies inside {other}, which covers it: name {other} alone"
        elif elsewhere.is_relative_to(place):
            msg = f"the music folder {other} lies inside {folder}, which covers it: name {folder} alone"
        else:
            continue
        raise ConfigError(msg)
