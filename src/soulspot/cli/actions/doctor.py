"""`soulspot doctor`: prints the findings about the installation."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Final

import typer

from soulspot.cli.actions.doctor_checks import Finding, diagnose
from soulspot.cli.output import logs
from soulspot.cli.output.text import print_json, printable

EXIT: Final = {"OK": 0, "WARN": 1, "FAIL": 2}


def doctor(config: Path | None, *, as_json: bool) -> None:
    logs.set_up("error")
    found = asyncio.run(_collect(config, as_json=as_json))
    worst = max((finding.level for finding in found), key=EXIT.__getitem__)
    if as_json:
        print_json({"state": worst, "findings": [asdict(finding) for finding in found]})
    raise typer.Exit(EXIT[worst])


async def _collect(config: Path | None, *, as_json: bool) -> list[Finding]:
    """Return all findings; print each as soon as it is known."""
    found = []
    async for finding in diagnose(config):
        found.append(finding)
        if not as_json:
            cure = f"\n      {'':<9} → {printable(finding.cure)}" if finding.cure else ""
            print(f"{finding.level:<5} {finding.check:<9} {printable(finding.text)}{cure}", flush=True)
    return found
