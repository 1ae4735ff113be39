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
    """Raise ConfigError unless the music folders can be watched; those in `known` may be absent, as offline."""
    folders = settings.library.folders
    if not folders:
        raise ConfigError(f"no music folder given: name one on the command line or set {variable('library.folders')}")
    for folder in folders:
        _check_folder(folder, is_known=folder in known)
    real = [Path(os.path.realpath(folder)) for folder in folders]
    check_nesting(folders, real)
    file = database_file(settings.database.url)
    for folder, place in zip(folders, real, strict=True):
        if file is not None and Path(os.path.realpath(file)).is_relative_to(place):
            raise ConfigError(
                f"the database {file} is in the music folder {folder}, where each of its writes would wake the"
                f" watcher: set {variable('database.url')} to a path outside"
            )


def _check_folder(folder: Path, *, is_known: bool) -> None:
    try:
        with os.scandir(folder):  # may list
            os.stat(os.path.join(folder, "."))  # may enter
    except OSError as error:
        if error.errno == errno.ENOTDIR and os.path.exists(folder):
            msg = f"the music folder {folder} is a file: name the folder that holds it"
        elif isinstance(error, PermissionError):
            user = f"{acting_as()} (root acts as the owner of the catalogue)" if acting_as() else "this user"
            msg = f"cannot read the music folder {folder}: grant {user} read and search access"
        elif is_known:
            return
        elif error.errno in {errno.ENOENT, errno.ENOTDIR}:
            msg = f"the music folder {folder} does not exist: create it or correct the path"
        else:
            msg = f"cannot read the music folder {folder} ({why(error)}): fix that or correct the path"
        raise ConfigError(msg) from error


def check_nesting(folders: Sequence[Path], places: Sequence[Path]) -> None:
    """Raise ConfigError if two folders would find the same file; `places` are the real paths of the folders."""
    for (folder, place), (other, elsewhere) in combinations(zip(folders, places, strict=True), 2):
        if folder == other:
            msg = f"the music folder {folder} is named twice: name it once"
        elif place == elsewhere:
            msg = f"the music folders {folder} and {other} are the same folder: name only one"
        elif place.is_relative_to(elsewhere):
            msg = f"the music folder {folder} is inside {other}: name only {other}"
        elif elsewhere.is_relative_to(place):
            msg = f"the music folder {other} is inside {folder}: name only {folder}"
        else:
            continue
        raise ConfigError(msg)
