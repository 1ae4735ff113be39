"""Documents the settings: a table, an example file, each value with its source."""

from operator import attrgetter
from pathlib import Path
from textwrap import wrap

from soulspot.config.loading import get_settings, read_values, settings_fields, shown
from soulspot.config.paths import SQLITE
from soulspot.config.sources import masked, variable


def describe_settings(*, config_file: Path | None = None) -> list[dict[str, str]]:
    """Return the name of each setting, its value in TOML without passwords, and its origin."""
    settings, (_values, origins) = get_settings(config_file=config_file), read_values(config_file, ())
    return [
        {
            "name": name,
            "value": shown(masked(settings.database.url) if name == "database.url" else attrgetter(name)(settings)),
            "origin": origins.get(name, "the default").removeprefix(f"{name} in "),
        }
        for name in settings_fields()
    ]


def example_file() -> str:
    """Return a TOML file with the meaning and default of every setting, all commented out."""
    lines = ["# soulspot: every setting with its default. Uncomment what you change."]
    section = ""
    for name, each in settings_fields().items():
        if not name.startswith(f"{section}.") or not section:
            section = name.partition(".")[0]
            lines += ["", f"[{section}]"]
        default = f"{SQLITE}:////PATH" if name == "database.url" else each.get_default(call_default_factory=True)
        lines += ["", *wrap(f"# {each.description}", 100, subsequent_indent="# ")]
        lines.append(f"#{name.partition('.')[2]} = {shown(default)}")
    return "\n".join(lines) + "\n"


def settings_table() -> str:
    """Return all settings as a Markdown table for docs/configuration.md."""
    rows = ["| in TOML | environment variable | default | meaning |", "|---|---|---|---|"]
    for name, each in settings_fields().items():
        url = "`soulspot.db` in `$STATE_DIRECTORY` (systemd), else in the user's data folder"
        default = url if name == "database.url" else f"`{shown(each.get_default(call_default_factory=True))}`"
        rows.append(f"| `{name}` | `{variable(name)}` | {default} | {each.description} |")
    return "\n".join(rows)
