"""Arguments and help of the commands for an admin: doctor, config, service."""

from pathlib import Path
from typing import Annotated

import typer

from soulspot.cli.arguments.shared import ConfigOption, JsonOption


def doctor(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Look for what is wrong, and say what mends it; exit 1 for a warning, 2 for a fault. Changes nothing."""
    from soulspot.cli.actions import doctor

    doctor.doctor(config, as_json=as_json)


def config_show(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """List every setting, its value and where that comes from; passwords are not shown."""
    from soulspot.cli.actions import configuration

    configuration.show(config, as_json=as_json)


def config_check(config: ConfigOption = None) -> None:
    """Say whether the settings can be meant; exit 78 with the place and what is allowed where they cannot."""
    from soulspot.cli.actions import configuration

    configuration.check(config)


def config_init(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Else /etc/soulspot/config.toml for root, or your own.")
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a file with every setting, commented, to start from."""
    from soulspot.cli.actions import configuration

    configuration.init(file, overwrite=force)


UserOption = Annotated[bool, typer.Option("--user", help="For this user alone, and not for the system.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def service_install(
    *,
    user: UserOption = False,
    web: Annotated[bool, typer.Option("--web", help="With the page, at 127.0.0.1:8337.")] = False,
    yes: YesOption = False,
) -> None:
    """Write the units and enable them, after showing what will be done."""
    from soulspot.cli.actions import service as units

    units.install(for_user=user, with_web=web, without_asking=yes)


def service_uninstall(*, user: UserOption = False, yes: YesOption = False) -> None:
    """Stop the service and take its units away; the catalogue and the settings stay."""
    from soulspot.cli.actions import service as units

    units.uninstall(for_user=user, without_asking=yes)
