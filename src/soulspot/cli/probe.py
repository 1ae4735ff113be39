"""The command for whoever looks after the daemon: one line, one exit code, and no look at the catalogue."""

from pathlib import Path
from typing import Final

import typer

from soulspot.cli.text import print_json, printable
from soulspot.config import database_file, find_catalogue, get_settings
from soulspot.infrastructure import control

EXIT: Final = {"ok": 0, "degraded": 1, "paused": 1, "failed": 2}


def health(config: Path | None, *, as_json: bool) -> None:
    file = database_file(find_catalogue(get_settings(config_file=config)))
    told = control.ask(control.socket_of(file), "status") if file else None
    if told is None or "health" not in told:
        told = {"health": "failed", "reasons": ["no soulspot answers"], "pid": None}
    state, reasons = told["health"], told["reasons"]
    if as_json:
        print_json({"health": state, "reasons": reasons, "pid": told["pid"]})
    else:
        print(f"{state}: {printable('; '.join(reasons))}" if reasons else state)
    raise typer.Exit(EXIT[state])
