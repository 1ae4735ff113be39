"""Carries out the commands, one module a command or group. Only `cli.arguments` imports it.

A module is imported when a command first uses it, as `actions.tracks`: all of them at once would slow each start.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soulspot.cli.actions import (  # noqa: F401 - for callers
        albums,
        audit,
        configuration,
        database,
        db_copy,
        doctor,
        duplicates,
        failures,
        health,
        purge,
        remote,
        service,
        status,
        top,
        track,
        tracks,
        verify,
        watch_scan,
        web,
    )


def __getattr__(name: str) -> ModuleType:
    if name.startswith("_"):
        raise AttributeError(name)
    return importlib.import_module(f"{__name__}.{name}")
