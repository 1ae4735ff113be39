"""Reads the sources of settings, TOML files, credentials and the environment, with the origin of each value.

Nothing is ignored: an unreadable file and an unknown name raise ConfigError.
"""

import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from platformdirs import user_config_path

from soulspot.errors import ConfigError

PREFIX: Final = "SOULSPOT_"
SYSTEM_CONFIG: Final = Path("/etc/soulspot/config.toml")

_CONFIG: Final = f"{PREFIX}CONFIG"
_TOML_SECTION: Final = re.compile(r"""\s*\[+\s*["']?([\w.-]+)["']?\s*\]""")
_TOML_KEY: Final = re.compile(r"""\s*["']?([\w.-]+)["']?\s*=""")


@dataclass(frozen=True, slots=True)
class Source:
    """The values of one source by section and name, and the origin of each setting by its full name."""

    values: Mapping[str, Mapping[str, Any]]
    origins: Mapping[str, str]


def variable(name: str) -> str:
    """Return the environment variable of a setting such as `log.level`."""
    return PREFIX + name.upper().replace(".", "__")


def read_files(config_file: Path | None, names: Collection[str]) -> Iterator[Source]:
    """Read the file named on the command line, else in the environment, else the two usual files."""
    if named := config_file or os.environ.get(_CONFIG):
        file = Path(os.path.abspath(os.path.expanduser(named)))
        if (source := _read_file(file, names)) is None:
            raise ConfigError(
                f"the configuration file {file} does not exist: correct {'--config' if config_file else _CONFIG}"
            )
        yield source
        return
    places = [SYSTEM_CONFIG]
    with suppress(RuntimeError):  # a user without a home folder
        own = user_config_path("soulspot") / "config.toml"
        if os.path.exists(own):  # else a home that this user may not enter (`sudo -u`, ProtectHome=)
            places.append(own)
    for place in places:
        if (source := _read_file(place, names)) is not None:
            yield source


def read_credentials(names: Collection[str]) -> Source:
    """Read the systemd credentials (LoadCredential=) named like a setting, such as "database.url"."""
    values: dict[str, dict[str, Any]] = {}
    origins = {}
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    for name in names if folder else ():
        file = Path(str(folder), name)
        try:
            text = file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the credential {file}: correct LoadCredential={name}:/PATH in the unit"
            ) from error
        section, _, short = name.partition(".")
        values.setdefault(section, {})[short] = text
        origins[name] = f"{name} in the credential {file}"
    return Source(values, origins)


def find_variables(names: Collection[str]) -> dict[str, str]:
    """Return the name of the environment variable of each setting that has one."""
    ours = {variable(name): name for name in names}
    found = {}
    for written, value in sorted(os.environ.items()):
        if not written.upper().startswith(PREFIX) or written == _CONFIG:
            continue
        if written.upper() not in ours:
            wrong = written[len(PREFIX) :].lower().replace("__", ".")
            raise ConfigError(
                f"the environment variable {written} is not a setting{_hint(wrong, [*names, 'config'], variable)}"
            )
        if value:
            found[ours[written.upper()]] = written
    return found


def masked(url: str) -> str:
    """Return a URL without its passwords, even if it is misspelt."""
    url = re.sub(r"((?:pass\w*|pwd)=)[^&]*", r"\1***", url, flags=re.IGNORECASE)
    scheme, found, rest = url.partition("://") if "://" in url else ("", "", url)
    credentials, at, host = rest.rpartition("@")
    if at:
        user, colon, _password = credentials.partition(":")
        rest = f"{user}:***@{host}" if colon else rest
    else:  # there is no host: what is not a port may be a password
        rest = re.sub(r"^([^/?:]*:)(?![0-9]+(?:[/?]|$)).+", r"\1***", rest)
    return scheme + found + rest


def why(error: OSError) -> str:
    """Return the system's message without path and number."""
    return (error.strerror or str(error)).lower()


def _read_file(file: Path, names: Collection[str]) -> Source | None:
    """Read a TOML file; return None if it does not exist."""
    try:
        text = file.read_bytes().decode()
        values = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration file {file} ({why(error)}): fix that or name another with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration file {file} is not UTF-8: save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).partition(" (at ")
        line = place.partition(",")[0].removeprefix("line ")
        where = f"{file}, line {line}" if line.isdigit() else f"{file}, at its end"
        raise ConfigError(f"{where}: invalid TOML: {what[:1].lower()}{what[1:]}") from error
    lines, origins = _lines(text), {}
    for section, name in _names_in(values):
        line_number = lines.get(name) or lines.get(section)
        where = f"{file}, line {line_number}" if line_number else str(file)
        if name in names:
            origins[name] = f"{name} in {where}"
        elif values[section] != {} or not _inside(section, names):
            raise ConfigError(f"{where}: there is no setting {name}{_hint(name, names, str)}")
    return Source(values, origins)


def _names_in(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for section, given in values.items():
        if isinstance(given, dict) and given:
            yield from ((section, f"{section}.{name}") for name in given)
        else:
            yield section, section


def _lines(text: str) -> dict[str, int]:
    """Return the line number of each section and setting, which tomllib does not report."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.split("\n"), 1):
        if (header := _TOML_SECTION.match(line)) is not None:
            section = header[1]
            lines.setdefault(section, number)
        elif (key := _TOML_KEY.match(line)) is not None:
            lines.setdefault(f"{section}.{key[1]}" if section else key[1], number)
    return lines


def _inside(section: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(f"{section}.")]


def _hint(wrong: str, names: Collection[str], shown: Callable[[str], str]) -> str:
    """Return the end of the message about a wrong name."""
    import difflib

    if inside := _inside(wrong, names):
        return f" but a section, of {', '.join(map(shown, inside))}"
    ends = {name.rpartition(".")[2]: name for name in names}
    if close := difflib.get_close_matches(wrong, [*names, *ends], n=1):
        return f": did you mean {shown(ends.get(close[0], close[0]))}?"
    return f": there are {', '.join(map(shown, names))}"
