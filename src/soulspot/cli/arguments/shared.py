"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Read the settings from this TOML file instead of the usual ones."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Words = Annotated[list[str] | None, typer.Argument(metavar="[WORD]...", help="Only entries that contain every word.")]
Folders = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FOLDER]...", help="Music folders instead of those in the settings."),
]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Print at most this many.")]
