"""Reads the settings from all sources and explains the first wrong value.

Later sources win: the defaults, /etc/soulspot/config.toml, the user's own config.toml, systemd credentials, the
environment (SOULSPOT_ before the name, `__` between its parts), the folders on the command line. `--config FILE` or
$SOULSPOT_CONFIG replaces the two files. Reading creates nothing and ignores nothing: an unknown name is an error.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ByteSize, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from soulspot.config.library_check import check_nesting
from soulspot.config.outlet_sections import SECRETS
from soulspot.config.sections import Settings
from soulspot.config.sources import Source, find_variables, masked, read_credentials, read_files
from soulspot.errors import ConfigError

_ALLOWED: Final = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "byte_size": "a size such as 512MiB",
    "byte_size_unit": "a size such as 512MiB",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list of paths",
    "path_type": "a path",
    "string_type": "a text",
}
_BOUNDS: Final = {"ge": "at least", "gt": "more than", "le": "at most"}


def get_settings(*, config_file: Path | None = None, folders: Sequence[Path] = ()) -> Settings:
    """Read and return the settings; `config_file` and `folders` come from the command line.

    Raises ConfigError with one sentence about the first invalid setting.
    """
    values, origins = read_values(config_file, folders)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from error
    check_nesting(settings.library.folders, settings.library.folders)
    return settings


def read_values(config_file: Path | None, folders: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values from all sources, where later ones win, and the origin of each value."""
    names = settings_fields()
    sources = [*read_files(config_file, names), read_credentials(names)]
    variables = find_variables(names)  # first: it explains a misspelt name better than the next line
    sources.append(Source(EnvSettingsSource(Settings)(), variables))
    if folders:
        sources.append(Source({"library": {"folders": list(folders)}}, {"library.folders": "the command line"}))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source in sources:
        origins |= source.origins
        for section, given in source.values.items():
            values[section] = values.get(section, {}) | given
    return values, origins


def settings_fields() -> dict[str, FieldInfo]:
    """Return each setting by its full name, such as `library.folders`."""
    sections = {section: each.annotation for section, each in Settings.model_fields.items()}
    return {
        f"{section}.{name}": each
        for section, model in sections.items()
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name, each in model.model_fields.items()
    }


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """Describe the first wrong value: what it is, where it came from and what is allowed."""
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"][:2]))
    given, context = shown(first["input"]), first.get("ctx", {})
    if name in SECRETS:
        given = "***"
    elif name == "database.url" or "://" in given:
        given = shown(masked(first["input"])) if isinstance(first["input"], str) else masked(given)
    bound = next((bound for bound in _BOUNDS if bound in context), None)
    if first["type"] == "value_error":
        allowed = str(context["error"])
    elif bound is not None:
        limit = context[bound]
        size = settings_fields()[name].annotation is ByteSize
        allowed = f"{_BOUNDS[bound]} {shown(ByteSize(limit)) if size else f'{limit:g}'}"
    elif first["type"] == "literal_error":
        allowed = context["expected"]
    else:
        allowed = _ALLOWED.get(first["type"], first["msg"].removeprefix("Input should be ").partition(", ")[0])
    return f"{origins.get(name, name)} is {given}: it must be {allowed}"


def shown(value: object) -> str:
    if isinstance(value, ByteSize):
        value = value.human_readable().replace(".0", "")
    return json.dumps(value, default=str, ensure_ascii=False)
