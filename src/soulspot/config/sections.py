"""Defines every section of the settings and the valid values of each setting."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from soulspot.config.field_types import Number, Section, Texts, absolute, absolute_text, not_boolean
from soulspot.config.outlet_sections import MetricsSettings, OnBatchSettings, WebSettings
from soulspot.config.paths import POSTGRESQL_FORM, SQLITE, checked_url, own_database, sqlite_url
from soulspot.config.sources import PREFIX


def _split(value: object) -> object:
    """Parse a list from one text: JSON, or paths separated by colons."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.startswith("[") else [part for part in value.split(":") if part]
        except json.JSONDecodeError as error:
            raise ValueError("a JSON list of paths, or paths separated by colons") from error
    if isinstance(value, list) and "" in value:
        raise ValueError("a list of paths, none of them empty")
    return value


def _mode(value: object) -> object:
    text = f"{value:04o}" if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or re.fullmatch("0?[67][0-7]{2}", text) is None:
        raise ValueError('a mode such as "0660" that lets the owner read and write')
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
        description="The most connections that write to PostgreSQL at once. soulspot uses four, and three more per"
        " millisecond of round-trip time; up to five others read and hold the lock.",
    )
    upgrade: bool = Field(default=True, description="Upgrade the schema at start; an SQLite file is backed up first.")
    synchronous: Annotated[
        Literal["NORMAL", "FULL"], BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)
    ] = Field(
        default="NORMAL",
        description="How SQLite syncs: `FULL` keeps the last changes through a power cut; `NORMAL` is faster and makes"
        " them again at the next start.",
    )


class LibrarySettings(Section):
    folders: Annotated[list[Annotated[Path, AfterValidator(absolute)]], NoDecode, BeforeValidator(_split)] = Field(
        default_factory=list,
        description="The music folders: a list, or one text separated by colons; `~` is your home folder.",
    )
    node: Annotated[str, Field(max_length=255)] = Field(
        default="",
        description="The name of this machine in a catalogue that several machines share; by default the host name.",
    )
    quiet_period: Number = Field(
        default=2.0,
        ge=0,
        le=3600,
        description="Seconds without a change after which a file counts as complete, if the kernel grants no lease.",
    )
    missing_after: Number = Field(
        default=10.0, ge=0, le=86400, description="Seconds of absence after which a file counts as missing."
    )
    reconcile_interval: Number = Field(
        default=900.0,
        ge=1,
        le=604800,
        description="Seconds between two full comparisons of the folders with the catalogue.",
    )
    poll_interval: Number = Field(
        default=60.0,
        ge=1,
        le=604800,
        description="The same for network and FUSE file systems, whose changes the kernel does not report.",
    )
    leases: bool = Field(
        default=True,
        description="Ask the kernel (Linux) whether a file is still open for writing, so that a complete file need not"
        " wait for the quiet period.",
    )
    hidden: bool = Field(default=False, description="Catalogue files and folders whose names start with a dot too.")
    ignore: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        default_factory=list,
        description="Patterns to ignore, as in a `.gitignore`; `.soulspotignore` files in the folders add more.",
    )
    follow_links: bool = Field(default=False, description="Follow symbolic links to places in the same music folder.")


class TagsSettings(Section):
    workers: Annotated[int, BeforeValidator(not_boolean)] = Field(
        default=0, ge=0, le=64, description="Processes that read tags; 0 means one per core, at most 4."
    )
    memory_limit: ByteSize = Field(
        default=ByteSize(512 * 1024**2),
        ge=128 * 1024**2,
        description="Memory that each of these processes may use, in bytes or as a text such as `512MiB`.",
    )
    time_limit: Number = Field(default=20.0, gt=0, le=3600, description="Seconds that reading one file may take.")


class ArtistsSettings(Section):
    separators: Texts = Field(
        default_factory=list,
        description='Separators between names in one tag, such as `["; ", " / "]`; by default names are never split.',
    )
    keep_whole: Texts = Field(
        default_factory=list,
        description='Names that contain a separator but are never split, such as `["AC/DC"]`.',
    )
    featured: bool = Field(
        default=False,
        description="Treat names after `feat.`, `ft.` or `featuring` in artist or title as featured artists.",
    )


class AuditSettings(Section):
    keep_days: Annotated[int, BeforeValidator(not_boolean)] = Field(
        default=0,
        ge=0,
        le=36500,
        description="Days to keep the history; the first and last entry of everything that exists stay. 0 means"
        " forever.",
    )


class LogSettings(Section):
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    ] = Field(default="info", description="The lowest level to log: `debug`, `info`, `warning` or `error`.")
    format: Annotated[Literal["auto", "plain", "colour", "json"], BeforeValidator(_log_format)] = Field(
        default="auto",
        description="The format: `plain`, `colour`, `json` (an object a line), or `auto`: `colour` on a terminal, else"
        " `plain`.",
    )


class ControlSettings(Section):
    socket: Annotated[str, AfterValidator(absolute_text)] = Field(
        default="",
        description="The control socket; by default beside an SQLite catalogue, for PostgreSQL in `$RUNTIME_DIRECTORY`"
        " (systemd) or the user's runtime folder.",
    )
    mode: Annotated[str, BeforeValidator(_mode)] = Field(
        default="0660", description="Its mode: every user who can open it may ask questions that only read."
    )
    group: str = Field(default="", description="Its group, by name or number; by default the daemon's.")


class Settings(BaseSettings):
    """All settings. `get_settings` reads them from all sources and explains what is wrong."""

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
