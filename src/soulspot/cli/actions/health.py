"""`soulspot health`: the daemon's health in one line and one exit code, without reading the catalogue."""

from pathlib import Path
from typing import Final

import typer

from soulspot.cli.output.text import print_json, printable
from soulspot.config import daemon_address, get_settings
from soulspot.config.catalogue import find_catalogue

EXIT: Final = {"ok": 0, "degraded": 1, "paused": 1, "failed": 2}


def health(config: Path | None, *, as_json: bool) -> None:
    settings = get_settings(config_file=config)
    answer = daemon_address.ask(settings, find_catalogue(settings), "status")
    if answer is None or "health" not in answer:
        answer = {"health": "failed", "reasons": ["no soulspot answers"], "pid": None}
    state, reasons = answer["health"], answer["reasons"]
    if as_json:
        print_json({"health": state, "reasons": reasons, "pid": answer["pid"]})
    else:
        print(f"{state}: {printable('; '.join(reasons))}" if reasons else state)
    raise typer.Exit(EXIT[state])
