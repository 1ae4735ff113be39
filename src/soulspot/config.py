"""The settings: what there is to set, and where it is read from.

Later beats earlier: the defaults, /etc/soulspot/config.toml, the user's own config.toml, systemd's credentials, the
environment (SOULSPOT_ before the name, `__` between its parts), the folders of the command line. `--config FILE` or
$SOULSPOT_CONFIG takes the place of the two files. Nothing is created here, and nothing is passed over: a name that is
none of ours is an error.
"""

import errno
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import unquote

from platformdirs import user_data_path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from soulspot.config_outlets import SECRETS, MetricsSettings, OnBatchSettings, WebSettings
from soulspot.config_sources import PREFIX, Source, find_variables, masked, read_credentials, read_files, variable, why
from soulspot.config_values import Number, Section, Texts, absolute, no_truth
from soulspot.errors import CatalogueError, ConfigError

SYSTEM_DATABASE: Final = Path("/var/lib/soulspot/soulspot.db")

_SQLITE: Final = "sqlite+aiosqlite"
_POSTGRESQL: Final = "postgresql+asyncpg"
_DRIVERS: Final = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL, "postgres": _POSTGRESQL}
_SQLITE_FORM: Final = f"{_SQLITE}:////PATH (four slashes before an absolute path)"
_POSTGRESQL_FORM: Final = f"{_POSTGRESQL}://USER:PASSWORD@HOST/NAME"
# As SQLAlchemy reads it, but stricter with an @ in a password: it would take what follows for the host.
_POSTGRESQL_REST: Final = re.compile(r"([^:/@]*(:[^@]*)?@)?(\[[^/?@]+\]|[^/:?@]*)(:[0-9]+)?/[^?@]+(\?.*)?")

_ABSENT: Final = "not there"
_ALLOWED: Final = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "byte_size": "a size such as 512MiB",
    "byte_size_unit": "a size such as 512MiB",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list of paths",
    "path_type": "a path",
    "string_type": "a text",
}
_BOUNDS: Final = {"ge": "at least", "gt": "more than", "le": "at most"}


def own_state_folder() -> Path:
    """Return where this user's soulspot, or this service, keeps what it has to keep."""
    # systemd gives the folder of StateDirectory=, or several with colons between.
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    try:
        return absolute(Path(state) if state else user_data_path("soulspot"))
    except RuntimeError as error:
        msg = f"there is no home folder to keep the catalogue in: set HOME or {variable('database.url')}"
        raise ConfigError(msg) from error


def _own_database() -> Path:
    return own_state_folder() / "soulspot.db"


def _sqlite_url(file: Path) -> str:
    path = str(file).replace("%", "%25").replace("?", "%3F")  # SQLAlchemy unquotes it
    return f"{_SQLITE}:///{path}"


# The validators' messages end the sentence "... is X: it has to be".


def _checked_url(url: str) -> str:
    scheme, found, rest = url.partition("://")
    driver = _DRIVERS.get(scheme.partition("+")[0])
    if not found or driver is None:
        msg = f"{_SQLITE_FORM} or {_POSTGRESQL_FORM}"
        raise ValueError(msg)
    if scheme != driver:
        msg = f"a URL that begins with {driver}:// in place of {scheme}://"
        raise ValueError(msg)
    if driver == _POSTGRESQL:
        if _POSTGRESQL_REST.fullmatch(rest) is None:
            msg = f"{_POSTGRESQL_FORM}, with %40 for an @ in the password"
            raise ValueError(msg)
        return url
    file = database_file(url)
    if file is None or not rest.startswith("/") or rest.startswith("/file:"):
        msg = f"the URL of a file, {_SQLITE_FORM}"
        raise ValueError(msg)
    _path, mark, query = rest.partition("?")
    return _sqlite_url(file) + mark + query


def _split(value: object) -> object:
    """Read a list from one text: JSON, or paths with colons between."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.startswith("[") else [part for part in value.split(":") if part]
        except json.JSONDecodeError as error:
            msg = "a JSON list of paths, or paths with colons between"
            raise ValueError(msg) from error
    if isinstance(value, list) and "" in value:
        msg = "a list of paths with none of them empty"
        raise ValueError(msg)
    return value


def _socket(path: str) -> str:
    return str(absolute(Path(path))) if path else path


def _mode(value: object) -> object:
    text = f"{value:04o}" if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or re.fullmatch("0?[67][0-7]{2}", text) is None:
        msg = 'a mode such as "0660", in which the owner may read and write'
        raise ValueError(msg)
    return text


def _log_format(value: object) -> object:
    return value.lower().replace("color", "colour") if isinstance(value, str) else value


class DatabaseSettings(Section):
    url: Annotated[str, AfterValidator(_checked_url)] = Field(
        default_factory=lambda: _sqlite_url(_own_database()),
        repr=False,  # it may hold a password
        description=f"Where the catalogue is: `{_SQLITE}:////PATH` or `{_POSTGRESQL_FORM}`.",
    )
    connections: int = Field(
        default=32,
        ge=1,
        le=100,
        description="Connections that write to PostgreSQL at once, at most: four, and three for each millisecond that"
        " it is away; five more read, and hold the lock.",
    )
    upgrade: bool = Field(
        default=True, description="Bring the schema up to date at start, an SQLite file copied first."
    )
    synchronous: Annotated[
        Literal["NORMAL", "FULL"], BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)
    ] = Field(
        default="NORMAL",
        description="How SQLite syncs: `FULL` keeps the last changes through a power cut, `NORMAL` (quicker) makes them"
        " again at the next start.",
    )


class LibrarySettings(Section):
    folders: Annotated[list[Annotated[Path, AfterValidator(absolute)]], NoDecode, BeforeValidator(_split)] = Field(
        default_factory=list,
        description="The music folders: a list, or one text with colons between; `~` is your home folder.",
    )
    node: Annotated[str, Field(max_length=255)] = Field(
        default="",
        description="The name of this machine in a catalogue that several share; by default that of the host.",
    )
    quiet_period: Number = Field(
        default=2.0,
        ge=0,
        le=3600,
        description="Seconds without a change after which a file counts as complete, where no lease can be had.",
    )
    missing_after: Number = Field(
        default=10.0, ge=0, le=86400, description="Seconds of absence after which a file counts as missing."
    )
    reconcile_interval: Number = Field(
        default=900.0,
        ge=1,
        le=604800,
        description="Seconds between two comparisons of every folder with the catalogue.",
    )
    poll_interval: Number = Field(
        default=60.0,
        ge=1,
        le=604800,
        description="The same for what lies on network and FUSE file systems, whose changes the kernel does not tell.",
    )
    leases: bool = Field(
        default=True,
        description="Ask the kernel (Linux) whether a file is still open for writing, so that a complete one need not"
        " wait for the quiet period.",
    )
    hidden: bool = Field(
        default=False, description="Catalogue files and folders whose name begins with a dot too, else left alone."
    )
    ignore: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        default_factory=list,
        description="Patterns of what is left alone, as in a `.gitignore`; `.soulspotignore` files in the folders add"
        " theirs.",
    )
    follow_links: bool = Field(
        default=False, description="Follow symbolic links that lead to a place in the same music folder."
    )


class TagsSettings(Section):
    workers: Annotated[int, BeforeValidator(no_truth)] = Field(
        default=0, ge=0, le=64, description="Processes that read tags; 0 means one for each core, at most 4."
    )
    memory_limit: ByteSize = Field(
        default=ByteSize(512 * 1024**2),
        ge=128 * 1024**2,
        description="Memory that each of these processes may take, in bytes or as a text such as `512MiB`.",
    )
    time_limit: Number = Field(default=20.0, gt=0, le=3600, description="Seconds that reading one file may take.")


class ArtistsSettings(Section):
    separators: Texts = Field(
        default_factory=list,
        description='What stands between two names in one tag, such as `["; ", " / "]`; by default a name is never'
        " split.",
    )
    keep_whole: Texts = Field(
        default_factory=list,
        description='Names that hold a separator and are never split there, such as `["AC/DC"]`.',
    )
    featured: bool = Field(
        default=False,
        description="Take who is named behind `feat.`, `ft.` or `featuring` in artist or title for a featured artist.",
    )


class AuditSettings(Section):
    keep_days: Annotated[int, BeforeValidator(no_truth)] = Field(
        default=0,
        ge=0,
        le=36500,
        description="Days that the history is kept, but for the first and the latest entry of what is there; 0 means"
        " for ever.",
    )


class LogSettings(Section):
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    ] = Field(default="info", description="The least that is logged: `debug`, `info`, `warning` or `error`.")
    format: Annotated[Literal["auto", "plain", "colour", "json"], BeforeValidator(_log_format)] = Field(
        default="auto",
        description="How: `plain`, `colour`, `json` (an object a line), or `auto`, which is `colour` on a terminal and"
        " else `plain`.",
    )


class ControlSettings(Section):
    socket: Annotated[str, AfterValidator(_socket)] = Field(
        default="",
        description="The control socket; by default beside an SQLite catalogue, for PostgreSQL in `$RUNTIME_DIRECTORY`"
        " (systemd) or the user's own runtime folder.",
    )
    mode: Annotated[str, BeforeValidator(_mode)] = Field(
        default="0660", description="Its mode: who may open it may ask for what only reads."
    )
    group: str = Field(default="", description="Its group, by name or number; by default that of the daemon.")


class Settings(BaseSettings):
    """Everything that can be set. `get_settings` reads it from every place, and explains what is wrong."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # a password would show in a traceback
    )

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    library: LibrarySettings = Field(default_factory=LibrarySettings)
    tags: TagsSettings = Field(default_factory=TagsSettings)
    artists: ArtistsSettings = Field(default_factory=ArtistsSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    control: ControlSettings = Field(default_factory=ControlSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    on_batch: OnBatchSettings = Field(default_factory=OnBatchSettings)
    web: WebSettings = Field(default_factory=WebSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    def with_folders(self, folders: Sequence[Path]) -> Self:
        """Return the same settings with other music folders."""
        return self.model_copy(update={"library": self.library.model_copy(update={"folders": list(folders)})})


def get_settings(*, config_file: Path | None = None, folders: Sequence[Path] = ()) -> Settings:
    """Return the settings, read anew; `config_file` and `folders` are those of the command line.

    Raises ConfigError, one sentence, for whatever cannot be meant.
    """
    values, origins = _read(config_file, folders)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from error
    _check_nesting(settings.library.folders, settings.library.folders)
    return settings


def describe_settings(*, config_file: Path | None = None) -> list[tuple[str, str, str]]:
    """Return each setting: its name, its value as TOML has it but without a password, and where it comes from."""
    settings, (_values, origins) = get_settings(config_file=config_file), _read(config_file, ())
    described = []
    for name in settings_fields():
        section, _, short = name.partition(".")
        value = getattr(getattr(settings, section), short)
        value = masked(value) if name == "database.url" else value
        described.append((name, _shown(value), origins.get(name, "the default").removeprefix(f"{name} in ")))
    return described


def example_file() -> str:
    """Return a TOML file with every setting, its meaning and its default, all of them commented out."""
    lines = ["# soulspot: every setting with its default. Take the # away from what you change."]
    section = ""
    for name, each in settings_fields().items():
        if not name.startswith(f"{section}.") or not section:
            section = name.partition(".")[0]
            lines += ["", f"[{section}]"]
        default = f"{_SQLITE}:////PATH" if name == "database.url" else each.get_default(call_default_factory=True)
        lines += ["", *wrap(f"# {each.description}", 100, subsequent_indent="# ")]
        lines.append(f"#{name.partition('.')[2]} = {_shown(default)}")
    return "\n".join(lines) + "\n"


def check_library(settings: Settings, known: Collection[Path] = ()) -> None:
    """Raise ConfigError unless the music folders can be watched; one in `known` may be absent, and is then offline."""
    folders = settings.library.folders
    if not folders:
        msg = f"no music folder was given: name one on the command line or set {variable('library.folders')}"
        raise ConfigError(msg)
    for folder in folders:
        _check_folder(folder, is_known=folder in known)
    real = [Path(os.path.realpath(folder)) for folder in folders]
    _check_nesting(folders, real)
    if (file := database_file(settings.database.url)) is None:
        return
    for folder, place in zip(folders, real, strict=True):
        if Path(os.path.realpath(file)).is_relative_to(place):
            msg = (
                f"the database {file} lies in the music folder {folder}, where each of its own writes would wake the"
                f" watcher: set {variable('database.url')} to a place outside"
            )
            raise ConfigError(msg)


def database_file(url: str) -> Path | None:
    """Return the file of an SQLite URL, absolute; None for PostgreSQL and for a database in memory."""
    scheme, _, rest = url.partition("://")
    path = unquote(rest.partition("?")[0].removeprefix("/"))
    return absolute(Path(path)) if scheme.startswith("sqlite") and path not in {"", ":memory:"} else None


def state_file() -> Path:
    """Return where a catalogue is kept that is not set elsewhere; other private files lie beside it."""
    return _own_database()


def places_to_read() -> list[Path]:
    """Return where a command that only reads looks for the catalogue when no setting names it."""
    return list(dict.fromkeys((_own_database(), SYSTEM_DATABASE)))


def find_catalogue(settings: Settings) -> str:
    """Return the URL of the catalogue to read: the one that was set, else the first of `places_to_read` that is there.

    Raises CatalogueError that says which places were tried.
    """
    url = settings.database.url
    if "url" not in settings.database.model_fields_set:
        faults = {}
        for place in places_to_read():
            if (fault := _why_unreadable(place)) is None:
                return _sqlite_url(place)
            faults[place] = fault
        tried = " or ".join(f"{place} ({fault})" for place, fault in faults.items())
        msg = (
            f"there is no catalogue to read at {tried}: `soulspot watch FOLDER` or `soulspot scan FOLDER` makes one,"
            f" {variable('database.url')} names another"
        )
        raise CatalogueError(msg)
    file = database_file(url)
    if file is None or (fault := _why_unreadable(file)) is None:
        return url
    if fault == _ABSENT:
        msg = f"there is no catalogue at {file} yet: `soulspot watch` or `soulspot scan` makes it"
    else:
        msg = f"the catalogue {file} cannot be read ({fault}): give this user the right to, or set another database.url"
    raise CatalogueError(msg)


def _read(config_file: Path | None, folders: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what every place sets, the later one's value where two set the same, and where each value was found."""
    names = settings_fields()
    sources = [*read_files(config_file, names), read_credentials(names)]
    variables = find_variables(names)  # first: of a misspelt one the next line would say less
    sources.append(Source(EnvSettingsSource(Settings)(), variables))
    if folders:
        sources.append(Source({"library": {"folders": list(folders)}}, {"library.folders": "the command line"}))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source in sources:
        origins |= source.origins
        for section, given in source.values.items():
            values[section] = values.get(section, {}) | given
    return values, origins


def settings_fields() -> dict[str, FieldInfo]:
    """Return each setting by its whole name, as in `library.folders`."""
    sections = {section: each.annotation for section, each in Settings.model_fields.items()}
    return {
        f"{section}.{name}": each
        for section, model in sections.items()
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name, each in model.model_fields.items()
    }


def settings_table() -> str:
    """Return every setting as a table in Markdown, as README.md and docs/configuration.md show it."""
    rows = ["| in TOML | environment variable | default | meaning |", "|---|---|---|---|"]
    for name, each in settings_fields().items():
        url = "`soulspot.db` in `$STATE_DIRECTORY` (systemd), else in the user's data folder"
        default = url if name == "database.url" else f"`{_shown(each.get_default(call_default_factory=True))}`"
        rows.append(f"| `{name}` | `{variable(name)}` | {default} | {each.description} |")
    return "\n".join(rows)


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """Return what the first wrong value is, where it came from and what is allowed."""
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"][:2]))
    given, context = _shown(first["input"]), first.get("ctx", {})
    if name in SECRETS:
        given = "***"
    elif name == "database.url" or "://" in given:
        given = _shown(masked(first["input"])) if isinstance(first["input"], str) else masked(given)
    bound = next((bound for bound in _BOUNDS if bound in context), None)
    if first["type"] == "value_error":
        allowed = str(context["error"])
    elif bound is not None:
        limit = context[bound]
        size = settings_fields()[name].annotation is ByteSize
        allowed = f"{_BOUNDS[bound]} {_shown(ByteSize(limit)) if size else f'{limit:g}'}"
    elif first["type"] == "literal_error":
        allowed = context["expected"]
    else:
        allowed = _ALLOWED.get(first["type"], first["msg"].removeprefix("Input should be ").partition(", ")[0])
    return f"{origins.get(name, name)} is {given}: it has to be {allowed}"


def _shown(value: object) -> str:
    if isinstance(value, ByteSize):
        value = value.human_readable().replace(".0", "")
    return json.dumps(value, default=str, ensure_ascii=False)


def _check_folder(folder: Path, *, is_known: bool) -> None:
    try:
        with os.scandir(folder):  # the right to list
            os.stat(os.path.join(folder, "."))  # the right to look at what is inside
    except OSError as error:
        if error.errno == errno.ENOTDIR and os.path.exists(folder):
            msg = f"the music folder {folder} is a file: name the folder that holds it"
        elif isinstance(error, PermissionError):
            msg = f"the music folder {folder} cannot be read: give this user the right to read and search it"
        elif is_known:
            return
        elif error.errno in {errno.ENOENT, errno.ENOTDIR}:
            msg = f"the music folder {folder} was never there: create it or correct the path"
        else:
            msg = f"the music folder {folder} cannot be looked at ({why(error)}): mend that or correct the path"
        raise ConfigError(msg) from error


def _check_nesting(folders: Sequence[Path], places: Sequence[Path]) -> None:
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


def _why_unreadable(file: Path) -> str | None:
    # It is not opened: closing it would take away the locks that SQLite may hold on it in this process.
    try:
        os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    except OSError as error:
        return why(error)
    effective = os.access in os.supports_effective_ids
    return None if os.access(file, os.R_OK, effective_ids=effective) else os.strerror(errno.EACCES).lower()
