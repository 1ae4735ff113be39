"""Every section of the settings, and what each setting may be."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from soulspot.config.field_types import Number, Section, Texts, absolute, no_truth
from soulspot.config.outlet_sections import MetricsSettings, OnBatchSettings, WebSettings
from soulspot.config.paths import POSTGRESQL_FORM, SQLITE, checked_url, own_database, sqlite_url
from soulspot.config.sources import PREFIX


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
    url: Annotated[str, AfterValidator(checked_url)] = Field(
        default_factory=lambda: sqlite_url(own_database()),
        repr=False,  # it may hold a password
        description=f"Where the catalogue is: `{SQLITE}:////PATH` or `{POSTGRESQL_FORM}`.",
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
