"""Arguments and help of the commands for an admin: doctor, config, service."""

from pathlib import Path
from typing import Annotated

import typer

from soulspot.cli import actions
from soulspot.cli.arguments.shared import ConfigOption, JsonOption


def doctor(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Check the installation and say how to fix what is wrong; exit 1 for a warning, 2 for a fault. Changes nothing."""
    actions.doctor.doctor(config, as_json=as_json)


def config_show(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """List every setting with its value and where the value comes from; passwords are hidden."""
    actions.configuration.show(config, as_json=as_json)


def config_check(config: ConfigOption = None) -> None:
    """Check that the settings are valid; if not, exit 78 and say where the error is and what is allowed."""
    actions.configuration.check(config)


def config_init(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="Where to write; by default /etc/soulspot/config.toml for root, else your own file."
        ),
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a configuration file with every setting explained and commented out."""
    actions.configuration.init(file, overwrite=force)


UserOption = Annotated[bool, typer.Option("--user", help="For this user only, not for the whole system.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def service_install(
    *,
    user: UserOption = False,
    web: Annotated[bool, typer.Option("--web", help="Install the web page too, at 127.0.0.1:8337.")] = False,
    yes: YesOption = False,
) -> None:
    """Install and enable the systemd units, after showing what it will do."""
    actions.service.install(for_user=user, with_web=web, without_asking=yes)


def service_uninstall(*, user: UserOption = False, yes: YesOption = False) -> None:
    """Stop the service and remove its units; the catalogue and the settings stay."""
    actions.service.uninstall(for_user=user, without_asking=yes)
