"""`soulspot config`: shows the settings, checks them, writes a file to start from."""

import os
from pathlib import Path

from platformdirs import user_config_path

from soulspot.cli.output.text import print_rows
from soulspot.config import get_settings
from soulspot.config.documentation import describe_settings, example_file
from soulspot.config.library_check import check_library
from soulspot.config.sources import SYSTEM_CONFIG
from soulspot.daemon.monitoring import endpoints
from soulspot.errors import ConfigError


def show(config: Path | None, *, as_json: bool) -> None:
    columns = {"setting": "name", "value": "value", "from": "origin"}
    print_rows(describe_settings(config_file=config), columns, as_json=as_json)


def check(config: Path | None) -> None:
    settings = get_settings(config_file=config)
    endpoints.check(settings)
    check_library(settings, settings.library.folders)  # a folder that is not mounted now is not an error
    absent = [folder for folder in settings.library.folders if not folder.is_dir()]
    print("all settings are valid" + "".join(f"\nmissing now: {folder}" for folder in absent))


def init(file: Path | None, *, overwrite: bool) -> None:
    place = file or (SYSTEM_CONFIG if os.geteuid() == 0 else user_config_path("soulspot") / "config.toml")
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if overwrite else os.O_EXCL)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(place, flags, 0o644), "w", encoding="utf-8") as written:
            written.write(example_file())
    except FileExistsError as error:
        raise ConfigError(f"{place} exists already: edit it, or overwrite it with --force") from error
    except OSError as error:
        raise ConfigError(f"{place} cannot be written ({error.strerror}): name another file") from error
    print(f"wrote {place}: name your music folders in it")
