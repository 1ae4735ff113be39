"""The command line: every command, in the order of the help. The only place that prints.

Imports only typer. Each command imports what it needs when it runs, so `soulspot --version` and shell completion answer
at once.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Final, NoReturn

import typer

from soulspot import __version__
from soulspot.cli.arguments import admin, catalogue, daemon, database, failures
from soulspot.errors import SoulspotError

app = typer.Typer(
    name="soulspot",
    help="Watch music folders and keep an exact catalogue of them, with a history of every change.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS: Final = (
    daemon.watch,
    daemon.scan,
    daemon.status,
    daemon.health,
    daemon.top,
    catalogue.tracks,
    catalogue.artists,
    catalogue.audit,
    catalogue.albums,
    catalogue.duplicates,
    catalogue.track,
    catalogue.explain,
    catalogue.verify,
    catalogue.purge,
    daemon.reload,
    daemon.pause,
    daemon.resume,
    daemon.web,
    admin.doctor,
)
_GROUPS: Final[Mapping[str, tuple[str, Mapping[str, Callable[..., None]]]]] = {
    "failures": (
        "Files that could not be read: list, explain, retry, ignore.",
        {
            "list": failures.failures_list,
            "show": failures.failures_show,
            "retry": failures.failures_retry,
            "ignore": failures.failures_ignore,
        },
    ),
    "config": (
        "Show the settings and check that they are valid.",
        {
            "show": admin.config_show,
            "check": admin.config_check,
            "init": admin.config_init,
        },
    ),
    "service": (
        "Run soulspot as a systemd service.",
        {
            "install": admin.service_install,
            "uninstall": admin.service_uninstall,
        },
    ),
    "db": (
        "Maintain the catalogue's database: schema, backups, integrity.",
        {
            "upgrade": database.db_upgrade,
            "downgrade": database.db_downgrade,
            "copy": database.db_copy,
            "current": database.db_current,
            "check": database.db_check,
            "backup": database.db_backup,
            "restore": database.db_restore,
            "trim": database.db_trim,
            "vacuum": database.db_vacuum,
            "partition": database.db_partition,
        },
    ),
}


for _command in _COMMANDS:
    app.command()(_command)
for _name, (_text, _commands) in _GROUPS.items():
    _group = typer.Typer(help=_text, no_args_is_help=True)
    for _each, _command in _commands.items():
        _group.command(_each)(_command)
    app.add_typer(_group, name=_name)


def run() -> None:
    """Run the command line; an error that the user can fix is one line with its own exit code."""
    _reopen_standard_streams()
    try:
        app()
    except SoulspotError as error:
        _refuse(error)
    except BaseExceptionGroup as group:
        fixable: BaseException | None = group.subgroup(SoulspotError)
        while isinstance(fixable, BaseExceptionGroup):
            fixable = fixable.exceptions[0]
        if not isinstance(fixable, SoulspotError):
            raise
        _refuse(fixable)


def _reopen_standard_streams() -> None:
    """Reopen descriptors 0 to 2 if the parent closed them, so that no soulspot file becomes standard error."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - standard error
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - stays open
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _refuse(error: SoulspotError) -> NoReturn:
    from soulspot.cli.output import logs

    logs.print_error(error)
    sys.exit(error.exit_code)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"soulspot {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Watch music folders and keep an exact catalogue of them, with a history of every change."""
